"""Shares one computation among all concurrent requests for the same result; does not know what is computed."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    begun: float
    task: "asyncio.Task[T]"


class Coalesced(Generic[T]):
    """Results by key. A request shares any computation that started at or after the time it asks for.

    At most one computation runs per key. Requests that need a newer result wait for it to end; then one more starts for
    all of them. A thousand simultaneous requests therefore cost two computations. The last `kept` results stay for
    later requests.
    """

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._work: OrderedDict[Hashable, _Work[T]] = OrderedDict()

    async def get(self, key: Hashable, since: float, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The result of a `compute` that started at `since` (`time.monotonic`) or later.

        The computation continues when a waiting caller is cancelled. If it raises, all waiting callers raise the same
        error.
        """
        while True:
            work = self._work.get(key)
            if work is None or (work.begun < since and work.task.done()):
                work = self._begin(key, compute)
            if work.begun >= since:
                return await asyncio.shield(work.task)
            await asyncio.wait([work.task])

    def _begin(self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, T]]) -> _Work[T]:
        loop = asyncio.get_running_loop()
        work = self._work[key] = _Work(time.monotonic(), loop.create_task(compute()))
        # If all callers were cancelled, nothing retrieves the error; mark it as retrieved.
        work.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._work.move_to_end(key)
        while len(self._work) > self._kept and next(iter(self._work.values())).task.done():
            self._work.popitem(last=False)
        return work
