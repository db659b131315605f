"""A lane of its own for streaming evaluation, so that a batch that lands never waits behind a job; knows no people."""

import asyncio
import logging
import os
import secrets
import socket
from contextlib import suppress
from datetime import timedelta

from app.clock import Clock
from app.engine.run.buckets import Cancelled
from app.engine.store.lake import Lake
from app.services.streaming.turn import run_turn
from app.storage.claims import LeaseLost
from app.storage.database import Database, is_unavailable
from app.storage.streaming import Turn, claim_turn, hand_back, postpone, renew
from app.storage.topics import STREAMS
from app.storage.wakeups import Changes, Wakeups

log = logging.getLogger(__name__)

TURNS_AT_ONCE = 2
"""Sandboxes that one process streams side by side: a large batch of one does not hold up all others."""
_PAUSES = (0.5, 1.0, 2.0, 5.0)


class StreamingLane:
    """Takes turns of any sandbox until it is told to stop. Any number of lanes, of any process, share the queue."""

    def __init__(
        self, database: Database, changes: Changes, lake: Lake, clock: Clock, *, lease_seconds: float, threads: int
    ) -> None:
        self.name = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._database = database
        self._changes = changes
        self._lake = lake
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._threads = threads

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a turn in hand is given up then, and what it was to do stays to be done."""
        failures = 0
        async with self._changes.subscribe(STREAMS) as wakeups:
            while not stop.is_set():
                try:
                    turn = await claim_turn(self._database, self._clock, owner=self.name, lease=self._lease)
                    failures = 0
                    if turn is not None:
                        await self._take(turn, stop)
                        continue
                    pause = self._lease.total_seconds() / 3
                except Exception as error:
                    pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                    failures += 1
                    if is_unavailable(error):
                        log.warning("the database is away, trying again in %.1f s: %s", pause, error)
                    else:
                        log.exception("looking for batches to stream failed, trying again in %.1f s", pause)
                await _sleep(wakeups, stop, pause)

    async def _take(self, turn: Turn, stop: asyncio.Event) -> None:
        lost = asyncio.Event()
        heart = asyncio.create_task(self._heartbeat(turn, lost), name=f"heartbeat of turn {turn.number}")
        try:
            number = await run_turn(
                self._database,
                self._lake,
                self._clock,
                turn,
                self._threads,
                lambda: stop.is_set() or lost.is_set(),
            )
            log.info("turn %d of %s: %d batches streamed", turn.number, turn.tenant, number)
        except LeaseLost:
            log.warning("turn %d of %s was overtaken and changes nothing more", turn.number, turn.tenant)
        except Cancelled:
            if not lost.is_set():
                await hand_back(self._database, turn)
        except Exception as error:
            if is_unavailable(error):
                raise  # The lease runs out, or this lane takes the next turn, when the database is back.
            pause = await postpone(self._database, turn, self._clock())
            log.exception("turn %d of %s failed; it is tried again in %s", turn.number, turn.tenant, pause)
        finally:
            heart.cancel()
            with suppress(asyncio.CancelledError):
                await heart

    async def _heartbeat(self, turn: Turn, lost: asyncio.Event) -> None:
        """Keeps the lease while the work keeps threads busy."""
        while True:
            await asyncio.sleep(self._lease.total_seconds() / 3)
            try:
                await renew(self._database, turn, self._clock())
            except LeaseLost:
                lost.set()
                return
            except Exception as error:
                if not is_unavailable(error):
                    log.exception("turn %d of %s: the heartbeat failed, and goes on", turn.number, turn.tenant)


async def _sleep(wakeups: Wakeups, stop: asyncio.Event, seconds: float) -> None:
    """Until there may be a batch, or the stop, or simply some time later."""
    tasks = [asyncio.create_task(wakeups.wait()), asyncio.create_task(stop.wait())]
    await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
