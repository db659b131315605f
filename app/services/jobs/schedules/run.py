"""Runs of schedules: each due time starts one job, and clients can start additional runs; contains no loop and no job
logic."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from itertools import takewhile

from sqlalchemy import func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import quartz
from app.clock import Clock
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services.access.audit import DONE, Entry
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.input import NewExport
from app.services.jobs.schedules import reads as schedule_reads
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.shared import Origin
from app.services.lists.rows import as_row, get_rows, select_rows
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import KINDS, JobState
from app.storage.tables.jobs import JobKind, JobSource
from app.storage.tables.schedules import RunOutcome, ScheduleRow, ScheduleRunRow, ScheduleType
from app.storage.tenancy import within

_SCHEDULES = columns(ScheduleRow)


async def trigger(database: Database, clock: Clock, scope: Scope, id: str) -> JobState:
    """Starts a run now, independently of the schedule's times and state. Raises `Refusal` if there is nothing to
    run."""
    now = clock()
    async with database.write(scope.tenant) as session:
        schedule = await schedule_reads.required(session, scope, id)
        run_id = new_id(now)
        try:
            kind, job_id = await _start(session, scope, schedule, now, run_id)
        except Refusals as refused:
            raise Refusal(refused.refusals[0].code, str(refused), ("id",)) from None
        except Refusal as refused:
            raise Refusal(refused.code, refused.message, ("id",)) from None
        await _note(session, scope, schedule.id, [(run_id, None, RunOutcome.STARTED, job_id, None)], now)
        return JobState(kind, (await get_rows(session, KINDS[kind], scope, [job_id]))[job_id])


async def due(database: Database, now: datetime) -> list[tuple[Tenant, str]]:
    """The due schedules of all tenants, the longest overdue first."""
    statement = select(_SCHEDULES.organisation, _SCHEDULES.sandbox, _SCHEDULES.id).where(_SCHEDULES.next_due_at <= now)
    async with database.session() as session:
        rows = await session.execute(statement.order_by(_SCHEDULES.next_due_at, _SCHEDULES.id))
        return [(Tenant(row.organisation, row.sandbox), row.id) for row in rows]


async def next_due(database: Database) -> datetime | None:
    """The first due time over all tenants; None if there is none."""
    async with database.session() as session:
        earliest: datetime | None = await session.scalar(
            select(func.min(_SCHEDULES.next_due_at)).where(_SCHEDULES.next_due_at.is_not(None))
        )
        return earliest


async def run_due(database: Database, clock: Clock, tenant: Tenant, id: str) -> None:
    """Runs the due time of one schedule once, and advances it to its next time. Any number of processes may call it.

    Of several missed times only the newest runs, which is less than one period old; earlier ones are skipped. The job,
    the run of the due time and the next time are written in one transaction.
    """
    async with database.write(tenant) as session:
        now = clock()
        reader = Scope(tenant.organisation, tenant.sandbox, "scheduler")
        row = (
            await session.execute(
                select_rows(ScheduleRow, reader)
                .where(_SCHEDULES.id == id, _SCHEDULES.next_due_at <= now)
                .with_for_update()
            )
        ).first()
        if row is None:
            return  # Another process was faster, or the schedule was changed meanwhile.
        cron = quartz.parse(row.cron_expression)
        *skipped, newest = [row.next_due_at, *takewhile(lambda fire: fire <= now, cron.fires(row.next_due_at))]
        scope = Scope(tenant.organisation, tenant.sandbox, row.created_by)
        run = await _attempt(session, scope, as_row(ScheduleRow, row), newest, now)
        missed = [
            (new_id(now), time, RunOutcome.SKIPPED, None, "missed: a later time was also due") for time in skipped
        ]
        await _note(session, scope, id, [*missed, run], now)
        run_id, outcome = run[0], DONE if run[2] == RunOutcome.STARTED else run[2]
        await Entry(scope, clock, "runSchedule", run_id, id).write(session, outcome)
        mine = within(update(ScheduleRow), ScheduleRow, tenant).where(_SCHEDULES.id == id)
        await session.execute(mine.values(next_due_at=cron.next_after(newest)))


Run = tuple[str, datetime | None, str, str | None, str | None]
"""Id, due time, outcome, job and message."""


async def _attempt(session: AsyncSession, scope: Scope, schedule: ScheduleRow, due_at: datetime, now: datetime) -> Run:
    """A run with its job, or with the reason for having none. A schedule that cannot run now stays active."""
    run_id = new_id(now)
    try:
        async with session.begin_nested():
            _, job_id = await _start(session, scope, schedule, now, run_id)
    except (Refusal, Refusals) as refused:
        return run_id, due_at, RunOutcome.REFUSED, None, str(refused)
    return run_id, due_at, RunOutcome.STARTED, job_id, None


async def _note(session: AsyncSession, scope: Scope, schedule_id: str, runs: Sequence[Run], now: datetime) -> None:
    names = ("id", "due_at", "outcome", "job_id", "message")
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "schedule_id": schedule_id, "at": now}
    await session.execute(insert(ScheduleRunRow), [key | dict(zip(names, run, strict=True)) for run in runs])


# ---------------------------------------------------------------- what a run starts


async def _start(
    session: AsyncSession, scope: Scope, schedule: ScheduleRow, now: datetime, run_id: str
) -> tuple[JobKind, str]:
    """Queues the job of a run; returns its kind and id. Raises `Refusal` or `Refusals`."""
    kind, start = STARTS[schedule.type]
    origin = Origin(JobSource.SCHEDULER.value, schedule.id, run_id)
    return kind, await start(session, scope, schedule, now, origin)


async def _evaluate(session: AsyncSession, scope: Scope, schedule: ScheduleRow, now: datetime, origin: Origin) -> str:
    ids = None
    if not schedule.all_audiences:
        named = await schedule_reads.audience_ids(session, scope, schedule.id)
        ids = await segment_jobs.with_dependencies(session, scope, named)
    if ids == []:
        message = "the audiences of the schedule have been deleted: give it others, or delete it"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    return (await segment_jobs.queue(session, now, scope, ids, origin=origin)).id


async def _export(session: AsyncSession, scope: Scope, schedule: ScheduleRow, now: datetime, origin: Origin) -> str:
    return await export_jobs.queue(session, now, scope, NewExport.from_json(schedule.export), origin=origin)


Start = Callable[[AsyncSession, Scope, ScheduleRow, datetime, Origin], Awaitable[str]]
STARTS: Mapping[str, tuple[JobKind, Start]] = {
    ScheduleType.BATCH_SEGMENTATION: (JobKind.SEGMENT, _evaluate),
    ScheduleType.EXPORT: (JobKind.EXPORT, _export),
}
"""For every type of schedule, the kind of job that a run starts, and how."""
