"""Resolvers called directly: Strawberry wraps each call in others, and converts the arguments anew for each object."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import strawberry
from graphql import FieldNode, GraphQLField, GraphQLResolveInfo, GraphQLSchema
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from app.api.context import Operation


class Direct:
    """How the resolver of one field is called."""

    __slots__ = ("field", "function", "is_async", "takes_info", "takes_self")

    def __init__(self, field: StrawberryField, function: Callable[..., object]) -> None:
        resolver = field.base_resolver
        self.field: Final = field
        self.function: Final = function
        self.is_async: Final = field.is_async
        self.takes_self: Final = resolver is not None and resolver.self_parameter is not None
        info = resolver.info_parameter if resolver is not None else None
        self.takes_info: Final = None if info is None else info.name

    def call(self, source: object, info: "PlannedInfo", arguments: Mapping[str, object]) -> object:
        """`arguments` are those of `converted`."""
        of_self = (source,) if self.takes_self else ()
        if self.takes_info is None:
            return self.function(*of_self, **arguments)
        return self.function(*of_self, **arguments, **{self.takes_info: info})

    def converted(self, schema: GraphQLSchema, arguments: dict[str, object]) -> dict[str, object]:
        """The arguments under their names in Python, inputs as their classes. Raises what Strawberry does."""
        declared: strawberry.Schema = getattr(schema, "_strawberry_schema")  # noqa: B009
        registry = declared.schema_converter.scalar_registry
        return convert_arguments(arguments, self.field.arguments, registry, declared.config)


def direct(definition: GraphQLField) -> Direct | None:
    """None where more is to be done around a call, or a call is another: those go through `definition.resolve`."""
    field = definition.extensions.get("strawberry-definition")
    if field is None or field.base_resolver is None or field.extensions or field.is_subscription:
        return None
    resolver = field.base_resolver
    if resolver.root_parameter or resolver.parent_parameter or not callable(resolver.wrapped_func):
        return None
    # Strawberry marks its own; mutations have a guard of ours in its place.
    return Direct(field, resolver.wrapped_func) if hasattr(definition.resolve, "_is_default") else None


class PlannedInfo(strawberry.Info[Operation, None]):
    """The info of a call: most resolvers ask it for the context only."""

    def __init__(
        self,
        context: Operation,
        field: StrawberryField,
        names: frozenset[str] | None,
        raw: Callable[[], GraphQLResolveInfo[Operation]],
    ) -> None:
        self._operation = context
        self._field = field
        self._raw = raw
        self.selected_names: Final = names

    @property
    def context(self) -> Operation:
        return self._operation

    @cached_property
    def _raw_info(self) -> GraphQLResolveInfo[Operation]:  # type: ignore[override]
        return self._raw()


def selected_names(nodes: Sequence[FieldNode]) -> frozenset[str] | None:
    """Names of the fields selected right below; None when fragments make that a longer question."""
    names = set()
    for field_node in nodes:
        for selection in field_node.selection_set.selections if field_node.selection_set else ():
            if not isinstance(selection, FieldNode):
                return None
            names.add(selection.name.value)
    return frozenset(names)


def names_below(info: strawberry.Info[Any, Any]) -> frozenset[str] | None:
    """`selected_names` of the field that an info is about."""
    return info.selected_names if isinstance(info, PlannedInfo) else selected_names(info._raw_info.field_nodes)
