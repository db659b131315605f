"""Claims jobs, keeps their leases while they run, and releases them; knows nothing of what a job computes."""

import asyncio
import logging
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from app.clock import Clock
from app.engine.limits import memory
from app.engine.run.engine import Engine, LocalEngine
from app.errors import Refusal, Refusals, outage
from app.logs import bind, event
from app.metrics import JOB_SECONDS, JOBS_ENDED, LEASES_LOST
from app.storage.database import Database, is_unavailable
from app.storage.queue.attempts import PROGRESS_SECONDS, Attempt
from app.storage.queue.claims import Claim, claim_next, look, renew
from app.storage.queue.leases import LeaseLost
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.topics import QUEUE, job_topic
from app.traces import span
from app.worker.handlers import HANDLERS, Handler, Tools
from app.worker.service import Resources, Rest, heartbeat, owner_name, present, serve

log = logging.getLogger(__name__)

GRACE_SECONDS = 7.0
"""How long a stopping worker waits for buckets in progress before it hands the jobs back unfinished."""
LOOK_SECONDS = 0.5
"""How often a running job is polled for a cancellation request if no wake-up comes."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Limits on a worker's concurrency, and how long it holds a job without a heartbeat.

    It has `concurrency` slots for each kind of job, so that long jobs of one kind do not delay another; `places`
    overrides this for single kinds. `tenant_places` limits how many jobs of a kind run for one tenant over all workers
    (two workers that claim at the same moment can exceed it by one). `threads` is per job.
    """

    concurrency: int = 2
    places: Mapping[JobKind, int] = field(default_factory=dict)
    tenant_places: Mapping[JobKind, int] = field(default_factory=dict)
    threads: int = 2
    lease_seconds: float = 15.0
    grace_seconds: float = GRACE_SECONDS
    name: str = field(default_factory=owner_name)

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)


class Worker:
    """Runs jobs concurrently until it is stopped. Any number of workers share the queue."""

    def __init__(
        self,
        resources: Resources,
        options: WorkerOptions | None = None,
        handlers: Mapping[JobKind, Handler] = HANDLERS,
        *,
        engine: Engine | None = None,
    ) -> None:
        self._database, self._changes, self._clock = resources.database, resources.changes, resources.clock
        self._options = options or WorkerOptions()
        self._places = {**dict.fromkeys(handlers, self._options.concurrency), **self._options.places}
        self._tools = Tools(resources.lake, self._options.threads, engine or LocalEngine(self._options.threads))
        self._handlers = handlers
        self._running: dict[asyncio.Task[None], Attempt] = {}

    def is_idle(self) -> bool:
        """Whether the worker holds no job."""
        return not self._running

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set, then finishes the buckets in progress and hands the rest back, within 10
        seconds."""
        options = self._options
        async with present(self._database, self._clock, options.name, options.lease):
            try:
                async with self._changes.subscribe(QUEUE) as wakeups:
                    await serve(self._step, stop, name="worker", wakeups=wakeups)
            finally:
                await self._let_go()

    async def _step(self) -> Rest:
        """Claims jobs, then rests until a slot is free or a new job may fill one."""
        # A held job may end while the queue is being read; its slot is then already free.
        held = set(self._running)
        await self._fill()
        # With all slots taken, wake-ups are pointless: the task that frees a slot triggers the next step.
        full = not any(self._has_place(kind) for kind in self._handlers)
        return Rest(self._options.lease_seconds / 3, {*held, *self._running}, deaf=full)

    async def _fill(self) -> None:
        """Claims jobs until all slots are taken or the queue is empty."""
        for kind in self._handlers:
            while self._has_place(kind):
                claim = await claim_next(
                    self._database,
                    self._clock,
                    owner=self._options.name,
                    lease=self._options.lease,
                    kind=kind,
                    most_of_tenant=self._options.tenant_places.get(kind),
                )
                if claim is None:
                    break
                run = Attempt(self._database, self._clock, claim)
                task = asyncio.create_task(self._work(run), name=f"job {claim.job_id}")
                self._running[task] = run
                task.add_done_callback(self._running.pop)

    def _has_place(self, kind: JobKind) -> bool:
        return sum(run.claim.kind == kind for run in self._running.values()) < self._places[kind]

    async def _let_go(self) -> None:
        """Ends every running job: finished, or handed back."""
        held = dict(self._running)
        for run in held.values():
            run.stop()
        if held:
            log.info("stopping: %d jobs in progress", len(held))
            await asyncio.wait(held, timeout=self._options.grace_seconds)
        await asyncio.gather(*(self._abandon(task, run) for task, run in held.items() if not task.done()))

    async def _abandon(self, task: asyncio.Task[None], run: Attempt) -> None:
        """Hands back a job that does not stop. Its threads may keep computing, but their writes are fenced off."""
        with suppress(Exception):
            await asyncio.wait_for(run.hand_back(), 1.0)
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task

    # ------------------------------------------------------------ one job

    async def _work(self, run: Attempt) -> None:
        """Runs one attempt, with its logs and traces tagged with the job's id."""
        claim = run.claim
        bind(job_id=claim.job_id, organisation=run.tenant.organisation, sandbox=run.tenant.sandbox)
        event(log, "job started", kind=claim.kind.value, attempt=claim.token)
        began = time.monotonic()
        name = f"job {claim.kind.value}"
        with span(name, claim.row.trace, job_id=claim.job_id, attempt=claim.token):
            await self._attempt(run)
        outcome = run.ended_as or ("LEASE_LOST" if run.lost else "HANDED_BACK")
        milliseconds = (time.monotonic() - began) * 1000
        event(log, "job ended", kind=claim.kind.value, attempt=claim.token, outcome=outcome, duration_ms=milliseconds)

    async def _attempt(self, run: Attempt) -> None:
        claim = run.claim
        try:
            async with self._changes.subscribe(job_topic(run.tenant, claim.job_id)) as wakeups:
                pulse = _Pulse(self._database, self._clock, run)
                name = f"job {claim.job_id}"
                async with heartbeat(
                    pulse.beat, pulse.lost, every_seconds=PROGRESS_SECONDS, name=name, wakeups=wakeups
                ):
                    with JOB_SECONDS.labels(claim.kind.value).time():
                        await self._do(run)
            if run.ended_as is not None:
                JOBS_ENDED.labels(claim.kind.value, run.ended_as).inc()
        except LeaseLost:
            LEASES_LOST.labels("job").inc()
            log.warning("job %s: attempt %d lost its lease and stopped writing", claim.job_id, claim.token)
        except Exception as error:
            # Leave the job to its lease: another worker claims it when the lease expires.
            log.warning("job %s: attempt %d crashed: %r", claim.job_id, claim.token, error)
        finally:
            await asyncio.to_thread(memory.release)

    async def _do(self, run: Attempt) -> None:
        """Runs the handler, then ends the job or hands it back."""
        try:
            await self._handlers[run.claim.kind](run, self._tools)
        except LeaseLost:
            raise
        except Refusals as refusals:
            await self._fail(run, [_as_error(refusal) for refusal in refusals.refusals])
        except Refusal as refusal:
            await self._fail(run, [_as_error(refusal)])
        except Exception as error:
            if (reason := outage(error)) and not run.lost:
                log.warning("job %s: attempt %d: %s: %r", run.claim.job_id, run.token, reason, error)
                await self._fail(run, [{"code": "UNAVAILABLE", "message": f"{reason}: run the job again then"}])
            elif is_unavailable(error):
                await run.hand_back()
            elif not run.lost:
                await self._fail(run, [_masked(run.claim, error)])
        else:
            await self._settle(run)

    async def _settle(self, run: Attempt) -> None:
        """Completes a job whose handler returned without ending it."""
        if run.ended_as is not None:
            return
        if run.cancelled():
            await run.finish(JobStatus.CANCELLED)
        elif run.stopping():
            await run.hand_back()
        else:
            missing = RuntimeError("the handler returned no result although it was not interrupted")
            await self._fail(run, [_masked(run.claim, missing)])

    async def _fail(self, run: Attempt, errors: list[dict[str, str]]) -> None:
        if run.ended_as is None:
            await run.finish(JobStatus.FAILED, errors=errors)


class _Pulse:
    """Renews a job's lease, writes its progress and notices cancellation, while the work occupies the threads."""

    def __init__(self, database: Database, clock: Clock, run: Attempt) -> None:
        self._database = database
        self._clock = clock
        self._run = run
        self._time = asyncio.get_running_loop().time
        self._renewed = self._looked = self._time()

    async def beat(self, woken: bool) -> None:
        """Raises `LeaseLost`."""
        run, now = self._run, self._time()
        if run.ended_as is not None:
            return
        if run.progress_due():
            await run.write_progress()
            self._renewed = self._looked = now
        elif now - self._renewed >= run.claim.lease.total_seconds() / 3:
            run.note_status(await renew(self._database, run.claim, self._clock()))
            self._renewed = self._looked = now
        elif woken or now - self._looked >= LOOK_SECONDS:
            run.note_status(await look(self._database, run.claim))
            self._looked = now

    def lost(self) -> None:
        if self._run.ended_as is None:
            self._run.note_loss()


def _as_error(refusal: Refusal) -> dict[str, str]:
    return {"code": refusal.code.value, "message": refusal.message}


def _masked(claim: Claim, error: Exception) -> dict[str, str]:
    """The error that a job reports for an internal error; the log has the details under the same number."""
    number = secrets.token_hex(4)
    log.error("job %s: attempt %d failed, error %s", claim.job_id, claim.token, number, exc_info=error)
    message = f"the job failed with an internal error, logged as {number}: run it again, or report this number"
    return {"code": "INTERNAL_ERROR", "message": message}
