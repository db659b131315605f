"""Members of external audiences, written for an upload in the same way as by a job's run; the audiences' rows are
updated at once."""

import asyncio
import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.ingest.batch_people import Touched, touched
from app.engine.members.membership import MembershipFiles, differences
from app.engine.members.uploaded import Consent, Upload
from app.engine.people.profiles import MergeRule, Snapshot, open_snapshot
from app.engine.store.lake import Lake, TenantLake
from app.scope import Scope
from app.services.audiences.reads import expired, publish_change
from app.services.evaluation.expressions import data_sources
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.membership_log import Moved, note_changes
from app.services.evaluation.pins import HeadPins
from app.services.lists.rows import as_row, get_rows, select_rows
from app.services.merge_policies import DEFAULT_POLICY_ID, default_policy, rule_of
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.queue.turns import lock_turn
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, BatchStatus, DatasetRow
from app.storage.tables.jobs import JobBucketRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_BATCHES = columns(BatchRow)


@dataclass(frozen=True, slots=True)
class Joining:
    """An audience that people join. `head` is the run with its current members, None if there is none."""

    id: str
    head: str | None
    exclude_opt_out: bool
    ttl_in_days: int

    @classmethod
    def of(cls, row: AudienceRow, at: datetime) -> "Joining":
        head = None if expired(row, at) else row.membership_run_id
        return cls(row.id, head, row.exclude_opt_out, row.ttl_in_days or 0)


@dataclass(frozen=True, slots=True)
class Written:
    """The files of a run, invisible until `publish`: `buckets` are their rows, `counts` the counts by audience."""

    run_id: str
    at: datetime
    audiences: tuple[Joining, ...]
    buckets: Sequence[Mapping[str, Any]]
    counts: Mapping[str, tuple[int, Mapping[str, int]]]
    joined: bool = True
    """Whether people joined, which resets the members' expiry; otherwise people left."""
    moved: Mapping[str, Moved] = field(default_factory=dict)
    """How many profiles entered and exited, by audience."""


async def joining(session: AsyncSession, scope: Scope, dataset_id: str, at: datetime) -> tuple[Joining, ...]:
    """The audiences whose members are the people of the dataset."""
    statement = select_rows(AudienceRow, scope).where(_AUDIENCES.dataset_id == dataset_id).order_by(_AUDIENCES.id)
    return tuple(Joining.of(as_row(AudienceRow, row), at) for row in await session.execute(statement))


async def still_holds(session: AsyncSession, scope: Scope, dataset_id: str, written: Written) -> bool:
    """Whether the dataset's audiences are unchanged since their members were written."""
    return await joining(session, scope, dataset_id, written.at) == written.audiences


async def landed_batches(session: AsyncSession, scope: Scope, dataset_id: str) -> list[str]:
    statement = within(select(_BATCHES.id), BatchRow, scope.tenant)
    landed = statement.where(_BATCHES.dataset_id == dataset_id, _BATCHES.status == BatchStatus.ACTIVE)
    return list(await session.scalars(landed.order_by(_BATCHES.id)))


async def payload_sources(
    session: AsyncSession, scope: Scope, audience_ids: Iterable[str]
) -> dict[str, tuple[DatasetRow, list[str]]]:
    """The dataset of each external audience, with its active batches."""
    statement = within(select(_AUDIENCES.id, _AUDIENCES.dataset_id), AudienceRow, scope.tenant)
    external = statement.where(_AUDIENCES.id.in_(sorted(audience_ids)), _AUDIENCES.dataset_id.is_not(None))
    of_audience = {row.id: row.dataset_id for row in await session.execute(external)}
    if not of_audience:
        return {}
    datasets = await get_rows(session, DatasetRow, scope, set(of_audience.values()))
    batches = {id_: await landed_batches(session, scope, id_) for id_ in datasets}
    return {audience: (datasets[id_], batches[id_]) for audience, id_ in of_audience.items()}


@dataclass(frozen=True, slots=True)
class Arrival:
    """People of some batches who join the dataset's audiences. Unless `joined`, only they remain among the members."""

    dataset_id: str
    batches: Sequence[str]
    joined: bool = True


async def write(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    run_id: str,
    arrival: Arrival,
    audiences: tuple[Joining, ...] | None = None,
) -> Written:
    """Writes the memberships of the audiences (by default those of the dataset) after the arrival."""
    dataset_id, joined = arrival.dataset_id, arrival.joined
    at = clock()
    async with database.session() as session:
        joining_audiences = await joining(session, scope, dataset_id, at) if audiences is None else audiences
        heads = await read_heads(
            session,
            scope,
            HeadPins(
                {audience.id: audience.head for audience in joining_audiences if audience.head is not None}, 0, {}
            ),
        )
        policy = await default_policy(session, scope)
        sources = await data_sources(session, scope)
    if not joining_audiences:
        return Written(run_id, at, (), (), {}, joined)
    rule = MergeRule(DEFAULT_POLICY_ID, "TIMESTAMP_ORDERED", ()) if policy is None else rule_of(policy)
    tenant = lake.tenant(scope.tenant)

    def work() -> Written:
        people = touched(tenant, [(dataset_id, batch) for batch in arrival.batches])
        snapshot = open_snapshot(tenant, rule, sources)
        return _write(tenant, scope, Written(run_id, at, joining_audiences, (), {}, joined), people, heads, snapshot)

    return await asyncio.to_thread(work)


async def write_all(
    database: Database, lake: Lake, clock: Clock, scope: Scope, dataset_id: str, audience: Joining
) -> tuple[list[str], Written | None]:
    """Writes the memberships of an audience that all people of a dataset join. Returns the batches and what was
    written; None instead of the latter if there are no batches."""
    async with database.session() as session:
        batches = await landed_batches(session, scope, dataset_id)
    if not batches:
        return batches, None
    return batches, await write(
        database, lake, clock, scope, new_id(clock()), Arrival(dataset_id, batches), (audience,)
    )


def _write(lake: TenantLake, scope: Scope, run: Written, people: Touched, heads: Heads, snapshot: Snapshot) -> Written:
    files = MembershipFiles(lake)
    # Each writer of a run uses unique file names, so late writes of a frozen writer are never read.
    attempt = secrets.randbits(31)
    audiences = {audience.id: audience.exclude_opt_out for audience in run.audiences}
    upload = Upload(audiences, snapshot, Consent(snapshot, run.at), run.at, run.joined)
    totals: Counter[str] = Counter()
    namespaces: dict[str, Counter[str]] = {id_: Counter() for id_ in audiences}
    changes: dict[str, Counter[str]] = {id_: Counter() for id_ in audiences}
    rows = []
    for bucket in sorted({*people.buckets, *(bucket for names in heads.names.values() for bucket in names)}):
        before = heads.many(files, bucket)
        members = upload.members(bucket, people.people(bucket), before)
        name = files.write(run.run_id, bucket, attempt, [membership for membership, _ in members.values()])
        for id_, (_, counts) in members.items():
            totals[id_] += counts.members
            namespaces[id_].update(counts.by_namespace)
        for id_, (membership, _) in members.items():
            entered, exited = differences(before.get(id_), membership)
            changes[id_].update(entered=len(entered), exited=len(exited))
        rows.append(
            {
                "organisation": scope.organisation,
                "sandbox": scope.sandbox,
                "job_id": run.run_id,
                "bucket": bucket,
                "attempt": attempt,
                "file": name,
                "profiles": snapshot.profiles_in(bucket),
                "counts": {},
                "at": run.at,
            }
        )
    counted = {id_: (totals[id_], dict(namespaces[id_])) for id_ in audiences}
    moved = {id_: Moved(change["entered"], change["exited"]) for id_, change in changes.items()}
    return Written(run.run_id, run.at, run.audiences, rows, counted, run.joined, moved)


async def _empty_expired(session: AsyncSession, scope: Scope, written: Written) -> None:
    """Removes expired members before new ones join, even if the audience's row has not been updated yet."""
    ids = [audience.id for audience in written.audiences if audience.head is None]
    mine = (_AUDIENCES.id.in_(ids), _AUDIENCES.membership_run_id.is_not(None))
    expired_rows = within(select(_AUDIENCES.id, _AUDIENCES.total_profiles), AudienceRow, scope.tenant).where(*mine)
    gone = {row.id: Moved(0, row.total_profiles or 0) for row in await session.execute(expired_rows)}
    if gone:
        change = within(update(AudienceRow), AudienceRow, scope.tenant).where(*mine)
        await session.execute(change.values(membership_run_id=None, total_profiles=0))
        await note_changes(session, scope, written.at, gone)


async def publish(session: AsyncSession, scope: Scope, written: Written) -> None:
    """Publishes the written members in the caller's transaction. If people joined, all members expire `ttl_in_days`
    from now; otherwise their expiry stays."""
    await lock_turn(session, scope.tenant)
    await _empty_expired(session, scope, written)
    if written.buckets:
        await session.execute(insert(JobBucketRow), list(written.buckets))
    for audience in written.audiences:
        total, by_namespace = written.counts[audience.id]
        change = within(update(AudienceRow), AudienceRow, scope.tenant).where(_AUDIENCES.id == audience.id)
        if written.joined:
            change = change.values(expires_at=written.at + timedelta(days=audience.ttl_in_days))
        await session.execute(
            change.values(
                membership_run_id=written.run_id,
                total_profiles=total,
                by_namespace=by_namespace,
                metrics_updated_at=written.at,
                metrics_job_id=None,
            )
        )
    await note_changes(session, scope, written.at, written.moved)
    await publish_change(session, scope, *(audience.id for audience in written.audiences))
