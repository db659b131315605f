"""GraphQL over HTTP (both media types) and server-sent events (graphql-sse, distinct connections)."""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from typing import Any
from uuid import uuid4

import orjson
from graphql import GraphQLError, get_operation_ast, parse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.execution import PreExecutionError
from strawberry.types.graphql import OperationType

from app.api.context import ApiServices, Caller, request_log
from app.api.errors import RATE_LIMITED, rate_extensions, refusal_extensions
from app.api.execution import Answer
from app.api.guards.documents import DocumentRefused, Documents
from app.api.guards.limits import GatewaySchema
from app.api.transport.callers import CHALLENGE, new_caller
from app.api.transport.guard import BodyTooSlow
from app.api.transport.json_text import read_json, write_json
from app.api.transport.multipart import BadMultipart, read_operations, scratch
from app.api.transport.page import GRAPHIQL, page_response
from app.api.transport.params import BadRequest, Params, read_params
from app.errors import ErrorCode, Limit, Refusal, outage
from app.logs import bind
from app.services.access.identity import KeysUnavailable, Unauthenticated
from app.services.access.rates import RateExceeded
from app.storage.columns import StoredValues
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
EVENTS = "text/event-stream"
MULTIPART = "multipart/form-data"

PREFLIGHT_HEADERS = ("graphql-preflight", "apollo-require-preflight", "x-requested-with")
HEARTBEAT_SECONDS = 15.0
WATCH_AFTER = 0.05
"""Seconds after which an operation is told that its client has disconnected."""

STREAM_HEADERS = {"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"}


class GraphQLOverHTTP:
    """The ASGI application at `/graphql`."""

    def __init__(self, schema: GatewaySchema, services: ApiServices, documents: Documents) -> None:
        self._schema = schema
        self._services = services
        self._documents = documents

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        request_id = _request_id(request)
        bind(request_id=request_id)
        request_log.add(request_id=request_id)
        # Keep files and the stream's slot until the last byte is sent: streams execute while they are sent.
        with ExitStack() as files:
            response = await self._answer(request, request_id, files)
            response.headers["x-request-id"] = request_id
            await response(scope, receive, send)

    async def _answer(self, request: Request, request_id: str, files: ExitStack) -> Response:
        media = JSON
        try:
            if shows_page(request):
                return page_response(GRAPHIQL)
            media = negotiate(request.headers.get("accept", ""))
            caller = new_caller(self._services, request, request_id)
            await caller.identify()
            caller.count_request()
            params = await self._read(request, files)
            text = self._documents.text(caller.organisation, params.query, params.document_id)
            if media == EVENTS:
                files.enter_context(caller.hold_stream())
            return await self._respond(request, caller, replace(params, query=text), media)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            answer, limit = _rejection(error, media)
            if limit is not None:
                self._services.metrics.refused(limit)
            return answer or _outage(error, request_id, media)

    async def _read(self, request: Request, files: ExitStack) -> Params:
        if request.method == "GET":
            return read_params(_from_query(request))
        if request.method != "POST":
            raise BadRequest(
                405, f"{request.method} is not possible here: use POST, or GET for queries", {"allow": "GET, POST"}
            )
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == MULTIPART:
            self._need_preflight(request)
            folder, limit = files.enter_context(scratch(self._services.uploads)), self._services.limits.max_upload_bytes
            return read_params(await read_operations(request.headers["content-type"], request.stream(), folder, limit))
        if kind != JSON:
            message = f"the content type {kind!r} is not taken: send {JSON}, or {MULTIPART} for files"
            raise BadRequest(415, message, {"accept-post": f"{JSON}, {MULTIPART}"})
        return read_params(_from_json(await _body(request, self._services.limits.max_body_bytes)))

    def _need_preflight(self, request: Request) -> None:
        """Any page's form can send multipart requests in a visitor's name, but it cannot add a header."""
        if not any(request.headers.get(name) for name in PREFLIGHT_HEADERS):
            names = ", ".join(PREFLIGHT_HEADERS)
            message = f"a multipart request needs one of the headers {names}, so that no foreign page can send it"
            raise BadRequest(403, message, code="PREFLIGHT_REQUIRED")

    async def _respond(self, request: Request, caller: Caller, params: Params, media: str) -> Response:
        allowed = {OperationType.QUERY} if request.method == "GET" else {OperationType.QUERY, OperationType.MUTATION}
        if media == EVENTS:
            # Once the stream has started, its status can no longer report an error.
            self._need_operation(params, allowed | {OperationType.SUBSCRIPTION})
            results = await self._schema.stream(
                params.query,
                variable_values=params.variables,
                context_value=caller,
                operation_name=params.operation_name,
                allowed_operation_types=allowed | {OperationType.SUBSCRIPTION},
            )
            return StreamingResponse(self._events(results, caller), media_type=EVENTS, headers=STREAM_HEADERS)
        watch = _Watch(request, caller.gone)
        try:
            result = await self._schema.execute(
                params.query,
                variable_values=params.variables,
                context_value=caller,
                operation_name=params.operation_name,
                allowed_operation_types=allowed,
            )
        except CannotGetOperationTypeError as error:
            raise BadRequest(400, error.as_http_error_reason()) from None
        except InvalidOperationTypeError as error:
            raise _wrong_way(error.operation_type) from None
        finally:
            watch.stop()
        refused = isinstance(result, PreExecutionError) or (
            result.data is None and all(not error.path for error in result.errors or ())
        )
        if waits := [wait for error in result.errors or () if (wait := (error.extensions or {}).get("retryAfter"))]:
            headers = {"retry-after": str(max(waits))}
            return Response(encode(result, with_data=False), 429, headers=headers, media_type=_with_charset(media))
        # By the specification, application/json uses status 200 for every well-formed GraphQL request.
        status = 400 if refused and media == GRAPHQL_JSON else 200
        return Response(encode(result, with_data=not refused), status, media_type=_with_charset(media))

    def _need_operation(self, params: Params, allowed: set[OperationType]) -> None:
        """Raises `BadRequest` for a missing operation, or one whose type is not allowed. Syntax errors and ambiguous
        operations are left to the schema."""
        with suppress(GraphQLError):
            document = parse(params.query or "", max_tokens=self._services.limits.max_tokens, no_location=True)
            selected = get_operation_ast(document, params.operation_name)
            if selected is None and params.operation_name is not None:
                raise BadRequest(400, CannotGetOperationTypeError(params.operation_name).as_http_error_reason())
            if selected is not None and OperationType(selected.operation.value) not in allowed:
                raise _wrong_way(OperationType(selected.operation.value))

    async def _events(self, results: AsyncGenerator[Any, None], caller: Caller) -> AsyncIterator[bytes]:
        """Yields items until the operation completes, or until its caller is no longer authenticated.

        When the server stops, the stream just ends, and clients reconnect.
        """
        self._services.metrics.streams.inc()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=1)
        pump = asyncio.create_task(_pump(results, queue))
        stopping = asyncio.create_task(self._services.stopping.wait())
        ended = asyncio.create_task(caller.until_ended())
        getting = asyncio.create_task(queue.get())
        try:
            while not stopping.done():
                waits = {getting, stopping, ended}
                await asyncio.wait(waits, timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if ended.done():
                    yield b"event: next\ndata: " + _failed(ended.result(), "UNAUTHENTICATED") + b"\n\n"
                    yield _COMPLETE
                    return
                if not getting.done():
                    yield b": still here\n\n"
                    continue
                event = getting.result()
                if event is None:
                    yield _COMPLETE
                    return
                yield event
                getting = asyncio.create_task(queue.get())
        finally:
            self._services.metrics.streams.dec()
            for task in (pump, stopping, ended, getting):
                task.cancel()
            await asyncio.gather(pump, stopping, ended, getting, return_exceptions=True)


_COMPLETE = b"event: complete\ndata: \n\n"


class _Watch:
    """Sets the event when the client disconnects. Begins after `WATCH_AFTER`, so short operations need no task."""

    def __init__(self, request: Request, gone: asyncio.Event) -> None:
        self._request, self._gone = request, gone
        self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER, self._begin)
        self._task: asyncio.Task[None] | None = None

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        # The body has been read, so no other message can arrive.
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self._gone.set()

    def stop(self) -> None:
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()


async def _pump(results: AsyncGenerator[Any, None], queue: "asyncio.Queue[bytes | None]") -> None:
    """Runs the operation in one task from start to end."""
    try:
        async with aclosing(results):
            async for result in results:
                refused = isinstance(result, PreExecutionError)
                await queue.put(b"event: next\ndata: " + encode(result, with_data=not refused) + b"\n\n")
    except Exception:
        log.exception("a stream broke off")
    await queue.put(None)


_OPERATION = {"query", "documentId", "doc_id", "extensions"}


def shows_page(request: Request) -> bool:
    """Whether a browser opens the address, rather than a program."""
    accept = request.headers.get("accept", "")
    return request.method == "GET" and "text/html" in accept and not _OPERATION & request.query_params.keys()


def negotiate(accept: str) -> str:
    """The media type of the response. Raises `BadRequest` if none of ours is accepted.

    >>> negotiate("application/graphql-response+json, application/json;q=0.9"), negotiate("*/*")
    ('application/graphql-response+json', 'application/json')
    """
    qualities: dict[str, float] = {}
    for part in accept.split(",") if accept.strip() else ["*/*"]:
        name, *parameters = (text.strip().lower() for text in part.split(";"))
        weight = next((text[2:] for text in parameters if text.startswith("q=")), "1")
        qualities[name] = float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0
    if EVENTS in qualities and qualities[EVENTS] > 0:
        return EVENTS
    ranked = [(qualities.get(GRAPHQL_JSON, 0.0), GRAPHQL_JSON)]
    ranked.append((max(qualities.get(name, 0.0) for name in (JSON, "application/*", "*/*")), JSON))
    best, media = max(ranked, key=lambda item: item[0])
    if best == 0:
        raise BadRequest(406, f"none of {accept!r} can be answered: accept {GRAPHQL_JSON}, {JSON} or {EVENTS}")
    return media


def encode(result: Any, *, with_data: bool = True) -> bytes:
    """A response as JSON, errors first for visibility, and without `data` if nothing was executed."""
    answer: StoredValues = {}
    if result.errors:
        answer["errors"] = [error.formatted for error in result.errors]
    if with_data:
        answer["data"] = result.data.encoded if isinstance(result.data, Answer) else result.data
    if result.extensions:
        answer["extensions"] = result.extensions
    return write_json(answer)


def _rejection(error: Exception, media: str) -> tuple[Response | None, str | None]:
    """The response to a client error, and the exceeded limit, if any; None for other errors."""
    match error:
        case BadRequest():
            return failure(error.status, str(error), media, error.headers, error.code), error.limit
        case BadMultipart():
            return failure(error.status, str(error), media, {}, "BAD_REQUEST"), error.limit
        case DocumentRefused():
            return failure(error.status, str(error), media, {}, error.code), None
        case BodyTooSlow():
            answer = failure(408, str(error), media, {"connection": "close"}, "BODY_TOO_SLOW")
            return answer, "upload_idle_seconds"
        case Unauthenticated():
            return failure(401, str(error), media, {"www-authenticate": CHALLENGE}, "UNAUTHENTICATED"), None
        case RateExceeded():
            headers, more = {"retry-after": str(error.seconds)}, rate_extensions(error)
            return failure(429, str(error), media, headers, RATE_LIMITED, more), error.limit.name
        case Refusal(code=ErrorCode.LIMIT_EXCEEDED, limit=Limit() as limit):
            more = refusal_extensions(error)
            return failure(429, error.message, media, {}, error.code.value, more), limit.name
        case Refusal():
            status = 403 if error.code is ErrorCode.FORBIDDEN else 400
            return failure(status, error.message, media, {}, error.code.value), None
        case _:
            return None, None


def _outage(error: Exception, request_id: str, media: str) -> Response:
    """The response to a server error; the log has the reason."""
    if reason := outage(error):
        log.warning("request %s failed: %s: %r", request_id, reason, error)
        return failure(503, reason, media, {}, "UNAVAILABLE")
    if isinstance(error, KeysUnavailable) or is_unavailable(error):
        log.warning("request %s: its caller cannot be identified: %r", request_id, error)
        return failure(503, "callers cannot be identified just now: try again", media, {}, "UNAVAILABLE")
    log.error("request %s failed", request_id, exc_info=error)
    message = f"internal error: the log of the server has it under the request id {request_id}"
    return failure(500, message, media, {}, "INTERNAL")


def failure(
    status: int, message: str, media: str, headers: Mapping[str, str], code: str, more: StoredValues | None = None
) -> Response:
    """A failed request in the form of a GraphQL response; `more` are additional extensions of its error."""
    kind = JSON if media == EVENTS else media
    request_log.add(outcome=code)
    return Response(_failed(message, code, more), status, headers=dict(headers), media_type=_with_charset(kind))


def _failed(message: str, code: str, more: StoredValues | None = None) -> bytes:
    return orjson.dumps({"errors": [{"message": message, "extensions": {"code": code, **(more or {})}}]})


def _with_charset(media: str) -> str:
    return f"{media}; charset=utf-8"


def _wrong_way(kind: OperationType) -> BadRequest:
    if kind is OperationType.SUBSCRIPTION:
        message = f"a subscription is a stream: accept {EVENTS}, or use a WebSocket with graphql-transport-ws"
        return BadRequest(400, message)
    return BadRequest(405, "a GET request may only read: send mutations by POST", {"allow": "POST"})


def _request_id(request: Request) -> str:
    sent = request.headers.get("x-request-id", "")
    return sent if re.fullmatch(r"[\w.:-]{1,64}", sent) else uuid4().hex


def _from_query(request: Request) -> StoredValues:
    params: StoredValues = dict(request.query_params)
    for name in ("variables", "extensions"):
        if params.get(name):
            try:
                params[name] = orjson.loads(params[name])
            except orjson.JSONDecodeError as error:
                raise BadRequest(400, f"`{name}` is not JSON: {error}") from None
        else:
            params.pop(name, None)
    return params


def _from_json(body: bytes) -> object:
    try:
        return read_json(body)
    except orjson.JSONDecodeError as error:
        raise BadRequest(400, f"the body is not JSON: {error}") from None


async def _body(request: Request, limit: int) -> bytes:
    body = bytearray()
    announced = request.headers.get("content-length", "")
    if not announced.isdecimal() or int(announced[:20]) <= limit:
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                break
        else:
            return bytes(body)
    size = f"{int(announced[:20]):,}" if announced.isdecimal() else f"more than {limit:,}"
    message = f"the body has {size} bytes, and at most {limit:,} are taken: send files as {MULTIPART}"
    raise BadRequest(413, message, {"connection": "close"}, limit="max_body_bytes")
