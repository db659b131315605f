"""The update log of jobs: every visible change of a job is a row with its next sequence, which those who watch read."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Tenant
from app.storage.columns import StoredValues, columns, table
from app.storage.tables.erasure_jobs import ErasureJobRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import FINAL, RUNNING, WAITING, JobColumns, JobKind, JobUpdateRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.tenancy import within
from app.storage.topics import QUEUE, job_topic, jobs_topic, publish

JOBS: dict[JobKind, type[JobColumns]] = {
    JobKind.SEGMENT: SegmentJobRow,
    JobKind.EXPORT: ExportJobRow,
    JobKind.ERASURE: ErasureJobRow,
}
"""Every kind of job, with its table."""
KINDS: dict[JobKind, type[JobColumns]] = {**JOBS, JobKind.PREVIEW: PreviewRow}
"""All that is queued and logged as jobs are. Previews are no jobs to their users: no list and no stream has them."""

_UPDATES = columns(JobUpdateRow)
_PRIVATE = frozenset(
    {"idempotency_key", "lease_owner", "lease_until", "lost_leases", "snapshot", "trace", "expression"}
)
"""Columns of a job that are no part of its visible state, or are long and never change."""
_QUEUED = WAITING | RUNNING


class JobKey(Protocol):
    """What names a job: a row of its table, or anything else with its key."""

    @property
    def organisation(self) -> str: ...
    @property
    def sandbox(self) -> str: ...
    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class JobState:
    """A job of any kind as it was or is; `row` reads like a row of the kind's table."""

    kind: JobKind
    row: Any


async def append_update(session: AsyncSession, job: JobKey, kind: JobKind) -> None:
    """Logs the job as it is in this transaction, under its next `sequence`; subscribers wake after the commit.

    Sequences have no gaps and are committed in order, since taking one locks the job's row. A row object that the
    caller holds is not refreshed.
    """
    await session.flush()
    row = KINDS[kind]
    of = columns(row)
    tenant = Tenant(job.organisation, job.sandbox)
    numbered = within(update(table(row)), row, tenant).where(of.id == job.id)
    state = (await session.execute(numbered.values(sequence=of.sequence + 1).returning(*of))).one()
    values = {
        "organisation": job.organisation,
        "sandbox": job.sandbox,
        "job_id": job.id,
        "sequence": state.sequence,
        "kind": kind.value,
        "state": {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in state._mapping.items()
            if name not in _PRIVATE
        },
        "at": state.updated_at,
    }
    await session.execute(insert(table(JobUpdateRow)).values(values))
    topics = {job_topic(tenant, job.id)} | ({jobs_topic(tenant)} if kind in JOBS else set())
    if state.status in FINAL or (state.status in _QUEUED and state.lease_until is None):
        # The end of a job may be what another one waits for.
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
    """The states of a job with a sequence above `after`, in order; with a `limit` the first of them, and with `since`
    those of that time and later."""
    statement = within(select(_UPDATES.kind, _UPDATES.state), JobUpdateRow, tenant)
    if since is not None:
        statement = statement.where(_UPDATES.at >= since)
    later = (
        statement.where(_UPDATES.job_id == job_id, _UPDATES.sequence > after).order_by(_UPDATES.sequence).limit(limit)
    )
    return [JobState(JobKind(kind), _state(JobKind(kind), state)) for kind, state in await session.execute(later)]


async def changed_jobs(session: AsyncSession, tenant: Tenant, since: datetime) -> dict[str, int]:
    """The jobs of a tenant that changed at `since` or later, with the newest sequence of each.

    Times are set before a transaction commits: ask again from a few seconds earlier, and compare sequences.
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
