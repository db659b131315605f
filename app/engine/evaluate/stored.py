"""Decodes the Arrow columns of a bucket into values, each on first use; knows no expressions.

Integers stay integers, other numbers become doubles, and non-finite ones become null. The fields of a missing object
are null.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Map,
    Object,
    Rows,
    Value,
    Values,
    encoded,
    nulls,
    numbers,
)
from app.engine.store.arrow_types import arrow_type, pql_type
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type


class Stored:
    """The fields of the rows of a table or of a struct column."""

    def __init__(
        self, columns: dict[str, object], n: int, valid: Bools | None = None, made: dict[str, Value] | None = None
    ):
        self._columns = columns
        self._n = n
        self._valid = valid
        self._values: dict[str, Value] = dict(made or {})

    def field(self, name: str, type_: Type) -> Value:
        """The column `name`; nulls of the type if the bucket has no such column."""
        value = self._values.get(name)
        if value is None:
            column = self._columns.get(name)
            value = nulls(type_, self._n) if column is None else decode(column, type_)
            if self._valid is not None:
                value = value.masked(self._valid)
            self._values[name] = value
        return value


def table(source: pa.Table, n: int, made: dict[str, Value] | None = None) -> Stored:
    """The `n` rows of a table (which may have no columns); `made` are additional columns."""
    return Stored({name: source.column(name) for name in source.column_names}, n, None, made)


def decode(data: Any, type_: Type) -> Value:
    """A stored column as a value of a type. Other stored types (such as a date stored as text) are cast.

    Raises `pyarrow.ArrowInvalid` if a value cannot be cast.
    """
    data = _one_chunk(data)
    stored = pql_type(data.type)
    if isinstance(type_, Scalar):
        if stored != type_ and not (stored is Scalar.INTEGER and type_ is Scalar.NUMBER):
            data = _one_chunk(pc.cast(_plain(data), arrow_type(type_)))
        return _scalar(data, type_)
    if pa.types.is_null(data.type) or type(stored) is not type(type_):
        return nulls(type_, len(data))
    valid = _valid(data)
    match type_:
        case ArrayType(element):
            rows, items = _children(data)
            return Array(rows, decode(items, element), valid)
        case MapType(item):
            rows, entries = _children(data.cast(pa.map_(pa.string(), data.type.item_type)))
            return Map(rows, encoded(entries.field(0)), decode(entries.field(1), item), valid)
        case ObjectType():
            columns = {field.name: data.field(at) for at, field in enumerate(data.type)}
            return Object(Stored(columns, len(data), valid), len(data), None, valid)


def _one_chunk(data: Any) -> pa.Array:
    if not isinstance(data, pa.ChunkedArray):
        return data
    if pa.types.is_dictionary(data.type):
        data = data.unify_dictionaries()
    if data.num_chunks == 1:
        return data.chunk(0)
    return pa.concat_arrays(data.chunks) if data.num_chunks else pa.array([], data.type)


def _plain(data: pa.Array) -> pa.Array:
    return data.dictionary_decode() if pa.types.is_dictionary(data.type) else data


def _valid(data: pa.Array) -> Bools | None:
    if not data.null_count:
        return None
    valid: Bools = data.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _scalar(data: pa.Array, kind: Scalar) -> Value:
    if kind is Scalar.STRING:
        return encoded(data)
    data = _plain(data)
    valid = _valid(data)
    if kind is Scalar.NUMBER:
        return numbers(_numbers(data), valid)
    if kind is Scalar.BOOLEAN:
        flags = data.fill_null(False) if data.null_count else data
        return Column(kind, flags.to_numpy(zero_copy_only=False), valid)
    if kind is Scalar.DATE:
        return Column(kind, _unmasked(data.cast(pa.date32(), safe=False), np.int32), valid)
    return Column(kind, _unmasked(data.cast(pa.timestamp("us", data.type.tz), safe=False), np.int64), valid)


def _numbers(data: pa.Array) -> Values:
    if pql_type(data.type) is Scalar.INTEGER:
        try:
            return _unmasked(data.cast(pa.int64()), np.int64)
        except pa.ArrowInvalid:  # larger than that
            return np.array([int(value or 0) for value in data.to_pylist()], object)
    if pa.types.is_decimal(data.type) or pa.types.is_float32(data.type):
        data = data.cast(pa.string())  # as printed, also for doubles
    return _unmasked(data.cast(pa.float64()), np.float64)


def _unmasked(data: pa.Array, dtype: Any) -> Values:
    """The values as stored in memory, without a copy; entries of nulls are undefined."""
    buffer = data.buffers()[1]
    if buffer is None or not len(data):
        return np.zeros(len(data), dtype)
    return np.frombuffer(buffer, dtype, len(data), data.offset * np.dtype(dtype).itemsize)


def _children(data: pa.Array) -> tuple[Rows, pa.Array]:
    """The elements of non-null lists (or entries of maps), and their parents."""
    if pa.types.is_fixed_size_list(data.type):
        data = data.cast(pa.list_(data.type.value_type))
    offsets = data.offsets.to_numpy()
    starts, counts = offsets[:-1], np.diff(offsets)
    missing = data.null_count > 0
    if missing:
        counts = np.where(data.is_valid().to_numpy(zero_copy_only=False), counts, 0)
    entries = _entries(data) if pa.types.is_map(data.type) else data.values
    rows = Rows(len(data), np.repeat(np.arange(len(data)), counts))
    if missing and int(counts.sum()) != int(offsets[-1] - offsets[0]):
        ends = np.cumsum(counts)
        origin = np.arange(len(rows.parent)) + np.repeat(starts - (ends - counts), counts)
        return rows, entries.take(pa.array(origin))
    return rows, entries.slice(int(offsets[0]), len(rows.parent))


def _entries(data: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([data.keys, data.items], names=["key", "value"])
