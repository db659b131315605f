"""Creates and changes schedules; `schedules/run.py` starts their runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app import quartz
from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope
from app.services.audiences import reads as audiences
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.input import NewExport
from app.services.jobs.schedules.reads import audience_ids, get_many, required
from app.services.jobs.segment.requests import MOST_IDS
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.sessions.writing import insert_rows, update_row
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.schedules import ScheduleAudienceRow, ScheduleRow, ScheduleState, ScheduleType
from app.storage.tenancy import within
from app.storage.topics import SCHEDULES, publish

_SCHEDULES = columns(ScheduleRow)
_LINKS = columns(ScheduleAudienceRow)
_AUDIENCES = columns(AudienceRow)


@dataclass(frozen=True, slots=True)
class NewSchedule:
    """Without `cron_expression` it gets its own time, once a day. A schedule of type EXPORT has an `export` and no
    audiences of its own; other types have no `export`."""

    name: str
    description: str | None = None
    type: ScheduleType = ScheduleType.BATCH_SEGMENTATION
    cron_expression: str | None = None
    state: ScheduleState = ScheduleState.INACTIVE
    audience_ids: Sequence[str] | None = None
    all_audiences: bool = False
    export: NewExport | None = None


class ScheduleChanges(TypedDict, total=False):
    """Only keys that are present change. Setting `audience_ids` ends `all_audiences`, and vice versa."""

    name: str
    description: str | None
    cron_expression: str
    state: ScheduleState
    audience_ids: Sequence[str] | None
    all_audiences: bool
    export: NewExport | None


# ---------------------------------------------------------------- writes


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewSchedule) -> ScheduleRow:
    """Creates a schedule. Raises `Refusals` with all errors of the input."""
    export, refusals = await _checked_export(database, lake, clock, scope, new.export)
    now = clock()
    id_ = new_id(now)
    cron = quartz.daily(id_) if new.cron_expression is None else new.cron_expression
    async with database.write(scope.tenant) as session:
        refuse_bad_name(new.name, refusals)
        refusals += [*_not_upcoming(cron, now), *_unclear_work(new)]
        _refuse_all([*refusals, *await _unfit_audiences(session, scope, new.audience_ids)])
        named = new.audience_ids or await _exported(session, scope, export)
        await insert_rows(
            session,
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
            ),
        )
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
    """Updates the given fields; a started run is not affected. Raises like `create`, and `StaleEtag`."""
    now = clock()
    export, refusals = await _checked_export(database, lake, clock, scope, changes.get("export"))
    async with database.write(scope.tenant) as session:
        current = await required(session, scope, id, etag)
        named = await audience_ids(session, scope, id)
        merged = _merged(current, named, changes)
        cron = str(merged.cron_expression)
        retimed = cron != current.cron_expression or merged.state != current.state
        refuse_bad_name(merged.name, refusals)
        # Changes to its audiences, or the passing of time, must not prevent a new name.
        activated = retimed and merged.state == ScheduleState.ACTIVE
        if activated or "cron_expression" in changes:
            refusals += _not_upcoming(cron, now)
        if activated or changes.keys() & {"audience_ids", "all_audiences", "export"}:
            refusals += [*_unclear_work(merged), *await _unfit_audiences(session, scope, merged.audience_ids)]
        _refuse_all(refusals)
        change = {name: getattr(merged, name) for name in ("name", "description", "state", "all_audiences")}
        if retimed:
            # A due time stays due, whatever else changes.
            change |= {"cron_expression": cron, "next_due_at": _next_due(cron, merged.state, now)}
        scheduled = set(merged.audience_ids or ())
        if current.type == ScheduleType.EXPORT:
            scheduled = set(named) if export is None else set(await _exported(session, scope, export))
        if export is not None:
            change["export"] = export.as_json()
        if scheduled != set(named):
            links = within(delete_rows(ScheduleAudienceRow), ScheduleAudienceRow, scope.tenant)
            await session.execute(links.where(_LINKS.schedule_id == id))
            await _link(session, scope, id, sorted(scheduled))
        return await _change(session, scope, current, now, change)


async def delete(database: Database, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes a schedule. Jobs that it started remain and continue."""
    async with database.write(scope.tenant) as session:
        await required(session, scope, id, etag)
        await session.execute(within(delete_rows(ScheduleRow), ScheduleRow, scope.tenant).where(_SCHEDULES.id == id))


async def add_audiences(database: Database, clock: Clock, scope: Scope, id: str, added: Sequence[str]) -> ScheduleRow:
    """Adds audiences; existing ones are kept. Raises `Refusal`, or `Refusals` with the index of each invalid
    audience."""
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
    """Removes audiences. Raises `Refusal` if none would remain, and `Refusals` with the index of each audience not in
    it."""
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


# ---------------------------------------------------------------- rules


def _unclear_work(new: NewSchedule) -> Iterator[Refusal]:
    """A run's work must be specified exactly once."""
    if new.type == ScheduleType.EXPORT:
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
    """Only computed audiences can be evaluated on a schedule."""
    rows = await audiences.get_many(session, scope, set(ids or ()))
    refusals = []
    for at, id_ in enumerate(ids or ()):
        path = ("audience_ids", str(at))
        if id_ not in rows:
            refusals.append(Refusal(ErrorCode.NOT_FOUND, f"there is no audience {id_!r} in this sandbox", path))
        elif rows[id_].type != AudienceType.SEGMENT_DEFINITION:
            message = f"{rows[id_].name!r} is an external audience: it is loaded, not evaluated, so leave it out"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
    return refusals


def _refuse_all(refusals: Sequence[Refusal]) -> None:
    if refusals:
        raise Refusals(refusals)


async def _with_list(session: AsyncSession, scope: Scope, id: str) -> ScheduleRow:
    """The schedule, if its list of audiences can be changed."""
    current = await required(session, scope, id)
    if current.type == ScheduleType.EXPORT:
        message = f"{current.name!r} starts exports: change their audiences in its `export`, by updateSchedule"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    if current.all_audiences:
        message = f"{current.name!r} is for all audiences: give it `audienceIds` by updateSchedule instead"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
    return current


# ---------------------------------------------------------------- inside


def _merged(current: ScheduleRow, named: Sequence[str], changes: ScheduleChanges) -> NewSchedule:
    present = None if current.all_audiences or current.type == ScheduleType.EXPORT else named
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
    """An export in its stored form, or its errors, with paths relative to the schedule's input."""
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


def _next_due(cron: str, state: ScheduleState, now: datetime) -> datetime | None:
    return quartz.parse(cron).next_after(now) if state == ScheduleState.ACTIVE else None


async def _link(session: AsyncSession, scope: Scope, id: str, ids: Sequence[str]) -> None:
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "schedule_id": id}
    if ids:
        await insert_rows(session, *(ScheduleAudienceRow(**key, audience_id=id_) for id_ in dict.fromkeys(ids)))


async def _change(
    session: AsyncSession, scope: Scope, current: ScheduleRow, now: datetime, change: Mapping[str, object]
) -> ScheduleRow:
    written = {"revision": current.revision + 1, "last_modified_by": scope.user, "updated_at": now}
    await update_row(session, ScheduleRow, scope.tenant, current.id, {**change, **written})
    await publish(session, SCHEDULES)
    return (await get_many(session, scope, [current.id]))[current.id]
