"""Executes an export job: writes buckets to invisible files, then publishes all of them as batches."""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.export.batches import clear, land, refuse_contradictions, withdraw
from app.engine.export.request import Audience, Batch, BatchFile, Events, Exported, Interval, What, Who
from app.engine.export.rows import Export
from app.engine.limits.pool import Cancelled, Stopped, in_threads
from app.engine.members.membership import STATUSES, MembershipFiles
from app.engine.people.profiles import open_snapshot, reopen
from app.engine.store.lake import Lake, TenantLake
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services import merge_policies
from app.services.evaluation.expressions import data_sources
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.pins import AudiencePin, BatchPin, ExportPins, HeadPins
from app.services.evaluation.progress import Progress, span
from app.services.jobs.export.input import (
    NewExport,
    TimeRange,
    events_from_json,
    filter_from_json,
    path_refusals,
    split_event_fields,
    split_fields,
)
from app.services.jobs.export.requests import policy_of
from app.services.lists.rows import select_rows
from app.services.merge_policies import policy_as_json, policy_from_json, rule_of
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.queue.attempts import Attempt
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, BatchStatus, DatasetRow
from app.storage.tables.export_jobs import ExportJobAudienceRow, ExportJobRow
from app.storage.tables.jobs import FINAL, JobBucketRow, JobStatus
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_JOBS = columns(ExportJobRow)
_ASKED = columns(ExportJobAudienceRow)
_AUDIENCES = columns(AudienceRow)
_BUCKETS = columns(JobBucketRow)
_DATASETS = columns(DatasetRow)
_SEGMENT_JOBS = columns(SegmentJobRow)
_PARTS = columns(SegmentJobDefinitionRow)


@dataclass(frozen=True, slots=True)
class _Run:
    """An export during one attempt, as fixed by the first attempt."""

    scope: Scope
    lake: TenantLake
    heads: Heads
    export: Export
    started: datetime


async def run_export_job(attempt: Attempt, lake: Lake, threads: int) -> None:
    """Runs a claimed export to its end, or as far as this attempt gets; a later attempt reuses the finished buckets."""
    progress = Progress(attempt, threads)
    await _refuse_failed_evaluation(attempt)
    try:
        state = await _prepare(attempt, lake, progress)
    except Cancelled:
        if attempt.cancelled():
            await attempt.finish(JobStatus.CANCELLED)
        return
    snapshot = state.export.snapshot
    done_buckets = await attempt.done_buckets()
    progress.begin(snapshot.total_profiles, sum(row.profiles for row in done_buckets.values()))
    if not attempt.job.committing:
        waiting = [bucket for bucket in snapshot.buckets if bucket not in done_buckets]
        try:
            await _export(attempt, state, waiting, progress)
        except Cancelled:
            if attempt.cancelled():
                await _cancel(attempt, state)
            return
    progress.end()
    await _finish(attempt, state)


async def tidy(database: Database, lake: Lake) -> None:
    """Removes the remains of ended exports, and withdraws the visible batches of a failed one.

    A job that ends without a worker leaves its files for this function. Any process may call it at any time.
    """
    job_ids = await asyncio.to_thread(lake.exports)
    async with database.session() as session:
        # Ids are unique across tenants, and this maintenance query deliberately spans them.
        fields = (_JOBS.organisation, _JOBS.sandbox, _JOBS.id, _JOBS.status, _JOBS.destination_id, _JOBS.snapshot)
        rows = await session.execute(select(*fields).where(_JOBS.id.in_(list(job_ids))))
        jobs = {row.id: row for row in rows}
    for job_id, tenant_lake in job_ids.items():
        row = jobs.get(job_id)
        if row is None:
            await asyncio.to_thread(clear, tenant_lake, job_id)
        elif row.status in FINAL:
            if row.status != JobStatus.SUCCEEDED and row.snapshot is not None:
                batches = [batch for batch, _ in row.snapshot.get("batches", ())]
                await asyncio.to_thread(withdraw, tenant_lake, row.destination_id, batches)
            async with database.write() as session:
                await _forget_buckets(session, Tenant(row.organisation, row.sandbox), job_id)
            await asyncio.to_thread(clear, tenant_lake, job_id)


# ---------------------------------------------------------------- before


async def _refuse_failed_evaluation(attempt: Attempt) -> None:
    """Raises `Refusals` unless the evaluation requested by the export has produced what it needs."""
    job: ExportJobRow = attempt.job
    if job.waits_for is None or job.snapshot is not None:
        return
    async with attempt.database.session() as session:
        asked = within(select(_SEGMENT_JOBS.status), SegmentJobRow, attempt.tenant)
        status = (await session.execute(asked.where(_SEGMENT_JOBS.id == job.waits_for))).scalar()
        parts = within(select(_PARTS.definition_id, _PARTS.error), SegmentJobDefinitionRow, attempt.tenant)
        rows = list(await session.execute(parts.where(_PARTS.job_id == job.waits_for)))
    name = f"segment job {job.waits_for!r}, which the export asked for,"
    if status != JobStatus.SUCCEEDED:
        ended = "is gone" if status is None else f"has ended as {status}"
        raise Refusal(ErrorCode.INVALID_STATE, f"the {name} {ended}: see its errors, then export again")
    failed = [(row.definition_id, row.error["message"]) for row in rows if row.error is not None]
    if failed:
        raise Refusals(
            [Refusal(ErrorCode.INVALID_STATE, f"the {name} could not evaluate {id_!r}: {why}") for id_, why in failed]
        )


@dataclass(frozen=True, slots=True)
class _AudienceRow:
    """An audience of an export, with the statuses to export."""

    id: str
    namespace: str
    audience_id: str
    status: list[str]


async def _prepare(attempt: Attempt, lake: Lake, progress: Progress) -> _Run:
    """The export as fixed by its first attempt, so that every attempt writes the same."""
    job: ExportJobRow = attempt.job
    scope, tenant = Scope(job.organisation, job.sandbox, user=job.created_by), lake.tenant(attempt.tenant)
    pins = await _pin(attempt, scope, tenant, progress) if job.snapshot is None else ExportPins.from_json(job.snapshot)
    async with attempt.database.session() as session:
        datasets = await data_sources(session, scope)
        heads = await read_heads(session, scope, pins.heads)
    rule = rule_of(policy_from_json(attempt.tenant, pins.merge_policy))
    snapshot = await asyncio.to_thread(reopen, tenant, rule, datasets, pins.lake)
    audiences = tuple(Audience(pin.id, pin.namespace, pin.name, frozenset(pin.statuses)) for pin in pins.audiences)
    batches = [Batch(pin.id, None if pin.audiences is None else frozenset(pin.audiences)) for pin in pins.batches]
    new = _asked_for(job)
    export = Export(snapshot, _who(new, audiences), _what(new), batches)
    return _Run(scope, tenant, heads, export, pins.started)


async def _pin(attempt: Attempt, scope: Scope, tenant: TenantLake, progress: Progress) -> ExportPins:
    """Fixes the data that the export reads and the ids of its batches. Raises `Refusal` for input that no longer
    fits."""
    job: ExportJobRow = attempt.job
    new, now = _asked_for(job), attempt.clock()
    async with attempt.database.session() as session:
        datasets = await data_sources(session, scope)
        policies = await merge_policies.get_many(session, scope, [job.merge_policy_id])
        policy = policies.get(job.merge_policy_id) or policy_of(job)
        heads = await read_heads(session, scope, now=now)
        rows = await _audience_rows(session, scope, job, heads)
    snapshot = await asyncio.to_thread(
        open_snapshot, tenant, rule_of(policy), datasets, progress.view, progress.threads
    )
    if refusals := list(path_refusals(new, snapshot.schema)):
        raise Refusals(refusals)
    groups = [[row.id] for row in rows] if job.segment_per_batch else [None]
    # Ids created at one instant are unordered, but batches are listed in id order.
    batch_ids = sorted(new_id(now) for _ in groups)
    runs = {row.id: heads.runs[row.id] for row in rows if row.id in heads.runs}
    graphs = {row.id: heads.graphs[row.id] for row in rows if row.id in heads.graphs}
    pins = ExportPins(
        started=now,
        merge_policy=policy_as_json(policy),
        lake=snapshot.pinned,
        heads=HeadPins(runs, heads.turn, graphs),
        audiences=[AudiencePin(row.id, row.namespace, row.audience_id, row.status) for row in rows],
        batches=[BatchPin(id_, group) for id_, group in zip(batch_ids, groups, strict=True)],
    )
    schema = Export(snapshot, Who(()), _what(new), []).schema
    await asyncio.to_thread(refuse_contradictions, tenant, job.destination_id, schema)
    await attempt.update(
        snapshot=pins.as_json(), merge_policy=pins.merge_policy, total_profiles=snapshot.total_profiles
    )
    return pins


async def _audience_rows(session: AsyncSession, scope: Scope, job: ExportJobRow, heads: Heads) -> list[_AudienceRow]:
    """The requested audiences, in order; if none were requested, all with known members."""
    fields = (_AUDIENCES.id, _AUDIENCES.namespace, _AUDIENCES.audience_id)
    present = within(select(*fields), AudienceRow, scope.tenant)
    asked = select_rows(ExportJobAudienceRow, scope).where(_ASKED.job_id == job.id).order_by(_ASKED.place)
    requested = list(await session.execute(asked))
    if not requested:
        evaluated = [row for row in await session.execute(present) if row.id in heads.audiences]
        return [_AudienceRow(row.id, row.namespace, row.audience_id, list(STATUSES)) for row in evaluated]
    ids = [segment.audience_id for segment in requested]
    there = {row.id for row in await session.execute(present.where(_AUDIENCES.id.in_(ids)))}
    gone = [segment.segment_id for segment in requested if segment.audience_id not in there]
    if gone:
        names = ", ".join(map(repr, gone))
        raise Refusal(ErrorCode.NOT_FOUND, f"{names} was deleted before the export began: export without it")
    return [
        _AudienceRow(segment.audience_id, segment.namespace, segment.segment_id, segment.status)
        for segment in requested
    ]


def _asked_for(job: ExportJobRow) -> NewExport:
    return NewExport(
        destination_id=job.destination_id,
        schema_name=job.schema_name,
        fields=tuple(job.fields),
        filter=filter_from_json(job.filter),
        additional_fields=events_from_json(job.additional_fields),
        segment_per_batch=job.segment_per_batch,
    )


def _who(new: NewExport, audiences: tuple[Audience, ...]) -> Who:
    filter = new.filter
    if filter is None:
        return Who(audiences)
    return Who(
        audiences,
        members_only=bool(filter.segments),
        qualified=_interval(filter.segment_qualification_time),
        ingested_since=filter.from_ingest_timestamp,
        # Members are requested explicitly, so they are written with or without a record.
        with_record=not filter.segments and not filter.empty_profiles,
    )


def _what(new: NewExport) -> What:
    asked = new.additional_fields
    events = None if asked is None else Events(split_event_fields(asked), _interval(asked.ingested))
    return What(split_fields(new), events)


def _interval(range: TimeRange) -> Interval:
    return Interval(range.start, range.end)


# ---------------------------------------------------------------- between


async def _export(attempt: Attempt, state: _Run, waiting: Iterable[int], progress: Progress) -> None:
    """Writes each bucket as files that count once the bucket's fenced row is committed."""
    memberships = MembershipFiles(state.lake)
    folder = state.lake.export(attempt.job.id)
    loop = asyncio.get_running_loop()
    audiences = [audience.id for audience in state.export.who.audiences]
    graph = state.export.snapshot.graph_version
    members = await asyncio.to_thread(state.heads.people, memberships, audiences, graph)

    def work(bucket: int, _stopped: Stopped) -> Exported:
        return state.export.bucket(bucket, members.read(bucket), folder, attempt.token)

    def finished(found: Exported) -> None:
        counts = {
            "people": found.people,
            "by_namespace": dict(found.by_namespace),
            "files": {batch: asdict(file) for batch, file in found.files.items()},
        }
        recording = attempt.record_bucket(found.bucket, "", found.looked_at, counts)
        asyncio.run_coroutine_threadsafe(recording, loop).result()
        progress.add(found.looked_at)

    await asyncio.to_thread(
        in_threads, work, waiting, finished=finished, cancelled=attempt.interrupted, threads=progress.threads
    )


# ---------------------------------------------------------------- after


async def _cancel(attempt: Attempt, state: _Run) -> None:
    await attempt.finish(JobStatus.CANCELLED)
    await asyncio.to_thread(clear, state.lake, attempt.job.id)


async def _finish(attempt: Attempt, state: _Run) -> None:
    """Makes the batches visible, then records the success. Once the first is visible, the export can only succeed."""
    job: ExportJobRow = attempt.job
    done_buckets = (await attempt.done_buckets()).values()
    files = _files(done_buckets, state.export.batches)
    await asyncio.to_thread(refuse_contradictions, state.lake, job.destination_id, state.export.schema)
    await attempt.update(committing=True)
    if attempt.cancelled():
        await _cancel(attempt, state)
        return
    for batch in state.export.batches:
        schema = state.export.schema
        await asyncio.to_thread(land, state.lake, job.destination_id, job.id, batch.id, schema, files[batch.id])
    now = attempt.clock()
    by_namespace: Counter[str] = Counter()
    for row in done_buckets:
        by_namespace.update(row.counts["by_namespace"])
    metrics = {
        "total_time": span(job.started_at or now, now),
        "profile_export_time": span(state.started, now),
        "total_exported_profiles": sum(row.counts["people"] for row in done_buckets),
        "exported_profiles_by_namespace": dict(by_namespace),
    }

    async def publish(session: AsyncSession) -> None:
        await _write_batches(session, attempt, state, files, now)
        await _forget_buckets(session, attempt.tenant, job.id)

    await attempt.finish(JobStatus.SUCCEEDED, metrics=metrics, write=publish)
    await asyncio.to_thread(clear, state.lake, job.id)


def _files(done: Iterable[JobBucketRow], batches: Iterable[Batch]) -> dict[str, list[BatchFile]]:
    """The files of each batch."""
    files_of: dict[str, list[BatchFile]] = {batch.id: [] for batch in batches}
    for row in done:
        for batch, file in row.counts["files"].items():
            files_of[batch].append(BatchFile(**file))
    return files_of


async def _write_batches(
    session: AsyncSession, attempt: Attempt, state: _Run, files: Mapping[str, list[BatchFile]], now: datetime
) -> None:
    job: ExportJobRow = attempt.job
    names = {audience.id: audience.audience_id for audience in state.export.audiences}
    asked = [audience.audience_id for audience in state.export.who.audiences] if state.export.who.members_only else []
    rows = [
        {
            "organisation": job.organisation,
            "sandbox": job.sandbox,
            "id": batch.id,
            "dataset_id": job.destination_id,
            "status": BatchStatus.ACTIVE,
            "row_count": sum(file.rows for file in files[batch.id]),
            "bytes": sum(file.bytes for file in files[batch.id]),
            "rejected_rows": 0,
            "segment_ids": asked if batch.audiences is None else [names[id_] for id_ in batch.audiences],
            "job_id": job.id,
            "created_by": job.created_by,
            "created_at": now,
        }
        for batch in state.export.batches
    ]
    await session.execute(insert(BatchRow), rows)
    grown = within(update(DatasetRow), DatasetRow, attempt.tenant).where(_DATASETS.id == job.destination_id)
    more = sum(file.rows for some in files.values() for file in some)
    await session.execute(grown.values(row_count=_DATASETS.row_count + more, updated_at=now))


async def _forget_buckets(session: AsyncSession, tenant: Tenant, job_id: str) -> None:
    rows = within(delete(JobBucketRow), JobBucketRow, tenant)
    await session.execute(rows.where(_BUCKETS.job_id == job_id))
