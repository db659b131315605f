"""Calls resolvers directly: Strawberry wraps each call, and converts the arguments again for each object."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import strawberry
from graphql import FieldNode, GraphQLField, GraphQLResolveInfo, GraphQLSchema
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from app.api.context import Operation
from app.api.execution.relation import RELATION, Relation

WITH_PAGE: Final = "with_page"
"""Attribute of a function with paging arguments: converts them to the `page` of the function it wraps, as
`with_page(arguments, columns=…, cursors=…, alone=…)`, as in `PageRequest`."""


class Direct:
    """How the resolver of one field is called."""

    __slots__ = ("field", "function", "relation", "takes_info", "takes_self", "with_page")

    def __init__(self, field: StrawberryField, function: Callable[..., object]) -> None:
        resolver = field.base_resolver
        self.field: Final = field
        self.relation: Final[Relation | None] = getattr(function, RELATION, None)
        self.with_page: Final = getattr(function, WITH_PAGE, None)
        self.function: Final = function if self.with_page is None else inspect.unwrap(function)
        self.takes_self: Final = resolver is not None and resolver.self_parameter is not None
        info = resolver.info_parameter if resolver is not None else None
        self.takes_info: Final = None if info is None else info.name

    def call(self, source: object, info: "PlannedInfo | None", arguments: Mapping[str, object]) -> object:
        """Calls the resolver with arguments from `converted`."""
        of_self = (source,) if self.takes_self else ()
        if self.takes_info is None:
            return self.function(*of_self, **arguments)
        return self.function(*of_self, **arguments, **{self.takes_info: info})

    def converted(self, schema: GraphQLSchema, arguments: dict[str, object]) -> dict[str, object]:
        """The arguments under their Python names, with inputs as instances of their classes. Raises Strawberry's
        exceptions."""
        declared: strawberry.Schema = getattr(schema, "_strawberry_schema")  # noqa: B009
        registry = declared.schema_converter.scalar_registry
        return convert_arguments(arguments, self.field.arguments, registry, declared.config)


def direct(definition: GraphQLField) -> Direct | None:
    """How to call a field's resolver directly; None if Strawberry does more than call it. Such fields are resolved with
    `definition.resolve`."""
    field = definition.extensions.get("strawberry-definition")
    if field is None or field.base_resolver is None or field.extensions or field.is_subscription:
        return None
    resolver = field.base_resolver
    if resolver.root_parameter or resolver.parent_parameter or not callable(resolver.wrapped_func):
        return None
    # Strawberry marks its own resolvers; those of mutations are replaced by our guard.
    return Direct(field, resolver.wrapped_func) if hasattr(definition.resolve, "_is_default") else None


class PlannedInfo(strawberry.Info[Operation, None]):
    """The info of a call. graphql-core's info is created on demand, since most resolvers only use the context."""

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
    """The names of the directly selected fields; None if the selection contains fragments."""
    names = set()
    for field_node in nodes:
        for selection in field_node.selection_set.selections if field_node.selection_set else ():
            if not isinstance(selection, FieldNode):
                return None
            names.add(selection.name.value)
    return frozenset(names)


def names_below(info: strawberry.Info[Any, Any]) -> frozenset[str] | None:
    """`selected_names` of the info's field."""
    return info.selected_names if isinstance(info, PlannedInfo) else selected_names(info._raw_info.field_nodes)
