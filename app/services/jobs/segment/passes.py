"""One pass of a segment job as work for an engine: from stages of definitions to one membership file per bucket."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache, partial
from typing import Any, Self

from app.engine.limits.pool import Stopped
from app.engine.members.membership import (
    BucketCounts,
    Membership,
    MembershipFiles,
    Ordinals,
    counts,
    next_membership,
)
from app.engine.members.regraph import MembershipSource, followed, together
from app.engine.people.profiles import Snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, Stage
from app.engine.run.engine import Done
from app.engine.store.lake import TenantLake, write_atomically
from app.json_values import JsonObject
from app.pql.dependencies import StageIds
from app.scope import Tenant
from app.services.jobs.segment.durations import added
from app.services.jobs.segment.prepare import SegmentRun
from app.services.jobs.segment.publish import as_numbers, counted
from app.services.jobs.segment.shipping import lake_as_json, lake_from_json, run_as_json, run_from_json
from app.services.jobs.segment.unchanged import Since, Unchanged
from app.storage.columns import StoredValues


@dataclass(frozen=True, slots=True)
class Kept:
    """The people kept by the limits of each definition, by bucket, and the basis for comparison."""

    chosen: Mapping[str, Mapping[int, Ordinals]]
    before: Mapping[str, Membership]
    at: datetime
    snapshot: Snapshot

    def of(self, found: Membership, bucket: int) -> tuple[Membership, BucketCounts]:
        members = self.chosen[found.definition].get(bucket, Ordinals())
        before = self.before.get(found.definition)
        limited = next_membership(before, found.definition, members, found.version, self.at.astimezone(UTC))
        return limited, counts(limited, self.snapshot.namespaces(bucket))


@dataclass(frozen=True, slots=True)
class EarlierPass:
    """The results of a pass before the last one: files beside those of the job.

    They depend only on the job's pinned data, so any attempt can use another's files. A bucket counts once the worker
    that holds the job has written its note.
    """

    files: MembershipFiles
    run_id: str

    def notes(self) -> dict[int, StoredValues]:
        paths = self.files.lake.membership(self.run_id).glob("[0-9]*.json")
        return {int(path.stem): json.loads(path.read_text()) for path in paths}

    def note(self, bucket: int, note: StoredValues) -> None:
        """Writes the note of a finished bucket: file, profiles and counts."""
        write_atomically(self.files.lake.membership(self.run_id) / f"{bucket}.json", json.dumps(note).encode())

    def limit(self, bucket: int, note: StoredValues, attempt: int, kept: Kept) -> None:
        """Rewrites a bucket with fewer members."""
        memberships = self.files.read(self.run_id, bucket, note["file"])
        numbers = dict(note["counts"]["counts"])
        for id_ in kept.chosen.keys() & memberships.keys():
            memberships[id_], counted_anew = kept.of(memberships[id_], bucket)
            numbers[id_] = as_numbers(counted_anew)
        name = self.files.write(self.run_id, bucket, f"{attempt}-limited", list(memberships.values()))
        self.note(bucket, {**note, "file": name, "counts": {**note["counts"], "counts": numbers}})

    def found(self, definitions: Iterable[str]) -> MembershipSource:
        notes, ids = self.notes(), list(definitions)
        return MembershipSource(
            lambda bucket: self.files.read(self.run_id, bucket, notes[bucket]["file"], ids) if bucket in notes else {},
            frozenset(notes),
        )


@dataclass(frozen=True)
class SegmentPass:
    """What a job evaluates over all buckets before the next pass. `passes` are the passes up to and including this one,
    as stages, without definitions that failed before it. `attempt` is the job's token; `since` are the earlier runs
    whose results can be reused.

    Only the results of the last pass become visible, together with those of earlier passes. A `writer` that does not
    hold the job has a name, so that its files replace no others.
    """

    lake: TenantLake
    job_id: str
    attempt: int
    run: SegmentRun
    passes: Sequence[Sequence[StageIds]]
    is_last: bool
    since: Sequence[Since] = ()
    parallel: int = 1
    writer: str = ""

    @property
    def own(self) -> EarlierPass:
        """The results of this pass, if it is not the last one."""
        return earlier_pass(self._files, self.job_id, len(self.passes) - 1)

    @property
    def buckets(self) -> frozenset[int]:
        """All buckets with people or with earlier members. Opens everything, for all threads."""
        return self._opened[1].union(*(notes for _, notes in self._found_before))

    def bucket(self, number: int, stopped: Stopped) -> Done:
        """Writes a bucket's memberships as a file that is invisible until its fenced row is committed or its note is
        written."""
        result = self._opened[0].bucket(number, stopped)
        memberships, numbers = list(result.memberships), counted(result)
        for earlier, notes in self._found_before:
            if (note := notes.get(number)) is not None:
                memberships += self._files.read(earlier.run_id, number, note["file"]).values()
                for name in ("counts", "errors"):
                    numbers[name] |= note["counts"][name]
                if "seconds" in note["counts"]:
                    numbers["seconds"] = added(numbers["seconds"], note["counts"]["seconds"])
        run_id = self.job_id if self.is_last else self.own.run_id
        writer = f"{self.attempt}-{self.writer}" if self.writer else self.attempt
        name = self._files.write(run_id, number, writer, memberships)
        return Done(number, name, result.profiles, numbers)

    def stored(self, references: Iterable[str], graph: int | None, passes: int) -> MembershipSource:
        """The memberships that definitions reference without being evaluated with them: from one of the first `passes`,
        or from another run."""
        outside, inside = [], []
        for id_ in sorted(references):
            if (number := self._pass_of.get(id_, passes)) < passes:
                source = earlier_pass(self._files, self.job_id, number).found([id_])
                inside.append(followed(self.lake, source, self.run.graph_of(id_), graph))
            elif id_ not in self._pass_of:
                outside.append(id_)
        return together([self.run.heads.people(self._files, outside, graph), *inside])

    # ------------------------------------------------------------ elsewhere

    def as_json(self) -> JsonObject:
        return {
            "lake": lake_as_json(self.lake),
            "job_id": self.job_id,
            "attempt": self.attempt,
            "run": run_as_json(self.run, self._pass_of),
            "passes": [[[policy, list(ids)] for policy, ids in stages] for stages in self.passes],
            "is_last": self.is_last,
            "since": [since.as_json() for since in self.since],
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises `EngineAway` and `Refusal`."""
        lake = lake_from_json(value["lake"], Tenant(value["run"]["organisation"], value["run"]["sandbox"]))
        passes = [[(policy, ids) for policy, ids in stages] for stages in value["passes"]]
        run = run_from_json(value["run"], lake, [id_ for _, ids in passes[-1] for id_ in ids])
        since = [Since.from_json(entry) for entry in value["since"]]
        return cls(lake, value["job_id"], value["attempt"], run, passes, value["is_last"], since)

    # ------------------------------------------------------------ opened once, where it is done

    @cached_property
    def _files(self) -> MembershipFiles:
        return MembershipFiles(self.lake)

    @cached_property
    def _pass_of(self) -> dict[str, int]:
        return {id_: at for at, stages in enumerate(self.passes) for _, ids in stages for id_ in ids}

    @cached_property
    def _found_before(self) -> list[tuple[EarlierPass, dict[int, StoredValues]]]:
        """Earlier results that become part of the job's results, in the last pass."""
        numbers = range(len(self.passes) - 1 if self.is_last else 0)
        earlier = [earlier_pass(self._files, self.job_id, number) for number in numbers]
        return [(state, state.notes()) for state in earlier]

    @cached_property
    def _opened(self) -> tuple[BucketEvaluator, frozenset[int]]:
        """The opened stages, with the buckets that have people or earlier members."""
        run, unchanged = self.run, Unchanged.opened(self.lake, self.run, self.since)
        stages, buckets = [], frozenset[int]()
        for policy, ids in self.passes[-1]:
            plan = Plan({id_: run.conditions[id_] for id_ in ids})
            snapshot = run.snapshots[policy]
            before = run.heads.people(replace(self._files, mending=True), ids, snapshot.graph_version)
            stored = self.stored(plan.references, snapshot.graph_version, len(self.passes) - 1)
            stage = Stage(
                plan,
                snapshot,
                _by_bucket(lru_cache(self.parallel)(stored.read)),
                before.read,
                run.heads.standing(self._files, plan, run.entries, snapshot.graph_version),
                partial(unchanged.known, frozenset(ids)),
            )
            stages.append(stage)
            buckets |= before.buckets.union(snapshot.buckets)
        versions = {id_: definition.version for id_, definition in run.definitions.items()}
        return BucketEvaluator(stages, run.evaluated_at, versions, budget=self.lake.lake.budget), buckets


def earlier_pass(files: MembershipFiles, job_id: str, number: int) -> EarlierPass:
    """The job's pass with this number, from 0."""
    return EarlierPass(files, f"{job_id}-pass-{number + 1}")


def _by_bucket(read: Callable[[int], Mapping[str, Membership]]) -> Callable[[str, int], Membership | None]:
    return lambda id_, bucket: read(bucket).get(id_)
