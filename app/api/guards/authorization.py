"""Refuses what the caller has no permission for, before anything is executed; the table is in `permissions`."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Protocol

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLResolveInfo,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    get_operation_ast,
    value_from_ast_untyped,
)
from strawberry.extensions import SchemaExtension

from app.api.context import Operation
from app.api.errors import UserError, user_error
from app.api.global_ids import split_id
from app.api.permissions import NEEDS, refusals
from app.errors import ErrorCode, Refusal
from app.services.access.audit import DONE, Entry, audited
from app.storage.columns import StoredValues

Needs = dict[str, str]
"""Permissions, each with a coordinate of the schema that needs it."""


class Authorization(SchemaExtension):
    """Finds what an operation needs and its caller lacks. A query or a subscription is refused as a whole; of a
    mutation only the fields concerned are, as data (see `guard_mutations`)."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        operation: Operation = context.context
        document, scope = context.graphql_document, operation.scope
        if document is not None and not scope.unlimited and not context.pre_execution_errors:
            selected = get_operation_ast(document, context.operation_name)
            if selected is not None:
                schema: GraphQLSchema = context.schema._schema
                needed = _Walk(schema, document, selected, context.variables or {}).by_root_field()
                refused = {key: refusals(scope, needs) for key, needs in needed.items()}
                if selected.operation is OperationType.MUTATION:
                    operation.refused = {key: reasons for key, reasons in refused.items() if reasons}
                else:
                    errors = [_as_error(key, refusal) for key, several in refused.items() for refusal in several]
                    context.pre_execution_errors = [*(context.pre_execution_errors or []), *errors] or None
        yield


def guard_mutations(schema: GraphQLSchema) -> None:
    """Makes every mutation answer with `errors` instead of running when its caller may not do it, and notes in the
    audit log what became of it."""
    for name, field in schema.mutation_type.fields.items() if schema.mutation_type else ():
        field.resolve = _guarded(name, field)


class _Payload(Protocol):
    """What every mutation answers with."""

    errors: Sequence[UserError]


def _guarded(name: str, field: GraphQLField) -> Callable[..., Awaitable[_Payload]]:
    resolve = field.resolve
    if resolve is None:
        raise TypeError(f"the mutation {name} has no resolver")

    async def guarded(source: object, info: GraphQLResolveInfo[Operation], **arguments: object) -> _Payload:
        operation = info.context
        services = operation.services
        entry = Entry(operation.scope, services.clock, name, operation.request_id, _resource_id(arguments))
        async with audited(services.database, entry):
            refused = operation.refused.get(str(info.path.key), [])
            if refused:
                payload = refused_payload(field, refused)
            else:
                answer = resolve(source, info, **arguments)
                payload = await answer if isawaitable(answer) else answer
            entry.outcome = payload.errors[0].code.value if payload.errors else DONE
            for limit in _exceeded(payload.errors, refused):
                services.metrics.refused(limit)
            return payload

    return guarded


def _exceeded(errors: Sequence[UserError], refused: Sequence[Refusal]) -> Iterator[str]:
    """The limits that a mutation met: by name those before it ran, else those that its service knows."""
    yield from (refusal.limit.name for refusal in refused if refusal.limit is not None)
    if not refused:
        yield from ("input" for error in errors if error.code.value == ErrorCode.LIMIT_EXCEEDED)


def _resource_id(arguments: Mapping[str, object]) -> str | None:
    """The raw id of the object that a mutation is about, where its arguments name one."""
    input_ = arguments.get("input")
    places = {**arguments, **input_} if isinstance(input_, Mapping) else arguments
    named = next((places[name] for name in ("id", "datasetId") if places.get(name)), None)
    return split_id(named)[1] if isinstance(named, str) else None


def refused_payload(field: GraphQLField, refused: list[Refusal]) -> _Payload:
    """The payload of a mutation that was not run: its errors, and nothing else."""
    type_ = get_named_type(field.type)
    if not isinstance(type_, GraphQLObjectType):
        raise TypeError(f"the payload {type_} of a mutation is not an object")
    definition = type_.extensions["strawberry-definition"]
    values: StoredValues = {}
    for part in definition.fields:
        name = part.graphql_name or part.python_name
        shape = type_.fields[_camel(name)].type
        shape = shape.of_type if isinstance(shape, GraphQLNonNull) else shape
        values[part.python_name] = [] if isinstance(shape, GraphQLList) else None
    payload: _Payload = definition.origin(**values | {"errors": [user_error(refusal) for refusal in refused]})
    return payload


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _as_error(key: str, refusal: Refusal) -> GraphQLError:
    return GraphQLError(refusal.message, extensions={"code": refusal.code.value, "path": [key]})


class _Walk:
    """Every field that an operation selects, with the types that it leads to. Each fragment is walked once for each
    type that it is of.

    It comes before validation, so unknown fields and fragments, and fragments in a cycle, are passed over.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        variables: Mapping[str, object],
    ) -> None:
        self._schema = schema
        self._operation = operation
        nodes = document.definitions
        self._fragments = {node.name.value: node for node in nodes if isinstance(node, FragmentDefinitionNode)}
        defaults = {
            definition.variable.name.value: value_from_ast_untyped(definition.default_value)
            for definition in operation.variable_definitions or ()
            if definition.default_value is not None
        }
        self._variables = {**defaults, **variables}
        self._known: dict[tuple[str, str], Needs] = {}
        mutation = schema.mutation_type
        # What a mutation returns is its own object: the right to write shows what was written, and nothing further.
        self._payloads = {get_named_type(field.type).name for field in mutation.fields.values()} if mutation else set()

    def by_root_field(self) -> dict[str, Needs]:
        """What the operation needs, by the response key of its root fields."""
        root = self._schema.get_root_type(self._operation.operation)
        needed: dict[str, Needs] = {}
        if root is None:
            return needed
        for field in self._root_fields(self._operation.selection_set, set()):
            key = (field.alias or field.name).value
            needed.setdefault(key, {}).update(self._field(root, field))
        return needed

    def _root_fields(self, selections: SelectionSetNode, spread: set[str]) -> Iterator[FieldNode]:
        for node in selections.selections:
            if not self._included(node):
                continue
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                if name in self._fragments and name not in spread:
                    spread.add(name)
                    yield from self._root_fields(self._fragments[name].selection_set, spread)
            else:
                yield from self._root_fields(node.selection_set, spread)  # type: ignore[attr-defined]

    def _selection(self, parent: GraphQLNamedType, selections: SelectionSetNode | None) -> Needs:
        needs: Needs = {}
        for node in selections.selections if selections else ():
            if not self._included(node):
                continue
            if isinstance(node, FieldNode):
                needs |= self._field(parent, node)
            elif isinstance(node, FragmentSpreadNode):
                needs |= self._fragment(parent, node.name.value)
            elif isinstance(node, InlineFragmentNode):
                needs |= self._inline(parent, node)
        return needs

    def _fragment(self, parent: GraphQLNamedType, name: str) -> Needs:
        fragment = self._fragments.get(name)
        if fragment is None:
            return {}
        type_name = self._narrower(parent, fragment.type_condition.name.value)
        if (type_name, name) not in self._known:
            self._known[type_name, name] = {}
            self._known[type_name, name] = self._of_type(type_name, fragment.selection_set)
        return self._condition(parent, type_name) | self._known[type_name, name]

    def _inline(self, parent: GraphQLNamedType, node: InlineFragmentNode) -> Needs:
        type_name = self._narrower(parent, node.type_condition.name.value if node.type_condition else parent.name)
        return self._condition(parent, type_name) | self._of_type(type_name, node.selection_set)

    def _narrower(self, parent: GraphQLNamedType, type_name: str) -> str:
        """Of two types the one that a selection is of: a condition such as `... on Job` within a `SegmentJob` always
        holds, and shows nothing of other jobs."""
        type_ = self._schema.type_map.get(type_name)
        if isinstance(parent, GraphQLObjectType) and isinstance(type_, GraphQLInterfaceType):
            return parent.name if type_ in parent.interfaces else type_name
        return type_name

    def _condition(self, parent: GraphQLNamedType, type_name: str) -> Needs:
        """What a condition needs by itself: nothing where it is of the parent, which has been asked for already."""
        own = type_name == parent.name or type_name in self._payloads
        return {} if own else dict.fromkeys(NEEDS.get(type_name, "").split(), type_name)

    def _of_type(self, type_name: str, selections: SelectionSetNode) -> Needs:
        type_ = self._schema.type_map.get(type_name)
        return {} if type_ is None else self._selection(type_, selections)

    def _field(self, parent: GraphQLNamedType, node: FieldNode) -> Needs:
        fields = parent.fields if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType) else {}
        field = fields.get(node.name.value)
        if field is None:
            return {}
        type_ = get_named_type(field.type)
        coordinate = f"{parent.name}.{node.name.value}"
        needs = {}
        if coordinate in NEEDS:
            needs = dict.fromkeys(NEEDS[coordinate].split(), coordinate)
        elif parent.name not in self._payloads:
            needs = dict.fromkeys(NEEDS.get(type_.name, "").split(), coordinate)
        return needs | self._selection(type_, node.selection_set)

    def _included(self, node: SelectionNode) -> bool:
        for directive in node.directives or ():
            if directive.name.value in {"skip", "include"}:
                condition = next((argument.value for argument in directive.arguments or ()), None)
                if self._value(condition) is (directive.name.value == "skip"):
                    return False
        return True

    def _value(self, node: ValueNode | None) -> object:
        if isinstance(node, VariableNode):
            return self._variables.get(node.name.value)
        return None if node is None else value_from_ast_untyped(node)
