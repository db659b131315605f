"""Running a plan over buckets: results, errors, cancelling, bounds."""

import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pyroaring import BitMap

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.limits.budget import Budget
from app.engine.limits.pool import Cancelled
from app.engine.members.membership import Membership, next_membership
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, BucketSeconds, Stage, run
from app.pql.check.checker import check
from app.pql.core import Builder
from tests.support.sandbox import CDNOW, PURCHASES, Sandbox

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
DEFINITIONS = {
    "C": 'inSegment("A") and not(inSegment("B"))',
    "A": "xEvent.sum(dollars) > 500",
    "B": "xEvent[timestamp occurs between date(1997, 1, 1) and date(1997, 3, 31)].count() >= 3",
    "D": "CHAIN(xEvent, timestamp, [C0: WHAT(dollars > 100), C1: WHAT(dollars > 100) WHEN(<= 30 days after C0)])",
    "E": "xEvent.min(timestamp).getMonth() = 2",
}


@pytest.fixture
def snapshot(sandbox: Sandbox) -> Snapshot:
    ingest(sandbox.lake, "purchases", PURCHASES, InputFile(CDNOW, "CSV"), "b1")
    return open_snapshot(sandbox.lake, MergeRule("default", "TIMESTAMP_ORDERED"), [Dataset("purchases", "EVENT")])


def plan(snapshot: Snapshot, definitions: dict[str, str]) -> Plan:
    builder = Builder()
    checked = {
        name: check(text, snapshot.schema, segments={*DEFINITIONS, "outside"}, builder=builder)
        for name, text in definitions.items()
    }
    assert all(result.ok for result in checked.values())
    return Plan({name: result.condition for name, result in checked.items() if result.condition is not None})


def evaluated(
    snapshot: Snapshot,
    definitions: dict[str, str],
    *,
    finished: Callable[[BucketResult], None] | None = None,
    stored: Callable[[str, int], Membership | None] = lambda definition, bucket: None,
    previous: Callable[[int], dict[str, Membership]] = lambda bucket: {},
    cancelled: Callable[[], bool] = lambda: False,
) -> list[BucketResult]:
    results: list[BucketResult] = []
    stage = Stage(plan(snapshot, definitions), snapshot, stored, previous, lambda bucket: {})
    run(
        BucketEvaluator([stage], NOW, dict.fromkeys(definitions, 1)),
        snapshot.buckets,
        finished=finished or results.append,
        cancelled=cancelled,
        threads=2,
    )
    return results


def totals(results: list[BucketResult], what: str) -> dict[str, int]:
    sums: dict[str, int] = {}
    for result in results:
        for name, count in result.counts.items():
            sums[name] = sums.get(name, 0) + getattr(count, what)
    return sums


@pytest.mark.usefixtures("real_buckets")
def test_cdnow(snapshot: Snapshot) -> None:
    results = evaluated(snapshot, DEFINITIONS)
    assert totals(results, "members") == {"A": 734, "B": 1_590, "C": 392, "D": 226, "E": 8_476}
    assert sorted(result.bucket for result in results) == list(range(16))
    assert sum(result.profiles for result in results) == 23_570
    assert sum(result.counts["A"].by_namespace["CRM"] for result in results) == 734
    before = {result.bucket: {m.definition: m for m in result.memberships} for result in results}
    again = evaluated(snapshot, DEFINITIONS, previous=lambda bucket: before[bucket])
    assert totals(again, "realized") == dict.fromkeys("ABCDE", 0)
    assert totals(again, "existing")["A"] == 734
    assert totals(again, "exited") == dict.fromkeys("ABCDE", 0)


def test_a_bucket_with_very_many_rows_is_evaluated_in_parts(snapshot: Snapshot, monkeypatch: Any) -> None:
    whole = {result.bucket: result for result in evaluated(snapshot, DEFINITIONS)}
    sizes: list[int] = []
    read = Snapshot.read

    def counted(*arguments: Any) -> Any:
        bucket = read(*arguments)
        sizes.append(len(bucket.ordinals) + len(bucket.event_rows))
        return bucket

    monkeypatch.setattr(Snapshot, "read", counted)
    monkeypatch.setattr("app.engine.people.snapshot.MOST_ROWS", 2_000)
    parts = {result.bucket: result for result in evaluated(snapshot, DEFINITIONS)}
    assert len(whole) == 4 < len(sizes) / 10
    assert max(sizes) < 4_000, "a customer has three purchases, on average"
    assert sum(sizes) == 23_570 + 69_659
    for number, result in parts.items():
        assert (result.profiles, result.counts) == (whole[number].profiles, whole[number].counts)
        before = {membership.definition: membership.members for membership in whole[number].memberships}
        assert {membership.definition: membership.members for membership in result.memberships} == before


def test_a_definition_that_fails_in_one_part_fails_in_the_bucket(snapshot: Snapshot, monkeypatch: Any) -> None:
    calls: dict[str, int] = {}

    def failing(plan: Any, bucket: Any, *, attempts: Any, **options: Any) -> Any:
        calls["A"] = calls.get("A", 0) + ("A" not in attempts.failed)
        results = evaluate(plan, bucket, attempts=attempts, **options)
        return {**results, "A": EvaluationError("INTERNAL", "no")} if calls["A"] == 2 else results

    monkeypatch.setattr("app.engine.run.buckets.evaluate", failing)
    monkeypatch.setattr("app.engine.people.snapshot.MOST_ROWS", 2_000)
    stage = Stage(plan(snapshot, DEFINITIONS), snapshot, lambda *_: None, lambda bucket: {}, lambda bucket: {})
    result = BucketEvaluator([stage], NOW, dict.fromkeys(DEFINITIONS, 1)).bucket(0, lambda: False)
    assert result.errors.keys() == {"A", "C"}, "C refers to A"
    assert result.errors["A"].message == "no"
    assert sorted(membership.definition for membership in result.memberships) == ["B", "D", "E"]
    assert calls == {"A": 2}, "and is not evaluated in the other parts"


def test_a_segment_outside_the_plan_is_read_from_its_stored_membership(snapshot: Snapshot) -> None:
    def stored(definition: str, bucket: int) -> Membership | None:
        # Ordinals that the bucket does not have are nobody.
        return next_membership(None, definition, BitMap([0, 2, 1_000_000]), 1, NOW) if bucket < 4 else None

    results = evaluated(snapshot, {"C": 'inSegment("outside")'}, stored=stored)
    assert totals(results, "members") == {"C": 8}


def test_results_come_on_the_callers_thread_and_few_buckets_are_read_at_a_time(
    snapshot: Snapshot, monkeypatch: Any
) -> None:
    both = threading.Barrier(2, timeout=60)
    most_waiting, reading, most_reading, lock = 0, 0, 0, threading.Lock()
    waiting: list[int] = []
    evaluate_bucket = BucketEvaluator.bucket

    def counted(self: BucketEvaluator, number: int, stopped: Any) -> BucketResult:
        nonlocal reading, most_reading, most_waiting
        with lock:
            reading += 1
            waiting.append(number)
            most_reading, most_waiting = max(most_reading, reading), max(most_waiting, len(waiting))
        both.wait()
        result = evaluate_bucket(self, number, stopped)
        with lock:
            reading -= 1
        return result

    def finished(result: BucketResult) -> None:
        assert threading.current_thread() is threading.main_thread()
        with lock:
            waiting.remove(result.bucket)

    monkeypatch.setattr(BucketEvaluator, "bucket", counted)
    evaluated(snapshot, {"A": DEFINITIONS["A"]}, finished=finished)
    assert (reading, most_reading, waiting) == (0, 2, [])
    assert most_waiting <= 4


def test_cancelling_stops_between_buckets_and_inside_one(snapshot: Snapshot) -> None:
    done: list[int] = []
    with pytest.raises(Cancelled):
        evaluated(
            snapshot, DEFINITIONS, finished=lambda result: done.append(result.bucket), cancelled=lambda: len(done) > 2
        )
    assert 3 <= len(done) <= 6  # those in hand at the third are handed over
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked > 6

    with pytest.raises(Cancelled):
        evaluated(snapshot, DEFINITIONS, finished=lambda result: pytest.fail("no bucket can be done"), cancelled=soon)


def test_an_error_of_the_receiver_ends_the_run(snapshot: Snapshot) -> None:
    handed: list[int] = []

    def refuse(result: BucketResult) -> None:
        handed.append(result.bucket)
        raise RuntimeError("the lease is lost")

    with pytest.raises(RuntimeError, match="the lease is lost"):
        evaluated(snapshot, {"A": DEFINITIONS["A"]}, finished=refuse)
    assert len(handed) == 1


def test_an_error_of_a_bucket_ends_the_run(snapshot: Snapshot) -> None:
    def previous(bucket: int) -> dict[str, Membership]:
        if bucket == 3:
            raise OSError("the disk is gone")
        return {}

    with pytest.raises(OSError, match="the disk is gone"):
        evaluated(snapshot, {"A": DEFINITIONS["A"]}, previous=previous)


def test_the_seconds_of_a_bucket_are_those_of_its_parts(snapshot: Snapshot) -> None:
    """Each look at the clock is a second later than the one before."""
    seconds = itertools.count()
    stages = [
        Stage(
            plan(snapshot, definitions), snapshot, lambda definition, bucket: None, lambda bucket: {}, lambda bucket: {}
        )
        for definitions in ({"A": DEFINITIONS["A"], "B": DEFINITIONS["B"]}, {"E": DEFINITIONS["E"]})
    ]
    evaluator = BucketEvaluator(stages, NOW, dict.fromkeys("ABE", 1), clock=lambda: float(next(seconds)))
    result = evaluator.bucket(snapshot.buckets[0], lambda: False)
    # Looks: one at the start, two for each reading and each definition, one at the end.
    assert result.seconds == BucketSeconds(total=11.0, reading=2.0, definitions={"A": 1.0, "B": 1.0, "E": 1.0})


def test_what_fails_has_its_seconds_and_what_is_not_tried_has_none(snapshot: Snapshot) -> None:
    seconds = itertools.count()
    stage = Stage(
        plan(snapshot, {"A": DEFINITIONS["A"], "D": DEFINITIONS["D"]}),
        snapshot,
        lambda definition, bucket: None,
        lambda bucket: {},
        lambda bucket: {},
    )
    over = Budget(memory=1)
    evaluator = BucketEvaluator([stage], NOW, dict.fromkeys("AD", 1), budget=over, clock=lambda: float(next(seconds)))
    first, second = (evaluator.bucket(number, lambda: False) for number in snapshot.buckets[:2])
    assert (set(first.errors), set(second.errors)) == ({"A", "D"}, {"A", "D"})
    assert (first.seconds.definitions, second.seconds.definitions) == ({"A": 1.0, "D": 1.0}, {})
