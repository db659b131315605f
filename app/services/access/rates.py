"""Rate and concurrency limits per caller, counted by this process; knows no HTTP."""

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from app.errors import ErrorCode, Limit, Refusal

PERIOD = 60.0
"""Seconds in which a used allowance is fully restored; no more than that accumulates."""

FEWEST_SWEPT = 1_000
"""Number of remembered callers above which those with a full allowance are removed."""


class RateExceeded(Exception):
    """The caller has exceeded its limit; the message says when it may continue."""

    def __init__(self, limit: Limit, unit: str, seconds: float) -> None:
        wait = max(1, -int(-seconds // 1))
        message = f"more than {limit.allowed:,} {unit} a minute ({limit.name}): try again in {wait} s"
        super().__init__(message)
        self.limit = limit
        self.seconds = wait


class Rate:
    """A rate limit: `per_minute` at once, restored evenly over a minute. 0 means no limit.

    Per caller, one number is stored: the time at which its allowance is full again.
    """

    def __init__(self, name: str, unit: str, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._unit, self._per_minute, self._clock = name, unit, per_minute, clock
        self._settled: dict[Hashable, float] = {}
        self._sweep_at = FEWEST_SWEPT

    def take(self, caller: Hashable, amount: int = 1) -> None:
        """Uses part of the allowance. Raises `RateExceeded` if not enough is left, and then uses nothing. A request
        above one minute's allowance is accepted if the allowance is full; the caller then waits longer."""
        if not self._per_minute:
            return
        self.check(caller, amount)
        now = self._clock()
        self._settled[caller] = max(self._settled.get(caller, now), now) + amount * PERIOD / self._per_minute
        if len(self._settled) >= self._sweep_at:
            self._settled = {key: moment for key, moment in self._settled.items() if moment > now}
            self._sweep_at = max(FEWEST_SWEPT, 2 * len(self._settled))

    def check(self, caller: Hashable, amount: int = 1) -> None:
        """Raises `RateExceeded` as `take` would, without using anything."""
        if not self._per_minute:
            return
        now = self._clock()
        settled = max(self._settled.get(caller, now), now)
        wait = settled + min(amount * PERIOD / self._per_minute, PERIOD) - (now + PERIOD)
        if wait > 1e-6:
            raise RateExceeded(Limit(self._name, self._per_minute), self._unit, wait)


class Places:
    """A limit on what a caller may have open at once: `most` per caller. 0 means no limit."""

    def __init__(self, name: str, unit: str, most: int) -> None:
        self._name, self._unit, self._most = name, unit, most
        self._held: Counter[Hashable] = Counter()

    @contextmanager
    def hold(self, caller: Hashable) -> Iterator[None]:
        """Holds a slot during the block. Raises `Refusal` if the caller has none left."""
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
