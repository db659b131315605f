"""What a worker does with a segment job: pass by pass and bucket by bucket, from definitions to memberships."""

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache, partial

from app.engine.insight.best import Limit, first_of
from app.engine.insight.scan import Scan
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import (
    BucketCounts,
    Membership,
    MembershipFiles,
    Ordinals,
    counts,
    next_membership,
)
from app.engine.members.regraph import MembershipSource, followed, together
from app.engine.people.profiles import Snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.store.lake import Lake, write_atomically
from app.pql.dependencies import StageIds
from app.services.evaluation.progress import Progress
from app.services.jobs.segment.durations import added
from app.services.jobs.segment.prepare import SegmentRun, prepare
from app.services.jobs.segment.publish import as_numbers, counted, finish
from app.services.jobs.segment.unchanged import Unchanged, read_unchanged
from app.storage.columns import StoredValues
from app.storage.queue.attempts import Attempt
from app.storage.tables.jobs import JobStatus


async def run_segment_job(attempt: Attempt, lake: Lake, threads: int) -> None:
    """Runs a claimed job to its end, or as far as this attempt gets: finished buckets are kept for the next one."""
    progress = Progress(attempt, threads)
    try:
        run = await prepare(attempt, lake, progress)
    except Cancelled:
        if attempt.cancelled():
            await attempt.finish(JobStatus.CANCELLED)
        return
    if run is None:
        return
    tenant = lake.tenant(attempt.tenant)
    unchanged = await read_unchanged(attempt.database, tenant, run)
    evaluation = _Evaluation(attempt, run, MembershipFiles(tenant), progress, unchanged)
    try:
        await evaluation.run()
    except Cancelled:
        if attempt.cancelled():
            await attempt.finish(JobStatus.CANCELLED)
            await asyncio.to_thread(evaluation.clean)
        return
    progress.end()
    await finish(attempt, lake, run)
    await asyncio.to_thread(evaluation.clean)


@dataclass(frozen=True, slots=True)
class _Kept:
    """Whom limits leave of each definition, by bucket, and what counts as before."""

    chosen: Mapping[str, Mapping[int, Ordinals]]
    before: Mapping[str, Membership]
    at: datetime
    snapshot: Snapshot

    def of(self, found: Membership, bucket: int) -> tuple[Membership, BucketCounts]:
        members = self.chosen[found.definition].get(bucket, Ordinals())
        before = self.before.get(found.definition)
        limited = next_membership(before, found.definition, members, found.version, self.at.astimezone(UTC))
        return limited, counts(limited, self.snapshot.namespaces(bucket))


@dataclass(frozen=True, slots=True)
class _Earlier:
    """The results of a pass before the last one: files beside those of the job.

    They depend on nothing but what the job has pinned, so it does not matter which attempt wrote them: each finds what
    is there. A bucket counts once its note is written.
    """

    files: MembershipFiles
    run_id: str

    def notes(self) -> dict[int, StoredValues]:
        paths = self.files.lake.membership(self.run_id).glob("[0-9]*.json")
        return {int(path.stem): json.loads(path.read_text()) for path in paths}

    def keep(self, result: BucketResult, attempt: int) -> None:
        name = self.files.write(self.run_id, result.bucket, attempt, result.memberships)
        self._note(result.bucket, {"file": name, "profiles": result.profiles, "counts": counted(result)})

    def _note(self, bucket: int, note: StoredValues) -> None:
        write_atomically(self.files.lake.membership(self.run_id) / f"{bucket}.json", json.dumps(note).encode())

    def limit(self, bucket: int, note: StoredValues, attempt: int, kept: _Kept) -> None:
        """Writes a bucket once more with fewer members."""
        memberships = self.files.read(self.run_id, bucket, note["file"])
        numbers = dict(note["counts"]["counts"])
        for id_ in kept.chosen.keys() & memberships.keys():
            memberships[id_], counted_anew = kept.of(memberships[id_], bucket)
            numbers[id_] = as_numbers(counted_anew)
        name = self.files.write(self.run_id, bucket, f"{attempt}-limited", list(memberships.values()))
        self._note(bucket, {**note, "file": name, "counts": {**note["counts"], "counts": numbers}})

    def found(self, definitions: Iterable[str]) -> MembershipSource:
        notes, ids = self.notes(), list(definitions)
        return MembershipSource(
            lambda bucket: self.files.read(self.run_id, bucket, notes[bucket]["file"], ids) if bucket in notes else {},
            frozenset(notes),
        )


class _Evaluation:
    """All passes of one attempt. Only the results of the last one are seen by others, each with those before it."""

    def __init__(
        self, attempt: Attempt, run: SegmentRun, files: MembershipFiles, progress: Progress, unchanged: Unchanged
    ) -> None:
        self._attempt = attempt
        self._run = run
        self._files = files
        self._progress = progress
        self._passes: list[list[StageIds]] = run.passes() or [[]]
        # Between passes people may move, and what an earlier one found is not in the runs before.
        self._unchanged = unchanged if len(self._passes) == 1 else Unchanged(run.heads)
        self._earlier = [_Earlier(files, f"{attempt.job.id}-pass-{at}") for at in range(1, len(self._passes))]
        self._pass_of = {id_: at for at, stages in enumerate(self._passes) for _, ids in stages for id_ in ids}

    def clean(self) -> None:
        """Removes what only this job has read."""
        for earlier in self._earlier:
            self._files.remove(earlier.run_id)

    async def run(self) -> None:
        """Raises `Cancelled`."""
        done_buckets = await self._attempt.done_buckets()
        profiles_read = sum(row.profiles for row in done_buckets.values())
        for earlier in self._earlier:
            profiles_read += sum(note["profiles"] for note in (await asyncio.to_thread(earlier.notes)).values())
        # Each person counts once for every stage that looks at it.
        policies = [policy for stages in self._passes for policy, _ in stages]
        self._progress.begin(sum(self._run.snapshots[policy].total_profiles for policy in policies), profiles_read)
        for number, earlier in enumerate(self._earlier):
            await self._one(number, (await asyncio.to_thread(earlier.notes)).keys(), self._kept(earlier))
            notes = await asyncio.to_thread(earlier.notes)
            for note in notes.values():
                errors = note["counts"]["errors"]
                self._run.fail({id_: error for id_, error in errors.items() if id_ not in self._run.errors})
            await asyncio.to_thread(self._limit, number)
        await self._one(len(self._earlier), done_buckets.keys(), self._recorded())

    async def _one(self, number: int, done: Iterable[int], finished: Callable[[BucketResult], None]) -> None:
        stages = await asyncio.to_thread(self._stages, number)
        buckets = {bucket for stage, befores in stages for bucket in (*stage.snapshot.buckets, *befores)}
        if number == len(self._earlier):
            buckets |= {bucket for earlier in self._earlier for bucket in earlier.notes()}
        versions = {id_: definition.version for id_, definition in self._run.definitions.items()}
        await asyncio.to_thread(
            run,
            BucketEvaluator(
                [stage for stage, _ in stages], self._run.evaluated_at, versions, budget=self._files.lake.lake.budget
            ),
            sorted(buckets - set(done)),
            finished=finished,
            cancelled=self._attempt.interrupted,
            threads=self._progress.threads,
        )

    def _stages(self, number: int) -> list[tuple[Stage, frozenset[int]]]:
        """With the buckets in which there were members before."""
        stages = []
        for policy, ids in self._passes[number]:
            present = [id_ for id_ in ids if id_ in self._run.conditions]
            plan = Plan({id_: self._run.conditions[id_] for id_ in present})
            snapshot = self._run.snapshots[policy]
            before = self._run.heads.people(replace(self._files, mending=True), present, snapshot.graph_version)
            stored = self._stored(plan.references, number, snapshot.graph_version)
            read_stored = lru_cache(self._progress.threads)(stored.read)
            standing = self._run.heads.standing(self._files, plan, self._run.entries, snapshot.graph_version)
            stage = Stage(
                plan,
                snapshot,
                _by_bucket(read_stored),
                before.read,
                standing,
                partial(self._unchanged.known, frozenset(present)),
            )
            stages.append((stage, before.buckets))
        return stages

    def _limit(self, number: int) -> None:
        """Of the definitions of a pass with a limit the first stay. Whoever is among the first of all is so among those
        that are left, so it may be done again, by another attempt, when it was done in part."""
        earlier, run = self._earlier[number], self._run
        for policy, ids in self._passes[number]:
            limited = [id_ for id_ in ids if id_ in run.limits and id_ in run.conditions]
            if not limited:
                continue
            snapshot = run.snapshots[policy]
            plan = Plan({}, {id_: run.limits[id_] for id_ in limited})
            others = self._stored(plan.references, number + 1, snapshot.graph_version)
            stored = together([earlier.found(limited), others])
            standing = run.heads.standing(self._files, plan, run.entries, snapshot.graph_version)
            budget = self._files.lake.lake.budget
            scan = Scan(snapshot, plan, run.evaluated_at, stored, standing, budget, limited, tolerant=True)
            limits = {id_: Limit.of(run.definitions[id_].kept or {}) for id_ in limited}
            first_ones, failed = first_of(
                scan, limits, threads=self._progress.threads, stopped=self._attempt.interrupted
            )
            run.fail({id_: {"code": refusal.code.value, "message": refusal.message} for id_, refusal in failed.items()})
            before = run.heads.people(replace(self._files, mending=True), list(first_ones), snapshot.graph_version)
            for bucket, note in earlier.notes().items():
                earlier.limit(
                    bucket,
                    note,
                    self._attempt.token,
                    _Kept(first_ones, before.read(bucket), run.evaluated_at, snapshot),
                )

    def _stored(self, references: Iterable[str], number: int, graph: int | None) -> MembershipSource:
        """What definitions refer to that this pass does not evaluate: found by an earlier pass, or by another run."""
        outside, earlier = [], []
        for id_ in sorted(references):
            if id_ not in self._run.conditions:
                outside.append(id_)
            elif self._pass_of[id_] < number:
                source = self._earlier[self._pass_of[id_]].found([id_])
                earlier.append(followed(self._files.lake, source, self._run.graph_of(id_), graph))
        return together([self._run.heads.people(self._files, outside, graph), *earlier])

    def _kept(self, earlier: _Earlier) -> Callable[[BucketResult], None]:
        def finished(result: BucketResult) -> None:
            earlier.keep(result, self._attempt.token)
            self._told(result)

        return finished

    def _recorded(self) -> Callable[[BucketResult], None]:
        """Each bucket is written as a file that nobody sees until its row, which is fenced, is committed."""
        attempt, loop = self._attempt, asyncio.get_running_loop()
        earlier = [(earlier_pass, earlier_pass.notes()) for earlier_pass in self._earlier]

        def finished(result: BucketResult) -> None:
            memberships, counts = list(result.memberships), counted(result)
            for earlier_pass, notes in earlier:
                if (note := notes.get(result.bucket)) is not None:
                    memberships += self._files.read(earlier_pass.run_id, result.bucket, note["file"]).values()
                    for name in ("counts", "errors"):
                        counts[name] |= note["counts"][name]
                    if "seconds" in note["counts"]:
                        counts["seconds"] = added(counts["seconds"], note["counts"]["seconds"])
            name = self._files.write(attempt.job.id, result.bucket, attempt.token, memberships)
            recorded: Future[None] = asyncio.run_coroutine_threadsafe(
                attempt.record_bucket(result.bucket, name, result.profiles, counts), loop
            )
            recorded.result()
            self._told(result)

        return finished

    def _told(self, result: BucketResult) -> None:
        self._progress.add(result.profiles)


def _by_bucket(read: Callable[[int], Mapping[str, Membership]]) -> Callable[[str, int], Membership | None]:
    return lambda id_, bucket: read(bucket).get(id_)
