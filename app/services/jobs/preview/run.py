"""What a worker does with a preview: a sample to read bucket by bucket, and figures after each of them."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.evaluate import EvaluationError
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import Membership, MembershipFiles
from app.engine.people.profiles import MergeRule, Snapshot, open_snapshot, reopen
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.run.sampling import draw
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.pql.core import Node
from app.scope import Scope
from app.services.evaluation.conditions import Source, read_conditions
from app.services.evaluation.expressions import Segments, data_sources, read_segments
from app.services.evaluation.heads import Heads, read_heads
from app.services.evaluation.pins import HeadPins, PreviewPins
from app.services.evaluation.progress import Progress
from app.services.evaluation.sandboxes import read_time_zone
from app.services.jobs.preview.requests import rule_of
from app.services.lists.rows import select_rows
from app.storage.columns import columns
from app.storage.ids import new_id
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import change_job
from app.storage.tables.jobs import JobPhase, JobStatus
from app.storage.tables.previews import PreviewRow, PreviewSampleRow
from app.storage.tenancy import within

MOST_MOVED = 0.05
"""The sample is drawn anew when the number of profiles has changed by a larger part than this since."""

_SAMPLES = columns(PreviewSampleRow)


class _Failed(Exception):
    """The expression cannot be evaluated."""

    def __init__(self, error: EvaluationError) -> None:
        super().__init__(error.message)
        self.error = {"code": error.code, "message": error.message}


@dataclass(slots=True)
class _Run:
    """A preview as one attempt sees it; `recorded` are the results of the buckets that are stored."""

    attempt: Attempt
    progress: Progress
    snapshot: Snapshot
    heads: Heads
    segments: Segments
    pins: PreviewPins
    recorded: dict[int, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)

    def tell(self) -> None:
        """Notes what the recorded buckets add up to."""
        profiles_read, matched, namespaces = 0, 0, Counter[str]()
        for profiles, counts in self.recorded.values():
            profiles_read, matched = profiles_read + profiles, matched + counts["members"]
            namespaces.update(counts["by_namespace"])
        self.attempt.progress(
            JobPhase.EVALUATING,
            self.progress.reached(profiles_read / self.pins.rows_to_read if self.pins.rows_to_read else 1.0),
            profiles_read,
            self.snapshot.total_profiles,
            profiles_matched=matched,
            by_namespace=dict(namespaces),
        )


async def run_preview(attempt: Attempt, lake: Lake, threads: int) -> None:
    """Runs a claimed preview to its end, or as far as this attempt gets: what is read is kept for the next one."""
    progress = Progress(attempt, threads)
    try:
        state = await _prepare(attempt, lake, progress)
    except Cancelled:
        return
    condition = _condition(attempt.job, state)
    for bucket, row in (await attempt.done_buckets()).items():
        state.recorded[bucket] = row.profiles, row.counts
    state.tell()
    try:
        await _evaluate(state, lake, condition)
    except Cancelled:
        return
    except _Failed as failed:
        await attempt.finish(JobStatus.FAILED, errors=[failed.error])
        return
    await attempt.finish(JobStatus.SUCCEEDED)


async def _prepare(attempt: Attempt, lake: Lake, progress: Progress) -> _Run:
    """Fixes what the preview reads, in its first attempt; a later attempt takes it as it is."""
    preview: PreviewRow = attempt.job
    scope, tenant = Scope(preview.organisation, preview.sandbox, user=preview.created_by), lake.tenant(attempt.tenant)
    rule = rule_of(preview)
    pins = None if preview.snapshot is None else PreviewPins.from_json(preview.snapshot)
    async with attempt.database.session() as session:
        datasets = await data_sources(session, scope)
        heads = await read_heads(session, scope, None if pins is None else pins.heads, now=attempt.clock())
        segments = await read_segments(session, scope)
        zone = await read_time_zone(session, scope, lake)
    if pins is not None:
        snapshot = await asyncio.to_thread(reopen, tenant, rule, datasets, pins.lake)
    else:
        snapshot = await asyncio.to_thread(open_snapshot, tenant, rule, datasets, progress.view, progress.threads)
        pins = await _draw(attempt, scope, rule, snapshot, heads, zone)
    return _Run(attempt, progress, snapshot, heads, segments, pins)


async def _draw(
    attempt: Attempt, scope: Scope, rule: MergeRule, snapshot: Snapshot, heads: Heads, zone: ZoneInfo
) -> PreviewPins:
    """Chooses the buckets and notes all that a later attempt is to read again."""
    now, people = attempt.clock(), snapshot.people_by_bucket
    drawn: list[PreviewPins] = []

    async def write(session: AsyncSession) -> None:
        order = draw(await sample_seed(session, scope, rule, snapshot.total_profiles, now), people)
        rows_to_read = sum(people[bucket] for bucket in order)
        pinned_heads = HeadPins(heads.runs, heads.turn, heads.graphs)
        pins = PreviewPins(now, snapshot.pinned, pinned_heads, order, rows_to_read, zone.key)
        await change_job(
            session,
            attempt.claim,
            now,
            snapshot=pins.as_json(),
            evaluated_at=now,
            total_profiles=snapshot.total_profiles,
            rows_to_read=rows_to_read,
        )
        drawn.append(pins)

    await attempt.write(write)
    return drawn[-1]


async def sample_seed(session: AsyncSession, scope: Scope, rule: MergeRule, total: int, now: datetime) -> str:
    """The seed of the sample that previews of this rule share: a new one when there are many more people, or fewer."""
    policy_id = rule.id.removesuffix("+pdg")
    key = {"merge_policy_id": policy_id, "graph_type": rule.identity_graph}
    same = [_SAMPLES[name] == value for name, value in key.items()]
    sample = (await session.execute(select_rows(PreviewSampleRow, scope).where(*same))).first()
    if sample is not None and abs(total - sample.total_profiles) <= MOST_MOVED * sample.total_profiles:
        return str(sample.seed)
    drawn = {"seed": new_id(now), "total_profiles": total, "drawn_at": now}
    if sample is not None:
        change = within(update(PreviewSampleRow), PreviewSampleRow, scope.tenant)
        await session.execute(change.where(*same).values(**drawn))
    else:
        tenant = {"organisation": scope.organisation, "sandbox": scope.sandbox}
        await session.execute(insert(PreviewSampleRow).values(**tenant, **key, **drawn))
    return str(drawn["seed"])


def _condition(preview: PreviewRow, state: _Run) -> Node:
    """Raises `Refusal` when the data have changed so that the expression no longer fits them."""
    rule = rule_of(preview)
    source = Source(preview.id, preview.expression, rule.id, preview.exclude_opt_out)
    segments = state.heads.audiences | state.segments.external
    schemas = {rule.id: state.snapshot.schema}
    conditions = read_conditions([source], schemas, segments, state.segments.aliases)
    if (diagnostic := conditions.diagnostics.get(preview.id)) is not None:
        place = f"line {diagnostic.line}, column {diagnostic.column}"
        message = f"{place}: {diagnostic.message}; the data has changed since the preview was created"
        raise Refusal(ErrorCode.INVALID_EXPRESSION, f"{message}: edit the expression and run a new preview")
    return conditions.nodes[preview.id]


async def _evaluate(state: _Run, lake: Lake, condition: Node) -> None:
    """Each bucket is written as a file that nobody sees until its row, which is fenced, is committed."""
    attempt, loop = state.attempt, asyncio.get_running_loop()
    id = attempt.job.id
    files = MembershipFiles(lake.tenant(attempt.tenant))

    def finished(result: BucketResult) -> None:
        if id in result.errors:
            raise _Failed(result.errors[id])
        name = files.write(id, result.bucket, attempt.token, result.memberships)
        counted = result.counts[id]
        counts = {"members": counted.members, "by_namespace": dict(counted.by_namespace)}

        def note() -> None:
            state.recorded[result.bucket] = result.profiles, counts
            state.tell()

        recorded: Future[None] = asyncio.run_coroutine_threadsafe(
            attempt.record_bucket(result.bucket, name, result.profiles, counts, note), loop
        )
        recorded.result()

    plan, graph = Plan({id: condition}), state.snapshot.graph_version
    segments = await asyncio.to_thread(state.heads.people, files, plan.references, graph)
    standing = await asyncio.to_thread(state.heads.standing, files, plan, state.segments.entries, graph)
    stage = Stage(plan, state.snapshot, lambda segment, bucket: segments.read(bucket).get(segment), _nothing, standing)
    await asyncio.to_thread(
        run,
        BucketEvaluator([stage], state.pins.now, {id: 1}, budget=lake.budget),
        [bucket for bucket in state.pins.order if bucket not in state.recorded],
        finished=finished,
        cancelled=attempt.interrupted,
        threads=state.progress.threads,
    )


def _nothing(_bucket: int) -> Mapping[str, Membership]:
    return {}
