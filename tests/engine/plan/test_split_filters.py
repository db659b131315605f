"""A filter of several conditions becomes several, what is shared and selective first."""

import pytest

from app.engine.plan.outline import outline
from app.engine.plan.split_filters import split_filters
from app.pql.core import Builder, Node, walk
from tests.support.doctests import condition


def filtering(expression: str) -> Node:
    """The outermost filter or `exists` of an expression."""
    return [node for node in walk(condition(expression)) if node.op in ("filter", "exists")][-1]


@pytest.mark.parametrize(
    ("expression", "rewritten"),
    [
        # A test of a text comes first, wherever it stands, and only one of them.
        ('xEvent[total > 1 and type = "a"].count() = 1', 'xEvent[e1.type = "a"][e1.total > 1]'),
        (
            'xEvent[total > 1 and type in ["a", "b"] and type != "c"].count() = 1',
            'xEvent[e1.type in array("a", "b")][e1.total > 1 and e1.type != "c"]',
        ),
        ('exists E from xEvent where E.total > 1 and E.type = "a"', 'exists(xEvent[e1.type = "a"], e1.total > 1)'),
        # What compares with outer elements comes after what is about the element alone, loops come last.
        (
            "xEvent[items.exists(price > 5) and total > 1].count() = 1",
            "xEvent[e1.total > 1][exists(e1.items, e2.price > 5)]",
        ),
        (
            "exists V from xEvent where V.total > 1, B from xEvent where B.total > V.total and B.total < 9",
            "exists(xEvent[e1.total > 1], exists(xEvent, e2.total > e1.total and e2.total < 9))",
        ),
        # One part, or parts of one kind, stay as they are.
        ("xEvent[total > 1 and total < 9].count() = 1", None),
        ('xEvent[type = "a" or total > 1].count() = 1', None),
        # A text that is compared with an outer value is shared by nobody.
        ("xEvent[type = ^name and total > 1].count() = 1", None),
    ],
)
def test_stages(expression: str, rewritten: str | None) -> None:
    before = filtering(expression)
    assert outline(split_filters(before, Builder())) == (rewritten or outline(before))
