"""Creates, lists and cancels segment jobs; `segment/run.py` is the part of the worker."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, String, and_, bindparam, delete, exists, func, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services import merge_policies
from app.services.jobs import shared as jobs
from app.services.lists.filters import OrderBy
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import among, among_values, as_row, get_rows, rows_of_any
from app.services.lists.validation import refuse_bad_key
from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import add_job
from app.storage.sessions.reading import Prepared, dialect_of, read
from app.storage.tables.audiences import AudienceRow, LifecycleState
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow, DefinitionVersionRow
from app.storage.tables.jobs import JobKind
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import AnySelect, parameters, same_tenant, within, within_any

MOST_IDS = 1_500
"""With more definitions than this, a request must use all of them (segmentation-service.md, "Segment jobs")."""

KIND = JobKind.SEGMENT

LARGE = frozenset({"metrics", "snapshot"})
"""Columns that grow with the data. A job runs many definitions, so lists by definition would repeat them many times."""

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
    """Queues a job. The same `idempotency_key` within 24 hours returns the same job. Raises `Refusal`."""
    refuse_misfits(definition_ids, all_definitions)
    refuse_bad_key(idempotency_key)
    now = clock()
    async with database.write(scope.tenant) as session:
        if idempotency_key is not None:
            earlier = await jobs.by_key(session, scope, KIND, idempotency_key, now)
            if earlier is not None:
                return _job(earlier)
        return await queue(session, now, scope, definition_ids, idempotency_key, origin)


def refuse_misfits(definition_ids: Sequence[str] | None, all_definitions: bool) -> None:
    """Raises `Refusal` unless the definitions are specified exactly once and are not too many."""
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
) -> SegmentJobRow:
    """Queues a job for these definitions, or for all, in the caller's transaction. Raises `Refusal`."""
    job = SegmentJobRow(
        **jobs.new_columns(scope, now, new_id(now), origin, idempotency_key), all_definitions=definition_ids is None
    )
    await add_job(session, job, KIND)
    frozen = await freeze_definitions(session, scope, job.id, now, definition_ids)
    _refuse_unknown(definition_ids, frozen)
    return job


async def with_dependencies(session: AsyncSession, scope: Scope, ids: Collection[str]) -> list[str]:
    """These definitions and all that they depend on, so that one job evaluates those first."""
    definitions = columns(DefinitionRow)
    dependencies = columns(DefinitionDependencyRow)
    computed = within(select(definitions.id), DefinitionRow, scope.tenant)
    needed = computed.where(definitions.id.in_(list(ids))).cte("needed", recursive=True)
    further = within(select(dependencies.depends_on_id), DefinitionDependencyRow, scope.tenant)
    needed = needed.union(further.join(needed, dependencies.definition_id == needed.c.id))
    # Dependencies may include external audiences, which are not evaluated.
    statement = computed.where(definitions.id.in_(select(needed.c.id))).order_by(definitions.id)
    return list(await session.scalars(statement))


async def freeze_definitions(
    session: AsyncSession, scope: Scope, job_id: str, created_at: datetime, chosen: Collection[str] | None
) -> set[str]:
    """Records the current version of each chosen definition, or of all published ones, and returns their ids. The job
    has no definitions yet."""
    values = {**parameters(scope.tenant), "frozen_job": job_id, "frozen_at": created_at}
    if chosen is not None:
        values["among"] = among_values(session, chosen)
    rows = await read(session, _frozen(dialect_of(session), chosen is None), values)
    return {row.definition_id for row in rows}


async def freeze_again(
    session: AsyncSession, scope: Scope, job_id: str, created_at: datetime, chosen: Collection[str] | None
) -> None:
    """Replaces the definitions that a job has recorded, as `freeze_definitions`."""
    old = within(delete(SegmentJobDefinitionRow), SegmentJobDefinitionRow, scope.tenant)
    await session.execute(old.where(_PARTS.job_id == job_id))
    await freeze_definitions(session, scope, job_id, created_at, chosen)


@cache
def _frozen(dialect: str, all_published: bool) -> Prepared:
    """Inserts the current versions into the job `frozen_job`; those of all published definitions, or `among` some."""
    versions, definitions, audiences = columns(DefinitionVersionRow), columns(DefinitionRow), columns(AudienceRow)
    written: dict[Column[Any], ColumnElement[Any]] = {
        _PARTS.organisation: versions.organisation,
        _PARTS.sandbox: versions.sandbox,
        _PARTS.job_id: bindparam("frozen_job", type_=String),
        _PARTS.definition_id: versions.definition_id,
        _PARTS.version: versions.version,
        _PARTS.expression: versions.expression,
        _PARTS.kept: versions.kept,
        _PARTS.merge_policy_id: versions.merge_policy_id,
        _PARTS.created_at: bindparam("frozen_at", type_=_PARTS.created_at.type),
        _PARTS.by_namespace: literal({}, _PARTS.by_namespace.type),
        _PARTS.by_status: literal({}, _PARTS.by_status.type),
    }
    same = and_(
        same_tenant(definitions, versions),
        definitions.id == versions.definition_id,
        definitions.version == versions.version,
    )
    current = within_any(select(*written.values()), DefinitionVersionRow).join(DefinitionRow, same)
    if all_published:
        published = within_any(select(audiences.id), AudienceRow)
        published = published.where(audiences.lifecycle_state == LifecycleState.PUBLISHED)
        current = current.where(definitions.id.in_(published))
    else:
        # Of both: PostgreSQL does not conclude one from the other, and would read all versions of the tenant.
        current = current.where(among(dialect, definitions.id), among(dialect, versions.definition_id))
    statement = insert(table(SegmentJobDefinitionRow)).from_select(list(written), current)
    return Prepared(statement.returning(_PARTS.definition_id))


def pinned_policy(job: SegmentJobRow, id: str) -> MergePolicyRow | None:
    """A merge policy as of the job's start, regardless of later changes; None before the job has begun."""
    policy = (job.snapshot or {}).get("merge_policies", {}).get(id)
    return None if policy is None else merge_policies.policy_from_json(Tenant(job.organisation, job.sandbox), policy)


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> SegmentJobRow:
    """Requests cancellation, as described at `jobs.cancel`. Raises `Refusal`."""
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
    """Newest first by default."""
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
    """The jobs that ran each definition, newest first; without the columns in `LARGE`."""
    listing = _of_definitions()
    if filter is not None:
        filtered = listing.statement.where(*_conditions(filter))
        listing = Listing(filtered, listing.order, None, listing.parent)
    return await listing.pages(session, scope.tenant, request, definition_ids)


@cache
def _of_definitions() -> Listing[SegmentJobRow]:
    return Listing(_jobs_of_definitions(rows_of_any(SegmentJobRow, LARGE)), _BY_DEFINITION, None, _PARTS.definition_id)


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
