"""The job queue, stored in the job tables themselves: which worker holds which job, and whose writes count.

One worker at a time holds a job (`leases`). Each claim increments `attempts`, which is the fencing token: every write
of a worker first checks, in the same transaction, that the token is still its own.

These functions query across tenants, since a worker serves all of them.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import ColumnElement, Table, and_, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.metrics import LEASES_TAKEN_OVER
from app.scope import Tenant
from app.storage.columns import Columns, StoredValues, columns, table
from app.storage.database import Database
from app.storage.job_log import KINDS, append_update
from app.storage.queue.leases import NOT_HELD, Due, Lease, LeaseLost, is_free, take_next
from app.storage.tables.jobs import RUNNING, WAITING, JobKind, JobPhase, JobStatus
from app.storage.tenancy import AnyRow, same_tenant, within

MOST_LOST_LEASES = 5
"""A job is abandoned after this many workers have died in a row without finishing a bucket."""

TransactionBody = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed job. `row` is the job's row as of the claim, `token` the fencing token."""

    kind: JobKind
    row: AnyRow
    token: int
    owner: str
    lease: timedelta

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.row.organisation, self.row.sandbox)

    @property
    def job_id(self) -> str:
        return str(self.row.id)

    @property
    def held(self) -> Lease:
        key = {"id": self.job_id, "attempts": self.token}
        return Lease(self.name, KINDS[self.kind], self.tenant, key, self.lease)

    @property
    def name(self) -> str:
        return f"attempt {self.token} at job {self.job_id}"


async def claim_next(
    database: Database,
    clock: Clock,
    *,
    owner: str,
    lease: timedelta,
    kind: JobKind,
    most_of_tenant: int | None = None,
) -> Claim | None:
    """Claims the next job in turn; None if there is none. Jobs that cannot be finished are ended on the way.

    A tenant with `most_of_tenant` or more running jobs of this kind, in all processes, gets no turn.
    """

    async def take(session: AsyncSession, row: AnyRow, now: datetime) -> Claim | None:
        return await _take(session, kind, row, now, owner, lease)

    return await take_next(database, clock, _next_in_turn(kind, most_of_tenant), take)


async def fence(session: AsyncSession, claim: Claim, now: datetime) -> JobStatus:
    """Verifies that the claim holds until this transaction ends, and renews its lease.

    Returns the job's status: PROCESSING, or CANCELLING if it should stop. Raises `LeaseLost`.
    """
    status = columns(KINDS[claim.kind]).status
    return JobStatus(await claim.held.fence(session, now, status.in_(RUNNING), column="status"))


async def change_job(session: AsyncSession, claim: Claim, now: datetime, **values: object) -> None:
    """Updates columns of a job that `fence` has locked in this transaction, and logs the change."""
    await session.execute(claim.held.change().values(updated_at=now, **values))
    await append_update(session, claim.row, claim.kind)


async def renew(database: Database, claim: Claim, now: datetime) -> JobStatus:
    """Renews the lease. Returns the job's status; raises `LeaseLost`."""
    async with database.write() as session:
        return await fence(session, claim, now)


async def look(database: Database, claim: Claim) -> JobStatus:
    """Reads the job's status without writing. Raises `LeaseLost`."""
    jobs = _table(claim.kind).c
    async with database.session() as session:
        asked = within(select(jobs.status), KINDS[claim.kind], claim.tenant)
        status = (await session.execute(asked.where(jobs.id == claim.job_id, jobs.attempts == claim.token))).scalar()
    if status not in RUNNING:
        raise LeaseLost(f"{claim.name} has lost its lease")
    return JobStatus(status)


async def hand_back(database: Database, claim: Claim, now: datetime) -> None:
    """Releases the job, so that any worker can claim it at once; it resumes after its finished buckets. Raises
    `LeaseLost`."""
    async with database.write() as session:
        if await fence(session, claim, now) == JobStatus.CANCELLING:
            await change_job(session, claim, now, **_ended(JobStatus.CANCELLED, now))
        else:
            await change_job(session, claim, now, **NOT_HELD)


async def request_cancel(session: AsyncSession, tenant: Tenant, id: str, now: datetime, kind: JobKind) -> None:
    """Cancels an idle job, or asks its worker to stop. Does nothing if the job has ended or is already stopping.

    Also does nothing while the job is committing its result, which a stop would leave incomplete.
    """
    table = _table(kind)
    job = within(update(table), KINDS[kind], tenant).where(table.c.id == id).returning(*table.c)
    if "committing" in table.c:
        job = job.where(~table.c.committing)
    idle = or_(
        table.c.status.in_(WAITING),
        and_(table.c.status == JobStatus.PROCESSING.value, table.c.lease_until.is_(None)),
    )
    row = (await session.execute(job.where(idle).values(**_ended(JobStatus.CANCELLED, now), updated_at=now))).first()
    if row is None:
        running = job.where(table.c.status == JobStatus.PROCESSING.value)
        row = (await session.execute(running.values(status=JobStatus.CANCELLING.value, updated_at=now))).first()
    if row is not None:
        await append_update(session, row, kind)


async def cancel_now(session: AsyncSession, tenant: Tenant, id: str, now: datetime, kind: JobKind) -> None:
    """Cancels a job at once, even while a worker runs it: that worker's later writes are fenced off. Does nothing if
    the job has ended."""
    table = _table(kind)
    job = within(update(table), KINDS[kind], tenant).where(table.c.id == id, table.c.status.in_(WAITING | RUNNING))
    row = (
        await session.execute(job.values(**_ended(JobStatus.CANCELLED, now), updated_at=now).returning(*table.c))
    ).first()
    if row is not None:
        await append_update(session, row, kind)


@lru_cache
def _next_in_turn(kind: JobKind, most_of_tenant: int | None = None) -> Due:
    """Claimable jobs in order: first the tenant with the fewest running jobs, then the tenant served longest ago."""
    table = _table(kind)
    c = table.c
    live, held = table.alias("live"), _held(table.c)
    past = table.alias("past")
    ready = ~held if "waits_for" not in c else and_(~held, ~_must_wait(c))
    same = same_tenant(past.c, live.c)
    served = select(func.max(past.c.started_at)).where(same).correlate(live).scalar_subquery().label("served")
    running = func.sum(case((_held(live.c), 1), else_=0)).label("running")
    tenants = (
        select(live.c.organisation, live.c.sandbox, running, served)
        .where(live.c.status.in_(WAITING | RUNNING))
        .group_by(live.c.organisation, live.c.sandbox)
        .subquery("tenants")
    )
    if most_of_tenant is not None:
        ready = and_(ready, tenants.c.running < most_of_tenant)
    rows = (
        select(*c)
        .join_from(table, tenants, same_tenant(c, tenants.c))
        .where(c.status.in_(WAITING | RUNNING), ready)
        .order_by(tenants.c.running, tenants.c.served.asc().nulls_first(), c.created_at, c.id)
    )
    return Due.of(rows, KINDS[kind])


def _must_wait(jobs: Columns) -> ColumnElement[bool]:
    """Whether a job waits for an unfinished segment job; until then it takes no worker slot."""
    first = _table(JobKind.SEGMENT).alias("first").c
    same = same_tenant(first, jobs)
    live = first.status.in_(WAITING | RUNNING)
    return and_(jobs.status.in_(WAITING), exists().where(same, first.id == jobs.waits_for, live))


def _held(jobs: Columns) -> ColumnElement[bool]:
    """Whether a worker holds the job. Never NULL, so that it can be negated."""
    return and_(jobs.status.in_(RUNNING), ~is_free(jobs))


async def _take(
    session: AsyncSession, kind: JobKind, row: AnyRow, now: datetime, owner: str, lease: timedelta
) -> Claim | None:
    """Claims the row in this transaction. None if the job was ended instead, or another worker was faster."""
    table = _table(kind)
    died = row.status in RUNNING and row.lease_until is not None
    lost = row.lost_leases + (1 if died else 0)
    values: StoredValues = {"attempts": row.attempts + 1, "lost_leases": lost, "updated_at": now}
    if row.status == JobStatus.CANCELLING:
        values |= _ended(JobStatus.CANCELLED, now)
    elif lost >= MOST_LOST_LEASES:
        values |= _ended(JobStatus.FAILED, now) | {"errors": [*row.errors, _given_up(kind, lost)]}
    else:
        values |= {"status": JobStatus.PROCESSING.value, "lease_owner": owner, "lease_until": now + lease}
        values |= {"started_at": row.started_at or now}
        if row.phase == JobPhase.WAITING:
            values["phase"] = JobPhase.READING.value
    tenant = Tenant(row.organisation, row.sandbox)
    unchanged = (table.c.id == row.id, table.c.attempts == row.attempts, table.c.status == row.status)
    claim_row = within(update(table), KINDS[kind], tenant).where(*unchanged).values(**values).returning(*table.c)
    job = (await session.execute(claim_row)).first()
    if job is None:
        return None
    if died:
        LEASES_TAKEN_OVER.labels("job").inc()
    await append_update(session, job, kind)
    return Claim(kind, job, job.attempts, owner, lease) if job.status == JobStatus.PROCESSING else None


def _ended(status: JobStatus, now: datetime) -> StoredValues:
    """Columns that every ended job has: no lease, no remaining time, phase DONE."""
    return {
        "status": status.value,
        "phase": JobPhase.DONE.value,
        "seconds_left": None,
        **NOT_HELD,
        "finished_at": now,
    }


def ended(status: JobStatus, now: datetime) -> StoredValues:
    """The columns of a job that ends with `status`; a succeeded job has the fraction 1."""
    return _ended(status, now) | ({"fraction": 1.0} if status == JobStatus.SUCCEEDED else {})


_SMALLER = {
    JobKind.SEGMENT: "run the definitions in smaller jobs",
    JobKind.EXPORT: "export fewer fields, or no events",
    JobKind.ERASURE: "start the erasure again",
    JobKind.PREVIEW: "preview a simpler expression",
}


def _given_up(kind: JobKind, lost: int) -> StoredValues:
    return {
        "code": "WORKERS_LOST",
        "message": f"{lost} workers in a row crashed while they ran this job, so it was abandoned. "
        f"They may have run out of memory: see their logs, then {_SMALLER[kind]}",
    }


def _table(kind: JobKind) -> Table:
    return table(KINDS[kind])
