"""Wrong credentials from one address, and streams of one caller: how many are taken, and what is said then."""

import asyncio
import json

import httpx
import pytest
import websockets

from app.api.context import ApiServices, Limits
from app.services.access import authentication
from tests.api.conftest import Api
from tests.api.test_rates import VIEWER, counted
from tests.api.test_socket_limits import begun, connected

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

CREATE = """mutation { createApiKey(input: { name: "a", permissions: ["read"] }) { secret apiKey { id } } }"""


@pytest.fixture
def limits() -> Limits:
    return Limits(rate_failed_logins=2, max_streams=1)


async def ask(api: Api, secret: str, peer: str = "10.0.0.1", path: str = "/graphql") -> httpx.Response:
    transport = httpx.ASGITransport(app=api.http._transport.app, client=(peer, 1234))  # type: ignore[attr-defined]
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        method = "POST" if path == "/graphql" else "GET"
        return await http.request(method, path, json=VIEWER, headers={"x-api-key": secret})


async def test_who_guesses_waits_and_who_was_right_goes_on(api: Api, services: ApiServices) -> None:
    proven, unproven = [(await api.query(CREATE))["createApiKey"]["secret"] for _ in range(2)]
    assert (await ask(api, proven)).status_code == 200
    assert [(await ask(api, f"sgk_{at}")).status_code for at in range(3)] == [401, 401, 429]
    refused = await ask(api, unproven)  # right, and not looked at
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "30")
    (error,) = refused.json()["errors"]
    assert error["message"] == (
        "more than 2 failed logins from this address a minute (rate_failed_logins): try again in 30 s"
    )
    assert error["extensions"] == {"code": "RATE_LIMITED", "name": "rate_failed_logins", "limit": 2, "retryAfter": 30}
    for path in ("/metrics", "/audiences/a/members.csv"):
        assert (await ask(api, "sgk_4", path=path)).status_code == 429
    assert counted(services, "rate_failed_logins") == 4
    assert (await ask(api, proven)).status_code == 200
    assert (await api.http.post("/graphql", json=VIEWER)).status_code == 200
    assert [(await ask(api, key, "10.0.0.2")).status_code for key in ("sgk_x", unproven)] == [401, 200]


@pytest.mark.parametrize(
    ("peers", "statuses"),
    [
        (("2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::1", "2001:db8:0:1::1"), [401, 401, 429, 401]),
        (("10.0.0.1", "::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"), [401, 401, 429, 401]),
    ],
)
async def test_addresses_of_one_host(api: Api, peers: tuple[str, ...], statuses: list[int]) -> None:
    assert [(await ask(api, "sgk_wrong", peer)).status_code for peer in peers] == statuses


async def test_credentials_that_end_are_no_longer_proven(
    api: Api, services: ApiServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "CREDENTIALS_KEPT", 1)
    keys = [(await api.query(CREATE))["createApiKey"] for _ in range(2)]
    first, second = [key["secret"] for key in keys]
    assert [(await ask(api, key)).status_code for key in (first, second, "sgk_1", "sgk_2")] == [200, 200, 401, 401]
    assert [(await ask(api, key)).status_code for key in (first, second)] == [429, 200]  # the first was forgotten
    id = keys[1]["apiKey"]["id"]
    await api.query("mutation ($id: ID!) { revokeApiKey(id: $id) { apiKey { id } } }", id=id)
    assert [(await ask(api, second)).status_code for _ in range(2)] == [429, 429]
    assert counted(services, "rate_failed_logins") == 3


async def closed_with(port: int, payload: dict[str, str]) -> tuple[int, str]:
    async with connected(port) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def test_sockets_that_guess(port: int, services: ApiServices) -> None:
    answers = [await closed_with(port, {"x-api-key": f"sgk_{at}"}) for at in range(3)]
    assert [code for code, _ in answers] == [4403, 4403, 4429]
    assert answers[2][1].startswith("more than 2 failed logins from this address a minute (rate_failed_logins)")
    assert counted(services, "rate_failed_logins") == 1


async def test_streams_of_one_caller(port: int, services: ApiServices) -> None:
    says = "this caller has 1 streams open, which is the most it may have: close one"
    stream = {"accept": "text/event-stream"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        async with connected(port) as socket:
            await begun(socket)
            assert await closed_with(port, {}) == (4429, says)
            refused = await http.post("/graphql", json=VIEWER, headers=stream)
            assert refused.status_code == 429
            extensions = {"code": "LIMIT_EXCEEDED", "path": [], "name": "max_streams", "limit": 1, "value": 2}
            assert refused.json() == {"errors": [{"message": says, "extensions": extensions}]}
            assert (await http.post("/graphql", json=VIEWER)).status_code == 200
        assert counted(services, "max_streams") == 2
        while services.streams._held:  # noqa: ASYNC110 - the socket's own end comes a moment after the client's
            await asyncio.sleep(0)
        for _ in range(2):
            assert (await http.post("/graphql", json=VIEWER, headers=stream)).status_code == 200
    assert not services.streams._held
