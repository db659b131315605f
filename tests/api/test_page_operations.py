"""The queries of the workplace: none costs more than the server allows, with the pages that the workplace asks for."""

import re
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    FieldNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    build_schema,
    is_input_type,
    parse,
    print_ast,
    separate_operations,
    type_from_ast,
)

from app.api.permissions import NEEDS
from tests.api.conftest import Api
from tests.api.test_permissions import Holding, holding

__all__ = ["holding"]

ROOT = Path(__file__).parents[2]
SCHEMA = build_schema((ROOT / "schema.graphql").read_text())
TEXT = "\n".join(
    path.read_text() for path in sorted((ROOT / "app" / "web" / "src" / "work" / "operations").glob("*.graphql"))
)
QUERIES = [
    definition
    for definition in parse(TEXT).definitions
    if isinstance(definition, OperationDefinitionNode) and definition.operation is OperationType.QUERY
]
DOCUMENTS = separate_operations(parse(TEXT))
FIRST = 50
"""The largest page that a view asks for by a variable."""

SCALARS = {"Int": FIRST, "ID": "nobody", "String": "true", "Boolean": True, "DateTime": "2026-01-01T00:00:00Z"}


def example(type_: GraphQLInputType) -> Any:
    """A value of a type; of an input object what it requires, or its first field."""
    if isinstance(type_, GraphQLNonNull):
        return example(type_.of_type)
    if isinstance(type_, GraphQLList):
        return [example(type_.of_type)] * 2
    if isinstance(type_, GraphQLEnumType):
        return next(iter(type_.values))
    if isinstance(type_, GraphQLInputObjectType):
        required = {name: field for name, field in type_.fields.items() if isinstance(field.type, GraphQLNonNull)}
        fields = required or dict(list(type_.fields.items())[:1])
        return {name: example(field.type) for name, field in fields.items()}
    return SCALARS[type_.name]


def variables_of(query: OperationDefinitionNode) -> dict[str, Any]:
    """What a query requires, and the size of its page."""
    variables = {}
    for definition in query.variable_definitions or ():
        type_ = type_from_ast(SCHEMA, definition.type)
        assert is_input_type(type_)
        if isinstance(type_, GraphQLNonNull) or definition.variable.name.value == "first":
            variables[definition.variable.name.value] = example(type_)
    return variables


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_the_queries_of_the_workplace_are_within_the_limits(api: Api) -> None:
    assert len(QUERIES) == 48
    for query in QUERIES:
        assert query.name is not None
        name = query.name.value
        body = {"query": print_ast(DOCUMENTS[name]), "operationName": name, "variables": variables_of(query)}
        answer = (await api.http.post("/graphql", json=body)).json()
        codes = {error.get("extensions", {}).get("code") for error in answer.get("errors") or []}
        assert codes <= {"NOT_FOUND", "INVALID_INPUT"}, (name, answer["errors"])
        assert answer["extensions"]["cost"]["requested"] <= answer["extensions"]["cost"]["limit"], name


READ = re.compile(r"read([A-Z])(\w*)")
"""The part of a variable's name that stands for a permission."""


def permissions_of(variable: str) -> list[str]:
    """`readJobs_readExports` stands for `jobs:read` and `exports:read`; none for any other variable."""
    parts = [READ.fullmatch(part) for part in variable.split("_")]
    return [f"{part[1].lower()}{part[2]}:read" for part in parts if part] if all(parts) else []


def root_needs(query: OperationDefinitionNode) -> set[str]:
    """What a query needs though it leaves out everything that it can."""
    roots = [node for node in query.selection_set.selections if isinstance(node, FieldNode) and not node.directives]
    below = [node for root in roots if root.selection_set for node in root.selection_set.selections]
    types = [node.type_condition for node in below if isinstance(node, InlineFragmentNode)]
    names = [f"Query.{node.name.value}" for node in roots] + [type_.name.value for type_ in types if type_]
    return {need for name in names for need in NEEDS[name].split()}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_query_needs_no_more_than_its_root_when_the_rest_is_left_out(api: Api, holding: Holding) -> None:
    for query in QUERIES:
        assert query.name is not None
        name, needs = query.name.value, root_needs(query)
        left_out = {
            definition.variable.name.value: permissions
            for definition in query.variable_definitions or ()
            if (permissions := permissions_of(definition.variable.name.value))
        }
        document = print_ast(DOCUMENTS[name])
        # By itself, and with each single permission more: each variable answers for what it is named after.
        for more in [[], *left_out.values()]:
            held = needs.union(more)
            holding(*held)
            switches = {variable: held.issuperset(permissions) for variable, permissions in left_out.items()}
            body = {"query": document, "operationName": name, "variables": variables_of(query) | switches}
            answer = (await api.http.post("/graphql", json=body)).json()
            assert "FORBIDDEN" not in str(answer.get("errors")), (name, held, answer["errors"])
