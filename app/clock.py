"""The current instant, as something that tests can set; a leaf that imports nothing of ours."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present instant, aware, in UTC, with microseconds."""
    return datetime.now(UTC)


class FixedClock:
    """A clock that stands still until it is moved: `FixedClock(datetime(2026, 6, 15, 12, tzinfo=UTC))`."""

    def __init__(self, instant: datetime) -> None:
        self.instant = instant

    def __call__(self) -> datetime:
        return self.instant

    def advance(self, by: timedelta) -> None:
        self.instant += by


TOLERANCE = timedelta(minutes=1)
"""How far a clock may be set and still be believed."""
SETTLED = timedelta(minutes=10)
"""How long a clock that was set by more goes on before it is believed again."""


class SteadyClock:
    """Tells whether the clock was set by much a short while ago: what cannot be undone should wait then.

    A clock that is days ahead for a minute would let members expire and runs of schedules be skipped for good.
    `elapsed` gives seconds since any moment, by a clock that nobody sets.
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
        """What the clock says of the moment from which `elapsed` counts: always the same unless it is set."""
        return self._clock() - timedelta(seconds=self._elapsed())
