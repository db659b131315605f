"""Takes jobs up, keeps them while they are done, and lets them go; knows nothing of what a job computes."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from types import MappingProxyType

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import Refusal, Refusals
from app.storage.attempts import PROGRESS_SECONDS, Attempt
from app.storage.claims import Claim, LeaseLost, claim_next, look, renew
from app.storage.database import Database, is_unavailable
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.topics import QUEUE, job_topic
from app.storage.wakeups import Changes, Wakeups
from app.worker.handlers import HANDLERS, Handler, Tools

log = logging.getLogger(__name__)

GRACE_SECONDS = 7.0
"""How long a stopping worker waits for the buckets in hand; then it hands the jobs back without them."""
LOOK_SECONDS = 0.5
"""How often a running job is looked at for a request to cancel it, should no wake-up come."""
_PAUSES = (0.5, 1.0, 2.0, 5.0)


class Worker:
    """Does jobs side by side until it is told to stop. Any number of workers share the queue.

    It has `concurrency` places for each kind of job, so that long ones of a kind never hold up those of another;
    `places` says it for single kinds. `tenant_places` bounds how many of a kind one tenant has at work, over all
    workers (two that claim at one moment may give it one more).
    """

    def __init__(
        self,
        database: Database,
        changes: Changes,
        lake: Lake,
        clock: Clock,
        *,
        concurrency: int = 2,
        places: Mapping[JobKind, int] = MappingProxyType({}),
        tenant_places: Mapping[JobKind, int] = MappingProxyType({}),
        lease_seconds: float = 15.0,
        threads: int = 2,
        name: str | None = None,
        grace_seconds: float = GRACE_SECONDS,
        handlers: Mapping[JobKind, Handler] = HANDLERS,
    ) -> None:
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        self._database = database
        self._changes = changes
        self._clock = clock
        self._places = {**dict.fromkeys(handlers, concurrency), **places}
        self._tenant_places = tenant_places
        self._lease = timedelta(seconds=lease_seconds)
        self._tools = Tools(lake, threads)
        self._grace = grace_seconds
        self._handlers = handlers
        self._running: dict[asyncio.Task[None], Attempt] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set; then finishes the buckets in hand and hands the rest back, within 10 seconds."""
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            async with self._changes.subscribe(QUEUE) as wakeups:
                failures = 0
                while not stop.is_set():
                    held = set(self._running)
                    try:
                        await self._fill()
                        failures, pause = 0, self._lease.total_seconds() / 3
                    except Exception as error:
                        pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                        failures += 1
                        if is_unavailable(error):
                            log.warning("the database is away, trying again in %.1f s: %s", pause, error)
                        else:
                            log.exception("looking for jobs failed, trying again in %.1f s", pause)
                    await self._sleep(wakeups, stopping, held, pause)
        finally:
            stopping.cancel()
            await self._let_go()

    async def _fill(self) -> None:
        """Takes up jobs until this worker has enough of each kind, or there are no more."""
        for kind in self._handlers:
            while self._has_place(kind):
                claim = await claim_next(
                    self._database,
                    self._clock,
                    owner=self.name,
                    lease=self._lease,
                    kind=kind,
                    most_of_tenant=self._tenant_places.get(kind),
                )
                if claim is None:
                    break
                run = Attempt(self._database, self._clock, claim)
                task = asyncio.create_task(self._work(run), name=f"job {claim.job_id}")
                self._running[task] = run
                task.add_done_callback(self._running.pop)

    def _has_place(self, kind: JobKind) -> bool:
        return sum(run.claim.kind == kind for run in self._running.values()) < self._places[kind]

    async def _sleep(
        self, wakeups: Wakeups, stopping: asyncio.Task[bool], held: set[asyncio.Task[None]], seconds: float
    ) -> None:
        """Until something may be there to do: a wake-up, a free place, the stop, or simply some time later.

        A job of those `held` before the queue was looked at may have ended meanwhile: its place is free already.
        """
        woken = asyncio.create_task(wakeups.wait(), name="queue")
        full = not any(self._has_place(kind) for kind in self._handlers)
        # With every place taken a wake-up means nothing: the place that falls free looks at the queue.
        awaited = {stopping, *held, *self._running} | (set() if full else {woken})
        await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not woken.done():
            woken.cancel()
            with suppress(asyncio.CancelledError):
                await woken

    async def _let_go(self) -> None:
        """Ends every job in hand: finished, or handed back."""
        held = dict(self._running)
        for run in held.values():
            run.stop()
        if held:
            log.info("stopping: %d jobs in hand", len(held))
            await asyncio.wait(held, timeout=self._grace)
        await asyncio.gather(*(self._abandon(task, run) for task, run in held.items() if not task.done()))

    async def _abandon(self, task: asyncio.Task[None], run: Attempt) -> None:
        """Hands a job back that does not end. Its threads may still compute: what they write is fenced off."""
        with suppress(Exception):
            await asyncio.wait_for(run.hand_back(), 1.0)
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task

    # ------------------------------------------------------------ one job

    async def _work(self, run: Attempt) -> None:
        claim = run.claim
        log.info("job %s: attempt %d begins", claim.job_id, claim.token)
        heart = asyncio.create_task(self._heartbeat(run), name=f"heartbeat {claim.job_id}")
        try:
            await self._do(run)
        except LeaseLost:
            log.warning("job %s: attempt %d was overtaken and changes nothing more", claim.job_id, claim.token)
        except Exception as error:
            # Left to its lease: somebody takes it up when that has run out.
            log.warning("job %s: attempt %d ends without a word: %r", claim.job_id, claim.token, error)
        finally:
            heart.cancel()
            with suppress(asyncio.CancelledError):
                await heart

    async def _do(self, run: Attempt) -> None:
        """Runs the handler, and sees to it that the job is ended or handed back."""
        try:
            await self._handlers[run.claim.kind](run, self._tools)
        except LeaseLost:
            raise
        except Refusals as refusals:
            await self._fail(run, [_told(refusal) for refusal in refusals.refusals])
        except Refusal as refusal:
            await self._fail(run, [_told(refusal)])
        except Exception as error:
            if is_unavailable(error):
                await run.hand_back()
            elif not run.lost:
                await self._fail(run, [_masked(run.claim, error)])
        else:
            await self._settle(run)
        log.info("job %s: attempt %d ends: %s", run.claim.job_id, run.token, run.ended_as or "handed back")

    async def _settle(self, run: Attempt) -> None:
        """What a handler that returned has left to do."""
        if run.ended_as is not None:
            return
        if run.cancelled():
            await run.finish(JobStatus.CANCELLED)
        elif run.stopping():
            await run.hand_back()
        else:
            missing = RuntimeError("the handler returned without a result, though nobody had interrupted it")
            await self._fail(run, [_masked(run.claim, missing)])

    async def _fail(self, run: Attempt, errors: list[dict[str, str]]) -> None:
        if run.ended_as is None:
            await run.finish(JobStatus.FAILED, errors=errors)

    async def _heartbeat(self, run: Attempt) -> None:
        """Keeps the lease, writes progress and notices cancelling, while the work keeps threads busy."""
        loop = asyncio.get_running_loop()
        renewed = looked = loop.time()
        async with self._changes.subscribe(job_topic(run.tenant, run.claim.job_id)) as wakeups:
            while run.ended_as is None:
                woken = await wakeups.wait(PROGRESS_SECONDS)
                now = loop.time()
                try:
                    if run.progress_due():
                        await run.write_progress()
                        renewed = looked = now
                    elif now - renewed >= self._lease.total_seconds() / 3:
                        run.note_status(await renew(self._database, run.claim, self._clock()))
                        renewed = looked = now
                    elif woken or now - looked >= LOOK_SECONDS:
                        run.note_status(await look(self._database, run.claim))
                        looked = now
                except LeaseLost:
                    if run.ended_as is None:
                        run.note_loss()
                    return
                except Exception as error:
                    if not is_unavailable(error):
                        log.exception("job %s: the heartbeat failed, and goes on", run.claim.job_id)


def _told(refusal: Refusal) -> dict[str, str]:
    return {"code": refusal.code.value, "message": refusal.message}


def _masked(claim: Claim, error: Exception) -> dict[str, str]:
    """What a job says about a mistake of ours; the log has the rest under the same number."""
    number = secrets.token_hex(4)
    log.error("job %s: attempt %d failed, error %s", claim.job_id, claim.token, number, exc_info=error)
    message = (
        f"an internal error ended the job; the server's log has it under {number}. Run it again, or report that number"
    )
    return {"code": "INTERNAL_ERROR", "message": message}
