"""A way to PostgreSQL that can be cut: what a network or a server that goes away looks like from the other end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self
from urllib.parse import parse_qs, urlsplit

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class CuttableServer:
    """Listens on `port` and hands everything on to the server of a URL, until it is `cut`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = parse_qs(parts.query).get("host", [""])[0]
        self._address = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._user = parts.username or "postgres"
        self._away = False
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator[Self]:
        server = cls(url)
        listening = await asyncio.start_server(server._serve, "127.0.0.1", 0)
        server.port = listening.sockets[0].getsockname()[1]
        try:
            yield server
        finally:
            server.drop()
            listening.close()

    def url(self, database: str) -> str:
        """The way to a database through here."""
        return f"postgresql://{self._user}@127.0.0.1:{self.port}/{database}"

    def drop(self) -> None:
        """Ends every connection; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()

    @asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """Ends every connection, and those that come before the block ends."""
        self._away = True
        self.drop()
        try:
            yield
        finally:
            self._away = False

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self._away:
                writer.transport.abort()
                return
            there = await self._connect()
            self._open.add(there[1])
            try:
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
            finally:
                self._open.discard(there[1])
                there[1].close()
        finally:
            self._open.discard(writer)
            writer.close()

    async def _connect(self) -> Streams:
        if self._socket.startswith("/"):
            return await asyncio.open_unix_connection(f"{self._socket}/.s.PGSQL.{self._address[1]}")
        return await asyncio.open_connection(*self._address)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while content := await reader.read(1 << 16):
            writer.write(content)
            await writer.drain()
    with suppress(OSError, RuntimeError):
        writer.write_eof()
