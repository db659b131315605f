"""Values of an evaluation as JSON for display; long ones are truncated."""

from typing import Any

import numpy as np

from app.engine.evaluate.columns import Array, Column, Index, Interval, Map, Object, Rows, Text, Value
from app.json_values import JsonScalar
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

LONGEST = 20
"""Maximum number of displayed array elements and map entries."""
DEEPEST = 4
_EXACT = 2**53


def plain(value: Value, row: int, type_: Type, depth: int = 0) -> object:
    """The entry of one row; None if it is missing, and below objects nested too deeply for display."""
    if value.valid is not None and not value.valid[row]:
        return None
    match value:
        case Column():
            return plain_scalar(value.kind, value.values[row])
        case Text():
            return value.dictionary[int(value.codes[row])].as_py()
        case Interval():
            return {"start": _instant(value.start[row]), "end": _instant(value.end[row])}
        case Array():
            element = type_.element if isinstance(type_, ArrayType) else Scalar.NULL
            return [plain(value.element, int(at), element, depth + 1) for at in _children(value.rows, row)]
        case Map():
            inner = type_.value if isinstance(type_, MapType) else Scalar.NULL
            return {
                plain(value.keys, int(at), Scalar.STRING): plain(value.items, int(at), inner, depth + 1)
                for at in _children(value.rows, row)
            }
        case Object():
            return _object(value, row, type_, depth)


def _object(value: Object, row: int, type_: Type, depth: int) -> object:
    """The fields that were read and are not missing."""
    if not isinstance(type_, ObjectType) or depth >= DEEPEST:
        return None
    single = value.take(np.full(1, row, np.intp))
    fields = {name: plain(single.field(name, inner), 0, inner, depth + 1) for name, inner in type_.fields.items()}
    return {name: field for name, field in fields.items() if field is not None}


def _children(rows: Rows, row: int) -> Index:
    first = int(rows.starts[row])
    return np.arange(first, first + min(int(rows.counts[row]), LONGEST))


def plain_scalar(kind: Scalar, value: Any) -> JsonScalar:
    """A value in the form of its column's kind."""
    match kind:
        case Scalar.BOOLEAN:
            return bool(value)
        case Scalar.DATE:
            return str(np.datetime64(int(value), "D"))
        case Scalar.TIMESTAMP:
            return _instant(value)
        case Scalar.NULL:
            return None
    number = float(value)
    return int(number) if number.is_integer() and abs(number) <= _EXACT else number


def _instant(micros: Any) -> str:
    """ISO 8601 in UTC, without zero fractions."""
    return str(np.datetime64(int(micros), "us")).removesuffix(".000000") + "Z"
