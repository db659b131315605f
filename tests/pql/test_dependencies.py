"""Circles of references, and which definitions could be streamed, with the reasons."""

import pytest

from app.pql.check.checker import check
from app.pql.dependencies import Cycle, find_cycle, in_order, in_passes
from app.pql.schema import ObjectType, Scalar, profile_schema

SCHEMA = profile_schema(
    ObjectType({"country": Scalar.STRING}),
    ObjectType({"timestamp": Scalar.TIMESTAMP, "total": Scalar.NUMBER, "until": Scalar.TIMESTAMP}),
)
OLD = "it looks at events older than 24 hours: add `timestamp occurs <= 24 hours before now`"
MANY = "it counts or combines several events, and only single ones or a sequence in time can be streamed"
BOTH = "it combines inSegment or segmentMembership with events: put one of them into a definition of its own"


@pytest.mark.parametrize(
    ("expression", "reasons"),
    [
        ('country = "US"', ()),
        ('inSegment("a") and country = "US"', ()),
        ("xEvent[total > 5 and timestamp occurs <= 24 hours before now]", ()),
        ("exists E from xEvent where E.timestamp occurs < 1 day before now", ()),
        (
            "CHAIN(xEvent, timestamp, [A: WHAT(total > 1 and timestamp occurs <= 2 hours before now), "
            "B: WHAT(total > 2) WHEN(<= 1 hour before now)])",
            (),
        ),
        ("CHAIN(xEvent, timestamp, [A: WHAT(total > 1), B: WHAT(total > 2) WHEN(<= 1 hour before now)])", (OLD,)),
        ("xEvent[timestamp occurs <= 25 hours before now]", (OLD,)),
        ("xEvent[timestamp occurs <= 24 hours before now].count() > 3", (MANY,)),
        ("xEvent.sum(total) > 3", (OLD, MANY)),
        ("xEvent.count() > 3", (OLD,)),
        ('segmentMembership.get("ups").get("a").status = "exited" and country = "US"', ()),
        (
            'segmentMembership.get("ups").get("a").status = "exited" and xEvent[timestamp occurs <= 1 hour before now]',
            (BOTH,),
        ),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(today), B: WHAT(total > 1)])", ()),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(< 24 hours before now) COUNT(5)])", ()),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(yesterday)])", (OLD,)),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(last hour)])", ()),
        ("xEvent.exists(today <= timestamp)", ()),
        ("xEvent.exists(now < timestamp)", ()),
        ("xEvent.exists(today = timestamp and total > 1)", ()),
        ("xEvent.exists(today >= timestamp)", (OLD,)),
        ("xEvent.exists(yesterday <= timestamp)", (OLD,)),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(this week)])", (OLD,)),
        ("CHAIN(xEvent, timestamp, [A: WHAT(true) WHEN(after yesterday)])", ()),
        ("xEvent[timestamp occurs <= 1 hour before today]", (OLD,)),
        ("xEvent[timestamp occurs < 10 hours after today]", ()),
        ("xEvent[timestamp occurs = 0 days before now]", ()),
        ("xEvent[timestamp occurs = 23 hours before now]", ()),
        ("xEvent[timestamp occurs = 24 hours before now]", (OLD,)),
        ("xEvent[timestamp occurs between today and now]", ()),
        ("xEvent[timestamp >= today or timestamp occurs this minute]", ()),
        ("xEvent[timestamp >= today or total > 1]", (OLD,)),
        ("xEvent[until occurs <= 1 hour before now]", (OLD,)),
        ('inSegment("a") and xEvent[timestamp occurs <= 1 hour before now]', (BOTH,)),
    ],
)
def test_streaming(expression: str, reasons: tuple[str, ...]) -> None:
    checked = check(expression, SCHEMA, segments={"a"})
    assert checked.ok, checked.diagnostics
    assert checked.streaming.reasons == reasons
    assert checked.streaming.eligible == (not reasons)


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({}, None),
        ({"a": ["b", "c"], "b": ["c"]}, None),
        ({"a": ["a"]}, ["a", "a"]),
        ({"a": ["b"], "b": ["c"], "c": ["b"]}, ["b", "c", "b"]),
        ({str(n): [str(n + 1)] for n in range(3_000)} | {"3000": ["2999"]}, ["2999", "3000", "2999"]),
    ],
)
def test_circles(edges: dict[str, list[str]], cycle: list[str] | None) -> None:
    assert find_cycle(edges) == cycle


def test_an_order_and_stages_follow_the_references() -> None:
    references = {"a": ["c", "d"], "b": [], "c": ["b"], "d": ["elsewhere"]}
    assert in_order(references) == ["b", "c", "d", "a"]
    fragments: dict[str, object] = dict.fromkeys(references)
    assert in_passes(references, dict.fromkeys(references, "one"), fragments) == [[("one", ["a", "b", "c", "d"])]]
    two = {"a": "x", "b": "x", "c": "y", "d": "x"}
    assert in_passes(references, two, fragments) == [[("x", ["b", "d"]), ("y", ["c"]), ("x", ["a"])]]
    assert in_passes(references, two, fragments | {"c": 1}) == [[("x", ["b", "d"])], [("y", ["c"])], [("x", ["a"])]]


def test_a_cycle_has_neither_order_nor_stages() -> None:
    references = {"a": ["b"], "b": ["c"], "c": ["b"]}
    with pytest.raises(Cycle, match="definitions form a cycle: b → c → b") as caught:
        in_order(references)
    assert caught.value.ids == ["b", "c", "b"]
    with pytest.raises(ValueError, match="cycle"):
        in_passes(references, dict.fromkeys(references, "one"), dict.fromkeys(references))
