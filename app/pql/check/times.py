"""Checks moments, periods and `occurs`; knows no names except the step labels of a CHAIN."""

from collections.abc import Mapping
from typing import Final

from app.pql.check.scopes import Names
from app.pql.check.state import COMPARABLE_TIMES, Checking, Checks, leaf
from app.pql.core import Node
from app.pql.schema import Scalar
from app.pql.syntax.nodes import Expr, Moment, Name, Occurs, OccursAt, OccursBetween, OccursWithin, Period
from app.pql.syntax.trampoline import Walking

DAYS: Final = {"yesterday": -1, "today": 0, "tomorrow": 1}
SHIFTS: Final = {"last": -1, "this": 0, "next": 1}
TIMES: Final = COMPARABLE_TIMES | {Scalar.NULL}
REFERENCES: Final = TIMES | {Scalar.INTERVAL}


def moment(checking: Checking, expr: Moment) -> Node:
    if expr.word == "now":
        return checking.builder.node("now", Scalar.TIMESTAMP)
    return checking.builder.node("day", Scalar.DATE, payload=(DAYS[expr.word],))


def period(checking: Checking, expr: Period) -> Node:
    return checking.builder.node("period", Scalar.INTERVAL, payload=(SHIFTS[expr.which], expr.unit))


def occurs(
    checking: Checking,
    expr: Occurs,
    scope: Names,
    step_time: Node | None = None,
    labels: Mapping[str, int] | None = None,
) -> Checks:
    """The test as a condition. In a WHEN, `step_time` is the step's time and `labels` are the earlier steps."""
    time = step_time
    if expr.time is not None:
        time = yield checking.visit(expr.time, scope)
        if time is not None and leaf(time.type) not in TIMES:
            message = f"`occurs` takes a date or a timestamp, not {time.type}"
            checking.type_error(message, (expr.at, expr.at + len("occurs")))
            time = None
    operands: list[Node | None] = []
    for reference, needs in operands_of(expr):
        value: Node | None = yield _reference(checking, reference, scope, labels or {})
        if value is not None and value.type not in needs:
            checking.type_error(_wrong(value, needs), reference.span)
            value = None
        if value is not None and value.type is Scalar.NULL:
            value = checking.known_as(value, Scalar.NUMBER if Scalar.NUMBER in needs else Scalar.TIMESTAMP)
        operands.append(value)
    valid = [operand for operand in operands if operand is not None]
    if time is None or len(valid) < len(operands):
        return None
    return checking.any_of(time, scope.depth, lambda element: _test(checking, expr, element, valid))


def operands_of(expr: Occurs) -> list[tuple[Expr, frozenset[Scalar]]]:
    """The expressions that the time is compared with, each with its allowed types."""
    match expr:
        case OccursWithin():
            return [(expr.count, frozenset({Scalar.NUMBER, Scalar.NULL})), (expr.reference, REFERENCES)]
        case OccursAt():
            return [(expr.reference, REFERENCES)]
        case OccursBetween():
            return [(expr.start, REFERENCES), (expr.end, REFERENCES)]


def _reference(checking: Checking, expr: Expr, scope: Names, labels: Mapping[str, int]) -> Walking[Node | None]:
    if isinstance(expr, Name) and not expr.up and expr.name in labels:
        return checking.builder.node("label", Scalar.TIMESTAMP, payload=(labels[expr.name],))
    value: Node | None = yield checking.visit(expr, scope)
    return value


def _test(checking: Checking, expr: Occurs, time: Node, operands: list[Node]) -> Node:
    make = checking.builder.condition
    match expr:
        case OccursWithin():
            return make("occurs", time, *operands, payload=(expr.operator, expr.unit, expr.direction))
        case OccursAt():
            return make(f"occurs_{expr.relation}", time, *operands)
        case OccursBetween():
            return make("occurs_between", time, *operands)


def _wrong(value: Node, needs: frozenset[Scalar]) -> str:
    if Scalar.NUMBER in needs:
        return f"the number of units must be a number, not {value.type}"
    return f"`occurs` compares with a date, a timestamp or an interval such as `last month`, not {value.type}"
