"""Permissions: the table covers the whole schema, and a refused call runs nothing."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    Undefined,
    get_named_type,
)

from app.api.context import Limits
from app.api.permissions import NEEDS, VERBS, is_permission, uncovered
from app.api.schema import build_schema
from app.scope import EVERYTHING
from app.services.access import authentication
from app.services.access.identity import ANONYMOUS
from tests.api.conftest import Api
from tests.api.test_tenants import EVERYTHING as ALL_LISTS
from tests.api.test_tenants import Mine

SCHEMA: GraphQLSchema = build_schema(Limits())._schema

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Holding = Callable[..., None]


@pytest.fixture
def holding(monkeypatch: pytest.MonkeyPatch) -> Holding:
    """Gives the caller these permissions and no others."""

    def hold(*permissions: str) -> None:
        caller = dataclasses.replace(ANONYMOUS, permissions=frozenset(permissions))
        monkeypatch.setattr(authentication, "ANONYMOUS", caller)

    return hold


def test_the_table_covers_the_whole_schema(database_url: str) -> None:
    assert list(uncovered(SCHEMA)) == []


def test_a_field_without_an_entry_is_named(monkeypatch: pytest.MonkeyPatch, database_url: str) -> None:
    monkeypatch.delitem(NEEDS, "Mutation.createFolder")
    monkeypatch.delitem(NEEDS, "Profile")
    (mutation, type_) = uncovered(SCHEMA)
    assert mutation.startswith('Mutation.createFolder has no permission: add `"Mutation.createFolder": "<resource>:')
    assert "app/api/permissions.py" in mutation
    assert type_.startswith("Profile has no permission")


def test_every_entry_is_a_permission(database_url: str) -> None:
    assert all(is_permission(need) and ":" in need for needs in NEEDS.values() for need in needs.split())


def selection(field: GraphQLField) -> str:
    type_ = get_named_type(field.type)
    return " { __typename }" if hasattr(type_, "fields") else ""


def value(type_: Any) -> str:
    """The shortest literal that is valid for an argument."""
    if isinstance(type_, GraphQLNonNull):
        type_ = type_.of_type
    if isinstance(type_, GraphQLList):
        return "[]"
    if isinstance(type_, GraphQLInputObjectType):
        return "{" + arguments(type_.fields) + "}"
    if hasattr(type_, "values"):
        return str(next(iter(type_.values)))
    return {"Boolean": "true", "Int": "1", "DateTime": '"2026-01-01T00:00:00Z"', "JSON": "{}"}.get(type_.name, '"x"')


def arguments(fields: Any) -> str:
    required = {name: one for name, one in fields.items() if isinstance(one.type, GraphQLNonNull)}
    return ", ".join(f"{name}: {value(one.type)}" for name, one in required.items() if one.default_value in _UNSET)


_UNSET = (None, Undefined)


def call(field_name: str, field: GraphQLField) -> str:
    given = arguments(field.args)
    return f"{field_name}{f'({given})' if given else ''}"


# Files come by multipart, and are tried in test_tenants.
MUTATIONS = {name: field for name, field in SCHEMA.mutation_type.fields.items() if name != "uploadBatch"}  # type: ignore[union-attr]
QUERIES = {name: field for name, field in SCHEMA.query_type.fields.items() if NEEDS[f"Query.{name}"]}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", QUERIES)
async def test_each_query_by_each_permission(api: Api, holding: Holding, name: str) -> None:
    needs = NEEDS[f"Query.{name}"].split()
    document = f"{{ {call(name, QUERIES[name])}{selection(QUERIES[name])} }}"
    for verb in sorted(VERBS):
        holding(verb)
        answer = await api.answer(document)
        codes = [error.get("extensions", {}).get("code") for error in answer.get("errors", ())]
        if all(need.endswith(f":{verb}") for need in needs):
            assert "FORBIDDEN" not in codes, answer
        else:
            assert set(codes) == {"FORBIDDEN"}, answer
            assert "data" not in answer
    for missing in needs:
        holding(*(need for need in needs if need != missing))
        (error,) = (await api.answer(document))["errors"]
        assert error["extensions"] == {"code": "FORBIDDEN", "path": [name]}
        assert f"Query.{name} needs the permission {missing}, and the caller has " in error["message"]
    holding(*needs)
    answer = await api.answer(document)
    assert all(error["extensions"]["code"] != "FORBIDDEN" for error in answer.get("errors", ()))


@pytest.mark.parametrize("name", MUTATIONS)
async def test_each_mutation_by_each_permission(api: Api, holding: Holding, name: str) -> None:
    (need,) = NEEDS[f"Mutation.{name}"].split()
    document = f"mutation {{ done: {call(name, MUTATIONS[name])} {{ errors {{ code message path }} }} }}"
    before = await api.query(ALL_LISTS)
    for verb in sorted(VERBS - {need.rpartition(":")[2]}):
        holding(verb)
        answer = await api.answer(document)
        message = f"Mutation.{name} needs the permission {need}, and the caller has {verb}: "
        message += "use a token or key that carries it"
        assert answer["data"] == {"done": {"errors": [{"code": "FORBIDDEN", "message": message, "path": []}]}}
    holding(*EVERYTHING)
    assert await api.query(ALL_LISTS) == before
    holding(need)
    done = (await api.answer(document))["data"]["done"]
    assert all(error["code"] != "FORBIDDEN" for error in done["errors"])


async def test_a_refused_mutation_beside_an_allowed_one(api: Api, holding: Holding) -> None:
    holding("folders:write", "folders:read")
    document = """mutation {
      a: createFolder(input: {name: "a", namespace: "N"}) { folder { name } errors { code } }
      b: deleteDataset(input: {id: "x"}) { deletedId errors { code } }
      c: createFolder(input: {name: "c", namespace: "N"}) { folder { name } errors { code } } }"""
    assert await api.query(document) == {
        "a": {"folder": {"name": "a"}, "errors": []},
        "b": {"deletedId": None, "errors": [{"code": "FORBIDDEN"}]},
        "c": {"folder": {"name": "c"}, "errors": []},
    }


async def test_what_was_written_is_shown_and_nothing_behind_it(api: Api, holding: Holding) -> None:
    holding("folders:write")
    plain = 'mutation { createFolder(input: {name: "a", namespace: "N"}) { folder { name } errors { code } } }'
    assert (await api.query(plain))["createFolder"] == {"folder": {"name": "a"}, "errors": []}
    further = plain.replace('"a"', '"b"').replace("{ name }", "{ parent { name } }")
    payload = (await api.query(further))["createFolder"]
    assert payload == {"folder": None, "errors": [{"code": "FORBIDDEN"}]}
    holding(*EVERYTHING)
    again = plain.replace('"a"', '"b"')
    assert (await api.query(again))["createFolder"]["errors"] == [], "the refused call had made nothing"


PEOPLE = "audiences { nodes { members { nodes { status profile { profileId } } } } }"


@pytest.mark.parametrize(
    "document",
    [
        f"{{ {PEOPLE} }}",
        f"query Q {{ ...F }} fragment F on Query {{ {PEOPLE} }}",
        f"query ($yes: Boolean = true) {{ {PEOPLE.replace('members', 'members @include(if: $yes)')} }}",
        "{ audiences { nodes { ...A } } } fragment A on Audience { ... on Audience { members { totalCount } } }",
        '{ audiences { nodes { difference(from: "2000-01-01T00:00:00Z", to: "2000-01-02T00:00:00Z") { enter } } } }',
        '{ node(id: "x") { ... on Profile { id } } }',
        '{ node(id: "UHJvZmlsZTpjcm06MDAwMDE=") { id } }',
    ],
)
async def test_a_right_to_one_resource_does_not_lead_to_another(api: Api, holding: Holding, document: str) -> None:
    await Mine(api).make()
    holding("audiences:read")
    answer = await api.answer(document)
    assert [error["extensions"]["code"] for error in answer["errors"]] == ["FORBIDDEN"] * len(answer["errors"])
    assert "00001" not in str(answer.get("data"))
    holding("audiences:read", "profiles:read")
    assert "errors" not in await api.answer(document)


async def test_what_is_skipped_needs_no_permission(api: Api, holding: Holding) -> None:
    holding("audiences:read")
    document = "query ($all: Boolean!) { audiences { totalCount } datasets @include(if: $all) { totalCount } }"
    assert await api.query(document, all=False) == {"audiences": {"totalCount": 0}}
    assert (await api.answer(document, all=True))["errors"][0]["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize(
    ("root", "need"), [("segmentJobs", "jobs:read"), ("exportJobs", "exports:read"), ("jobs", "jobs:read exports:read")]
)
async def test_a_fragment_on_an_interface_needs_what_the_type_it_is_spread_in_needs(
    api: Api, holding: Holding, root: str, need: str
) -> None:
    holding(*need.split())
    for spread, fragment in (
        ("...Line", "fragment Line on Job { jobId ... on Node { id } }"),
        ("... on Job { jobId }", ""),
        ("... on Node { ... on Job { jobId } }", ""),
    ):
        document = f"{{ {root} {{ nodes {{ {spread} }} }} }} {fragment}"
        assert await api.query(document) == {root: {"nodes": []}}
    holding("audiences:read", "schedules:read")
    document = f"{{ {root} {{ nodes {{ ... on Job {{ jobId }} }} }} }}"
    assert {error["extensions"]["code"] for error in (await api.answer(document))["errors"]} == {"FORBIDDEN"}


async def test_a_fragment_in_a_payload_needs_nothing_of_its_own(api: Api, holding: Holding) -> None:
    await Mine(api).make()
    holding("jobs:run")
    fields = "createSegmentJob(input: {allDefinitions: true}) { job { %s } errors { code } }"
    for line in ("...Line", "... on Job { status }", "... on SegmentJob { ... on Node { id } status }"):
        fragment = "fragment Line on Job { status }" if line == "...Line" else ""
        payload = (await api.query(f"mutation {{ {fields % line} }} {fragment}"))["createSegmentJob"]
        assert payload["errors"] == [], line
    further = await api.query(
        f"mutation {{ {fields % '... on SegmentJob { segments { nodes { definition { name } } } }'} }}"
    )
    assert further["createSegmentJob"] == {"job": None, "errors": [{"code": "FORBIDDEN"}]}


async def test_an_interface_does_not_lead_to_a_type_of_another_permission(api: Api, holding: Holding) -> None:
    """The same fragment needs more where it is spread in more."""
    holding("jobs:run", "schedules:run")
    spread = """mutation { createSegmentJob(input: {allDefinitions: true}) { job { ...Line } errors { code } }
      triggerSchedule(id: "x") { job { ...Line } errors { code } } } fragment Line on SegmentJob { status }"""
    payload = await api.query(spread)
    assert payload["triggerSchedule"]["errors"] == [{"code": "FORBIDDEN"}]
    holding("jobs:read")
    fragment = "fragment Line on Job { jobId ... on ExportJob { destination { name } } }"
    both = f"{{ segmentJobs {{ nodes {{ ...Line }} }} jobs {{ nodes {{ ...Line }} }} }} {fragment}"
    assert {tuple(error["extensions"]["path"]) for error in (await api.answer(both))["errors"]} >= {("jobs",)}


async def test_fragments_that_multiply_are_walked_once(api: Api, holding: Holding) -> None:
    holding("audiences:read")
    parts = [f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60)]
    document = " ".join(["{ ...F0 }", *parts, "fragment F60 on Query { datasets { totalCount } }"])
    assert (await api.answer(document))["errors"][0]["extensions"]["code"] == "FORBIDDEN"


async def test_a_fragment_on_an_unknown_type_is_named(api: Api, holding: Holding) -> None:
    holding("audiences:read")
    answer = await api.answer("{ audiences { ... on Nope { ... { totalCount } } } }")
    assert [error["message"] for error in answer["errors"]] == ["Unknown type 'Nope'. Did you mean 'Node'?"]


def test_the_page_has_every_permission(database_url: str) -> None:
    page = (Path(__file__).parents[2] / "app" / "docs" / "security.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| ", page, re.MULTILINE)
    described = {f"{resource}:{verb}" for resource, verbs in rows for verb in verbs.split(", ") if verb in VERBS}
    assert described == {need for needs in NEEDS.values() for need in needs.split()} | {"metrics:read"}


async def test_without_folders_a_search_finds_audiences_and_tells_nothing_of_folders(
    api: Api, holding: Holding
) -> None:
    await api.loaded()
    create = """mutation { createFolder(input: {name: "Big plans", namespace: "AEPSegments"}) { folder { id } } }"""
    folder = (await api.query(create))["createFolder"]["folder"]["id"]
    audience = await api.define("Big spenders")
    move = "mutation ($input: UpdateAudienceInput!) { updateAudience(input: $input) { errors { message } } }"
    assert (await api.query(move, input={"id": audience, "folderId": folder}))["updateAudience"]["errors"] == []
    found = "query ($term: String!) { search(term: $term) { totalCount nodes { name } error { message } } }"
    counted = 'query { searchNamespaces(term: "big") { total } }'
    inside = 'query ($id: ID) { search(term: "", folderId: $id) { totalCount } }'
    both = {"totalCount": 2, "nodes": [{"name": "Big plans"}, {"name": "Big spenders"}], "error": None}
    holding("audiences:read", "folders:read")
    assert (await api.query(found, term="big"))["search"] == both
    assert (await api.query(found, term="folderLocation:plans"))["search"] == both
    assert (await api.query(counted))["searchNamespaces"] == {"total": 2}
    holding("audiences:read")
    one = {"totalCount": 1, "nodes": [{"name": "Big spenders"}], "error": None}
    assert (await api.query(found, term="big"))["search"] == one
    assert (await api.query(counted))["searchNamespaces"] == {"total": 1}
    for field in ("folderLocation", "folderId", "parentFolderId"):
        hidden = (await api.query(found, term=f"{field}:plans"))["search"]
        assert (hidden["totalCount"], hidden["error"]["message"].partition(";")[0]) == (
            0,
            f"there is no field '{field}'",
        )
    (error,) = (await api.answer(inside, id=folder))["errors"]
    assert error["extensions"]["code"] == "FORBIDDEN"
    assert "looking in a folder needs the permission folders:read" in error["message"]
