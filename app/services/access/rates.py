"""How much each caller may ask for in a minute, as this process counts it; knows no HTTP."""

import time
from collections.abc import Callable, Hashable

from app.errors import Limit

PERIOD = 60.0
"""Seconds in which what was used is given back, and for which it can be saved up."""

FEWEST_SWEPT = 1_000
"""Callers that are remembered before those are looked for who have everything again."""


class RateExceeded(Exception):
    """A caller that asks for more than its share; the message says when there is enough again."""

    def __init__(self, limit: Limit, unit: str, seconds: float) -> None:
        wait = max(1, -int(-seconds // 1))
        message = f"more than {limit.allowed:,} {unit} a minute ({limit.name}): try again in {wait} s"
        super().__init__(message)
        self.limit = limit
        self.seconds = wait


class Rate:
    """What callers may use: `per_minute` at once, given back evenly over a minute. 0 is without a limit.

    A caller is remembered by one number, the moment at which it has everything again.
    """

    def __init__(self, name: str, unit: str, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._unit, self._per_minute, self._clock = name, unit, per_minute, clock
        self._settled: dict[Hashable, float] = {}
        self._sweep_at = FEWEST_SWEPT

    def take(self, caller: Hashable, amount: int = 1) -> None:
        """Raises `RateExceeded` unless there is enough left; then nothing is taken. More than a minute's worth is
        given to callers who have used nothing, and keeps them waiting for longer."""
        if not self._per_minute:
            return
        now = self._clock()
        settled = max(self._settled.get(caller, now), now)
        seconds = amount * PERIOD / self._per_minute
        wait = settled + min(seconds, PERIOD) - (now + PERIOD)
        if wait > 1e-6:
            raise RateExceeded(Limit(self._name, self._per_minute), self._unit, wait)
        self._settled[caller] = settled + seconds
        if len(self._settled) >= self._sweep_at:
            self._settled = {known: moment for known, moment in self._settled.items() if moment > now}
            self._sweep_at = max(FEWEST_SWEPT, 2 * len(self._settled))
