"""The time zone of an evaluation's calendar; knows no units and no expressions.

All times are instants (UTC). The zone only determines which day and hour an instant is in, and when days and hours
start. The current zone is a context variable, because it applies to every kernel of an evaluation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

_FIRST_YEAR, _LAST_YEAR = 1900, 2200
_HOUR = 3_600_000_000
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Zone:
    """A zone's clock changes between 1900 and 2200; before and after, its offset is constant."""

    def __init__(self, changes: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self._changes = changes
        self._offsets = offsets
        self._local_changes = changes + offsets[:-1]
        self._hour_changes, self._hour_shifts, self._first_hours = self._hour_table()

    def local(self, instants: NDArray[np.int64]) -> NDArray[np.int64]:
        """Local clock times, in microseconds since local 1970."""
        return instants + self._offsets[np.searchsorted(self._changes, instants, side="right")]

    def instants(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        """The instants of local times: the first of two, and for a skipped time, the instant of the skip."""
        place = np.searchsorted(self._local_changes, local, side="right")
        utc = local - self._offsets[place]
        if not len(self._changes):
            return utc
        after = self._changes[np.maximum(place - 1, 0)]
        return np.where(place > 0, np.maximum(utc, after), utc)

    def hours(self, instants: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the local hour of each instant, counted from a fixed origin. In India, hours begin on the half
        hour of UTC. Where a clock change moves their beginning (Lord Howe's of half an hour), one hour is longer or
        shorter."""
        place = np.searchsorted(self._hour_changes, instants, side="right")
        return (instants + self._hour_shifts[place]) // _HOUR

    def hour_starts(self, hours: NDArray[np.int64]) -> NDArray[np.int64]:
        """The starts of hours; the inverse of `hours`."""
        place = np.searchsorted(self._first_hours, hours, side="right")
        starts = hours * _HOUR - self._hour_shifts[place]
        if not len(self._hour_changes):
            return starts
        return np.where(place > 0, np.maximum(starts, self._hour_changes[np.maximum(place - 1, 0)]), starts)

    def _hour_table(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The clock changes that move the beginning of hours; the shifts added to instants before and after each, so
        that hours are numbered without gaps; and the first hour that begins after each change."""
        changes, shifts, first = [], [int(self._offsets[0]) % _HOUR], []
        for change, before, after in zip(self._changes, self._offsets, self._offsets[1:], strict=False):
            change, before, after = int(change), int(before), int(after)
            if (after - before) % _HOUR == 0:
                continue
            number = (change - 1 + shifts[-1]) // _HOUR
            goes_on = (change - 1 + before) // _HOUR == (change + after) // _HOUR
            number += not goes_on
            changes.append(change)
            shifts.append(number * _HOUR - change + (change + after) % _HOUR)
            first.append(number + goes_on)
        return np.array(changes, np.int64), np.array(shifts, np.int64), np.array(first, np.int64)


ZONE: ContextVar[Zone | None] = ContextVar("zone", default=None)
"""The current zone; None for UTC."""


@contextmanager
def in_zone_of(now: datetime) -> Iterator[None]:
    """Uses the zone of an instant inside the block; an offset without a name is treated as UTC."""
    token = ZONE.set(zone_of(now.tzinfo))
    try:
        yield
    finally:
        ZONE.reset(token)


def zone_of(zone: tzinfo | None) -> Zone | None:
    return _zone(zone.key) if isinstance(zone, ZoneInfo) and zone.key != "UTC" else None


@lru_cache(64)
def _zone(key: str) -> Zone:
    zone = ZoneInfo(key)

    def offset(at: datetime) -> int:
        return (at.astimezone(zone).utcoffset() or timedelta()) // _MICROSECOND

    at, end = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC), datetime(_LAST_YEAR, 1, 1, tzinfo=UTC)
    changes, offsets = [], [offset(at)]
    while at < end:
        following = at + timedelta(days=1)
        if offset(following) != offsets[-1]:
            low, high = at, following
            while high - low > timedelta(seconds=1):
                middle = low + (high - low) // 2
                low, high = (middle, high) if offset(middle) == offsets[-1] else (low, middle)
            moment = high.replace(microsecond=0)
            changes.append((moment - _EPOCH) // _MICROSECOND)
            offsets.append(offset(moment))
        at = following
    return Zone(np.array(changes, np.int64), np.array(offsets, np.int64))
