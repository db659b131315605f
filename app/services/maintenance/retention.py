"""Retention of data that is no longer needed: this module determines what the database still refers to, and the lake
deletes the rest."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, exists, func, select, tuple_, union, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.erasure.subject import forget_others
from app.engine.maintenance import vacuum as cleaning
from app.engine.maintenance.vacuum import Pins
from app.engine.store.lake import Lake, file_name
from app.scope import Tenant
from app.services.evaluation.heads import NO_RUN, patch_run
from app.storage.columns import TenantRow, columns, table
from app.storage.database import Database, is_unavailable
from app.storage.job_log import KINDS
from app.storage.queue.shares import forget_shares
from app.storage.queue.turns import lock_turn
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, BatchStatus, DatasetRow
from app.storage.tables.jobs import FINAL, RUNNING, WAITING, JobBucketRow, JobUpdateRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.tenancy import same_tenant, within

log = logging.getLogger(__name__)

_SETTLED = timedelta(hours=1)
"""Maximum delay between the note in the lake of the person to erase and the row of the erasure job."""
MOST_ROWS = 5_000
"""Rows deleted per transaction, which limits how long others wait."""

_UPDATES = columns(JobUpdateRow)
_BUCKETS = columns(JobBucketRow)
_AUDIENCES = columns(AudienceRow)
_BATCHES = columns(BatchRow)
_PATCHES = columns(MembershipPatchRow)
_CHANGES = columns(MembershipChangeRow)
_DATASETS = columns(DatasetRow)
_POLICIES = columns(MergePolicyRow)


@dataclass(frozen=True, slots=True)
class Keep:
    """Retention periods. `job_updates` counts from the time of a state, `previews` from their end, the others from when
    something was replaced or abandoned."""

    job_updates: timedelta
    memberships: timedelta
    versions: timedelta
    previews: timedelta = timedelta(days=7)


async def clean(database: Database, lake: Lake, clock: Clock, keep: Keep) -> None:
    """Deletes in every sandbox what is older than `keep` and no longer referenced."""
    async with database.session() as session:
        tenants = await all_tenants(session)
    for tenant in tenants:
        try:
            await _clean_tenant(database, lake, clock, tenant, keep)
        except Exception as error:
            if is_unavailable(error):
                raise
            # A problem in one sandbox must not prevent the others from being cleaned.
            log.exception("retention failed in %s/%s", tenant.organisation, tenant.sandbox)


async def _clean_tenant(database: Database, lake: Lake, clock: Clock, tenant: Tenant, keep: Keep) -> None:
    await _clean_updates(database, tenant, clock() - keep.job_updates)
    await forget_changes(database, tenant, clock() - keep.memberships)
    async with database.write(tenant) as session:
        await forget_shares(session, tenant)
    await _clean_runs(database, lake, clock, tenant, keep.memberships)
    async with database.session() as session:
        pins = await pinned(session, tenant)
        policies = set(await session.scalars(within(select(_POLICIES.id), MergePolicyRow, tenant)))
        datasets = set(await session.scalars(within(select(_DATASETS.id), DatasetRow, tenant)))
    await asyncio.to_thread(forget_others, lake.tenant(tenant), pins.jobs, clock() - _SETTLED)
    there = cleaning.There(policies, datasets)
    await asyncio.to_thread(cleaning.clean, lake.tenant(tenant), there, pins, keep.versions, clock())


async def all_tenants(session: AsyncSession) -> list[Tenant]:
    """Every sandbox with any data; this query deliberately spans tenants."""
    owners: list[type[TenantRow]] = [DatasetRow, MergePolicyRow, AudienceRow, *KINDS.values()]
    keys = (columns(row) for row in owners)
    statement = union(*(select(key.organisation, key.sandbox) for key in keys))
    return sorted(
        (Tenant(*row) for row in await session.execute(statement)),
        key=lambda tenant: (tenant.organisation, tenant.sandbox),
    )


async def pinned(session: AsyncSession, tenant: Tenant) -> Pins:
    """The data versions that unfinished jobs read and write."""
    pins = Pins()
    for row in KINDS.values():
        jobs = columns(row)
        live = within(select(jobs.id, jobs.snapshot), row, tenant).where(jobs.status.in_(WAITING | RUNNING))
        for id_, snapshot in await session.execute(live):
            pins.jobs.add(id_)
            pins.add(snapshot)
    return pins


async def referenced_runs(session: AsyncSession, tenant: Tenant) -> set[str]:
    """The runs whose memberships audiences show (including streamed ones), jobs read or write, or batches produce."""
    pins = await pinned(session, tenant)
    runs = pins.runs | pins.jobs
    heads = within(select(_AUDIENCES.membership_run_id), AudienceRow, tenant)
    runs.update(await session.scalars(heads.where(_AUDIENCES.membership_run_id.is_not(None))))
    logged = within(select(_CHANGES.run_id).distinct(), MembershipChangeRow, tenant)
    runs.update(run for run in await session.scalars(logged) if run != NO_RUN)
    turns = await session.scalars(within(select(_PATCHES.turn).distinct(), MembershipPatchRow, tenant))
    runs.update(patch_run(turn) for turn in turns)
    loading = within(select(_BATCHES.id), BatchRow, tenant).where(_BATCHES.status == BatchStatus.LOADING)
    runs.update(await session.scalars(loading))
    return runs


async def _clean_updates(database: Database, tenant: Tenant, before: datetime) -> None:
    """Deletes old states of ended jobs, but never the last one, which new subscribers receive."""
    ended = [_later_state(row) for row in KINDS.values()]
    key = (_UPDATES.organisation, _UPDATES.sandbox, _UPDATES.job_id, _UPDATES.sequence)
    for later in ended:
        old = within(select(*key), JobUpdateRow, tenant).where(_UPDATES.at < before, later).limit(MOST_ROWS)
        while True:
            async with database.write() as session:
                gone = await session.execute(delete(JobUpdateRow).where(tuple_(*key).in_(old)))
            if gone.rowcount < MOST_ROWS:  # type: ignore[attr-defined]
                break


def _later_state(row: Any) -> Any:
    """Whether the row is a state of a job of this kind that has ended in a later state."""
    job = columns(row)
    return exists().where(
        and_(
            same_tenant(job, _UPDATES),
            job.id == _UPDATES.job_id,
            job.status.in_(FINAL),
            job.sequence > _UPDATES.sequence,
        )
    )


async def forget_changes(database: Database, tenant: Tenant, before: datetime) -> None:
    """Deletes membership changes before an instant, except the newest of each audience, where its history then starts;
    and the patches of streaming turns that no remaining state needs."""
    async with database.write(tenant) as session:
        await lock_turn(session, tenant)
        newest = within(
            select(_CHANGES.audience_id, func.max(_CHANGES.sequence).label("sequence")), MembershipChangeRow, tenant
        )
        first = newest.where(_CHANGES.at < before).group_by(_CHANGES.audience_id).subquery("first")
        baselines = select(first.c.sequence)
        old = within(delete(MembershipChangeRow), MembershipChangeRow, tenant)
        await session.execute(old.where(_CHANGES.at < before, _CHANGES.sequence.not_in(baselines)))
        mark = within(update(MembershipChangeRow), MembershipChangeRow, tenant)
        await session.execute(mark.where(_CHANGES.at < before).values(baseline=True))
        await _forget_patches(session, tenant)


async def _forget_patches(session: AsyncSession, tenant: Tenant) -> None:
    """A patch that a later one has replaced is needed by the states and live jobs of the turns in between."""
    logged = within(select(func.min(_CHANGES.turn)), MembershipChangeRow, tenant)
    turns = [(await session.execute(logged)).scalar() or 0]
    for row in KINDS.values():
        of = columns(row)
        live = within(select(of.snapshot), row, tenant).where(of.status.in_(WAITING | RUNNING))
        turns += [snapshot.get("turn", 0) for snapshot in await session.scalars(live) if snapshot is not None]
    later = table(MembershipPatchRow).alias("later")
    replaced = exists().where(
        same_tenant(later.c, _PATCHES),
        later.c.bucket == _PATCHES.bucket,
        later.c.turn > _PATCHES.turn,
        later.c.turn <= min(turns),
    )
    await session.execute(within(delete(MembershipPatchRow), MembershipPatchRow, tenant).where(replaced))


async def _clean_runs(database: Database, lake: Lake, clock: Clock, tenant: Tenant, keep: timedelta) -> None:
    """Deletes the memberships of runs: first the references to the files, so that no reader looks for a deleted
    file."""
    async with database.session() as session:
        referenced = await referenced_runs(session, tenant)
    lapsed = await asyncio.to_thread(cleaning.lapsed_runs, lake.tenant(tenant), referenced, keep, clock())
    if not lapsed:
        return
    async with database.write(tenant) as session:
        referenced = await referenced_runs(session, tenant)
        run_ids = await session.scalars(within(select(_BUCKETS.job_id).distinct(), JobBucketRow, tenant))
        by_folder = {file_name(run): run for run in run_ids}
        gone = [folder for folder in lapsed if by_folder.get(folder.name) not in referenced]
        runs = [by_folder[folder.name] for folder in gone if folder.name in by_folder]
        for some in _parts(runs):
            rows = within(delete(JobBucketRow), JobBucketRow, tenant)
            await session.execute(rows.where(_BUCKETS.job_id.in_(some)))
    for folder in gone:
        await asyncio.to_thread(cleaning.remove, folder)


def _parts(values: list[str], size: int = 500) -> Iterable[list[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))
