"""What a worker does with a segment job: definitions to plan, buckets to memberships, memberships to counts."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.lake import Lake
from app.engine.local import BucketResult, Cancelled, run
from app.engine.membership import MembershipFiles
from app.engine.plan import Plan
from app.engine.profiles import Snapshot, open_snapshot, reopen
from app.pql.checker import check
from app.pql.consent import with_consent
from app.pql.core import Builder, Node
from app.scope import Scope
from app.services.audiences import tell
from app.services.expressions import data_sources, read_segments
from app.services.memberships import Heads, head_runs, read_heads
from app.services.merge_policies import get_many as get_policies
from app.services.merge_policies import rule_of
from app.services.rows import select_rows
from app.services.segment_jobs import freeze_definitions
from app.services.streaming import heads_change
from app.storage.job_runs import JobRun
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobPhase, JobStatus
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_AUDIENCES: Any = AudienceRow.__table__.c  # type: ignore[attr-defined]
_PARTS: Any = SegmentJobDefinitionRow.__table__.c  # type: ignore[attr-defined]

_NOBODY = {"members": 0, "realized": 0, "existing": 0, "exited": 0}


@dataclass(slots=True)
class _Run:
    """A job as one attempt sees it. The changes are counted against `heads`."""

    scope: Scope
    evaluated_at: datetime
    snapshot: Snapshot
    parts: dict[str, SegmentJobDefinitionRow]
    heads: Heads
    conditions: dict[str, Node] = field(default_factory=dict)
    errors: dict[str, dict[str, str]] = field(default_factory=dict)


async def run_segment_job(job_run: JobRun, lake: Lake, threads: int) -> None:
    """Runs a claimed job to its end, or as far as this attempt gets: finished buckets are kept for the next one."""
    job_run.progress(JobPhase.READING, 0.0, 0, 0)
    state = await _prepare(job_run, lake)
    if state is None:
        return
    done = await job_run.done_buckets()
    snapshot = state.snapshot
    waiting = [bucket for bucket in snapshot.buckets if bucket not in done]
    read = sum(row.profiles for row in done.values())
    progress = _Progress(job_run, snapshot.total_profiles, read)
    progress.tell()
    try:
        await _evaluate(job_run, lake, state, waiting, threads, progress)
    except Cancelled:
        if job_run.cancelled():
            await job_run.finish(JobStatus.CANCELLED)
        return
    job_run.progress(JobPhase.WRITING, 1.0, snapshot.total_profiles, snapshot.total_profiles)
    await _finish(job_run, state)


# ---------------------------------------------------------------- before


async def _prepare(job_run: JobRun, lake: Lake) -> _Run | None:
    """Fixes what the job reads, in its first attempt; a later attempt takes it as it is."""
    job: SegmentJobRow = job_run.job
    scope = Scope(job.organisation, job.sandbox, user=job.created_by)
    if job.snapshot is None:
        async with job_run.database.session() as session:
            chosen = (
                None if job.all_definitions else {part.definition_id for part in await _parts(session, scope, job.id)}
            )

        async def freeze(session: AsyncSession) -> None:
            await freeze_definitions(session, scope, job.id, job.created_at, chosen)

        await job_run.write(freeze)
    async with job_run.database.session() as session:
        parts = {part.definition_id: part for part in await _parts(session, scope, job.id)}
        if not parts:
            error = {"code": "NOT_FOUND", "message": "all definitions of the job were deleted before it started"}
            await job_run.finish(JobStatus.FAILED, errors=[error])
            return None
        policies = await get_policies(session, scope, {part.merge_policy_id for part in parts.values()})
        datasets = await data_sources(session, scope)
        consent = await _consents(session, scope, parts)
        fixed = job.snapshot or {}
        heads = await read_heads(session, scope, fixed.get("heads"), fixed.get("turn", 0), now=job_run.clock())
        segments = await read_segments(session, scope)
    if len(policies) > 1:
        # One evaluation reads one view: results of another view's people would be wrong, so there are none.
        names = ", ".join(repr(policies[id_].name) for id_ in sorted(policies))
        message = f"the job's definitions have different merge policies ({names}): start one job for each of them"
        await job_run.finish(JobStatus.FAILED, errors=[{"code": "INVALID_INPUT", "message": message}])
        return None
    rule = rule_of(policies[next(iter(sorted(policies)))])
    pinned = job.snapshot
    if pinned is None:
        snapshot = await asyncio.to_thread(open_snapshot, lake.tenant(job_run.tenant), rule, datasets)
        evaluated_at = job_run.clock()
        pinned = {
            "evaluated_at": evaluated_at.isoformat(),
            "lake": snapshot.pinned,
            "heads": dict(heads.runs),
            "turn": heads.turn,
        }
        await job_run.update(snapshot=pinned, evaluated_at=evaluated_at, total_profiles=snapshot.total_profiles)
    else:
        evaluated_at = datetime.fromisoformat(pinned["evaluated_at"])
        snapshot = await asyncio.to_thread(reopen, lake.tenant(job_run.tenant), rule, datasets, pinned["lake"])
    state = _Run(scope, evaluated_at, snapshot, parts, heads)
    _check(state, consent, {*parts, *heads.audiences, *segments.external}, segments.aliases)
    return state


def _check(state: _Run, consent: Mapping[str, bool], known: Collection[str], aliases: Mapping[str, str]) -> None:
    """Conditions of what still checks against the schema of the data; errors of the rest and of what refers to it.

    `known` are the segments that expressions may name, `aliases` other names of theirs.
    """
    builder = Builder()
    references: dict[str, frozenset[str]] = {}
    for id_, part in state.parts.items():
        schema = state.snapshot.schema
        checked = check(part.expression, schema, segments=known, aliases=aliases, builder=builder)
        if checked.condition is None:
            first = next(iter(checked.diagnostics))
            message = (
                f"line {first.line}, column {first.column}: {first.message}; change the expression and run it again"
            )
            state.errors[id_] = {"code": "INVALID_EXPRESSION", "message": message}
            continue
        condition = checked.condition
        if consent.get(id_, True):
            condition = with_consent(condition, state.snapshot.schema, builder)
        state.conditions[id_] = condition
        references[id_] = checked.references
    failed = set(state.errors)
    while failed:
        failed = {id_ for id_ in state.conditions if references[id_] & failed}
        for id_ in failed:
            del state.conditions[id_]
            state.errors[id_] = _dependency_error(references[id_] & set(state.errors))


def _dependency_error(causes: frozenset[str] | set[str]) -> dict[str, str]:
    message = f"it refers to {', '.join(sorted(causes))}, which failed in this job; mend that one and run again"
    return {"code": "DEPENDENCY_FAILED", "message": message}


# ---------------------------------------------------------------- between


@dataclass(slots=True)
class _Progress:
    job_run: JobRun
    total: int
    read: int
    started: datetime | None = None
    read_at_start: int = 0

    def tell(self) -> None:
        now = self.job_run.clock()
        if self.started is None:
            self.started, self.read_at_start = now, self.read
        passed, newly = (now - self.started).total_seconds(), self.read - self.read_at_start
        left = passed / newly * (self.total - self.read) if newly else None
        fraction = self.read / self.total if self.total else 1.0
        self.job_run.progress(JobPhase.EVALUATING, fraction, self.read, self.total, left)


async def _evaluate(
    job_run: JobRun, lake: Lake, state: _Run, waiting: list[int], threads: int, progress: _Progress
) -> None:
    """Each bucket is written as a file that nobody sees until its row, which is fenced, is committed."""
    files = MembershipFiles(lake.tenant(job_run.tenant))
    loop = asyncio.get_running_loop()
    plan = Plan(state.conditions)

    def finished(result: BucketResult) -> None:
        name = files.write(job_run.job.id, result.bucket, job_run.token, result.memberships)
        recorded: Future[None] = asyncio.run_coroutine_threadsafe(
            job_run.record_bucket(result.bucket, name, result.profiles, _counted(result)), loop
        )
        recorded.result()
        progress.read += result.profiles
        progress.tell()

    await asyncio.to_thread(
        run,
        plan,
        state.snapshot,
        waiting,
        now=state.evaluated_at,
        stored=lambda audience, bucket: state.heads.one(files, audience, bucket),
        previous=lambda bucket: state.heads.many(files, bucket, state.conditions),
        versions={id_: part.version for id_, part in state.parts.items()},
        finished=finished,
        cancelled=job_run.interrupted,
        threads=threads,
    )


def _counted(result: BucketResult) -> dict[str, Any]:
    return {
        "counts": {
            id_: {
                "members": counts.members,
                "realized": counts.realized,
                "existing": counts.existing,
                "exited": counts.exited,
                "by_namespace": dict(counts.by_namespace),
            }
            for id_, counts in result.counts.items()
        },
        "errors": {id_: {"code": error.code, "message": error.message} for id_, error in result.errors.items()},
    }


# ---------------------------------------------------------------- after


async def _finish(job_run: JobRun, state: _Run) -> None:
    """Adds up the buckets and, in one transaction, makes the run the newest of every definition that it finished."""
    now = job_run.clock()
    totals: dict[str, Counter[str]] = {id_: Counter(_NOBODY) for id_ in state.conditions}
    namespaces: dict[str, Counter[str]] = {id_: Counter() for id_ in state.conditions}
    errors = dict(state.errors)
    for row in (await job_run.done_buckets()).values():
        errors |= row.counts["errors"]
        for id_, counts in row.counts["counts"].items():
            namespaces[id_].update(counts["by_namespace"])
            totals[id_].update({name: counts[name] for name in _NOBODY})
    good = [id_ for id_ in state.parts if id_ not in errors]

    async def publish(session: AsyncSession) -> None:
        for id_, part in state.parts.items():
            await _write_result(session, job_run, part, totals.get(id_), namespaces.get(id_), errors.get(id_))
        await heads_change(session, state.scope, [state.snapshot.pinned])
        heads = await head_runs(session, state.scope)
        runs = await _evaluated_at(session, state.scope, {heads[id_] for id_ in good if id_ in heads})
        for id_ in good:
            # A job that began earlier and ends later must not replace what a newer one found.
            if id_ not in heads or runs.get(heads[id_], state.evaluated_at) <= state.evaluated_at:
                await _publish_head(session, job_run, state, id_, totals[id_]["members"], dict(namespaces[id_]), now)

    listed = [{**error, "definition_id": id_} for id_, error in sorted(errors.items())]
    started = job_run.job.started_at or now
    metrics = {
        "total_time": _span(started, now),
        "profile_segmentation_time": _span(state.evaluated_at, now),
        "total_profiles": state.snapshot.total_profiles,
        "total_profiles_by_merge_policy": dict.fromkeys(
            (part.merge_policy_id for part in state.parts.values()), state.snapshot.total_profiles
        ),
    }
    status = JobStatus.SUCCEEDED if good else JobStatus.FAILED
    await job_run.finish(status, errors=listed, metrics=metrics, write=publish)


def _span(start: datetime, end: datetime) -> dict[str, Any]:
    milliseconds = round((end - start).total_seconds() * 1000)
    return {"start": start.isoformat(), "end": end.isoformat(), "total_ms": milliseconds}


async def _write_result(
    session: AsyncSession,
    job_run: JobRun,
    part: SegmentJobDefinitionRow,
    totals: Counter[str] | None,
    namespaces: Counter[str] | None,
    error: dict[str, str] | None,
) -> None:
    values: dict[str, Any] = {"error": error}
    if error is None and totals is not None and namespaces is not None:
        statuses = {name.upper(): totals[name] for name in ("realized", "existing", "exited")}
        values |= {"profile_count": totals["members"], "by_status": statuses, "by_namespace": dict(namespaces)}
    change = within(update(SegmentJobDefinitionRow), SegmentJobDefinitionRow, job_run.tenant)
    mine = change.where(_PARTS.job_id == job_run.job.id, _PARTS.definition_id == part.definition_id)
    await session.execute(mine.values(**values))


async def _publish_head(
    session: AsyncSession,
    job_run: JobRun,
    state: _Run,
    id_: str,
    members: int,
    by_namespace: dict[str, int],
    now: datetime,
) -> None:
    audience = within(update(AudienceRow), AudienceRow, job_run.tenant).where(_AUDIENCES.id == id_)
    await session.execute(
        audience.values(
            membership_run_id=job_run.job.id,
            total_profiles=members,
            by_namespace=by_namespace,
            metrics_updated_at=now,
            metrics_job_id=job_run.job.id,
        )
    )
    await tell(session, state.scope, id_)


# ---------------------------------------------------------------- reads


async def _parts(session: AsyncSession, scope: Scope, job_id: str) -> list[Any]:
    return list(await session.execute(select_rows(SegmentJobDefinitionRow, scope).where(_PARTS.job_id == job_id)))


async def _consents(session: AsyncSession, scope: Scope, ids: Any) -> dict[str, bool]:
    statement = within(select(_AUDIENCES.id, _AUDIENCES.exclude_opt_out), AudienceRow, scope.tenant)
    return {row.id: row.exclude_opt_out for row in await session.execute(statement.where(_AUDIENCES.id.in_(list(ids))))}


async def _evaluated_at(session: AsyncSession, scope: Scope, run_ids: set[str]) -> dict[str, datetime]:
    jobs: Any = SegmentJobRow.__table__.c  # type: ignore[attr-defined]
    statement = within(select(jobs.id, jobs.evaluated_at), SegmentJobRow, scope.tenant)
    return {row.id: row.evaluated_at for row in await session.execute(statement.where(jobs.id.in_(sorted(run_ids))))}
