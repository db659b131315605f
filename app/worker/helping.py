"""Helps with jobs that other workers hold, while this worker has none of its own; knows no kind of job."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from app.engine.limits import memory
from app.engine.limits.pool import Cancelled
from app.logs import bound, event
from app.metrics import LEASES_LOST
from app.services.jobs.segment.sharing import Claims, Helper, opened
from app.storage.database import is_unavailable
from app.storage.queue.leases import LeaseLost
from app.storage.queue.shares import SharedWork, find_shared, is_wanted, keep_shares, release_shares
from app.storage.topics import QUEUE, job_topic
from app.worker.jobs import WorkerOptions
from app.worker.service import NONE, Resources, Rest, heartbeat, owner_name, serve

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
"""How often to check, without a wake-up, whether the job still runs."""


class Helping:
    """Helps until it is stopped, and only while its process is `idle`: the process's own jobs come first."""

    def __init__(self, resources: Resources, options: WorkerOptions, *, idle: Callable[[], bool]) -> None:
        self.name = owner_name()
        self._database, self._changes = resources.database, resources.changes
        self._lake, self._clock = resources.lake, resources.clock
        self._lease = options.lease
        self._threads = options.threads
        self._idle = idle
        self._left: set[str] = set()
        """Names of work that this process cannot do."""

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, and then releases unfinished buckets, so that any worker can claim them."""

        async def step() -> Rest:
            if self._idle():
                async with self._database.session() as session:
                    work = await find_shared(session, self._clock(), self._left)
                if work is not None:
                    await self._help(work, stop)
                    return NONE
            return Rest(self._lease.total_seconds() / 3)

        async with self._changes.subscribe(QUEUE) as wakeups:
            await serve(step, stop, name="helping", wakeups=wakeups)

    async def _help(self, work: SharedWork, stop: asyncio.Event) -> None:
        with bound(job_id=work.job_id, organisation=work.tenant.organisation, sandbox=work.tenant.sandbox):
            began = time.monotonic()
            buckets = await self._take_part(work, stop)
            event(log, "helped", buckets=buckets, duration_ms=(time.monotonic() - began) * 1000)
        await asyncio.to_thread(memory.release)

    async def _take_part(self, work: SharedWork, stop: asyncio.Event) -> int:
        """Returns the number of finished buckets. If a bucket fails, the job's holder evaluates it and reports the
        error."""
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        claims = Claims(self._database, self._clock, self.name, self._lease, self._threads, loop)
        try:
            own = await asyncio.to_thread(opened, self._lake, work, self._threads)
            helper = Helper(work, own, claims, self._idle, lambda: stop.is_set() or over.is_set())
        except Exception as error:
            self._leave(work, error)
            return 0
        try:
            async with self._changes.subscribe(job_topic(work.tenant, work.job_id)) as wakeups:
                beat, name = self._pulse(work, over), f"help with job {work.job_id}"
                async with heartbeat(beat, over.set, every_seconds=LOOK_SECONDS, name=name, wakeups=wakeups):
                    await asyncio.to_thread(helper.run)
        except Cancelled:
            pass
        except LeaseLost:
            LEASES_LOST.labels("share").inc()
        except Exception as error:
            if is_unavailable(error):
                raise  # When the database is back, the leases have expired or this process helps again.
            self._leave(work, error)
        if claims.held:
            await release_shares(self._database, work, self.name)
        return helper.done

    def _pulse(self, work: SharedWork, over: asyncio.Event) -> Callable[[bool], Awaitable[None]]:
        """Renews the leases, and notices that the job is cancelled, has ended or has another holder."""
        renewed = time.monotonic()

        async def beat(_woken: bool) -> None:
            nonlocal renewed
            if not await is_wanted(self._database, work):
                over.set()
            elif time.monotonic() - renewed >= self._lease.total_seconds() / 3:
                await keep_shares(self._database, self._clock(), work, self.name, self._lease)
                renewed = time.monotonic()

        return beat

    def _leave(self, work: SharedWork, error: Exception) -> None:
        self._left.add(work.name)
        log.warning("job %s: this worker cannot help with it: %r", work.job_id, error)
