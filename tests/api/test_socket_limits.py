"""WebSockets that do not follow the protocol, say nothing, or go away."""

import asyncio
import json
import logging
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from app.api.context import ApiServices, Limits
from app.api.transport.websocket import Socket
from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def limits() -> Limits:
    return Limits(init_seconds=0.3, max_silent_sockets=2, max_socket_operations=2)


def connected(port: int) -> websockets.connect:
    return websockets.connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[websockets.Subprotocol(PROTOCOL)])


PROTOCOL = "graphql-transport-ws"


async def begun(socket: ClientConnection) -> ClientConnection:
    await socket.send(json.dumps({"type": "connection_init"}))
    assert json.loads(await socket.recv()) == {"type": "connection_ack"}
    return socket


def subscribe(id_: Any = "1", **payload: Any) -> dict[str, Any]:
    return {"type": "subscribe", "id": id_, "payload": {"query": "{ __typename }", **payload}}


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ([], "a message must be a JSON object with a `type`, not []"),
        (1, "a message must be a JSON object with a `type`, not 1"),
        (None, "a message must be a JSON object with a `type`, not None"),
        ({}, "there is no type of messages None: a client sends"),
        ({"type": {}}, "there is no type of messages {}: a client sends"),
        ({"type": "x" * 1_000}, "there is no type of messages 'xxx"),
        (subscribe(operationName=7), "`operationName` must be a text"),
        (subscribe(query=1), "the request has no `query`, which must be the text of a GraphQL document"),
        (subscribe(variables=[1]), "`variables` must be a JSON object"),
        (subscribe(extensions=1), "`extensions` must be a JSON object"),
        (subscribe({}), "the message `subscribe` has the id {}: it must be a text of 1 to 255 characters"),
        (subscribe(1), "the message `subscribe` has the id 1"),
        (subscribe(""), "the message `subscribe` has the id ''"),
        (subscribe("x" * 256), "the message `subscribe` has the id 'xxx"),
        ({"type": "subscribe", "id": "1"}, "a GraphQL request is a JSON object"),
        ({"type": "subscribe", "id": "1", "payload": []}, "several operations in one request"),
        ({"type": "complete", "id": {}}, "the message `complete` has the id {}"),
        ({"type": "ping", "payload": []}, "the payload of `ping` must be a JSON object"),
        ({"type": "connection_init", "payload": []}, "the payload of `connection_init` must be a JSON object"),
        ({"type": "connection_init", "payload": 0}, "the payload of `connection_init` must be a JSON object"),
    ],
)
async def test_what_is_no_message(port: int, message: Any, says: str, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(port) as socket:
        await (await begun(socket)).send(json.dumps(message))
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4400
    assert closed.value.rcvd.reason.startswith(says)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    "text", ["{", "[" * 100_000, '{"type":"ping","payload":{"a":' + "1" * 6_000, '{"type":"\\ud800"}']
)
async def test_what_is_no_json(port: int, text: str) -> None:
    async with connected(port) as socket:
        await (await begun(socket)).send(text)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4400, "WebSocket message must be valid JSON")


async def test_an_operation_that_is_not_there_ends_alone(port: int) -> None:
    async with connected(port) as socket:
        await (await begun(socket)).send(json.dumps(subscribe(query="query A { __typename }", operationName="B")))
        answer = json.loads(await socket.recv())
        assert (answer["type"], answer["payload"]) == ("error", [{"message": 'Unknown operation named "B".'}])
        await socket.send(json.dumps(subscribe()))
        assert json.loads(await socket.recv())["payload"]["data"] == {"__typename": "Query"}


async def test_a_silent_socket_is_closed_and_few_are_taken(port: int, services: ApiServices) -> None:
    async with connected(port) as first, connected(port) as second:
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with connected(port):
                raise AssertionError("the handshake must fail")
        assert refused.value.response.status_code == 403
        for socket in (first, second):
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4408
    limit = {"limit": "max_silent_sockets"}
    assert services.metrics.registry.get_sample_value("segmentation_refusals_total", limit) == 1.0
    async with connected(port) as fourth:
        await begun(fourth)


async def test_operations_of_one_socket(api: Api, port: int) -> None:
    watch = "subscription { jobsUpdated { __typename } }"
    async with connected(port) as socket:
        await begun(socket)
        for number in range(3):
            await socket.send(json.dumps(subscribe(str(number), query=watch)))
        answer = json.loads(await socket.recv())
    assert (answer["id"], answer["type"]) == ("2", "error")
    (error,) = answer["payload"]
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "path": [], "name": "max_socket_operations", "limit": 2}


async def test_clients_that_go_away_leave_no_traces(port: int, caplog: pytest.LogCaptureFixture) -> None:
    """Answers may be under way when the socket is closed: by the client, and by the server itself."""
    gone = asyncio.Event()
    send = Socket.send_json

    async def late(self: Socket, message: Any) -> None:
        if message["type"] == "next":
            await gone.wait()
            await send(self, message)
        else:
            await send(self, message)

    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(Socket, "send_json", late)
        async with connected(port) as socket:
            await begun(socket)
            for number in range(2):
                await socket.send(json.dumps(subscribe(str(number))))
            await socket.send("[]")
            gone.set()
            await socket.wait_closed()
    assert "Traceback" not in caplog.text
    assert "Unexpected ASGI message" not in caplog.text
    assert [record for record in caplog.records if record.exc_info] == []
