"""Kernels of constants, conditions, comparisons, choice and arithmetic, on values of one scope.

Two-valued logic (reference/pql.md, "Null"): a comparison with null is false, and `not` is an exact complement.
"""

import operator
from datetime import date, datetime

import numpy as np
import pyarrow as pa

from app.engine.evaluate.calendars import Instant
from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Interval,
    Map,
    Object,
    Pairwise,
    Text,
    Value,
    Values,
    both,
    condition,
    nulls,
    numbers,
    spread,
    stacked,
    unified,
)
from app.engine.evaluate.dates import micros
from app.engine.evaluate.exact import alike, calculated, negated, whole
from app.engine.evaluate.memo import Call, RowKernel
from app.engine.evaluate.text import compared_text
from app.pql.schema import ArrayType, Scalar, Type

_COMPARE: dict[str, Pairwise] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_ARITHMETIC = ("add", "subtract", "multiply", "divide", "remainder")


def const(call: Call) -> Value:
    value = call.node.payload[0]
    match value:
        case None:
            return nulls(call.node.type, 1)
        case bool():
            return Column(Scalar.BOOLEAN, np.array([value]))
        case str():
            return Text(np.zeros(1, np.int8), pa.array([value], pa.string()))
        case datetime():
            return Column(Scalar.TIMESTAMP, np.array([Instant.of(value).micros], np.int64))
        case date():
            return Column(Scalar.DATE, np.array([_day_number(value)], np.int32))
    return numbers(whole(value))


def field(call: Call, of: Value) -> Value:
    if not isinstance(of, Object):
        raise TypeError(f"a field of {type(of).__name__} was asked for")
    return of.field(call.node.payload[0], call.node.type)


def truth(call: Call, value: Value) -> Value:
    return condition(_true(value))


def and_(call: Call, *conditions: Value) -> Value:
    result = _true(conditions[0])
    for operand in conditions[1:]:
        result = result & _true(operand)
    return condition(result)


def or_(call: Call, *conditions: Value) -> Value:
    result = _true(conditions[0])
    for operand in conditions[1:]:
        result = result | _true(operand)
    return condition(result)


def not_(call: Call, value: Value) -> Value:
    return condition(~_true(value))


def compare(call: Call, a: Value, b: Value) -> Value:
    test = _COMPARE[call.node.op]
    if isinstance(a, Text) and isinstance(b, Text):
        return condition(compared_text(call.node.op, a, b))
    if not (isinstance(a, Column) and isinstance(b, Column)):
        raise TypeError(f"{type(a).__name__} cannot be compared with {type(b).__name__}")
    left, right = comparable(a, b)
    result: Bools = test(left, right)
    valid = both(a.valid, b.valid)
    return condition(result if valid is None else result & valid)


def comparable(a: Column, b: Column) -> tuple[Values, Values]:
    """The values on one scale: dates compared with timestamps become midnights, and no number is rounded."""
    if a.kind is not b.kind and Scalar.TIMESTAMP in (a.kind, b.kind):
        return micros(a), micros(b)
    left, right = alike(a.values, b.values)
    return left, right


def is_null(call: Call, value: Value) -> Value:
    valid = presence(value)
    return condition(np.zeros(1, np.bool_) if valid is None else ~valid)


def is_not_null(call: Call, value: Value) -> Value:
    valid = presence(value)
    return condition(np.ones(1, np.bool_) if valid is None else valid)


def presence(value: Value) -> Bools | None:
    return value.valid


def choose(call: Call, test: Value, a: Value, b: Value) -> Value:
    """One of two values of any type, row by row."""
    picked = np.broadcast_to(_true(test), call.n)
    return chosen(picked, *(spread(as_type(branch, call.node.type), call.n) for branch in (a, b)))


def typed(call: Call, value: Value) -> Value:
    return as_type(value, call.node.type)


def as_type(value: Value, type_: Type) -> Value:
    """Gives literal nulls, also as array elements, the requested type; dates become timestamps if timestamps are
    requested."""
    if isinstance(value, Array) and isinstance(type_, ArrayType):
        return Array(value.rows, as_type(value.element, type_.element), value.valid)
    if isinstance(value, Column) and value.kind is not type_:
        if value.kind is Scalar.NULL:
            return nulls(type_, len(value))
        if type_ is Scalar.TIMESTAMP:
            return Column(type_, micros(value), value.valid)
    return value


def chosen(picked: Bools, a: Value, b: Value) -> Value:
    if isinstance(a, Text) and isinstance(b, Text):
        texts = unified([a, b])
        return Text(np.where(picked, texts[0].codes, texts[1].codes), texts[0].dictionary)
    if isinstance(a, Column) and isinstance(b, Column):
        if a.kind is b.kind:
            left, right = alike(a.values, b.values)
            return Column(a.kind, np.where(picked, left, right), _where_valid(picked, a.valid, b.valid))
        valid = _where_valid(picked, a.valid, b.valid)
        return Column(Scalar.TIMESTAMP, np.where(picked, micros(a), micros(b)), valid)
    if isinstance(a, Interval) and isinstance(b, Interval):
        valid = _where_valid(picked, a.valid, b.valid)
        return Interval(np.where(picked, a.start, b.start), np.where(picked, a.end, b.end), valid)
    if isinstance(a, Array | Map | Object) and type(a) is type(b):
        rows = np.where(picked, np.arange(len(a)), np.arange(len(a)) + len(a))
        return stacked([a, b]).take(rows)
    raise TypeError(f"no choice between {type(a).__name__} and {type(b).__name__}")


def arithmetic(call: Call, a: Value, b: Value) -> Value:
    left, right = _number(a), _number(b)
    valid = both(left.valid, right.valid)
    if call.node.op in ("divide", "remainder"):
        valid = both(valid, right.values != 0)
    return numbers(calculated(call.node.op, left.values, right.values), valid)


def negate(call: Call, a: Value) -> Value:
    return numbers(negated(_number(a).values), _number(a).valid)


def _number(value: Value) -> Column:
    if isinstance(value, Column) and value.kind is Scalar.NUMBER:
        return value
    raise TypeError("a number was expected")


def _true(value: Value) -> Bools:
    if not isinstance(value, Column):
        raise TypeError(f"a condition was expected, not {type(value).__name__}")
    return value.values if value.valid is None else value.values & value.valid


def _where_valid(picked: Bools, a: Bools | None, b: Bools | None) -> Bools | None:
    if a is None and b is None:
        return None
    return np.where(picked, True if a is None else a, True if b is None else b)


_EPOCH_DAY = date(1970, 1, 1).toordinal()


def _day_number(day: date) -> int:
    return day.toordinal() - _EPOCH_DAY


KERNELS: dict[str, RowKernel] = {
    "const": const,
    "field": field,
    "truth": truth,
    "and": and_,
    "or": or_,
    "not": not_,
    **dict.fromkeys(_COMPARE, compare),
    "is_null": is_null,
    "is_not_null": is_not_null,
    "if": choose,
    "typed": typed,
    **dict.fromkeys(_ARITHMETIC, arithmetic),
    "negate": negate,
}
