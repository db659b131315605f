"""A rule: splits a filter with several conditions into several filters, so that definitions share the first ones."""

from app.engine.plan.conjunctions import all_of, parts_of
from app.pql.core import Builder, Node
from app.pql.schema import ArrayType, Scalar

_FILTERING = frozenset({"filter", "exists"})


def split_filters(node: Node, builder: Builder) -> Node:
    """Rewrites `A[p and q and r]` to `A[p][q][r]`, also under `exists`: each part only sees what the previous parts
    kept.

    Tests of a text of the element (such as an event type) come first: they are the most selective, and shared most
    often. Then come conditions on the element alone, then comparisons with outer elements, and finally conditions with
    loops of their own.

    >>> before = condition('xEvent[total > 10 and type = "buy" and items.exists(price > 5)].isNotNull()')
    >>> outline(before)
    'is_not_null(xEvent[e1.total > 10 and e1.type = "buy" and exists(e1.items, e2.price > 5)])'
    >>> events = before.operands[0]
    >>> outline(split_filters(events, Builder()))
    'xEvent[e1.type = "buy"][e1.total > 10][exists(e1.items, e2.price > 5)]'
    """
    if node.op not in _FILTERING:
        return node
    array, condition = node.operands
    level = node.payload[0]
    *before, last = _stages(parts_of(condition), array, level)
    for stage in before:
        array = builder.node("filter", array.type, array, all_of(stage, builder), payload=(level,))
    return builder.node(node.op, node.type, array, all_of(last, builder), payload=node.payload)


def _stages(parts: list[Node], array: Node, level: int) -> list[list[Node]]:
    """The parts, grouped by evaluation stage, without empty stages."""
    text_test = next((part for part in parts if _is_text_test(part, level)), None)
    others = [part for part in parts if part is not text_test]
    flat = [part for part in others if not part.has_binder]
    about_element = [part for part in flat if part.free <= array.free | {level}]
    pairing = [part for part in flat if not part.free <= array.free | {level}]
    looping = [part for part in others if part.has_binder]
    return [stage for stage in ([text_test] if text_test else [], about_element, pairing, looping) if stage]


def _is_text_test(node: Node, level: int) -> bool:
    """Whether the node tests if a text of the element is one of a few."""
    if node.op not in ("eq", "equals", "in") or node.free != {level}:
        return False
    text, other = node.operands[0].type, node.operands[1]
    return text is Scalar.STRING and not other.free and other.type in (Scalar.STRING, ArrayType(Scalar.STRING))
