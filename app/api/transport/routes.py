"""The addresses of the server: GraphQL by HTTP, WebSocket and server-sent events, health, metrics and the pages."""

from starlette.routing import BaseRoute, Route, WebSocketRoute

from app.api.context import ApiServices
from app.api.schema import build_schema
from app.api.transport.documentation import documentation_routes
from app.api.transport.health import health_routes
from app.api.transport.http import GraphQLOverHTTP
from app.api.transport.page import asset_routes, workplace_routes
from app.api.transport.websocket import GraphQLOverWebSocket


def api_routes(services: ApiServices) -> list[BaseRoute]:
    """Every route of the server, over one schema."""
    schema = build_schema(services.limits)
    return [
        WebSocketRoute("/graphql", GraphQLOverWebSocket(schema, services)),
        Route("/graphql", GraphQLOverHTTP(schema, services)),
        *asset_routes(),
        *workplace_routes(),
        *documentation_routes(),
        *health_routes(services),
    ]
