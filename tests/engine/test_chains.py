"""Chains over people with few times, many of them equal, against every combination of their events."""

import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.plan.plan import Plan
from app.engine.store.bucket import Bucket
from app.pql.check.checker import check
from tests.support.heavy import NOW, SCHEMA

HOUR = 3_600_000_000
PEOPLE = 500
WHENS: dict[str, Callable[[int], bool]] = {
    "<= 2 hours after": lambda hours: hours <= 2,
    "< 2 hours after": lambda hours: hours < 2,
    "> 2 hours after": lambda hours: hours > 2,
    ">= 2 hours after": lambda hours: hours >= 2,
    "= 2 hours after": lambda hours: hours == 2,
    "!= 2 hours after": lambda hours: hours != 2,
}
Event = tuple[int, str]


@pytest.fixture(scope="module")
def events() -> list[list[Event]]:
    """For each person up to eleven events as (hour, kind), by hour."""
    random = Random(18)
    return [
        sorted((random.randrange(8), random.choice("abc")) for _ in range(random.randrange(12))) for _ in range(PEOPLE)
    ]


def bucket_of(people: list[list[Event]]) -> Bucket:
    flat = [event for events in people for event in events]
    happened = pa.table(
        {
            "timestamp": pa.array([hour * HOUR for hour, _ in flat], pa.timestamp("us", tz="UTC")),
            "kind": pa.array([kind for _, kind in flat]).dictionary_encode(),
        }
    )
    rows = np.repeat(np.arange(len(people), dtype=np.int32), [len(events) for events in people])
    return Bucket(0, np.arange(len(people), dtype=np.uint32), pa.table({"income": [1.0] * len(people)}), happened, rows)


def expected(events: list[Event], after_a: str, after: str, label: str) -> bool:
    """Whether three events, each strictly later, satisfy the chain."""
    return any(
        a[0] < b[0] < c[0] and WHENS[after_a](b[0] - a[0]) and WHENS[after](c[0] - (a[0] if label == "A" else b[0]))
        for a, b, c in _triples(events)
    )


def _triples(events: list[Event]) -> Iterator[tuple[Event, ...]]:
    yield from product(*([event for event in events if event[1] == kind] for kind in "abc"))


def people_of(chains: Mapping[str, str], bucket: Bucket) -> dict[str, list[bool]]:
    """Who has which chain."""
    conditions = {}
    for name, text in chains.items():
        checked = check(text, SCHEMA, segments=())
        assert checked.condition is not None, checked.diagnostics
        conditions[name] = checked.condition
    n = len(bucket.ordinals)
    nobody = np.zeros(n, np.bool_)
    results = evaluate(Plan(conditions), bucket, now=NOW, member=lambda _: nobody, cancelled=lambda: False)
    people = {}
    for name, rows in results.items():
        assert not isinstance(rows, EvaluationError), rows
        people[name] = rows.tolist()
    return people


def test_three_steps_are_those_of_every_combination(events: list[list[Event]]) -> None:
    chains = {f"{one}, {other} {label}": (one, other, label) for one in WHENS for other in WHENS for label in "AB"}
    texts = {
        name: f'CHAIN(xEvent, timestamp, [A: WHAT(kind = "a"), B: WHAT(kind = "b") WHEN({after_a} A),'
        f' C: WHAT(kind = "c") WHEN({after} {label})])'
        for name, (after_a, after, label) in chains.items()
    }
    people = people_of(texts, bucket_of(events))
    for name, chain in chains.items():
        assert people[name] == [expected(of_person, *chain) for of_person in events], name
    assert 0 in map(sum, people.values())  # C within 2 hours of A, and B later than that
    assert sum(0 < sum(rows) < PEOPLE for rows in people.values()) >= 60


def test_four_steps_with_any_references_are_those_of_every_combination(events: list[list[Event]]) -> None:
    """Also with several events in a step, with several windows, and with two labels in one WHEN."""
    random = Random(19)
    texts, tests = {}, {}
    for _ in range(150):
        whens = [(random.choice([*WHENS]), random.choice("ABC"[:at])) for at in (1, 2, 3)]
        between, twice = random.random() < 0.2, "!=" not in whens[0][0] and random.random() < 0.3
        written = [f"{when} {label}" for when, label in whens]
        if between:
            written[2] = "between A and B"
        count = " COUNT(2)" if twice else ""
        steps = [
            f'{label}: WHAT(kind = "{kind}") WHEN({when}){count if label == "B" else ""}'
            for label, kind, when in zip("BCD", "bca", written, strict=True)
        ]
        text = f'CHAIN(xEvent, timestamp, [A: WHAT(kind = "a"), {", ".join(steps)}])'
        texts[text], tests[text] = text, (whens, between, twice)
    people = people_of(texts, bucket_of(events))
    for text, (whens, between, twice) in tests.items():
        assert people[text] == [_has_chain(of_person, whens, between, twice) for of_person in events], text
    assert sum(0 < sum(rows) < PEOPLE for rows in people.values()) >= 60


def _has_chain(events: list[Event], whens: list[tuple[str, str]], between: bool, twice: bool) -> bool:
    def fits(step: int, hour: int, hours: list[int]) -> bool:
        when, label = whens[step - 1]
        if step == 3 and between:
            return hours[0] <= hour <= hours[1]
        return WHENS[when](hour - hours["ABC".index(label)])

    def found(hours: list[int]) -> bool:
        step = len(hours)
        if step == 4:
            return True
        of_kind = [hour for hour, kind in events if kind == "abca"[step] and (not hours or hour > hours[-1])]
        fitting = [hour for hour in of_kind if not hours or fits(step, hour, hours)]
        needed = 2 if step == 1 and twice else 1
        return any(found([*hours, hour]) for hour in set(fitting) if sum(o <= hour for o in fitting) >= needed)

    return found([])


def test_a_month_after_a_later_event_may_be_earlier() -> None:
    """A month after 30 January at 23:00 is 28 February at 23:00, but after 31 January at 10:00 it is at 10:00."""
    first = (datetime(2026, 1, 30, 23, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1)
    second, end = first + 11, first + 29 * 24 - 23
    hours = (9, 10, 12, 23, 24)
    people = [
        [(first, "a"), (second, "a"), (after, "b"), (end + hour, "c")]
        for after in (first + 1, second + 1)
        for hour in hours
    ]
    later = {"<=": (10, 23), "<": (9.5, 22.5), ">": (10.5, 23.5), ">=": (10, 23)}
    texts = {
        f"{op}{rest}": f'CHAIN(xEvent, timestamp, [A: WHAT(kind = "a"),{b}'
        f' C: WHAT(kind = "c") WHEN({op} 1 month after A)])'
        for op in later
        for rest, b in (("", ""), (" of one", ' B: WHAT(kind = "b") WHEN(<= 2 hours after A),'))
    }
    found = people_of(texts, bucket_of([sorted(events) for events in people]))
    for op, (of_second, of_first) in later.items():
        test = operator.le if "<" in op else operator.ge
        of_one = [[test(hour, limit) for hour in hours] for limit in (of_first, of_second)]
        assert found[f"{op} of one"] == of_one[0] + of_one[1], op
        assert found[op] == [one or other for one, other in zip(*of_one, strict=True)] * 2, op
