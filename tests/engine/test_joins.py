"""Two quantifier variables that are equal in something, against every pair of events."""

from collections.abc import Callable
from random import Random
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.plan.outline import outline
from app.engine.plan.plan import Plan
from app.engine.store.bucket import Bucket
from app.pql.check.checker import check
from app.pql.core import Node
from app.pql.schema import ObjectType, Scalar, profile_schema
from tests.support.heavy import NOW, busy, matches

SCHEMA = profile_schema(
    ObjectType({"income": Scalar.NUMBER}),
    ObjectType({"timestamp": Scalar.TIMESTAMP, "kind": Scalar.STRING, "total": Scalar.NUMBER, "day": Scalar.DATE}),
)
PEOPLE = 400
HOUR = 3_600_000_000


class Event(NamedTuple):
    hour: int
    kind: str | None
    total: float | None
    day: int | None


Pair = Callable[[Event, Event], bool]


def larger(a: float | None, b: float | None) -> bool:
    return a is not None and b is not None and a > b


def same(a: object, b: object) -> bool:
    return a is not None and a == b


PAIRS: dict[str, Pair] = {
    "V.kind = B.kind and B.timestamp > V.timestamp": lambda v, b: same(v.kind, b.kind) and b.hour > v.hour,
    "B.kind = V.kind and V.timestamp >= B.timestamp and B.total = 2": (
        lambda v, b: same(v.kind, b.kind) and v.hour >= b.hour and b.total == 2
    ),
    "B.total = V.total and B.kind = V.kind and B.timestamp < V.timestamp": (
        lambda v, b: same(v.total, b.total) and same(v.kind, b.kind) and b.hour < v.hour
    ),
    "B.kind = V.kind and B.total > V.total and B.total <= V.total * 2": (
        lambda v, b: same(v.kind, b.kind) and larger(b.total, v.total) and not larger(b.total, v.total and 2 * v.total)
    ),
    "B.total = V.total and B.kind > V.kind": (
        lambda v, b: same(v.total, b.total) and v.kind is not None and b.kind is not None and b.kind > v.kind
    ),
    # A null is neither equal to nor below anything.
    "B.kind = V.kind and B.total < V.total": lambda v, b: same(v.kind, b.kind) and larger(v.total, b.total),
    # Dates are their midnights.
    "V.kind = B.kind and B.timestamp > V.day": (
        lambda v, b: same(v.kind, b.kind) and v.day is not None and b.hour > 24 * v.day
    ),
    "V.total = B.total / 2": lambda v, b: b.total is not None and same(v.total, b.total / 2),
    "B.total = V.total + income": lambda v, b: v.total is not None and same(b.total, v.total + 1),
    'B.kind = V.kind and B.timestamp > V.timestamp and V.kind != "a"': (
        lambda v, b: same(v.kind, b.kind) and b.hour > v.hour and v.kind != "a"
    ),
}


@pytest.fixture(scope="module")
def people() -> list[list[Event]]:
    random = Random(5)

    def event() -> Event:
        kind, total = random.choice(["a", "b", "c", None]), random.choice([0, 1, 2, 3.5, 4, None])
        return Event(random.randrange(4), kind, total, random.choice([0, 1, 1, None]))

    return [sorted((event() for _ in range(random.randrange(7))), key=lambda one: one.hour) for _ in range(PEOPLE)]


def bucket_of(people: list[list[Event]]) -> Bucket:
    flat = [event for events in people for event in events]
    happened = pa.table(
        {
            "timestamp": pa.array([event.hour * HOUR for event in flat], pa.timestamp("us", tz="UTC")),
            "kind": pa.array([event.kind for event in flat], pa.string()).dictionary_encode(),
            "total": pa.array([event.total for event in flat], pa.float64()),
            "day": pa.array([event.day for event in flat], pa.date32()),
        }
    )
    rows = np.repeat(np.arange(PEOPLE, dtype=np.int32), [len(events) for events in people])
    return Bucket(0, np.arange(PEOPLE, dtype=np.uint32), pa.table({"income": [1.0] * PEOPLE}), happened, rows)


def condition(text: str) -> Node:
    checked = check(text, SCHEMA, segments=())
    assert checked.condition is not None, checked.diagnostics
    return checked.condition


def rows(node: Node, people: list[list[Event]]) -> list[bool]:
    plan = Plan({"it": node})
    assert "join(" in outline(plan.conditions["it"])
    no_member = np.zeros(PEOPLE, np.bool_)
    results = evaluate(plan, bucket_of(people), now=NOW, member=lambda _: no_member, cancelled=lambda: False)["it"]
    assert not isinstance(results, EvaluationError), results
    return [bool(row) for row in results]


@pytest.mark.parametrize(("where", "pair"), PAIRS.items(), ids=PAIRS)
def test_joined_are_those_of_every_pair(people: list[list[Event]], where: str, pair: Pair) -> None:
    expected = [any(pair(v, b) for v in events for b in events) for events in people]
    assert rows(condition(f"exists V from xEvent, B from xEvent where {where}"), people) == expected
    assert PEOPLE / 20 < sum(expected) < PEOPLE


def test_a_third_variable_joined_with_both_others(people: list[list[Event]]) -> None:
    text = "exists A from xEvent, B from xEvent, C from xEvent where A.kind = B.kind and B.timestamp > A.timestamp"
    expected = [
        any(
            same(a.kind, b.kind) and b.hour > a.hour and same(c.total, b.total) and c.hour > a.hour
            for a in events
            for b in events
            for c in events
        )
        for events in people
    ]
    assert rows(condition(f"{text} and C.total = B.total and C.timestamp > A.timestamp"), people) == expected
    assert 0 < sum(expected) < PEOPLE


def test_a_persons_half_a_million_events() -> None:
    """Pairing them all would take more memory and time than a definition may use."""
    pair = "exists V from xEvent, B from xEvent where B.total = V.total and B.timestamp > V.timestamp and B.timestamp <"
    assert not matches(busy(500_000), f"{pair} V.timestamp")
    assert matches(busy(500_000), f"{pair}= now")
