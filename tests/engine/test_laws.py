"""Laws that need no oracle: complement, De Morgan, quantifiers, and that what no condition can see changes nothing."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.expressions import EVENT, ROOT, E, Writer, arr, expressions, literal, method, text
from tests.support.people import Crowd, crowd, loaded

EXAMPLES = settings(max_examples=100, derandomize=True, deadline=None)
SEEN = ("a", "b", "vip")


@pytest.fixture(scope="module")
def group() -> Crowd:
    return crowd(Random(2))


def answers(group: Crowd, *texts: str) -> list[set[str]]:
    found = group.answers(texts)
    assert not [one for one in found if isinstance(one, str)], texts
    return [set(one) for one in found]


@EXAMPLES
@given(tree=expressions())
def test_not_is_the_exact_complement(group: Crowd, tree: E) -> None:
    tree = _body(tree)
    same, other = answers(group, text(tree), f"not ({text(tree)})")
    assert same ^ other == {person["_id"] for person in group.people}
    assert same & other == set()


@EXAMPLES
@given(a=expressions(2), b=expressions(2))
def test_de_morgan(group: Crowd, a: E, b: E) -> None:
    x, y = text(_body(a)), text(_body(b))
    neither, both_not, not_both, either_not = answers(
        group,
        f"not (({x}) or ({y}))",
        f"not ({x}) and not ({y})",
        f"not (({x}) and ({y}))",
        f"not ({x}) or not ({y})",
    )
    assert (neither, not_both) == (both_not, either_not)


@EXAMPLES
@given(random=st.randoms(use_true_random=False))
def test_exists_is_not_forall_not(group: Crowd, random: Random) -> None:
    writer = Writer(random)
    array = writer.array(ROOT, 2)
    of_variable = text(writer.condition((*ROOT, ("variable", "V", array.type[1])), 2))
    of_element = text(writer.condition(writer.inside(ROOT, array), 2))
    some, not_all, method_some, method_not_all = answers(
        group,
        f"exists V from ({text(array)}) where {of_variable}",
        f"not (forall V from ({text(array)}) where not ({of_variable}))",
        f"({text(array)}).exists({of_element})",
        f"not ({text(array)}).forall(not ({of_element}))",
    )
    assert (some, method_some) == (not_all, method_not_all)


@EXAMPLES
@given(tree=expressions())
def test_events_that_nothing_can_see_change_nothing(group: Crowd, noisy: Crowd, tree: E) -> None:
    written = text(_only_seen(tree))
    assert answers(group, written) == answers(noisy, written)


def test_an_event_that_can_be_seen_does(group: Crowd, noisy: Crowd) -> None:
    assert answers(group, "xEvent") != answers(noisy, "xEvent")


@pytest.fixture(scope="module")
def noisy(group: Crowd) -> Crowd:
    """The same people with more events, at the times of their own ones and others, of a kind that is not looked for."""
    random = Random(3)
    strangers = [event for person in crowd(Random(4)).people for event in person["xEvent"]]
    people: list[dict[str, Any]] = []
    for person in group.people:
        added = [
            {**random.choice(strangers), "_id": f"x{person['_id']}{at}", "kind": random.choice((None, "other"))}
            for at in range(3)
        ]
        for event, own in zip(added, person["xEvent"], strict=False):
            event["timestamp"] = own["timestamp"]
        people.append({**person, "xEvent": [*person["xEvent"], *added]})
    return loaded(group.now, people, group.members, random)


def _body(tree: E) -> E:
    """Without `(P) =>`, which stands at the beginning of a text only."""
    return literal(True) if tree.op == "query" else tree


def _only_seen(tree: E) -> E:
    """With a filter of kinds wherever events are taken."""
    tree = replace(tree, args=tuple(map(_only_seen, tree.args)))
    if tree.op in ("name", "field") and tree.data[0] == "xEvent" and tree.type == arr(EVENT):
        listed = E("array", arr("text"), tuple(map(literal, SEEN)))
        return E("index", tree.type, (tree, method("includes", "bool", listed, E("name", "text", (), ("kind", 0)))))
    return tree
