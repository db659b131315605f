"""A separate lane for streaming evaluation, so that a batch never waits behind a job; knows no profiles."""

import asyncio
import logging
from datetime import timedelta

from app.engine.limits.pool import Cancelled
from app.metrics import LEASES_LOST
from app.services.streaming.turn import run_turn
from app.storage.database import is_unavailable
from app.storage.queue.leases import LeaseLost
from app.storage.queue.turns import Turn, claim_turn, hand_back, postpone
from app.storage.topics import STREAMS
from app.worker.jobs import WorkerOptions
from app.worker.service import NONE, Resources, Rest, heartbeat, owner_name, serve

log = logging.getLogger(__name__)

TURNS_AT_ONCE = 2
"""Sandboxes that one process streams concurrently, so that one sandbox's large batch does not delay all others."""


class StreamingLane:
    """Takes turns of any sandbox until it is stopped. Any number of lanes, in any process, share the queue."""

    def __init__(self, resources: Resources, options: WorkerOptions, *, sweep_every: timedelta | None = None) -> None:
        self.name = owner_name()
        self._database, self._changes = resources.database, resources.changes
        self._lake, self._clock = resources.lake, resources.clock
        self._lease = options.lease
        self._threads = options.threads
        self._sweep_every = sweep_every

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; an unfinished turn is then handed back with its work still to do."""

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
                raise  # When the database is back, the lease has expired or this lane takes the next turn.
            pause = await postpone(self._database, turn, self._clock())
            log.exception("%s failed; retrying in %s", name, pause)
