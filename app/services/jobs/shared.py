"""Shared by all kinds of jobs: keys, filters, lists, cancellation; knows no kind's work."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Subquery, cast, func, literal, null, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncSession

from app import traces
from app.clock import Clock
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.lists.filters import DateTimeFilter, OrderBy
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import get_rows, rows_of_any, select_rows
from app.storage.columns import Columns, StoredValues, columns
from app.storage.job_log import JOBS, KINDS, JobState
from app.storage.queue.claims import request_cancel
from app.storage.tables.jobs import JobKind, JobSource, JobStatus
from app.storage.tenancy import AnyRow, Keyed, within

T = TypeVar("T")

NOUNS = {
    JobKind.SEGMENT: "segment job",
    JobKind.EXPORT: "export job",
    JobKind.ERASURE: "erasure job",
    JobKind.PREVIEW: "preview",
}
"""The name of everything that is queued, by kind."""

KEY_LIFETIME = timedelta(hours=24)
_NEVER = datetime.fromisoformat("9999-12-31T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Filters for every kind of job; all given conditions must match."""

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
class AnyJobFilter(JobFilter):
    """Filters for jobs of several kinds."""

    kind: Collection[str] | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """What starts a job: a caller, or a run of a schedule."""

    source: str = JobSource.API.value
    schedule_id: str | None = None
    run_id: str | None = None


API = Origin()


def new_columns(
    scope: Scope, now: datetime, id: str, origin: Origin = API, idempotency_key: str | None = None
) -> StoredValues:
    """The columns of a new job of any kind."""
    return {
        "organisation": scope.organisation,
        "sandbox": scope.sandbox,
        "id": id,
        "source": origin.source,
        "schedule_id": origin.schedule_id,
        "run_id": origin.run_id,
        "idempotency_key": idempotency_key,
        "trace": traces.present(),
        "created_by": scope.user,
        "created_at": now,
        "updated_at": now,
    }


async def by_key(session: AsyncSession, scope: Scope, kind: JobKind, key: str, now: datetime) -> Any:
    """The kind's job with this idempotency key, or None; a key older than 24 hours is free again."""
    table, jobs = KINDS[kind], _columns(kind)
    row = (await session.execute(select_rows(table, scope).where(jobs.idempotency_key == key))).first()
    if row is None or row.created_at > now - KEY_LIFETIME:
        return row
    freed = within(update(table), table, scope.tenant).where(jobs.id == row.id)
    await session.execute(freed.values(idempotency_key=None))
    return None


async def cancel(session: AsyncSession, clock: Clock, scope: Scope, kind: JobKind, id: str) -> Any:
    """Requests cancellation: a waiting job ends at once, a running one soon; a cancelled one is returned unchanged.

    Raises `Refusal` for an unknown job and for one that has succeeded or failed.
    """
    row = await required(session, scope, kind, id)
    if row.status in {JobStatus.SUCCEEDED, JobStatus.FAILED}:
        message = f"the job has {row.status.lower()} and can no longer be cancelled"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    await request_cancel(session, scope.tenant, id, clock(), kind)
    return await required(session, scope, kind, id)


# ---------------------------------------------------------------- lists


def job_order(jobs: Keyed, order: OrderBy | None = None) -> Order:
    """Newest first by default; unfinished jobs sort as the last to finish."""
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
    statement = rows_of_any(KINDS[kind]).where(*conditions)
    listing: Listing[Any] = Listing(statement, job_order(_columns(kind), order), lambda row: row)
    return await listing.page(session, scope.tenant, request)


async def count(session: AsyncSession, scope: Scope, kind: JobKind, conditions: Iterator[ColumnElement[bool]]) -> int:
    statement = within(select(func.count()).select_from(KINDS[kind]), KINDS[kind], scope.tenant)
    return int((await session.execute(statement.where(*conditions))).scalar_one())


async def page_of_all_kinds(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: AnyJobFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[JobState]:
    """The jobs of every kind that the API calls a job, or of the kinds in the filter."""
    jobs = _filtered(scope, filter or AnyJobFilter())
    return await Listing(select(*jobs.c), job_order(jobs.c, order), _state).page(session, scope.tenant, request)


async def count_of_all_kinds(session: AsyncSession, scope: Scope, filter: AnyJobFilter | None = None) -> int:
    jobs = _filtered(scope, filter or AnyJobFilter())
    return int((await session.execute(select(func.count()).select_from(jobs))).scalar_one())


async def page_by_schedule(
    session: AsyncSession, scope: Scope, schedule_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[JobState]]:
    """The jobs of all kinds that each schedule started, newest first."""
    jobs = _of_schedules(scope, schedule_ids)
    newest = Order("NEWEST", (Key(jobs.c.created_at, descending=True), Key(jobs.c.id, descending=True)))
    listing = Listing(select(*jobs.c), newest, _state, jobs.c.schedule_id)
    return await listing.pages(session, scope.tenant, request, schedule_ids)


async def counts_by_schedule(session: AsyncSession, scope: Scope, schedule_ids: Sequence[str]) -> dict[str, int]:
    jobs = _of_schedules(scope, schedule_ids)
    statement = select(jobs.c.schedule_id, func.count()).group_by(jobs.c.schedule_id)
    counts = {schedule_id: int(number) for schedule_id, number in await session.execute(statement)}
    return {schedule_id: counts.get(schedule_id, 0) for schedule_id in schedule_ids}


def _filtered(scope: Scope, filter: AnyJobFilter) -> Subquery:
    jobs = _of_all_kinds(scope, filter.on)
    if filter.kind is None:
        return jobs
    return select(*jobs.c).where(jobs.c.kind.in_(list(filter.kind))).subquery("jobs_of_kinds")


def _of_all_kinds(scope: Scope, conditions: Callable[[Columns], Iterable[ColumnElement[bool]]]) -> Subquery:
    """The jobs of all kinds that satisfy conditions on their own table, with the columns of every kind's table; those
    of other kinds are null."""
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


def _state(row: AnyRow) -> JobState:
    return JobState(JobKind(row.kind), row)


async def required(session: AsyncSession, scope: Scope, kind: JobKind, id: str) -> Any:
    row = (await get_rows(session, KINDS[kind], scope, [id])).get(id)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no {NOUNS[kind]} {id!r} in this sandbox", ("id",))
    return row


def _columns(kind: JobKind) -> Columns:
    return columns(KINDS[kind])
