"""Segment jobs: created, watched and cancelled here; `segment_runs` does what a worker does with one."""

from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, delete, exists, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.filters import DateTimeFilter, OrderBy
from app.services.merge_policies import ensure_default
from app.services.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.services.rows import as_row, get_rows, select_rows
from app.storage.changes import Changes, append_update, read_updates
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionRow, DefinitionVersionRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

MOST_IDS = 1_500
"""More definitions than this are asked for as all of them (segmentation-service.md, "Segment jobs")."""

FINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
KEY_LIFETIME = timedelta(hours=24)

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
    _refuse_unclear(definition_ids, all_definitions)
    await ensure_default(database, clock, scope)
    now = clock()
    async with database.write() as session:
        if idempotency_key is not None and (known := await _by_key(session, scope, idempotency_key, now)) is not None:
            return known
        chosen = None if all_definitions else list(dict.fromkeys(definition_ids or ()))
        await _refuse_unknown(session, scope, chosen, definition_ids or ())
        job = SegmentJobRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            id=new_id(now),
            status="QUEUED",
            source="API",
            all_definitions=all_definitions,
            idempotency_key=idempotency_key,
            created_by=scope.user,
            created_at=now,
            updated_at=now,
        )
        session.add(job)
        await session.flush()
        await freeze_definitions(session, scope, job.id, now, chosen)
        await append_update(session, job)
    return await _required(database, scope, job.id)


async def freeze_definitions(
    session: AsyncSession, scope: Scope, job: SegmentJobRow, chosen: Sequence[str] | None
) -> None:
    """Writes what the job runs: the present version of each chosen definition, or of all (segmentation-service.md)."""
    versions: Any = DefinitionVersionRow.__table__.c  # type: ignore[attr-defined]
    definitions: Any = DefinitionRow.__table__.c  # type: ignore[attr-defined]
    current = within(select(versions), DefinitionVersionRow, scope.tenant).join(
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
            "job_id": job.id,
            "definition_id": row.definition_id,
            "version": row.version,
            "expression": row.expression,
            "merge_policy_id": row.merge_policy_id,
            "created_at": job.created_at,
        }
        for row in await session.execute(current)
    ]
    await session.execute(within(delete(SegmentJobDefinitionRow), SegmentJobDefinitionRow, scope.tenant).where(_PARTS.job_id == job.id))
    if rows:
        await session.execute(insert(SegmentJobDefinitionRow), rows)


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> SegmentJobRow:
    """Asks for a stop: at once for a job that waits, soon for one that runs; a cancelled one is returned as it is.

    Raises `Refusal` for an unknown job and for one that has succeeded or failed.
    """
    async with database.write() as session:
        row = (await session.execute(select_rows(SegmentJobRow, scope).where(_JOBS.id == id))).first()
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no segment job {id!r} in this sandbox", ("id",))
        if row.status in {"SUCCEEDED", "FAILED"}:
            message = f"the job has {row.status.lower()} and cannot be cancelled any more"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
        if row.status not in {"CANCELLING", "CANCELLED"}:
            await request_cancel(session, scope.tenant, id, clock())
    return await _required(database, scope, id)


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
    return (await session.execute(statement.where(*_conditions(scope, filter)))).scalar_one()


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
