"""Accepts most valid documents ten times as fast as graphql-core validates them.

graphql-core visits each node with thirty rules. Here one walk accepts a document if nothing in it is unusual, and has
no opinion otherwise: graphql-core then validates it, and reports the errors. So this must never accept an invalid
document; it may doubt a valid one.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from graphql import (
    ArgumentNode,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLArgument,
    GraphQLCompositeType,
    GraphQLError,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    ListValueNode,
    NamedTypeNode,
    NullValueNode,
    ObjectFieldNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    StringValueNode,
    ValueNode,
    VariableDefinitionNode,
    VariableNode,
    do_types_overlap,
    get_named_type,
    is_composite_type,
    is_input_type,
    is_leaf_type,
    is_required_argument,
    is_required_input_field,
    specified_directives,
    type_from_ast,
)
from graphql.pyutils import Undefined
from graphql.utilities.validate_input_value import validate_input_literal
from graphql.validation.rules.variables_in_allowed_position import allowed_variable_usage
from strawberry.extensions import SchemaExtension

from app.services.lists.validation import is_text

MOST_NODES: Final = 3_000
"""Number of selections after which a document is left to graphql-core, which visits each fragment once."""

_CONDITIONS: Final = {each.name: each.args for each in specified_directives if each.name in {"skip", "include"}}
_Seen = dict[str, tuple[FieldNode, object]]
"""The fields of one object in a response, by key, with their types: selections of fragments are merged into it."""


class PlainDocuments(SchemaExtension):
    """Skips graphql-core's validation of documents that are plainly valid. Runs right before it."""

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        document = context.graphql_document
        if document is not None and context.pre_execution_errors is None:
            schema: GraphQLSchema = context.schema._schema
            context.pre_execution_errors = [] if is_plainly_valid(schema, document) else None
        yield


def is_plainly_valid(schema: GraphQLSchema, document: DocumentNode) -> bool:
    """Whether a document is valid for certain. False says nothing."""
    try:
        _Walk(schema, document).check()
    except Exception:
        # A doubt, or a value that the checks did not expect.
        return False
    return True


class _Doubt(Exception):
    """Something unusual, which graphql-core must judge."""


def _need(condition: object) -> None:
    if not condition:
        raise _Doubt


class _Walk:
    """The walk through the only operation of a document, and through the fragments where they are spread."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode) -> None:
        operations, fragments = [], []
        for node in document.definitions:
            if isinstance(node, OperationDefinitionNode):
                operations.append(node)
            elif isinstance(node, FragmentDefinitionNode):
                fragments.append(node)
            else:
                raise _Doubt
        (self._operation,) = operations
        self._schema = schema
        self._fragments = {node.name.value: node for node in fragments}
        _need(len(self._fragments) == len(fragments))
        self._variables: dict[str, VariableDefinitionNode] = {}
        self._used: set[str] = set()
        self._spread: set[str] = set()
        self._nodes = 0

    def check(self) -> None:
        """Raises `_Doubt`, or any other exception for a document that is not plainly valid."""
        operation = self._operation
        root = self._schema.get_root_type(operation.operation)
        _need(root is not None and operation.operation is not OperationType.SUBSCRIPTION and not operation.directives)
        for definition in operation.variable_definitions or ():
            self._define(definition)
        for fragment in self._fragments.values():
            _need(not fragment.directives and not fragment.variable_definitions)
        if root is not None:
            self._selections(root, operation.selection_set, {}, ())
        _need(self._used == self._variables.keys() and self._spread == self._fragments.keys())

    def _define(self, definition: VariableDefinitionNode) -> None:
        name, type_ = definition.variable.name.value, type_from_ast(self._schema, definition.type)
        _need(name not in self._variables and is_input_type(type_) and not definition.directives)
        self._variables[name] = definition
        if definition.default_value is not None:
            self._value(definition.default_value, type_)

    # ---------------------------------------------------------------- selections

    def _selections(
        self, parent: GraphQLCompositeType, selected: SelectionSetNode, seen: _Seen, within: tuple[str, ...]
    ) -> None:
        """Checks a selection on `parent`, `within` fragments of these names."""
        for node in selected.selections:
            self._nodes += 1
            _need(self._nodes <= MOST_NODES)
            self._conditions(node.directives)
            if isinstance(node, FieldNode):
                self._field(parent, node, seen, within)
            elif isinstance(node, FragmentSpreadNode):
                name = node.name.value
                _need(name not in within and not node.arguments)
                self._spread.add(name)
                fragment = self._fragments[name]
                self._on(parent, fragment.type_condition, fragment.selection_set, seen, (*within, name))
            elif isinstance(node, InlineFragmentNode):
                self._on(parent, node.type_condition, node.selection_set, seen, within)
            else:
                raise _Doubt

    def _on(
        self,
        parent: GraphQLCompositeType,
        condition: NamedTypeNode | None,
        selected: SelectionSetNode,
        seen: _Seen,
        within: tuple[str, ...],
    ) -> None:
        """Checks the selection of a fragment with this type condition."""
        type_: Any = parent if condition is None else self._schema.get_type(condition.name.value)
        _need(is_composite_type(type_) and (type_ is parent or do_types_overlap(self._schema, type_, parent)))
        self._selections(type_, selected, seen, within)

    def _field(self, parent: GraphQLCompositeType, node: FieldNode, seen: _Seen, within: tuple[str, ...]) -> None:
        name, key = node.name.value, (node.alias or node.name).value
        if name == "__typename":
            _need(not node.arguments and node.selection_set is None)
            self._once(key, node, None, seen)
            return
        _need(isinstance(parent, GraphQLObjectType | GraphQLInterfaceType))
        field: GraphQLField = parent.fields[name]  # type: ignore[union-attr]
        self._arguments(field.args, node.arguments)
        type_ = get_named_type(field.type)
        if is_leaf_type(type_):
            _need(node.selection_set is None)
            self._once(key, node, field.type, seen)
            return
        # Selections of the same field twice would have to be merged.
        _need(key not in seen and is_composite_type(type_) and node.selection_set is not None)
        seen[key] = node, field.type
        if node.selection_set is not None:
            self._selections(type_, node.selection_set, {}, within)  # type: ignore[arg-type]

    def _once(self, key: str, node: FieldNode, type_: object, seen: _Seen) -> None:
        """Adds a field without a selection; the same field may be there already."""
        earlier, earlier_type = seen.setdefault(key, (node, type_))
        if earlier is not node:
            _need(str(earlier_type) == str(type_) and earlier.name.value == node.name.value)
            _need(not earlier.arguments and not node.arguments)

    def _conditions(self, directives: Iterable[DirectiveNode] | None) -> None:
        names = []
        for directive in directives or ():
            names.append(directive.name.value)
            self._arguments(_CONDITIONS[directive.name.value], directive.arguments)
        _need(len(names) == len(set(names)))

    # ---------------------------------------------------------------- values

    def _arguments(self, declared: Mapping[str, GraphQLArgument], nodes: Iterable[ArgumentNode] | None) -> None:
        names = self._named(declared, nodes or ())
        _need(all(name in names or not is_required_argument(argument) for name, argument in declared.items()))

    def _input(self, declared: Mapping[str, GraphQLInputField], nodes: Iterable[ObjectFieldNode]) -> None:
        names = self._named(declared, nodes)
        _need(all(name in names or not is_required_input_field(field) for name, field in declared.items()))

    def _named(
        self,
        declared: Mapping[str, GraphQLArgument | GraphQLInputField],
        nodes: Iterable[ArgumentNode | ObjectFieldNode],
    ) -> set[str]:
        """Checks arguments, or the fields of an input object: each is declared, and there once. Returns their names."""
        names = set[str]()
        for node in nodes:
            name = node.name.value
            _need(name not in names)
            names.add(name)
            self._value(node.value, declared[name].type)
        return names

    def _value(self, node: ValueNode, type_: Any) -> None:
        if isinstance(node, VariableNode):
            self._variable(node, type_)
            return
        _need(not isinstance(node, NullValueNode))
        if isinstance(type_, GraphQLNonNull):
            type_ = type_.of_type
        if isinstance(type_, GraphQLList):
            for item in node.values if isinstance(node, ListValueNode) else (node,):
                self._value(item, type_.of_type)
        elif isinstance(type_, GraphQLInputObjectType):
            _need(isinstance(node, ObjectValueNode) and not type_.is_one_of)
            self._input(type_.fields, node.fields if isinstance(node, ObjectValueNode) else ())
        else:
            _need(not isinstance(node, ListValueNode | ObjectValueNode))
            _need(not isinstance(node, StringValueNode) or is_text(node.value))
            validate_input_literal(node, type_, _doubt)

    def _variable(self, node: VariableNode, type_: Any) -> None:
        name = node.name.value
        definition = self._variables[name]
        self._used.add(name)
        declared: Any = type_from_ast(self._schema, definition.type)
        _need(allowed_variable_usage(self._schema, declared, definition.default_value, type_, Undefined))


def _doubt(_error: GraphQLError, _path: object) -> None:
    raise _Doubt
