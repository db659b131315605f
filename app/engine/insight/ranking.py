"""Profiles in order: by place (bucket and ordinal), or by the value of an expression and then by place.

A place in the order by value is (missing, value, bucket, ordinal): profiles without a value come last in either
direction. Values are compared as in PQL: text by code point, false before true.
"""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import total_ordering
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate.columns import Column, Text, Value, Values, ranks
from app.engine.insight.scan import Answers, Buckets
from app.engine.limits.pool import Stopped, in_threads
from app.engine.people.pages import Key
from app.pql.schema import Scalar


def in_place_order(
    scan: Buckets, chosen: Callable[[Answers], BitMap], stopped: Stopped, after: Key | None, backward: bool
) -> Iterator[Key]:
    """The profiles `chosen` of each bucket after a place, or before it when `backward`, nearest first."""
    numbers = [
        number for number in scan.buckets if after is None or number == after[0] or _beyond(number, after[0], backward)
    ]
    for number in reversed(numbers) if backward else numbers:
        answers = scan.bucket(number, stopped)
        ordinals = list(chosen(answers))
        if after is not None and number == after[0]:
            ordinals = [ordinal for ordinal in ordinals if _beyond(ordinal, after[1], backward)]
        yield from ((number, ordinal) for ordinal in (reversed(ordinals) if backward else ordinals))


def _beyond(value: int, limit: int, backward: bool) -> bool:
    return value < limit if backward else value > limit


@total_ordering
@dataclass(frozen=True, slots=True, eq=True)
class Place:
    """A profile's place in the order by value; `value` is None for a profile without one."""

    value: Any
    bucket: int
    ordinal: int
    descending: bool

    def __lt__(self, other: "Place") -> bool:
        if self.value != other.value:
            if self.value is None or other.value is None:
                return other.value is None
            return bool(self.value > other.value if self.descending else self.value < other.value)
        return (self.bucket, self.ordinal) < (other.bucket, other.ordinal)


@dataclass(frozen=True, slots=True)
class Ranking:
    """An order by the scan's value `value`, over the set `id` (over all profiles without one)."""

    scan: Buckets
    value: str
    id: str | None
    descending: bool

    def page(self, limit: int, after: Place | None, backward: bool, *, threads: int, stopped: Stopped) -> list[Place]:
        """The `limit` places after a place, or before it when `backward`, nearest first; examines every bucket."""
        best: list[Place] = []

        def finished(places: list[Place]) -> None:
            nearest = heapq.nlargest if backward else heapq.nsmallest
            best[:] = nearest(limit, [*best, *places])

        def work(number: int, stop: Stopped) -> list[Place]:
            return self._of_bucket(number, stop, limit, after, backward)

        in_threads(work, self.scan.buckets, finished=finished, cancelled=stopped, threads=threads)
        return best

    def _of_bucket(self, number: int, stopped: Stopped, limit: int, after: Place | None, backward: bool) -> list[Place]:
        answers = self.scan.bucket(number, stopped)
        ordinals, column = answers.ordinals, answers.values[self.value]
        rows = (
            np.flatnonzero(np.isin(ordinals, ordinals_of(answers.members[self.id])))
            if self.id
            else np.arange(len(ordinals))
        )
        keys, valid = sort_keys(column)
        order = rows[np.lexsort((ordinals[rows], -keys[rows] if self.descending else keys[rows], ~valid[rows]))]
        if backward:
            order = order[::-1]
        start = 0 if after is None else _first_beyond(column, order, ordinals, number, after, backward)
        return [
            Place(scalar(column, row), number, int(ordinals[row]), self.descending)
            for row in order[start : start + limit]
        ]


def _first_beyond(
    column: Value, order: NDArray[np.intp], ordinals: NDArray[np.uint32], number: int, after: Place, backward: bool
) -> int:
    """The index in `order` of the first row after a place; when `backward`, `order` is reversed, and the first before
    it."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        row = order[middle]
        place = Place(scalar(column, row), number, int(ordinals[row]), after.descending)
        if (place < after) if backward else (place > after):
            high = middle
        else:
            low = middle + 1
    return low


def sort_keys(column: Value) -> tuple[Values, NDArray[np.bool_]]:
    """Numbers that sort like the values, with a mask of those present."""
    if isinstance(column, Text):
        return ranks(column)[0].astype(np.int64), column.valid
    if not isinstance(column, Column):
        raise TypeError("only single values have an order")
    valid = np.ones(len(column), np.bool_) if column.valid is None else column.valid
    keys = column.values if column.kind is Scalar.NUMBER else column.values.astype(np.int64)
    return np.where(valid, keys, 0), valid


def scalar(column: Value, row: int) -> object:
    """One value: a date as days and a timestamp as microseconds since 1970; None for null."""
    if isinstance(column, Text):
        code = int(column.codes[row])
        return None if code < 0 else column.dictionary[code].as_py()
    if not isinstance(column, Column):
        raise TypeError("only single values have an order")
    if column.kind is Scalar.NULL or (column.valid is not None and not column.valid[row]):
        return None
    return column.values[row].item()


def ordinals_of(members: BitMap) -> NDArray[np.uint32]:
    """The ordinals in ascending order."""
    return np.frombuffer(members.to_array(), np.uint32) if members else np.empty(0, np.uint32)
