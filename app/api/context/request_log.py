"""The log line and the span of each HTTP request; handlers add fields to both."""

import logging
import time
from contextvars import ContextVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app import traces
from app.logs import Field, bound, event

log = logging.getLogger("segmentation.requests")

QUIET = ("/health/", "/metrics", "/assets/")
"""Frequently polled paths; their requests are logged at DEBUG."""
LONGEST_PATH = 200

_LINE: ContextVar[dict[str, Field] | None] = ContextVar("request_line", default=None)


def add(**fields: Field) -> bool:
    """Adds fields to the current request's log line; returns False if there is none (on a WebSocket)."""
    line = _LINE.get()
    if line is not None:
        line.update(fields)
    return line is not None


class RequestLog:
    """ASGI middleware, outermost. The log line contains no query string, no address and no headers except the request
    id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        path = scope["path"][:LONGEST_PATH]
        line: dict[str, Field] = {"method": scope["method"], "path": path}
        token, began = _LINE.set(line), time.perf_counter()

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                line["status"] = message["status"]
            await send(message)

        parent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
        try:
            with bound(), traces.span(f"HTTP {scope['method']}", parent, path=path):
                await self._app(scope, receive, noting)
        finally:
            _LINE.reset(token)
            line["duration_ms"] = (time.perf_counter() - began) * 1000
            event(log, "request", logging.DEBUG if path.startswith(QUIET) else logging.INFO, **line)
