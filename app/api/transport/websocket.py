"""GraphQL over WebSocket, by the protocol graphql-transport-ws."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler
from strawberry.subscriptions.protocols.graphql_transport_ws.types import ConnectionInitMessage

from app.api.context import ApiServices, Caller
from app.api.limits import GatewaySchema
from app.errors import Refusal

LONGEST_REASON = 120
"""Bytes that a WebSocket's closing message has room for."""

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
                self.context.identify(payload)
            except Refusal as refusal:
                reason = refusal.message.encode()[:LONGEST_REASON].decode(errors="ignore")
                await self.websocket.close(4400, reason)
                return
        # graphql-ws sends no payload, or null; Strawberry knows only the first.
        await super().handle_connection_init({"type": "connection_init", "payload": payload})


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
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._services.metrics.streams.track_inprogress():
            await super().__call__(scope, receive, send)

    async def get_context(self, request: Request | WebSocket, response: Response | WebSocket) -> Caller:
        return Caller(self._services, None, request.headers, uuid4().hex)
