"""How much each caller may ask for in a minute, and have open, as this process counts it; knows no HTTP."""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from app.errors import ErrorCode, Limit, Refusal

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
        self.check(caller, amount)
        now = self._clock()
        self._settled[caller] = max(self._settled.get(caller, now), now) + amount * PERIOD / self._per_minute
        if len(self._settled) >= self._sweep_at:
            self._settled = {known: moment for known, moment in self._settled.items() if moment > now}
            self._sweep_at = max(FEWEST_SWEPT, 2 * len(self._settled))

    def check(self, caller: Hashable, amount: int = 1) -> None:
        """Raises `RateExceeded` as `take` would; nothing is taken."""
        if not self._per_minute:
            return
        now = self._clock()
        settled = max(self._settled.get(caller, now), now)
        wait = settled + min(amount * PERIOD / self._per_minute, PERIOD) - (now + PERIOD)
        if wait > 1e-6:
            raise RateExceeded(Limit(self._name, self._per_minute), self._unit, wait)


class Places:
    """What callers may have open at once: `most` each. 0 is without a limit."""

    def __init__(self, name: str, unit: str, most: int) -> None:
        self._name, self._unit, self._most = name, unit, most
        self._held: Counter[Hashable] = Counter()

    @contextmanager
    def hold(self, caller: Hashable) -> Iterator[None]:
        """A place for the time of the block. Raises `Refusal` when the caller has no more."""
        asked = self._held[caller] + 1
        if self._most and asked > self._most:
            message = f"this caller has {self._most:,} {self._unit} open, which is the most it may have: close one"
            raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=Limit(self._name, self._most, asked))
        self._held[caller] = asked
        try:
            yield
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]
