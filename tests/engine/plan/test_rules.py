"""All rules, one after the other, over many definitions."""

from app.engine.plan.outline import outline
from app.engine.plan.rules import Rewriter
from app.pql.core import walk
from tests.support.doctests import condition


def test_each_rule_sees_what_the_rules_before_it_made() -> None:
    before = condition('exists E from xEvent where points > 5 and E.total > 1 and E.type = "a"')
    assert outline(Rewriter().rewritten(before)) == 'points > 5 and exists(xEvent[e1.type = "a"], e1.total > 1)'


def test_inner_nodes_are_rewritten_too() -> None:
    before = condition('xEvent[type = "a" and total > 1].items.exists(price > 2 and sku = "b")')
    after = outline(Rewriter().rewritten(before))
    assert after == 'exists(map(xEvent[e1.type = "a"][e1.total > 1], e1.items)[e1.sku = "b"], e1.price > 2)'


def test_definitions_share_equal_nodes() -> None:
    rewriter = Rewriter()
    one = rewriter.rewritten(condition('xEvent[total > 1 and type = "a"].count() > 2'))
    other = rewriter.rewritten(condition('xEvent[type = "a" and total < 9].count() > 2'))
    (first,) = (node for node in walk(one) if outline(node) == 'xEvent[e1.type = "a"]')
    (second,) = (node for node in walk(other) if outline(node) == 'xEvent[e1.type = "a"]')
    assert first is second


def test_rewriting_again_changes_nothing() -> None:
    rewriter = Rewriter()
    once = rewriter.rewritten(condition('exists E from xEvent where E.total > points and E.type = "a" and points > 5'))
    assert rewriter.rewritten(once) is once
