"""Middleware that every request and response passes, before and after its route; knows no GraphQL."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.context.request_log import RequestLog

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

CORS_HEADERS = (
    "apollo-require-preflight", "apollographql-client-name", "apollographql-client-version",
    "authorization", "graphql-preflight", "x-api-key", "x-gw-ims-org-id", "x-requested-with",
    "x-request-id", "x-sandbox-name",
)  # fmt: skip
"""Headers that pages of other origins may send."""
EXPOSED_HEADERS = ("x-request-id", "www-authenticate", "retry-after")
PREFLIGHT_SECONDS = 600

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "cache-control": "no-store",
}
"""Headers of every response whose route does not set them itself. The routes of pages do: they allow their own scripts,
and let browsers cache."""

SMALLEST_COMPRESSED = 1024
COMPRESSION_LEVEL = 4
"""Level 9 costs five times as much and saves two percent more."""
SLOWEST_BODY = 1024
"""Minimum average rate of a request body in bytes a second, after its first `idle_seconds`."""


@dataclass(frozen=True, slots=True)
class GuardRules:
    """Without `hosts` any name is accepted. `origins` are other origins whose pages may call; `*` for all."""

    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    credentials: bool = False
    idle_seconds: float = 30.0


class BodyTooSlow(Exception):
    """The body of a request arrives too slowly; the message is sent to the client."""


def guards(rules: GuardRules, clock: Callable[[], float] = time.monotonic) -> list[Middleware]:
    """Starlette's middleware for an application, outermost first."""
    stack = [Middleware(RequestLog), Middleware(Guard, rules=rules, clock=clock)]
    if rules.origins:
        stack.append(
            Middleware(
                CORSMiddleware,
                allow_origins=rules.origins,
                allow_methods=("GET", "POST"),
                allow_headers=CORS_HEADERS,
                allow_credentials=rules.credentials,
                expose_headers=EXPOSED_HEADERS,
                max_age=PREFLIGHT_SECONDS,
            )
        )
    stack.append(Middleware(GZipMiddleware, minimum_size=SMALLEST_COMPRESSED, compresslevel=COMPRESSION_LEVEL))
    return stack


class Guard:
    """Rejects requests for foreign host names, and stalled bodies."""

    def __init__(self, app: ASGIApp, rules: GuardRules, clock: Callable[[], float]) -> None:
        self._app, self._rules, self._clock = app, rules, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        problem = self._problem(scope, headers)
        if scope["type"] == "websocket":
            if problem is not None:
                # Before the socket is accepted, this becomes a 403 response to its handshake.
                return await send({"type": "websocket.close", "code": 1008, "reason": problem[:120]})
            return await self._app(scope, receive, send)
        guarded_send = partial(_send_with_headers, send)
        if problem is not None:
            body = orjson.dumps({"errors": [{"message": problem, "extensions": {"code": "MISDIRECTED"}}]})
            return await Response(body, 421, media_type="application/json")(scope, receive, guarded_send)
        body_guard = _BodyGuard(receive, self._rules.idle_seconds, self._clock)
        return await self._app(scope, body_guard, guarded_send)

    def _problem(self, scope: Scope, headers: Headers) -> str | None:
        allowed, hosts = self._rules.hosts, headers.getlist("host")
        # Probes of a load balancer use the machine's address; they only learn that the server is running.
        if not allowed or scope["path"].startswith("/health/") or (len(hosts) == 1 and is_one_of(hosts[0], allowed)):
            return None
        sent = ", ".join(hosts)
        return f"this server is not called {sent!r}: use one of {', '.join(allowed)}, or set SEGMENTATION_HOSTS"


def is_one_of(host: str, names: Sequence[str]) -> bool:
    """Whether a Host header, with or without a port, matches one of the names; `*.example.com` matches any subdomain.

    >>> is_one_of("LOCALHOST:8000", LOOPBACK), is_one_of("[::1]:8000", LOOPBACK), is_one_of("a.b", ["*.b"])
    (True, True, True)
    >>> is_one_of("localhost.evil.example", LOOPBACK), is_one_of("b", ["*.b"]), is_one_of("evil@127.0.0.1", LOOPBACK)
    (False, False, False)
    """
    name, colon, port = host.lower().rpartition(":")
    if not colon or not port.isdecimal():
        name = host.lower()
    name = name.rstrip(".") if not name.startswith("[") else name
    return any(
        allowed in ("*", name) or (allowed.startswith("*.") and name.endswith(allowed[1:]) and name != allowed[1:])
        for allowed in map(str.lower, names)
    )


_SECURITY: Final = [(name.encode(), value.encode()) for name, value in SECURITY_HEADERS.items()]


async def _send_with_headers(send: Send, message: Message) -> None:
    if message["type"] == "http.response.start":
        headers = list(message["headers"])
        names = {name for name, _ in headers}
        message["headers"] = headers + [header for header in _SECURITY if header[0] not in names]
    await send(message)


class _BodyGuard:
    """Receives a request's body as long as it keeps arriving. Raises `BodyTooSlow`."""

    def __init__(self, receive: Receive, idle_seconds: float, clock: Callable[[], float]) -> None:
        self._receive, self._idle_seconds, self._clock = receive, idle_seconds, clock
        self._began: float | None = None
        self._size = 0
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:
            return await self._receive()
        began = self._began = self._clock() if self._began is None else self._began
        message = await self._next()
        self._complete = message["type"] != "http.request" or not message.get("more_body", False)
        self._size += len(message.get("body", b""))
        waited = self._clock() - began - self._idle_seconds
        if not self._complete and waited > 0 and self._size < waited * SLOWEST_BODY:
            raise BodyTooSlow(f"the body comes with less than {SLOWEST_BODY:,} bytes a second: send it again")
        return message

    async def _next(self) -> Message:
        try:
            async with asyncio.timeout(self._idle_seconds):
                return await self._receive()
        except TimeoutError:
            message = f"nothing of the body came for {self._idle_seconds:g} seconds: send it again"
            raise BodyTooSlow(message) from None
