"""What all kinds of jobs share for their users: keys, filters, lists, cancelling and watching; knows no kind's work."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Subquery, cast, func, literal, null, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.lists.filters import DateTimeFilter, OrderBy
from app.services.lists.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.services.lists.rows import get_rows, select_rows
from app.storage.claims import request_cancel
from app.storage.columns import Columns, JsonObject, columns
from app.storage.database import Database, is_unavailable
from app.storage.job_log import JOBS, KINDS, JobState, changed_jobs, read_updates
from app.storage.tables.jobs import FINAL, JobKind, JobSource, JobStatus
from app.storage.tenancy import Keyed, within
from app.storage.topics import job_topic, jobs_topic
from app.storage.wakeups import PATIENCE_SECONDS, Changes

T = TypeVar("T")

NOUNS = {JobKind.SEGMENT: "segment job", JobKind.EXPORT: "export job", JobKind.PREVIEW: "preview"}
"""Every kind of what is queued, in words."""

KEY_LIFETIME = timedelta(hours=24)
AWAY_SECONDS = 1.0
"""How often a stream asks for a database that is away."""
_OVERLAP = timedelta(seconds=30)
_NEVER = datetime.fromisoformat("9999-12-31T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """What every kind of job can be chosen by; all that are given must hold."""

    status: Collection[str] | None = None
    source: Collection[str] | None = None
    schedule_id: str | None = None
    created_at: DateTimeFilter = field(default_factory=DateTimeFilter)

    def on(self, jobs: Columns) -> Iterator[ColumnElement[bool]]:
        if self.status is not None:
            yield jobs.status.in_(list(self.status))
        if self.source is not None:
            yield jobs.source.in_(list(self.source))
        if self.schedule_id is not None:
            yield jobs.schedule_id == self.schedule_id
        yield from self.created_at.on(jobs.created_at)


@dataclass(frozen=True, slots=True)
class Origin:
    """Who starts a job: a caller, or a run of a schedule."""

    source: str = JobSource.API.value
    schedule_id: str | None = None
    run_id: str | None = None


API = Origin()


def new_columns(
    scope: Scope, now: datetime, id: str, origin: Origin = API, idempotency_key: str | None = None
) -> JsonObject:
    """The columns of a new job of any kind."""
    return {
        "organisation": scope.organisation,
        "sandbox": scope.sandbox,
        "id": id,
        "source": origin.source,
        "schedule_id": origin.schedule_id,
        "run_id": origin.run_id,
        "idempotency_key": idempotency_key,
        "created_by": scope.user,
        "created_at": now,
        "updated_at": now,
    }


async def by_key(session: AsyncSession, scope: Scope, kind: JobKind, key: str, now: datetime) -> Any:
    """The kind's job of this idempotency key, or None; a key older than 24 hours is free again."""
    table, jobs = KINDS[kind], _columns(kind)
    row = (await session.execute(select_rows(table, scope).where(jobs.idempotency_key == key))).first()
    if row is None or row.created_at > now - KEY_LIFETIME:
        return row
    freed = within(update(table), table, scope.tenant).where(jobs.id == row.id)
    await session.execute(freed.values(idempotency_key=None))
    return None


async def cancel(session: AsyncSession, clock: Clock, scope: Scope, kind: JobKind, id: str) -> Any:
    """Asks for a stop: at once for a job that waits, soon for one that runs; a cancelled one is returned as it is.

    Raises `Refusal` for an unknown job and for one that has succeeded or failed.
    """
    row = await _required(session, scope, kind, id)
    if row.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
        message = f"the job has {row.status.lower()} and can no longer be cancelled"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    await request_cancel(session, scope.tenant, id, clock(), kind)
    return await _required(session, scope, kind, id)


# ---------------------------------------------------------------- lists


def job_order(jobs: Keyed, order: OrderBy | None = None) -> Order:
    """Newest first unless `order` says otherwise; unfinished ones count as the last to finish."""
    order_by = order or OrderBy("CREATED_AT", descending=True)
    first = {
        "CREATED_AT": jobs.created_at,
        "UPDATED_AT": jobs.updated_at,
        "FINISHED_AT": func.coalesce(jobs.finished_at, _NEVER),
    }[order_by.field]
    return Order(order_by.name, (Key(first, order_by.descending), Key(jobs.id, order_by.descending)))


async def page(
    session: AsyncSession,
    scope: Scope,
    kind: JobKind,
    request: PageRequest,
    conditions: Iterator[ColumnElement[bool]],
    order: OrderBy | None = None,
) -> Slice[Any]:
    """Jobs of one kind."""
    statement = select_rows(KINDS[kind], scope).where(*conditions)
    return await fetch_page(session, statement, job_order(_columns(kind), order), request, lambda row: row)


async def count(session: AsyncSession, scope: Scope, kind: JobKind, conditions: Iterator[ColumnElement[bool]]) -> int:
    statement = within(select(func.count()).select_from(KINDS[kind]), KINDS[kind], scope.tenant)
    return int((await session.execute(statement.where(*conditions))).scalar_one())


async def page_of_all_kinds(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: JobFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[JobState]:
    """The jobs of every kind that the API calls a job."""
    jobs = _of_all_kinds(scope, (filter or JobFilter()).on)
    return await fetch_page(session, select(*jobs.c), job_order(jobs.c, order), request, _state)


async def count_of_all_kinds(session: AsyncSession, scope: Scope, filter: JobFilter | None = None) -> int:
    jobs = _of_all_kinds(scope, (filter or JobFilter()).on)
    return int((await session.execute(select(func.count()).select_from(jobs))).scalar_one())


async def page_by_schedule(
    session: AsyncSession, scope: Scope, schedule_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[JobState]]:
    """The jobs of all kinds that each schedule started, newest first."""
    jobs = _of_schedules(scope, schedule_ids)
    newest = Order("NEWEST", (Key(jobs.c.created_at, descending=True), Key(jobs.c.id, descending=True)))
    statement = select(*jobs.c)
    return await fetch_pages(session, statement, jobs.c.schedule_id, newest, request, schedule_ids, _state)


async def counts_by_schedule(session: AsyncSession, scope: Scope, schedule_ids: Sequence[str]) -> dict[str, int]:
    jobs = _of_schedules(scope, schedule_ids)
    statement = select(jobs.c.schedule_id, func.count()).group_by(jobs.c.schedule_id)
    counts = {schedule_id: int(number) for schedule_id, number in await session.execute(statement)}
    return {schedule_id: counts.get(schedule_id, 0) for schedule_id in schedule_ids}


def _of_all_kinds(scope: Scope, conditions: Callable[[Columns], Iterable[ColumnElement[bool]]]) -> Subquery:
    """The jobs of all kinds that fulfil conditions on their own table, with the columns of every kind's table; those of
    other kinds are null."""
    types = {column.name: column.type for kind in JOBS for column in _columns(kind)}
    parts = []
    for kind, table in JOBS.items():
        jobs = _columns(kind)
        selected = [jobs[name] if name in jobs else cast(null(), type_).label(name) for name, type_ in types.items()]
        statement = within(select(literal(kind.value).label("kind"), *selected), table, scope.tenant)
        parts.append(statement.where(*conditions(jobs)))
    return union_all(*parts).subquery("jobs")


def _of_schedules(scope: Scope, schedule_ids: Sequence[str]) -> Subquery:
    return _of_all_kinds(scope, lambda jobs: [jobs.schedule_id.in_(list(schedule_ids))])


def _state(row: Any) -> JobState:
    return JobState(JobKind(row.kind), row)


# ---------------------------------------------------------------- streams


async def watch(
    database: Database, changes: Changes, scope: Scope, kind: JobKind, id: str, after: int | None = None
) -> AsyncGenerator[Any, None]:
    """The present state of a job, then each later one in the order of `sequence`, until a final one has been given.

    `after` resumes: every state above it comes, none at or below it. Raises `Refusal` for an unknown job.
    """
    async with changes.subscribe(job_topic(scope.tenant, id)) as wakeups:
        async with database.session() as session:
            present = await _required(session, scope, kind, id)
        sequence = present.sequence - 1 if after is None else after
        with changes.tail(database, scope.tenant, id, present.sequence) as tail:
            while True:
                states = await _patiently(tail.after, sequence, present.sequence)
                for state in states:
                    sequence = state.row.sequence
                    yield state.row
                    if state.row.status in FINAL:
                        return
                if states:
                    continue
                if present.status in FINAL and sequence >= present.sequence:
                    return
                await wakeups.wait(PATIENCE_SECONDS)


async def watch_all(
    database: Database, changes: Changes, scope: Scope, status: Collection[str] | None = None
) -> AsyncGenerator[JobState, None]:
    """Every later state of every job of the tenant, those of one job in the order of `sequence`; does not end."""
    async with changes.subscribe(jobs_topic(scope.tenant)) as wakeups:
        started = datetime.now(UTC)
        async with database.session() as session:
            sequences = await changed_jobs(session, scope.tenant, started - _OVERLAP)
        while True:
            since = datetime.now(UTC) - _OVERLAP
            await wakeups.wait(PATIENCE_SECONDS)
            newest, states = await _patiently(_news, database, scope, since, sequences)
            # A job that nobody touched for the whole overlap may only come back with states that are newer.
            sequences = {**{id_: last for id_, last in sequences.items() if id_ in newest}, **newest}
            for state in sorted(states, key=lambda state: (state.row.updated_at, state.row.id, state.row.sequence)):
                if status is None or state.row.status in status:
                    yield state


async def _news(
    database: Database, scope: Scope, since: datetime, seen: Mapping[str, int]
) -> tuple[dict[str, int], list[JobState]]:
    """The jobs that changed since, with their newest sequence, and their states above those seen."""
    async with database.session() as session:
        newest = await changed_jobs(session, scope.tenant, since)
        fresh = {id_: seen.get(id_, 0) for id_, sequence in newest.items() if sequence > seen.get(id_, 0)}
        return newest, [
            state for id_, last in fresh.items() for state in await read_updates(session, scope.tenant, id_, last)
        ]


async def _patiently(read: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """What was read, as soon as the database is there: a stream outlives its being away."""
    while True:
        try:
            return await read(*arguments)
        except Exception as error:
            if not is_unavailable(error):
                raise
        await asyncio.sleep(AWAY_SECONDS)


# ---------------------------------------------------------------- inside


async def _required(session: AsyncSession, scope: Scope, kind: JobKind, id: str) -> Any:
    row = (await get_rows(session, KINDS[kind], scope, [id])).get(id)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no {NOUNS[kind]} {id!r} in this sandbox", ("id",))
    return row


def _columns(kind: JobKind) -> Columns:
    return columns(KINDS[kind])
