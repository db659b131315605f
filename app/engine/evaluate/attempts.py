"""Status of the definitions that are evaluated together in one bucket."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.engine.evaluate.failure import EvaluationError


@dataclass(frozen=True, slots=True)
class Attempts:
    """Definitions in `failed` are skipped; `seconds` receives the time each of the others took, by id.

    Work shared by several definitions is attributed to the first, which computes it.
    """

    failed: Mapping[str, EvaluationError] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.perf_counter

    @contextmanager
    def timed(self, id: str) -> Iterator[None]:
        began = self.clock()
        try:
            yield
        finally:
            self.seconds[id] = self.seconds.get(id, 0.0) + self.clock() - began
