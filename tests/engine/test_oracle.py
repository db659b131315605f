"""The engine gives the people that the oracle gives, for random expressions over random people with fixed seeds."""

from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import pytest

from app.pql.functions import FUNCTIONS
from tests.support.expressions import UNITS, E, Writer, literal, method, nodes, text
from tests.support.fuzz import disagreements, smaller
from tests.support.people import Crowd, crowd, micros_of

CASES = 1_000
TODAY = (crowd(Random(1), 1).now - datetime(1970, 1, 1, tzinfo=UTC)).days
TOGETHER = 50
_PAIR = "CHAIN(xEvent, timestamp, [A: WHAT(true), B: WHAT(true) WHEN({})])"


@pytest.fixture(scope="module")
def group() -> Crowd:
    return crowd(Random(1))


@pytest.mark.parametrize("seed", range(CASES // TOGETHER))
def test_engine_and_oracle_agree(seed: int) -> None:
    found = "\n\n".join(disagreements([seed], TOGETHER))
    assert not found, found


def test_every_construct_and_function_is_tried() -> None:
    made = [node for seed in range(2_000) for node in nodes(Writer(Random(seed)).segment())]
    called = {node.data[0] for node in made if node.op in ("call", "method")}
    called |= {"mapEntry" for node in made if node.op == "to_map"}
    assert {function.name for function in FUNCTIONS} - called == set()
    within = [node for node in made if node.op == "within"]
    assert {(node.data[0], node.data[2]) for node in within} == {
        (op, direction) for op in ("<", "<=", ">", ">=", "=", "!=") for direction in ("before", "after", "from")
    }
    assert {node.data[1] for node in within} == set(UNITS)
    assert {node.data[:2] for node in made if node.op == "period"} == {
        (which, unit) for which in ("last", "this", "next") for unit in UNITS
    }
    assert {node.data[1] for node in made if node.op == "over"} == {"sum", "count", "average", "min", "max"}
    assert {node.data[1] for node in made if node.op == "name"} >= {0, 1, 2}
    assert {node.op for node in made} >= {
        "root",
        "query",
        "let",
        "select",
        "exists_from",
        "forall_from",
        "chain",
        "label",
    }


def test_the_people_have_what_makes_mistakes(group: Crowd) -> None:
    """Missing objects, missing and empty arrays, equal times, and the instant itself."""
    assert None in [person["home"] for person in group.people]
    orders = [person["orders"] for person in group.people]
    assert None in orders
    assert [] in orders
    times = [(person["_id"], event["timestamp"]) for person in group.people for event in person["xEvent"]]
    assert len(set(times)) < len(times)
    assert micros_of(group.now) in [time for _, time in times]


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        # A filter of a missing array is an empty array.
        ("orders[true].isNull()", lambda person: False),
        ("tags.subsetOf(words[true])", lambda person: _is_subset(person["tags"], person["words"] or [])),
        # A missing item of the right array was taken for the last value of the person before.
        ("flags.intersection([active])", lambda person: person["active"] in (person["flags"] or [])),
        # A null number of units, and an interval with a label, in the WHEN of a later step.
        (_PAIR.format("> null days before A"), lambda person: False),
        (_PAIR.format("between A and next millennium"), lambda person: _has_pair(person)),
        (_PAIR.format("between last century and A"), lambda person: False),
        # Such a number in a test of recent events, when streaming is looked into.
        ("xEvent[timestamp occurs <= null days before now]", lambda person: False),
        # A case flag of each person, while nobody has anything in the list.
        ('stringCompare("equals", name, words[false], active)', lambda person: False),
        # A day among times was compared as a number of days with microseconds.
        ("now in [born, now]", lambda person: True),
        ("[joined, now].min() occurs before today", lambda person: _is_before_today(person)),
        # Arrays without elements, and with nulls alone, took the type of nothing.
        ("tags = []", lambda person: person["tags"] == []),
        ("name notIn [null]", lambda person: person["name"] is not None),
        ('tags.map([]).intersects(["a"])', lambda person: False),
        ("[].max() + 1 > 0", lambda person: False),
        ("if(active, tags.map([]), [[]]).isNull()", lambda person: person["active"] is True and person["tags"] is None),
        # A dot after CHAIN.
        (_PAIR.format("after A") + ".isNotNull()", lambda person: True),
    ],
)
def test_what_was_once_wrong(group: Crowd, expression: str, matches: Callable[[dict[str, Any]], bool]) -> None:
    assert group.answers([expression]) == [sorted(person["_id"] for person in group.people if matches(person))]


def _is_subset(inner: list[str] | None, outer: list[str]) -> bool:
    return inner is not None and set(inner) <= set(outer)


def _is_before_today(person: dict[str, Any]) -> bool:
    return person["joined"] is not None and person["joined"] < TODAY


def _has_pair(person: dict[str, Any]) -> bool:
    return len({event["timestamp"] for event in person["xEvent"]}) > 1


def test_smaller_trees_are_parts() -> None:
    tree = E("and", "bool", (method("isNull", "bool", literal(1.0)), literal(True)))
    assert {text(less) for less in smaller(tree)} == {
        "false",
        "true",
        "1.isNull()",
        "false and true",
        "true and true",
    }
