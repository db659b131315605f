"""Callers that ask too often: by HTTP, WebSocket and server-sent events."""

import dataclasses
import json

import httpx
import pytest
import websockets

from app.api.context import ApiServices, Limits
from app.scope import Scope
from app.services.search import folders
from tests.api.conftest import Api
from tests.api.test_socket_limits import begun, connected, subscribe

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

VIEWER = {"query": "{ viewer { sandbox } }"}
EXTENSIONS = {"code": "RATE_LIMITED", "name": "rate_requests", "limit": 3, "retryAfter": 20}


@pytest.fixture
def limits() -> Limits:
    return Limits(rate_requests=3, rate_cost=1_000)


def counted(services: ApiServices, limit: str) -> float:
    return float(services.metrics.refusals.labels(limit)._value.get())


async def test_requests(api: Api, services: ApiServices) -> None:
    for tenant in ("dev", "prod", "test"):  # another tenant is no other caller
        assert (await api.http.post("/graphql", json=VIEWER, headers={"x-sandbox-name": tenant})).status_code == 200
    for media, body in (("application/json", VIEWER), ("text/event-stream", VIEWER), ("*/*", "no request")):
        response = await api.http.post("/graphql", json=body, headers={"accept": media})
        assert response.status_code == 429
        assert response.headers["retry-after"] == "20"
        (error,) = response.json()["errors"]
        assert error["message"] == "more than 3 requests a minute (rate_requests): try again in 20 s"
        assert error["extensions"] == EXTENSIONS
    assert counted(services, "rate_requests") == 3
    assert (await api.http.get("/health/live")).status_code == 200


async def test_cost(api: Api, services: ApiServices) -> None:
    dear = {"query": "{ audiences(first: 400) { nodes { name } } }"}  # costs 402
    for _ in range(2):
        assert (await api.http.post("/graphql", json=dear)).status_code == 200
    response = await api.http.post("/graphql", json=dear)
    assert response.status_code == 429
    (error,) = response.json()["errors"]
    wait = error["extensions"]["retryAfter"]
    assert response.headers["retry-after"] == str(wait)
    assert 10 <= wait <= 13  # 204 units are lacking, and 16.7 come back in a second
    assert error["extensions"] == {"code": "RATE_LIMITED", "name": "rate_cost", "limit": 1_000, "retryAfter": wait}
    assert "data" not in response.json()
    assert counted(services, "rate_cost") == 1


async def test_a_mutation_beyond_the_rate_changes_nothing(api: Api, services: ApiServices) -> None:
    dear = {"query": "{ audiences(first: 400) { nodes { name } } }"}
    create = 'createFolder(input: { name: "f", namespace: "AEPSegments" }) { folder { id name namespace etag } }'
    write = {"query": "mutation { " + " ".join(f"f{number}: {create}" for number in range(45)) + " }"}
    statuses = [(await api.http.post("/graphql", json=body)).status_code for body in (dear, dear, write)]
    assert statuses == [200, 200, 429]
    async with services.database.session() as session:
        everything = folders.FolderFilter(None)
        assert await folders.count(session, Scope("default", "prod", "ann"), everything) == 0


async def test_sockets(port: int, services: ApiServices) -> None:
    async with connected(port) as socket:
        await begun(socket)
        for number in range(2):
            await socket.send(json.dumps(subscribe(str(number), **VIEWER)))
            assert [json.loads(await socket.recv())["type"] for _ in range(2)] == ["next", "complete"]
        await socket.send(json.dumps(subscribe("third", **VIEWER)))
        answer = json.loads(await socket.recv())
        assert (answer["type"], answer["id"]) == ("error", "third")
        assert answer["payload"][0]["extensions"] == EXTENSIONS
        async with connected(port) as second:
            await second.send(json.dumps({"type": "connection_init"}))
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await second.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            1013,
            "more than 3 requests a minute (rate_requests): try again in 20 s",
        )
    assert counted(services, "rate_requests") == 2


async def test_without_limits(services: ApiServices) -> None:
    free = dataclasses.replace(services, limits=Limits())
    for _ in range(100):
        free.requests.take("ann")
        free.costs.take("ann", 10**9)


async def test_subjects_are_counted_apart(api: Api, services: ApiServices) -> None:
    query = """mutation ($n: String!) { createApiKey(input: { name: $n, permissions: ["read"] }) { secret } }"""
    secrets = [(await api.query(query, n=name))["createApiKey"]["secret"] for name in ("a", "b")]

    async def asked(secret: str) -> httpx.Response:
        return await api.http.post("/graphql", json=VIEWER, headers={"x-api-key": secret})

    for secret in secrets:
        assert [(await asked(secret)).status_code for _ in range(4)] == [200, 200, 200, 429]
