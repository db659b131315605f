"""The schema as clients see it."""

from pathlib import Path

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    get_named_type,
)

from app.api.global_ids import node_types
from app.api.schema import print_schema

COMMITTED = Path(__file__).parents[2] / "schema.graphql"


def test_schema_graphql_is_current() -> None:
    assert COMMITTED.read_text() == print_schema(), "run `segmentation schema > schema.graphql`"


def test_everything_has_a_description() -> None:
    bare = []
    for name, type_ in build_schema(print_schema()).type_map.items():
        if name.startswith("__") or name in {"String", "Int", "Float", "Boolean", "ID"}:
            continue
        members = {}
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType | GraphQLInputObjectType):
            members = dict(type_.fields)
        elif isinstance(type_, GraphQLEnumType):
            members = dict(type_.values)
        bare += [name] if not type_.description else []
        for member, field in members.items():
            bare += [f"{name}.{member}"] if not field.description else []
            arguments = getattr(field, "args", {})
            bare += [f"{name}.{member}({one})" for one, argument in arguments.items() if not argument.description]
    assert bare == []


def test_every_connection_pages_both_ways() -> None:
    arguments = {"first", "after", "last", "before"}
    forward_only, connections = [], 0
    for name, type_ in build_schema(print_schema()).type_map.items():
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            for member, field in type_.fields.items():
                if get_named_type(field.type).name.endswith("Connection"):
                    connections += 1
                    forward_only += [] if arguments <= set(field.args) else [f"{name}.{member}"]
    assert (connections, forward_only) == (36, [])


def test_every_node_type_can_be_fetched_by_its_id() -> None:
    schema = build_schema(print_schema())
    implementing = {type_.name for type_ in schema.get_implementations(schema.type_map["Node"]).objects}  # type: ignore[arg-type]
    assert implementing == set(node_types())
    assert all("fetch" in vars(type_) for type_ in node_types().values())
