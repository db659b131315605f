"""The routes of the server: GraphQL over HTTP, WebSocket and server-sent events, health, metrics and pages."""

from starlette.routing import BaseRoute, Route, WebSocketRoute

from app.api.context import ApiServices
from app.api.guards.documents import Documents, TrustedDocuments
from app.api.schema import build_schema
from app.api.transport.documentation import documentation_routes
from app.api.transport.downloads import download_routes
from app.api.transport.health import health_routes
from app.api.transport.http import GraphQLOverHTTP
from app.api.transport.page import asset_routes, workplace_routes
from app.api.transport.websocket import GraphQLOverWebSocket


def api_routes(services: ApiServices, trusted: TrustedDocuments | None = None) -> list[BaseRoute]:
    """All routes of the server, over one schema; if `trusted` documents are given, only those run."""
    schema = build_schema(services.limits)
    documents = Documents(services.limits.persisted_queries, trusted)
    return [
        WebSocketRoute("/graphql", GraphQLOverWebSocket(schema, services, documents)),
        Route("/graphql", GraphQLOverHTTP(schema, services, documents)),
        *download_routes(services),
        *asset_routes(),
        *workplace_routes(),
        *documentation_routes(),
        *health_routes(services),
    ]
