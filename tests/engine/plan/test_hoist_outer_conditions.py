"""What a quantifier asks of outer elements only is asked once, outside of it."""

import pytest

from app.engine.plan.hoist_outer_conditions import hoist_outer_conditions
from app.engine.plan.outline import outline
from app.pql.core import Builder
from tests.support.doctests import condition


@pytest.mark.parametrize(
    ("expression", "rewritten"),
    [
        ("exists E from xEvent where points > 5 and E.total > 1", "points > 5 and exists(xEvent, e1.total > 1)"),
        (
            "exists E from xEvent where (points > 5 and E.total > 1) and (E.total < 9 and points < 7)",
            "points > 5 and points < 7 and exists(xEvent, e1.total > 1 and e1.total < 9)",
        ),
        # A comparison of both is about the element too.
        ("exists E from xEvent where E.total > points and E.total > 1", None),
        # All of it is about outer elements: what is left would ask nothing, and yet no element means false.
        ("exists E from xEvent where points > 5 and points < 7", None),
        # A disjunction is one part.
        ("exists E from xEvent where points > 5 or E.total > 1", None),
        # `forall` holds without elements, so nothing moves out of it; a filter has to keep its elements.
        ("forall E from xEvent where points > 5 and E.total > 1", None),
        ("xEvent[^points > 5 and total > 1].count() = 1", None),
    ],
)
def test_what_moves_out(expression: str, rewritten: str | None) -> None:
    before = condition(expression)
    after = hoist_outer_conditions(before, Builder())
    assert outline(after) == (rewritten or outline(before))
