"""The addresses of the server: GraphQL by HTTP, WebSocket and server-sent events, health, metrics and the pages."""

import logging
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from app.api.context import ApiServices
from app.api.context.metrics import CONTENT_TYPE
from app.api.schema import build_schema
from app.api.transport.callers import CHALLENGE, new_caller
from app.api.transport.documentation import documentation_routes
from app.api.transport.http import GraphQLOverHTTP
from app.api.transport.page import asset_routes, workplace_routes
from app.api.transport.websocket import GraphQLOverWebSocket
from app.errors import Refusal
from app.services.access.identity import Unauthenticated
from app.services.maintenance.readiness import left_jobs, not_ready
from app.storage.columns import JsonObject

log = logging.getLogger(__name__)

READY_SECONDS = 5.0
"""How long the database may take to answer before the server counts as not ready."""


def api_routes(services: ApiServices) -> list[BaseRoute]:
    """Every route of the server, over one schema."""
    schema = build_schema(services.limits)
    return [
        WebSocketRoute("/graphql", GraphQLOverWebSocket(schema, services)),
        Route("/graphql", GraphQLOverHTTP(schema, services)),
        *asset_routes(),
        *workplace_routes(),
        *documentation_routes(),
        Route("/health/live", live),
        Route("/health/ready", readiness(services)),
        Route("/metrics", prometheus(services)),
    ]


async def live(request: Request) -> Response:
    return PlainTextResponse("alive\n")


def readiness(services: ApiServices) -> Callable[[Request], Awaitable[Response]]:
    """Ready is who has a database with tables, and a data folder that can be written. That no worker takes up the jobs
    is a warning: requests are answered all the same."""

    async def ready(request: Request) -> Response:
        if services.draining.is_set():
            return JSONResponse({"ready": False, "reason": "the server is stopping"}, status_code=503)
        if reason := await not_ready(services.database, services.lake, READY_SECONDS):
            log.warning("the server is not ready: %s", reason)
            return JSONResponse({"ready": False, "reason": reason}, status_code=503)
        answer: JsonObject = {"ready": True}
        if stuck_jobs := await left_jobs(services.database, services.clock()):
            answer["warning"] = f"{stuck_jobs} jobs wait and no worker takes them up: start `segmentation worker`"
        return JSONResponse(answer)

    return ready


def prometheus(services: ApiServices) -> Callable[[Request], Awaitable[Response]]:
    """Open to everybody where everybody may do everything; otherwise for those with the permission `metrics:read`."""

    async def measured(request: Request) -> Response:
        caller = new_caller(services, request, "metrics")
        try:
            await caller.identify()
        except Unauthenticated as problem:
            return PlainTextResponse(f"{problem}\n", 401, headers={"www-authenticate": CHALLENGE})
        except Refusal as refusal:
            return PlainTextResponse(f"{refusal.message}\n", 403)
        if caller.scope is None or not caller.scope.allows("metrics:read"):
            return PlainTextResponse("metrics need the permission metrics:read\n", 403)
        return Response(services.metrics.text(), headers={"content-type": CONTENT_TYPE})

    return measured
