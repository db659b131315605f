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
