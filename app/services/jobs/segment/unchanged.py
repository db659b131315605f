"""What a job can skip: definitions whose members in a bucket are the same as in their last run; evaluates nothing.

A condition that reads neither the clock nor stored memberships has the same result for the same people and events. If a
definition is unchanged since its last run, its members therefore stay the same, except for people with data in newer
files. A bucket in which data was deleted since is evaluated for all its people.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from sqlalchemy import select

from app.engine.people.profiles import Changed, people_changed_since
from app.engine.run.buckets import Known
from app.engine.store.lake import TenantLake
from app.errors import Refusal
from app.json_values import JsonObject
from app.pql.core import walk
from app.pql.eligibility import reads_clock, reads_memberships
from app.services.evaluation.heads import Heads
from app.services.evaluation.pins import SegmentPins
from app.services.jobs.segment.prepare import SegmentRun
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import within

_JOBS = columns(SegmentJobRow)
_PARTS = columns(SegmentJobDefinitionRow)
_DEFINITION = ("version", "expression", "kept", "merge_policy_id")


@dataclass(frozen=True, slots=True)
class Since:
    """An earlier run that evaluated the same `definitions` by the same rules; `pinned` is the data that it read under a
    merge policy."""

    policy: str
    pinned: StoredValues
    definitions: frozenset[str]

    def as_json(self) -> JsonObject:
        return {"policy": self.policy, "pinned": self.pinned, "definitions": sorted(self.definitions)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        return cls(value["policy"], value["pinned"], frozenset(value["definitions"]))


@dataclass(frozen=True, slots=True)
class Unchanged:
    """`changed` is by definition, for definitions unchanged since their last run; one object per run."""

    heads: Heads
    references: Mapping[str, frozenset[str]] = field(default_factory=dict)
    changed: Mapping[str, Changed] = field(default_factory=dict)

    @classmethod
    def opened(cls, lake: TenantLake, run: SegmentRun, since: Sequence[Since]) -> Self:
        """Examines the data of the earlier runs. Definitions whose data is no longer readable are evaluated."""
        changed: dict[str, Changed] = {}
        for earlier in since:
            people = people_changed_since(lake, run.snapshots[earlier.policy], earlier.pinned)
            changed |= dict.fromkeys(earlier.definitions, people)
        return cls(run.heads, run.references, changed)

    def known(self, definitions: Collection[str], bucket: int) -> Sequence[Known]:
        """The results that remain valid in a bucket, by run. Definitions whose members in the bucket were streamed
        since then are evaluated for all its people."""
        of_run: dict[Changed, set[str]] = defaultdict(set)
        for id_ in self.changed.keys() - self.heads.patched(bucket):
            of_run[self.changed[id_]].add(id_)
        known = []
        for changed, ids in of_run.items():
            standing = self._closed(ids).intersection(definitions)
            if standing and (people := changed(bucket)) is not None:
                known.append(Known(standing, people))
        return known

    def _closed(self, ids: set[str]) -> frozenset[str]:
        """The definitions of one run that reference only each other."""
        while stale := {id_ for id_ in ids if not self.references[id_] <= ids}:
            ids = ids - stale
        return frozenset(ids)


async def read_since(database: Database, run: SegmentRun) -> list[Since]:
    """The data read by the runs that the job has pinned as the newest."""
    lasting = {id_ for id_ in run.conditions if id_ in run.heads.runs and _lasts(run, id_)}
    run_ids = sorted({run.heads.runs[id_] for id_ in lasting})
    jobs = within(select(_JOBS.id, _JOBS.snapshot), SegmentJobRow, run.scope.tenant).where(_JOBS.id.in_(run_ids))
    fields = [_PARTS[name] for name in ("job_id", "definition_id", *_DEFINITION)]
    parts = within(select(*fields), SegmentJobDefinitionRow, run.scope.tenant).where(_PARTS.job_id.in_(run_ids))
    async with database.session() as session:
        snapshots = {row.id: row.snapshot for row in await session.execute(jobs)}
        rows = [row for row in await session.execute(parts) if row.definition_id in lasting]
    same = [row for row in rows if row.job_id == run.heads.runs[row.definition_id] and _is_same(run, row)]
    return _since(run, snapshots, same)


def _lasts(run: SegmentRun, id_: str) -> bool:
    """Whether the result changes only with the data; with an identity graph, people can move between buckets."""
    nodes = list(walk(run.conditions[id_]))
    people_stay = run.graph_of(id_) is None and id_ not in run.heads.graphs
    return people_stay and not reads_clock(nodes) and not reads_memberships(nodes)


def _is_same(run: SegmentRun, row: Any) -> bool:
    """Whether the definition is the same as in a run. References must be by id, since a name may refer to another
    audience later."""
    now = run.definitions[row.definition_id]
    return all(getattr(row, name) == getattr(now, name) for name in _DEFINITION) and all(
        other in now.expression for other in run.references[row.definition_id]
    )


def _since(run: SegmentRun, snapshots: Mapping[str, Any], rows: Sequence[Any]) -> list[Since]:
    """For each earlier run, what it read under a merge policy, with the definitions that it evaluated by the current
    rules."""
    definitions: dict[tuple[str, str], set[str]] = defaultdict(set)
    pinned: dict[tuple[str, str], StoredValues] = {}
    for row in rows:
        key = row.job_id, row.merge_policy_id
        try:
            pins = SegmentPins.from_json(snapshots[row.job_id] or {})
            data, rules = pins.data_of(row.merge_policy_id), _rules(pins, row.merge_policy_id)
        except (Refusal, KeyError):  # The job is gone, or was run by a program that did not note all of this.
            continue
        consent = (row.definition_id in pins.without_consent) == (row.definition_id in run.pins.without_consent)
        if consent and rules == _rules(run.pins, row.merge_policy_id):
            pinned[key] = data
            definitions[key].add(row.definition_id)
    return [Since(key[1], pinned[key], frozenset(ids)) for key, ids in definitions.items()]


def _rules(pins: SegmentPins, policy: str) -> tuple[object, ...]:
    """Everything that an evaluation depends on besides the definition and the data. Raises `KeyError`."""
    return pins.evaluator, pins.time_zone, pins.merge_policies[policy]
