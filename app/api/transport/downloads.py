"""`GET /audiences/{id}/members.csv`, `.ndjson` and `.parquet`: downloads the members of an audience."""

import logging
import re
from datetime import datetime
from uuid import uuid4

from graphql import GraphQLError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from app.api.context import ApiServices
from app.api.global_ids import split_id
from app.api.permissions import NEEDS, refusals
from app.api.scalars import read_time
from app.api.transport.callers import CHALLENGE, new_caller
from app.engine.export.members import ENCODERS
from app.engine.members.membership import MEMBERS_NOW
from app.errors import ErrorCode, Refusal, outage
from app.scope import Scope
from app.services.access.audit import Entry, audited
from app.services.access.identity import Unauthenticated
from app.services.access.rates import RateExceeded
from app.services.insight.downloads import Download, Wanted, open_download
from app.services.insight.profiles import ProfileOrder
from app.services.people.profiles import ProfileReader
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

PARAMETERS = ("columns", "status", "where", "orderBy", "direction", "asOf")
_STATUS = {ErrorCode.NOT_FOUND: 404, ErrorCode.FORBIDDEN: 403, ErrorCode.INVALID_STATE: 409}


def download_routes(services: ApiServices) -> list[BaseRoute]:
    async def answer(request: Request) -> Response:
        sent = request.headers.get("x-request-id", "")
        request_id = sent if re.fullmatch(r"[\w.:-]{1,64}", sent) else uuid4().hex
        response = await _answer(services, request, request_id)
        response.headers["x-request-id"] = request_id
        return response

    return [Route("/audiences/{id}/members.{format}", answer, methods=["GET"])]


async def _answer(services: ApiServices, request: Request, request_id: str) -> Response:
    try:
        download = await _open(services, request, request_id)
    except Unauthenticated as error:
        return _failure(401, str(error), "UNAUTHENTICATED", {"www-authenticate": CHALLENGE})
    except RateExceeded as error:
        services.metrics.refused(error.limit.name)
        return _failure(429, str(error), "RATE_LIMITED", {"retry-after": str(error.seconds)})
    except Refusal as refusal:
        return _failure(_STATUS.get(refusal.code, 400), refusal.message, refusal.code.value)
    except Exception as error:
        if (reason := outage(error)) or is_unavailable(error):
            return _failure(503, reason or "the database is unavailable: try again", "UNAVAILABLE")
        log.exception("request %s failed", request_id)
        return _failure(500, f"internal error, logged under the request id {request_id}", "INTERNAL")
    headers = {
        "content-disposition": f'attachment; filename="{download.name}"',
        "cache-control": "no-store",
    }
    return StreamingResponse(download.parts, media_type=download.media, headers=headers)


async def _open(services: ApiServices, request: Request, request_id: str) -> Download:
    caller = new_caller(services, request, request_id)
    await caller.identify()
    caller.count_request()
    if caller.scope is None:
        raise RuntimeError("a download began before its caller was known")
    name, raw = split_id(request.path_params["id"])
    # Downloads are recorded in the audit log like writes, including rejected ones.
    async with audited(services.database, Entry(caller.scope, services.clock, "downloadMembers", request_id, raw)):
        return await _members(services, request, caller.scope, name, raw)


async def _members(services: ApiServices, request: Request, scope: Scope, type_name: str | None, raw: str) -> Download:
    # Needs the same permissions as the list of members.
    needs = {
        need: coordinate for coordinate in ("Query.audience", "Audience.members") for need in NEEDS[coordinate].split()
    }
    for refusal in refusals(scope, needs):
        raise refusal
    format = request.path_params["format"]
    if format not in ENCODERS:
        message = f"members come as {', '.join(ENCODERS)}, not as {format!r}"
        raise Refusal(ErrorCode.NOT_FOUND, message, ("format",))
    parameters = _parameters(request)
    if type_name not in (None, "Audience", "SegmentDefinition"):
        raise Refusal(ErrorCode.NOT_FOUND, f"{request.path_params['id']!r} is the id of an object of type {type_name}")
    columns, status = parameters.get("columns"), parameters.get("status")
    download = Wanted(
        raw,
        format,
        None if columns is None else columns.split(","),
        MEMBERS_NOW if status is None else tuple(status.split(",")),
        parameters.get("where"),
        _order(parameters),
        _moment(parameters),
    )
    reader = ProfileReader(services.database, services.lake, services.clock, scope)
    return await open_download(services.database, scope, reader, download, services.lake.threads)


def _parameters(request: Request) -> dict[str, str]:
    """Raises `Refusal` for an unknown or repeated parameter."""
    parameters: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name not in PARAMETERS:
            message = f"there is no parameter {name!r}: use {', '.join(PARAMETERS[:-1])} and {PARAMETERS[-1]}"
            raise Refusal(ErrorCode.INVALID_INPUT, message)
        if name in parameters:
            raise Refusal(ErrorCode.INVALID_INPUT, f"the parameter {name!r} is given twice: give it once", (name,))
        parameters[name] = value
    return parameters


def _order(parameters: dict[str, str]) -> ProfileOrder | None:
    """Raises `Refusal`."""
    expression, direction = parameters.get("orderBy"), parameters.get("direction")
    if direction is not None and (expression is None or direction not in ("ASC", "DESC")):
        message = f"`direction` is ASC or DESC beside `orderBy`, not {direction!r}"
        if expression is None:
            message = "`direction` is given without `orderBy`: name what to order by"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("direction",))
    return None if expression is None else ProfileOrder(expression, direction == "DESC")


def _moment(parameters: dict[str, str]) -> datetime | None:
    """Raises `Refusal`."""
    if "asOf" not in parameters:
        return None
    try:
        return read_time(parameters["asOf"])
    except GraphQLError as error:
        raise Refusal(ErrorCode.INVALID_INPUT, error.message, ("as_of",)) from error


def _failure(status: int, message: str, code: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"errors": [{"message": message, "extensions": {"code": code}}]}, status, headers)
