"""Elements equal to outer ones are joined; all other conditions stay as they are."""

import pytest

from app.engine.plan.join_on_equality import join_on_equality
from app.engine.plan.outline import outline
from app.pql.core import Builder
from tests.support.doctests import condition


@pytest.mark.parametrize(
    ("pair", "rewritten"),
    [
        ("B.type = V.type", "join(xEvent, e2.type, e2.type, e1.type, 1, ())"),
        ("V.type = B.type and V.total < B.total", "join(xEvent, e2.type, e2.total, e1.type, e1.total, 1, ('gt',))"),
        (
            "B.type = V.type and B.total = V.total and B.total >= V.total",
            "join(xEvent, e2.type, e2.total, e2.total, e1.type, e1.total, e1.total, 2, ('ge',))",
        ),
        (
            "B.total > V.total and B.total < V.total + 5 and B.type = V.type",
            "join(xEvent, e2.type, e2.total, e1.type, e1.total, e1.total + 5, 1, ('gt', 'lt'))",
        ),
        # Limits of two different values need pairs.
        ("B.type = V.type and B.total > V.total and B.total + 1 < V.total", None),
        # Nothing is equal.
        ("B.total > V.total", None),
        ("B.type = V.type or B.total > V.total", None),
        ("B.type = V.type and B.total != V.total", None),
        # Both sides are about both elements.
        ("B.total + V.total = V.total + B.total", None),
    ],
)
def test_pairs(pair: str, rewritten: str | None) -> None:
    before = condition(f"exists V from xEvent where V.total > 1, B from xEvent where {pair}").operands[1].operands[1]
    assert outline(join_on_equality(before, Builder())) == (rewritten or outline(before))


def test_one_loop_is_left_alone() -> None:
    """A value of the profile is compared with each element at no greater cost, and filters of it are shared."""
    before = condition("exists E from xEvent where E.total = points")
    assert join_on_equality(before, Builder()) is before
