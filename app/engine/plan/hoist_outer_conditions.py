"""A rule: evaluates the parts of a quantifier's condition that only refer to outer elements once, outside it."""

from app.engine.plan.conjunctions import all_of, parts_of
from app.pql.core import Builder, Node


def hoist_outer_conditions(node: Node, builder: Builder) -> Node:
    """Rewrites `exists(A, p and q)` to `p and exists(A, q)` if p does not refer to the element of A.

    >>> before = condition('exists E from xEvent where E.type = "buy" and points > 5')
    >>> outline(before)
    'exists(xEvent, e1.type = "buy" and points > 5)'
    >>> outline(hoist_outer_conditions(before, Builder()))
    'points > 5 and exists(xEvent, e1.type = "buy")'
    """
    if node.op != "exists":
        return node
    array, condition = node.operands
    level = node.payload[0]
    parts = parts_of(condition)
    inner = [part for part in parts if level in part.free]
    if not inner or len(inner) == len(parts):
        return node
    outer = [part for part in parts if level not in part.free]
    rest = builder.node("exists", node.type, array, all_of(inner, builder), payload=node.payload)
    return all_of([*outer, rest], builder)
