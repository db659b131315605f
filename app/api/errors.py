"""Refusals as data in payloads, and everything else masked; knows no resource."""

import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

import strawberry
from graphql import GraphQLError

from app.api.context import Info
from app.api.described import enum_value, resolver
from app.api.global_ids import Node, node_type
from app.errors import Diagnostic, ExpressionRefused, HasDependents, Refusal, Refusals, StaleEtag, Unconfirmed
from app.storage.database import is_unavailable

log = logging.getLogger(__name__)

T = TypeVar("T")


@strawberry.enum(description="Why a request was refused.")
class ErrorCode(Enum):
    INVALID_INPUT = enum_value("INVALID_INPUT", description="A value that cannot be used.")
    INVALID_EXPRESSION = enum_value(
        "INVALID_EXPRESSION", description="An expression that does not parse or does not fit the data."
    )
    NOT_FOUND = enum_value("NOT_FOUND", description="No such object in this sandbox.")
    ALREADY_EXISTS = enum_value("ALREADY_EXISTS", description="A name or key that is taken.")
    STALE_ETAG = enum_value("STALE_ETAG", description="The object has changed since it was read.")
    HAS_DEPENDENTS = enum_value("HAS_DEPENDENTS", description="Other objects still use this one.")
    INVALID_STATE = enum_value("INVALID_STATE", description="Not possible in the object's present state.")
    NOT_ELIGIBLE = enum_value("NOT_ELIGIBLE", description="The expression does not allow this evaluation method.")
    LIMIT_EXCEEDED = enum_value("LIMIT_EXCEEDED", description="More than the service takes.")
    FORBIDDEN = enum_value("FORBIDDEN", description="The caller may not do this.")


@strawberry.enum(description="What kind of mistake an expression has.")
class DiagnosticKind(Enum):
    SYNTAX = enum_value("SYNTAX", description="It is not written in PQL, or in a part that is not supported.")
    UNKNOWN_FIELD = enum_value("UNKNOWN_FIELD", description="A path that the profile schema does not have.")
    UNKNOWN_FUNCTION = enum_value("UNKNOWN_FUNCTION", description="A function that PQL does not have.")
    UNKNOWN_SEGMENT = enum_value("UNKNOWN_SEGMENT", description="A segment that this sandbox does not have.")
    ARGUMENT_COUNT = enum_value("ARGUMENT_COUNT", description="Too many or too few arguments.")
    TYPE = enum_value("TYPE", description="Types that do not fit together.")
    LIMIT = enum_value("LIMIT", description="Longer or deeper than allowed.")
    CYCLE = enum_value("CYCLE", description="Segments that would refer to each other in a circle.")
    DUPLICATE = enum_value("DUPLICATE", description="Another definition says the same; only ever a warning.")


@strawberry.enum(description="Whether a finding stops the expression from being used.")
class DiagnosticSeverity(Enum):
    ERROR = enum_value("ERROR", description="The expression cannot be used.")
    WARNING = enum_value("WARNING", description="The expression can be used, but may not mean what it says.")


@strawberry.type(
    description="A finding in an expression. Line and column are 1-based and count characters; "
    "length covers the offending text."
)
class PqlDiagnostic:
    kind: DiagnosticKind = strawberry.field(description="What kind of finding.")
    severity: DiagnosticSeverity = strawberry.field(description="Whether it stops the expression from being used.")
    message: str = strawberry.field(description="What is wrong, with the text in question, and what to do.")
    line: int = strawberry.field(description="Line of the offending text, from 1.")
    column: int = strawberry.field(description="Column of the offending text, from 1, in characters.")
    length: int = strawberry.field(description="Length of the offending text, in characters.")
    suggestions: list[str] = strawberry.field(description="What may have been meant, nearest first.")

    @classmethod
    def of(cls, found: Diagnostic) -> "PqlDiagnostic":
        return cls(
            kind=DiagnosticKind(found.kind.value),
            severity=DiagnosticSeverity(found.severity.value),
            message=found.message,
            line=found.line,
            column=found.column,
            length=found.length,
            suggestions=list(found.suggestions),
        )


@strawberry.interface(description="Something that the caller did wrong. Nothing has changed.")
class UserError:
    code: ErrorCode = strawberry.field(description="Why it was refused, for programs.")
    message: str = strawberry.field(description="Why it was refused and what to do, for people.")
    path: list[str] = strawberry.field(
        description='Path into the arguments, such as ["input", "definitionIds", "2"]; '
        "empty when no one value is to blame."
    )


@strawberry.type(description="A refusal with nothing to add to its message.")
class InputError(UserError):
    pass


@strawberry.type(description="An expression that cannot be used.")
class ExpressionError(UserError):
    diagnostics: list[PqlDiagnostic] = strawberry.field(description="Every finding, with its place in the expression.")


@strawberry.type(description="A write that is based on an old state.")
class StaleEtagError(UserError):
    current_etag: str = strawberry.field(description="Etag of the present state.")


@strawberry.type(description="A write that others stand in the way of.")
class DependentsError(UserError):
    found: strawberry.Private[Sequence[tuple[str, str]]]

    @resolver(description="Those who still use the object.")
    async def dependents(self, info: Info) -> list[Node]:
        nodes = [await node_type(name).fetch(info.context, raw) for name, raw in self.found]
        return [node for node in nodes if node is not None]


ERROR_TYPES = (InputError, ExpressionError, StaleEtagError, DependentsError)

_ERRORS_DESCRIPTION = "What was refused, and why; empty exactly when it was done."


def errors_field() -> list[UserError]:
    """The field that every payload has."""
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
    """A refusal as an object of the API; `names` says where a service's argument stands in the input."""
    inside = refusal.path[len(prefix) :] if refusal.path[: len(prefix)] == tuple(prefix) else refusal.path
    head, rest = inside[:1], inside[1:]
    placed = [part for name in head for part in (names or {}).get(name, (camel(name),))]
    path = [*prefix, *placed, *map(camel, rest)]
    code, message = ErrorCode(refusal.code.value), refusal.message
    match refusal:
        case ExpressionRefused():
            found = [PqlDiagnostic.of(diagnostic) for diagnostic in refusal.diagnostics]
            return ExpressionError(code=code, message=message, path=path, diagnostics=found)
        case StaleEtag():
            return StaleEtagError(code=code, message=message, path=path, current_etag=refusal.current)
        case HasDependents():
            return DependentsError(code=code, message=message, path=path, found=refusal.dependents)
        case _:
            return InputError(code=code, message=message, path=path)


async def attempt(
    info: Info,
    work: Callable[[], Awaitable[T]],
    *prefix: str,
    names: Mapping[str, Sequence[str]] | None = None,
) -> tuple[T | None, list[UserError]]:
    """What a write gave, or what was refused. Whatever the payload then reads is the state after the write."""
    try:
        return await work(), []
    except Refusal as refusal:
        return None, [user_error(refusal, prefix, names)]
    except Refusals as several:
        return None, [user_error(refusal, prefix, names) for refusal in several.refusals]
    finally:
        await info.context.renew()


def client_error(error: GraphQLError, request_id: str) -> GraphQLError:
    """The error as a client may see it: its own mistakes as they are, ours with nothing but the id that the log has."""
    cause = error.original_error
    while isinstance(cause, GraphQLError):
        cause = cause.original_error
    if cause is None:
        return error
    if isinstance(cause, Refusal | Refusals):
        first = cause if isinstance(cause, Refusal) else cause.refusals[0]
        extensions: dict[str, Any] = {"code": first.code.value, "path": [camel(name) for name in first.path]}
        message = str(cause)
    elif isinstance(cause, Unconfirmed):
        log.warning("request %s: batch %s is stored and unconfirmed: the database is away", request_id, cause.batch_id)
        message = str(cause)
        extensions = {"code": "UNAVAILABLE", "requestId": request_id, "batchId": cause.batch_id}
    elif is_unavailable(cause):
        log.warning("request %s failed at %s: the database is away: %r", request_id, error.path, cause)
        message = "the database does not answer just now, and nothing was changed that was not confirmed: try again"
        extensions = {"code": "UNAVAILABLE", "requestId": request_id}
    else:
        log.error("request %s failed at %s", request_id, error.path, exc_info=cause)
        message = f"internal error: the log of the server has it under the request id {request_id}"
        extensions = {"code": "INTERNAL", "requestId": request_id}
    return GraphQLError(message, nodes=error.nodes, path=error.path, extensions=extensions)
