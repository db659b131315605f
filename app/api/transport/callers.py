"""The caller of a request or a WebSocket, from its connection."""

from starlette.requests import HTTPConnection

from app.api.context import CALLER_HEADERS, ApiServices, Caller

CHALLENGE = 'Bearer realm="segmentation"'


def new_caller(services: ApiServices, connection: HTTPConnection, request_id: str) -> Caller:
    """The caller, not yet identified."""
    names = {name.lower().encode("latin-1"): name for name in (*CALLER_HEADERS, *services.access.forwarded)}
    headers: dict[str, list[str]] = {}
    for sent, value in connection.scope["headers"]:
        if (name := names.get(sent)) is not None:
            headers.setdefault(name, []).append(value.decode("latin-1"))
    return Caller(services, headers, connection.client.host if connection.client else None, request_id)
