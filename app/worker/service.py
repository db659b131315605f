"""How everything in the background runs: it looks for work, rests, keeps its lease alive and stops; knows no work."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from app.clock import Clock
from app.storage.database import Database, is_unavailable
from app.storage.queue.leases import LeaseLost
from app.storage.wakeups import Wakeups
from app.storage.workers import note_alive, note_end

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""How long a service rests after so many failures in a row, and after more than these."""


@dataclass(frozen=True, slots=True)
class Rest:
    """How long a service rests, should nothing happen: a wake-up (unless it is `deaf`), or the end of a task."""

    seconds: float
    tasks: Collection[asyncio.Task[None]] = ()
    deaf: bool = False


NONE = Rest(0.0)
"""There may be more to do at once."""


async def serve(
    step: Callable[[], Awaitable[Rest]],
    stop: asyncio.Event,
    *,
    name: str,
    wakeups: Wakeups | None = None,
    retry_seconds: Sequence[float] = RETRY_SECONDS,
) -> None:
    """Takes step after step until `stop` is set. A step that fails is logged and taken again after a rest."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    failures = 0
    try:
        while not stop.is_set():
            try:
                rest = await step()
                failures = 0
            except Exception as error:
                rest = Rest(retry_seconds[min(failures, len(retry_seconds) - 1)])
                failures += 1
                if is_unavailable(error):
                    log.warning("database unavailable; retrying in %.1f s (%s): %s", rest.seconds, name, error)
                else:
                    log.exception("%s: internal error; retrying in %.1f s", name, rest.seconds)
            if rest.seconds > 0:
                await _sleep(rest, stopping, wakeups)
    finally:
        stopping.cancel()


async def _sleep(rest: Rest, stopping: asyncio.Task[bool], wakeups: Wakeups | None) -> None:
    woken = None if wakeups is None or rest.deaf else asyncio.create_task(wakeups.wait(), name="wake-up")
    events: set[asyncio.Task[bool] | asyncio.Task[None]] = {stopping, *rest.tasks}
    if woken is not None:
        events.add(woken)
    await asyncio.wait(events, timeout=rest.seconds, return_when=asyncio.FIRST_COMPLETED)
    if woken is not None:
        await end(woken)


@asynccontextmanager
async def heartbeat(
    beat: Callable[[bool], Awaitable[None]],
    lost: Callable[[], None],
    *,
    every_seconds: float,
    name: str,
    wakeups: Wakeups | None = None,
) -> AsyncIterator[None]:
    """Calls `beat` beside the block, every so often and when woken (which it is told), until it raises `LeaseLost`:
    then `lost` is called. Anything else that it raises is logged, and it goes on."""
    signal = wakeups or Wakeups()

    async def run() -> None:
        while True:
            woken = await signal.wait(every_seconds)
            try:
                await beat(woken)
            except LeaseLost:
                return lost()
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("%s: a heartbeat failed; continuing", name)

    beating = asyncio.create_task(run(), name=f"heartbeat of {name}")
    try:
        yield
    finally:
        await end(beating)


@asynccontextmanager
async def present(database: Database, clock: Clock, name: str, lease: timedelta) -> AsyncIterator[None]:
    """A worker lives for as long as the block runs, so that those who wait for one can be told whether there is any.

    It says so three times in a lease. A database that is unavailable hears of it when it is back.
    """
    started_at = clock()

    async def beat(_woken: bool) -> None:
        await note_alive(database, name, started_at, clock(), lease)

    with _unless_unavailable():
        await beat(False)
    async with heartbeat(beat, lambda: None, every_seconds=lease.total_seconds() / 3, name=f"presence of {name}"):
        try:
            yield
        finally:
            with _unless_unavailable():
                await note_end(database, name)


@contextmanager
def _unless_unavailable() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if not is_unavailable(error):
            raise


async def end(task: asyncio.Task[bool] | asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def owner_name() -> str:
    """A name for who holds leases: host, process, and a number of its own."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
