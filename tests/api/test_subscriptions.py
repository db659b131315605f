"""Jobs watched over WebSocket and over server-sent events, through a real server."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import websockets
from gql import Client, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.websockets import WebsocketsTransport
from websockets.asyncio.client import ClientConnection

from app.clock import Clock, utc_now
from app.services.jobs import watching
from tests.api.conftest import Api


@pytest.fixture
def clock() -> Clock:
    """The real one: what has changed lately is asked by the database's time."""
    return utc_now


WATCH = """subscription ($id: ID!, $after: Int) { segmentJobUpdated(id: $id, after: $after) {
  status progress { fraction sequence } segments { nodes { definition { name } } } } }"""


async def by_websocket(port: int, document: str, sandbox: str = "prod", **variables: Any) -> AsyncIterator[Any]:
    transport = WebsocketsTransport(url=f"ws://127.0.0.1:{port}/graphql", init_payload={"x-sandbox-name": sandbox})
    operation = gql(document)
    operation.variable_values = variables
    async with Client(transport=transport) as session:
        async for item in session.subscribe(operation):
            yield item


async def by_sse(port: int, document: str, sandbox: str = "prod", **variables: Any) -> AsyncGenerator[Any, None]:
    headers = {"accept": "text/event-stream", "x-sandbox-name": sandbox}
    body = {"query": document, "variables": variables}
    url = f"http://127.0.0.1:{port}/graphql"
    async with httpx.AsyncClient() as http, http.stream("POST", url, json=body, headers=headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        event = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: ") and event == "next":
                answer = json.loads(line.removeprefix("data: "))
                if "errors" in answer:
                    raise TransportQueryError("", errors=answer["errors"])
                yield answer["data"]
            elif event == "complete":
                return
    raise AssertionError("the stream ended without `complete`")


WAYS = pytest.mark.parametrize("way", [by_websocket, by_sse])


@WAYS
@pytest.mark.usefixtures("working")
async def test_a_job_is_watched_to_its_end(api: Api, port: int, way: Any) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    states = [item["segmentJobUpdated"] async for item in way(port, WATCH, id=job)]
    sequences = [state["progress"]["sequence"] for state in states]
    assert sequences == sorted(set(sequences))
    fractions = [state["progress"]["fraction"] for state in states]
    assert fractions == sorted(fractions)
    assert states[-1]["status"] == "SUCCEEDED"
    assert all(state["segments"]["nodes"] == [{"definition": {"name": "A"}}] for state in states)
    again = [item["segmentJobUpdated"] async for item in way(port, WATCH, id=job)]
    assert again == [states[-1]]


@WAYS
async def test_watching_resumes_without_loss_or_repetition(api: Api, port: int, way: Any) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    await api.query("mutation ($id: ID!) { cancelSegmentJob(id: $id) { errors { message } } }", id=job)

    async def seen(after: int | None) -> list[tuple[int, str]]:
        items = [item["segmentJobUpdated"] async for item in way(port, WATCH, id=job, after=after)]
        return [(item["progress"]["sequence"], item["status"]) for item in items]

    assert await seen(None) == [(2, "CANCELLED")]
    assert await seen(0) == [(1, "QUEUED"), (2, "CANCELLED")]
    assert await seen(1) == [(2, "CANCELLED")]
    assert await seen(2) == []


async def test_every_event_reports_the_cost(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    await api.query("mutation ($id: ID!) { cancelSegmentJob(id: $id) { errors { message } } }", id=job)
    document = f'subscription {{ segmentJobUpdated(id: "{job}", after: 0) {{ status }} }}'
    cost = {"requested": 2, "limit": 200_000}
    events = [
        {"data": {"segmentJobUpdated": {"status": status}}, "extensions": {"cost": cost}}
        for status in ("QUEUED", "CANCELLED")
    ]
    async with connected(port, {"x-sandbox-name": "prod"}) as socket:
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        first = await ask(socket, "1", document)
        assert [first["payload"], json.loads(await socket.recv())["payload"]] == events
    headers = {"accept": "text/event-stream", "x-sandbox-name": "prod"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"http://127.0.0.1:{port}/graphql", json={"query": document}, headers=headers)
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    assert list(map(json.loads, lines)) == events


@WAYS
async def test_an_unknown_job_and_one_of_another_sandbox(api: Api, port: int, way: Any) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    for sandbox, id_ in (("prod", "nothing"), ("dev", job)):
        with pytest.raises(TransportQueryError) as refused:
            await anext(way(port, WATCH, sandbox=sandbox, id=id_))
        (error,) = refused.value.errors or []
        assert error["message"] == f"there is no segment job '{id_}' in this sandbox"
        assert error["extensions"]["code"] == "NOT_FOUND"


async def test_every_job_is_watched(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    document = "subscription { jobsUpdated(status: [QUEUED, CANCELLED]) { __typename jobId status } }"
    items = by_websocket(port, document)
    first = asyncio.ensure_future(anext(items))
    started: list[str] = []
    # The subscription is there when a job that is made is seen.
    while not first.done():
        started.append(await api.start())
        await asyncio.wait([first], timeout=0.2)
    seen = (await first)["jobsUpdated"]
    assert seen["__typename"] == "SegmentJob"
    assert (seen["jobId"] in started, seen["status"]) == (True, "QUEUED")
    await items.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", ["segment", "export"])
async def test_jobs_of_one_kind_are_watched(api: Api, port: int, kind: str) -> None:
    await api.loaded()
    await api.define("A")
    target = await api.export_dataset()
    items = by_websocket(port, f"subscription {{ {kind}JobsUpdated {{ __typename jobId }} }}")
    first = asyncio.ensure_future(anext(items))
    segment, export = set(), set()
    while not first.done():
        segment.add(await api.start())
        export.add(await api.export(target))
        await asyncio.wait([first], timeout=0.2)
    seen = [(await first)[f"{kind}JobsUpdated"]]
    # Whatever comes is of the kind, though jobs of both were made.
    while len(seen) < 4:
        segment.add(await api.start())
        export.add(await api.export(target))
        seen.append((await anext(items))[f"{kind}JobsUpdated"])
    assert {state["jobId"] for state in seen} <= (segment if kind == "segment" else export)
    assert {state["__typename"] for state in seen} == {f"{kind.title()}Job"}
    await items.aclose()  # type: ignore[attr-defined]


@asynccontextmanager
async def connected(port: int, payload: Any = None, origin: str | None = None) -> AsyncIterator[ClientConnection]:
    async with websockets.connect(
        f"ws://127.0.0.1:{port}/graphql",
        subprotocols=["graphql-transport-ws"],  # type: ignore[list-item]
        additional_headers={} if origin is None else {"origin": origin},
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init", **({"payload": payload} if payload else {})}))
        yield socket


async def ask(socket: ClientConnection, id_: str, document: str) -> Any:
    await socket.send(json.dumps({"id": id_, "type": "subscribe", "payload": {"query": document}}))
    return json.loads(await socket.recv())


async def test_queries_over_one_socket_each_read_anew(api: Api, port: int) -> None:
    count = "{ viewer { sandbox } datasets { totalCount } }"
    async with connected(port, {"X-Sandbox-Name": "dev"}) as socket:
        assert json.loads(await socket.recv()) == {"type": "connection_ack"}
        for number, id_ in enumerate(("1", "2")):
            answer = await ask(socket, id_, count)
            assert answer == {
                "id": id_,
                "type": "next",
                "payload": {
                    "data": {"viewer": {"sandbox": "dev"}, "datasets": {"totalCount": number}},
                    "extensions": {"cost": {"requested": 4, "limit": 200_000}},
                },
            }
            assert json.loads(await socket.recv()) == {"id": id_, "type": "complete"}
            await api.within("dev").dataset(f"d{number}")
        answer = await ask(socket, "3", "{ nothing }")
        assert (answer["type"], answer["payload"][0]["message"]) == (
            "error",
            "Cannot query field 'nothing' on type 'Query'.",
        )
        answer = await ask(socket, "4", "{ viewer {")
        assert answer["type"] == "error"


async def test_a_socket_with_a_bad_tenant_is_told_why(port: int) -> None:
    async with connected(port, {"x-sandbox-name": 7}) as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400
    assert closed.value.rcvd.reason.startswith("x-sandbox-name is 7: it must be")


async def test_a_page_of_another_origin_is_turned_away(port: int) -> None:
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with connected(port, origin="https://evil.example"):
            raise AssertionError("the handshake must fail")
    assert refused.value.response.status_code == 403


async def test_an_unknown_protocol_is_turned_away(port: int) -> None:
    async with websockets.connect(f"ws://127.0.0.1:{port}/graphql") as socket:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4406


@WAYS
async def test_a_bug_in_a_stream_is_masked(port: int, way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any) -> AsyncIterator[None]:
        raise RuntimeError("SELECT secret")
        yield

    monkeypatch.setattr(watching, "watch", broken)
    with pytest.raises(TransportQueryError) as failed:
        await anext(way(port, WATCH, id="x"))
    (error,) = failed.value.errors or []
    assert error["message"].startswith("internal error: the log of the server has it under the request id ")
    assert "SELECT" not in json.dumps(error)


async def test_queries_and_mutations_may_be_streamed(api: Api, port: int) -> None:
    mutation = 'mutation { createDataset(input: {name: "a", kind: EXPORT}) { errors { message } } }'
    for document in ("{ viewer { sandbox } }", mutation):
        assert len([item async for item in by_sse(port, document)]) == 1


async def test_a_stream_ends_when_the_server_stops(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    items = by_sse(port, WATCH, id=await api.start())
    assert (await anext(items))["segmentJobUpdated"]["status"] == "QUEUED"
    api.services.stopping.set()
    with pytest.raises(AssertionError, match="the stream ended without `complete`"):
        await anext(items)
