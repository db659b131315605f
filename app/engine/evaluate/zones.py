"""The time zone that the calendar of an evaluation follows; knows no units and no expressions.

Times are instants (UTC) everywhere; only what a calendar says of them depends on the zone: the day that an instant lies
in, and when a day begins. The zone in use is a context variable, since it holds for every kernel of an evaluation.
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
    """Its clock changes between 1900 and 2200, before and after which the offset stays."""

    def __init__(self, changes: NDArray[np.int64], offsets: NDArray[np.int64]) -> None:
        self._changes = changes
        self._offsets = offsets
        self._local_changes = changes + offsets[:-1]
        self.remainder = int(offsets[-1]) % _HOUR
        """How much later than in UTC its hours begin, as in India."""

    def local(self, instants: NDArray[np.int64]) -> NDArray[np.int64]:
        """What the clock shows, in microseconds since it showed 1970."""
        return instants + self._offsets[np.searchsorted(self._changes, instants, side="right")]

    def instants(self, local: NDArray[np.int64]) -> NDArray[np.int64]:
        """When the clock shows a time: of two instants the first, and for a time that it skips, when it skips it."""
        place = np.searchsorted(self._local_changes, local, side="right")
        utc = local - self._offsets[place]
        if not len(self._changes):
            return utc
        after = self._changes[np.maximum(place - 1, 0)]
        return np.where(place > 0, np.maximum(utc, after), utc)


ZONE: ContextVar[Zone | None] = ContextVar("zone", default=None)
"""The zone in use; None for UTC."""


@contextmanager
def in_zone_of(now: datetime) -> Iterator[None]:
    """The zone of an instant holds inside; an offset without a name is taken for UTC."""
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
