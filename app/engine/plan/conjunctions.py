"""Conjunctions as lists of their parts, the form that most rules use."""

from app.pql.core import Builder, Node


def parts_of(condition: Node) -> list[Node]:
    """The parts of a conjunction, including nested ones; any other condition is its own only part."""
    if condition.op != "and":
        return [condition]
    return [part for operand in condition.operands for part in parts_of(operand)]


def all_of(parts: list[Node], builder: Builder) -> Node:
    """The conjunction of one or more parts."""
    return parts[0] if len(parts) == 1 else builder.condition("and", *parts)
