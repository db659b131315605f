"""GraphQL over WebSocket, by the protocol graphql-transport-ws."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.http.websocket_origin import normalize_allowed_origins
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import ConnectionInitMessage

from app.api.context import ApiServices, Caller
from app.api.guards.limits import GatewaySchema
from app.api.transport.callers import new_caller
from app.errors import ErrorCode, Refusal
from app.services.access.identity import Unauthenticated
from app.services.access.tokens import KeysUnavailable
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

LONGEST_REASON = 120
"""Bytes that a WebSocket's closing message has room for."""

INVALID, FORBIDDEN, FAILED, TRY_AGAIN = 4400, 4403, 1011, 1013
"""Codes that connections are closed with: the protocol's, and those of WebSockets themselves."""

MOST_OPERATIONS = 100
"""Operations that one connection may have open."""


class Handler(BaseGraphQLTransportWSHandler[Caller, None]):
    """Learns from the first message who is there."""

    @staticmethod
    def _get_pre_execution_close_reason(error: GraphQLError) -> str | None:
        """Strawberry would close the socket, and all other operations with it, for a syntax error of one."""
        return None

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        payload: Any = message.get("payload") or {}
        if isinstance(payload, Mapping) and not self.connection_init_received:
            try:
                await self.context.identify(payload)
            except Exception as error:
                code, reason = _closing(error, self.context.request_id)
                await self.websocket.close(code, reason.encode()[:LONGEST_REASON].decode(errors="ignore"))
                return
            self._watch = asyncio.create_task(self._close_when_ended())
        # graphql-ws sends no payload, or null; Strawberry knows only the first.
        await super().handle_connection_init({"type": "connection_init", "payload": payload})

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


def _closing(error: Exception, request_id: str) -> tuple[int, str]:
    """The code and the reason with which a connection ends whose caller is not known."""
    match error:
        case Unauthenticated():
            return FORBIDDEN, str(error)
        case Refusal():
            return FORBIDDEN if error.code is ErrorCode.FORBIDDEN else INVALID, error.message
        case _ if isinstance(error, KeysUnavailable) or is_unavailable(error):
            log.warning("connection %s: its caller cannot be identified: %r", request_id, error)
            return TRY_AGAIN, "callers cannot be identified just now: try again"
        case _:
            log.error("connection %s failed", request_id, exc_info=error)
            return FAILED, f"internal error: the log of the server has it under the request id {request_id}"


class GraphQLOverWebSocket(GraphQL[Any, Any]):
    """The ASGI application of `/graphql` for WebSockets. Pages of other origins are turned away."""

    graphql_transport_ws_handler_class = Handler

    def __init__(self, schema: GatewaySchema, services: ApiServices) -> None:
        super().__init__(
            schema,
            graphql_ide=None,
            subscription_protocols=[GRAPHQL_TRANSPORT_WS_PROTOCOL],
            max_subscriptions_per_connection=MOST_OPERATIONS,
        )
        self.allowed_origins = normalize_allowed_origins(services.origins)
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._services.metrics.streams.track_inprogress():
            await super().__call__(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Caller:
        return new_caller(self._services, request, uuid4().hex)
