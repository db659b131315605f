"""Segment jobs: created, listed and cancelled here; `segment_runs` does what a worker does with one."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services import merge_policies
from app.services.jobs import shared as jobs
from app.services.lists.filters import OrderBy
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, get_rows, rows_of_any
from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import append_update
from app.storage.tables.audiences import AudienceRow, LifecycleState
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow, DefinitionVersionRow
from app.storage.tables.jobs import JobKind
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import AnySelect, same_tenant, within

MOST_IDS = 1_500
"""More definitions than this are asked for as all of them (segmentation-service.md, "Segment jobs")."""

KIND = JobKind.SEGMENT

LARGE = frozenset({"metrics", "snapshot"})
"""Columns that grow with the data. A job runs many definitions, so lists by definition would give them many times."""

_JOBS = columns(SegmentJobRow)
_PARTS = columns(SegmentJobDefinitionRow)
_BY_DEFINITION = Order("NEWEST", (Key(_PARTS.created_at, descending=True), Key(_PARTS.job_id, descending=True)))
_SEGMENTS = Order("DEFINITION", (Key(_PARTS.definition_id),))


@dataclass(frozen=True, slots=True)
class SegmentJobFilter(jobs.JobFilter):
    segment_id: str | None = None


async def create(
    database: Database,
    clock: Clock,
    scope: Scope,
    definition_ids: Sequence[str] | None = None,
    all_definitions: bool = False,
    idempotency_key: str | None = None,
    origin: jobs.Origin = jobs.API,
) -> SegmentJobRow:
    """Queues a job. The same `idempotency_key` within 24 hours gives the same job. Raises `Refusal`."""
    refuse_misfits(definition_ids, all_definitions)
    now = clock()
    async with database.write(scope.tenant) as session:
        if idempotency_key is not None:
            earlier = await jobs.by_key(session, scope, KIND, idempotency_key, now)
            if earlier is not None:
                return _job(earlier)
        id_ = await queue(session, now, scope, definition_ids, idempotency_key, origin)
        return (await get_many(session, scope, [id_]))[id_]


def refuse_misfits(definition_ids: Sequence[str] | None, all_definitions: bool) -> None:
    """Raises `Refusal` unless it is said exactly once what to run, and not too much."""
    if all_definitions == (definition_ids is not None):
        message = "a job runs either `definitionIds` or `allDefinitions: true`: give one of the two"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("definition_ids",))
    if definition_ids is not None:
        _refuse_size(definition_ids)


async def queue(
    session: AsyncSession,
    now: datetime,
    scope: Scope,
    definition_ids: Sequence[str] | None,
    idempotency_key: str | None = None,
    origin: jobs.Origin = jobs.API,
) -> str:
    """Queues a job for these definitions, or for all, in the caller's transaction. Raises `Refusal`."""
    job = SegmentJobRow(
        **jobs.new_columns(scope, now, new_id(now), origin, idempotency_key), all_definitions=definition_ids is None
    )
    session.add(job)
    await session.flush()
    unique_ids = None if definition_ids is None else list(dict.fromkeys(definition_ids))
    frozen = await freeze_definitions(session, scope, job.id, now, unique_ids)
    _refuse_unknown(definition_ids, frozen)
    await append_update(session, job, KIND)
    return job.id


async def with_dependencies(session: AsyncSession, scope: Scope, ids: Collection[str]) -> list[str]:
    """These definitions and all that they are made of, so that one job evaluates those first."""
    definitions = columns(DefinitionRow)
    dependencies = columns(DefinitionDependencyRow)
    computed = within(select(definitions.id), DefinitionRow, scope.tenant)
    needed = computed.where(definitions.id.in_(list(ids))).cte("needed", recursive=True)
    further = within(select(dependencies.depends_on_id), DefinitionDependencyRow, scope.tenant)
    needed = needed.union(further.join(needed, dependencies.definition_id == needed.c.id))
    # What they are made of may also be external audiences, which nobody evaluates.
    statement = computed.where(definitions.id.in_(select(needed.c.id))).order_by(definitions.id)
    return list(await session.scalars(statement))


async def freeze_definitions(
    session: AsyncSession, scope: Scope, job_id: str, created_at: datetime, chosen: Collection[str] | None
) -> set[str]:
    """Writes what the job runs, the present version of each chosen definition or of all that are published, and returns
    their ids."""
    versions = columns(DefinitionVersionRow)
    definitions = columns(DefinitionRow)
    current = within(select(*versions), DefinitionVersionRow, scope.tenant).join(
        DefinitionRow,
        and_(
            same_tenant(definitions, versions),
            definitions.id == versions.definition_id,
            definitions.version == versions.version,
        ),
    )
    if chosen is not None:
        current = current.where(definitions.id.in_(chosen))
    else:
        audiences = columns(AudienceRow)
        published = within(select(audiences.id), AudienceRow, scope.tenant)
        current = current.where(
            definitions.id.in_(published.where(audiences.lifecycle_state == LifecycleState.PUBLISHED))
        )
    rows = [
        {
            "organisation": scope.organisation,
            "sandbox": scope.sandbox,
            "job_id": job_id,
            "definition_id": row.definition_id,
            "version": row.version,
            "expression": row.expression,
            "kept": row.kept,
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


def pinned_policy(job: SegmentJobRow, id: str) -> MergePolicyRow | None:
    """A merge policy as the job has it, whatever has become of it since; None before the job has begun."""
    policy = (job.snapshot or {}).get("merge_policies", {}).get(id)
    return None if policy is None else merge_policies.policy_from_json(Tenant(job.organisation, job.sandbox), policy)


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> SegmentJobRow:
    """Asks for a stop, as `jobs.cancel` says. Raises `Refusal`."""
    async with database.write(scope.tenant) as session:
        return _job(await jobs.cancel(session, clock, scope, KIND, id))


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
    return await jobs.page(session, scope, KIND, request, _conditions(filter), order)


async def count(session: AsyncSession, scope: Scope, filter: SegmentJobFilter | None = None) -> int:
    return await jobs.count(session, scope, KIND, _conditions(filter))


async def page_by_definition(
    session: AsyncSession,
    scope: Scope,
    definition_ids: Sequence[str],
    request: PageRequest,
    filter: SegmentJobFilter | None = None,
) -> dict[str, Slice[SegmentJobRow]]:
    """The jobs that ran each definition, newest first; without what is in `LARGE`."""
    listing = _of_definitions()
    if filter is not None:
        filtered = listing.statement.where(*_conditions(filter))
        listing = Listing(filtered, listing.order, _job, listing.parent)
    return await listing.pages(session, scope.tenant, request, definition_ids)


@cache
def _of_definitions() -> Listing[SegmentJobRow]:
    return Listing(_jobs_of_definitions(rows_of_any(SegmentJobRow, LARGE)), _BY_DEFINITION, _job, _PARTS.definition_id)


async def counts_by_definition(
    session: AsyncSession, scope: Scope, definition_ids: Sequence[str], filter: SegmentJobFilter | None = None
) -> dict[str, int]:
    counted = within(select(_PARTS.definition_id, func.count()).select_from(SegmentJobRow), SegmentJobRow, scope.tenant)
    statement = _jobs_of_definitions(counted).where(_PARTS.definition_id.in_(definition_ids))
    rows = await session.execute(statement.where(*_conditions(filter)).group_by(_PARTS.definition_id))
    counts = {definition_id: int(number) for definition_id, number in rows}
    return {definition_id: counts.get(definition_id, 0) for definition_id in definition_ids}


async def segments_by_job(
    session: AsyncSession, scope: Scope, job_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[SegmentJobDefinitionRow]]:
    """The definitions of each job, as it ran them, with their results."""
    return await _segments().pages(session, scope.tenant, request, job_ids)


@cache
def _segments() -> Listing[SegmentJobDefinitionRow]:
    return Listing(rows_of_any(SegmentJobDefinitionRow), _SEGMENTS, _segment, _PARTS.job_id)


async def segment_counts(session: AsyncSession, scope: Scope, job_ids: Sequence[str]) -> dict[str, int]:
    statement = within(select(_PARTS.job_id, func.count()), SegmentJobDefinitionRow, scope.tenant)
    rows = await session.execute(statement.where(_PARTS.job_id.in_(job_ids)).group_by(_PARTS.job_id))
    counts = {job_id: int(number) for job_id, number in rows}
    return {job_id: counts.get(job_id, 0) for job_id in job_ids}


def _refuse_size(definition_ids: Sequence[str]) -> None:
    if not definition_ids:
        message = "a job needs a definition: name at least one, or set `allDefinitions: true`"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("definition_ids",))
    if len(definition_ids) > MOST_IDS:
        message = f"{len(definition_ids):,} ids are more than {MOST_IDS:,}: use `allDefinitions: true` instead"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("definition_ids",))


def _refuse_unknown(definition_ids: Sequence[str] | None, frozen: set[str]) -> None:
    if definition_ids is None:
        if not frozen:
            message = "the sandbox has no published definitions, so the job has nothing to run: publish one first"
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


def _conditions(filter: SegmentJobFilter | None) -> Iterator[ColumnElement[bool]]:
    if filter is None:
        return
    yield from filter.on(_JOBS)
    if filter.segment_id is not None:
        # An alias, since the list by definition joins the same table.
        other = table(SegmentJobDefinitionRow).alias().c
        yield exists().where(
            same_tenant(other, _JOBS),
            other.job_id == _JOBS.id,
            other.definition_id == filter.segment_id,
        )


def _jobs_of_definitions(statement: AnySelect) -> AnySelect:
    return statement.join(
        SegmentJobDefinitionRow,
        and_(
            same_tenant(_PARTS, _JOBS),
            _PARTS.job_id == _JOBS.id,
        ),
    )


def _job(row: object) -> SegmentJobRow:
    return as_row(SegmentJobRow, row)


def _segment(row: object) -> SegmentJobDefinitionRow:
    return as_row(SegmentJobDefinitionRow, row)
