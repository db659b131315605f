"""A worker's streaming turn in a sandbox: evaluates the people of new batches and writes patches and counts."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.ingest.batch_people import touched
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import MembershipFiles
from app.engine.people.profiles import MergeRule, open_snapshot, people_graph
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.audiences.reads import publish_change
from app.services.evaluation.expressions import data_sources, read_segments
from app.services.evaluation.heads import head_runs, read_heads
from app.services.evaluation.membership_log import note_changes
from app.services.evaluation.sandboxes import read_time_zone
from app.services.merge_policies import get_many as get_policies
from app.services.merge_policies import rule_of
from app.services.streaming.definitions import has_live_definitions, live_definitions, live_passes
from app.services.streaming.evaluation import evaluate
from app.services.streaming.passes import are_crossing, plan_passes
from app.services.streaming.work import Work, next_buckets
from app.storage.columns import StoredValues, columns, table
from app.storage.database import Database
from app.storage.queue.turns import (
    Swept,
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
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

_AUDIENCES = columns(AudienceRow)
_PATCHES = table(MembershipPatchRow)


# ---------------------------------------------------------------- called when data or heads change


async def batch_landed(
    session: AsyncSession, scope: Scope, dataset_id: str, batch_id: str, version: int, now: datetime
) -> None:
    """Queues the batch, in the transaction that commits it, if the sandbox has streamed definitions."""
    if await has_live_definitions(session, scope):
        await queue_batch(session, scope.tenant, dataset_id, batch_id, version, now)


async def batch_withdrawn(
    session: AsyncSession, scope: Scope, dataset_id: str, batch_id: str, version: int, now: datetime
) -> None:
    """Queues a deleted batch again: its people are evaluated without it."""
    await forget_batch(session, scope.tenant, batch_id)
    await batch_landed(session, scope, dataset_id, batch_id, version, now)


async def heads_change(session: AsyncSession, scope: Scope, pins: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Call before giving audiences a new head, in the same transaction.

    The new head replaces the patches on the old one. It does not include batches that arrived after the snapshots with
    these `pins` (`Snapshot.pinned`), so their people are queued for another evaluation.
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
    """Evaluates the streamed definitions for the people of all waiting batches. Returns the number of batches.

    All changes become visible at once, in the transaction that ends the turn. Raises `LeaseLost`, and `Cancelled` soon
    after `stopping` returns true.
    """
    while True:
        work = await _prepare(database, lake, clock, turn, threads, stopping)
        await evaluate(database, MembershipFiles(lake.tenant(turn.tenant)), turn.number, work, threads, stopping)
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
    tenant = lake.tenant(turn.tenant)
    rules: dict[str, MergeRule] = {id_: rule_of(policy) for id_, policy in policies.items()}

    def told(built: int, to_build: int, _buckets: int) -> None:
        if 0 < built < to_build and stopping():
            raise Cancelled

    def planned() -> Work:
        linking = any(rule.identity_graph == "PDG" for rule in rules.values())
        graph = people_graph(tenant, datasets) if linking else None
        snapshots = {id_: open_snapshot(tenant, rule, datasets, told, threads, graph) for id_, rule in rules.items()}
        stages = live_passes(definitions, snapshots, heads.audiences | segments.external, segments.aliases)
        people = touched(tenant, [(batch.dataset_id, batch.batch_id) for batch in batches])
        now = clock().astimezone(zone)
        swept, after = frozenset[int](), Swept(None)
        if any(stage.by_clock for part in stages for stage in part):
            # A person's fragments may be in any bucket, so definitions that cross are swept at once.
            crossing = are_crossing(stages)
            swept, after = next_buckets(snapshots.values(), now, turn.sweep_after, swept_at, crossing)
        passes = plan_passes(tenant, heads, stages, graph, people, swept)
        return Work(scope, batches, now, heads, segments.entries, passes, snapshots, after)

    return await asyncio.to_thread(planned)


# ---------------------------------------------------------------- its end


async def _publish(database: Database, clock: Clock, turn: Turn, work: Work) -> bool:
    """Ends the turn and publishes its changes; returns false if the heads have changed since it started."""
    tenant = work.scope.tenant
    async with database.write() as session:
        await turn.held.fence(session, clock())
        heads = await head_runs(session, work.scope)
        if any(heads.get(id_) != work.heads.runs.get(id_) for id_ in work.evaluated):
            return False
        keep = await job_runs(session, tenant)
        if work.patches:
            key = {"organisation": tenant.organisation, "sandbox": tenant.sandbox}
            older = within(update(_PATCHES), MembershipPatchRow, tenant)
            await session.execute(older.where(_PATCHES.c.bucket.in_(sorted(work.patches))).values(newest=False))
            await session.execute(
                insert(_PATCHES), [{**key, **patch, "newest": True} for patch in work.patches.values()]
            )
        await _write_heads(session, work)
        if work.patches:
            await note_changes(session, work.scope, work.evaluated_at, work.moved, turn=turn.number)
        await settle_batches(session, tenant, work.batches, keep)
        await end_turn(session, turn, work.swept_after)
        await publish_change(session, work.scope, *work.changed)
    return True


async def _write_heads(session: AsyncSession, work: Work) -> None:
    """Updates the counts, and the versions of the identity graph that members refer to."""
    graphs = work.graphs
    for graph in set(graphs.values()):
        ids = sorted(id_ for id_ in graphs if graphs[id_] == graph)
        moved = within(update(table(AudienceRow)), AudienceRow, work.scope.tenant).where(_AUDIENCES.id.in_(ids))
        await session.execute(moved.values(membership_graph=graph))
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
        counts = within(update(table(AudienceRow)), AudienceRow, work.scope.tenant)
        counts = counts.where(_AUDIENCES.id == bindparam("audience")).values({name: bindparam(name) for name in named})
        await session.execute(counts, changes)
