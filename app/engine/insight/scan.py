"""Evaluates conditions, values and stored audiences over the profiles of one snapshot, bucket by bucket."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate import EvaluationError, evaluate_values
from app.engine.evaluate.columns import Value
from app.engine.limits.budget import Budget
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Membership
from app.engine.members.membership_map import with_memberships
from app.engine.members.regraph import MembershipSource
from app.engine.people.merging import ordinals_in
from app.engine.people.snapshot import Snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import Standing, rows_of
from app.engine.store.bitmaps import bitmap, bitmap_of
from app.errors import ErrorCode, Refusal

Answer = TypeVar("Answer")

PRESENT_KEPT = 4_096
"""Number of merged view files whose ordinals are cached; such a file never changes."""
NO_VALUES: NDArray[np.uint32] = np.empty(0, np.uint32)


@dataclass(frozen=True, slots=True)
class Answers:
    """The results of one bucket: the members of each audience, the matches of each condition, and the values of
    `ordinals`.

    `values` have one entry for each of `ordinals`, which are all profiles of the bucket if the plan reads any.
    """

    bucket: int
    present: BitMap
    members: Mapping[str, BitMap]
    ordinals: NDArray[np.uint32]
    values: Mapping[str, Value]
    failed: Mapping[str, Refusal] = field(default_factory=dict)
    """Values that cannot be evaluated, in a scan that continues without them."""


@dataclass(frozen=True, slots=True)
class Scan:
    """The queries of each bucket. `stored` returns the memberships of `audiences` and of the plan's references for the
    profiles of the snapshot, and `standing` the contents of their `segmentMembership`."""

    snapshot: Snapshot
    plan: Plan
    now: datetime
    stored: MembershipSource
    standing: Standing
    budget: Budget
    audiences: Sequence[str] = ()
    tolerant: bool = False
    """Values that cannot be evaluated are `failed`, instead of the whole scan."""

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.snapshot.buckets

    def bucket(self, number: int, stopped: Stopped) -> Answers:
        """Raises `Cancelled` once `stopped` returns true, and `Refusal` if an expression cannot be evaluated."""
        memberships = self.stored.read(number) if self.audiences or self.plan.references else {}
        present = present_in(self.snapshot, number)
        members = {id: memberships[id].members & present if id in memberships else BitMap() for id in self.audiences}
        if not self.plan.conditions and not self.plan.values:
            return Answers(number, present, members, NO_VALUES, {})
        return self._evaluated(Answers(number, present, members, NO_VALUES, {}), memberships, stopped)

    def _evaluated(self, stored: Answers, memberships: Mapping[str, Membership], stopped: Stopped) -> Answers:
        bucket = self.snapshot.read(stored.bucket, self.plan.needs)
        if self.plan.needs_memberships:
            profiles = with_memberships(bucket.profiles, bucket.ordinals, self.standing(stored.bucket))
            bucket = replace(bucket, profiles=profiles)

        def member(id: str) -> NDArray[np.bool_]:
            return rows_of(memberships[id].members if id in memberships else BitMap(), bucket.ordinals)

        results, values = evaluate_values(
            self.plan, bucket, now=self.now, member=member, cancelled=stopped, budget=self.budget
        )
        failed = {
            id: _refusal(value) for id, value in values.items() if isinstance(value, EvaluationError) and self.tolerant
        }
        held = {id: bitmap_of(bucket.ordinals, rows) for id, rows in _answered(results).items()}
        answered: dict[str, Value] = _answered({id: value for id, value in values.items() if id not in failed})
        return Answers(stored.bucket, stored.present, {**stored.members, **held}, bucket.ordinals, answered, failed)


class Buckets(Protocol):
    """Answers a query bucket by bucket."""

    @property
    def buckets(self) -> tuple[int, ...]: ...

    def bucket(self, number: int, stopped: Stopped) -> Answers: ...


@dataclass(frozen=True, slots=True)
class Remembering:
    """A scan that evaluates each bucket once; it keeps the bitmaps, a few bits per profile, and no values."""

    scan: Scan
    _known: dict[int, Answers] = field(default_factory=dict)

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.scan.buckets

    def bucket(self, number: int, stopped: Stopped) -> Answers:
        answers = self._known.get(number)
        if answers is None:
            scanned = self.scan.bucket(number, stopped)
            answers = self._known[number] = Answers(number, scanned.present, scanned.members, NO_VALUES, {})
        return answers


@dataclass(frozen=True, slots=True)
class Selecting:
    """A scan whose set `id` is restricted to the members of an audience with some statuses, or created from them if the
    scan has no such set. Buckets without members are not evaluated unless values are requested."""

    scan: Scan
    id: str
    audience: str
    statuses: Collection[str]
    stored: MembershipSource

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.scan.buckets

    def bucket(self, number: int, stopped: Stopped) -> Answers:
        membership = self.stored.read(number).get(self.audience)
        members = BitMap() if membership is None else membership.with_status(self.statuses)
        members &= present_in(self.scan.snapshot, number)
        if not members and not self.scan.plan.values:
            return Answers(number, members, {self.id: members}, NO_VALUES, {})
        answers = self.scan.bucket(number, stopped)
        return replace(answers, members={self.id: members & answers.members.get(self.id, answers.present)})


def _answered(results: Mapping[str, Answer | EvaluationError]) -> dict[str, Answer]:
    answers: dict[str, Answer] = {}
    for id, result in results.items():
        if isinstance(result, EvaluationError):
            raise _refusal(result)
        answers[id] = result
    return answers


def _refusal(error: EvaluationError) -> Refusal:
    return Refusal(ErrorCode.INVALID_EXPRESSION, f"the expression cannot be evaluated: {error.message}")


def present_in(snapshot: Snapshot, bucket: int) -> BitMap:
    """The ordinals of the profiles in the bucket; do not modify."""
    path = snapshot.view_path(bucket)
    return BitMap() if path is None else _present(path)


@lru_cache(PRESENT_KEPT)
def _present(path: Path) -> BitMap:
    return bitmap(ordinals_in(path).astype(np.uint32))
