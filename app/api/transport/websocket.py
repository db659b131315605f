"""GraphQL over WebSocket with the graphql-transport-ws protocol."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any
from uuid import uuid4

from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState
from strawberry.asgi import ASGIWebSocketAdapter, GraphQL
from strawberry.http.exceptions import WebSocketDisconnected
from strawberry.http.websocket_origin import normalize_allowed_origins
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import ConnectionInitMessage, SubscribeMessage

from app.api.context import ApiServices, Caller
from app.api.errors import rate_extensions, refusal_extensions
from app.api.execution import Answer
from app.api.guards.documents import DocumentRefused, Documents
from app.api.guards.limits import GatewaySchema
from app.api.transport.callers import new_caller
from app.api.transport.json_text import read_json, write_json
from app.api.transport.params import BadRequest, read_params
from app.errors import ErrorCode, Limit, Refusal
from app.services.access.identity import KeysUnavailable, Unauthenticated
from app.services.access.rates import RateExceeded
from app.storage.columns import StoredValues
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

LONGEST_REASON = 120
"""Maximum size in bytes of the reason in a WebSocket's close message."""

LONGEST_ID = 255
"""Maximum length in characters of an operation's id."""

INVALID, FORBIDDEN, TOO_MANY, FAILED, TRY_AGAIN = 4400, 4403, 4429, 1011, 1013
"""Close codes of the protocol and of WebSockets themselves."""


def invalid_message(message: object) -> str | None:
    """Why a message is invalid in the protocol; None if it is valid.

    >>> invalid_message({"type": "complete", "id": {}})
    'the message `complete` has the id {}: it must be a text of 1 to 255 characters'
    """
    if not isinstance(message, dict):
        return f"a message must be a JSON object with a `type`, not {_short(message)}"
    kind, payload = message.get("type"), message.get("payload")
    if not isinstance(kind, str) or kind not in _KINDS:
        return f"there is no type of messages {_short(kind)}: a client sends {', '.join(sorted(_KINDS))}"
    if kind in _WITH_ID:
        id_ = message.get("id")
        if not isinstance(id_, str) or not 0 < len(id_) <= LONGEST_ID:
            return f"the message `{kind}` has the id {_short(id_)}: it must be a text of 1 to {LONGEST_ID} characters"
    if kind != "subscribe":
        return None if isinstance(payload, dict | None) else f"the payload of `{kind}` must be a JSON object"
    try:
        read_params(payload)
    except BadRequest as problem:
        return str(problem)
    return None


_WITH_ID = {"subscribe", "complete"}
_KINDS = {"connection_init", "ping", "pong", *_WITH_ID}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


class Socket(ASGIWebSocketAdapter):
    """A WebSocket that may disconnect at any time; messages to a closed one are dropped."""

    async def send_json(self, message: Mapping[str, object]) -> None:
        payload = message.get("payload")
        if isinstance(payload, dict) and isinstance(payload.get("data"), Answer):
            message = {**message, "payload": {**payload, "data": payload["data"].encoded}}
        text: Any = self.view.encode_json(message)
        try:
            await self.ws.send_text(text)
        except (WebSocketDisconnect, RuntimeError, OSError) as error:
            raise WebSocketDisconnected from error

    async def close(self, code: int, reason: str) -> None:
        if self.ws.application_state is WebSocketState.DISCONNECTED:
            return
        with suppress(WebSocketDisconnect, RuntimeError, OSError):
            await self.ws.close(code, reason.encode()[:LONGEST_REASON].decode(errors="ignore"))


class Handler(BaseGraphQLTransportWSHandler[Caller, None]):
    """Authenticates the client by its first message."""

    view: Any

    async def handle(self) -> None:
        self.view.silent.add(self)
        try:
            await super().handle()
        finally:
            self.view.silent.discard(self)
            self._place.close()

    async def handle_message(self, message: Any) -> None:
        if (problem := invalid_message(message)) is not None:
            await self.handle_invalid_message(problem)
        else:
            await super().handle_message(message)

    async def handle_task_exception(self, error: Exception) -> None:
        """Strawberry would log a traceback for each operation whose client has disconnected."""
        if not isinstance(error, WebSocketDisconnected):
            await super().handle_task_exception(error)

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        """Strawberry would close the socket, with all its other operations, for a syntax error in one."""
        return None

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        payload: Any = message.get("payload") or {}
        if not self.connection_init_received:
            try:
                await self.context.identify(payload)
                self.context.count_request()
                self._place.enter_context(self.context.hold_stream())
            except Exception as error:
                limit = getattr(error, "limit", None)
                if limit is not None:
                    self._refused(limit.name)
                code, reason = _closing(error, self.context.request_id)
                await self.websocket.close(code, reason)
                return
            self.view.silent.discard(self)
            self._watch = asyncio.create_task(self._close_when_ended())
        # graphql-ws omits the payload or sends null; Strawberry only supports the former.
        await super().handle_connection_init({"type": "connection_init", "payload": payload})

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        if self.connection_acknowledged:
            try:
                self.context.count_request()
            except RateExceeded as exceeded:
                self._refused(exceeded.limit.name)
                await self._refuse(message["id"], str(exceeded), rate_extensions(exceeded))
                return
            if len(self.operations) >= self.context.services.limits.max_socket_operations:
                limit = Limit("max_socket_operations", self.context.services.limits.max_socket_operations)
                self._refused(limit.name)
                text = f"this connection has {limit.allowed:,} operations open, which is the most it may have"
                refusal = Refusal(ErrorCode.LIMIT_EXCEEDED, f"{text}: complete one of them", limit=limit)
                await self._refuse(message["id"], refusal.message, refusal_extensions(refusal))
                return
            params = read_params(message["payload"])
            try:
                text = self.view.documents.text(self.context.organisation, params.query, params.document_id)
            except DocumentRefused as refused:
                await self._refuse(message["id"], str(refused), {"code": refused.code})
                return
            message = {**message, "payload": {**message["payload"], "query": text}}
        await super().handle_subscribe(message)

    async def handle_connection_init_timeout(self) -> None:
        await super().handle_connection_init_timeout()
        if self.connection_timed_out:
            self._refused("init_seconds")

    def _refused(self, limit: str) -> None:
        self.context.services.metrics.refused(limit)

    async def _refuse(self, id_: str, message: str, extensions: StoredValues) -> None:
        """Rejects one operation before it starts."""
        error = GraphQLError(message, extensions=extensions)
        await self.send_message({"id": id_, "type": "error", "payload": [error.formatted]})

    async def _close_when_ended(self) -> None:
        reason = await self.context.until_ended()
        for operation in list(self.operations):
            await self.cleanup_operation(operation)
        await self.websocket.close(FORBIDDEN, reason)

    async def shutdown(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await super().shutdown()

    _watch: asyncio.Task[None] | None = None

    @cached_property
    def _place(self) -> ExitStack:
        """The connection's slot among those of its caller, once it has one."""
        return ExitStack()


def _closing(error: Exception, request_id: str) -> tuple[int, str]:
    """The close code and reason for a connection whose caller is not authenticated."""
    match error:
        case Unauthenticated():
            return FORBIDDEN, str(error)
        case RateExceeded():
            # Clients reconnect automatically after other codes, which would be futile here.
            return TOO_MANY if error.limit.name == "rate_failed_logins" else TRY_AGAIN, str(error)
        case Refusal(code=ErrorCode.LIMIT_EXCEEDED):
            return TOO_MANY, error.message
        case Refusal():
            return FORBIDDEN if error.code is ErrorCode.FORBIDDEN else INVALID, error.message
        case _ if isinstance(error, KeysUnavailable) or is_unavailable(error):
            log.warning("connection %s: its caller cannot be identified: %r", request_id, error)
            return TRY_AGAIN, "callers cannot be identified just now: try again"
        case _:
            log.error("connection %s failed", request_id, exc_info=error)
            return FAILED, f"internal error: the log of the server has it under the request id {request_id}"


class GraphQLOverWebSocket(GraphQL[Any, Any]):
    """The ASGI application for WebSockets at `/graphql`. Rejects pages of other origins."""

    graphql_transport_ws_handler_class = Handler
    websocket_adapter_class = Socket

    def __init__(self, schema: GatewaySchema, services: ApiServices, documents: Documents) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            connection_init_wait_timeout=timedelta(seconds=services.limits.init_seconds),
            max_subscriptions_per_connection=services.limits.max_socket_operations,
        )
        self.silent: set[Handler] = set()
        """Connections that have not sent their first message yet."""
        self.allowed_origins = normalize_allowed_origins(services.origins)
        self.documents = documents
        self._services = services

    def decode_json(self, data: str | bytes) -> object:
        return read_json(data)

    def encode_json(self, data: object) -> str:
        return write_json(data).decode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self.silent) >= self._services.limits.max_silent_sockets:
            log.warning("rejected a WebSocket: %d others have not sent connection_init yet", len(self.silent))
            self._services.metrics.refusals.labels("max_silent_sockets").inc()
            await send({"type": "websocket.close", "code": TRY_AGAIN, "reason": "too many connections wait: try again"})
            return
        with self._services.metrics.streams.track_inprogress():
            await super().__call__(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Caller:
        return new_caller(self._services, request, uuid4().hex)
