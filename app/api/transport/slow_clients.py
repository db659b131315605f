"""uvicorn's HTTP and WebSocket protocols, extended to disconnect clients that are too slow to send a request's head or
to read responses; knows no routes."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

log = logging.getLogger(__name__)

SLOWEST_READER = 1024
"""Minimum rate, in bytes a second, at which a lagging client must read."""

MOST_PINGS = 100
"""Maximum pings per second on one WebSocket: one read may contain thousands, and handling them delays other clients."""
POLICY_VIOLATION = 1008

LATE = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Patience:
    """Time limits in seconds: for a request's head, and for a lagging client that reads almost nothing. `refused`
    receives the name of the exceeded limit."""

    head_seconds: float
    send_seconds: float
    refused: Callable[[str], None] = lambda _limit: None


def http_protocol(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's option `http`."""

    class PatientHttp(_Http):
        _patience = patience

    return PatientHttp


def websocket_protocol(patience: Patience) -> type[asyncio.Protocol]:
    """The protocol class for uvicorn's option `ws`."""

    class PatientWebSocket(_WebSocket):
        _patience = patience

    return PatientWebSocket


class _Reader:
    """Watches a lagging client, for which more than uvicorn's high-water mark is waiting to be sent.

    The connection is aborted, since closing it would wait until everything is sent.
    """

    def __init__(self, transport: asyncio.Transport, patience: Patience) -> None:
        self._transport, self._patience = transport, patience
        self._unsent = transport.get_write_buffer_size()
        self._timer = self._later()

    def _later(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._patience.send_seconds, self._look)

    def _look(self) -> None:
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if before - self._unsent >= self._patience.send_seconds * SLOWEST_READER:
            self._timer = self._later()
            return
        log.warning("a client does not read what it asked for: cut off with %d bytes unsent", self._unsent)
        self._patience.refused("send_seconds")
        self._transport.abort()

    def stop(self) -> None:
        self._timer.cancel()


class _Http(HttpToolsProtocol):
    _patience: Patience
    _reader: _Reader | None = None
    _head: asyncio.TimerHandle | None = None
    _begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()

    def on_message_begin(self) -> None:
        self._begun = True
        self._await_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._stop_awaiting_head()
        super().on_headers_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = _Reader(self.transport, self._patience)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_awaiting_head()
        self._stop_reader()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._stop_awaiting_head()
        self._head = asyncio.get_running_loop().call_later(self._patience.head_seconds, self._give_up_head)

    def _stop_awaiting_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _give_up_head(self) -> None:
        if self._begun:  # a connection without a request may stay idle, as browsers open them in advance
            self._patience.refused("head_seconds")
            self.transport.write(LATE)
        self.transport.close()

    def _stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None


class _WebSocket(WebSocketsSansIOProtocol):
    _patience: Patience
    _reader: _Reader | None = None
    _second = 0.0
    _pings = 0

    def handle_ping(self) -> None:
        """Sends nothing more to a client that does not read: pongs would accumulate without limit."""
        if self.close_sent or self._too_many_pings():
            return
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader = _Reader(self.transport, self._patience)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_reader()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_reader()
        super().connection_lost(exc)

    def _too_many_pings(self) -> bool:
        now = self.loop.time()
        if now - self._second >= 1:
            self._second, self._pings = now, 0
        self._pings += 1
        if self._pings <= MOST_PINGS:
            return False
        self._patience.refused("pings")
        self.conn.fail(POLICY_VIOLATION, f"more than {MOST_PINGS} pings a second: send fewer")
        self.handle_parser_exception()
        return True

    def _stop_reader(self) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
