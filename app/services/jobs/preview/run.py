"""Executes a preview: reads a sample bucket by bucket and updates the figures after each."""

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
from app.engine.insight.best import Limit, first_of
from app.engine.insight.scan import Scan
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import Membership, MembershipFiles, Ordinals, counts, next_membership
from app.engine.members.regraph import MembershipSource, together
from app.engine.people.profiles import MergeRule, Snapshot, open_snapshot, reopen
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.run.sampling import draw, in_whole_slots, limit_of_sample
from app.engine.store.lake import Lake
from app.errors import Diagnostic, ErrorCode, Refusal
from app.pql.check.checker import check_value
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
from app.storage.columns import StoredValues, columns
from app.storage.ids import new_id
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import change_job
from app.storage.tables.jobs import JobBucketRow, JobPhase, JobStatus
from app.storage.tables.previews import PreviewRow, PreviewSampleRow
from app.storage.tenancy import within

MOST_MOVED = 0.05
"""The sample is redrawn when the number of profiles has changed by more than this fraction."""

_SAMPLES = columns(PreviewSampleRow)
_BUCKETS = columns(JobBucketRow)
_VALUE = "value"


class _Failed(Exception):
    """The expression cannot be evaluated."""

    def __init__(self, error: EvaluationError) -> None:
        super().__init__(error.message)
        self.error = {"code": error.code, "message": error.message}


@dataclass(slots=True)
class _Run:
    """A preview during one attempt; `recorded` are the results of the stored buckets."""

    attempt: Attempt
    progress: Progress
    snapshot: Snapshot
    heads: Heads
    segments: Segments
    pins: PreviewPins
    recorded: dict[int, tuple[int, Mapping[str, Any]]] = field(default_factory=dict)

    def tell(self) -> None:
        """Records the totals of the stored buckets that are a sample: all matches, and the namespaces of those kept."""
        profiles_read, matched, namespaces = 0, 0, Counter[str]()
        for bucket in in_whole_slots(self.pins.order, self.recorded):
            profiles, numbers = self.recorded[bucket]
            profiles_read, matched = profiles_read + profiles, matched + numbers.get("matched", numbers["members"])
            namespaces.update(numbers["by_namespace"])
        reached = sum(profiles for profiles, _ in self.recorded.values())
        self.attempt.progress(
            JobPhase.EVALUATING,
            self.progress.reached(reached / self.pins.rows_to_read if self.pins.rows_to_read else 1.0),
            profiles_read,
            self.snapshot.total_profiles,
            profiles_matched=matched,
            by_namespace=dict(namespaces),
        )


async def run_preview(attempt: Attempt, lake: Lake, threads: int) -> None:
    """Runs a claimed preview to its end, or as far as this attempt gets; a later attempt reuses what was read."""
    progress = Progress(attempt, threads)
    try:
        state = await _prepare(attempt, lake, progress)
    except Cancelled:
        return
    condition, value = _condition(attempt.job, state), _value(attempt.job, state)
    for bucket, row in (await attempt.done_buckets()).items():
        state.recorded[bucket] = row.profiles, row.counts
    state.tell()
    try:
        await _evaluate(state, lake, condition)
        if value is not None:
            await _keep_first(state, lake, value)
    except Cancelled:
        return
    except _Failed as failed:
        await attempt.finish(JobStatus.FAILED, errors=[failed.error])
        return
    await attempt.finish(JobStatus.SUCCEEDED)


async def _prepare(attempt: Attempt, lake: Lake, progress: Progress) -> _Run:
    """Fixes the data that the preview reads, in the first attempt; later attempts use the same."""
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
    """Chooses the buckets, and records everything that a later attempt must read again."""
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
    """The seed of the sample shared by previews of this rule; renewed when the number of profiles has changed much."""
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
    """Raises `Refusal` if the data has changed so that the expression is no longer valid."""
    rule = rule_of(preview)
    source = Source(preview.id, preview.expression, rule.id, preview.exclude_opt_out)
    segments = state.heads.audiences | state.segments.external
    schemas = {rule.id: state.snapshot.schema}
    conditions = read_conditions([source], schemas, segments, state.segments.aliases)
    if (diagnostic := conditions.diagnostics.get(preview.id)) is not None:
        raise _no_longer_fits(diagnostic)
    return conditions.nodes[preview.id]


def _value(preview: PreviewRow, state: _Run) -> Node | None:
    """The value that orders the profiles, if there is a limit. Raises like `_condition`."""
    if preview.kept is None:
        return None
    segments = state.heads.audiences | state.segments.external
    checked = check_value(preview.kept["by"], state.snapshot.schema, segments=segments, aliases=state.segments.aliases)
    if checked.node is None:
        raise _no_longer_fits(checked.diagnostics[0])
    return checked.node


def _no_longer_fits(diagnostic: Diagnostic) -> Refusal:
    place = f"line {diagnostic.line}, column {diagnostic.column}"
    message = f"{place}: {diagnostic.message}; the data has changed since the preview was created"
    return Refusal(ErrorCode.INVALID_EXPRESSION, f"{message}: edit the expression and run a new preview")


async def _evaluate(state: _Run, lake: Lake, condition: Node) -> None:
    """Writes each bucket as a file that is invisible until the bucket's fenced row is committed."""
    attempt, loop = state.attempt, asyncio.get_running_loop()
    id = attempt.job.id
    files = MembershipFiles(lake.tenant(attempt.tenant))

    def finished(result: BucketResult) -> None:
        if id in result.errors:
            raise _Failed(result.errors[id])
        name = files.write(id, result.bucket, attempt.token, result.memberships)
        counted = result.counts[id]
        numbers = {"members": counted.members, "by_namespace": dict(counted.by_namespace)}

        def note() -> None:
            state.recorded[result.bucket] = result.profiles, numbers
            state.tell()

        recorded: Future[None] = asyncio.run_coroutine_threadsafe(
            attempt.record_bucket(result.bucket, name, result.profiles, numbers, note), loop
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


async def _keep_first(state: _Run, lake: Lake, value: Node) -> None:
    """Keeps the first matches of the sample: the limit's number if all profiles were read, else a proportional part.

    Idempotent, since the first of all matches are also the first of those kept.
    """
    attempt, files = state.attempt, MembershipFiles(lake.tenant(state.attempt.tenant))
    rows = await attempt.done_buckets()
    written = await asyncio.to_thread(_first_written, state, files, rows, value)

    async def work(session: AsyncSession) -> None:
        for bucket, (file, numbers) in written.items():
            change = within(update(JobBucketRow), JobBucketRow, attempt.tenant)
            this_bucket = (_BUCKETS.job_id == attempt.job.id, _BUCKETS.bucket == bucket)
            await session.execute(change.where(*this_bucket).values(file=file, counts=numbers))

    await attempt.write(work)
    for bucket, (_, numbers) in written.items():
        state.recorded[bucket] = rows[bucket].profiles, numbers
    state.tell()


def _first_written(
    state: _Run, files: MembershipFiles, rows: Mapping[int, JobBucketRow], value: Node
) -> dict[int, tuple[str, StoredValues]]:
    """By bucket, the file with the people kept, and their counts. Raises `_Failed` and `Cancelled`."""
    attempt, snapshot, id = state.attempt, state.snapshot, state.attempt.job.id
    plan, graph = Plan({}, {_VALUE: value}), snapshot.graph_version
    matched = MembershipSource(lambda bucket: files.read(id, bucket, rows[bucket].file), frozenset(rows))
    stored = together([matched, state.heads.people(files, plan.references, graph)])
    standing = state.heads.standing(files, plan, state.segments.entries, graph)
    scan = Scan(snapshot, plan, state.pins.now, stored, standing, files.lake.lake.budget, [id], tolerant=True)
    profiles = sum(row.profiles for row in rows.values())
    kept = attempt.job.kept
    limit = Limit(_VALUE, limit_of_sample(kept["first"], profiles, snapshot.total_profiles), kept["descending"])
    first, failed = first_of(
        scan, {id: limit}, sorted(rows), threads=state.progress.threads, stopped=attempt.interrupted
    )
    if id in failed:
        raise _Failed(EvaluationError(failed[id].code, failed[id].message))
    written = {}
    for bucket, row in rows.items():
        members = first[id].get(bucket, Ordinals())
        membership = next_membership(None, id, members, 1, state.pins.evaluated_at)
        counted = counts(membership, snapshot.namespaces(bucket))
        numbers: StoredValues = {"members": counted.members, "by_namespace": dict(counted.by_namespace)}
        # Also if an earlier attempt got to this point.
        numbers["matched"] = row.counts.get("matched", row.counts["members"])
        name = files.write(id, bucket, f"{attempt.token}-limited", [membership])
        written[bucket] = name, numbers
    return written
