"""Exact statistics of single values over a set of profiles, from the frequency of each distinct value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from app.engine.evaluate.columns import Column, Text, Value, Values
from app.engine.evaluate.exact import alike, averages, calculated, doubles, sums
from app.engine.insight.plain_values import plain_scalar
from app.engine.insight.scan import Answers, Scan
from app.engine.limits.pool import Stopped, in_threads
from app.engine.run.buckets import rows_of
from app.errors import ErrorCode, Refusal
from app.json_values import JsonScalar
from app.pql.schema import Scalar, Type

MOST_BYTES = 256 * 1024**2
"""Maximum memory for the distinct values of all expressions."""
QUARTERS = (0.25, 0.5, 0.75)

Table = tuple[Any, NDArray[np.int64]]
"""Distinct values (numbers ascending), and the frequency of each."""


@dataclass(frozen=True, slots=True)
class HistogramBucket:
    """For numbers and times: from `low` (inclusive) to `high` (exclusive, except in the last bucket); otherwise the
    single value `low`."""

    low: JsonScalar
    high: JsonScalar
    count: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Statistics of the non-null values. `total` (the sum), `average` and `quartiles` exist only for numbers."""

    count: int = 0
    distinct: int = 0
    total: float | None = None
    average: float | None = None
    minimum: JsonScalar = None
    maximum: JsonScalar = None
    quartiles: Sequence[float] = ()
    histogram: Sequence[HistogramBucket] = ()


class _Kind(Protocol):
    """How values of a type are counted and summarised."""

    def counted(self, value: Value) -> Table: ...
    def merged(self, tables: Sequence[Table]) -> Table: ...
    def statistics(self, table: Table, buckets: int) -> Statistics: ...


@dataclass(slots=True)
class _Tally:
    """The distinct values so far. New values are merged when they have grown as large as the merged table."""

    kind: _Kind
    most_bytes: int
    tables: list[Table] = field(default_factory=list)

    def add(self, table: Table) -> None:
        """Raises `Refusal` if there are too many distinct values."""
        if not len(table[1]):
            return
        self.tables.append(table)
        if sum(len(counts) for _, counts in self.tables[1:]) >= len(self.tables[0][1]):
            self.tables = [self.kind.merged(self.tables)]
        if sum(values.nbytes + counts.nbytes for values, counts in self.tables) > self.most_bytes:
            distinct = len(self.kind.merged(self.tables)[1])
            message = f"it has {distinct:,} distinct values and more, which is too many to count: round or group them"
            raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)

    def statistics(self, buckets: int) -> Statistics:
        return self.kind.statistics(self.kind.merged(self.tables), buckets) if self.tables else Statistics()


def statistics(
    scan: Scan, audience: str, buckets: int, *, threads: int, stopped: Stopped
) -> dict[str, Statistics | Refusal]:
    """The statistics of each of the scan's values over the members of an audience; a value that cannot be evaluated or
    counted has a `Refusal`.

    One pass: memory holds the buckets being read, and the distinct values.
    """
    most = MOST_BYTES // max(1, len(scan.plan.values))
    tallies = {id: _Tally(_kind(node.type), most) for id, node in scan.plan.values.items()}
    failed: dict[str, Refusal] = {}

    def work(number: int, stop: Stopped) -> tuple[Mapping[str, Table], Mapping[str, Refusal]]:
        answers = scan.bucket(number, stop)
        return {id: tallies[id].kind.counted(value) for id, value in _of_members(answers, audience)}, answers.failed

    def finished(answer: tuple[Mapping[str, Table], Mapping[str, Refusal]]) -> None:
        tables, refusals = answer
        failed.update(refusals)
        for id, table in tables.items():
            if id not in failed:
                try:
                    tallies[id].add(table)
                except Refusal as refusal:
                    failed[id] = refusal
                    tallies[id].tables.clear()

    in_threads(work, scan.buckets, finished=finished, cancelled=stopped, threads=threads)
    return {id: failed[id] if id in failed else tally.statistics(buckets) for id, tally in tallies.items()}


def _of_members(answers: Answers, audience: str) -> list[tuple[str, Value]]:
    if not answers.values:
        return []
    rows = np.flatnonzero(rows_of(answers.members[audience], answers.ordinals))
    return [(id, value.take(rows)) for id, value in answers.values.items()]


def _kind(type_: Type) -> _Kind:
    return _Numbers(type_) if isinstance(type_, Scalar) and type_ is not Scalar.STRING else _Texts()


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Numbers, and types stored as integers: dates, timestamps and booleans."""

    type: Scalar

    def counted(self, value: Value) -> Table:
        if not isinstance(value, Column) or value.kind is Scalar.NULL:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        values = value.values if value.valid is None else value.values[value.valid]
        values = values if self.type is Scalar.NUMBER else values.astype(np.int64)
        distinct, counts = np.unique(values, return_counts=True)
        return distinct, counts

    def merged(self, tables: Sequence[Table]) -> Table:
        if len(tables) == 1:
            return tables[0]
        values = np.concatenate(alike(*(values for values, _ in tables)))
        counts = np.concatenate([counts for _, counts in tables])
        order = np.argsort(values, kind="stable")
        values, counts = values[order], counts[order]
        first = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
        return values[first], np.add.reduceat(counts, first)

    def statistics(self, table: Table, buckets: int) -> Statistics:
        values, counts = table
        number = int(counts.sum())
        total = average = None
        quartiles: Sequence[float] = ()
        if self.type is Scalar.NUMBER:
            total, average = _total(values, counts, number)
            quartiles = _quantiles(doubles(values), counts)
        histogram = (
            self._each(values, counts, buckets)
            if self.type is Scalar.BOOLEAN
            else self._histogram(values, counts, buckets)
        )
        low, high = self._plain(values[0]), self._plain(values[-1])
        return Statistics(number, len(values), total, average, low, high, quartiles, histogram)

    def _each(self, values: Values, counts: NDArray[np.int64], most: int) -> list[HistogramBucket]:
        """Each value separately, the most frequent first, ties by value."""
        order = np.argsort(-counts, kind="stable")[:most]
        return [HistogramBucket(self._plain(values[at]), None, int(counts[at])) for at in order]

    def _histogram(self, values: Values, counts: NDArray[np.int64], buckets: int) -> list[HistogramBucket]:
        """Buckets of equal width from the minimum to the maximum; fewer where they would coincide."""
        values = doubles(values) if self.type is Scalar.NUMBER else values
        edges = self._edges(values[0], values[-1], buckets)
        if len(edges) == 1:
            return [HistogramBucket(self._plain(edges[0]), self._plain(edges[0]), int(counts.sum()))]
        places = np.append(np.searchsorted(values, edges[:-1]), len(values))
        before = np.append(0, np.cumsum(counts))[places]
        limits = [self._plain(edge) for edge in edges]
        return [
            HistogramBucket(low, high, int(count))
            for low, high, count in zip(limits, limits[1:], np.diff(before), strict=False)
        ]

    def _edges(self, low: float, high: float, buckets: int) -> Values:
        if self.type is not Scalar.NUMBER:
            first, last = int(low), int(high)
            return np.unique([first + (last - first) * step // buckets for step in range(buckets + 1)])
        # `high - low` may exceed the range of doubles.
        edges = [low * ((buckets - step) / buckets) + high * (step / buckets) for step in range(buckets + 1)]
        return np.unique(np.clip([low, *edges[1:-1], high], low, high))

    def _plain(self, value: object) -> JsonScalar:
        return plain_scalar(self.type, value)


class _Texts:
    """Texts by code point."""

    def counted(self, value: Value) -> Table:
        if not isinstance(value, Text):
            return pa.array([], pa.string()), np.empty(0, np.int64)
        counts = np.bincount(value.codes[value.codes >= 0], minlength=len(value.dictionary))
        used = np.flatnonzero(counts)
        return value.dictionary.take(pa.array(used)), counts[used]

    def merged(self, tables: Sequence[Table]) -> Table:
        texts = pa.concat_arrays([values for values, _ in tables])
        together = pa.table({"text": texts, "count": np.concatenate([counts for _, counts in tables])})
        summed = together.group_by("text").aggregate([("count", "sum")]).combine_chunks()
        return summed["text"].chunk(0), summed["count_sum"].to_numpy()

    def statistics(self, table: Table, buckets: int) -> Statistics:
        texts, counts = table
        order = [("count", "descending"), ("text", "ascending")]
        best = pc.select_k_unstable(pa.table({"text": texts, "count": counts}), buckets, order).to_pylist()
        histogram = [HistogramBucket(texts[at].as_py(), None, int(counts[at])) for at in best]
        extremes = pc.min_max(texts).as_py()
        return Statistics(
            int(counts.sum()), len(counts), minimum=extremes["min"], maximum=extremes["max"], histogram=histogram
        )


def _total(values: Values, counts: NDArray[np.int64], number: int) -> tuple[float | None, float | None]:
    """Sum and average as PQL computes them, with exact decimals; None outside the range of numbers."""
    with np.errstate(all="ignore"):
        products = calculated("multiply", values, counts)
        nowhere = np.zeros(len(products), np.intp)
        total = sums(nowhere, products, np.array([len(products)]))
        average = averages(nowhere, products, np.array([number]))
    return tuple(float(cell[0]) if np.isfinite(doubles(cell))[0] else None for cell in (total, average))  # type: ignore[return-value]


def _quantiles(values: NDArray[np.float64], counts: NDArray[np.int64]) -> tuple[float, ...]:
    """The quartiles, with linear interpolation between adjacent values."""
    ends = np.cumsum(counts)
    quantiles = []
    for share in QUARTERS:
        place = share * (int(ends[-1]) - 1)
        low, rest = int(place), place - int(place)
        below = values[np.searchsorted(ends, low, side="right")]
        above = values[min(int(np.searchsorted(ends, low + 1, side="right")), len(values) - 1)]
        quantiles.append(float(below if below == above else below * (1 - rest) + above * rest))
    return tuple(quantiles)
