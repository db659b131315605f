"""Shares: buckets of a running job that any worker may evaluate; knows nothing of the evaluation.

The worker that holds the job publishes the shares, and claims some like the others. Each claim of a bucket increments
its `claims`, which is the fencing token: a bucket is recorded once, even if several workers have evaluated it. Nothing
is recorded after the job has ended or another attempt has started: that attempt withdraws the shares first, and then
reads the results. Locks are always taken in the same order: the job, then its shares.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, insert, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.metrics import LEASES_TAKEN_OVER
from app.scope import Tenant
from app.storage.columns import StoredValues, columns, table
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.queue.leases import LONGEST, NOT_HELD, LeaseLost, is_free
from app.storage.tables.jobs import RUNNING, JobBucketRow, JobKind, JobShareRow, JobStatus
from app.storage.tenancy import same_tenant, within
from app.storage.topics import QUEUE, publish

UNTIL_THE_END = LONGEST / 2
"""Lease of the job's holder on its own shares: longer than a job runs, so that it needs no renewal."""

_SHARES = columns(JobShareRow)
_JOBS = columns(KINDS[JobKind.SEGMENT])


class ShareLost(Exception):
    """Another worker has taken over the bucket, or has already recorded it."""


@dataclass(frozen=True, slots=True)
class SharedWork:
    """A pass of a job that many workers evaluate. `part` is the number of the pass; `name` names the folder with its
    specification."""

    tenant: Tenant
    job_id: str
    attempt: int
    name: str
    part: int

    @property
    def mine(self) -> ColumnElement[bool]:
        return (_SHARES.job_id == self.job_id) & (_SHARES.work == self.name)

    def running(self) -> ColumnElement[bool]:
        return (_JOBS.id == self.job_id) & (_JOBS.attempts == self.attempt) & _JOBS.status.in_(RUNNING)


@dataclass(frozen=True, slots=True)
class Share:
    """A claimed bucket; `token` is the fencing token."""

    bucket: int
    token: int


async def publish_shares(session: AsyncSession, work: SharedWork, buckets: Collection[int]) -> None:
    """Lets any worker claim these buckets, and withdraws earlier shares. Call it in a fenced transaction."""
    await withdraw_shares(session, work.tenant, work.job_id)
    key = {"organisation": work.tenant.organisation, "sandbox": work.tenant.sandbox, "job_id": work.job_id}
    about = {"work": work.name, "part": work.part, "attempt": work.attempt, "claims": 0}
    await session.execute(insert(table(JobShareRow)), [{**key, **about, "bucket": bucket} for bucket in buckets])
    await publish(session, QUEUE)


async def withdraw_shares(session: AsyncSession, tenant: Tenant, job_id: str) -> list[tuple[int, int, StoredValues]]:
    """Deletes all shares of a job. Returns part, bucket and result of the finished ones."""
    mine = within(select(_SHARES.bucket), JobShareRow, tenant).where(_SHARES.job_id == job_id)
    await session.execute(mine.order_by(_SHARES.bucket).with_for_update())
    gone = within(delete(table(JobShareRow)), JobShareRow, tenant).where(_SHARES.job_id == job_id)
    rows = await session.execute(gone.returning(_SHARES.part, _SHARES.bucket, _SHARES.result))
    return [(part, bucket, result) for part, bucket, result in rows if result is not None]


async def find_shared(session: AsyncSession, now: datetime, but: Collection[str]) -> SharedWork | None:
    """Work with free buckets, of the job that has run longest, of any tenant; None if there is none. Work with a name
    in `but` is left out."""
    work = (_SHARES.organisation, _SHARES.sandbox, _SHARES.job_id, _SHARES.attempt, _SHARES.work, _SHARES.part)
    job = same_tenant(_JOBS, _SHARES) & (_JOBS.id == _SHARES.job_id) & (_JOBS.attempts == _SHARES.attempt)
    waiting = select(*work).join_from(table(JobShareRow), _JOBS.id.table, job)
    waiting = waiting.where(_JOBS.status == JobStatus.PROCESSING, _SHARES.result.is_(None), is_free(_SHARES, now))
    waiting = waiting.where(_SHARES.work.not_in(list(but))).order_by(_JOBS.started_at, _JOBS.id).limit(1)
    row = (await session.execute(waiting)).first()
    if row is None:
        return None
    return SharedWork(Tenant(row.organisation, row.sandbox), row.job_id, row.attempt, row.work, row.part)


async def claim_shares(
    database: Database, clock: Clock, work: SharedWork, owner: str, lease: timedelta, most: int, *, held: bool = False
) -> list[Share]:
    """Claims up to `most` unfinished buckets that are free, or with `held` also those that another worker holds."""
    async with database.write() as session:
        now = clock()
        free = true() if held else is_free(_SHARES, now)
        open_ones = within(select(_SHARES.bucket, _SHARES.lease_until), JobShareRow, work.tenant)
        open_ones = open_ones.where(work.mine, _SHARES.result.is_(None), free).order_by(_SHARES.bucket).limit(most)
        free_rows = list(await session.execute(open_ones.with_for_update(skip_locked=True)))
        if not free_rows:
            return []
        claim = within(update(table(JobShareRow)), JobShareRow, work.tenant)
        claim = claim.where(work.mine, _SHARES.bucket.in_([row.bucket for row in free_rows]))
        values = {"claims": _SHARES.claims + 1, "lease_owner": owner, "lease_until": now + lease}
        rows = await session.execute(claim.values(**values).returning(_SHARES.bucket, _SHARES.claims))
        shares = sorted((Share(bucket, claims) for bucket, claims in rows), key=lambda share: share.bucket)
    if lost := sum(row.lease_until is not None for row in free_rows):
        LEASES_TAKEN_OVER.labels("share").inc(lost)
    return shares


async def settle_share(session: AsyncSession, work: SharedWork, share: Share, result: Mapping[str, object]) -> None:
    """Records a claimed bucket as finished. Call it in a fenced transaction. Raises `ShareLost`."""
    claimed = within(update(table(JobShareRow)), JobShareRow, work.tenant)
    claimed = claimed.where(
        work.mine, _SHARES.bucket == share.bucket, _SHARES.claims == share.token, _SHARES.result.is_(None)
    )
    settled = await session.execute(claimed.values(result=dict(result), **NOT_HELD).returning(_SHARES.bucket))
    if settled.first() is None:
        raise ShareLost(f"bucket {share.bucket} of job {work.job_id} was taken over")


async def record_share(
    database: Database,
    now: datetime,
    work: SharedWork,
    share: Share,
    result: Mapping[str, object],
    row: StoredValues | None,
) -> None:
    """Records a bucket that a helper has finished, and its `row` among the job's buckets, if any.

    Raises `LeaseLost` if the job has ended or another attempt has started, and `ShareLost`.
    """
    async with database.write() as session:
        running = within(select(_JOBS.id), KINDS[JobKind.SEGMENT], work.tenant).where(work.running())
        # A worker that takes over the job waits for this transaction, and then sees the bucket as finished.
        if (await session.execute(running.with_for_update(read=True))).first() is None:
            raise LeaseLost(f"attempt {work.attempt} at job {work.job_id} has ended")
        await settle_share(session, work, share, result)
        if row is not None:
            await session.execute(insert(table(JobBucketRow)).values(**row, at=now))


async def keep_shares(database: Database, now: datetime, work: SharedWork, owner: str, lease: timedelta) -> None:
    """Renews a helper's leases on its shares."""
    await _change_held(database, work, owner, lease_until=now + lease)


async def release_shares(database: Database, work: SharedWork, owner: str) -> None:
    """Releases a helper's unfinished shares, so that any worker can claim them."""
    await _change_held(database, work, owner, **NOT_HELD)


async def _change_held(database: Database, work: SharedWork, owner: str, **values: object) -> None:
    async with database.write() as session:
        held = within(select(_SHARES.bucket), JobShareRow, work.tenant).where(work.mine, _SHARES.lease_owner == owner)
        # Always in the same order, so that two workers that lock several rows cannot deadlock.
        buckets = list(await session.scalars(held.order_by(_SHARES.bucket).with_for_update()))
        if buckets:
            change = within(update(table(JobShareRow)), JobShareRow, work.tenant)
            await session.execute(change.where(work.mine, _SHARES.bucket.in_(buckets)).values(**values))


async def is_wanted(database: Database, work: SharedWork) -> bool:
    """Whether the attempt still holds its job, and no cancellation has been requested."""
    async with database.session() as session:
        running = within(select(_JOBS.id), KINDS[JobKind.SEGMENT], work.tenant).where(work.running())
        return (await session.execute(running.where(_JOBS.status == JobStatus.PROCESSING))).first() is not None


async def done_shares(session: AsyncSession, work: SharedWork) -> set[int]:
    """The finished buckets."""
    finished = within(select(_SHARES.bucket), JobShareRow, work.tenant).where(work.mine, _SHARES.result.is_not(None))
    return set(await session.scalars(finished))


async def results_of_shares(session: AsyncSession, work: SharedWork, buckets: Sequence[int]) -> dict[int, Any]:
    rows = within(select(_SHARES.bucket, _SHARES.result), JobShareRow, work.tenant)
    rows = rows.where(work.mine, _SHARES.bucket.in_(buckets))
    return {row.bucket: row.result for row in await session.execute(rows)}


async def forget_shares(session: AsyncSession, tenant: Tenant) -> None:
    """Deletes the shares of jobs that are no longer running; normally the job's holder withdraws them."""
    live = exists().where(same_tenant(_JOBS, _SHARES), _JOBS.id == _SHARES.job_id, _JOBS.status.in_(RUNNING))
    await session.execute(within(delete(table(JobShareRow)), JobShareRow, tenant).where(~live))
