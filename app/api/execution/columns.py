"""Determines which columns of a list's rows an operation needs, so that the list reads only those.

A field that is a column needs that column. The needs of a resolver are derived from its source code: the attributes of
`self` that it reads. If it uses `self` in any other way, or its needs cannot be determined, all columns are read.
"""

import ast
from collections.abc import Callable, Iterable
from functools import cache
from inspect import getsource, unwrap
from textwrap import dedent
from typing import Any, Final

from graphql import GraphQLObjectType, get_named_type
from graphql.execution.executor import Executor

from app.api.execution.from_row import Column, FromRow
from app.api.execution.plan import FieldPlan, OperationPlan
from app.storage.columns import StoredValues

Columns = frozenset[str]

_WITHOUT_CURSORS: Final = frozenset({"nodes", "totalCount", "__typename"})
"""The fields of a connection that need no cursor."""


class Needed:
    """The columns that the fields of an operation need."""

    def __init__(self, executor: Executor[Any], plan: OperationPlan) -> None:
        self._executor = executor
        self._plan = plan

    def of_page(self, field: FieldPlan) -> StoredValues:
        """What a connection needs, by the names of `PageRequest`."""
        columns, names = self._columns(field), field.names_below
        # A list needs one column at least, and the sort keys are as good as any.
        cursors = names is None or bool(names - _WITHOUT_CURSORS) or columns == frozenset()
        return {"columns": columns, "cursors": cursors, "alone": self._is_alone(field)}

    def _columns(self, field: FieldPlan) -> Columns | None:
        """The columns that a connection's items need for the fields selected below it; None means all."""
        items = list(self._items(field))
        # Without a selection of items, the page still creates them.
        return _union(map(self._of_item, items)) if items else None

    def _is_alone(self, field: FieldPlan) -> bool:
        """Whether the page of this connection is all that the operation reads."""
        others = [each for each in self._plan.root.fields if each is not field and not each.typename]
        return field in self._plan.root.fields and not others and all(map(self._is_read, self._below(field)))

    def _is_read(self, field: FieldPlan) -> bool:
        """Whether a field, with everything below it, needs no read beyond that of its object."""
        if field.typename or field.shape.flat:
            return field.typename or field.attribute is not None
        is_object = isinstance(get_named_type(field.shape.type), GraphQLObjectType)
        return field.attribute is not None and is_object and all(map(self._is_read, self._below(field)))

    def _items(self, field: FieldPlan) -> Iterable[FieldPlan]:
        """The fields of a connection that contain the items of its page."""
        for each in self._below(field):
            if each.nodes[0].name.value == "nodes":
                yield each
            elif each.nodes[0].name.value == "edges":
                yield from (inner for inner in self._below(each) if inner.nodes[0].name.value == "node")

    def _below(self, field: FieldPlan) -> list[FieldPlan]:
        type_ = get_named_type(field.shape.type)
        return self._plan.selection(self._executor, field, type_).fields if isinstance(type_, GraphQLObjectType) else []

    def _of_item(self, item: FieldPlan) -> Columns | None:
        type_ = get_named_type(item.shape.type)
        declared = type_.extensions.get("strawberry-definition")
        class_: type = object if declared is None else declared.origin
        if not isinstance(type_, GraphQLObjectType) or not issubclass(class_, FromRow):
            return None
        return _union(self._of_field(field, class_) for field in self._below(item))

    def _of_field(self, field: FieldPlan, class_: type[FromRow]) -> Columns | None:
        if field.typename:
            return frozenset()
        if field.attribute is None:
            if field.direct is not None and field.direct.relation is not None:
                return _of_attribute(class_, field.direct.relation.of)
            return None if field.direct is None else _of_method(class_, field.direct.function)
        shown = getattr(class_.FROM_ROW.get(field.attribute), "__self__", None)
        if isinstance(shown, type) and issubclass(shown, FromRow):
            # The field is another object that shows the same row.
            return _union(self._of_field(inner, shown) for inner in self._below(field))
        return _of_attribute(class_, field.attribute)


def _of_attribute(class_: type[FromRow], name: str, within: tuple[object, ...] = ()) -> Columns | None:
    if name == "row" or hasattr(class_, name):
        method = getattr(class_, name, None)
        return _of_method(class_, method, within) if callable(method) else None
    derived = class_.FROM_ROW.get(name)
    if derived is None:
        return frozenset({name})
    return frozenset({derived.name}) if isinstance(derived, Column) else None


def _of_method(class_: type[FromRow], method: Callable[..., object], within: tuple[object, ...] = ()) -> Columns | None:
    """`within` are the methods that called this one, which may be recursive."""
    if method in within:
        return frozenset()
    attributes = _read_of_self(unwrap(method))
    if attributes is None:
        return None
    return _union(_of_attribute(class_, name, (*within, method)) for name in attributes)


@cache
def _read_of_self(method: Callable[..., object]) -> frozenset[str] | None:
    """The attributes of `self` that a method reads; None if its source uses `self` otherwise, or is unavailable."""
    try:
        tree = ast.parse(dedent(getsource(method)))
    except (OSError, TypeError, SyntaxError):
        return None
    own = {id(node): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and _is_self(node.value)}
    said = sum(_is_self(node) for node in ast.walk(tree))
    return frozenset(own.values()) if said == len(own) else None


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "self"


def _union(several: Iterable[Columns | None]) -> Columns | None:
    union: set[str] = set()
    for columns in several:
        if columns is None:
            return None
        union |= columns
    return frozenset(union)
