"""A rule: finds elements that are equal to outer ones by sorting, not by pairing all of them."""

from app.engine.plan.conjunctions import parts_of
from app.pql.core import Builder, Node
from app.pql.schema import Scalar, Type

_MIRRORED = {"eq": "eq", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
_FAMILIES: dict[Type, str] = {
    Scalar.STRING: "text",
    Scalar.NUMBER: "number",
    Scalar.INTEGER: "number",
    Scalar.DATE: "time",
    Scalar.TIMESTAMP: "time",
    Scalar.BOOLEAN: "flag",
}
"""Values of one family can be compared."""


def join_on_equality(node: Node, builder: Builder) -> Node:
    """Rewrites `exists(A, f = g and h > k)` to `join(A, f, h, g, k)` if g or k refer to elements of an outer loop, and
    f and h only to the element of A and to what is outside that loop. There may be several equations, and several
    limits of one h.

    >>> pairs = condition('exists V from xEvent, B from xEvent where B.type = V.type and B.total > V.total')
    >>> later = pairs.operands[1].operands[1]
    >>> outline(later)
    'exists(xEvent, e2.type = e1.type and e2.total > e1.total)'
    >>> outline(join_on_equality(later, Builder()))
    "join(xEvent, e2.type, e2.total, e1.type, e1.total, 1, ('gt',))"
    """
    if node.op != "exists":
        return node
    array, condition = node.operands
    level = node.payload[0]
    sides = [_sides(part, level) for part in parts_of(condition)]
    equations = [(inner, outer) for op, inner, outer in filter(None, sides) if op == "eq"]
    limits = [(op, inner, outer) for op, inner, outer in filter(None, sides) if op != "eq"]
    limited = {inner for _, inner, _ in limits}
    if None in sides or not equations or len(limited) > 1:
        return node
    bound = [*(inner for inner, _ in equations), *(limited or {equations[0][0]})]
    outside = [*(outer for _, outer in equations), *(outer for _, _, outer in limits)]
    around = max(array.level, *(max(operand.free - {level}, default=-1) for operand in bound))
    if max(operand.level for operand in outside) <= around:
        return node  # a value is compared with each element at no greater cost, and filters of it are shared
    payload = (level, len(equations), tuple(op for op, _, _ in limits))
    return builder.condition("join", array, *bound, *outside, payload=payload)


def _sides(part: Node, level: int) -> tuple[str, Node, Node] | None:
    """A comparison of the element with something outside the loop, the element's side first."""
    if part.op not in _MIRRORED:
        return None
    op, (inner, outer) = part.op, part.operands
    if level in outer.free:
        op, inner, outer = _MIRRORED[op], outer, inner
    family = _FAMILIES.get(inner.type)
    if level not in inner.free or level in outer.free or family is None or family != _FAMILIES.get(outer.type):
        return None
    return op, inner, outer
