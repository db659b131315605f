"""Runs a plan over buckets in threads of this process; knows neither jobs nor databases."""

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate import EvaluationError, dependency_failed, evaluate
from app.engine.evaluate.attempts import Attempts
from app.engine.limits.budget import DEFAULT_BUDGET, Budget
from app.engine.limits.pool import Cancelled, Stopped, in_threads
from app.engine.members.membership import BucketCounts, Membership, counts, next_membership
from app.engine.members.membership_map import with_memberships
from app.engine.people.snapshot import Snapshot
from app.engine.plan.plan import Plan
from app.engine.store.bitmaps import bitmap_of
from app.metrics import BUCKET_SECONDS
from app.pql.schema import Segment
from app.traces import span

__all__ = [
    "BucketEvaluator",
    "BucketResult",
    "BucketSeconds",
    "Known",
    "Stage",
    "evaluated_now",
    "rows_of",
    "run",
    "with_statuses_kept",
]


Standing = Callable[[int], Mapping[Segment, Membership]]
"""The stored memberships of a bucket at the start of the run."""


@dataclass(slots=True)
class BucketSeconds:
    """The time spent in a bucket: reading its profiles and events, and evaluating each definition.

    `total` is the time of the whole bucket, which also includes reading and comparing memberships.
    """

    total: float = 0.0
    reading: float = 0.0
    definitions: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BucketResult:
    """The result of one bucket: memberships and counts of the evaluated definitions, errors of the others.

    `unchanged` is the number of profiles that were not read because all their memberships remain valid. `seconds` is
    wall-clock time.
    """

    bucket: int
    profiles: int
    memberships: list[Membership]
    counts: dict[str, BucketCounts]
    errors: dict[str, EvaluationError]
    unchanged: int = 0
    seconds: BucketSeconds = field(default_factory=BucketSeconds)


@dataclass(frozen=True, slots=True)
class Known:
    """Definitions whose result in a bucket is known to equal `previous`, except for these `people`; their references
    are among them."""

    definitions: frozenset[str]
    people: BitMap


def _nothing_known(_bucket: int) -> Sequence[Known]:
    return ()


@dataclass(frozen=True, slots=True)
class Stage:
    """Definitions of one merge policy that are evaluated together.

    `stored` returns the membership in a bucket of a segment that no stage of the run evaluates, `previous` the
    memberships of the previous run by definition, and `standing` the contents of `segmentMembership` for the segments
    that the plan names. `known` returns the definitions whose results mostly remain valid.
    """

    plan: Plan
    snapshot: Snapshot
    stored: Callable[[str, int], Membership | None]
    previous: Callable[[int], Mapping[str, Membership]]
    standing: Standing
    known: Callable[[int], Sequence[Known]] = _nothing_known


@dataclass(frozen=True, slots=True)
class BucketEvaluator:
    """Evaluates stages over one bucket at a time; `versions` are those of the definitions.

    With `only`, just the people with the returned ordinals are evaluated (None: all people), and the others keep their
    status. `profiles` of the result counts the evaluated people; its memberships and counts cover the whole bucket.
    """

    stages: Sequence[Stage]
    now: datetime
    versions: Mapping[str, int]
    only: Callable[[int], BitMap | None] | None = None
    budget: Budget = DEFAULT_BUDGET
    exhausted: dict[str, EvaluationError] = field(default_factory=dict)
    """Definitions that exceeded their budget in one bucket are skipped in the others."""
    clock: Callable[[], float] = time.perf_counter

    def bucket(self, number: int, stopped: Stopped) -> BucketResult:
        """Evaluates the stages in order: a later one may reference results of earlier ones."""
        began, seconds = self.clock(), BucketSeconds()
        profiles = unchanged = 0
        memberships: dict[str, Membership] = {}
        numbers: dict[str, BucketCounts] = {}
        errors: dict[str, EvaluationError] = {}
        for stage in self.stages:
            if stopped():
                raise Cancelled
            bucket = _Bucket(number, stage, stage.previous(number), stopped, memberships, errors, seconds)
            rows, same = self._stage(bucket)
            profiles, unchanged = profiles + rows, unchanged + same
            namespaces = stage.snapshot.namespaces(number)
            present = stage.plan.conditions.keys() & memberships.keys()
            numbers |= {definition: counts(memberships[definition], namespaces) for definition in present}
        seconds.total = self.clock() - began
        return BucketResult(number, profiles, list(memberships.values()), numbers, errors, unchanged, seconds)

    def _stage(self, bucket: "_Bucket") -> tuple[int, int]:
        """Evaluates a stage; returns the number of people processed, and of those not read."""
        stage, only = bucket.stage, self.only(bucket.number) if self.only is not None else None
        renewed = (
            []
            if only is not None
            else [each for each in stage.known(bucket.number) if each.definitions <= bucket.before.keys()]
        )
        for each in renewed:
            self._renew(bucket, each)
        rest = frozenset(stage.plan.conditions).difference(*(each.definitions for each in renewed))
        if rest or not renewed:
            members, rows = self._members(bucket, stage.plan.of(rest), only)
            for id, people in members.items():
                bucket.memberships[id] = self._next(bucket.before.get(id), id, people, only)
            return rows, 0
        rows = stage.snapshot.profiles_in(bucket.number)
        return rows, rows - len(BitMap.union(BitMap(), *(each.people for each in renewed)))

    def _renew(self, bucket: "_Bucket", known: Known) -> None:
        """Evaluates definitions with known results only for the few people they are not known for."""
        fresh: Mapping[str, BitMap] = {}
        if known.people:
            fresh, _ = self._members(bucket, bucket.stage.plan.of(known.definitions), known.people)
        for id in known.definitions - bucket.errors.keys():
            before = bucket.before[id]
            members = (before.members - known.people) | fresh[id] if known.people else before.members
            bucket.memberships[id] = self._next(before, id, members)

    def _next(
        self, before: Membership | None, definition: str, members: BitMap, only: BitMap | None = None
    ) -> Membership:
        now = self.now.astimezone(UTC)
        return next_membership(before, definition, members, self.versions[definition], now, only)

    def _members(self, work: "_Bucket", plan: Plan, only: BitMap | None) -> tuple[dict[str, BitMap], int]:
        """The members of each definition of a plan among all people or `only` some, and the number of people read;
        failures are added to the errors.

        Of a bucket with very many rows, a part of the people is read at a time.
        """
        members: dict[str, BitMap] = {}
        rows = 0
        for part in work.stage.snapshot.parts(work.number, plan.needs, only):
            if work.stopped():
                raise Cancelled
            in_part, read = self._members_in_part(work, plan, part)
            rows += read
            for id, people in in_part.items():
                members[id] = members[id] | people if id in members else people
        return {id: people for id, people in members.items() if id not in work.errors}, rows

    def _members_in_part(self, work: "_Bucket", plan: Plan, only: BitMap | None) -> tuple[dict[str, BitMap], int]:
        stage, errors, began = work.stage, work.errors, self.clock()
        bucket = stage.snapshot.read(work.number, plan.needs, only)
        work.seconds.reading += self.clock() - began
        if plan.needs_memberships:
            profiles = with_memberships(bucket.profiles, bucket.ordinals, stage.standing(work.number))
            bucket = replace(bucket, profiles=profiles)

        def member(id: str) -> NDArray[np.bool_]:
            if id in errors:
                raise dependency_failed(id, errors[id])
            membership = work.memberships[id] if id in work.memberships else stage.stored(id, work.number)
            return rows_of(membership.members if membership is not None else BitMap(), bucket.ordinals)

        failed = {id: error for id, error in {**self.exhausted, **errors}.items() if id in plan.conditions}
        attempts = Attempts(failed, work.seconds.definitions, self.clock)
        results = evaluate(
            plan, bucket, now=self.now, member=member, cancelled=work.stopped, budget=self.budget, attempts=attempts
        )
        members = {}
        for definition, rows in results.items():
            if isinstance(rows, EvaluationError):
                errors[definition] = rows
                if rows.code == "LIMIT_EXCEEDED":
                    self.exhausted[definition] = rows
            else:
                members[definition] = bitmap_of(bucket.ordinals, rows)
        return members, len(bucket.ordinals)


@dataclass(frozen=True, slots=True)
class _Bucket:
    """A stage in one bucket, with the results of the stages so far."""

    number: int
    stage: Stage
    before: Mapping[str, Membership]
    stopped: Stopped
    memberships: dict[str, Membership]
    errors: dict[str, EvaluationError]
    seconds: BucketSeconds


def run(
    evaluator: BucketEvaluator,
    buckets: Iterable[int],
    *,
    finished: Callable[[BucketResult], None],
    cancelled: Callable[[], bool],
    threads: int,
) -> None:
    """Evaluates the stages over the buckets, with at most `threads` of them in memory.

    `finished` receives each result on the calling thread, in any order. Raises `Cancelled` soon after `cancelled`
    returns true; results delivered until then are complete. An error in `finished` or in a bucket ends the run.
    """

    def timed(bucket: int, stopped: Stopped) -> BucketResult:
        with BUCKET_SECONDS.time(), span("bucket", bucket=bucket):
            return evaluator.bucket(bucket, stopped)

    in_threads(timed, buckets, finished=finished, cancelled=cancelled, threads=threads)


def evaluated_now(
    stage: Stage,
    bucket: int,
    people: Collection[int],
    *,
    now: datetime,
    versions: Mapping[str, int],
    budget: Budget = DEFAULT_BUDGET,
) -> dict[str, Membership]:
    """The memberships of a bucket if some of its people (by ordinal) were evaluated now.

    People whose membership is the same as before (`stage.previous`) keep their status. A definition that fails is left
    out.
    """
    only, before = BitMap(people), stage.previous(bucket)
    evaluator = BucketEvaluator([stage], now, versions, lambda _bucket: only, budget)
    memberships = {}
    for fresh in evaluator.bucket(bucket, lambda: False).memberships:
        memberships[fresh.definition] = with_statuses_kept(before.get(fresh.definition), fresh, now)
    return memberships


def with_statuses_kept(
    before: Membership | None, fresh: Membership, now: datetime, evaluated: BitMap | None = None
) -> Membership:
    """The same members; people whose membership is unchanged keep their status, except for the `evaluated`."""
    changed = (fresh.members ^ before.members) if before is not None else fresh.members
    if evaluated is not None:
        changed = changed | evaluated
    return next_membership(before, fresh.definition, fresh.members, fresh.version, now.astimezone(UTC), changed)


def rows_of(members: BitMap, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the person of each row (ascending ordinals) is a member."""
    mask = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.bool_)
    member_ordinals = np.frombuffer(members.to_array(), np.uint32) if len(members) else np.empty(0, np.uint32)
    mask[member_ordinals[member_ordinals < len(mask)]] = True
    return mask[ordinals]
