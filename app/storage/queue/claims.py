"""The queue, which is the job tables themselves: who works on which job, and whose writes count.

A job is held by one worker at a time (`leases`). Whoever takes the job up next raises `attempts`: that number is the
fencing token, and each write of a worker first makes sure, in its own transaction, that the number is still its own.

These functions look across tenants: a worker serves them all.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Table, and_, case, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.metrics import LEASES_TAKEN_OVER
from app.scope import Tenant
from app.storage.columns import Columns, StoredValues, columns, table
from app.storage.database import Database
from app.storage.job_log import KINDS, append_update
from app.storage.queue.leases import NOT_HELD, Lease, LeaseLost, is_free, take_next
from app.storage.tables.jobs import RUNNING, WAITING, JobKind, JobPhase, JobStatus
from app.storage.tenancy import AnyRow, AnySelect, same_tenant, within

MOST_LOST_LEASES = 5
"""A job whose workers died so often without finishing a bucket in between is given up."""

TransactionBody = Callable[[AsyncSession], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A job as its worker took it up. `row` is the job's row of that moment, `token` the fencing token."""

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
    """Takes up the job whose turn it is; None when there is none. Jobs that nobody can finish are ended on the way.

    A tenant that has `most_of_tenant` jobs of the kind at work, in all processes, has no turn.
    """

    def due(now: datetime) -> AnySelect:
        return _next_in_turn(kind, now, most_of_tenant)

    async def take(session: AsyncSession, row: AnyRow, now: datetime) -> Claim | None:
        return await _take(session, kind, row, now, owner, lease)

    return await take_next(database, clock, KINDS[kind], due, take)


async def fence(session: AsyncSession, claim: Claim, now: datetime) -> JobStatus:
    """Makes sure that the claim still counts, until this transaction ends, and renews its lease.

    Returns the job's status: PROCESSING, or CANCELLING when it is to stop. Raises `LeaseLost`.
    """
    status = columns(KINDS[claim.kind]).status
    return JobStatus(await claim.held.fence(session, now, status.in_(RUNNING), column="status"))


async def change_job(session: AsyncSession, claim: Claim, now: datetime, **values: object) -> None:
    """Changes columns of a job that `fence` has secured in this transaction, and logs the change."""
    await session.execute(claim.held.change().values(updated_at=now, **values))
    await append_update(session, claim.row, claim.kind)


async def renew(database: Database, claim: Claim, now: datetime) -> JobStatus:
    """Moves the lease on. Returns the job's status; raises `LeaseLost`."""
    async with database.write() as session:
        return await fence(session, claim, now)


async def look(database: Database, claim: Claim) -> JobStatus:
    """The job's status, without a write. Raises `LeaseLost`."""
    jobs = _table(claim.kind).c
    async with database.session() as session:
        asked = within(select(jobs.status), KINDS[claim.kind], claim.tenant)
        status = (await session.execute(asked.where(jobs.id == claim.job_id, jobs.attempts == claim.token))).scalar()
    if status not in RUNNING:
        raise LeaseLost(f"{claim.name} has lost its lease")
    return JobStatus(status)


async def hand_back(database: Database, claim: Claim, now: datetime) -> None:
    """Lets anybody take the job up at once; it goes on from its finished buckets. Raises `LeaseLost`."""
    async with database.write() as session:
        if await fence(session, claim, now) == JobStatus.CANCELLING:
            await change_job(session, claim, now, **_ended(JobStatus.CANCELLED, now))
        else:
            await change_job(session, claim, now, **NOT_HELD)


async def request_cancel(session: AsyncSession, tenant: Tenant, id: str, now: datetime, kind: JobKind) -> None:
    """Cancels a job that nobody works on, else asks the worker to stop. One that has ended or is stopping stays so.

    So does one that makes its result visible, which a stop would leave half done.
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
    """Ends a job as cancelled, whoever works on it: what that worker still writes is fenced off. One that has ended
    stays so."""
    table = _table(kind)
    job = within(update(table), KINDS[kind], tenant).where(table.c.id == id, table.c.status.in_(WAITING | RUNNING))
    row = (
        await session.execute(job.values(**_ended(JobStatus.CANCELLED, now), updated_at=now).returning(*table.c))
    ).first()
    if row is not None:
        await append_update(session, row, kind)


def _next_in_turn(kind: JobKind, now: datetime, most_of_tenant: int | None = None) -> AnySelect:
    """Jobs to take up, in turn: of the tenant with the fewest running, among those of the one served longest ago."""
    table = _table(kind)
    c = table.c
    live, held = table.alias("live"), _held(table.c, now)
    past = table.alias("past")
    ready = ~held if "waits_for" not in c else and_(~held, ~_must_wait(c))
    same = same_tenant(past.c, live.c)
    served = select(func.max(past.c.started_at)).where(same).correlate(live).scalar_subquery().label("served")
    running = func.sum(case((_held(live.c, now), 1), else_=0)).label("running")
    tenants = (
        select(live.c.organisation, live.c.sandbox, running, served)
        .where(live.c.status.in_(WAITING | RUNNING))
        .group_by(live.c.organisation, live.c.sandbox)
        .subquery("tenants")
    )
    if most_of_tenant is not None:
        ready = and_(ready, tenants.c.running < most_of_tenant)
    return (
        select(*c)
        .join_from(table, tenants, same_tenant(c, tenants.c))
        .where(c.status.in_(WAITING | RUNNING), ready)
        .order_by(tenants.c.running, tenants.c.served.asc().nulls_first(), c.created_at, c.id)
    )


def _must_wait(jobs: Columns) -> ColumnElement[bool]:
    """Whether a job waits for a segment job that has not ended: it then holds no place that others could work in."""
    first = _table(JobKind.SEGMENT).alias("first").c
    same = same_tenant(first, jobs)
    live = first.status.in_(WAITING | RUNNING)
    return and_(jobs.status.in_(WAITING), exists().where(same, first.id == jobs.waits_for, live))


def _held(jobs: Columns, now: datetime) -> ColumnElement[bool]:
    """Whether somebody works on a job: never null, so that it can be negated."""
    return and_(jobs.status.in_(RUNNING), ~is_free(jobs, now))


async def _take(
    session: AsyncSession, kind: JobKind, row: AnyRow, now: datetime, owner: str, lease: timedelta
) -> Claim | None:
    """The row, taken up in this transaction; None when all there was to do was to end it, or somebody was faster."""
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
    """What every ended job has: no worker, no time left, and it is not waiting for anything."""
    return {
        "status": status.value,
        "phase": JobPhase.DONE.value,
        "seconds_left": None,
        **NOT_HELD,
        "finished_at": now,
    }


def ended(status: JobStatus, now: datetime) -> StoredValues:
    """The columns of a job that ends with `status`; one that succeeded is done in full."""
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
