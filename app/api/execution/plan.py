"""Compiles an operation: what each level resolves, and how. Depends on no values except those of directives."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from types import NoneType
from typing import Any, Final

from graphql import (
    FieldNode,
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLField,
    GraphQLID,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLString,
    Node,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    visit,
)
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet, collect_subfields
from graphql.execution.executor import Executor
from graphql.execution.values import get_argument_values

from app.api.execution.direct import Direct, direct, selected_names

_Executor = Executor[Any]
PLANS_KEPT = 512
WAYS_KEPT = 16
"""Maximum number of operations with cached plans, and of plans per operation: each directive variable doubles the
possible plans."""

_SELF_SERIALIZING: Final = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Scalars, with the Python type whose values are written unchanged."""

CONSTANT: Final = (str, int, float, Enum, NoneType)
"""Types of argument values that cannot be changed, so that all executions can share them."""


class Shape:
    """The type of a field or of a list's items, prepared for completing values."""

    __slots__ = ("abstract", "by_enum_member", "flat", "item", "leaf", "non_null", "plain", "type")

    def __init__(self, type_: GraphQLOutputType) -> None:
        self.non_null: Final = is_non_null_type(type_)
        inner: Any = type_.of_type if is_non_null_type(type_) else type_
        self.type: Final = inner
        self.item: Final = Shape(inner.of_type) if is_list_type(inner) else None
        self.leaf: Final = is_leaf_type(inner)
        self.flat: Final[bool] = self.leaf if self.item is None else self.item.flat
        """Whether it is a leaf, or a list of leaves at any depth."""
        self.abstract: Final = is_abstract_type(inner)
        self.plain: Final = _SELF_SERIALIZING.get(inner)
        self.by_enum_member: Final[dict[object, object] | None] = {} if isinstance(inner, GraphQLEnumType) else None


@dataclass(eq=False, slots=True)
class FieldPlan:
    """A field of a selection. `attribute` is set if resolving the field only reads that attribute of its object."""

    key: str
    position: int
    definition: GraphQLField
    details: FieldDetailsList
    nodes: list[FieldNode]
    parent: GraphQLObjectType
    shape: Shape
    attribute: str | None
    typename: bool
    """Whether it is `__typename`."""
    constant_arguments: dict[str, object] | None
    """None if they depend on variables, are invalid, or could be changed by a resolver."""
    direct: Direct | None
    """How to call its resolver without Strawberry's wrapper, if that is possible."""
    names_below: frozenset[str] | None
    converted: dict[str, object] | None = None
    """The converted arguments of the resolver, if all calls can share them."""
    readers: dict[type, Callable[[Any], object]] = field(default_factory=dict)
    """Functions that read `attribute`, by the Python class of the object."""
    selections: dict[str, "Selection"] = field(default_factory=dict)
    """Selections by the object's type name; filled as types occur."""
    by_class: dict[type, "Selection"] = field(default_factory=dict)
    """Selections by the Python class of the object, if the class alone determines the type."""


@dataclass(eq=False, slots=True)
class Selection:
    """The fields selected on an object of one type."""

    type: GraphQLObjectType
    fields: list[FieldPlan]
    writers: dict[object, Any] = field(default_factory=dict)
    """Functions that write the plain fields, by the classes of the objects and of their rows: see `writer`."""


class OperationPlan:
    """The plan of one operation. `root` is compiled at once, other selections when an object of their type occurs."""

    def __init__(self, root: Selection, shown_variables: tuple[str, ...] = ()) -> None:
        self.root: Final = root
        self.shown_variables: Final = shown_variables
        """For a subscription, the variables that determine what it shows."""

    @cached_property
    def steps(self) -> list[Selection]:
        """The root's fields, each as a selection of its own."""
        return [Selection(self.root.type, [each]) for each in self.root.fields]

    def selection(self, executor: _Executor, parent: FieldPlan, type_: GraphQLObjectType) -> Selection:
        """The selection on an object of this type that the field `parent` returned."""
        selected = parent.selections.get(type_.name)
        if selected is None:
            collected = collect_subfields(
                executor.schema, executor.fragments, executor.variable_values, executor.operation, type_,
                parent.details, executor.hide_suggestions,
            )  # fmt: skip
            selected = parent.selections[type_.name] = compiled(executor, type_, collected.grouped_field_set)
        return selected


def compiled(executor: _Executor, type_: GraphQLObjectType, fields: GroupedFieldSet) -> Selection:
    """Compiles a selection: everything about its fields that does not depend on objects."""
    plans = []
    for position, (key, details) in enumerate(fields.items()):
        node = details[0].node
        definition = executor.schema.get_field(type_, node.name.value)
        if definition is None:
            continue
        plans.append(
            FieldPlan(
                key=key,
                position=position,
                definition=definition,
                details=details,
                nodes=[each.node for each in details],
                parent=type_,
                shape=Shape(definition.type),
                attribute=_attribute(definition),
                typename=node.name.value == "__typename",
                constant_arguments=_constant_arguments(executor, definition, details),
                direct=direct(definition),
                names_below=selected_names([each.node for each in details]),
            )
        )
    return Selection(type_, plans)


def arguments_of(
    executor: _Executor, definition: GraphQLField, details: FieldDetailsList
) -> dict[str, object] | Exception:
    """The arguments of a field, or the error that they cause, which is then reported for each object."""
    node = details[0].node
    if not (definition.args or node.arguments):
        return {}
    try:
        return get_argument_values(
            definition,
            node,
            executor.variable_values,
            details[0].fragment_variable_values,
            executor.hide_suggestions,
        )
    except Exception as error:
        return error


def _constant_arguments(
    executor: _Executor, definition: GraphQLField, details: FieldDetailsList
) -> dict[str, object] | None:
    """The arguments of a field if they are the same in all executions and cannot be changed."""
    if any(name for argument in details[0].node.arguments or () for name in _variables(argument)):
        return None
    arguments = arguments_of(executor, definition, details)
    is_fixed = isinstance(arguments, dict) and all(isinstance(value, CONSTANT) for value in arguments.values())
    return arguments if isinstance(arguments, dict) and is_fixed else None


def shown_variables(executor: _Executor) -> tuple[str, ...]:
    """The variables that an operation uses outside its root fields' arguments."""
    names: set[str] = set()
    for node in executor.operation.selection_set.selections:
        arguments = (node.arguments or ()) if isinstance(node, FieldNode) else ()
        of_arguments = [name for argument in arguments for name in _variables(argument)]
        names.update(Counter(_variables(node)) - Counter(of_arguments))
    for fragment in executor.fragment_definitions.values():
        names.update(_variables(fragment))
    return tuple(sorted(names))


def _attribute(definition: GraphQLField) -> str | None:
    """The attribute that the field reads, if it is a Strawberry field without a resolver."""
    declared = definition.extensions.get("strawberry-definition")
    if declared is None or not declared.is_basic_field or declared.default_resolver is not getattr:
        return None
    name: str = declared.python_name
    return name


def _variables(node: Node) -> Iterator[str]:
    collector = _Variables()
    visit(node, collector)
    yield from collector.names


class _Variables(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def enter_variable(self, node: VariableNode, *_rest: object) -> None:
        self.names.append(node.name.value)


class _DirectiveVariables(Visitor):
    """Collects the variables in `@skip` and `@include`."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: Node, *_rest: object) -> None:
        self.names.update(_variables(node))


@dataclass(slots=True)
class _Known:
    operation: OperationDefinitionNode
    """Referenced here so that no other operation can get the same `id()`."""
    deciding: tuple[str, ...]
    plans: dict[tuple[object, ...], OperationPlan]


@dataclass(slots=True)
class Plans:
    """Caches plans by operation and by the values of its directives' variables; drops the least recently used
    operation."""

    entries: OrderedDict[int, _Known] = field(default_factory=OrderedDict)

    def get(self, executor: _Executor, make: Callable[[], OperationPlan]) -> OperationPlan:
        operation = executor.operation
        entry = self.entries.get(id(operation))
        if entry is None:
            entry = self.entries[id(operation)] = _Known(operation, _deciding(executor), {})
            if len(self.entries) > PLANS_KEPT:
                self.entries.popitem(last=False)
        else:
            self.entries.move_to_end(id(operation))
        values = executor.variable_values.coerced
        decided = tuple(values.get(name) for name in entry.deciding)
        plan = entry.plans.get(decided)
        if plan is None:
            if len(entry.plans) == WAYS_KEPT:
                entry.plans.clear()
            plan = entry.plans[decided] = make()
        return plan


def _deciding(executor: _Executor) -> tuple[str, ...]:
    collector = _DirectiveVariables()
    for node in (executor.operation, *executor.fragment_definitions.values()):
        visit(node, collector)
    return tuple(sorted(collector.names))
