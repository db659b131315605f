"""An operation compiled: what each level of it resolves, and how; knows no values but those of directives."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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
"""Operations that have plans, and plans of one operation: each variable of a directive doubles what these may be."""

_SELF_SERIALIZING: Final = {GraphQLString: str, GraphQLID: str, GraphQLBoolean: bool}
"""Scalars whose values of this Python type are written as they are."""


class Shape:
    """The type of a field or of the items of a list, ready to complete values."""

    __slots__ = ("abstract", "by_enum_member", "item", "leaf", "non_null", "plain", "type")

    def __init__(self, type_: GraphQLOutputType) -> None:
        self.non_null: Final = is_non_null_type(type_)
        inner: Any = type_.of_type if is_non_null_type(type_) else type_
        self.type: Final = inner
        self.item: Final = Shape(inner.of_type) if is_list_type(inner) else None
        self.leaf: Final = is_leaf_type(inner)
        self.abstract: Final = is_abstract_type(inner)
        self.plain: Final = _SELF_SERIALIZING.get(inner)
        self.by_enum_member: Final[dict[object, object] | None] = {} if isinstance(inner, GraphQLEnumType) else None


@dataclass(eq=False, slots=True)
class FieldPlan:
    """A field of a selection. `attribute` is set when resolving it is reading that attribute of its object."""

    key: str
    position: int
    definition: GraphQLField
    details: FieldDetailsList
    nodes: list[FieldNode]
    parent: GraphQLObjectType
    shape: Shape
    attribute: str | None
    constant_arguments: dict[str, object] | Exception | None
    """None when they depend on variables."""
    direct: Direct | None
    """How its resolver is called, where that may be done without what Strawberry puts around it."""
    names_below: frozenset[str] | None
    readers: dict[type, Callable[[Any], object]] = field(default_factory=dict)
    """By the Python class of the object: what reads `attribute`."""
    selections: dict[str, "Selection"] = field(default_factory=dict)
    """By the name of the object's type; filled as types are met."""
    by_class: dict[type, "Selection"] = field(default_factory=dict)
    """By the Python class of the object, where the class alone says which type it is."""


@dataclass(eq=False, slots=True)
class Selection:
    """The fields that are selected of an object of one type."""

    type: GraphQLObjectType
    fields: list[FieldPlan]


class OperationPlan:
    """The plan of one operation. `root` is compiled at once, the rest when an object of its type is met."""

    def __init__(self, root: Selection, shown_variables: tuple[str, ...] = ()) -> None:
        self.root: Final = root
        self.shown_variables: Final = shown_variables
        """Of a subscription: the variables that what it shows depends on."""

    def selection(self, executor: _Executor, parent: FieldPlan, type_: GraphQLObjectType) -> Selection:
        """What is selected of an object of the type that the field `parent` gave."""
        selected = parent.selections.get(type_.name)
        if selected is None:
            collected = collect_subfields(
                executor.schema, executor.fragments, executor.variable_values, executor.operation, type_,
                parent.details, executor.hide_suggestions,
            )  # fmt: skip
            selected = parent.selections[type_.name] = compiled(executor, type_, collected.grouped_field_set)
        return selected


def compiled(executor: _Executor, type_: GraphQLObjectType, fields: GroupedFieldSet) -> Selection:
    """A selection with everything about its fields that does not depend on objects."""
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
                constant_arguments=None if _has_variables(node) else arguments_of(executor, definition, details),
                direct=direct(definition),
                names_below=selected_names([each.node for each in details]),
            )
        )
    return Selection(type_, plans)


def arguments_of(
    executor: _Executor, definition: GraphQLField, details: FieldDetailsList
) -> dict[str, object] | Exception:
    """The arguments of a field, or why it has none that can be used: then each of its objects has that error."""
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


def shown_variables(executor: _Executor) -> tuple[str, ...]:
    """The variables of an operation other than those of its root fields' arguments."""
    names: set[str] = set()
    for node in executor.operation.selection_set.selections:
        arguments = (node.arguments or ()) if isinstance(node, FieldNode) else ()
        of_arguments = [name for argument in arguments for name in _variables(argument)]
        names.update(Counter(_variables(node)) - Counter(of_arguments))
    for fragment in executor.fragment_definitions.values():
        names.update(_variables(fragment))
    return tuple(sorted(names))


def _attribute(definition: GraphQLField) -> str | None:
    """Strawberry's fields without a method of their own read an attribute."""
    declared = definition.extensions.get("strawberry-definition")
    if declared is None or not declared.is_basic_field or declared.default_resolver is not getattr:
        return None
    name: str = declared.python_name
    return name


def _has_variables(node: FieldNode) -> bool:
    return any(_variables(argument) for argument in node.arguments or ())


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
    """The variables that decide what `@skip` and `@include` leave of an operation."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def enter_directive(self, node: Node, *_rest: object) -> None:
        self.names.update(_variables(node))


@dataclass(slots=True)
class _Known:
    operation: OperationDefinitionNode
    """Kept, so that no other operation gets its identity."""
    deciding: tuple[str, ...]
    plans: dict[tuple[object, ...], OperationPlan]


@dataclass(slots=True)
class Plans:
    """Plans by operation and by what the variables of its directives are; the one used longest ago goes first."""

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
