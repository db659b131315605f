"""The first N members of audiences by the value of an expression: exact, ties ordered by profile id, in bounded
memory."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate.columns import Column, Text, Value
from app.engine.insight.scan import Answers, Scan
from app.engine.limits.pool import Stopped, in_threads
from app.engine.people.merging import PROFILE
from app.engine.store.bucket import Needs
from app.errors import Refusal

_ROOM = 1 << 17
"""Number of candidates, in addition to twice those kept, before the rest is dropped."""


@dataclass(slots=True)
class Best:
    """Of candidates that arrive bucket by bucket, keeps the `first` ones; those without a value come last."""

    first: int
    descending: bool
    _kept: list[pa.Table] = field(default_factory=list)
    _rows: int = 0

    def add(self, candidates: pa.Table) -> None:
        """Adds candidates, which are ordered by `value`, `rest` and `id`; `bucket` and `ordinal` are the profile's."""
        self._kept.append(candidates)
        self._rows += candidates.num_rows
        if self._rows > 2 * self.first + _ROOM:
            self._cut()

    def chosen(self) -> dict[int, BitMap]:
        """The ordinals of the first ones, by bucket."""
        self._cut()
        if not self._kept:
            return {}
        buckets, ordinals = (self._kept[0][name].to_numpy() for name in ("bucket", "ordinal"))
        return {int(bucket): BitMap(ordinals[buckets == bucket].astype(np.uint32)) for bucket in np.unique(buckets)}

    def _cut(self) -> None:
        if not self._kept:
            return
        table = pa.concat_tables(self._kept)
        way = "descending" if self.descending else "ascending"
        # Nulls come last in either direction.
        order = pc.sort_indices(table, [("value", way), ("rest", way), ("id", "ascending")])
        self._kept = [table.take(order[: self.first]).combine_chunks()]
        self._rows = self._kept[0].num_rows


@dataclass(frozen=True, slots=True)
class Limit:
    """How many members of an audience are kept, ordered by the scan's value `value`."""

    value: str
    first: int
    descending: bool

    @classmethod
    def of(cls, value: str, kept: Mapping[str, Any]) -> Self:
        """From the form stored by definitions."""
        return cls(value, kept["first"], kept["descending"])


def first_of(
    scan: Scan, limits: Mapping[str, Limit], buckets: Collection[int] | None = None, *, threads: int, stopped: Stopped
) -> tuple[dict[str, dict[int, BitMap]], dict[str, Refusal]]:
    """For each set of the scan with a limit, the members kept by bucket, or why its value cannot be evaluated; over all
    buckets, or some. Raises `Cancelled`."""
    best = {id: Best(limit.first, limit.descending) for id, limit in limits.items()}
    failed: dict[str, Refusal] = {}

    def work(number: int, stop: Stopped) -> tuple[dict[str, pa.Table], Mapping[str, Refusal]]:
        answers = scan.bucket(number, stop)
        values = {
            id: answers.values[limit.value]
            for id, limit in limits.items()
            if limit.value in answers.values and answers.members.get(id)
        }
        return _candidates(scan, answers, values), answers.failed

    def finished(result: tuple[dict[str, pa.Table], Mapping[str, Refusal]]) -> None:
        candidates, refusals = result
        failed.update({id: refusals[limit.value] for id, limit in limits.items() if limit.value in refusals})
        for id, table in candidates.items():
            best[id].add(table)

    numbers = scan.buckets if buckets is None else buckets
    in_threads(work, numbers, finished=finished, cancelled=stopped, threads=threads)
    return {id: ranking.chosen() for id, ranking in best.items() if id not in failed}, failed


@dataclass(frozen=True, slots=True)
class Chosen:
    """A scan with one more set, `id`, which is known by bucket."""

    scan: Scan
    id: str
    members: Mapping[int, BitMap]

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.scan.buckets

    def bucket(self, number: int, stopped: Stopped) -> Answers:
        answers = self.scan.bucket(number, stopped)
        return replace(answers, members={**answers.members, self.id: self.members.get(number, BitMap())})


def _candidates(scan: Scan, answers: Answers, values: Mapping[str, Value]) -> dict[str, pa.Table]:
    """The members of each audience in one bucket."""
    if not values:
        return {}
    everybody = BitMap.union(*(answers.members[id] for id in values))
    people = scan.snapshot.read(answers.bucket, Needs(profile=frozenset({(PROFILE,)})), everybody)
    names = people.profiles[PROFILE].combine_chunks().cast(pa.string())
    tables = {}
    for id, column in values.items():
        ordinals = np.frombuffer(answers.members[id].to_array(), np.uint32)
        value, rest = sort_columns(column, np.searchsorted(answers.ordinals, ordinals))
        tables[id] = pa.table(
            {
                "value": value,
                "rest": rest,
                "id": names.take(pa.array(np.searchsorted(people.ordinals, ordinals))),
                "bucket": np.full(len(ordinals), answers.bucket, np.int32),
                "ordinal": ordinals.astype(np.int64),
            }
        )
    return tables


def sort_columns(column: Value, rows: NDArray[np.intp]) -> tuple[pa.Array, pa.Array]:
    """Columns that sort like the values of these rows: text, or the nearest double and the remainder of an integer."""
    spread_column = column.take(rows if len(column) != 1 else np.zeros(len(rows), np.intp))
    none = pa.array(np.zeros(len(rows), np.int64))
    if isinstance(spread_column, Text):
        codes = pa.array(spread_column.codes, pa.int64(), mask=spread_column.codes < 0)
        return spread_column.dictionary.cast(pa.string()).take(codes), none
    if not isinstance(spread_column, Column):
        raise TypeError("only single values have an order")
    missing = np.zeros(len(rows), bool) if spread_column.valid is None else ~spread_column.valid
    near = spread_column.values.astype(np.float64)
    missing |= np.isnan(near)
    return pa.array(near, mask=missing), none if spread_column.values.dtype == np.float64 else _rest(
        spread_column.values, near
    )


def _rest(values: NDArray[Any], near: NDArray[np.float64]) -> pa.Array:
    if not len(values) or np.abs(near).max() < 2**53:
        return pa.array(np.zeros(len(values), np.int64))
    return pa.array([int(value) - int(double) for value, double in zip(values.tolist(), near.tolist(), strict=True)])
