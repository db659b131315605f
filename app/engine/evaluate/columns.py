"""Values of one row space: numbers, dictionary-encoded text, arrays, objects and maps; knows neither expressions nor
scopes.

A value has one entry per row of its space, or exactly one entry that stands for every row (a constant). `valid` marks
the non-null entries (None: all are valid). The contents of null entries are undefined. Indexes are `intp`, because
numpy converts any other integer type on every use.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.engine.evaluate.exact import alike, doubles, within_range
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

Bools = NDArray[np.bool_]
Index = NDArray[np.intp]
Values = NDArray[Any]
"""The values of a column, in the type of its kind."""
Pairwise = Callable[[Any, Any], Any]
"""An elementwise function of two arrays (or an array and a scalar)."""

DTYPES: dict[Scalar, Any] = {
    Scalar.NUMBER: np.float64,  # or int64, or Python integers: see `exact`
    Scalar.BOOLEAN: np.bool_,
    Scalar.DATE: np.int32,  # days since 1970
    Scalar.TIMESTAMP: np.int64,  # microseconds since 1970, UTC
    Scalar.NULL: np.bool_,
}


class Rows:
    """Maps the rows of a child space to `n` parent rows: `parent`, non-decreasing."""

    def __init__(self, n: int, parent: Index) -> None:
        self.n = n
        self.parent = parent

    @cached_property
    def counts(self) -> Index:
        return np.bincount(self.parent, minlength=self.n)

    @cached_property
    def starts(self) -> Index:
        """The first child row of each parent (or its insertion position, if it has none)."""
        starts = np.zeros(self.n, np.intp)
        np.cumsum(self.counts[:-1], out=starts[1:])
        return starts

    def narrowed(self, rows: Index) -> "Rows":
        return Rows(self.n, self.parent[rows])

    def taken(self, index: Index) -> "tuple[Rows, Index]":
        """For the parents at `index`: their children, and the original row of each child."""
        counts = self.counts[index]
        parent = np.repeat(np.arange(len(index)), counts)
        ends = np.cumsum(counts)
        origin = np.arange(len(parent)) + np.repeat(self.starts[index] - (ends - counts), counts)
        return Rows(len(index), parent), origin


@dataclass(slots=True, frozen=True)
class Column:
    """A number, boolean, date, timestamp, or the literal null."""

    kind: Scalar
    values: Values
    valid: Bools | None = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Index) -> "Column":
        return Column(self.kind, self.values[index], None if self.valid is None else self.valid[index])

    def masked(self, keep: Bools) -> "Column":
        return Column(self.kind, self.values, both(self.valid, keep))


@dataclass(slots=True, frozen=True)
class Text:
    """Codes into a dictionary without nulls or duplicates; null has the code -1."""

    codes: Values
    dictionary: pa.Array

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def valid(self) -> Bools:
        valid: Bools = self.codes >= 0
        return valid

    def take(self, index: Index) -> "Text":
        return Text(self.codes[index], self.dictionary)

    def masked(self, keep: Bools) -> "Text":
        return Text(np.where(keep, self.codes, self.codes.dtype.type(-1)), self.dictionary)

    def lookup(self, table: Values) -> Values:
        """For each row, its entry of `table`, which has one entry per dictionary entry and a last one for null."""
        return np.take(table, self.codes, mode="wrap")


@dataclass(slots=True, frozen=True)
class Interval:
    """From `start` to `end` (exclusive), in microseconds; never null."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    valid: Bools | None = None

    def __len__(self) -> int:
        return len(self.start)

    def take(self, index: Index) -> "Interval":
        return Interval(self.start[index], self.end[index], None if self.valid is None else self.valid[index])

    def masked(self, keep: Bools) -> "Interval":
        return Interval(self.start, self.end, both(self.valid, keep))


class Source(Protocol):
    """The source of objects' fields, with its own rows."""

    def field(self, name: str, type_: Type) -> "Value": ...


@dataclass(slots=True, frozen=True)
class Object:
    """Row `index[i]` of the source (row `i` without an index)."""

    source: Source
    n: int
    index: Index | None = None
    valid: Bools | None = None

    def __len__(self) -> int:
        return self.n

    def take(self, index: Index) -> "Object":
        inner = index if self.index is None else self.index[index]
        return Object(self.source, len(index), inner, None if self.valid is None else self.valid[index])

    def masked(self, keep: Bools) -> "Object":
        return Object(self.source, self.n, self.index, both(self.valid, keep))

    def field(self, name: str, type_: Type) -> "Value":
        value = self.source.field(name, type_)
        value = value if self.index is None else value.take(self.index)
        return value if self.valid is None else value.masked(self.valid)


@dataclass(slots=True, frozen=True)
class Array:
    """The elements of all rows, in order, in a child space. A missing array has no elements, but differs from an empty
    one."""

    rows: Rows
    element: "Value"
    valid: Bools | None = None

    def __len__(self) -> int:
        return self.rows.n

    def take(self, index: Index) -> "Array":
        rows, origin = self.rows.taken(index)
        return Array(rows, self.element.take(origin), None if self.valid is None else self.valid[index])

    def masked(self, keep: Bools) -> "Array":
        valid = both(self.valid, keep)
        inside = keep[self.rows.parent]
        if inside.all():
            return Array(self.rows, self.element, valid)
        return Array(*self._kept(np.flatnonzero(inside)), valid)

    def narrowed(self, rows: Index) -> "Array":
        """Only these elements; the arrays keep their rows."""
        return Array(*self._kept(rows), self.valid)

    def _kept(self, rows: Index) -> "tuple[Rows, Value]":
        return self.rows.narrowed(rows), self.element.take(rows)


@dataclass(slots=True, frozen=True)
class Map:
    """Entries in a child space, with keys unique within a map."""

    rows: Rows
    keys: Text
    items: "Value"
    valid: Bools | None = None

    def __len__(self) -> int:
        return self.rows.n

    def take(self, index: Index) -> "Map":
        rows, origin = self.rows.taken(index)
        valid = None if self.valid is None else self.valid[index]
        return Map(rows, self.keys.take(origin), self.items.take(origin), valid)

    def masked(self, keep: Bools) -> "Map":
        inside = np.flatnonzero(keep[self.rows.parent])
        return Map(self.rows.narrowed(inside), self.keys.take(inside), self.items.take(inside), both(self.valid, keep))


Value = Column | Text | Interval | Object | Array | Map


class Fields:
    """Objects created by an operation, such as the groups of `groupBy`."""

    def __init__(self, fields: dict[str, Value]) -> None:
        self._fields = fields

    def field(self, name: str, type_: Type) -> Value:
        return self._fields[name]


def both(left: Bools | None, right: Bools | None) -> Bools | None:
    if left is None or right is None:
        return right if left is None else left
    return left & right


def condition(values: Bools) -> Column:
    return Column(Scalar.BOOLEAN, values)


def numbers(values: Values, valid: Bools | None = None) -> Column:
    """Numbers; non-finite results (overflow, division by zero) become null."""
    values = values if values.dtype in (np.int64, np.float64, object) else doubles(values)
    if valid is not None and len(valid) != len(values):
        valid = np.broadcast_to(valid, values.shape)  # a constant null combined with a column
    if values.dtype == np.int64:
        return Column(Scalar.NUMBER, values, valid)
    if values.dtype == object:
        values = within_range(values)
        finite = np.array([isfinite(number) for number in values], np.bool_)
    else:
        finite = np.isfinite(values)
    return Column(Scalar.NUMBER, values, valid if finite.all() else both(valid, finite))


def spread(value: Value, n: int) -> Value:
    """The value with one entry for each of `n` rows."""
    return value if len(value) == n else value.take(np.zeros(n, np.intp))


def nulls(type_: Type, n: int) -> Value:
    """`n` nulls of a type (missing arrays and objects)."""
    none = np.zeros(n, np.bool_)
    no_rows = Rows(n, np.zeros(0, np.intp))
    match type_:
        case ArrayType(element):
            return Array(no_rows, nulls(element, 0), none)
        case MapType(item):
            return Map(no_rows, no_text(0), nulls(item, 0), none)
        case ObjectType():
            return Object(_Nothing(), n, np.zeros(n, np.intp), none)
        case Scalar.STRING:
            return no_text(n)
        case Scalar.INTERVAL:
            return Interval(np.zeros(n, np.int64), np.zeros(n, np.int64), none)
    return Column(type_, np.zeros(n, DTYPES[type_]), none)


class _Nothing:
    """The source of objects that are all missing."""

    def field(self, name: str, type_: Type) -> Value:
        return nulls(type_, 1)


def no_text(n: int) -> Text:
    return Text(np.full(n, -1, np.int8), pa.array([], pa.string()))


def narrow_codes(codes: Values, size: int) -> Values:
    """Codes in the smallest signed integer type for a dictionary of `size`, since tests on codes are limited by memory
    bandwidth."""
    dtype = np.int8 if size < 127 else np.int16 if size < 32767 else np.int32
    return codes.astype(dtype, copy=False)


def encoded(array: pa.Array) -> Text:
    """Arrow text, plain or dictionary-encoded, as codes."""
    if isinstance(array, pa.ChunkedArray):
        array = array.unify_dictionaries().combine_chunks() if pa.types.is_dictionary(array.type) else array
        array = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
    dictionary = array.dictionary.cast(pa.string())
    codes = array.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
    distinct = pc.unique(dictionary.drop_null())
    if len(distinct) != len(dictionary):
        table = pc.index_in(dictionary, distinct).fill_null(-1).to_numpy(zero_copy_only=False)
        codes = np.append(table, -1)[codes]
        dictionary = distinct
    return Text(narrow_codes(codes, len(dictionary)), dictionary)


def unified(texts: list[Text]) -> list[Text]:
    """The same texts with a common dictionary, so that equal texts have equal codes."""
    first = texts[0].dictionary
    if all(text.dictionary is first for text in texts):
        return texts
    dictionary = pc.unique(pa.concat_arrays([text.dictionary for text in texts]))
    unified_columns = []
    for text in texts:
        table = pc.index_in(text.dictionary, dictionary).to_numpy(zero_copy_only=False)
        codes = text.lookup(np.append(table, -1))
        unified_columns.append(Text(narrow_codes(codes, len(dictionary)), dictionary))
    return unified_columns


def compacted(text: Text) -> Text:
    """Removes unused dictionary entries if there are many."""
    if len(text.dictionary) <= 2 * len(text.codes) + 16:
        return text
    used, codes = np.unique(text.codes, return_inverse=True)
    nulls_first = int(len(used) > 0 and used[0] < 0)
    dictionary = text.dictionary.take(pa.array(used[nulls_first:]))
    return Text(narrow_codes(codes - nulls_first, len(dictionary)), dictionary)


def ranks(text: Text) -> tuple[Values, pa.Array]:
    """The rank of each row's text in the sorted dictionary (by code point; -1 for null), and that dictionary."""
    order = pc.array_sort_indices(text.dictionary).to_numpy()
    place = np.empty(len(order) + 1, np.int32)
    place[order] = np.arange(len(order))
    place[-1] = -1
    return text.lookup(place), text.dictionary.take(pa.array(order))


def stacked(values: "list[Value]") -> Value:
    """Concatenates values of one type."""
    first = values[0]
    if isinstance(first, Text):
        texts = unified([value for value in values if isinstance(value, Text)])
        return Text(np.concatenate([text.codes for text in texts]), texts[0].dictionary)
    valid = _stacked_valid(values)
    match first:
        case Column():
            columns = [value for value in values if isinstance(value, Column)]
            return Column(first.kind, np.concatenate(alike(*(column.values for column in columns))), valid)
        case Interval():
            intervals = [value for value in values if isinstance(value, Interval)]
            starts, ends = [part.start for part in intervals], [part.end for part in intervals]
            return Interval(np.concatenate(starts), np.concatenate(ends), valid)
        case Object():
            objects = [value for value in values if isinstance(value, Object)]
            return Object(_Stack(objects), sum(map(len, objects)), None, valid)
        case Array():
            arrays = [value for value in values if isinstance(value, Array)]
            return Array(
                _stacked_rows([part.rows for part in arrays]), stacked([part.element for part in arrays]), valid
            )
        case Map():
            maps = [value for value in values if isinstance(value, Map)]
            keys = stacked([part.keys for part in maps])
            items = stacked([part.items for part in maps])
            return Map(
                _stacked_rows([part.rows for part in maps]),
                keys if isinstance(keys, Text) else no_text(0),
                items,
                valid,
            )


class _Stack:
    """The source of objects from several concatenated sources."""

    def __init__(self, objects: list[Object]) -> None:
        self._objects = objects

    def field(self, name: str, type_: Type) -> Value:
        return stacked([spread(objects.field(name, type_), len(objects)) for objects in self._objects])


def _stacked_rows(rows: list[Rows]) -> Rows:
    offsets = np.cumsum([0, *(each.n for each in rows)])
    parents = [each.parent + offset for each, offset in zip(rows, offsets, strict=False)]
    return Rows(int(offsets[-1]), np.concatenate(parents))


def _stacked_valid(values: "list[Value]") -> Bools | None:
    if all(value.valid is None for value in values):
        return None
    return np.concatenate([np.ones(len(each), np.bool_) if each.valid is None else each.valid for each in values])
