"""The update log of jobs: each visible change of a job is a row with the next sequence number, which subscribers
read."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Protocol

from sqlalchemy import String, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Tenant
from app.storage.columns import StoredValues, columns, table
from app.storage.sessions.reading import Prepared, read
from app.storage.sessions.writing import insert_rows
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import FINAL, RUNNING, WAITING, JobColumns, JobKind, JobUpdateRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.tenancy import AnyRow, parameters, within, within_any
from app.storage.topics import QUEUE, job_topic, jobs_topic, publish

JOBS: dict[JobKind, type[JobColumns]] = {
    JobKind.SEGMENT: SegmentJobRow,
    JobKind.EXPORT: ExportJobRow,
    JobKind.ERASURE: ErasureJobRow,
}
"""The table of each kind of job."""
KINDS: dict[JobKind, type[JobColumns]] = {**JOBS, JobKind.PREVIEW: PreviewRow}
"""Everything that is queued and logged like a job. Users do not see previews as jobs: no list or stream contains
them."""

_UPDATES = columns(JobUpdateRow)
_PRIVATE = frozenset(
    {"idempotency_key", "lease_owner", "lease_until", "lost_leases", "snapshot", "trace", "expression"}
)
"""Job columns that are not part of the visible state, or that are long and never change."""
_QUEUED = WAITING | RUNNING


class JobKey(Protocol):
    """Anything that identifies a job: a row of its table, or another object with its key."""

    @property
    def organisation(self) -> str: ...
    @property
    def sandbox(self) -> str: ...
    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class JobState:
    """The state of a job of any kind at one time; `row` has the attributes of a row of that kind's table."""

    kind: JobKind
    row: Any


async def add_job(session: AsyncSession, job: JobColumns, kind: JobKind) -> None:
    """Inserts a new job, and logs its first state; subscribers are notified after the commit."""
    job.sequence = 1
    await insert_rows(session, job)
    await _log(session, job, kind)


async def append_update(session: AsyncSession, job: JobKey, kind: JobKind) -> None:
    """Logs the current state of the job under its next `sequence`; subscribers are notified after the commit.

    Sequences have no gaps and commit in order, because incrementing one locks the job's row. A row object that the
    caller holds is not refreshed.
    """
    tenant = Tenant(job.organisation, job.sandbox)
    (state,) = await read(session, _numbered(kind), {**parameters(tenant), "numbered": job.id})
    await _log(session, state, kind)


@cache
def _numbered(kind: JobKind) -> Prepared:
    """Gives the job `numbered` the next sequence, and returns the job."""
    row = KINDS[kind]
    of = columns(row)
    mine = within_any(update(table(row)), row).where(of.id == bindparam("numbered", type_=String))
    return Prepared(mine.values(sequence=of.sequence + 1).returning(*of))


async def _log(session: AsyncSession, job: JobColumns | AnyRow, kind: JobKind) -> None:
    """Logs a job as it is now."""
    tenant = Tenant(job.organisation, job.sandbox)
    names = [column.key for column in columns(KINDS[kind]) if column.key not in _PRIVATE]
    values = {name: getattr(job, name) for name in names}
    entry = JobUpdateRow(
        organisation=job.organisation,
        sandbox=job.sandbox,
        job_id=job.id,
        sequence=job.sequence,
        kind=kind.value,
        state={name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()},
        at=job.updated_at,
    )
    await insert_rows(session, entry)
    topics = {job_topic(tenant, job.id)} | ({jobs_topic(tenant)} if kind in JOBS else set())
    if job.status in FINAL or (job.status in _QUEUED and job.lease_until is None):
        # Another job may be waiting for this one to end.
        topics.add(QUEUE)
    await publish(session, *topics)


async def read_updates(
    session: AsyncSession,
    tenant: Tenant,
    job_id: str,
    after: int,
    limit: int | None = None,
    since: datetime | None = None,
) -> list[JobState]:
    """The states of a job with a sequence above `after`, in order: at most `limit`, and only those from `since` on."""
    statement = within(select(_UPDATES.kind, _UPDATES.state), JobUpdateRow, tenant)
    if since is not None:
        statement = statement.where(_UPDATES.at >= since)
    later = (
        statement.where(_UPDATES.job_id == job_id, _UPDATES.sequence > after).order_by(_UPDATES.sequence).limit(limit)
    )
    return [JobState(JobKind(kind), _state(JobKind(kind), state)) for kind, state in await session.execute(later)]


async def changed_jobs(session: AsyncSession, tenant: Tenant, since: datetime) -> dict[str, int]:
    """Jobs of a tenant that changed at `since` or later, each with its newest sequence.

    Timestamps are set before a transaction commits: start a few seconds earlier and compare sequences.
    """
    statement = within(select(_UPDATES.job_id, func.max(_UPDATES.sequence)), JobUpdateRow, tenant)
    recent = statement.where(_UPDATES.at >= since, _UPDATES.kind.in_(JOBS))
    rows = await session.execute(recent.group_by(_UPDATES.job_id))
    return {job_id: int(sequence) for job_id, sequence in rows}


def _state(kind: JobKind, state: StoredValues) -> object:
    row = KINDS[kind]
    of = columns(row)
    values: StoredValues = {
        name: datetime.fromisoformat(value) if value is not None and of[name].type.python_type is datetime else value
        for name, value in state.items()
        if name in of
    }
    return row(**values)
