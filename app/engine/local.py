"""Runs a plan over buckets in a few threads of this process; knows neither jobs nor databases."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.evaluate import Cancelled, EvaluationError, evaluate
from app.engine.membership import BucketCounts, Membership, counts, next_membership
from app.engine.plan import Plan
from app.engine.pool import Stopped, in_threads
from app.engine.snapshot import Snapshot

__all__ = ["BucketResult", "Cancelled", "evaluated_now", "run"]


@dataclass(frozen=True, slots=True)
class BucketResult:
    """What came of one bucket: memberships and counts of what could be evaluated, errors of the others."""

    bucket: int
    profiles: int
    memberships: list[Membership]
    counts: dict[str, BucketCounts]
    errors: dict[str, EvaluationError]


@dataclass(frozen=True, slots=True)
class _Work:
    plan: Plan
    snapshot: Snapshot
    now: datetime
    stored: Callable[[str, int], Membership | None]
    previous: Callable[[int], Mapping[str, Membership]]
    versions: Mapping[str, int]
    only: Callable[[int], BitMap] | None

    def bucket(self, number: int, stopped: Stopped) -> BucketResult:
        only = self.only(number) if self.only is not None else None
        bucket = self.snapshot.read(number, self.plan.needs, only)

        def member(id: str) -> NDArray[np.bool_]:
            membership = self.stored(id, number)
            return _rows(membership.members if membership is not None else BitMap(), bucket.ordinals)

        found = evaluate(self.plan, bucket, now=self.now, member=member, cancelled=stopped)
        before, namespaces = self.previous(number), self.snapshot.namespaces(number)
        result = BucketResult(number, len(bucket.ordinals), [], {}, {})
        for definition, rows in found.items():
            if isinstance(rows, EvaluationError):
                result.errors[definition] = rows
                continue
            members, version = BitMap(bucket.ordinals[rows]), self.versions[definition]
            membership = next_membership(before.get(definition), definition, members, version, self.now, only)
            result.memberships.append(membership)
            result.counts[definition] = counts(membership, namespaces)
        return result


def run(
    plan: Plan,
    snapshot: Snapshot,
    buckets: Iterable[int],
    *,
    now: datetime,
    stored: Callable[[str, int], Membership | None],
    previous: Callable[[int], Mapping[str, Membership]],
    versions: Mapping[str, int],
    finished: Callable[[BucketResult], None],
    cancelled: Callable[[], bool],
    threads: int,
    only: Callable[[int], BitMap] | None = None,
) -> None:
    """Evaluates the plan over the buckets, at most `threads` of them in memory.

    With `only` the people whose ordinals it gives for a bucket are evaluated, and the others stay what they were:
    `profiles` of the result counts the evaluated, its memberships and counts are those of the whole bucket.
    `stored` gives the membership of a segment outside the plan in a bucket, `previous` those of the run before by
    definition, `versions` the version of each definition. `finished` gets each result on the calling thread, in any
    order. Raises `Cancelled` soon after `cancelled` says so; results handed over until then are whole. An error of
    `finished` or of a bucket ends the run.
    """
    work = _Work(plan, snapshot, now, stored, previous, versions, only)
    in_threads(work.bucket, buckets, finished=finished, cancelled=cancelled, threads=threads)


def evaluated_now(
    plan: Plan,
    snapshot: Snapshot,
    bucket: int,
    people: Collection[int],
    *,
    now: datetime,
    stored: Callable[[str], Membership | None],
    versions: Mapping[str, int],
) -> dict[str, Membership]:
    """The memberships of a bucket if some of its people (by ordinal) were evaluated now.

    Those who are in and were in, or out and were out, by `stored`, keep their status. A definition that fails is left
    out.
    """
    only = BitMap(people)
    before = {id: membership for id in plan.conditions if (membership := stored(id)) is not None}
    work = _Work(
        plan,
        snapshot,
        now,
        stored=lambda segment, _bucket: stored(segment),
        previous=lambda _bucket: before,
        versions=versions,
        only=lambda _bucket: only,
    )
    found = {}
    for fresh in work.bucket(bucket, lambda: False).memberships:
        id, old = fresh.definition, before.get(fresh.definition)
        changed = (fresh.members ^ old.members) if old is not None else fresh.members
        found[id] = next_membership(old, id, fresh.members, fresh.version, now, changed)
    return found


def _rows(members: BitMap, ordinals: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Whether the person of each row (ordinals rise) is among the members."""
    mask = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.bool_)
    known = np.frombuffer(members.to_array(), np.uint32) if len(members) else np.empty(0, np.uint32)
    mask[known[known < len(mask)]] = True
    return mask[ordinals]
