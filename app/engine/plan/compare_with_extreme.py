"""A rule: tests only the greatest element to find whether any element exceeds an outer value."""

from app.pql.core import Builder, Node
from app.pql.schema import Scalar

_EXTREME = {"lt": "min", "le": "min", "gt": "max", "ge": "max"}
_MIRRORED = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le"}
_ORDERED = frozenset({Scalar.NUMBER, Scalar.STRING, Scalar.DATE, Scalar.TIMESTAMP})


def compare_with_extreme(node: Node, builder: Builder) -> Node:
    """Rewrites `exists(A, f > g)` to `max(A, f) > g` if g only refers to outer elements, so that no pairs of elements
    are formed.

    >>> pairs = condition('exists V from xEvent where V.total > 5, B from xEvent where B.timestamp > V.timestamp')
    >>> outline(pairs)
    'exists(xEvent, e1.total > 5 and exists(xEvent, e2.timestamp > e1.timestamp))'
    >>> later = pairs.operands[1].operands[1]
    >>> outline(compare_with_extreme(later, Builder()))
    'max(xEvent, e2.timestamp) > e1.timestamp'
    """
    if node.op != "exists" or node.operands[1].op not in _EXTREME:
        return node
    array, condition = node.operands
    level = node.payload[0]
    op, (f, g) = condition.op, condition.operands
    if level in g.free:
        op, f, g = _MIRRORED[op], g, f
    outer = (f.free - {level}) | array.free
    if level in g.free or f.type not in _ORDERED or max(outer, default=-1) >= max(g.free, default=-1):
        return node
    extreme = builder.node(_EXTREME[op], f.type, array, f, payload=(level,))
    return builder.condition(op, extreme, g)
