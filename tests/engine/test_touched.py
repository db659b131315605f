"""Only some people of a bucket: whom a batch touched, what is read of them, and what becomes of their membership."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from app.engine.ingest.batch import delete_dataset
from app.engine.ingest.batch_people import touched
from app.engine.members.membership import Membership, next_membership
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, find, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, Stage, run
from app.engine.store.bucket import Bucket, Needs
from app.pql.check.checker import check
from app.pql.core import Builder
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

START = datetime(2026, 6, 15, 12, tzinfo=UTC)
RULE = MergeRule("default", "TIMESTAMP_ORDERED")
DATASETS = [Dataset("p", "PROFILE"), Dataset("e", "EVENT"), Dataset("f", "EVENT")]
DEFINITIONS = {
    "gold": 'tier = "gold"',
    "recent": "xEvent[timestamp occurs <= 24 hours before now and amount > 5]",
    "pair": "CHAIN(xEvent, timestamp, [A: WHAT(amount > 7) WHEN(<= 24 hours before now),"
    " B: WHAT(amount < 3) WHEN(<= 24 hours before now)])",
    "both": 'inSegment("gold") and inSegment("recent")',
}


def batch(sandbox: Sandbox, random: Random) -> tuple[str, str]:
    """A few rows of a few of 60 people; equal times, and the same event in two datasets, are frequent."""
    people = random.sample(range(60), random.randint(1, 12))
    dataset = random.choice("pef")
    if dataset == "p":
        sandbox.rows("p", PEOPLE, [{"id": f"{n:02}", "tier": random.choice(["gold", "tin", None])} for n in people])
    else:
        rows = [
            {
                "id": f"{n:02}",
                "timestamp": (START - timedelta(hours=random.choice([1, 2, 2, 23, 24, 30]))).isoformat(),
                "amount": random.randint(0, 10),
                "_id": random.choice([None, f"e{n}"]),
            }
            for n in people
            for _ in range(random.randint(1, 3))
        ]
        sandbox.rows(dataset, EVENTS, rows)
    return dataset, f"batch-{sandbox.batches:03d}"


def plan(snapshot: Snapshot) -> Plan:
    builder = Builder()
    found = {
        id: check(text, snapshot.schema, segments=DEFINITIONS, builder=builder).condition
        for id, text in DEFINITIONS.items()
    }
    return Plan({id: condition for id, condition in found.items() if condition is not None})


Memberships = dict[int, dict[str, Membership]]


def evaluated(
    snapshot: Snapshot, before: Memberships, now: datetime, only: dict[int, BitMap] | None
) -> tuple[Memberships, int]:
    """Every bucket's memberships after a run, and how many people were evaluated."""
    after, profiles = dict(before), 0
    done: list[Any] = []
    planned = plan(snapshot)
    stage = Stage(
        planned,
        snapshot,
        stored=lambda segment, bucket: before.get(bucket, {}).get(segment),
        previous=lambda bucket: before.get(bucket, {}),
        standing=lambda bucket: {},
    )
    people, versions = None if only is None else only.__getitem__, dict.fromkeys(planned.conditions, 1)
    run(
        BucketEvaluator([stage], now, versions, people),
        snapshot.buckets if only is None else sorted(only),
        finished=done.append,
        cancelled=lambda: False,
        threads=1,
    )
    for result in done:
        after[result.bucket] = {membership.definition: membership for membership in result.memberships}
        profiles += result.profiles
        assert {id: len(m.members) for id, m in after[result.bucket].items()} == {
            id: counts.members for id, counts in result.counts.items()
        }
    return after, profiles


@pytest.mark.parametrize("seed", range(4))
def test_after_any_batches_the_memberships_are_those_of_a_full_run(sandbox: Sandbox, seed: int) -> None:
    random = Random(seed)
    sandbox.rows("p", PEOPLE, [{"id": f"{n:02}", "tier": "tin"} for n in range(60)])
    sandbox.rows("e", EVENTS, [{"id": "00", "timestamp": "2026-01-01T00:00:00Z", "amount": 1}])
    held: Memberships = evaluated(open_snapshot(sandbox.lake, RULE, DATASETS), {}, START, None)[0]
    changed = 0
    for _ in range(8):
        arrived = touched(sandbox.lake, [batch(sandbox, random) for _ in range(random.randint(1, 2))])
        only = {bucket: arrived.people(bucket) for bucket in arrived.buckets}
        snapshot = open_snapshot(sandbox.lake, RULE, DATASETS)
        after, profiles = evaluated(snapshot, held, START, only)
        full, everybody = evaluated(snapshot, held, START, None)
        assert profiles == sum(len(people) for people in only.values()) < everybody == 60
        for bucket, memberships in full.items():
            for id, membership in memberships.items():
                mine = after.get(bucket, {}).get(id)
                assert mine is not None
                assert mine.members == membership.members
                assert mine.qualified == membership.qualified
                for ordinal in only.get(bucket, ()):
                    if ordinal in membership.members | membership.exited:
                        assert mine.status(ordinal) == membership.status(ordinal)
        changed += after != held
        held = after
    assert changed > 4
    assert any(len(m.members) > 0 for of in held.values() for m in of.values() if m.definition == "both")
    assert any(len(m.members) > 0 for of in held.values() for m in of.values() if m.definition == "pair")


def test_nothing_is_read_but_the_rows_of_those_asked_for(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": f"{n:03}", "tier": f"t{n}"} for n in range(200)])
    for dataset in ("e", "f"):
        rows = [{"id": f"{n:03}", "timestamp": START.isoformat(), "amount": n, "_id": f"{n}"} for n in range(200)]
        sandbox.rows(dataset, EVENTS, rows)
    key = find(sandbox.lake, "CRM", "077")
    assert key is not None
    snapshot = open_snapshot(sandbox.lake, RULE, DATASETS)
    everything = Needs(frozenset({("tier",)}), frozenset({("amount",)}), True)

    def shown(bucket: Bucket) -> tuple[object, ...]:
        return (
            bucket.ordinals.tolist(),
            bucket.profiles.to_pydict(),
            bucket.events.to_pydict(),
            bucket.event_rows.tolist(),
        )

    one = snapshot.read(key[0], everything, BitMap([key[1], 1_000_000]))
    assert shown(one) == ([key[1]], {"tier": ["t77"]}, {"amount": [77.0, 77.0]}, [0, 0])
    without = snapshot.read(key[0], Needs(events=True), BitMap([key[1]]))
    assert (without.profiles.num_rows, without.event_rows.tolist()) == (1, [0, 0])
    assert shown(snapshot.read(key[0], everything, BitMap())) == ([], {"tier": []}, {}, [])


def test_whom_batches_touched(sandbox: Sandbox) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp\n1,2026-01-01\n2,2026-01-01\n1,2026-01-02\n")
    sandbox.csv("e", EVENTS, "id,timestamp\n3,2026-01-01\n")
    sandbox.rows("p", PEOPLE, [{"id": "2"}])
    people = {id: find(sandbox.lake, "CRM", id) for id in "123"}

    def of(*batches: tuple[str, str]) -> set[tuple[int, int]]:
        found = touched(sandbox.lake, batches)
        return {(bucket, ordinal) for bucket in found.buckets for ordinal in found.people(bucket)}

    assert of(("e", "batch-001")) == {people["1"], people["2"]}
    assert of(("e", "batch-002"), ("p", "batch-003")) == {people["3"], people["2"]}
    assert of(("e", "batch-009"), ("gone", "batch-001")) == set()
    arrived = touched(sandbox.lake, [("e", "batch-001")])
    delete_dataset(sandbox.lake, "e")
    assert [arrived.people(bucket) for bucket in arrived.buckets] == [BitMap()] * len(arrived.buckets)


@given(st.lists(st.tuples(st.frozensets(st.integers(0, 9)), st.frozensets(st.integers(0, 9))), max_size=6))
def test_those_who_are_not_evaluated_stay_what_they_were(runs: list[tuple[frozenset[int], frozenset[int]]]) -> None:
    membership: Membership | None = None
    expected: dict[int, tuple[str, datetime]] = {}
    for hour, (only, qualify) in enumerate(runs):
        at = START + timedelta(hours=hour)
        membership = next_membership(membership, "seg", BitMap(qualify), 1, at, BitMap(only))
        for n in only:
            status, since = expected.get(n, ("", at))
            if n in qualify:
                inside = status in {"REALIZED", "EXISTING"}
                expected[n] = ("EXISTING", since) if inside else ("REALIZED", at)
            elif status in {"REALIZED", "EXISTING"}:
                expected[n] = ("EXITED", since)
            elif status == "EXITED":
                expected[n] = ("LEFT", since)
    if membership is not None:
        now = {n: status for n, (status, _) in expected.items() if status != "LEFT"}
        assert {n: membership.status(n) for n in membership.members | membership.exited} == now
        assert {n: membership.last_qualified(n) for n in expected} == {n: at for n, (_, at) in expected.items()}
