"""Whether any element is above an outer value is asked of the greatest alone."""

import pytest

from app.engine.plan.compare_with_extreme import compare_with_extreme
from app.engine.plan.outline import outline
from app.pql.core import Builder, Node
from tests.support.doctests import condition


def inner(pair: str) -> Node:
    """The second quantifier of a pair, over the events of the profile."""
    return condition(f"exists V from xEvent where V.total > 1, B from xEvent where {pair}").operands[1].operands[1]


@pytest.mark.parametrize(
    ("pair", "rewritten"),
    [
        ("B.total > V.total", "max(xEvent, e2.total) > e1.total"),
        ("B.total >= V.total", "max(xEvent, e2.total) >= e1.total"),
        ("B.total < V.total", "min(xEvent, e2.total) < e1.total"),
        ("B.total <= V.total", "min(xEvent, e2.total) <= e1.total"),
        ("V.total < B.total", "max(xEvent, e2.total) > e1.total"),
        ("V.total >= B.total", "min(xEvent, e2.total) <= e1.total"),
        ("B.total + 1 > V.total * 2", "max(xEvent, e2.total + 1) > e1.total * 2"),
        # Both sides are about the element.
        ("B.total > V.total + B.total", None),
        # Equality has no extreme.
        ("B.total = V.total", None),
    ],
)
def test_pairs(pair: str, rewritten: str | None) -> None:
    before = inner(pair)
    assert outline(compare_with_extreme(before, Builder())) == (rewritten or outline(before))


def test_one_loop_is_left_alone() -> None:
    """A value of the profile is compared with each element at no greater cost, and filters of it are shared."""
    before = condition("exists E from xEvent where E.total > points")
    assert compare_with_extreme(before, Builder()) is before
