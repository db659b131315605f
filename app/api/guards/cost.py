"""What an operation costs, known before anything of it is executed, and refused when it is too much.

Each field costs 1, and what `WEIGHTS` adds, once for every object that it is selected of. How many objects there are
is what the pages on the way to it ask for, multiplied: `first` or `last`, or 50. Ids and other items of lists in
arguments cost 1 each.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    OperationDefinitionNode,
    SchemaMetaFieldDef,
    SelectionSetNode,
    TypeMetaFieldDef,
    get_named_type,
    get_operation_ast,
    value_from_ast_untyped,
)
from strawberry.extensions import SchemaExtension

from app.api.context import Limits, Operation
from app.api.errors import rate_extensions
from app.api.guards.inputs import LONG_LISTS, argument_problems, extensions_in_place
from app.api.scalars import LARGEST
from app.errors import ErrorCode, Limit, Refusal
from app.services.access.rates import RateExceeded
from app.services.lists.paging import DEFAULT_PAGE

LIST_SIZE: Final = 10
"""Objects in a list that has no pages."""

EVERYBODY: Final = 5_000
"""What it costs to evaluate every profile of a sandbox: as much time as so many fields, at 100,000 profiles."""

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
"""Fields that read or evaluate more than they show: what they cost besides; where arguments are listed, with any of
these only."""

LENGTHS: Final[Mapping[str, int]] = {"ExplanationNode.children": 2}
"""Objects in lists of trees, on average: a tree has as many as its expression has parts, however deep one looks."""

INTROSPECTION: Final = {
    "fields": 4,
    "args": 1,
    "inputFields": 1,
    "enumValues": 1,
    "possibleTypes": 1,
    "interfaces": 1,
}
"""Objects in lists of the introspection, on average over the types of the schema."""

_META = {"__schema": SchemaMetaFieldDef, "__type": TypeMetaFieldDef}


class CostLimit(SchemaExtension):
    """Refuses operations that cost too much or whose inputs are too large; every answer with data says
    in `extensions.cost` what it cost."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._cost: int | None = None

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        operation: Operation = context.context
        document = context.graphql_document
        if document is not None and not context.pre_execution_errors:
            selected = get_operation_ast(document, context.operation_name)
            if selected is not None:
                schema: GraphQLSchema = context.schema._schema
                walk = _Walk(schema, self._limits, document, selected, context.variables or {})
                self._cost = min(walk.cost(), LARGEST)
                errors = list(_closed_errors(walk.introspects and not operation.introspective))
                refusals = [*_cost_refusals(self._cost, self._limits.max_cost), *walk.refused_fields]
                errors += map(_as_error, refusals)
                errors += [] if errors else _rate_errors(operation, self._cost)
                # As with permissions: what a mutation does not take it says as data.
                for key, refused in walk.refused_mutations.items():
                    operation.refused = {**operation.refused, key: [*operation.refused.get(key, []), *refused]}
                context.pre_execution_errors = errors or None
        yield

    def get_results(self) -> dict[str, object]:
        if self._cost is None or getattr(self.execution_context.result, "data", None) is None:
            return {}
        return {"cost": {"requested": self._cost, "limit": self._limits.max_cost}}


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
    """The fields of an operation, each fragment once for each place it is in.

    It comes before validation, so unknown fields and fragments, and fragments in a cycle, are passed over.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: Limits,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, object],
    ) -> None:
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
        self.introspects = False
        self.refused_mutations: dict[str, list[Refusal]] = {}
        """What is wrong with the arguments of mutations, by their response keys."""
        self.refused_fields: list[Refusal] = []
        """The same of all other fields."""

    def cost(self) -> int:
        root = self._schema.get_root_type(self._operation.operation)
        return 0 if root is None else self._selection(root, self._operation.selection_set, 1)

    def _selection(self, parent: object, selections: SelectionSetNode | None, page: int) -> int:
        """The cost of what is selected of one object; `page` are the items of its list, if it is a connection."""
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
        self.introspects = self.introspects or name in _META
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
        """How many objects the field gives of one object."""
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
                self.refused_mutations.setdefault((node.alias or node.name).value, []).extend(problems)
            else:
                self.refused_fields += problems
        return values


def _weight(coordinate: str, arguments: Mapping[str, object]) -> int:
    weight, needed = WEIGHTS.get(coordinate, (0, ()))
    return weight if not needed or any(arguments.get(name) is not None for name in needed) else 0


def _items(value: object) -> int:
    """Items of all lists in a value of an argument; of rows only how many there are."""
    if isinstance(value, list):
        return len(value) + sum(map(_items, value))
    if not isinstance(value, dict):
        return 0
    rows = [inner for name, inner in value.items() if name in LONG_LISTS and isinstance(inner, list)]
    return sum(map(len, rows)) + sum(_items(inner) for name, inner in value.items() if name not in LONG_LISTS)
