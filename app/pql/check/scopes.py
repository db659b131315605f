"""Scopes: the names visible at each place, innermost first; knows core nodes, but no syntax and no messages."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.pql.core import Builder, Node
from app.pql.schema import ArrayType, ObjectType


@dataclass(frozen=True, slots=True)
class Names:
    """One scope, nested in `outer`.

    A *level* (the profile, or the inside of a method's argument, `[…]`, WHAT and WHEN) offers the fields of its
    `element`; `^` leaves the nearest level. Other scopes (`let`, quantifiers, parameters) only bind `variables`.
    `depth` is the number of enclosing binders and thus the number of the next one. `array` is the array whose elements
    this scope binds. A value of None has already been reported as an error.
    """

    depth: int
    outer: "Names | None" = None
    variables: Mapping[str, Node | None] = field(default_factory=dict)
    is_level: bool = False
    element: Node | None = None
    array: Node | None = None

    def level(self, element: Node | None, array: Node | None) -> "Names":
        return Names(self.depth + 1, self, is_level=True, element=element, array=array)

    def with_variable(self, name: str, value: Node | None) -> "Names":
        return Names(self.depth, self, {name: value})

    def with_bound(self, name: str, element: Node | None, array: Node | None) -> "Names":
        return Names(self.depth + 1, self, {name: element}, array=array)

    def climb(self, up: int) -> "Names | None":
        """The scope outside the `up` nearest levels; None if there are fewer levels."""
        scope: Names | None = self
        for _ in range(up):
            while scope is not None and not scope.is_level:
                scope = scope.outer
            scope = scope.outer if scope is not None else None
        return scope

    def around(self) -> "Iterator[Names]":
        """This scope and all enclosing ones, innermost first."""
        scope: Names | None = self
        while scope is not None:
            yield scope
            scope = scope.outer

    def names(self) -> list[str]:
        """All names that can be used here, innermost first."""
        visible: dict[str, None] = {}
        for scope in self.around():
            visible.update(dict.fromkeys(scope.variables))
            if scope.is_level and scope.element is not None:
                visible.update(dict.fromkeys(fields_of(scope.element)))
        return list(visible)


class Fields:
    """Resolves fields along paths. A step through an array maps over it and flattens the result."""

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def of(self, value: Node, name: str, depth: int) -> Node | None:
        """The field of an object, or of each object of an array; None if there is no such field. `depth` as in
        `Names`."""
        while isinstance(value.type, ArrayType) and isinstance(value.type.element, ArrayType):
            value = self.mapped(value, self.element(value, depth), depth + 1)
        if isinstance(value.type, ObjectType):
            type_ = value.type.fields.get(name)
            return None if type_ is None else self.builder.node("field", type_, value, payload=(name,))
        if not isinstance(value.type, ArrayType):
            return None
        array, body, level = value, self.element(value, depth), depth + 1
        if value.op == "map" and isinstance(value.operands[1].type, ObjectType):
            # One map over the whole path, so that a null on the way is dropped just like a null at the end.
            (array, body), level = value.operands, value.payload[0]
        inner = self.of(body, name, level)
        return None if inner is None else self.mapped(array, inner, level)

    def element(self, array: Node, depth: int) -> Node:
        """The current element, for a binder written at this depth."""
        if not isinstance(array.type, ArrayType):
            raise TypeError(f"{array.type} has no elements")
        return self.builder.node("element", array.type.element, payload=(depth + 1,))

    def mapped(self, array: Node, body: Node, level: int) -> Node:
        inner = body.type.element if isinstance(body.type, ArrayType) else body.type
        return self.builder.node("map", ArrayType(inner), array, body, payload=(level,))


def fields_of(value: Node) -> list[str]:
    """Names of the fields that can follow the value."""
    type_ = value.type
    while isinstance(type_, ArrayType):
        type_ = type_.element
    return list(type_.fields) if isinstance(type_, ObjectType) else []
