"""Plain Python values in and out of the engine's columns, so that one operation can be tried alone.

Values are None, text, float, bool, date, datetime (UTC), lists, and dicts for objects and maps; an interval is a pair.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from app.engine.evaluate.calendars import Instant
from app.engine.evaluate.columns import Array, Column, Interval, Map, Object, Text, Value, spread
from app.engine.evaluate.kernels import KERNELS
from app.engine.evaluate.memo import Environment, Evaluation
from app.engine.evaluate.stored import table
from app.engine.store.arrow_types import arrow_type
from app.pql.core import Builder, Node
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NAMES = "abcdefgh"
PARENT = "parent"


@dataclass(frozen=True, slots=True)
class Form:
    """How values are stored: text in a dictionary or plain, numbers as integers where they are whole, times coarse
    where they can be, and lists behind something that is not theirs."""

    dictionaries: bool = False
    integers: bool = False
    milliseconds: bool = False
    offset: bool = False


FORMS = (Form(), Form(dictionaries=True, offset=True), Form(integers=True, milliseconds=True))


def stored(values: Sequence[Any], type_: Type, form: Form) -> pa.Array:
    """An Arrow column; under a missing object stand fields that are not null, as a reader may leave them there."""
    match type_:
        case ObjectType(fields):
            filled = [value if value is not None else dict.fromkeys(fields) for value in values]
            columns = [stored([one[name] for one in filled], of, form) for name, of in fields.items()]
            missing = pa.array([value is None for value in values], pa.bool_())
            return pa.StructArray.from_arrays(columns, names=list(fields), mask=missing)
        case ArrayType(element):
            items = stored([item for value in values for item in value or ()], element, form)
            return pa.ListArray.from_arrays(_offsets(values), items)
        case MapType(item):
            entries = [entry for value in values for entry in (value or {}).items()]
            keys, items = (
                stored([entry[at] for entry in entries], of, form) for at, of in ((0, Scalar.STRING), (1, item))
            )
            plain = keys.dictionary_decode() if pa.types.is_dictionary(keys.type) else keys
            return pa.MapArray.from_arrays(_offsets(values), plain, items)
    known = [value for value in values if value is not None]
    if type_ is Scalar.STRING and form.dictionaries:
        return pa.array(values, pa.string()).dictionary_encode()
    if type_ is Scalar.NUMBER and form.integers and all(abs(value) < 2**53 and value == int(value) for value in known):
        return pa.array([None if value is None else int(value) for value in values], pa.int64())
    if type_ is Scalar.TIMESTAMP and form.milliseconds and not any(value.microsecond % 1000 for value in known):
        return pa.array(values, pa.timestamp("ms", tz="UTC"))
    return pa.array(values, arrow_type(type_))


def _offsets(values: Sequence[Any]) -> pa.Array:
    ends = np.cumsum([len(value or ()) for value in values])
    starts = [0, *ends[:-1]] if len(values) else []
    offsets = [None if value is None else int(start) for value, start in zip(values, starts, strict=True)]
    return pa.array([*offsets, int(ends[-1]) if len(values) else 0], pa.int32())


def evaluation(rows: Sequence[Sequence[Any]], types: Sequence[Type], form: Form = FORMS[0]) -> Evaluation:
    """One person for each row; their values are the fields `a`, `b`, … of the object `parent`, which is missing where a
    row is empty."""
    inner = ObjectType(dict(zip(NAMES, types, strict=False)))
    objects = [dict(zip(NAMES, row, strict=False)) if row else None for row in rows]
    before = [dict.fromkeys(inner.fields)] if form.offset else []
    column = stored([*before, *objects], inner, form).slice(len(before))
    return Evaluation(
        KERNELS,
        table(pa.table({PARENT: column}), len(rows)),
        len(rows),
        Environment(Instant.of(NOW), lambda segment: np.zeros(len(rows), np.bool_), lambda: False),
        rows_at_once=16,
    )


def fields(builder: Builder, types: Sequence[Type]) -> list[Node]:
    """The nodes of those fields."""
    inner = ObjectType(dict(zip(NAMES, types, strict=False)))
    profile = builder.node("element", ObjectType({PARENT: inner}), payload=(0,))
    parent = builder.node("field", inner, profile, payload=(PARENT,))
    return [builder.node("field", type_, parent, payload=(name,)) for name, type_ in inner.fields.items()]


def constant(builder: Builder, value: Any, type_: Type) -> Node | None:
    """A literal, where the language has one."""
    if isinstance(type_, ArrayType) and isinstance(type_.element, Scalar) and value:
        items = [builder.constant(item, type_.element) for item in value]
        return builder.node("array", type_, *items)
    return builder.constant(value, type_) if isinstance(type_, Scalar) and type_ is not Scalar.INTERVAL else None


def results(
    make: Callable[[Builder, list[Node]], Node],
    rows: Sequence[Sequence[Any]],
    types: Sequence[Type],
    form: Form = FORMS[0],
    constants: frozenset[int] = frozenset(),
) -> list[Any]:
    """What a node over the fields gives for each row; operands of `constants` are literals of the first row."""
    builder = Builder()
    operands = fields(builder, types)
    for at in constants:
        operands[at] = constant(builder, rows[0][at], types[at]) or operands[at]
    node = make(builder, operands)
    tried = evaluation(rows, types, form)
    with np.errstate(all="ignore"):
        value = spread(tried.operand(node, tried.root), len(rows))
    found = plain(value, node.type)
    return [bool(one) for one in found] if node.type is Scalar.BOOLEAN and node.op not in ("field", "head") else found


def plain(value: Value, type_: Type) -> list[Any]:
    match value, type_:
        case Text(), _:
            texts = value.dictionary.to_pylist()
            return [None if code < 0 else texts[code] for code in value.codes]
        case Column(), _:
            made = [_scalar(one, value.kind) for one in value.values.tolist()]
        case Interval(), _:
            ends = zip(value.start.tolist(), value.end.tolist(), strict=True)
            made = [tuple(_scalar(one, Scalar.TIMESTAMP) for one in pair) for pair in ends]
        case Array(), ArrayType(element):
            items = plain(value.element, element)
            made = [
                [item for item, owner in zip(items, value.rows.parent, strict=True) if owner == at]
                for at in range(len(value))
            ]
        case Map(), MapType(item):
            entries = list(
                zip(value.rows.parent, plain(value.keys, Scalar.STRING), plain(value.items, item), strict=True)
            )
            made = [{key: one for owner, key, one in entries if owner == at} for at in range(len(value))]
        case Object(), ObjectType(inner):
            columns = {name: plain(spread(value.field(name, of), len(value)), of) for name, of in inner.items()}
            made = [{name: column[at] for name, column in columns.items()} for at in range(len(value))]
        case _:
            raise TypeError(f"{type(value).__name__} is not a {type_}")
    valid = [True] * len(made) if value.valid is None else value.valid.tolist()
    return [one if there else None for one, there in zip(made, valid, strict=True)]


def _scalar(value: Any, kind: Scalar) -> Any:
    if kind is Scalar.DATE:
        return date(1970, 1, 1) + timedelta(days=value)
    return EPOCH + timedelta(microseconds=value) if kind is Scalar.TIMESTAMP else value


def bound_element(builder: Builder, level: int, type_: Type) -> Node:
    return builder.node("element", type_, payload=(level,))
