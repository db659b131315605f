"""The rules that rewrite conditions, in order, and their application; knows no data.

A rule is a function from a node to an equivalent node that is cheaper to evaluate, or to the node itself. The node's
operands are already rewritten. Each rule is one pass over the whole graph, after the passes of the preceding rules.
"""

from collections.abc import Callable

from app.engine.plan.compare_with_extreme import compare_with_extreme
from app.engine.plan.hoist_outer_conditions import hoist_outer_conditions
from app.engine.plan.join_on_equality import join_on_equality
from app.engine.plan.split_filters import split_filters
from app.pql.core import Builder, Node, walk

Rule = Callable[[Node, Builder], Node]

RULES: tuple[Rule, ...] = (
    hoist_outer_conditions,  # exists(A, p and q) → p and exists(A, q), if p does not refer to the element
    split_filters,  # A[p and q] → A[p][q], the most selective and most shared part first
    join_on_equality,  # exists(A, f = g and h > k) → join(A, f, h, g, k), if g only refers to outer elements
    compare_with_extreme,  # exists(A, f > g) → max(A, f) > g, if g only refers to outer elements
)


class Rewriter:
    """Applies `RULES` to many conditions; equal nodes across all of them become the same object."""

    def __init__(self) -> None:
        self._builder = Builder()
        self._rewritten: tuple[dict[Node, Node], ...] = tuple({} for _ in range(len(RULES) + 1))

    def rewritten(self, condition: Node) -> Node:
        """The condition after all rules."""
        for rule, results in zip((_same, *RULES), self._rewritten, strict=True):
            condition = self._after(rule, results, condition)
        return condition

    def _after(self, rule: Rule, results: dict[Node, Node], root: Node) -> Node:
        for node in walk(root):
            if node not in results:
                operands = tuple(results[operand] for operand in node.operands)
                rebuilt = self._builder.node(node.op, node.type, *operands, payload=node.payload)
                results[node] = rule(rebuilt, self._builder)
        return results[root]


def _same(node: Node, _builder: Builder) -> Node:
    """The first pass changes nothing: rebuilding makes equal nodes the same object."""
    return node
