"""Evaluates the passes of a turn and writes their patches; publishes nothing."""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.members.membership import BucketCounts, Membership, MembershipFiles, counts
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import Snapshot
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run, with_statuses_kept
from app.services.evaluation.heads import NO_RUN, patch_run
from app.services.streaming.definitions import LiveStage
from app.services.streaming.passes import LivePass
from app.services.streaming.work import Work
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.tables.jobs import JobBucketRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

_BUCKETS = columns(JobBucketRow)
_PATCHES = columns(MembershipPatchRow)
_BUCKETS_COUNTED = 32
"""Number of buckets whose counts are read at once."""

Counts = Mapping[str, Mapping[str, Any]]
"""{audience: {members, by_namespace}} of one bucket."""


async def evaluate(
    database: Database, files: MembershipFiles, turn: int, work: Work, threads: int, stopping: Callable[[], bool]
) -> None:
    """Evaluates a few buckets of a pass at a time, to limit the counts and people held in memory. Raises `Cancelled`
    soon after `stopping` returns true."""
    for live in work.passes:
        opened = await asyncio.to_thread(_Pass.opened, files, turn, work, live)
        buckets = await asyncio.to_thread(opened.buckets)
        for start in range(0, len(buckets), _BUCKETS_COUNTED):
            chunk = buckets[start : start + _BUCKETS_COUNTED]
            async with database.session() as session:
                counted = await _counted(session, work, live, chunk)
            await asyncio.to_thread(opened.evaluate, counted, threads, stopping)
        work.finish(live)


@dataclass(frozen=True, slots=True)
class _Before:
    """The memberships of a bucket before the pass: as `stored`, and as `seen` with the people of the pass."""

    stored: Mapping[str, Membership]
    seen: Mapping[str, Membership]


@dataclass(frozen=True, slots=True)
class _Pass:
    """A pass that is under way. The members of the audiences in `foreign` are other people than those of the pass, and
    are converted (`others`)."""

    files: MembershipFiles
    turn: int
    work: Work
    live: LivePass
    foreign: frozenset[str]
    others: MembershipSource

    @classmethod
    def opened(cls, files: MembershipFiles, turn: int, work: Work, live: LivePass) -> "_Pass":
        heads = work.current
        asked = (live.evaluated | live.references) & heads.audiences
        foreign = frozenset(id_ for id_ in asked if heads.graphs.get(id_) != live.graph)
        return cls(files, turn, work, live, foreign, heads.people(files, foreign, live.graph))

    def buckets(self) -> list[int]:
        present = (bucket for stage in self.live.stages for bucket in self._snapshot(stage).buckets)
        return self.live.buckets(self.others.buckets, present)

    def evaluate(self, counted: Mapping[int, Counts], threads: int, stopping: Callable[[], bool]) -> None:
        """Evaluates and stores some buckets; a definition that fails keeps its members."""
        work, live, before = self.work, self.live, dict[int, _Before]()

        def previous(bucket: int) -> Mapping[str, Membership]:
            if bucket not in before:
                before[bucket] = self._before(bucket)
            return before[bucket].seen

        def finished(result: BucketResult) -> None:
            earlier = before.pop(result.bucket)
            self._keep(result, earlier, self._after(result, earlier), counted[result.bucket])

        stages = [
            Stage(
                stage.plan,
                self._snapshot(stage),
                lambda audience, bucket: previous(bucket).get(audience),
                previous,
                work.heads.standing(self.files, stage.plan, work.entries, live.graph),
                partial(live.known, stage),
            )
            for stage in live.stages
        ]
        versions = {id_: version for stage in live.stages for id_, version in stage.versions.items()}
        budget = self.files.lake.lake.budget
        evaluator = BucketEvaluator(stages, work.evaluated_at, versions, live.only, budget)
        run(evaluator, counted, finished=finished, cancelled=stopping, threads=threads)

    def _snapshot(self, stage: LiveStage) -> Snapshot:
        return self.work.snapshots[stage.merge_policy_id]

    def _before(self, bucket: int) -> _Before:
        heads = self.work.current
        asked = self.live.evaluated | self.live.references | heads.patched(bucket)
        stored = heads.many(self.files, bucket, asked)
        if not self.foreign:
            return _Before(stored, stored)
        same = {id_: membership for id_, membership in stored.items() if id_ not in self.foreign}
        return _Before(stored, {**same, **self.others.read(bucket)})

    def _after(self, result: BucketResult, before: _Before) -> "_After":
        """The resulting memberships and counts of a bucket. Where everyone was evaluated, people whose membership has
        not changed keep their status."""
        memberships = {membership.definition: membership for membership in result.memberships}
        if self.live.is_whole(result.bucket):
            people, now = self.live.affected.people(result.bucket), self.work.evaluated_at
            memberships = {
                id_: with_statuses_kept(before.seen.get(id_), one, now, people) for id_, one in memberships.items()
            }
        numbers = dict(result.counts)
        for id_, error in result.errors.items():
            log.warning("definition %s was not streamed in bucket %d: %s", id_, result.bucket, error.message)
        for stage in self.live.stages:
            for id_ in self.foreign & stage.plan.conditions.keys() & result.errors.keys() & before.seen.keys():
                memberships[id_] = before.seen[id_]
                numbers[id_] = counts(before.seen[id_], self._snapshot(stage).namespaces(result.bucket))
        return _After(memberships, numbers)

    def _keep(self, result: BucketResult, before: _Before, after: "_After", counted: Counts) -> None:
        """Writes the changes in a bucket, including those of the previous patch, and updates the counts."""
        work, bucket = self.work, result.bucket
        numbers: dict[str, StoredValues] = {
            id_: {"members": of.members, "by_namespace": dict(of.by_namespace)} for id_, of in after.counts.items()
        }
        nobody: StoredValues = {"members": 0, "by_namespace": {}}
        differs = {id_ for id_ in numbers if numbers[id_] != counted.get(id_, nobody)}
        changed = {id_ for id_, membership in after.memberships.items() if _differs(before.stored.get(id_), membership)}
        if not changed | differs:
            return
        for id_ in differs:
            work.count(id_, counted.get(id_, nobody), numbers[id_])
        for id_ in changed:
            work.move(id_, before.seen.get(id_), after.memberships[id_])
        work.changed |= changed | differs
        # A bucket has one patch, so this one must include what the previous one contains.
        in_file = {*changed, *differs, *work.current.patched(bucket)}
        memberships = {**before.stored, **after.memberships}
        content = [memberships[id_] for id_ in sorted(in_file) if id_ in memberships]
        work.patches[bucket] = {
            "bucket": bucket,
            "turn": self.turn,
            "file": self.files.write(patch_run(self.turn), bucket, self.turn, content),
            "bases": {id_: work.heads.runs.get(id_, NO_RUN) for id_ in sorted(in_file)},
            "counts": {id_: {**counted, **numbers}.get(id_, nobody) for id_ in sorted(in_file)},
            "at": work.evaluated_at.astimezone(UTC),
        }


@dataclass(frozen=True, slots=True)
class _After:
    memberships: Mapping[str, Membership]
    counts: Mapping[str, BucketCounts]


def _differs(before: Membership | None, after: Membership) -> bool:
    if before is None:
        return bool(after.members or after.exited)
    old, new = (
        (membership.members, membership.entered, membership.exited, membership.qualified)
        for membership in (before, after)
    )
    return old != new


async def _counted(
    session: AsyncSession, work: Work, live: LivePass, buckets: Sequence[int]
) -> dict[int, dict[str, StoredValues]]:
    """The audiences' counts for these buckets: those of the patches, else those of the heads."""
    counts_of: dict[int, dict[str, StoredValues]] = {bucket: {} for bucket in buckets}
    of_run: dict[str, set[str]] = {}
    for id_ in live.evaluated:
        of_run.setdefault(work.heads.runs.get(id_, NO_RUN), set()).add(id_)
    runs = within(select(_BUCKETS.job_id, _BUCKETS.bucket, _BUCKETS.counts), JobBucketRow, work.scope.tenant)
    mine = _BUCKETS.job_id.in_(sorted(of_run)), _BUCKETS.bucket.in_(buckets)
    for row in await session.execute(runs.where(*mine)):
        for id_, numbers in row.counts["counts"].items():
            if id_ in of_run[row.job_id]:
                counts_of[row.bucket][id_] = {name: numbers[name] for name in ("members", "by_namespace")}
    fields = select(_PATCHES.bucket, _PATCHES.turn, _PATCHES.counts)
    patches = within(fields, MembershipPatchRow, work.scope.tenant)
    newest = [
        (row.bucket, row.turn, row.counts)
        for row in await session.execute(patches.where(_PATCHES.newest, _PATCHES.bucket.in_(buckets)))
    ]
    ours = [(bucket, work.patches[bucket]) for bucket in buckets if bucket in work.patches]
    for bucket, turn, numbers_of in [*newest, *((bucket, patch["turn"], patch["counts"]) for bucket, patch in ours)]:
        if (patch := work.current.patches.get(bucket)) is not None and patch.turn == turn:
            patched = work.current.patched(bucket)
            counts_of[bucket] |= {id_: numbers for id_, numbers in numbers_of.items() if id_ in patched}
    return counts_of
