"""Map functions on objects, whose fields act as keys. A field without a value counts as absent."""

from app.pql.check.state import Checking
from app.pql.core import Node
from app.pql.schema import ArrayType, ObjectType, Scalar, Type


def value_type(type_: ObjectType) -> Type | None:
    """The type shared by all fields; None if they differ."""
    kinds = set(type_.fields.values())
    return kinds.pop() if len(kinds) == 1 else None


def as_map(checking: Checking, op: str, value: Node, arguments: list[Node], depth: int) -> Node:
    """`get`, `keys` or `values` of an object whose fields share one type."""
    type_ = value.type
    if not isinstance(type_, ObjectType) or (value_of := value_type(type_)) is None:
        raise TypeError(f"{type_} is not an object of one type of values")
    build = checking.builder
    fields = {name: build.node("field", value_of, value, payload=(name,)) for name in type_.fields}
    if op == "get":
        return _entry(checking, fields, value_of, arguments[0])
    element: Type = value_of
    items = list(fields.values())
    if op == "keys":
        element, nothing = Scalar.STRING, build.constant(None, Scalar.STRING)
        items = [
            build.node("if", element, build.condition("is_not_null", field), checking.constant(name), nothing)
            for name, field in fields.items()
        ]
    array = build.node("array", ArrayType(element), *items)
    current = checking.fields.element(array, depth)
    there = build.node("filter", array.type, array, build.condition("is_not_null", current), payload=(depth + 1,))
    return build.node("if", array.type, build.condition("is_not_null", value), there, build.constant(None, array.type))


def _entry(checking: Checking, fields: dict[str, Node], value_of: Type, key: Node) -> Node:
    entry = checking.builder.constant(None, value_of)
    if key.op == "const":
        return fields.get(key.payload[0], entry)
    for name, field in fields.items():
        is_it = checking.builder.condition("eq", key, checking.constant(name))
        entry = checking.builder.node("if", value_of, is_it, field, entry)
    return entry
