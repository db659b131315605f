"""Limits how large the values of an expression can become regardless of the data, to reject expression bombs; knows no
syntax."""

from typing import Final

from app.pql.core import BINDERS, Node, walk
from app.pql.schema import ArrayType

MOST_ELEMENTS: Final = 100_000
"""Maximum number of elements of the arrays that an expression builds. A stored array counts as one element."""
MOST_WILDCARDS: Final = 100
"""Maximum number of `%` in a pattern of `like`."""


def too_large(condition: Node) -> str:
    """Describes what is too large in a condition and how to fix it; empty if nothing is."""
    sizes: dict[Node, int] = {}
    for node in walk(condition):
        sizes[node] = _size(node, sizes)
        if sizes[node] > MOST_ELEMENTS:
            return (
                f"its arrays come to more than {MOST_ELEMENTS:,} elements for each person: do not repeat arrays in "
                "arrays, and keep lists that long in a field of the data"
            )
        if node.op == "like" and _wildcards(node.operands[1]) > MOST_WILDCARDS:
            return f"a pattern of `like` has at most {MOST_WILDCARDS} `%`: test for the parts with contains"
    return ""


def _size(node: Node, sizes: dict[Node, int]) -> int:
    operands = [sizes[operand] for operand in node.operands]
    if node.op == "array":
        return max(1, sum(operands))
    if not isinstance(node.type, ArrayType):
        return 1
    if node.op == "map":
        return operands[0] * operands[1]
    if node.op in BINDERS:
        return operands[0]
    return max(operands, default=1)


def _wildcards(pattern: Node) -> int:
    written = pattern.payload[0] if pattern.op == "const" else None
    return written.count("%") if isinstance(written, str) else 0
