"""Work done once for all who want its outcome as of the same moment; knows nothing of what it is."""

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
    """Outcomes by key. Whoever asks for one as of a moment shares any that was begun then or later.

    Of each key one work runs at a time: who needs a newer one waits, and then one is begun for all who wait. So the
    first thousand that ask at once cost two works and not a thousand. `kept` outcomes stay for those who come later.
    """

    def __init__(self, kept: int = 256) -> None:
        self._kept = kept
        self._work: OrderedDict[Hashable, _Work[T]] = OrderedDict()

    async def get(self, key: Hashable, since: float, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The outcome of a `compute` that was begun at `since` (`time.monotonic`) or later.

        The work goes on when who waits for it is cancelled. What it raises, all raise who wait for it.
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
        # Who was cancelled does not retrieve the error; nobody else needs to hear of it.
        work.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._work.move_to_end(key)
        while len(self._work) > self._kept and next(iter(self._work.values())).task.done():
            self._work.popitem(last=False)
        return work
