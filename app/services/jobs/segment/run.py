"""Executes a segment job: pass by pass over all buckets, from definitions to memberships."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial

from app.engine.insight.best import Limit, first_of
from app.engine.insight.scan import Scan
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import MembershipFiles
from app.engine.members.regraph import together
from app.engine.plan.plan import Plan
from app.engine.run.engine import Done, Engine, LocalEngine
from app.engine.store.lake import Lake
from app.pql.dependencies import StageIds
from app.services.evaluation.progress import Progress
from app.services.jobs.segment.passes import EarlierPass, Kept, SegmentPass, earlier_pass
from app.services.jobs.segment.prepare import SegmentRun, prepare
from app.services.jobs.segment.publish import finish
from app.services.jobs.segment.sharing import SharedPass, withdrawn
from app.services.jobs.segment.unchanged import Since, read_since
from app.storage.queue.attempts import Attempt
from app.storage.tables.jobs import JobStatus


async def run_segment_job(attempt: Attempt, lake: Lake, threads: int, engine: Engine | None = None) -> None:
    """Runs a claimed job to its end, or as far as this attempt gets; a later attempt reuses the finished buckets.

    The `engine` evaluates the buckets; `threads` of this process do everything else.
    """
    engine = engine or LocalEngine(threads)
    progress = Progress(attempt, threads)
    try:
        run = await prepare(attempt, lake, progress)
    except Cancelled:
        if attempt.cancelled():
            await attempt.finish(JobStatus.CANCELLED)
        return
    if run is None:
        return
    progress.threads = engine.parallel
    since = await read_since(attempt.database, run)
    evaluation = _Evaluation(
        attempt, run, MembershipFiles(lake.tenant(attempt.tenant)), progress, engine, threads, since
    )
    try:
        await evaluation.run()
    except Cancelled:
        if attempt.cancelled():
            await withdrawn(attempt)
            await attempt.finish(JobStatus.CANCELLED)
            await asyncio.to_thread(evaluation.clean)
        return
    progress.end()
    await finish(attempt, lake, run)
    await asyncio.to_thread(evaluation.clean)


@dataclass(slots=True)
class _Evaluation:
    """All passes of one attempt."""

    attempt: Attempt
    segment_run: SegmentRun
    files: MembershipFiles
    progress: Progress
    engine: Engine
    threads: int
    since: Sequence[Since]
    passes: list[list[StageIds]] = field(init=False)
    earlier: list[EarlierPass] = field(init=False)

    def __post_init__(self) -> None:
        self.passes = self.segment_run.passes() or [[]]
        self.earlier = [earlier_pass(self.files, self.attempt.job.id, at) for at in range(len(self.passes) - 1)]

    def clean(self) -> None:
        """Removes files that only this job has read."""
        for earlier in self.earlier:
            self.files.remove(earlier.run_id)

    async def run(self) -> None:
        """Raises `Cancelled`."""
        for part, bucket, result in await withdrawn(self.attempt) if self.attempt.token > 1 else ():
            if part < len(self.earlier) and bucket not in await asyncio.to_thread(self.earlier[part].notes):
                await asyncio.to_thread(self.earlier[part].note, bucket, result)
        done_buckets = await self.attempt.done_buckets()
        profiles_read = sum(row.profiles for row in done_buckets.values())
        for earlier in self.earlier:
            profiles_read += sum(note["profiles"] for note in (await asyncio.to_thread(earlier.notes)).values())
        # Each person counts once for every stage that evaluates it.
        policies = [policy for stages in self.passes for policy, _ in stages]
        self.progress.begin(
            sum(self.segment_run.snapshots[policy].total_profiles for policy in policies), profiles_read
        )
        for number, earlier in enumerate(self.earlier):
            noted = partial(self._noted, earlier)
            await self._one(number, (await asyncio.to_thread(earlier.notes)).keys(), noted, noted)
            notes = await asyncio.to_thread(earlier.notes)
            for note in notes.values():
                errors = note["counts"]["errors"]
                self.segment_run.fail(
                    {id_: error for id_, error in errors.items() if id_ not in self.segment_run.errors}
                )
            await asyncio.to_thread(self._limit, number)
        await self._one(len(self.earlier), done_buckets.keys(), self._recorded(), self._told)

    async def _one(
        self, number: int, done: Collection[int], finished: Callable[[Done], None], noted: Callable[[Done], None]
    ) -> None:
        work = self._pass(number)
        buckets = await asyncio.to_thread(lambda: sorted(work.buckets.difference(done)))
        shared = SharedPass.of(self.attempt, work, number, self.engine, finished, noted)
        await asyncio.to_thread(shared.run, buckets)

    def _pass(self, number: int) -> SegmentPass:
        conditions = self.segment_run.conditions
        return SegmentPass(
            self.files.lake,
            self.attempt.job.id,
            self.attempt.token,
            self.segment_run,
            [
                [(policy, [id_ for id_ in ids if id_ in conditions]) for policy, ids in stages]
                for stages in self.passes[: number + 1]
            ],
            is_last=number == len(self.earlier),
            # Between passes people may move between buckets, and results of earlier passes are not in the previous
            # runs.
            since=self.since if not self.earlier else (),
            parallel=self.engine.parallel,
        )

    def _limit(self, number: int) -> None:
        """Keeps the first members of a pass's definitions with a limit. Idempotent, also after a partial execution: the
        first of all are also the first of those kept."""
        earlier, run = self.earlier[number], self.segment_run
        for policy, ids in self.passes[number]:
            limited = [id_ for id_ in ids if id_ in run.limits and id_ in run.conditions]
            if not limited:
                continue
            snapshot = run.snapshots[policy]
            plan = Plan({}, {id_: run.limits[id_] for id_ in limited})
            others = self._pass(number).stored(plan.references, snapshot.graph_version, number + 1)
            stored = together([earlier.found(limited), others])
            standing = run.heads.standing(self.files, plan, run.entries, snapshot.graph_version)
            budget = self.files.lake.lake.budget
            scan = Scan(snapshot, plan, run.evaluated_at, stored, standing, budget, limited, tolerant=True)
            limits = {id_: Limit.of(id_, run.definitions[id_].kept or {}) for id_ in limited}
            first_ones, failed = first_of(scan, limits, threads=self.threads, stopped=self.attempt.interrupted)
            run.fail({id_: {"code": refusal.code.value, "message": refusal.message} for id_, refusal in failed.items()})
            before = run.heads.people(replace(self.files, mending=True), list(first_ones), snapshot.graph_version)
            for bucket, note in earlier.notes().items():
                kept = Kept(first_ones, before.read(bucket), run.evaluated_at, snapshot)
                earlier.limit(bucket, note, self.attempt.token, kept)

    def _recorded(self) -> Callable[[Done], None]:
        """A bucket of the last pass counts once its fenced row is committed."""
        loop = asyncio.get_running_loop()

        def finished(done: Done) -> None:
            recorded: Future[None] = asyncio.run_coroutine_threadsafe(
                self.attempt.record_bucket(done.bucket, done.file, done.profiles, done.counts), loop
            )
            recorded.result()
            self._told(done)

        return finished

    def _noted(self, earlier: EarlierPass, done: Done) -> None:
        """A bucket of another pass counts once its note is written."""
        earlier.note(done.bucket, {"file": done.file, "profiles": done.profiles, "counts": done.counts})
        self._told(done)

    def _told(self, done: Done) -> None:
        self.progress.add(done.profiles)
