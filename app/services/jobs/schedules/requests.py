"""Schedules: when jobs start by themselves, and for whom; `schedule_runs` starts them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import ColumnElement, and_, exists, func, insert, or_, select
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app import quartz
from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals, StaleEtag
from app.scope import Scope
from app.services.audiences import reads as audiences
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.input import NewExport
from app.services.jobs.segment.requests import MOST_IDS
from app.services.lists.filters import OrderBy, StringFilter
from app.services.lists.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.services.lists.rows import as_row, get_rows, select_rows
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.schedules import ScheduleAudienceRow, ScheduleRow, ScheduleRunRow
from app.storage.tenancy import AnySelect, same_tenant, within
from app.storage.topics import SCHEDULES, publish

_SCHEDULES = columns(ScheduleRow)
_LINKS = columns(ScheduleAudienceRow)
_RUNS = columns(ScheduleRunRow)
_AUDIENCES = columns(AudienceRow)
_BY_NAME = Order("NAME", (Key(_SCHEDULES.name), Key(_SCHEDULES.id)))
_AUDIENCES_BY_NAME = Order("NAME", (Key(_AUDIENCES.name), Key(_AUDIENCES.id)))


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """Without `cron_expression` it is given a time of its own, once a day. One of type EXPORT has an `export` only."""

    name: str
    description: str | None = None
    type: str = "BATCH_SEGMENTATION"
    cron_expression: str | None = None
    state: str = "INACTIVE"
    audience_ids: Sequence[str] | None = None
    all_audiences: bool = False
    export: NewExport | None = None


class ScheduleChanges(TypedDict, total=False):
    """Only the keys that are there change. `audience_ids` alone ends `all_audiences`, and the other way round."""

    name: str
    description: str | None
    cron_expression: str
    state: str
    audience_ids: Sequence[str] | None
    all_audiences: bool
    export: NewExport | None


@dataclass(frozen=True, slots=True)
class ScheduleFilter:
    """All that are given must hold."""

    name: StringFilter = field(default_factory=StringFilter)
    type: str | None = None
    state: str | None = None
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


# ---------------------------------------------------------------- reads


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, ScheduleRow]:
    return await get_rows(session, ScheduleRow, scope, ids)


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: ScheduleFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[ScheduleRow]:
    """Newest first unless `order` says otherwise."""
    order_by = order or OrderBy("CREATED_AT", descending=True)
    keys = Key(_SCHEDULES[order_by.field.lower()], order_by.descending), Key(_SCHEDULES.id, order_by.descending)
    statement = select_rows(ScheduleRow, scope).where(*(filter or ScheduleFilter()).conditions(scope))
    return await fetch_page(session, statement, Order(order_by.name, keys), request, _schedule)


async def count(session: AsyncSession, scope: Scope, filter: ScheduleFilter | None = None) -> int:
    statement = within(select(func.count()).select_from(ScheduleRow), ScheduleRow, scope.tenant)
    return int((await session.execute(statement.where(*(filter or ScheduleFilter()).conditions(scope)))).scalar_one())


async def page_by_audience(
    session: AsyncSession, scope: Scope, audience_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[ScheduleRow]]:
    """The schedules that each audience is in, by name: those that name it, and those for all."""
    statement = _pairs(select_rows(ScheduleRow, scope))
    return await fetch_pages(session, statement, _AUDIENCES.id, _BY_NAME, request, audience_ids, _schedule)


async def counts_by_audience(session: AsyncSession, scope: Scope, audience_ids: Sequence[str]) -> dict[str, int]:
    return await _counts(session, scope, _AUDIENCES.id, audience_ids)


async def audiences_by_schedule(
    session: AsyncSession, scope: Scope, schedule_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[AudienceRow]]:
    """The audiences that each schedule is for, by name."""
    statement = _pairs(select_rows(AudienceRow, scope))
    return await fetch_pages(
        session, statement, _SCHEDULES.id, _AUDIENCES_BY_NAME, request, schedule_ids, lambda row: row
    )


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


# ---------------------------------------------------------------- writes


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewSchedule) -> ScheduleRow:
    """Raises `Refusals` with everything that is wrong with the input."""
    export, refusals = await _checked_export(database, lake, clock, scope, new.export)
    now = clock()
    id_ = new_id(now)
    cron = quartz.daily(id_) if new.cron_expression is None else new.cron_expression
    async with database.write(scope.tenant) as session:
        refuse_bad_name(new.name, refusals)
        refusals += [*_not_upcoming(cron, now), *_unclear_work(new)]
        _refuse_all([*refusals, *await _unfit_audiences(session, scope, new.audience_ids)])
        named = new.audience_ids or await _exported(session, scope, export)
        session.add(
            ScheduleRow(
                organisation=scope.organisation,
                sandbox=scope.sandbox,
                id=id_,
                name=new.name,
                description=new.description,
                type=new.type,
                state=new.state,
                cron_expression=cron,
                all_audiences=new.all_audiences,
                export=None if export is None else export.as_json(),
                next_due_at=_next_due(cron, new.state, now),
                created_by=scope.user,
                last_modified_by=scope.user,
                created_at=now,
                updated_at=now,
            )
        )
        await session.flush()
        await _link(session, scope, id_, named)
        await publish(session, SCHEDULES)
        return (await get_many(session, scope, [id_]))[id_]


async def update(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    id: str,
    etag: str | None,
    changes: ScheduleChanges,
) -> ScheduleRow:
    """Changes what is given; a run that has started goes on as it was. Raises as `create`, and `StaleEtag`."""
    now = clock()
    export, refusals = await _checked_export(database, lake, clock, scope, changes.get("export"))
    async with database.write(scope.tenant) as session:
        current = await required(session, scope, id, etag)
        named = await audience_ids(session, scope, id)
        merged = _merged(current, named, changes)
        cron = str(merged.cron_expression)
        retimed = cron != current.cron_expression or merged.state != current.state
        refuse_bad_name(merged.name, refusals)
        # What others did to its audiences, or the passing of time, must not stand in the way of a new name.
        activated = retimed and merged.state == "ACTIVE"
        if activated or "cron_expression" in changes:
            refusals += _not_upcoming(cron, now)
        if activated or changes.keys() & {"audience_ids", "all_audiences", "export"}:
            refusals += [*_unclear_work(merged), *await _unfit_audiences(session, scope, merged.audience_ids)]
        _refuse_all(refusals)
        change = {name: getattr(merged, name) for name in ("name", "description", "state", "all_audiences")}
        if retimed:
            # A time that is due stays due whatever else changes.
            change |= {"cron_expression": cron, "next_due_at": _next_due(cron, merged.state, now)}
        scheduled = set(merged.audience_ids or ())
        if current.type == "EXPORT":
            scheduled = set(named) if export is None else set(await _exported(session, scope, export))
        if export is not None:
            change["export"] = export.as_json()
        if scheduled != set(named):
            links = within(delete_rows(ScheduleAudienceRow), ScheduleAudienceRow, scope.tenant)
            await session.execute(links.where(_LINKS.schedule_id == id))
            await _link(session, scope, id, sorted(scheduled))
        return await _change(session, scope, current, now, change)


async def delete(database: Database, scope: Scope, id: str, etag: str | None = None) -> None:
    """The jobs that it started stay, and go on."""
    async with database.write(scope.tenant) as session:
        await required(session, scope, id, etag)
        await session.execute(within(delete_rows(ScheduleRow), ScheduleRow, scope.tenant).where(_SCHEDULES.id == id))


async def add_audiences(database: Database, clock: Clock, scope: Scope, id: str, added: Sequence[str]) -> ScheduleRow:
    """Those that it has already stay. Raises `Refusal`, or `Refusals` with the place of each audience that is amiss."""
    async with database.write(scope.tenant) as session:
        current = await _with_list(session, scope, id)
        named = await audience_ids(session, scope, id)
        fresh = [id_ for id_ in dict.fromkeys(added) if id_ not in named]
        refusals = await _unfit_audiences(session, scope, added)
        if len(named) + len(fresh) > MOST_IDS:
            refusals.append(_too_many(len(named) + len(fresh)))
        _refuse_all(refusals)
        await _link(session, scope, id, fresh)
        return await _change(session, scope, current, clock(), {}) if fresh else current


async def remove_audiences(
    database: Database, clock: Clock, scope: Scope, id: str, removed: Sequence[str]
) -> ScheduleRow:
    """Raises `Refusal` when none would be left, and `Refusals` with the place of each audience that is not in it."""
    async with database.write(scope.tenant) as session:
        current = await _with_list(session, scope, id)
        named = await audience_ids(session, scope, id)
        _refuse_all(
            [
                Refusal(ErrorCode.NOT_FOUND, f"the audience {id_!r} is not in the schedule", ("audience_ids", str(at)))
                for at, id_ in enumerate(removed)
                if id_ not in named
            ]
        )
        if not set(named) - set(removed):
            message = "a schedule needs an audience: keep at least one, or delete the schedule"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("audience_ids",))
        if not removed:
            return current
        links = within(delete_rows(ScheduleAudienceRow), ScheduleAudienceRow, scope.tenant)
        await session.execute(links.where(_LINKS.schedule_id == id, _LINKS.audience_id.in_(list(removed))))
        return await _change(session, scope, current, clock(), {})


async def required(session: AsyncSession, scope: Scope, id: str, etag: str | None = None) -> ScheduleRow:
    row = (await get_many(session, scope, [id])).get(id)
    if row is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no schedule {id!r} in this sandbox", ("id",))
    if etag is not None and etag != str(row.revision):
        raise StaleEtag(str(row.revision), ("etag",))
    return row


async def audience_ids(session: AsyncSession, scope: Scope, id: str) -> list[str]:
    """The audiences that a schedule names."""
    statement = within(select(_LINKS.audience_id), ScheduleAudienceRow, scope.tenant).where(_LINKS.schedule_id == id)
    return list(await session.scalars(statement.order_by(_LINKS.audience_id)))


# ---------------------------------------------------------------- rules


def _unclear_work(new: NewSchedule) -> Iterator[Refusal]:
    """It has to be said exactly once what a run is to do."""
    if new.type == "EXPORT":
        if new.export is None:
            message = "a schedule of type EXPORT needs the `export` that each run starts"
            yield Refusal(ErrorCode.INVALID_INPUT, message, ("export",))
        if new.all_audiences or new.audience_ids is not None:
            message = "the `export` of a schedule of type EXPORT selects the audiences: omit this"
            yield Refusal(ErrorCode.INVALID_INPUT, message, ("audience_ids",))
        return
    if new.export is not None:
        message = f"a schedule of type {new.type} exports nothing: omit `export`, or create a schedule of type EXPORT"
        yield Refusal(ErrorCode.INVALID_INPUT, message, ("export",))
    if new.all_audiences == (new.audience_ids is not None):
        message = "a schedule is for either `audienceIds` or `allAudiences: true`: give one of the two"
        yield Refusal(ErrorCode.INVALID_INPUT, message, ("audience_ids",))
    elif new.audience_ids is not None and not new.audience_ids:
        message = "a schedule needs an audience: name at least one, or set `allAudiences: true`"
        yield Refusal(ErrorCode.INVALID_INPUT, message, ("audience_ids",))
    elif new.audience_ids is not None and len(set(new.audience_ids)) > MOST_IDS:
        yield _too_many(len(set(new.audience_ids)))


def _too_many(number: int) -> Refusal:
    message = f"{number:,} audiences are more than {MOST_IDS:,}: use `allAudiences: true` instead"
    return Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("audience_ids",))


def _not_upcoming(cron: str, now: datetime) -> list[Refusal]:
    try:
        quartz.upcoming(cron, now)
    except Refusal as refusal:
        return [refusal]
    return []


async def _unfit_audiences(session: AsyncSession, scope: Scope, ids: Sequence[str] | None) -> list[Refusal]:
    """Only what is computed can be evaluated at a time."""
    rows = await audiences.get_many(session, scope, set(ids or ()))
    refusals = []
    for at, id_ in enumerate(ids or ()):
        path = ("audience_ids", str(at))
        if id_ not in rows:
            refusals.append(Refusal(ErrorCode.NOT_FOUND, f"there is no audience {id_!r} in this sandbox", path))
        elif rows[id_].type != "SEGMENT_DEFINITION":
            message = f"{rows[id_].name!r} is an external audience: it is loaded, not evaluated, so leave it out"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
    return refusals


def _refuse_all(refusals: Sequence[Refusal]) -> None:
    if refusals:
        raise Refusals(refusals)


async def _with_list(session: AsyncSession, scope: Scope, id: str) -> ScheduleRow:
    """The schedule, when it has a list of audiences to change."""
    current = await required(session, scope, id)
    if current.type == "EXPORT":
        message = f"{current.name!r} starts exports: change their audiences in its `export`, by updateSchedule"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    if current.all_audiences:
        message = f"{current.name!r} is for all audiences: give it `audienceIds` by updateSchedule instead"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    return current


# ---------------------------------------------------------------- inside


def _merged(current: ScheduleRow, named: Sequence[str], changes: ScheduleChanges) -> NewSchedule:
    present = None if current.all_audiences or current.type == "EXPORT" else named
    ids, every = changes.get("audience_ids", present), changes.get("all_audiences", current.all_audiences)
    if "audience_ids" not in changes and every:
        ids = None
    if "all_audiences" not in changes and ids is not None:
        every = False
    present_export = None if current.export is None else NewExport.from_json(current.export)
    return NewSchedule(
        changes.get("name", current.name),
        changes.get("description", current.description),
        current.type,
        changes.get("cron_expression", current.cron_expression),
        changes.get("state", current.state),
        ids,
        every,
        changes.get("export", present_export),
    )


async def _checked_export(
    database: Database, lake: Lake, clock: Clock, scope: Scope, export: NewExport | None
) -> tuple[NewExport | None, list[Refusal]]:
    """An export as a schedule keeps it, or what is wrong with it, with paths from the schedule's input on."""
    if export is None:
        return None, []
    try:
        return await export_jobs.validate(database, lake, clock, scope, export), []
    except Refusals as wrong:
        return None, [Refusal(refusal.code, refusal.message, ("export", *refusal.path)) for refusal in wrong.refusals]


async def _exported(session: AsyncSession, scope: Scope, export: NewExport | None) -> list[str]:
    """The audiences that an export names."""
    asked = {(segment.namespace, segment.segment_id) for segment in export.segments} if export else set()
    fields = _AUDIENCES.id, _AUDIENCES.namespace, _AUDIENCES.audience_id
    statement = within(select(*fields), AudienceRow, scope.tenant)
    rows = await session.execute(statement.where(_AUDIENCES.audience_id.in_([id_ for _, id_ in asked])))
    return [row.id for row in rows if (row.namespace, row.audience_id) in asked]


def _next_due(cron: str, state: str, now: datetime) -> datetime | None:
    return quartz.parse(cron).next_after(now) if state == "ACTIVE" else None


async def _link(session: AsyncSession, scope: Scope, id: str, ids: Sequence[str]) -> None:
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "schedule_id": id}
    if ids:
        await session.execute(insert(ScheduleAudienceRow), [{**key, "audience_id": id_} for id_ in dict.fromkeys(ids)])


async def _change(
    session: AsyncSession, scope: Scope, current: ScheduleRow, now: datetime, change: Mapping[str, Any]
) -> ScheduleRow:
    mine = within(update_rows(ScheduleRow), ScheduleRow, scope.tenant).where(_SCHEDULES.id == current.id)
    written = {"revision": current.revision + 1, "last_modified_by": scope.user, "updated_at": now}
    await session.execute(mine.values(**change, **written))
    await publish(session, SCHEDULES)
    return (await get_many(session, scope, [current.id]))[current.id]


def _covers() -> ColumnElement[bool]:
    """Whether the schedule of a row is for the audience of that row."""
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
    return and_(same, or_(and_(_SCHEDULES.all_audiences, _AUDIENCES.type == "SEGMENT_DEFINITION"), link))


def _pairs(statement: AnySelect) -> AnySelect:
    """Schedules with the audiences that they are for, a row for each pair."""
    return statement.join_from(ScheduleRow, AudienceRow, _covers())


async def _counts(session: AsyncSession, scope: Scope, parent: Any, parents: Sequence[str]) -> dict[str, int]:
    counted = within(select(parent, func.count()), ScheduleRow, scope.tenant)
    rows = await session.execute(_pairs(counted).where(parent.in_(list(parents))).group_by(parent))
    counts = {parent_id: int(number) for parent_id, number in rows}
    return {parent_id: counts.get(parent_id, 0) for parent_id in parents}


def _schedule(row: Any) -> ScheduleRow:
    return as_row(ScheduleRow, row)
