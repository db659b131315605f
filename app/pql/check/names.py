"""Checks names: bare names, parameters, and fields along paths; knows no operators."""

from app.errors import DiagnosticKind
from app.pql.check.scopes import Names, fields_of
from app.pql.check.state import Checking, Checks, leaf
from app.pql.core import Node
from app.pql.schema import MapType, ObjectType
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.lexer import written_name
from app.pql.syntax.nodes import Field, Name, Parameter, Span
from app.pql.syntax.tokens import bare_name


def bare(checking: Checking, expr: Name, scope: Names) -> Node | None:
    """Resolves a bare name from the innermost scope outwards, among variables and the fields of each level's
    element."""
    at = (expr.at, max(expr.span[1], expr.at + len(expr.name)))
    start = scope.climb(expr.up)
    if start is None:
        levels = sum(place.is_level for place in scope.around()) - 1
        message = f"`{'^' * expr.up}` goes {expr.up} levels out, but only {levels} are around: remove some `^`"
        checking.error(DiagnosticKind.UNKNOWN_FIELD, message, at)
        return None
    for place in start.around():
        if expr.name in place.variables:
            return place.variables[expr.name]
        if place.is_level:
            if place.element is None:
                return None
            field = checking.fields.of(place.element, expr.name, scope.depth)
            if field is not None:
                return field
    suggestions = nearest(expr.name, start.names())
    message = f"there is no field or variable `{expr.name}` here{did_you_mean(suggestions)}"
    checking.error(DiagnosticKind.UNKNOWN_FIELD, message, at, map(bare_name, suggestions))
    return None


def parameter(checking: Checking, expr: Parameter) -> Node | None:
    if expr.position == 1:
        return checking.profile
    message = f"there is no parameter ${expr.position}: a segment has one, the profile, which is $1"
    checking.error(DiagnosticKind.UNKNOWN_FIELD, message, expr.span, ("$1",))
    return None


def step(checking: Checking, expr: Field, scope: Names) -> Checks:
    inner: Node | None = yield checking.visit(expr.object, scope)
    if inner is None:
        return None
    field = checking.fields.of(inner, expr.name, scope.depth)
    if field is None:
        _unknown(checking, expr, inner, (expr.at, max(expr.span[1], expr.at + len(expr.name))))
    return field


def _unknown(checking: Checking, expr: Field, inner: Node, at: Span) -> None:
    type_ = leaf(inner.type)
    suggestions = nearest(expr.name, fields_of(inner))
    if isinstance(type_, ObjectType):
        message = f"there is no field `{expr.name}` here{did_you_mean(suggestions)}"
    elif isinstance(type_, MapType):
        message = f'a map has keys, not fields: write .get("{expr.name}")'
    else:
        message = f"a {type_} has no fields, so there is no `{expr.name}`"
    checking.error(DiagnosticKind.UNKNOWN_FIELD, message, at, map(written_name, suggestions))
