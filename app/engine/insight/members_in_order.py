"""The members of an audience as tables ordered by a value: each bucket is sorted into a file, then all are merged.

The file has no name, so it disappears however the process ends. Memory holds the buckets being sorted, later a few rows
of each.
"""

import heapq
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from app.engine.export.members import ROWS, Members
from app.engine.insight.best import sort_columns
from app.engine.insight.ranking import ordinals_of
from app.engine.insight.scan import Buckets
from app.engine.limits.pool import Stopped, in_threads
from app.pql.schema import Scalar, Type

_AHEAD = 1 << 17
"""Number of rows in memory while merging, over all buckets."""
_FEWEST = 64
_VALUE, _REST = "order by value", "order by rest"


@dataclass(frozen=True, slots=True)
class Order:
    """Orders the scan's set `id` by the scan's value `value`: profiles without a value come last, ties are ordered by
    place."""

    scan: Buckets
    id: str
    value: str
    type: Type
    descending: bool

    @property
    def sort_keys(self) -> list[tuple[str, str]]:
        way = "descending" if self.descending else "ascending"
        return [(_VALUE, way), (_REST, way)]


@dataclass(slots=True)
class _Run:
    """The sorted rows of one bucket: their position in the file, and those read but not consumed yet."""

    bucket: int
    batches: range
    read: deque[pa.RecordBatch] = field(default_factory=deque)

    def keys(self, reader: Any, descending: bool) -> Iterator[tuple[bool, object, int, int]]:
        """Keys that sort like the rows, reversed for a descending order."""
        place = -self.bucket if descending else self.bucket
        for number in self.batches:
            batch = reader.get_batch(number)
            self.read.append(batch)
            for value, rest in zip(batch.column(_VALUE).to_pylist(), batch.column(_REST).to_pylist(), strict=True):
                yield (value is None) != descending, value, rest, place

    def take(self, count: int) -> Iterator[pa.RecordBatch]:
        while count:
            batch = self.read.popleft()
            if batch.num_rows > count:
                self.read.appendleft(batch.slice(count))
                batch = batch.slice(0, count)
            count -= batch.num_rows
            yield batch


def members_in_order(
    members: Members, order: Order, folder: Path, *, threads: int, stopped: Stopped
) -> Iterator[pa.Table]:
    """Evaluates every bucket before returning. Raises `Refusal` and `Cancelled`."""
    folder.mkdir(parents=True, exist_ok=True)
    file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (what is returned reads it)
    try:
        runs = _sort(members, order, file, threads, stopped)
    except BaseException:
        file.close()
        raise
    return _merged(file, runs, order.descending)


def _sort(members: Members, order: Order, file: IO[bytes], threads: int, stopped: Stopped) -> list[_Run]:
    numbers = order.scan.buckets
    rows = max(_FEWEST, min(ROWS, _AHEAD // max(len(numbers), 1)))
    value = pa.string() if order.type is Scalar.STRING else pa.float64()
    schema = members.schema.append(pa.field(_VALUE, value)).append(pa.field(_REST, pa.int64()))
    runs: list[_Run] = []
    with pa.ipc.new_file(file, schema) as writer:

        def work(number: int, stop: Stopped) -> tuple[int, pa.Table | None]:
            return number, _of_bucket(members, order, schema, number, stop)

        def finished(result: tuple[int, pa.Table | None]) -> None:
            number, table = result
            batches = [] if table is None else table.to_batches(rows)
            start = runs[-1].batches.stop if runs else 0
            for batch in batches:
                writer.write_batch(batch)
            runs.append(_Run(number, range(start, start + len(batches))))

        in_threads(work, numbers, finished=finished, cancelled=stopped, threads=threads)
    return runs


def _of_bucket(members: Members, order: Order, schema: pa.Schema, number: int, stopped: Stopped) -> pa.Table | None:
    """The sorted rows of a bucket, with their sort keys."""
    answers, membership = order.scan.bucket(number, stopped), members.read(number)
    people = answers.members[order.id]
    if membership is None or not people:
        return None
    rows = np.searchsorted(answers.ordinals, ordinals_of(people))
    value, rest = sort_columns(answers.values[order.value], rows)
    value = value.cast(schema.field(_VALUE).type)
    table = members.of_bucket(number, membership, people)
    table = pa.table([*table.columns, value, rest], schema)
    # Rows are ordered by ordinal, which a stable sort keeps for equal values.
    return table.take(pc.sort_indices(table, order.sort_keys)).combine_chunks()


def _merged(file: IO[bytes], runs: Iterable[_Run], descending: bool) -> Iterator[pa.Table]:
    with file:
        file.seek(0)
        reader = pa.ipc.open_file(file)
        by_bucket = {run.bucket: run for run in runs}
        keys = heapq.merge(*(run.keys(reader, descending) for run in by_bucket.values()), reverse=descending)
        while buckets := [abs(place) for *_, place in islice(keys, ROWS)]:
            yield _interleaved(by_bucket, np.array(buckets))


def _interleaved(runs: dict[int, _Run], buckets: "np.ndarray[Any, np.dtype[np.int_]]") -> pa.Table:
    """The next row of each of these buckets."""
    order = np.argsort(buckets, kind="stable")
    position = np.empty_like(order)
    position[order] = np.arange(len(order))
    numbers, counts = np.unique(buckets, return_counts=True)
    batches = [
        batch
        for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        for batch in runs[number].take(count)
    ]
    table = pa.Table.from_batches(batches).drop_columns([_VALUE, _REST])
    return table.take(pa.array(position)).combine_chunks()
