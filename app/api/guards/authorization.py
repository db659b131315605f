"""Rejects operations for which the caller lacks permissions, before execution; `permissions` has the table."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Protocol

from graphql import (
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
    OperationType,
    SelectionNode,
    SelectionSetNode,
    ValueNode,
    VariableNode,
    get_named_type,
    value_from_ast_untyped,
)
from strawberry.extensions import SchemaExtension

from app.api.context import Operation
from app.api.errors import UserError, user_error
from app.api.global_ids import split_id
from app.api.guards.remembered import Remembered, Requested, requested
from app.api.permissions import NEEDS, refusals
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.access.audit import DONE, Entry, audited
from app.storage.columns import StoredValues

Needs = dict[str, str]
"""Permissions, each with a schema coordinate that requires it."""


class Authorization(SchemaExtension):
    """Determines which permissions an operation needs and its caller lacks. Rejects a query or subscription as a whole;
    of a mutation, only the affected fields, with errors as data (see `guard_mutations`)."""

    def __init__(self, needs: Remembered[dict[str, Needs]]) -> None:
        self._needs = needs

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        operation: Operation = context.context
        request = None if context.pre_execution_errors else requested(context)
        if request is not None:
            refused = lacking(operation.scope, request, self._needs)
            if request.operation.operation is OperationType.MUTATION:
                operation.refused = refused
            else:
                errors = [_as_error(key, refusal) for key, several in refused.items() for refusal in several]
                context.pre_execution_errors = [*(context.pre_execution_errors or []), *errors] or None
        yield


def lacking(scope: Scope, request: Requested, needs: Remembered[dict[str, Needs]]) -> dict[str, list[Refusal]]:
    """The permissions that an operation needs and its caller lacks, by response key of its root fields."""
    if scope.unlimited:
        return {}
    refused = {
        key: refusals(scope, needed)
        for key, needed in needs.get(request, lambda: _Walk(request).by_root_field()).items()
    }
    return {key: reasons for key, reasons in refused.items() if reasons}


def guard_mutations(schema: GraphQLSchema) -> None:
    """Makes every unauthorised mutation return `errors` instead of running, and records the outcome of every mutation
    in the audit log."""
    for name, field in schema.mutation_type.fields.items() if schema.mutation_type else ():
        field.resolve = _guarded(name, field)


class _Payload(Protocol):
    """The payload that every mutation returns."""

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
    """The limits exceeded in a mutation: by name those found before it ran, otherwise those reported by its service."""
    yield from (refusal.limit.name for refusal in refused if refusal.limit is not None)
    if not refused:
        yield from ("input" for error in errors if error.code.value == ErrorCode.LIMIT_EXCEEDED)


def _resource_id(arguments: Mapping[str, object]) -> str | None:
    """The raw id of the object that a mutation is about, if an argument names one."""
    input_ = arguments.get("input")
    places = {**arguments, **input_} if isinstance(input_, Mapping) else arguments
    named = next((places[name] for name in ("id", "datasetId") if places.get(name)), None)
    return split_id(named)[1] if isinstance(named, str) else None


def refused_payload(field: GraphQLField, refused: list[Refusal]) -> _Payload:
    """The payload of a mutation that did not run, with only its errors."""
    type_ = get_named_type(field.type)
    if not isinstance(type_, GraphQLObjectType):
        raise TypeError(f"the payload {type_} of a mutation is not an object")
    definition = type_.extensions["strawberry-definition"]
    values: StoredValues = {}
    for part in definition.fields:
        if part.base_resolver is not None:
            continue
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
    """Walks every field that an operation selects, with the resulting types. Each fragment is walked once per parent
    type.

    Runs before validation, and therefore ignores unknown fields and fragments, and fragments in cycles.
    """

    def __init__(self, request: Requested) -> None:
        schema, document, operation, _, variables = request
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
        # The permission to write an object includes reading the returned object's own fields, but nothing beyond them.
        self._payloads = {get_named_type(field.type).name for field in mutation.fields.values()} if mutation else set()

    def by_root_field(self) -> dict[str, Needs]:
        """The needs of the operation, by response key of its root fields."""
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
        """The narrower of two types: a condition such as `... on Job` within a `SegmentJob` always holds, and reveals
        nothing of other jobs."""
        type_ = self._schema.type_map.get(type_name)
        if isinstance(parent, GraphQLObjectType) and isinstance(type_, GraphQLInterfaceType):
            return parent.name if type_ in parent.interfaces else type_name
        return type_name

    def _condition(self, parent: GraphQLNamedType, type_name: str) -> Needs:
        """The needs of a type condition itself: none if it is the parent type, whose needs are already included."""
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
