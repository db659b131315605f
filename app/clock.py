"""The current time, replaceable in tests; a leaf that imports none of our modules."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The current time in UTC, timezone-aware, with microseconds."""
    return datetime.now(UTC)


class FixedClock:
    """A clock that changes only when it is moved: `FixedClock(datetime(2026, 6, 15, 12, tzinfo=UTC))`."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, by: timedelta) -> None:
        self.instant += by


TOLERANCE = timedelta(minutes=1)
"""Adjustments of the clock up to this size are ignored."""
SETTLED = timedelta(minutes=10)
"""How long the clock must run on after a larger adjustment before it is trusted again."""


class SteadyClock:
    """Detects recent large adjustments of the clock, after which irreversible actions should wait.

    A clock that is days ahead for a minute would permanently expire members and skip scheduled runs. `elapsed` returns
    seconds since an arbitrary moment, from a clock that is never adjusted.
    """

    def __init__(self, clock: Clock, elapsed: Callable[[], float]) -> None:
        self._clock = clock
        self._elapsed = elapsed
        self._believed = self._began()
        self._doubted_since: float | None = None
        self._doubted = self._believed

    def is_steady(self) -> bool:
        began, now = self._began(), self._elapsed()
        if abs(began - self._believed) <= TOLERANCE:
            self._believed, self._doubted_since = began, None
        elif self._doubted_since is None or abs(began - self._doubted) > TOLERANCE:
            self._doubted, self._doubted_since = began, now
        elif now - self._doubted_since >= SETTLED.total_seconds():
            self._believed, self._doubted_since = began, None
        return self._doubted_since is None

    def _began(self) -> datetime:
        """The clock's time at the moment from which `elapsed` counts: constant unless the clock is adjusted."""
        return self._clock() - timedelta(seconds=self._elapsed())
