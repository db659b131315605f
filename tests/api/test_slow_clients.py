"""Clients that take too long to ask, or to read what they asked for."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import websockets

from app.api.transport.slow_clients import MOST_PINGS, Patience
from tests.api.conftest import serving

CHUNK = b"x" * 65_536


class Endless:
    """An application that sends without end, and knows when its client is gone."""

    def __init__(self) -> None:
        self.gone, self.heard, self.stuck = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.sent = 0
        self.protocol: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message: dict[str, Any] = {"type": "websocket.send", "bytes": CHUNK}
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            message = {"type": "http.response.body", "body": CHUNK, "more_body": True}
        self.protocol = send.__self__
        sending = asyncio.create_task(self._send(send, message))
        while (await receive())["type"] not in {"http.disconnect", "websocket.disconnect"}:
            self.heard.set()
        sending.cancel()
        self.gone.set()

    async def _send(self, send: Callable[[Any], Any], message: Any) -> None:
        while not self.gone.is_set():
            if (writable := getattr(self.protocol, "writable", None)) and not writable.is_set():
                self.stuck.set()
            await send(message)
            self.sent += len(CHUNK)
            await asyncio.sleep(0)


@asynccontextmanager
async def silent_reader(port: int) -> AsyncIterator[tuple[asyncio.AbstractEventLoop, socket.socket]]:
    """A connection with little room for what arrives, of which nothing is read unless asked for."""
    loop = asyncio.get_running_loop()
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", port))
        yield loop, raw


HTTP = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
WEBSOCKET = (
    b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    for request in (HTTP, WEBSOCKET):
        refused: list[str] = []
        app = Endless()
        async with serving(app, Patience(10, 0.2, refused.append)) as port, silent_reader(port) as (loop, raw):
            await loop.sock_sendall(raw, request)
            async with asyncio.timeout(30):
                await app.gone.wait()
        assert refused == ["send_seconds"]
        assert app.sent < 20_000_000, "no more is sent than the system keeps"


async def test_a_client_that_reads_slowly_is_served() -> None:
    refused: list[str] = []
    app = Endless()
    async with serving(app, Patience(10, 0.2, refused.append)) as port, silent_reader(port) as (loop, raw):
        await loop.sock_sendall(raw, HTTP)
        received = 0
        while received < 8_000_000:
            received += len(await loop.sock_recv(raw, 65_536))
        assert refused == []


async def test_pings_are_not_answered_to_a_client_that_does_not_read() -> None:
    app = Endless()
    async with serving(app, Patience(10, 30)) as port, silent_reader(port) as (loop, raw):
        await loop.sock_sendall(raw, WEBSOCKET)
        async with asyncio.timeout(30):
            await app.stuck.wait()
        unsent = app.protocol.transport.get_write_buffer_size()
        masked = b"\0\0\0\0"
        await loop.sock_sendall(raw, (b"\x89\xfd" + masked + b"p" * 125) * MOST_PINGS)
        await loop.sock_sendall(raw, b"\x81\x81" + masked + b"x")
        async with asyncio.timeout(30):
            await app.heard.wait()
        assert app.protocol.transport.get_write_buffer_size() <= unsent


async def test_a_flood_of_pings_is_cut_off() -> None:
    refused: list[str] = []
    app = Endless()
    async with serving(app, Patience(10, 30, refused.append)) as port, silent_reader(port) as (loop, raw):
        await loop.sock_sendall(raw, WEBSOCKET)
        with suppress(ConnectionError):
            for _ in range(100):
                await loop.sock_sendall(raw, (b"\x89\x80\0\0\0\0") * 200)
        async with asyncio.timeout(30):
            await app.gone.wait()
    assert refused == ["pings"]


async def test_a_head_that_does_not_come() -> None:
    refused: list[str] = []
    async with serving(Endless(), Patience(0.2, 10, refused.append)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nx-slow: ")
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
        assert refused == ["head_seconds"]
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.timeout(30):
            assert await reader.read() == b"", "closed without a word, since nothing was asked"
        assert refused == ["head_seconds"]
        writer.close()


async def test_a_client_in_time_is_served_as_ever() -> None:
    refused: list[str] = []
    app = Endless()
    async with serving(app, Patience(0.3, 10, refused.append)) as port:
        async with websockets.connect(f"ws://127.0.0.1:{port}/", max_size=None, close_timeout=0.1) as ws:
            for _ in range(3):
                assert await ws.recv() == CHUNK
                await asyncio.sleep(0.2)  # longer than a head may take, in all
        assert refused == []
