"""Computes the cost of an operation before execution, and rejects operations that cost too much.

Each field costs 1, plus its entry in `WEIGHTS`, for every object on which it is selected. The number of objects is the
product of the page sizes on the path to it: `first` or `last`, by default 50. Ids and other list items in arguments
cost 1 each.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    get_named_type,
    value_from_ast_untyped,
)
from strawberry.extensions import SchemaExtension

from app.api.context import Limits, Operation
from app.api.errors import rate_extensions
from app.api.guards.inputs import LONG_LISTS, argument_problems, extensions_in_place
from app.api.guards.remembered import Remembered, Requested, requested
from app.api.scalars import LARGEST
from app.errors import ErrorCode, Limit, Refusal
from app.services.access.rates import RateExceeded
from app.services.lists.paging import DEFAULT_PAGE

LIST_SIZE: Final = 10
"""Assumed number of objects in a list without pages."""

EVERYBODY: Final = 5_000
"""Cost of evaluating every profile of a sandbox: for 100,000 profiles this takes as long as this many fields."""

WEIGHTS: Final[Mapping[str, tuple[int, tuple[str, ...]]]] = {
    "Audience.waterfall": (EVERYBODY, ()),
    "Audience.statistics": (EVERYBODY, ()),
    "Dataset.fieldStatistics": (EVERYBODY, ()),
    "Audience.members": (EVERYBODY, ("where", "orderBy", "asOf")),
    "Audience.difference": (EVERYBODY // 2, ()),
    "Audience.changes": (EVERYBODY // 2, ()),
    "Query.profiles": (EVERYBODY, ("where", "orderBy")),
    "Query.overlap": (EVERYBODY, ()),
    "Query.compare": (EVERYBODY, ()),
    "Comparison.entering": (EVERYBODY // 2, ()),
    "Comparison.leaving": (EVERYBODY // 2, ()),
    "Query.explain": (EVERYBODY // 5, ()),
    "Profile.events": (EVERYBODY // 20, ()),
}
"""Additional cost of fields that read or evaluate more than they return. If arguments are listed, it applies only with
one of them."""

LENGTHS: Final[Mapping[str, int]] = {"ExplanationNode.children": 2}
"""Average number of objects in lists of trees: a tree has as many as its expression has parts, at any depth."""

INTROSPECTION: Final = {
    "fields": 4,
    "args": 1,
    "inputFields": 1,
    "enumValues": 1,
    "possibleTypes": 1,
    "interfaces": 1,
}
"""Average number of objects in lists of the introspection, over the types of the schema."""

_META = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of an operation, and the errors in its arguments."""

    cost: int
    introspects: bool
    refused_mutations: Mapping[str, list[Refusal]]
    """Errors in the arguments of mutations, by response key."""
    refused_fields: Sequence[Refusal]
    """Errors in the arguments of all other fields."""


class CostLimit(SchemaExtension):
    """Rejects operations that cost too much or whose inputs are too large. Every response with data reports its cost in
    `extensions.cost`."""

    def __init__(self, limits: Limits, costs: Remembered[Cost]) -> None:
        self._limits = limits
        self._costs = costs
        self._cost: int | None = None

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        operation: Operation = context.context
        request = None if context.pre_execution_errors else requested(context)
        if request is not None:
            cost = cost_of(request, self._limits, self._costs)
            self._cost = cost.cost
            # As with permissions, a mutation reports errors of its input as data.
            for key, refused in cost.refused_mutations.items():
                operation.refused = {**operation.refused, key: [*operation.refused.get(key, []), *refused]}
            context.pre_execution_errors = cost_errors(cost, self._limits, operation) or None
        yield

    def get_results(self) -> dict[str, object]:
        context = self.execution_context
        # Before the first event of a subscription there is no result.
        without_data = context.result is not None and getattr(context.result, "data", None) is None
        if self._cost is None or context.pre_execution_errors or without_data:
            return {}
        return shown_cost(self._cost, self._limits)


def cost_of(request: Requested, limits: Limits, costs: Remembered[Cost]) -> Cost:
    return costs.get(request, lambda: _Walk(request, limits).cost())


def cost_errors(cost: Cost, limits: Limits, operation: Operation) -> list[GraphQLError]:
    """Why an operation must not run; if it may, its cost is counted."""
    errors = list(_closed_errors(cost.introspects and not operation.introspective))
    errors += map(_as_error, (*_cost_refusals(cost.cost, limits.max_cost), *cost.refused_fields))
    return errors or list(_rate_errors(operation, cost.cost))


def shown_cost(cost: int, limits: Limits) -> dict[str, object]:
    """The extensions of a response with data."""
    return {"cost": {"requested": cost, "limit": limits.max_cost}}


def _closed_errors(closed: bool) -> Iterator[GraphQLError]:
    if closed:
        message = "the introspection is closed: ask the operator of this server for its schema"
        extensions = {"code": ErrorCode.FORBIDDEN.value, "path": [], "name": "introspection"}
        yield GraphQLError(message, extensions=extensions)


def _cost_refusals(cost: int, allowed: int) -> Iterator[Refusal]:
    if cost > allowed:
        message = (
            f"the operation costs {cost:,}, and at most {allowed:,} is allowed: ask for smaller pages, or split it"
        )
        yield Refusal(ErrorCode.LIMIT_EXCEEDED, message, limit=Limit("max_cost", allowed, cost))


def _as_error(refusal: Refusal) -> GraphQLError:
    return GraphQLError(refusal.message, extensions=extensions_in_place(refusal))


def _rate_errors(operation: Operation, cost: int) -> Iterator[GraphQLError]:
    try:
        operation.count_cost(cost)
    except RateExceeded as exceeded:
        yield GraphQLError(str(exceeded), extensions=rate_extensions(exceeded))


class _Walk:
    """Walks the fields of an operation. A fragment is walked once per type that it is spread on and page size there.

    Runs before validation, and therefore ignores unknown fields and fragments, and fragments in cycles.
    """

    def __init__(self, request: Requested, limits: Limits) -> None:
        schema, document, operation, _, variables = request
        self._schema, self._limits, self._operation = schema, limits, operation
        nodes = document.definitions
        self._fragments = {node.name.value: node for node in nodes if isinstance(node, FragmentDefinitionNode)}
        defaults = {
            definition.variable.name.value: value_from_ast_untyped(definition.default_value)
            for definition in operation.variable_definitions or ()
            if definition.default_value is not None
        }
        self._variables = {**defaults, **variables}
        self._known: dict[tuple[str, str, int], int] = {}
        self._introspects = False
        self._refused_mutations: dict[str, list[Refusal]] = {}
        self._refused_fields: list[Refusal] = []

    def cost(self) -> Cost:
        root = self._schema.get_root_type(self._operation.operation)
        cost = 0 if root is None else self._selection(root, self._operation.selection_set, 1)
        return Cost(min(cost, LARGEST), self._introspects, self._refused_mutations, self._refused_fields)

    def _selection(self, parent: object, selections: SelectionSetNode | None, page: int) -> int:
        """The cost of the selections on one object; `page` is the page size, if it is a connection."""
        cost = 0
        for node in selections.selections if selections else ():
            if isinstance(node, FieldNode):
                cost += self._field(parent, node, page)
            elif isinstance(node, FragmentSpreadNode):
                cost += self._fragment(node.name.value, parent, page)
            else:
                condition = node.type_condition  # type: ignore[attr-defined]
                type_ = self._schema.type_map.get(condition.name.value) if condition else parent
                cost += self._selection(type_, node.selection_set, page)  # type: ignore[attr-defined]
        return cost

    def _fragment(self, name: str, parent: object, page: int) -> int:
        key = (name, getattr(parent, "name", ""), page)
        if key not in self._known:
            self._known[key] = 0
            if name in self._fragments:
                fragment = self._fragments[name]
                type_ = self._schema.type_map.get(fragment.type_condition.name.value)
                self._known[key] = self._selection(type_, fragment.selection_set, page)
        return self._known[key]

    def _field(self, parent: Any, node: FieldNode, page: int) -> int:
        name = node.name.value
        self._introspects = self._introspects or name in _META
        field: GraphQLField | None = _META.get(name) or getattr(parent, "fields", {}).get(name)
        if field is None:
            return 1
        arguments = self._arguments(parent, node, field)
        items = sum(map(_items, arguments.values()))
        sizes = [size for size in (arguments.get("first"), arguments.get("last")) if isinstance(size, int)]
        below = max(1, *sizes) if sizes else DEFAULT_PAGE if "first" in field.args else 1
        times = self._length(parent, name, field, items, page)
        return (
            1
            + _weight(f"{parent.name}.{name}", arguments)
            + items
            + times * self._selection(get_named_type(field.type), node.selection_set, below)
        )

    def _length(self, parent: Any, name: str, field: GraphQLField, items: int, page: int) -> int:
        """The number of objects that the field returns for one object."""
        type_ = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
        if not isinstance(type_, GraphQLList):
            return 1
        if parent.name.startswith("__"):
            return INTROSPECTION.get(name, LIST_SIZE) if name != "types" else len(self._schema.type_map)
        if parent.name.endswith("Connection"):
            return page
        return items or LENGTHS.get(f"{parent.name}.{name}", LIST_SIZE)

    def _arguments(self, parent: Any, node: FieldNode, field: GraphQLField) -> dict[str, object]:
        values: dict[str, Any] = {}
        for argument in node.arguments or ():
            name = argument.name.value
            if name not in field.args:
                continue
            values[name] = value_from_ast_untyped(argument.value, self._variables)
            problems = list(argument_problems(self._limits, field.args[name].type, values[name], (name,)))
            if problems and parent is self._schema.mutation_type:
                self._refused_mutations.setdefault((node.alias or node.name).value, []).extend(problems)
            else:
                self._refused_fields += problems
        return values


def _weight(coordinate: str, arguments: Mapping[str, object]) -> int:
    weight, needed = WEIGHTS.get(coordinate, (0, ()))
    return weight if not needed or any(arguments.get(name) is not None for name in needed) else 0


def _items(value: object) -> int:
    """The number of items of all lists in an argument's value; for rows only their count."""
    if isinstance(value, list):
        return len(value) + sum(map(_items, value))
    if not isinstance(value, dict):
        return 0
    rows = [inner for name, inner in value.items() if name in LONG_LISTS and isinstance(inner, list)]
    return sum(map(len, rows)) + sum(_items(inner) for name, inner in value.items() if name not in LONG_LISTS)
