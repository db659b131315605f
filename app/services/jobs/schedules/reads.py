"""Reads schedules, their audiences and their newest runs."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Scope
from app.services.lists.filters import OrderBy, StringFilter
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, current_row, get_rows, rows_of_any, select_rows
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.schedules import ScheduleAudienceRow, ScheduleRow, ScheduleRunRow, ScheduleState, ScheduleType
from app.storage.tenancy import AnySelect, same_tenant, within

_SCHEDULES = columns(ScheduleRow)
_LINKS = columns(ScheduleAudienceRow)
_RUNS = columns(ScheduleRunRow)
_AUDIENCES = columns(AudienceRow)
_BY_NAME = Order("NAME", (Key(_SCHEDULES.name), Key(_SCHEDULES.id)))
_AUDIENCES_BY_NAME = Order("NAME", (Key(_AUDIENCES.name), Key(_AUDIENCES.id)))


@dataclass(frozen=True, slots=True)
class ScheduleFilter:
    """All given conditions must match."""

    name: StringFilter = field(default_factory=StringFilter)
    type: ScheduleType | None = None
    state: ScheduleState | None = None
    audience_id: str | None = None

    def conditions(self, scope: Scope) -> Iterator[ColumnElement[bool]]:
        yield from self.name.on(_SCHEDULES.name)
        if self.type is not None:
            yield _SCHEDULES.type == self.type
        if self.state is not None:
            yield _SCHEDULES.state == self.state
        if self.audience_id is not None:
            covered = within(select(_AUDIENCES.id), AudienceRow, scope.tenant).correlate(ScheduleRow)
            yield covered.where(_AUDIENCES.id == self.audience_id, _covers()).exists()


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, ScheduleRow]:
    return await get_rows(session, ScheduleRow, scope, ids)


async def required(session: AsyncSession, scope: Scope, id: str, etag: str | None = None) -> ScheduleRow:
    return current_row((await get_many(session, scope, [id])).get(id), "schedule", id, etag)


async def audience_ids(session: AsyncSession, scope: Scope, id: str) -> list[str]:
    """The audiences that a schedule names."""
    statement = within(select(_LINKS.audience_id), ScheduleAudienceRow, scope.tenant).where(_LINKS.schedule_id == id)
    return list(await session.scalars(statement.order_by(_LINKS.audience_id)))


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: ScheduleFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[ScheduleRow]:
    """Newest first by default."""
    listing = _all(order or OrderBy("CREATED_AT", descending=True))
    if filter is not None:
        listing = Listing(listing.statement.where(*filter.conditions(scope)), listing.order, None)
    return await listing.page(session, scope.tenant, request)


@cache
def _all(order: OrderBy) -> Listing[ScheduleRow]:
    keys = Key(_SCHEDULES[order.field.lower()], order.descending), Key(_SCHEDULES.id, order.descending)
    return Listing(rows_of_any(ScheduleRow), Order(order.name, keys), None)


async def count(session: AsyncSession, scope: Scope, filter: ScheduleFilter | None = None) -> int:
    statement = within(select(func.count()).select_from(ScheduleRow), ScheduleRow, scope.tenant)
    return int((await session.execute(statement.where(*(filter or ScheduleFilter()).conditions(scope)))).scalar_one())


async def page_by_audience(
    session: AsyncSession, scope: Scope, audience_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[ScheduleRow]]:
    """The schedules of each audience, by name: those that name it, and those for all audiences."""
    return await _of_audiences().pages(session, scope.tenant, request, audience_ids)


@cache
def _of_audiences() -> Listing[ScheduleRow]:
    return Listing(_pairs(rows_of_any(ScheduleRow)), _BY_NAME, None, _AUDIENCES.id)


async def counts_by_audience(session: AsyncSession, scope: Scope, audience_ids: Sequence[str]) -> dict[str, int]:
    return await _counts(session, scope, _AUDIENCES.id, audience_ids)


async def audiences_by_schedule(
    session: AsyncSession, scope: Scope, schedule_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[AudienceRow]]:
    """The audiences of each schedule, by name."""
    return await _audiences_of().pages(session, scope.tenant, request, schedule_ids)


@cache
def _audiences_of() -> Listing[AudienceRow]:
    pairs = _pairs(rows_of_any(AudienceRow))
    return Listing(pairs, _AUDIENCES_BY_NAME, None, _SCHEDULES.id)


async def audience_counts(session: AsyncSession, scope: Scope, schedule_ids: Sequence[str]) -> dict[str, int]:
    return await _counts(session, scope, _SCHEDULES.id, schedule_ids)


async def last_runs(session: AsyncSession, scope: Scope, schedule_ids: Sequence[str]) -> dict[str, ScheduleRunRow]:
    """The newest run of each schedule that has one."""
    number = func.row_number().over(
        partition_by=_RUNS.schedule_id, order_by=(_RUNS.at.desc(), _RUNS.due_at.desc().nulls_last(), _RUNS.id.desc())
    )
    numbered = (
        select_rows(ScheduleRunRow, scope)
        .where(_RUNS.schedule_id.in_(list(schedule_ids)))
        .add_columns(number.label("age"))
        .subquery()
    )
    rows = await session.execute(select(numbered).where(numbered.c.age == 1))
    return {row.schedule_id: as_row(ScheduleRunRow, row) for row in rows}


def _covers() -> ColumnElement[bool]:
    """Whether the row's schedule applies to the row's audience."""
    link = (
        exists()
        .where(
            same_tenant(_LINKS, _SCHEDULES),
            _LINKS.schedule_id == _SCHEDULES.id,
            _LINKS.audience_id == _AUDIENCES.id,
        )
        .correlate(ScheduleRow, AudienceRow)
    )
    same = same_tenant(_SCHEDULES, _AUDIENCES)
    return and_(same, or_(and_(_SCHEDULES.all_audiences, _AUDIENCES.type == AudienceType.SEGMENT_DEFINITION), link))


def _pairs(statement: AnySelect) -> AnySelect:
    """Schedules joined with their audiences, one row per pair."""
    return statement.join_from(ScheduleRow, AudienceRow, _covers())


async def _counts(session: AsyncSession, scope: Scope, parent: Any, parents: Sequence[str]) -> dict[str, int]:
    counted = within(select(parent, func.count()), ScheduleRow, scope.tenant)
    rows = await session.execute(_pairs(counted).where(parent.in_(list(parents))).group_by(parent))
    counts = {parent_id: int(number) for parent_id, number in rows}
    return {parent_id: counts.get(parent_id, 0) for parent_id in parents}
