"""Runs a plan over buckets in a few threads of this process; knows neither jobs nor databases."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate import Cancelled, EvaluationError, dependency_failed, evaluate
from app.engine.members.membership import BucketCounts, Membership, counts, next_membership
from app.engine.members.membership_map import with_memberships
from app.engine.people.snapshot import Snapshot
from app.engine.plan.plan import Plan
from app.engine.pool import Stopped, in_threads
from app.pql.schema import Segment

__all__ = ["BucketResult", "Cancelled", "Step", "evaluated_now", "rows_of", "run", "run_steps"]


Standing = Callable[[int], Mapping[Segment, Membership]]
"""The memberships of a bucket as they were stored when the run began."""


@dataclass(frozen=True, slots=True)
class BucketResult:
    """What came of one bucket: memberships and counts of what could be evaluated, errors of the others."""

    bucket: int
    profiles: int
    memberships: list[Membership]
    counts: dict[str, BucketCounts]
    errors: dict[str, EvaluationError]


@dataclass(frozen=True, slots=True)
class Step:
    """Definitions of one merge policy, evaluated together.

    `stored` gives the membership in a bucket of a segment that no step of the run evaluates, `previous` those of the
    run before by definition, and `standing` what `segmentMembership` holds of the segments that the plan names.
    """

    plan: Plan
    snapshot: Snapshot
    stored: Callable[[str, int], Membership | None]
    previous: Callable[[int], Mapping[str, Membership]]
    standing: Standing


@dataclass(frozen=True, slots=True)
class _Work:
    steps: Sequence[Step]
    now: datetime
    versions: Mapping[str, int]
    only: Callable[[int], BitMap] | None

    def bucket(self, number: int, stopped: Stopped) -> BucketResult:
        """The steps in their order: a later one may refer to what an earlier one has evaluated."""
        profiles = 0
        memberships: dict[str, Membership] = {}
        numbers: dict[str, BucketCounts] = {}
        errors: dict[str, EvaluationError] = {}
        for step in self.steps:
            if stopped():
                raise Cancelled
            read, namespaces = self._step(step, number, stopped, memberships, errors)
            profiles += read
            done = step.plan.conditions.keys() & memberships.keys()
            numbers |= {definition: counts(memberships[definition], namespaces) for definition in done}
        return BucketResult(number, profiles, list(memberships.values()), numbers, errors)

    def _step(
        self,
        step: Step,
        number: int,
        stopped: Stopped,
        memberships: dict[str, Membership],
        errors: dict[str, EvaluationError],
    ) -> tuple[int, Mapping[str, BitMap]]:
        """Adds to memberships and errors; returns how many people were read, and who has which namespace."""
        only = self.only(number) if self.only is not None else None
        bucket = step.snapshot.read(number, step.plan.needs, only)
        if step.plan.needs_memberships:
            profiles = with_memberships(bucket.profiles, bucket.ordinals, step.standing(number))
            bucket = replace(bucket, profiles=profiles)

        def member(id: str) -> NDArray[np.bool_]:
            if id in errors:
                raise dependency_failed(id, errors[id])
            membership = memberships[id] if id in memberships else step.stored(id, number)
            return rows_of(membership.members if membership is not None else BitMap(), bucket.ordinals)

        found = evaluate(step.plan, bucket, now=self.now, member=member, cancelled=stopped)
        before = step.previous(number)
        for definition, rows in found.items():
            if isinstance(rows, EvaluationError):
                errors[definition] = rows
                continue
            members, version = BitMap(bucket.ordinals[rows]), self.versions[definition]
            membership = next_membership(before.get(definition), definition, members, version, self.now, only)
            memberships[definition] = membership
        return len(bucket.ordinals), step.snapshot.namespaces(number)


def run(
    plan: Plan,
    snapshot: Snapshot,
    buckets: Iterable[int],
    *,
    now: datetime,
    stored: Callable[[str, int], Membership | None],
    previous: Callable[[int], Mapping[str, Membership]],
    standing: Standing,
    versions: Mapping[str, int],
    finished: Callable[[BucketResult], None],
    cancelled: Callable[[], bool],
    threads: int,
    only: Callable[[int], BitMap] | None = None,
) -> None:
    """Runs one step, as `run_steps` does.

    With `only` the people whose ordinals it gives for a bucket are evaluated, and the others stay what they were:
    `profiles` of the result counts the evaluated, its memberships and counts are those of the whole bucket.
    """
    run_steps(
        [Step(plan, snapshot, stored, previous, standing)],
        buckets,
        now=now,
        versions=versions,
        finished=finished,
        cancelled=cancelled,
        threads=threads,
        only=only,
    )


def run_steps(
    steps: Sequence[Step],
    buckets: Iterable[int],
    *,
    now: datetime,
    versions: Mapping[str, int],
    finished: Callable[[BucketResult], None],
    cancelled: Callable[[], bool],
    threads: int,
    only: Callable[[int], BitMap] | None = None,
) -> None:
    """Evaluates the steps over the buckets, at most `threads` of them in memory.

    `versions` are those of the definitions. `finished` gets each result on the calling thread, in any order. Raises
    `Cancelled` soon after `cancelled` says so; results handed over until then are whole. An error of `finished` or of a
    bucket ends the run.
    """
    work = _Work(steps, now, versions, only)
    in_threads(work.bucket, buckets, finished=finished, cancelled=cancelled, threads=threads)


def evaluated_now(
    plan: Plan,
    snapshot: Snapshot,
    bucket: int,
    people: Collection[int],
    *,
    now: datetime,
    stored: Callable[[str], Membership | None],
    standing: Standing,
    versions: Mapping[str, int],
) -> dict[str, Membership]:
    """The memberships of a bucket if some of its people (by ordinal) were evaluated now.

    Those who are in and were in, or out and were out, by `stored`, keep their status. A definition that fails is left
    out.
    """
    only = BitMap(people)
    before = {id: membership for id in plan.conditions if (membership := stored(id)) is not None}
    step = Step(plan, snapshot, lambda segment, _bucket: stored(segment), lambda _bucket: before, standing)
    work = _Work([step], now, versions, lambda _bucket: only)
    found = {}
    for fresh in work.bucket(bucket, lambda: False).memberships:
        id, old = fresh.definition, before.get(fresh.definition)
        changed = (fresh.members ^ old.members) if old is not None else fresh.members
        found[id] = next_membership(old, id, fresh.members, fresh.version, now, changed)
    return found


def rows_of(members: BitMap, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the person of each row (ordinals rise) is among the members."""
    mask = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.bool_)
    known = np.frombuffer(members.to_array(), np.uint32) if len(members) else np.empty(0, np.uint32)
    mask[known[known < len(mask)]] = True
    return mask[ordinals]
