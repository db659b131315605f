"""What every request passes: names, origins, headers, compression, and bodies that do not come."""

import asyncio
import dataclasses
import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import websockets
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.transport.guard import LOOPBACK, SECURITY_HEADERS, GuardRules, guards
from app.api.transport.routes import api_routes
from tests.api.conftest import serving

VIEWER = {"query": "{ viewer { sandbox } }"}
PAGE = "https://app.example.com"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Guarded = Callable[..., Starlette]


@pytest.fixture
def guarded(services: ApiServices) -> Guarded:
    def make(clock: Any = None, **rules: Any) -> Starlette:
        middleware = guards(GuardRules(**rules), *([clock] if clock else []))
        return Starlette(routes=api_routes(services), middleware=middleware)

    return make


def client(app: Starlette) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost:8000")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000", "localhost."])
async def test_loopback_names(guarded: Guarded, host: str) -> None:
    async with client(guarded(hosts=LOOPBACK)) as http:
        assert (await http.post("/graphql", json=VIEWER, headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example:8000",
        "evil@localhost",
        "",
        "10.0.0.1",
        "[::2]",
    ],
)
async def test_a_page_that_rebinds_its_name_reads_nothing(guarded: Guarded, host: str) -> None:
    async with client(guarded(hosts=LOOPBACK)) as http:
        for path in ("/graphql", "/metrics", "/", "/docs"):
            response = await http.request("POST" if path == "/graphql" else "GET", path, headers={"host": host})
            assert response.status_code == 421, path
            assert response.json()["errors"][0]["extensions"] == {"code": "MISDIRECTED"}
        assert (await http.get("/health/live", headers={"host": host})).status_code == 200
        two = await http.post("/graphql", json=VIEWER, headers=[("host", "localhost"), ("host", host)])
        assert two.status_code == 421


async def test_further_hosts(guarded: Guarded) -> None:
    async with client(guarded(hosts=("gateway.example.com", "*.internal"))) as http:
        for host, status in {
            "gateway.example.com:443": 200,
            "a.b.internal": 200,
            "internal": 421,
            "localhost": 421,
        }.items():
            assert (await http.post("/graphql", json=VIEWER, headers={"host": host})).status_code == status, host
    async with client(guarded()) as http:
        assert (await http.post("/graphql", json=VIEWER, headers={"host": "any"})).status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "accepted"),
    [
        (None, None, True),
        ("http://{here}", None, True),
        (PAGE, None, True),
        ("https://evil.example", None, False),
        ("null", None, False),
        ("http://{here}.evil.example", None, False),
        ("http://evil.example", "evil.example", False),
    ],
)
async def test_sockets_of_foreign_pages(
    guarded: Guarded, services: ApiServices, origin: str | None, host: str | None, accepted: bool
) -> None:
    object.__setattr__(services, "origins", (PAGE,))
    async with serving(guarded(hosts=LOOPBACK, origins=(PAGE,))) as port:
        headers = {} if host is None else {"host": host}
        here = origin and origin.format(here=f"127.0.0.1:{port}")
        connect = websockets.connect(
            f"ws://127.0.0.1:{port}/graphql",
            subprotocols=[websockets.Subprotocol("graphql-transport-ws")],
            origin=None if here is None else websockets.Origin(here),
            additional_headers=headers,
        )
        if accepted:
            async with connect:
                return
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect
        assert refused.value.response.status_code == 403


async def test_pages_of_listed_origins_may_call(guarded: Guarded) -> None:
    ask = {
        "origin": PAGE,
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key",
    }
    async with client(guarded(origins=(PAGE,))) as http:
        allowed = await http.options("/graphql", headers=ask)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == PAGE
        assert "POST" in allowed.headers["access-control-allow-methods"]
        assert "access-control-allow-credentials" not in allowed.headers
        answer = await http.post("/graphql", json=VIEWER, headers={"origin": PAGE})
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "x-request-id" in answer.headers["access-control-expose-headers"]
        assert "Origin" in answer.headers["vary"]
        refused = await http.options("/graphql", headers=ask | {"origin": "https://evil.example"})
        assert refused.status_code == 400
        assert "access-control-allow-origin" not in refused.headers
        other = await http.post("/graphql", json=VIEWER, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in other.headers
        strange = await http.options("/graphql", headers=ask | {"access-control-request-headers": "x-forwarded-user"})
        assert strange.status_code == 400
    async with client(guarded(origins=(PAGE,), credentials=True)) as http:
        assert (await http.options("/graphql", headers=ask)).headers["access-control-allow-credentials"] == "true"
    async with client(guarded()) as http:
        assert "access-control-allow-origin" not in (await http.options("/graphql", headers=ask)).headers


async def test_every_answer_has_the_security_headers(guarded: Guarded) -> None:
    async with client(guarded(hosts=LOOPBACK)) as http:
        answers = [
            await http.post("/graphql", json=VIEWER),
            await http.post("/graphql", content=b"{", headers={"content-type": "application/json"}),
            await http.get("/health/live"),
            await http.get("/nowhere"),
            await http.post("/graphql", json=VIEWER, headers={"host": "evil.example"}),
        ]
        for answer in answers:
            assert SECURITY_HEADERS.items() <= dict(answer.headers).items(), answer
        page = await http.get("/docs", follow_redirects=True)
        assert "style-src 'self'" in page.headers["content-security-policy"]
        assert (page.headers["cache-control"], page.headers["x-frame-options"]) == ("no-cache", "DENY")


async def test_long_answers_are_compressed_and_streams_are_not(guarded: Guarded) -> None:
    introspection = {"query": "{ __schema { types { name description fields { name description } } } }"}
    async with client(guarded()) as http:
        plain = await http.post("/graphql", json=introspection, headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        async with http.stream("POST", "/graphql", json=introspection, headers={"accept-encoding": "gzip"}) as packed:
            assert packed.headers["content-encoding"] == "gzip"
            assert "Accept-Encoding" in packed.headers["vary"]
            raw = b"".join([chunk async for chunk in packed.aiter_raw()])
        assert gzip.decompress(raw) == plain.content
        assert len(raw) * 3 < len(plain.content)
        short = await http.post("/graphql", json=VIEWER, headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in short.headers
        events = await http.post("/graphql", json=introspection, headers={"accept": "text/event-stream"})
        assert "content-encoding" not in events.headers


async def call(app: Starlette, receive: Any) -> tuple[int, bytes]:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/graphql", "raw_path": b"/graphql", "query_string": b""}
    await app(scope | {"headers": headers, "client": ("127.0.0.1", 1), "http_version": "1.1"}, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def test_a_body_that_stops_coming(guarded: Guarded) -> None:
    parts = iter([{"type": "http.request", "body": b'{"query":', "more_body": True}])

    async def receive() -> Any:
        try:
            return next(parts)
        except StopIteration:
            return await asyncio.Event().wait()

    status, body = await call(guarded(idle_seconds=0.05), receive)
    assert (status, b"nothing of the body came for 0.05 seconds" in body) == (408, True)


async def test_a_body_that_comes_by_drops(guarded: Guarded) -> None:
    now = [0.0]

    async def receive() -> Any:
        now[0] += 20
        return {"type": "http.request", "body": b" ", "more_body": True}

    status, body = await call(guarded(clock=lambda: now[0]), receive)
    assert (status, b"less than 1,024 bytes a second" in body) == (408, True)
    assert now[0] == 40, "as soon as it is known"


async def test_a_body_that_announces_itself_too_large_is_not_read(services: ApiServices) -> None:
    small = dataclasses.replace(services.limits, max_body_bytes=2000)
    limited = ApiServices(services.database, services.lake, services.changes, services.clock, services.uploads, small)
    async with client(Starlette(routes=api_routes(limited))) as http:
        refused = await http.post("/graphql", json={"query": "#" * 3000})
    assert refused.status_code == 413
    message = refused.json()["errors"][0]["message"]
    assert message == "the body has 3,012 bytes, and at most 2,000 are taken: send files as multipart/form-data"


async def test_a_draining_server_is_not_ready_and_still_serves(guarded: Guarded, services: ApiServices) -> None:
    async with client(guarded()) as http:
        assert (await http.get("/health/ready")).status_code == 200
        services.draining.set()
        ready = await http.get("/health/ready")
        assert (ready.status_code, ready.json()["reason"]) == (503, "the server is stopping")
        assert (await http.post("/graphql", json=VIEWER)).status_code == 200
