"""Segment jobs: created, watched and cancelled here; `segment_runs` does what a worker does with one."""

from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope
from app.services.filters import DateTimeFilter, OrderBy
from app.services.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.services.rows import as_row, get_rows, select_rows
from app.storage.changes import Changes, append_update, changed_jobs, job_topic, jobs_topic, read_updates
from app.storage.claims import request_cancel
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.definitions import DefinitionRow, DefinitionVersionRow
from app.storage.tables.jobs import FINAL
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

MOST_IDS = 1_500
"""More definitions than this are asked for as all of them (segmentation-service.md, "Segment jobs")."""

KEY_LIFETIME = timedelta(hours=24)
PATIENCE_SECONDS = 5.0
"""How often a stream looks at the log without having been woken."""
_OVERLAP = timedelta(seconds=30)

_JOBS: Any = SegmentJobRow.__table__.c  # type: ignore[attr-defined]
_PARTS: Any = SegmentJobDefinitionRow.__table__.c  # type: ignore[attr-defined]
_NEVER = datetime.fromisoformat("9999-12-31T00:00:00+00:00")
_ORDER_COLUMNS = {
    "CREATED_AT": _JOBS.created_at,
    "UPDATED_AT": _JOBS.updated_at,
    "FINISHED_AT": func.coalesce(_JOBS.finished_at, _NEVER),
}
_BY_DEFINITION = Order("NEWEST", (Key(_PARTS.created_at, descending=True), Key(_PARTS.job_id, descending=True)))
_SEGMENTS = Order("DEFINITION", (Key(_PARTS.definition_id),))


@dataclass(frozen=True, slots=True)
class SegmentJobFilter:
    status: Collection[str] | None = None
    source: Collection[str] | None = None
    segment_id: str | None = None
    created_at: DateTimeFilter = field(default_factory=DateTimeFilter)


async def create(
    database: Database,
    clock: Clock,
    scope: Scope,
    definition_ids: Sequence[str] | None = None,
    all_definitions: bool = False,
    idempotency_key: str | None = None,
) -> SegmentJobRow:
    """Queues a job. The same `idempotency_key` within 24 hours gives the same job. Raises `Refusal`."""
    if all_definitions == (definition_ids is not None):
        message = "a job runs either `definitionIds` or `allDefinitions: true`: give one of the two"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("definition_ids",))
    if definition_ids is not None:
        _refuse_size(definition_ids)
    now = clock()
    async with database.write(scope.tenant) as session:
        if idempotency_key is not None and (known := await _by_key(session, scope, idempotency_key, now)) is not None:
            return known
        chosen = None if definition_ids is None else list(dict.fromkeys(definition_ids))
        job = SegmentJobRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            id=new_id(now),
            all_definitions=all_definitions,
            idempotency_key=idempotency_key,
            created_by=scope.user,
            created_at=now,
            updated_at=now,
        )
        session.add(job)
        await session.flush()
        frozen = await freeze_definitions(session, scope, job.id, now, chosen)
        _refuse_unknown(definition_ids, frozen)
        await append_update(session, job)
        return (await get_many(session, scope, [job.id]))[job.id]


async def freeze_definitions(
    session: AsyncSession, scope: Scope, job_id: str, created_at: datetime, chosen: Collection[str] | None
) -> set[str]:
    """Writes what the job runs, the present version of each chosen definition or of all, and returns their ids."""
    versions: Any = DefinitionVersionRow.__table__.c  # type: ignore[attr-defined]
    definitions: Any = DefinitionRow.__table__.c  # type: ignore[attr-defined]
    current = within(select(*versions), DefinitionVersionRow, scope.tenant).join(
        DefinitionRow,
        and_(
            definitions.organisation == versions.organisation,
            definitions.sandbox == versions.sandbox,
            definitions.id == versions.definition_id,
            definitions.version == versions.version,
        ),
    )
    if chosen is not None:
        current = current.where(definitions.id.in_(chosen))
    rows = [
        {
            "organisation": scope.organisation,
            "sandbox": scope.sandbox,
            "job_id": job_id,
            "definition_id": row.definition_id,
            "version": row.version,
            "expression": row.expression,
            "merge_policy_id": row.merge_policy_id,
            "created_at": created_at,
        }
        for row in await session.execute(current)
    ]
    old = within(delete(SegmentJobDefinitionRow), SegmentJobDefinitionRow, scope.tenant)
    await session.execute(old.where(_PARTS.job_id == job_id))
    if rows:
        await session.execute(insert(SegmentJobDefinitionRow), rows)
    return {row["definition_id"] for row in rows}


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> SegmentJobRow:
    """Asks for a stop: at once for a job that waits, soon for one that runs; a cancelled one is returned as it is.

    Raises `Refusal` for an unknown job and for one that has succeeded or failed.
    """
    async with database.write(scope.tenant) as session:
        row = (await session.execute(select_rows(SegmentJobRow, scope).where(_JOBS.id == id))).first()
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no segment job {id!r} in this sandbox", ("id",))
        if row.status in {"SUCCEEDED", "FAILED"}:
            message = f"the job has {row.status.lower()} and cannot be cancelled any more"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
        await request_cancel(session, scope.tenant, id, clock())
        return (await get_many(session, scope, [id]))[id]


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, SegmentJobRow]:
    return await get_rows(session, SegmentJobRow, scope, ids)


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: SegmentJobFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[SegmentJobRow]:
    """Newest first unless `order` says otherwise."""
    chosen = order or OrderBy("CREATED_AT", descending=True)
    keys = Key(_ORDER_COLUMNS[chosen.field], chosen.descending), Key(_JOBS.id, chosen.descending)
    statement = select_rows(SegmentJobRow, scope).where(*_conditions(scope, filter))
    return await fetch_page(session, statement, Order(chosen.name, keys), request, _job)


async def count(session: AsyncSession, scope: Scope, filter: SegmentJobFilter | None = None) -> int:
    statement = within(select(func.count()).select_from(SegmentJobRow), SegmentJobRow, scope.tenant)
    return int((await session.execute(statement.where(*_conditions(scope, filter)))).scalar_one())


async def page_by_definition(
    session: AsyncSession,
    scope: Scope,
    definition_ids: Sequence[str],
    request: PageRequest,
    filter: SegmentJobFilter | None = None,
) -> dict[str, Slice[SegmentJobRow]]:
    """The jobs that ran each definition, newest first."""
    statement = _jobs_of_definitions(select_rows(SegmentJobRow, scope)).where(*_conditions(scope, filter))
    return await fetch_pages(session, statement, _PARTS.definition_id, _BY_DEFINITION, request, definition_ids, _job)


async def counts_by_definition(
    session: AsyncSession, scope: Scope, definition_ids: Sequence[str], filter: SegmentJobFilter | None = None
) -> dict[str, int]:
    counted = within(select(_PARTS.definition_id, func.count()).select_from(SegmentJobRow), SegmentJobRow, scope.tenant)
    statement = _jobs_of_definitions(counted).where(_PARTS.definition_id.in_(definition_ids))
    rows = await session.execute(statement.where(*_conditions(scope, filter)).group_by(_PARTS.definition_id))
    found = {definition_id: int(number) for definition_id, number in rows}
    return {definition_id: found.get(definition_id, 0) for definition_id in definition_ids}


async def segments_by_job(
    session: AsyncSession, scope: Scope, job_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[SegmentJobDefinitionRow]]:
    """The definitions of each job, as it ran them, with their results."""
    statement = select_rows(SegmentJobDefinitionRow, scope)
    return await fetch_pages(session, statement, _PARTS.job_id, _SEGMENTS, request, job_ids, _segment)


async def segment_counts(session: AsyncSession, scope: Scope, job_ids: Sequence[str]) -> dict[str, int]:
    statement = within(select(_PARTS.job_id, func.count()), SegmentJobDefinitionRow, scope.tenant)
    rows = await session.execute(statement.where(_PARTS.job_id.in_(job_ids)).group_by(_PARTS.job_id))
    found = {job_id: int(number) for job_id, number in rows}
    return {job_id: found.get(job_id, 0) for job_id in job_ids}


async def watch(
    database: Database, changes: Changes, scope: Scope, id: str, after: int | None
) -> AsyncGenerator[SegmentJobRow, None]:
    """The present state of a job, then each later one in the order of `sequence`, until a final one has been given.

    `after` resumes: every state above it comes, none at or below it. Raises `Refusal` for an unknown job.
    """
    async with changes.subscribe(job_topic(scope.tenant, id)) as wakeups:
        async with database.session() as session:
            present = (await get_many(session, scope, [id])).get(id)
        if present is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no segment job {id!r} in this sandbox", ("id",))
        seen = present.sequence - 1 if after is None else after
        while True:
            async with database.session() as session:
                states = await read_updates(session, scope.tenant, id, seen)
            for state in states:
                seen = state.sequence
                yield state
                if state.status in FINAL:
                    return
            if not states and present.status in FINAL and seen >= present.sequence:
                return
            # The wait is bounded, so that a wake-up that got lost on its way costs seconds and not the stream.
            await wakeups.wait(PATIENCE_SECONDS)


async def watch_all(
    database: Database, changes: Changes, scope: Scope, status: Collection[str] | None = None
) -> AsyncGenerator[SegmentJobRow, None]:
    """Every later state of every job of the tenant, those of one job in the order of `sequence`; does not end."""
    async with changes.subscribe(jobs_topic(scope.tenant)) as wakeups:
        started = datetime.now(UTC)
        async with database.session() as session:
            seen = await changed_jobs(session, scope.tenant, started - _OVERLAP)
        while True:
            since = datetime.now(UTC) - _OVERLAP
            await wakeups.wait(PATIENCE_SECONDS)
            async with database.session() as session:
                newest = await changed_jobs(session, scope.tenant, since)
                fresh = {id_: seen.get(id_, 0) for id_, sequence in newest.items() if sequence > seen.get(id_, 0)}
                states = [
                    state
                    for id_, last in fresh.items()
                    for state in await read_updates(session, scope.tenant, id_, last)
                ]
            # A job that nobody touched for the whole overlap may only come back with states that are newer.
            seen = {**{id_: last for id_, last in seen.items() if id_ in newest}, **newest}
            for state in sorted(states, key=lambda state: (state.updated_at, state.id, state.sequence)):
                if status is None or state.status in status:
                    yield state


def _refuse_size(definition_ids: Sequence[str]) -> None:
    if not definition_ids:
        message = "the job would run nothing: name at least one definition, or say `allDefinitions: true`"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("definition_ids",))
    if len(definition_ids) > MOST_IDS:
        message = f"{len(definition_ids):,} ids are more than {MOST_IDS:,}: say `allDefinitions: true` instead"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("definition_ids",))


def _refuse_unknown(definition_ids: Sequence[str] | None, frozen: set[str]) -> None:
    if definition_ids is None:
        if not frozen:
            message = "the sandbox has no definitions, so the job would run nothing: create one first"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("all_definitions",))
        return
    unknown = [
        Refusal(
            ErrorCode.NOT_FOUND, f"there is no segment definition {id_!r} in this sandbox", ("definition_ids", str(at))
        )
        for at, id_ in enumerate(definition_ids)
        if id_ not in frozen
    ]
    if unknown:
        raise Refusals(unknown)


async def _by_key(session: AsyncSession, scope: Scope, key: str, now: datetime) -> SegmentJobRow | None:
    """The job of this idempotency key; a key older than 24 hours is free again."""
    row = (await session.execute(select_rows(SegmentJobRow, scope).where(_JOBS.idempotency_key == key))).first()
    if row is None:
        return None
    if row.created_at > now - KEY_LIFETIME:
        return as_row(SegmentJobRow, row)
    freed = within(update(SegmentJobRow), SegmentJobRow, scope.tenant).where(_JOBS.id == row.id)
    await session.execute(freed.values(idempotency_key=None))
    return None


def _conditions(scope: Scope, filter: SegmentJobFilter | None) -> Iterator[ColumnElement[bool]]:
    if filter is None:
        return
    if filter.status is not None:
        yield _JOBS.status.in_(list(filter.status))
    if filter.source is not None:
        yield _JOBS.source.in_(list(filter.source))
    if filter.segment_id is not None:
        # An alias, since the list by definition joins the same table.
        other: Any = SegmentJobDefinitionRow.__table__.alias().c  # type: ignore[attr-defined]
        yield exists().where(
            other.organisation == _JOBS.organisation,
            other.sandbox == _JOBS.sandbox,
            other.job_id == _JOBS.id,
            other.definition_id == filter.segment_id,
        )
    yield from filter.created_at.on(_JOBS.created_at)


def _jobs_of_definitions(statement: Select[Any]) -> Select[Any]:
    return statement.join(
        SegmentJobDefinitionRow,
        and_(
            _PARTS.organisation == _JOBS.organisation,
            _PARTS.sandbox == _JOBS.sandbox,
            _PARTS.job_id == _JOBS.id,
        ),
    )


def _job(row: Any) -> SegmentJobRow:
    return as_row(SegmentJobRow, row)


def _segment(row: Any) -> SegmentJobDefinitionRow:
    return as_row(SegmentJobDefinitionRow, row)
