"""The loop of all background services: find work, rest, keep the lease alive, stop; knows no particular work."""

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
from app.engine.store.lake import Lake
from app.storage.database import Database, is_unavailable
from app.storage.queue.leases import LeaseLost
from app.storage.queue.workers import note_alive, note_end
from app.storage.wakeups import Changes, Wakeups

log = logging.getLogger(__name__)

RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0)
"""Rest after one, two, … consecutive failures; the last value applies to any further failure."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Maximum rest. A wake-up (unless `deaf`) or the end of a task ends it early."""

    seconds: float
    tasks: Collection[asyncio.Task[None]] = ()
    deaf: bool = False


NONE = Rest(0.0)
"""Continue at once: there may be more to do."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What every background task of a worker process uses."""

    database: Database
    changes: Changes
    lake: Lake
    clock: Clock


async def serve(
    step: Callable[[], Awaitable[Rest]],
    stop: asyncio.Event,
    *,
    name: str,
    wakeups: Wakeups | None = None,
    retry_seconds: Sequence[float] = RETRY_SECONDS,
) -> None:
    """Repeats `step` until `stop` is set. A step that fails is logged and retried after a rest."""
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
    """Calls `beat` during the block, at intervals and on wake-ups (its argument says which), until it raises
    `LeaseLost`; then calls `lost`. Other exceptions are logged, and the heartbeat continues."""
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
    """Registers a live worker while the block runs, so that clients can learn whether one is running.

    Renews the registration three times per lease. While the database is unavailable, renewals are skipped.
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
    """Cancels a task and waits until it has ended."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def owner_name() -> str:
    """A unique name for a lease holder: host, process id and a random suffix."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
