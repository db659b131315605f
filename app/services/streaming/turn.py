"""What a worker does with a sandbox's turn: the people of new batches to memberships, those to patches and counts."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.ingest.batch_people import touched
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import BucketCounts, Membership, MembershipFiles
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import MergeRule, Snapshot, open_snapshot
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.audiences.reads import publish_change
from app.services.evaluation.expressions import data_sources, read_segments
from app.services.evaluation.heads import NO_RUN, head_runs, patch_run, read_heads
from app.services.evaluation.membership_log import note_changes
from app.services.evaluation.sandboxes import read_time_zone
from app.services.merge_policies import get_many as get_policies
from app.services.merge_policies import rule_of
from app.services.streaming.definitions import has_live_definitions, live_definitions, live_stages
from app.services.streaming.work import Work
from app.storage.columns import StoredValues, columns, table
from app.storage.database import Database
from app.storage.queue.turns import (
    Turn,
    all_evaluated,
    end_turn,
    forget_batch,
    job_runs,
    last_sweep,
    lock_turn,
    queue_batch,
    requeue_batches,
    settle_batches,
    waiting_batches,
)
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

_AUDIENCES = columns(AudienceRow)
_BUCKETS = columns(JobBucketRow)
_PATCHES = table(MembershipPatchRow)
_BUCKETS_COUNTED = 32
"""So many buckets' counts are read at once."""

Counts = Mapping[str, Mapping[str, Any]]
"""{audience: {members, by_namespace}} of one bucket."""


# ---------------------------------------------------------------- what others publish_change


async def batch_landed(
    session: AsyncSession, scope: Scope, dataset_id: str, batch_id: str, version: int, now: datetime
) -> None:
    """Queues the batch, in the transaction in which it lands, if the sandbox has definitions that are streamed."""
    if await has_live_definitions(session, scope):
        await queue_batch(session, scope.tenant, dataset_id, batch_id, version, now)


async def batch_withdrawn(
    session: AsyncSession, scope: Scope, dataset_id: str, batch_id: str, version: int, now: datetime
) -> None:
    """Queues a batch that has been taken out once more: its people are evaluated without it."""
    await forget_batch(session, scope.tenant, batch_id)
    await batch_landed(session, scope, dataset_id, batch_id, version, now)


async def heads_change(session: AsyncSession, scope: Scope, pins: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """To be called by whoever gives audiences a new head, before that and in the same transaction.

    The new head replaces what was streamed onto the old one. Batches that came after the snapshots with these `pins`
    (`Snapshot.pinned`) are not in it, so their people are evaluated once more.
    """

    def seen(dataset_id: str, version: int) -> bool:
        return all(pin["graph"] is None and pin["datasets"].get(dataset_id, -1) >= version for pin in pins)

    await lock_turn(session, scope.tenant)
    await requeue_batches(session, scope.tenant, seen)
    if await has_live_definitions(session, scope):
        await all_evaluated(session, scope.tenant, now)


# ---------------------------------------------------------------- a turn


async def run_turn(
    database: Database, lake: Lake, clock: Clock, turn: Turn, threads: int, stopping: Callable[[], bool]
) -> int:
    """Evaluates the streamed definitions for the people of all waiting batches, and returns how many batches that were.

    All changes appear at once, in the transaction that ends the turn. Raises `LeaseLost`, and `Cancelled` soon after
    `stopping` says so.
    """
    while True:
        work = await _prepare(database, lake, clock, turn, threads, stopping)
        if work.stages:
            await _evaluate(database, lake, turn, work, threads, stopping)
        if await _publish(database, clock, turn, work):
            return len(work.batches)
        log.info("a job of %s ended during turn %d; restarting the turn from its result", turn.tenant, turn.number)


async def _prepare(
    database: Database, lake: Lake, clock: Clock, turn: Turn, threads: int, stopping: Callable[[], bool]
) -> Work:
    scope = Scope(turn.tenant.organisation, turn.tenant.sandbox, user="streaming")
    async with database.session() as session:
        batches = await waiting_batches(session, turn.tenant)
        definitions = await live_definitions(session, scope)
        policies = await get_policies(session, scope, {definition.merge_policy_id for definition in definitions})
        datasets = await data_sources(session, scope)
        heads = await read_heads(session, scope, now=clock())
        segments = await read_segments(session, scope)
        zone = await read_time_zone(session, scope, lake)
        swept_at = await last_sweep(session, turn.tenant)
    # What has persons stored, of a policy that puts fragments apart by now, waits for a job.
    definitions = [definition for definition in definitions if definition.id not in heads.graphs]
    tenant = lake.tenant(turn.tenant)
    rules: dict[str, MergeRule] = {id_: rule_of(policy) for id_, policy in policies.items()}

    def told(built: int, to_build: int, _buckets: int) -> None:
        if 0 < built < to_build and stopping():
            raise Cancelled

    def opened() -> dict[str, Snapshot]:
        # A person of several fragments is followed by jobs alone.
        fragments = {id_: rule for id_, rule in rules.items() if rule.identity_graph == "NONE"}
        return {id_: open_snapshot(tenant, rule, datasets, told, threads) for id_, rule in fragments.items()}

    snapshots = await asyncio.to_thread(opened)
    stored = heads.audiences | segments.external
    ordered = await asyncio.to_thread(live_stages, definitions, snapshots, stored, segments.aliases)
    people = await asyncio.to_thread(touched, tenant, [(batch.dataset_id, batch.batch_id) for batch in batches])
    work = Work(scope, batches, clock().astimezone(zone), heads, segments.entries, ordered, snapshots, people)
    if any(stage.by_clock for stage in ordered):
        work.sweep(turn.sweep_after, swept_at)
    return work


async def _evaluate(
    database: Database, lake: Lake, turn: Turn, work: Work, threads: int, stopping: Callable[[], bool]
) -> None:
    """Some buckets at a time, so that the counts of no more than those are in memory, and the people of fewer."""
    files = MembershipFiles(lake.tenant(turn.tenant))
    referred = {id_ for stage in work.stages for id_ in stage.plan.references if id_ in work.heads.graphs}
    persons = await asyncio.to_thread(work.heads.people, files, referred, None)
    buckets = work.buckets
    for start in range(0, len(buckets), _BUCKETS_COUNTED):
        chunk = buckets[start : start + _BUCKETS_COUNTED]
        async with database.session() as session:
            counted = await _counted(session, work, chunk)
        await asyncio.to_thread(_evaluate_buckets, files, turn, work, persons, counted, threads, stopping)


@dataclass(frozen=True, slots=True)
class _After:
    memberships: Mapping[str, Membership]
    counts: Mapping[str, BucketCounts]


def _evaluate_buckets(
    files: MembershipFiles,
    turn: Turn,
    work: Work,
    persons: MembershipSource,
    counted: Mapping[int, Counts],
    threads: int,
    stopping: Callable[[], bool],
) -> None:
    """Evaluates and keeps some buckets; a definition that fails stays as it was. `persons` are the memberships of
    persons that definitions refer to, told for their fragments."""
    asked = work.evaluated.union(*(stage.plan.references for stage in work.stages))
    before: dict[int, dict[str, Membership]] = {}

    def previous(bucket: int) -> Mapping[str, Membership]:
        if bucket not in before:
            heads = work.heads.many(files, bucket, asked | work.heads.patched(bucket))
            before[bucket] = {**heads, **persons.read(bucket)}
        return before[bucket]

    def finished(result: BucketResult) -> None:
        for id_, error in result.errors.items():
            log.warning("definition %s was not streamed in bucket %d: %s", id_, result.bucket, error.message)
        earlier = before.pop(result.bucket)
        memberships = work.settled(result.bucket, earlier, result.memberships)
        _keep(files, turn, work, result.bucket, earlier, _After(memberships, result.counts), counted[result.bucket])

    stages = [
        Stage(
            stage.plan,
            work.snapshots[stage.merge_policy_id],
            lambda audience, bucket: previous(bucket).get(audience),
            previous,
            work.heads.standing(files, stage.plan, work.entries, None),
            partial(work.known, stage),
        )
        for stage in work.stages
    ]
    versions = {id_: version for stage in work.stages for id_, version in stage.versions.items()}
    evaluator = BucketEvaluator(stages, work.evaluated_at, versions, work.only, files.lake.lake.budget)
    run(evaluator, counted, finished=finished, cancelled=stopping, threads=threads)


def _keep(
    files: MembershipFiles,
    turn: Turn,
    work: Work,
    bucket: int,
    before: Mapping[str, Membership],
    after: _After,
    counted: Counts,
) -> None:
    """Writes what changed in a bucket, with what was patched before, and adds up the counts."""
    counts: dict[str, StoredValues] = {
        id_: {"members": numbers.members, "by_namespace": dict(numbers.by_namespace)}
        for id_, numbers in after.counts.items()
    }
    nobody: StoredValues = {"members": 0, "by_namespace": {}}
    differs = {id_ for id_ in counts if counts[id_] != counted.get(id_, nobody)}
    changed = {id_ for id_, membership in after.memberships.items() if _differs(before.get(id_), membership)}
    if not changed | differs:
        return
    for id_ in differs:
        work.count(id_, counted.get(id_, nobody), counts[id_])
    for id_ in changed:
        work.move(id_, before.get(id_), after.memberships[id_])
    work.changed |= changed | differs
    # There is one patch of a bucket: what an earlier one holds goes on in this one.
    in_file = {*changed, *differs, *work.heads.patched(bucket)}
    memberships = {**before, **after.memberships}
    file = files.write(
        patch_run(turn.number), bucket, turn.number, [memberships[id_] for id_ in sorted(in_file) if id_ in memberships]
    )
    work.patches.append(
        {
            "bucket": bucket,
            "turn": turn.number,
            "file": file,
            "bases": {id_: work.heads.runs.get(id_, NO_RUN) for id_ in sorted(in_file)},
            "counts": {id_: {**counted, **counts}.get(id_, nobody) for id_ in sorted(in_file)},
            "at": work.evaluated_at.astimezone(UTC),
        }
    )


def _differs(before: Membership | None, after: Membership) -> bool:
    if before is None:
        return bool(after.members or after.exited)
    old, new = (
        (membership.members, membership.entered, membership.exited, membership.qualified)
        for membership in (before, after)
    )
    return old != new


# ---------------------------------------------------------------- its end


async def _publish(database: Database, clock: Clock, turn: Turn, work: Work) -> bool:
    """Ends the turn with all that it changed; false when the heads that it worked on are the heads no more."""
    tenant = work.scope.tenant
    async with database.write() as session:
        await turn.held.fence(session, clock())
        heads = await head_runs(session, work.scope)
        if any(heads.get(id_) != work.heads.runs.get(id_) for id_ in work.evaluated):
            return False
        keep = await job_runs(session, tenant)
        if work.patches:
            key = {"organisation": tenant.organisation, "sandbox": tenant.sandbox}
            buckets = [patch["bucket"] for patch in work.patches]
            older = within(update(_PATCHES), MembershipPatchRow, tenant)
            await session.execute(older.where(_PATCHES.c.bucket.in_(buckets)).values(newest=False))
            await session.execute(insert(_PATCHES), [{**key, **patch, "newest": True} for patch in work.patches])
        await _write_counts(session, work)
        if work.patches:
            await note_changes(session, work.scope, work.evaluated_at, work.moved, turn=turn.number)
        await settle_batches(session, tenant, work.batches, keep)
        await end_turn(session, turn, work.swept_after)
        await publish_change(session, work.scope, *work.changed)
    return True


async def _write_counts(session: AsyncSession, work: Work) -> None:
    fields = (_AUDIENCES.id, _AUDIENCES.total_profiles, _AUDIENCES.by_namespace)
    statement = within(select(*fields), AudienceRow, work.scope.tenant).where(_AUDIENCES.id.in_(sorted(work.changed)))
    changes: list[StoredValues] = []
    for row in await session.execute(statement.order_by(_AUDIENCES.id)):
        namespaces = Counter(row.by_namespace)
        namespaces.update(work.by_namespace.get(row.id, Counter()))
        changes.append(
            {
                "audience": row.id,
                "total_profiles": (row.total_profiles or 0) + work.members[row.id],
                "by_namespace": {name: count for name, count in namespaces.items() if count},
                "metrics_updated_at": work.evaluated_at.astimezone(UTC),
            }
        )
    if changes:
        named = ("total_profiles", "by_namespace", "metrics_updated_at")
        one = within(update(table(AudienceRow)), AudienceRow, work.scope.tenant)
        one = one.where(_AUDIENCES.id == bindparam("audience")).values({name: bindparam(name) for name in named})
        await session.execute(one, changes)


async def _counted(session: AsyncSession, work: Work, buckets: Sequence[int]) -> dict[int, StoredValues]:
    """What the audiences' numbers hold of these buckets: the counts of the patches, else those of the heads."""
    counts_of: dict[int, StoredValues] = {bucket: {} for bucket in buckets}
    of_run: dict[str, set[str]] = {}
    for id_ in work.evaluated:
        of_run.setdefault(work.heads.runs.get(id_, NO_RUN), set()).add(id_)
    runs = within(select(_BUCKETS.job_id, _BUCKETS.bucket, _BUCKETS.counts), JobBucketRow, work.scope.tenant)
    mine = _BUCKETS.job_id.in_(sorted(of_run)), _BUCKETS.bucket.in_(buckets)
    for row in await session.execute(runs.where(*mine)):
        for id_, counts in row.counts["counts"].items():
            if id_ in of_run[row.job_id]:
                counts_of[row.bucket][id_] = {name: counts[name] for name in ("members", "by_namespace")}
    patches = within(
        select(_PATCHES.c.bucket, _PATCHES.c.turn, _PATCHES.c.counts), MembershipPatchRow, work.scope.tenant
    )
    for row in await session.execute(patches.where(_PATCHES.c.newest, _PATCHES.c.bucket.in_(buckets))):
        if (patch := work.heads.patches.get(row.bucket)) is not None and patch.turn == row.turn:
            patched = work.heads.patched(row.bucket)
            counts_of[row.bucket] |= {id_: counts for id_, counts in row.counts.items() if id_ in patched}
    return counts_of
