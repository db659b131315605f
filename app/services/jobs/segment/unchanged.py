"""What a job need not evaluate: definitions whose members in a bucket are those of their last run; evaluates nothing.

A condition that reads no clock and no stored membership gives the same for the same people and events. So where a
definition is what its last run evaluated, and the bucket's part of the merged view is the same file (its name tells
all files that it was made of), the members of that run stand.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from app.engine.people.profiles import unchanged_buckets
from app.engine.store.lake import TenantLake
from app.errors import Refusal
from app.pql.core import walk
from app.pql.eligibility import reads_clock, reads_memberships
from app.services.evaluation.heads import Heads
from app.services.evaluation.pins import SegmentPins
from app.services.jobs.segment.prepare import SegmentRun
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_JOBS = columns(SegmentJobRow)
_PARTS = columns(SegmentJobDefinitionRow)


@dataclass(frozen=True, slots=True)
class Unchanged:
    """`buckets` are those in which a definition would give what its last run gave, if all that it refers to does."""

    heads: Heads
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    buckets: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def definitions(self, bucket: int) -> frozenset[str]:
        """Those whose members in the bucket stand. Who was streamed in or out since is evaluated again."""
        ids = {id_ for id_, buckets in self.buckets.items() if bucket in buckets} - self.heads.patched(bucket)
        while stale := {id_ for id_ in ids if not all(self._stands(id_, other, ids) for other in self.references[id_])}:
            ids -= stale
        return frozenset(ids)

    def _stands(self, id_: str, other: str, ids: set[str]) -> bool:
        return other in ids and self.heads.runs[other] == self.heads.runs[id_]


async def read_unchanged(database: Database, lake: TenantLake, run: SegmentRun) -> Unchanged:
    """By the runs that the job has pinned as the newest. What cannot be read any more is evaluated."""
    lasting = {id_ for id_ in run.conditions if id_ in run.heads.runs and _lasts(run, id_)}
    run_ids = sorted({run.heads.runs[id_] for id_ in lasting})
    jobs = within(select(_JOBS.id, _JOBS.snapshot), SegmentJobRow, run.scope.tenant).where(_JOBS.id.in_(run_ids))
    fields = (_PARTS.job_id, _PARTS.definition_id, _PARTS.version, _PARTS.expression, _PARTS.merge_policy_id)
    parts = within(select(*fields), SegmentJobDefinitionRow, run.scope.tenant).where(_PARTS.job_id.in_(run_ids))
    async with database.session() as session:
        pins = {row.id: row.snapshot for row in await session.execute(jobs)}
        rows = [row for row in await session.execute(parts) if row.definition_id in lasting]
    rows = [row for row in rows if row.job_id == run.heads.runs[row.definition_id] and _is_same(run, row)]
    buckets = await asyncio.to_thread(_buckets, lake, run, pins, rows)
    return Unchanged(run.heads, run.references, buckets)


def _lasts(run: SegmentRun, id_: str) -> bool:
    """Whether only other data can change who is in; with an identity graph people move between buckets."""
    nodes = list(walk(run.conditions[id_]))
    people_stay = run.graph_of(id_) is None and id_ not in run.heads.graphs
    return people_stay and not reads_clock(nodes) and not reads_memberships(nodes)


def _is_same(run: SegmentRun, row: Any) -> bool:
    """Whether the definition is as a run had it. What it refers to must be named by id: a name may mean another."""
    now = run.definitions[row.definition_id]
    fields = ("version", "expression", "merge_policy_id")
    return all(getattr(row, name) == getattr(now, name) for name in fields) and all(
        other in now.expression for other in run.references[row.definition_id]
    )


def _buckets(
    lake: TenantLake, run: SegmentRun, snapshots: Mapping[str, Any], rows: Sequence[Any]
) -> dict[str, frozenset[int]]:
    """For each definition of an earlier run the buckets whose people and events are those of that run."""
    same: dict[tuple[str, str], frozenset[int]] = {}
    buckets = {}
    for row in rows:
        try:
            pins = SegmentPins.from_json(snapshots[row.job_id] or {})
            name = row.job_id, row.merge_policy_id
            if name not in same:
                same[name] = _same_data(lake, run, pins, row.merge_policy_id)
        except (Refusal, KeyError):  # The job is gone, or was run by a program that did not note all of this.
            continue
        if (row.definition_id in pins.without_consent) == (row.definition_id in run.pins.without_consent):
            buckets[row.definition_id] = same[name]
    return buckets


def _same_data(lake: TenantLake, run: SegmentRun, pins: SegmentPins, policy: str) -> frozenset[int]:
    """Raises `Refusal` and `KeyError`."""
    old, now = pins, run.pins
    if (old.evaluator, old.time_zone, old.merge_policies[policy]) != (
        now.evaluator,
        now.time_zone,
        now.merge_policies[policy],
    ):
        return frozenset()
    return unchanged_buckets(lake, run.snapshots[policy], old.data_of(policy))
