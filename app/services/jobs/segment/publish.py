"""Publishes the results of a segment job: adds up counts, and makes the memberships current; evaluates nothing.

The changes of a run are those between its members and the members it replaces. If another run has been published since
the job began, changes are recounted relative to that run before publication. Members that streaming has changed since
then are not changes of this run: the batches that it has not seen are streamed again onto its result.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.members.membership import BucketCounts, MembershipFiles, counts, differences, next_membership
from app.engine.run.buckets import BucketResult
from app.engine.store.lake import Lake
from app.services.audiences.reads import publish_change
from app.services.evaluation.heads import Heads, head_runs, read_heads
from app.services.evaluation.membership_log import Moved, note_changes
from app.services.jobs.segment.durations import Durations, as_stored
from app.services.jobs.segment.prepare import SegmentRun
from app.services.streaming.turn import heads_change
from app.storage.columns import StoredValues, columns, table
from app.storage.queue.attempts import Attempt
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobBucketRow, JobStatus
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_PARTS = columns(SegmentJobDefinitionRow)
_BUCKETS = columns(JobBucketRow)

_NOBODY = {"members": 0, "realized": 0, "existing": 0, "exited": 0}


def counted(result: BucketResult) -> StoredValues:
    """The counts, errors and seconds of a bucket as JSON values."""
    unchanged = {"unchanged": result.unchanged} if result.unchanged else {}
    return {
        "counts": {id_: as_numbers(counts) for id_, counts in result.counts.items()},
        "errors": {id_: {"code": error.code, "message": error.message} for id_, error in result.errors.items()},
        "seconds": as_stored(result.seconds),
        **unchanged,
    }


def as_numbers(counts: BucketCounts) -> StoredValues:
    return {**{name: getattr(counts, name) for name in _NOBODY}, "by_namespace": dict(counts.by_namespace)}


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A finished bucket, and whether it still matches its row."""

    file: str
    counts: Mapping[str, Any]
    changed: bool = False


@dataclass(frozen=True, slots=True)
class _Results:
    """The combined results of the buckets. `drift` is the result of `_drift`."""

    buckets: Mapping[int, _Bucket]
    drift: Mapping[str, tuple[int, int]]
    durations: Durations


class _HeadsMoved(Exception):
    """Another run was published meanwhile."""


async def finish(attempt: Attempt, lake: Lake, run: SegmentRun) -> None:
    """Adds up the buckets and, in one transaction, makes the run the head of every definition that it finished."""
    rows = await attempt.done_buckets()
    buckets = {number: _Bucket(row.file, row.counts) for number, row in rows.items()}
    for row in rows.values():
        run.fail({id_: error for id_, error in row.counts["errors"].items() if id_ not in run.errors})
    against, durations = run.heads, Durations.of(rows.values())
    for rounds in itertools.count(1):
        heads, publishable = await _present_heads(attempt, run)
        moved = {id_ for id_ in publishable if heads.runs.get(id_) != against.runs.get(id_)}
        if moved:
            name = f"{attempt.token}-{rounds}"
            buckets = await asyncio.to_thread(_recounted, lake, attempt, run, heads, moved, buckets, name)
        against = heads
        try:
            drift = await asyncio.to_thread(_drift, lake, attempt, run, heads, publishable, buckets)
            await _publish(attempt, run, heads, publishable, _Results(buckets, drift, durations))
        except _HeadsMoved:
            continue
        break


async def _present_heads(attempt: Attempt, run: SegmentRun) -> tuple[Heads, set[str]]:
    """The current heads, and the definitions whose head this run becomes.

    A job that began earlier and ends later does not replace the results of a newer one.
    """
    async with attempt.database.session() as session:
        heads = await read_heads(session, run.scope)
        good = {id_ for id_ in run.definitions if id_ not in run.errors}
        ran = await _evaluated_at(session, run, {heads.runs[id_] for id_ in good if id_ in heads.runs})
    return heads, {id_ for id_ in good if ran.get(heads.runs.get(id_, ""), run.evaluated_at) <= run.evaluated_at}


def _recounted(
    lake: Lake,
    attempt: Attempt,
    run: SegmentRun,
    heads: Heads,
    moved: Collection[str],
    buckets: Mapping[int, _Bucket],
    version: str,
) -> dict[int, _Bucket]:
    """The buckets with the changes of some definitions recounted relative to other heads; each gets a new file."""
    files = MembershipFiles(lake.tenant(attempt.tenant))
    mending = replace(files, mending=True)
    before = {
        policy: heads.people(mending, [id_ for id_ in moved if run.definitions[id_].merge_policy_id == policy], graph)
        for policy, graph in {(run.definitions[id_].merge_policy_id, run.graph_of(id_)) for id_ in moved}
    }
    recounted: dict[int, _Bucket] = {}
    for number, bucket in buckets.items():
        memberships = files.read(attempt.job.id, number, bucket.file)
        numbers = dict(bucket.counts["counts"])
        for id_ in moved & memberships.keys():
            mine, policy = memberships[id_], run.definitions[id_].merge_policy_id
            previous = before[policy].read(number).get(id_)
            memberships[id_] = next_membership(previous, id_, mine.members, mine.version, run.evaluated_at)
            numbers[id_] = as_numbers(counts(memberships[id_], run.snapshots[policy].namespaces(number)))
        name = files.write(attempt.job.id, number, version, list(memberships.values()))
        recounted[number] = _Bucket(name, {**bucket.counts, "counts": numbers}, changed=True)
    return recounted


def _drift(
    lake: Lake,
    attempt: Attempt,
    run: SegmentRun,
    heads: Heads,
    publishable: Collection[str],
    buckets: Mapping[int, _Bucket],
) -> dict[str, tuple[int, int]]:
    """For audiences with members streamed since the job began, how many enter and exit when the run becomes the head.

    The run's own counts and statuses stay relative to the members at its start: members streamed since then, but not
    seen by the run, leave now and return with the next turn, and the log of changes must show that.
    """
    since = [bucket for bucket, patch in heads.patches.items() if patch.turn > run.heads.turn]
    streamed = set(publishable) & {id_ for bucket in since for id_ in heads.patched(bucket)}
    if not streamed:
        return {}
    files = MembershipFiles(lake.tenant(attempt.tenant))
    changes: dict[str, Counter[str]] = {id_: Counter() for id_ in streamed}
    for graph in {run.graph_of(id_) for id_ in streamed}:
        ids = {id_ for id_ in streamed if run.graph_of(id_) == graph}
        before = heads.people(files, ids, graph)
        # Without a graph, only buckets with new patches differ from the heads that the run began with.
        for number in {*buckets, *(since if graph is None else before.buckets)}:
            after = files.read(attempt.job.id, number, buckets[number].file, ids) if number in buckets else {}
            earlier = before.read(number)
            for id_ in ids:
                entered, exited = differences(earlier.get(id_), after.get(id_))
                changes[id_].update(entered=len(entered), exited=len(exited))
    return {id_: (counted["entered"], counted["exited"]) for id_, counted in changes.items()}


def _moved(totals: Mapping[str, int]) -> tuple[int, int]:
    return totals["realized"], totals["exited"]


# ---------------------------------------------------------------- publishing


async def _publish(
    attempt: Attempt,
    run: SegmentRun,
    heads: Heads,
    publishable: Collection[str],
    results: _Results,
) -> None:
    """Raises `_HeadsMoved`, with nothing changed, if the heads are no longer those given."""
    now, buckets, drift, durations = attempt.clock(), results.buckets, results.drift, results.durations
    totals: dict[str, Counter[str]] = {id_: Counter(_NOBODY) for id_ in run.definitions}
    namespaces: dict[str, Counter[str]] = {id_: Counter() for id_ in run.definitions}
    for bucket in buckets.values():
        for id_, numbers in bucket.counts["counts"].items():
            namespaces[id_].update(numbers["by_namespace"])
            totals[id_].update({name: numbers[name] for name in _NOBODY})

    async def write(session: AsyncSession) -> None:
        await heads_change(session, run.scope, [snapshot.pinned for snapshot in run.snapshots.values()], now)
        # Publishers of any of them wait here, and then see that the heads have changed.
        mine = within(select(_AUDIENCES.id), AudienceRow, attempt.tenant).where(_AUDIENCES.id.in_(sorted(publishable)))
        await session.execute(mine.order_by(_AUDIENCES.id).with_for_update())
        present = await head_runs(session, run.scope)
        if any(present.get(id_) != heads.runs.get(id_) for id_ in publishable):
            raise _HeadsMoved
        for number, bucket in buckets.items():
            if bucket.changed:
                await _write_bucket(session, attempt, number, bucket)
        await _write_results(session, attempt, run, totals, namespaces, durations.definitions)
        await _write_heads(session, attempt, run, sorted(publishable), totals, namespaces, now)
        moved = {id_: Moved(*drift.get(id_, _moved(totals[id_])), run.definitions[id_].version) for id_ in publishable}
        await note_changes(session, run.scope, now, moved, job_id=attempt.job.id)

    errors = [{**error, "definition_id": id_} for id_, error in sorted(run.errors.items())]
    metrics = _metrics(attempt, run, buckets, now) | {"bucket_time": durations.buckets}
    status = JobStatus.SUCCEEDED if run.errors.keys() < run.definitions.keys() else JobStatus.FAILED
    await attempt.finish(status, errors=errors, metrics=metrics, write=write)


def _metrics(attempt: Attempt, run: SegmentRun, buckets: Mapping[int, _Bucket], now: datetime) -> StoredValues:
    profiles = run.profiles_by_policy()
    return {
        "total_time": _span(attempt.job.started_at or now, now),
        "profile_segmentation_time": _span(run.evaluated_at, now),
        "total_profiles": sum(profiles.values()),
        "total_profiles_by_merge_policy": profiles,
        "unchanged_profiles": sum(bucket.counts.get("unchanged", 0) for bucket in buckets.values()),
    }


def _span(start: datetime, end: datetime) -> StoredValues:
    milliseconds = round((end - start).total_seconds() * 1000)
    return {"start": start.isoformat(), "end": end.isoformat(), "total_ms": milliseconds}


async def _write_bucket(session: AsyncSession, attempt: Attempt, number: int, bucket: _Bucket) -> None:
    change = within(update(JobBucketRow), JobBucketRow, attempt.tenant)
    mine = change.where(_BUCKETS.job_id == attempt.job.id, _BUCKETS.bucket == number)
    await session.execute(mine.values(file=bucket.file, counts=dict(bucket.counts)))


async def _write_results(
    session: AsyncSession,
    attempt: Attempt,
    run: SegmentRun,
    totals: Mapping[str, Counter[str]],
    namespaces: Mapping[str, Counter[str]],
    seconds: Mapping[str, float],
) -> None:
    counted_rows: list[StoredValues] = [
        {
            "of": id_,
            "error": None,
            "profile_count": totals[id_]["members"],
            "by_status": {name.upper(): totals[id_][name] for name in ("realized", "existing", "exited")},
            "by_namespace": dict(namespaces[id_]),
            "seconds": seconds.get(id_),
        }
        for id_ in run.definitions
        if id_ not in run.errors
    ]
    failed_rows: list[StoredValues] = [
        {"of": id_, "error": run.errors[id_], "seconds": seconds.get(id_)}
        for id_ in run.definitions.keys() & run.errors
    ]
    change = within(update(table(SegmentJobDefinitionRow)), SegmentJobDefinitionRow, attempt.tenant)
    mine = change.where(_PARTS.job_id == attempt.job.id, _PARTS.definition_id == bindparam("of"))
    for rows in (counted_rows, failed_rows):
        if rows:
            await session.execute(mine, rows)


async def _write_heads(
    session: AsyncSession,
    attempt: Attempt,
    run: SegmentRun,
    ids: Sequence[str],
    totals: Mapping[str, Counter[str]],
    namespaces: Mapping[str, Counter[str]],
    now: datetime,
) -> None:
    rows = [
        {
            "of": id_,
            "membership_run_id": attempt.job.id,
            "membership_graph": run.graph_of(id_),
            "total_profiles": totals[id_]["members"],
            "by_namespace": dict(namespaces[id_]),
            "metrics_updated_at": now,
            "metrics_job_id": attempt.job.id,
        }
        for id_ in ids
    ]
    if rows:
        change = within(update(table(AudienceRow)), AudienceRow, attempt.tenant)
        await session.execute(change.where(_AUDIENCES.id == bindparam("of")), rows)
        await publish_change(session, run.scope, *ids)


async def _evaluated_at(session: AsyncSession, run: SegmentRun, run_ids: Collection[str]) -> dict[str, datetime]:
    jobs = columns(SegmentJobRow)
    statement = within(select(jobs.id, jobs.evaluated_at), SegmentJobRow, run.scope.tenant)
    return {row.id: row.evaluated_at for row in await session.execute(statement.where(jobs.id.in_(sorted(run_ids))))}
