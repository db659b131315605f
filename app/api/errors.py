"""Returns rejected requests as data in payloads, and masks all other errors; knows no resource."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLError
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError

from app.api.context import Info
from app.api.described import enum_value, resolver
from app.api.global_ids import Node, node_type
from app.errors import Diagnostic, ExpressionRefused, HasDependents, Refusal, Refusals, StaleEtag, Unconfirmed, outage
from app.services.access.rates import RateExceeded
from app.storage.columns import StoredValues
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")

RATE_LIMITED = "RATE_LIMITED"
"""The code of rate limit errors."""


@strawberry.enum(description="Error codes.")
class ErrorCode(Enum):
    INVALID_INPUT = enum_value("INVALID_INPUT", description="Invalid value.")
    INVALID_EXPRESSION = enum_value("INVALID_EXPRESSION", description="Invalid expression.")
    NOT_FOUND = enum_value("NOT_FOUND", description="The object does not exist in this sandbox.")
    ALREADY_EXISTS = enum_value("ALREADY_EXISTS", description="The name or key already exists.")
    STALE_ETAG = enum_value("STALE_ETAG", description="The object changed since it was read.")
    HAS_DEPENDENTS = enum_value("HAS_DEPENDENTS", description="Other objects depend on this one.")
    INVALID_STATE = enum_value("INVALID_STATE", description="Not possible in the object's current state.")
    NOT_ELIGIBLE = enum_value("NOT_ELIGIBLE", description="The expression is not eligible for this evaluation method.")
    LIMIT_EXCEEDED = enum_value("LIMIT_EXCEEDED", description="A limit of the service is exceeded.")
    FORBIDDEN = enum_value("FORBIDDEN", description="The caller lacks a permission.")


@strawberry.enum(description="Kind of a finding in an expression.")
class DiagnosticKind(Enum):
    SYNTAX = enum_value("SYNTAX", description="Not valid PQL, or not supported.")
    UNKNOWN_FIELD = enum_value("UNKNOWN_FIELD", description="Unknown field.")
    UNKNOWN_FUNCTION = enum_value("UNKNOWN_FUNCTION", description="Unknown function.")
    UNKNOWN_SEGMENT = enum_value("UNKNOWN_SEGMENT", description="Unknown segment.")
    ARGUMENT_COUNT = enum_value("ARGUMENT_COUNT", description="Wrong number of arguments.")
    TYPE = enum_value("TYPE", description="Incompatible types.")
    LIMIT = enum_value("LIMIT", description="Longer or deeper than allowed.")
    CYCLE = enum_value("CYCLE", description="Segments that refer to each other in a cycle.")
    DUPLICATE = enum_value("DUPLICATE", description="An equivalent definition exists; always a warning.")


@strawberry.enum(description="Severity of a finding.")
class DiagnosticSeverity(Enum):
    ERROR = enum_value("ERROR", description="The expression cannot be used.")
    WARNING = enum_value("WARNING", description="The expression can be used, but may not mean what was intended.")


@strawberry.type(
    description="A finding in an expression. Line and column are 1-based and count characters; "
    "length covers the offending text."
)
class PqlDiagnostic:
    kind: DiagnosticKind = strawberry.field(description="Kind of the finding.")
    severity: DiagnosticSeverity = strawberry.field(description="Severity.")
    message: str = strawberry.field(description="What is wrong, with the offending text, and what to do.")
    line: int = strawberry.field(description="Line of the offending text, from 1.")
    column: int = strawberry.field(description="Column of the offending text, from 1, in characters.")
    length: int = strawberry.field(description="Length of the offending text, in characters.")
    suggestions: list[str] = strawberry.field(description="Suggestions, nearest first.")

    @classmethod
    def of(cls, diagnostic: Diagnostic) -> "PqlDiagnostic":
        return cls(
            kind=DiagnosticKind(diagnostic.kind.value),
            severity=DiagnosticSeverity(diagnostic.severity.value),
            message=diagnostic.message,
            line=diagnostic.line,
            column=diagnostic.column,
            length=diagnostic.length,
            suggestions=list(diagnostic.suggestions),
        )


@strawberry.interface(description="An error of the caller. Nothing was changed.")
class UserError:
    code: ErrorCode = strawberry.field(description="Error code, for programs.")
    message: str = strawberry.field(description="What is wrong and what to do.")
    path: list[str] = strawberry.field(
        description=(
            'Path into the arguments, for example ["input", '
            '"definitionIds", "2"]; empty if no single value is at fault.'
        )
    )


@strawberry.type(description="An error without further fields.")
class InputError(UserError):
    pass


@strawberry.type(description="An invalid expression.")
class ExpressionError(UserError):
    diagnostics: list[PqlDiagnostic] = strawberry.field(
        description="All findings, with their positions in the expression."
    )


@strawberry.type(description="A write based on an outdated state.")
class StaleEtagError(UserError):
    current_etag: str = strawberry.field(description="Current etag.")


@strawberry.type(description="A write that dependents prevent.")
class DependentsError(UserError):
    dependent_ids: strawberry.Private[Sequence[tuple[str, str]]]

    @resolver(description="Objects that depend on it.")
    async def dependents(self, info: Info) -> list[Node]:
        nodes = [await node_type(name).fetch(info.context, raw) for name, raw in self.dependent_ids]
        return [node for node in nodes if node is not None]


ERROR_TYPES = (InputError, ExpressionError, StaleEtagError, DependentsError)

_ERRORS_DESCRIPTION = "Errors; empty if and only if the mutation succeeded."


def errors_field() -> list[UserError]:
    """The `errors` field of every payload."""
    field: list[UserError] = strawberry.field(description=_ERRORS_DESCRIPTION)
    return field


def camel(name: str) -> str:
    """
    >>> camel("definition_ids")
    'definitionIds'
    """
    return re.sub(r"_([a-z0-9])", lambda match: match[1].upper(), name)


def user_error(
    refusal: Refusal, prefix: Sequence[str] = (), names: Mapping[str, Sequence[str]] | None = None
) -> UserError:
    """An error as an API object; `names` maps a service's arguments to input fields."""
    inside = refusal.path[len(prefix) :] if refusal.path[: len(prefix)] == tuple(prefix) else refusal.path
    head, rest = inside[:1], inside[1:]
    placed = [part for name in head for part in (names or {}).get(name, (camel(name),))]
    path = [*prefix, *placed, *map(camel, rest)]
    code, message = ErrorCode(refusal.code.value), refusal.message
    match refusal:
        case ExpressionRefused():
            diagnostics = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
            return ExpressionError(code=code, message=message, path=path, diagnostics=diagnostics)
        case StaleEtag():
            return StaleEtagError(code=code, message=message, path=path, current_etag=refusal.current)
        case HasDependents():
            return DependentsError(code=code, message=message, path=path, dependent_ids=refusal.dependents)
        case _:
            return InputError(code=code, message=message, path=path)


async def attempt(
    info: Info,
    work: Callable[[], Awaitable[T]],
    *prefix: str,
    names: Mapping[str, Sequence[str]] | None = None,
) -> tuple[T | None, list[UserError]]:
    """The result of a write, or its errors. The payload then reads the state after the write."""
    try:
        return await work(), []
    except Refusal as refusal:
        return None, [user_error(refusal, prefix, names)]
    except Refusals as several:
        return None, [user_error(refusal, prefix, names) for refusal in several.refusals]
    finally:
        await info.context.renew()


def refusal_extensions(refusal: Refusal) -> StoredValues:
    """The machine-readable extensions of an error: its code and path and, for a limit, its name, allowed and requested
    value."""
    extensions: StoredValues = {"code": refusal.code.value, "path": [camel(name) for name in refusal.path]}
    if refusal.limit is not None:
        limit = refusal.limit
        extensions |= {"name": limit.name, "limit": limit.allowed}
        extensions |= {} if limit.value is None else {"value": limit.value}
    return extensions


def exceeded_limit(extensions: Mapping[str, Any]) -> str | None:
    """The name of the limit in these error extensions; None for other errors. Limits without a name of their own are
    input limits."""
    name: str | None = extensions.get("name")
    return name or ("input" if extensions.get("code") == ErrorCode.LIMIT_EXCEEDED.value else None)


def rate_extensions(exceeded: RateExceeded) -> StoredValues:
    """The extensions of a rate limit error; `retryAfter` is in seconds."""
    limit = exceeded.limit
    return {"code": RATE_LIMITED, "name": limit.name, "limit": limit.allowed, "retryAfter": exceeded.seconds}


def client_error(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as shown to a client: client errors unchanged, internal ones with only the id used in the log."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if cause is None or isinstance(cause, CannotGetOperationTypeError | InvalidOperationTypeError):
        return error
    if isinstance(cause, Refusal | Refusals):
        first = cause if isinstance(cause, Refusal) else cause.refusals[0]
        extensions: StoredValues = refusal_extensions(first)
        message = str(cause)
    elif isinstance(cause, Unconfirmed):
        log.warning("request %s: batch %s is stored but unconfirmed: database unavailable", request_id, cause.batch_id)
        message = str(cause)
        extensions = {"code": "UNAVAILABLE", "requestId": request_id, "batchId": cause.batch_id}
    elif reason := outage(cause):
        log.warning("request %s failed at %s: %s: %r", request_id, error.path, reason, cause)
        message, extensions = reason, {"code": "UNAVAILABLE", "requestId": request_id}
    elif is_unavailable(cause):
        log.warning("request %s failed at %s: database unavailable: %r", request_id, error.path, cause)
        message = "the database is unavailable, and only confirmed changes were made: try again"
        extensions = {"code": "UNAVAILABLE", "requestId": request_id}
    else:
        log.error("request %s failed at %s", request_id, error.path, exc_info=cause)
        message = f"internal error: the log of the server has it under the request id {request_id}"
        extensions = {"code": "INTERNAL", "requestId": request_id}
    return GraphQLError(message, nodes=error.nodes, path=error.path, extensions=extensions)
