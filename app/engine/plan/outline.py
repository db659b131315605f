"""Prints a node as one line of text, for reading plans; not meant to be parsed."""

from collections.abc import Callable

from app.pql.core import BINDERS, Node

_INFIX = {
    "eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "in": "in", "not_in": "notIn",
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "remainder": "%", "and": "and", "or": "or",
}  # fmt: skip


def outline(node: Node) -> str:
    """Similar to PQL: the element of the binder at level 2 is `e2`, the profile is omitted, other operations are calls.

    >>> outline(condition('xEvent[total > 10].count() > 2 and not (vip)'))
    'count(xEvent[e1.total > 10]) > 2 and not(truth(vip))'
    """
    if node.op in _INFIX:
        return f" {_INFIX[node.op]} ".join(_operand(operand) for operand in node.operands)
    written = _WRITTEN.get(node.op)
    return _call(node) if written is None else written(node)


def _operand(node: Node) -> str:
    text = outline(node)
    return f"({text})" if node.op == "or" else text


def _call(node: Node) -> str:
    payload = node.payload[1:] if node.op in BINDERS else node.payload
    return f"{node.op}({', '.join([*map(outline, node.operands), *map(repr, payload)])})"


def _constant(node: Node) -> str:
    (value,) = node.payload
    return f'"{value}"' if isinstance(value, str) else str(value).removesuffix(".0")


def _field(node: Node) -> str:
    of, (name,) = outline(node.operands[0]), node.payload
    return f"{of}.{name}" if of else str(name)


_WRITTEN: dict[str, Callable[[Node], str]] = {
    "const": _constant,
    "element": lambda node: f"e{node.payload[0]}" if node.payload[0] else "",
    "field": _field,
    "filter": lambda node: f"{outline(node.operands[0])}[{outline(node.operands[1])}]",
}
