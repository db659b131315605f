"""Counts how many rows of a table have a field, and its most frequent values; exact, or for a stated part of the
rows."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path as FilePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.engine.ingest.rows import user_fields
from app.engine.limits.pool import Cancelled, Stopped, in_threads
from app.engine.store.bucket import Path
from app.engine.store.delta import DataFile, TableVersion
from app.engine.store.layout import slot_of
from app.engine.store.parquet_columns import open_file, prune, read_columns
from app.json_values import JsonScalar

MOST_ROWS = 5_000_000
"""Files are read until they contain this many rows; the rest of a larger table is ignored."""
MOST_DISTINCT = 100_000
"""Values of a field with more distinct values are not counted."""
MOST_BYTES = 64 * 1024**2
"""Maximum memory for the distinct values of a field."""
MOST_VALUES = 100
"""Number of most frequent values that are kept."""
LONGEST = 1_000
"""Maximum length in characters of a text in `values`; longer ones are not values to choose from."""
AT_ONCE = 8
"""Number of fields read together: each thread holds a row group of them in memory."""


@dataclass(frozen=True, slots=True)
class ValueCount:
    value: JsonScalar
    count: int


@dataclass(frozen=True, slots=True)
class FieldStatistics:
    """Of `rows` rows, `filled` have a value or, for an array, at least one element. `distinct` is None and `values` is
    empty if there are too many different values, and for maps. `values` are the most frequent ones, ties by value; each
    element of an array counts. `whole` is true if all rows of the table were read."""

    rows: int
    filled: int
    distinct: int | None
    values: tuple[ValueCount, ...]
    whole: bool


def field_statistics(
    table: TableVersion, paths: Sequence[Path], *, threads: int, stopped: Stopped
) -> dict[Path, FieldStatistics]:
    """The statistics of fields of `leaves`; cached, since a version never changes.

    Raises `Cancelled` soon after `stopped` returns true, `FileLost`, and `FileNotFoundError` if the version is too old.
    """
    remembered = {path: there for path in paths if (there := _remembered.get(table, path)) is not None}
    missing = [path for path in paths if path not in remembered]
    for first in range(0, len(missing), AT_ONCE):
        for path, statistics in _counted(table, missing[first : first + AT_ONCE], threads, stopped).items():
            remembered[path] = statistics
            _remembered.put(table, path, statistics)
    return remembered


def _counted(table: TableVersion, paths: Sequence[Path], threads: int, stopped: Stopped) -> dict[Path, FieldStatistics]:
    files = _files(table)
    fields = prune(user_fields(table.schema), paths)
    tallies = {path: _Tally() for path in paths}
    lock = threading.Lock()

    def work(number: int, stop: Stopped) -> None:
        opened = open_file(table.folder / files[number].name, fields)
        for group in range(opened.num_row_groups):
            if stop():
                raise Cancelled
            columns = read_columns(opened, fields, groups=[group])
            for path, tally in tallies.items():
                values, filled = _leaf(columns, path)
                counts = _value_counts(values) if tally.counting else None
                with lock:
                    tally.add(filled, counts)

    in_threads(work, range(len(files)), finished=lambda _: None, cancelled=stopped, threads=threads)
    rows = sum(file.rows for file in files)
    return {path: tally.statistics(rows, len(files) == len(table.files)) for path, tally in tallies.items()}


def _files(table: TableVersion) -> list[DataFile]:
    """By slot: people are distributed randomly over slots of buckets, so the first ones are a fair sample."""
    chosen: list[DataFile] = []
    rows = 0
    for file in sorted(table.files, key=lambda file: (slot_of(file.bucket), file.bucket, file.name)):
        if rows >= MOST_ROWS and slot_of(file.bucket) != slot_of(chosen[-1].bucket):
            break
        chosen.append(file)
        rows += file.rows
    return chosen


@dataclass(slots=True)
class _Tally:
    """Running counts. New counts are merged when they have grown as large as the merged ones."""

    filled: int = 0
    counting: bool = True
    _counts: list[pa.Table] = field(default_factory=list)

    def add(self, filled: int, counts: pa.Table | None) -> None:
        """Without `counts`, values of this field cannot be counted."""
        self.filled += filled
        self.counting = self.counting and counts is not None
        if not self.counting or counts is None:
            self._counts = []
            return
        self._counts.append(counts)
        if sum(len(table) for table in self._counts[1:]) >= len(self._counts[0]):
            self._counts = [_merged(self._counts)]
        if len(self._counts[0]) > MOST_DISTINCT or sum(table.nbytes for table in self._counts) > MOST_BYTES:
            self.counting, self._counts = False, []

    def statistics(self, rows: int, whole: bool) -> FieldStatistics:
        if not self.counting:
            return FieldStatistics(rows, self.filled, None, (), whole)
        counts = _merged(self._counts) if self._counts else None
        if counts is not None and len(counts) > MOST_DISTINCT:
            return FieldStatistics(rows, self.filled, None, (), whole)
        return FieldStatistics(rows, self.filled, 0 if counts is None else len(counts), _frequent(counts), whole)


def _merged(tables: Sequence[pa.Table]) -> pa.Table:
    if len(tables) == 1:
        return tables[0]
    table = pa.concat_tables(tables)
    type_ = table["value"].type
    if pa.types.is_floating(type_) or pa.types.is_int64(type_) or pa.types.is_timestamp(type_):
        # Arrow groups 100,000 fractions in seconds, numpy in milliseconds.
        values = (
            table["value"].to_numpy() if pa.types.is_floating(type_) else table["value"].cast(pa.int64()).to_numpy()
        )
        distinct, places = np.unique(values, return_inverse=True)
        counts = np.zeros(len(distinct), np.int64)
        np.add.at(counts, places, table["count"].to_numpy())
        return pa.table({"value": pa.array(distinct).cast(type_), "count": counts})
    summed = table.group_by("value", use_threads=False).aggregate([("count", "sum")])
    return summed.select(["value", "count_sum"]).rename_columns(["value", "count"])


def _frequent(counts: pa.Table | None) -> tuple[ValueCount, ...]:
    if counts is None or not len(counts):
        return ()
    if pa.types.is_string(counts["value"].type):
        counts = counts.filter(pc.less_equal(pc.utf8_length(counts["value"]), LONGEST))
    order = [("count", "descending"), ("value", "ascending")]
    best = counts.take(pc.sort_indices(counts, order)[:MOST_VALUES]).to_pylist()
    return tuple(ValueCount(_as_json(row["value"]), row["count"]) for row in best)


def _as_json(value: object) -> JsonScalar:
    """Times in UTC, without zero fractions."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat() + "Z"
    if isinstance(value, date):
        return value.isoformat()
    assert isinstance(value, bool | int | float | str)
    return value


def _value_counts(values: pa.Array) -> pa.Table | None:
    """Each value with its frequency; None for maps."""
    if pa.types.is_map(values.type):
        return None
    counted = pc.value_counts(values)
    distinct = counted.field("values")
    if pa.types.is_dictionary(distinct.type):
        distinct = distinct.dictionary_decode()
    return pa.table({"value": distinct, "count": counted.field("counts")})


def _leaf(table: pa.Table, path: Path) -> tuple[pa.Array, int]:
    """The non-null values at a path, and how many rows have one."""
    if path[0] not in table.column_names:
        return pa.array([], pa.string()), 0
    column = table[path[0]].combine_chunks()
    array = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
    rows: NDArray[np.int64] | None = None
    """The ascending row of each value, once arrays are involved."""
    for name in (*path[1:], None):
        while pa.types.is_list(array.type):
            rows = np.arange(len(array)) if rows is None else rows
            rows = np.repeat(rows, pc.fill_null(pc.list_value_length(array), 0).to_numpy())
            array = array.flatten()
        if name is not None:
            array = pc.struct_field(array, name)
    present = pc.is_valid(array)
    if pa.types.is_map(array.type):
        present = pc.and_(present, pa.array(np.diff(array.offsets.to_numpy()) > 0))
    values = array.filter(present)
    if rows is None:
        return values, len(values)
    of_values = rows[present.to_numpy(zero_copy_only=False)]
    return values, int(np.count_nonzero(np.diff(of_values))) + bool(len(of_values))


class _Remembered:
    """A cache of the most recently used statistics, with a total weight (`_weight`) of at most `most`."""

    def __init__(self, most: int) -> None:
        self._most, self._held, self._lock = most, 0, threading.Lock()
        self._known: OrderedDict[tuple[FilePath, int, Path], FieldStatistics] = OrderedDict()

    def get(self, table: TableVersion, path: Path) -> FieldStatistics | None:
        with self._lock:
            known = self._known.get(key := (table.folder, table.version, path))
            if known is not None:
                self._known.move_to_end(key)
            return known

    def put(self, table: TableVersion, path: Path, statistics: FieldStatistics) -> None:
        with self._lock:
            key = table.folder, table.version, path
            if key not in self._known:
                self._known[key] = statistics
                self._held += _weight(statistics)
            while self._held > self._most and len(self._known) > 1:
                self._held -= _weight(self._known.popitem(last=False)[1])


def _weight(statistics: FieldStatistics) -> int:
    """Approximate number of characters."""
    return 200 + sum(50 + len(str(each.value)) for each in statistics.values)


_remembered = _Remembered(32 * 1024**2)
