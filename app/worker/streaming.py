"""A lane of its own for streaming evaluation, so that a batch that lands never waits behind a job; knows no people."""

import asyncio
import logging
from datetime import timedelta

from app.clock import Clock
from app.engine.limits.pool import Cancelled
from app.engine.store.lake import Lake
from app.metrics import LEASES_LOST
from app.services.streaming.turn import run_turn
from app.storage.database import Database, is_unavailable
from app.storage.queue.leases import LeaseLost
from app.storage.queue.turns import Turn, claim_turn, hand_back, postpone
from app.storage.topics import STREAMS
from app.storage.wakeups import Changes
from app.worker.service import NONE, Rest, heartbeat, owner_name, serve

log = logging.getLogger(__name__)

TURNS_AT_ONCE = 2
"""Sandboxes that one process streams side by side: a large batch of one does not hold up all others."""


class StreamingLane:
    """Takes turns of any sandbox until it is told to stop. Any number of lanes, of any process, share the queue."""

    def __init__(
        self,
        database: Database,
        changes: Changes,
        lake: Lake,
        clock: Clock,
        *,
        lease_seconds: float,
        threads: int,
        sweep_every: timedelta | None = None,
    ) -> None:
        self.name = owner_name()
        self._database = database
        self._changes = changes
        self._lake = lake
        self._clock = clock
        self._lease = timedelta(seconds=lease_seconds)
        self._threads = threads
        self._sweep_every = sweep_every

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; a turn in hand is given up then, and what it was to do stays to be done."""

        async def step() -> Rest:
            turn = await claim_turn(
                self._database, self._clock, owner=self.name, lease=self._lease, sweep_every=self._sweep_every
            )
            if turn is None:
                return Rest(self._lease.total_seconds() / 3)
            await self._take(turn, stop)
            return NONE

        async with self._changes.subscribe(STREAMS) as wakeups:
            await serve(step, stop, name="streaming lane", wakeups=wakeups)

    async def _take(self, turn: Turn, stop: asyncio.Event) -> None:
        lost = asyncio.Event()

        async def beat(_woken: bool) -> None:
            await turn.held.renew(self._database, self._clock())

        def stopping() -> bool:
            return stop.is_set() or lost.is_set()

        name, every = f"turn {turn.number} of {turn.tenant}", self._lease.total_seconds() / 3
        try:
            async with heartbeat(beat, lost.set, every_seconds=every, name=name):
                number = await run_turn(self._database, self._lake, self._clock, turn, self._threads, stopping)
            log.info("%s: %d batches streamed", name, number)
        except LeaseLost:
            LEASES_LOST.labels("turn").inc()
            log.warning("%s lost its lease and stopped writing", name)
        except Cancelled:
            if not lost.is_set():
                await hand_back(self._database, turn)
        except Exception as error:
            if is_unavailable(error):
                raise  # The lease runs out, or this lane takes the next turn, when the database is back.
            pause = await postpone(self._database, turn, self._clock())
            log.exception("%s failed; retrying in %s", name, pause)
