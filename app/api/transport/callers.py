"""The caller of a request or of a WebSocket, as its connection shows it."""

from starlette.requests import HTTPConnection

from app.api.context import CALLER_HEADERS, ApiServices, Caller

CHALLENGE = 'Bearer realm="segmentation"'


def new_caller(services: ApiServices, connection: HTTPConnection, request_id: str) -> Caller:
    """The caller, not identified yet."""
    names = (*CALLER_HEADERS, *services.access.forwarded)
    headers = {name: values for name in names if (values := connection.headers.getlist(name))}
    return Caller(services, headers, connection.client.host if connection.client else None, request_id)
