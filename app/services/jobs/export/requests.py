"""Validates, creates, lists and cancels export jobs; `export/run.py` is the part of the worker."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services import merge_policies
from app.services.jobs import shared as jobs
from app.services.jobs.export.input import (
    NewExport,
    events_as_json,
    filter_as_json,
)
from app.services.jobs.export.rules import form_refusals, look_up, unknown_paths
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.filters import OrderBy
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, get_rows, rows_of_any
from app.services.lists.validation import refuse_bad_key
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.job_log import add_job
from app.storage.queue.claims import request_cancel
from app.storage.sessions.writing import insert_rows
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.datasets import BatchRow
from app.storage.tables.export_jobs import ExportJobAudienceRow, ExportJobRow
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tenancy import same_tenant, within

KIND = JobKind.EXPORT

_JOBS = columns(ExportJobRow)
_ASKED = columns(ExportJobAudienceRow)
_BATCHES = columns(BatchRow)
_BATCH_ORDER = Order("BATCH", (Key(_BATCHES.id),))


# ---------------------------------------------------------------- created


async def create(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    new: NewExport,
    idempotency_key: str | None = None,
    origin: jobs.Origin = jobs.API,
) -> ExportJobRow:
    """Queues an export. The same `idempotency_key` within 24 hours returns the same job.

    With `evaluate_first`, a segment job is queued first, and the export starts when it has ended. Raises `Refusals`
    with all errors.
    """
    refuse_bad_key(idempotency_key)
    now = clock()
    if idempotency_key is not None:
        async with database.write(scope.tenant) as session:
            if (earlier := await jobs.by_key(session, scope, KIND, idempotency_key, now)) is not None:
                return as_row(ExportJobRow, earlier)
    await merge_policies.ensure_default(database, clock, scope)
    refusals = [*form_refusals(new), *await unknown_paths(database, lake, scope, new)]
    async with database.write(scope.tenant) as session:
        if idempotency_key is not None:
            earlier = await jobs.by_key(session, scope, KIND, idempotency_key, now)
            if earlier is not None:
                return as_row(ExportJobRow, earlier)
        id_ = await queue(session, now, scope, new, refusals, idempotency_key, origin)
        return (await get_many(session, scope, [id_]))[id_]


async def queue(
    session: AsyncSession,
    now: datetime,
    scope: Scope,
    new: NewExport,
    known: Sequence[Refusal] = (),
    idempotency_key: str | None = None,
    origin: jobs.Origin = jobs.API,
) -> str:
    """Queues an export in the caller's transaction. Raises `Refusals` with the `known` errors and all others."""
    refusals = list(known)
    checked = await look_up(session, scope, new, refusals, scheduled=False)
    if refusals or checked is None:
        raise Refusals(refusals)
    id_ = new_id(now)
    waits_for = None
    if new.evaluate_first:
        computed = [audience.id for audience in checked.audiences if audience.type == AudienceType.SEGMENT_DEFINITION]
        needed = await segment_jobs.with_dependencies(session, scope, computed) if new.segments else None
        waits_for = await _queue_evaluation(session, now, scope, needed, origin)
    job = ExportJobRow(
        **jobs.new_columns(scope, now, id_, origin, idempotency_key),
        fields=list(new.fields),
        merge_policy_id=checked.policy.id,
        merge_policy=merge_policies.policy_as_json(checked.policy),
        filter=filter_as_json(_definite(new, checked.audiences).filter),
        additional_fields=events_as_json(new.additional_fields),
        schema_name=new.schema_name,
        destination_id=new.destination_id,
        segment_per_batch=new.segment_per_batch,
        evaluate_first=new.evaluate_first,
        waits_for=waits_for,
    )
    await add_job(session, job, KIND)
    await _write_audiences(session, scope, id_, new, checked.audiences)
    return id_


async def validate(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewExport) -> NewExport:
    """The export in the form stored by a schedule, with unambiguous audience references.

    Its audiences need not have been evaluated yet. Raises `Refusals` with all errors.
    """
    await merge_policies.ensure_default(database, clock, scope)
    refusals = [*form_refusals(new), *await unknown_paths(database, lake, scope, new)]
    async with database.session() as session:
        checked = await look_up(session, scope, new, refusals, scheduled=True)
    if refusals or checked is None:
        raise Refusals(refusals)
    return _definite(new, checked.audiences)


def _definite(new: NewExport, audiences: Sequence[AudienceRow]) -> NewExport:
    """With each segment given by `audienceId` and namespace."""
    if new.filter is None:
        return new
    segments = tuple(
        replace(asked, segment_id=audience.audience_id, namespace=audience.namespace)
        for asked, audience in zip(new.segments, audiences, strict=True)
    )
    return replace(new, filter=replace(new.filter, segments=segments))


def policy_of(job: ExportJobRow) -> MergePolicyRow:
    """The merge policy as of the job's creation, or of its start once it has begun, regardless of later changes."""
    return merge_policies.policy_from_json(Tenant(job.organisation, job.sandbox), job.merge_policy)


async def cancel(database: Database, clock: Clock, scope: Scope, id: str) -> ExportJobRow:
    """Requests cancellation, as described at `jobs.cancel`, also of the evaluation that the export waits for. Raises
    `Refusal`.

    An export whose batches have begun to become visible cannot be cancelled, since that would leave a partial result.
    """
    async with database.write(scope.tenant) as session:
        row = as_row(ExportJobRow, await jobs.cancel(session, clock, scope, KIND, id))
        if row.status == JobStatus.PROCESSING:
            message = "the export is publishing its batches and is about to end: it can no longer be cancelled"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
        if row.waits_for is not None:
            await request_cancel(session, scope.tenant, row.waits_for, clock(), JobKind.SEGMENT)
        return row


# ---------------------------------------------------------------- read


@dataclass(frozen=True, slots=True)
class ExportJobFilter(jobs.JobFilter):
    """`segment_id` is an audience's raw id or its `audienceId`."""

    segment_id: str | None = None
    destination_id: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        yield from self.on(_JOBS)
        if self.destination_id is not None:
            yield _JOBS.destination_id == self.destination_id
        if self.segment_id is not None:
            named = or_(_ASKED.audience_id == self.segment_id, _ASKED.segment_id == self.segment_id)
            same = same_tenant(_ASKED, _JOBS)
            yield exists().where(same, _ASKED.job_id == _JOBS.id, named)


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, ExportJobRow]:
    return await get_rows(session, ExportJobRow, scope, ids)


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: ExportJobFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[ExportJobRow]:
    """Newest first by default."""
    return await jobs.page(session, scope, KIND, request, (filter or ExportJobFilter()).conditions(), order)


async def count(session: AsyncSession, scope: Scope, filter: ExportJobFilter | None = None) -> int:
    return await jobs.count(session, scope, KIND, (filter or ExportJobFilter()).conditions())


async def batches_by_job(
    session: AsyncSession, scope: Scope, job_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[BatchRow]]:
    """The batches of each export, in the order of its segments; empty until it has succeeded."""
    return await _batches().pages(session, scope.tenant, request, job_ids)


@cache
def _batches() -> Listing[BatchRow]:
    return Listing(rows_of_any(BatchRow), _BATCH_ORDER, lambda row: as_row(BatchRow, row), _BATCHES.job_id)


async def batch_counts(session: AsyncSession, scope: Scope, job_ids: Sequence[str]) -> dict[str, int]:
    statement = within(select(_BATCHES.job_id, func.count()), BatchRow, scope.tenant)
    rows = await session.execute(statement.where(_BATCHES.job_id.in_(job_ids)).group_by(_BATCHES.job_id))
    counts = {job_id: int(number) for job_id, number in rows}
    return {job_id: counts.get(job_id, 0) for job_id in job_ids}


# ---------------------------------------------------------------- rows


async def _queue_evaluation(
    session: AsyncSession, now: datetime, scope: Scope, ids: Sequence[str] | None, origin: jobs.Origin
) -> str:
    """Queues the segment job that the export waits for. Raises `Refusal` if it would evaluate nothing."""
    try:
        return (await segment_jobs.queue(session, now, scope, ids, origin=origin)).id
    except Refusals as refusals:
        raise Refusals([Refusal(each.code, each.message, ("evaluate_first",)) for each in refusals.refusals]) from None
    except Refusal as refusal:
        raise Refusal(refusal.code, refusal.message, ("evaluate_first",)) from None


async def _write_audiences(
    session: AsyncSession, scope: Scope, job_id: str, new: NewExport, audiences: Sequence[AudienceRow]
) -> None:
    rows = (
        ExportJobAudienceRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            job_id=job_id,
            audience_id=audience.id,
            place=place,
            namespace=audience.namespace,
            segment_id=audience.audience_id,
            status=list(asked.status),
        )
        for place, (asked, audience) in enumerate(zip(new.segments, audiences, strict=True))
    )
    await insert_rows(session, *rows)
