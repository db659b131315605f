"""Ids of other tenants, in every argument that takes one: each answer is that to an id which nobody has.

The places are found in the schema: arguments, fields of inputs and items of lists, of every query, mutation and
subscription. A control asks with ids of its own, so that a place where no id can make a difference is seen.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLUnionType,
    Undefined,
    get_named_type,
)
from sqlalchemy import select
from sqlmodel import SQLModel

from app.api.context import Caller, Limits
from app.api.global_ids import global_id, split_id
from app.api.schema import build_schema
from app.scope import Scope
from tests.api.conftest import Api
from tests.api.test_tenancy_matrix import ABSENT, MARK, SCHEMA, Tenant, selection

# Tenants are kept apart by the same conditions on both databases, which `test_tenancy_matrix` shows.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SERVED = build_schema(Limits())

Place = tuple[str, str, tuple[str, ...]]
"""Kind of operation, root field, and the way to the id in its arguments."""

NAMED_OTHERWISE = {"segmentId": "Audience", "definitionIds": "SegmentDefinition", "parentId": "Folder",
                   "destinationId": "Dataset", "flowId": "Audience", "aoWorkflowId": "Audience",
                   "taxonomy": "Folder", "addScheduleAudiences": "Schedule",
                   "removeScheduleAudiences": "Schedule"}  # fmt: skip
"""Arguments, and root fields with an `id`, that are not named after the type whose ids they take."""
TEXTS = {"expression": "xEvent.count() > 0", "where": "true", "cronExpression": "0 30 2 ? * MON-FRI", "term": "*",
         "schemaName": "_xdm.context.profile", "column": "customer"}  # fmt: skip
PLAIN = {"Boolean": True, "Int": 1, "BigInt": 1, "Float": 1, "JSON": {}, "DateTime": "2030-01-01T00:00:00Z"}
BESIDES: dict[tuple[str, str], dict[str, Any]] = {
    ("createAudience", ""): {"expression": "true"},
    ("createAudience", "datasetId"): {"type": "EXTERNAL_SEGMENT"},
    ("createAudience", "audienceId"): {"type": "EXTERNAL_SEGMENT"},
    ("replaceAudience", ""): {"expression": "true"},
    ("replaceAudience", "datasetId"): {"type": "EXTERNAL_SEGMENT"},
    ("replaceAudience", "audienceId"): {"type": "EXTERNAL_SEGMENT"},
}
"""What a call needs besides, by root field and id, so that the id is looked at."""
NEW_IDS = {("createAudience", ("input", "audienceId"))}
EXTERNAL = {("updateAudience", "datasetId"), ("replaceAudience", "datasetId")}
"""Where the caller's own audience must be an external one."""
_numbers = count()


def places() -> Iterator[Place]:
    roots = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
    for kind, root in roots.items():
        assert root is not None
        for name, field in root.fields.items():
            for path in _ids(field.args, ()):
                yield kind, name, path


def _ids(fields: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for name, field in fields.items():
        type_: Any = get_named_type(field.type)
        here = (*path, name)
        if isinstance(type_, GraphQLInputObjectType):
            if name not in path:
                yield from _ids(type_.fields, here)
        elif type_.name == "ID" or (type_.name == "String" and re.search(r"^ids?$|Ids?$", name)):
            yield here


PLACES = list(places())


def candidates(root: str, path: Sequence[str], ids: dict[str, str]) -> dict[str, str]:
    """Ids, by type, that might be meant at a place: by its name, or by that of the root field."""
    name = path[-1]
    if name == "id" and len(path) > 1 and path[-2] in {"profile", "identity", "person"}:
        return {"": ids["Profile"].partition(":")[2]}
    asked = name if name not in {"id", "ids"} else root
    asked = NAMED_OTHERWISE.get(asked, asked).lower()
    if name == "destinationId" or tuple(path[-2:]) == ("destination", "datasetId"):
        return {"Dataset#export": ids["Dataset#export"]}
    if (root, tuple(path)) in NEW_IDS:
        return {"Audience#second": ids["Audience#second"]}
    if root == "deleteAudience":  # the other one is deleted as a definition
        return {"Audience#external": ids["Audience#external"]}
    named = [type_ for type_ in ids if type_.lower() in asked or f"{type_.lower()[:-1]}ies" in asked]
    return {max(named, key=len): ids[max(named, key=len)]} if named else ids


class Call:
    """Makes the arguments of a root field: those that must be given, and those on the way to an id. Other ids are
    those of the caller's own objects."""

    def __init__(self, root: str, leaf: str, own: dict[str, str]) -> None:
        self._root, self._leaf, self._own = root, leaf, own

    def arguments(self, fields: Any, path: Sequence[str], value: Any, at: tuple[str, ...] = ()) -> dict[str, Any]:
        made = {}
        for name, field in fields.items():
            if path and name == path[0]:
                made[name] = self._on_the_way(field.type, path[1:], value, (*at, name))
            elif isinstance(field.type, GraphQLNonNull) and field.default_value in (None, Undefined):
                made[name] = self._any(field.type, (*at, name))
        return made

    def _on_the_way(self, type_: Any, path: Sequence[str], value: Any, at: tuple[str, ...]) -> Any:
        if isinstance(type_, GraphQLNonNull):
            return self._on_the_way(type_.of_type, path, value, at)
        if isinstance(type_, GraphQLList):
            items = [self._on_the_way(type_.of_type, path, value, at)]
            return [*items, {"expression": "true"}] if at[-1] == "people" else items
        if not path:
            return value
        made = self.arguments(type_.fields, path, value, at)
        besides = BESIDES.get((self._root, self._leaf), BESIDES.get((self._root, ""), {}))
        return {**{name: one for name, one in besides.items() if name in type_.fields}, **made}

    def _any(self, type_: Any, at: tuple[str, ...]) -> Any:
        if isinstance(type_, GraphQLNonNull):
            return self._any(type_.of_type, at)
        if isinstance(type_, GraphQLList):
            return [self._any(type_.of_type, at)] * (2 if at[-1] == "people" else 1)
        if isinstance(type_, GraphQLInputObjectType):
            made = self.arguments(type_.fields, (), None, at)
            return made or ({"expression": "true"} if "expression" in type_.fields else made)
        if isinstance(type_, GraphQLEnumType):
            return next(iter(type_.values))
        named = candidates(self._root, at, self._own)
        if (self._root, self._leaf) in EXTERNAL and at[-1] == "id":
            return self._own["Audience#external"]
        if at[-1] == "namespace":
            return "crm" if {"profile", "identity"} & set(at) else "AEPSegments"
        if type_.name == "ID" or (at[-1] == "id" and "" in named):
            return next(iter(named.values()))
        return PLAIN.get(type_.name, TEXTS.get(at[-1], f"name-{next(_numbers)}"))


def call(place: Place, value: str, own: dict[str, str]) -> tuple[str, dict[str, Any]]:
    """The document and variables of a call with the id `value` at the place."""
    kind, name, path = place
    roots = {"query": SCHEMA.query_type, "mutation": SCHEMA.mutation_type, "subscription": SCHEMA.subscription_type}
    root = roots[kind]
    assert root is not None
    field = root.fields[name]
    given = Call(name, path[-1], own).arguments(field.args, path, value)
    head = ", ".join(f"${one}: {field.args[one].type}" for one in given)
    arguments = ", ".join(f"{one}: ${one}" for one in given)
    return f"{kind} ({head}) {{ {name}({arguments}){_shown(kind, field.type)} }}", given


def _shown(kind: str, type_: Any) -> str:
    named: Any = get_named_type(type_)
    if kind == "query":
        return selection(named, 1)
    if not isinstance(named, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType):
        return ""
    if kind == "subscription" or isinstance(named, GraphQLUnionType):
        return " { __typename }"
    parts = [
        f"{name} {{ __typename }}"
        for name, one in named.fields.items()
        if name != "errors" and isinstance(get_named_type(one.type), GraphQLObjectType)
    ]
    return " { " + " ".join(parts) + " errors { code message path } }"


def plain(text: str, value: str) -> str:
    """An answer without the id, and without what differs between any two calls."""
    text = text.replace(json.dumps(value)[1:-1], "ID").replace(split_id(value)[1], "ID")
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[.\d]*(Z|\+00:00)?", "TIME", text)
    text = re.sub(r'"(id|etag|cursor|startCursor|endCursor)": "[^"]*"', r'"\1": ""', text)
    return re.sub(r"name-\d+|name\d+", "NAME", text)


async def answer(tenant: Tenant, place: Place, value: str) -> str:
    document, given = call(place, value, tenant.ids)
    if place[1] == "uploadBatch":
        response = await tenant.upload(value, b"customer,when,shade\n1,2026-01-01T10:00:00Z,x\n")
        return plain(response.text, value)
    if place[0] != "subscription":
        return plain(await tenant.text(document, **given), value)
    return plain(await first_item(tenant, document, given), value)


async def first_item(tenant: Tenant, document: str, given: dict[str, Any]) -> str:
    """The first item of a stream or the error that ends it; a stream that says nothing is given up soon."""
    headers = tenant.headers
    scope = Scope(headers["x-gw-ims-org-id"], headers["x-sandbox-name"], "anonymous")
    caller = Caller(tenant.services, scope=scope)
    stream = await SERVED.stream(document, variable_values=given, context_value=caller)
    try:
        async with asyncio.timeout(2):
            result = await anext(stream)
    except (TimeoutError, StopAsyncIteration) as silence:
        return type(silence).__name__
    finally:
        await stream.aclose()
    shown: Any = result
    return json.dumps([shown.data, [error.formatted for error in shown.errors or []]])


async def rows_of(tenant: Tenant) -> dict[str, list[Any]]:
    """Every row that is the tenant's, of every table."""
    organisation, sandbox = tenant.headers["x-gw-ims-org-id"], tenant.headers["x-sandbox-name"]
    contents = {}
    async with tenant.services.database.session() as session:
        for table in SQLModel.metadata.sorted_tables:
            if {"organisation", "sandbox"} <= set(table.columns.keys()):
                own = (table.c.organisation == organisation, table.c.sandbox == sandbox)
                rows = (await session.execute(select(table).where(*own))).all()
                contents[table.name] = sorted(map(repr, rows))
    return contents


def files_of(tenant: Tenant) -> dict[str, int]:
    """Every file of the tenant in the lake, with its time."""
    scope = Scope(tenant.headers["x-gw-ims-org-id"], tenant.headers["x-sandbox-name"], "anonymous")
    folder = tenant.services.lake.tenant(scope.tenant).folder
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}


async def differing(tenant: Tenant, owner: Tenant, chosen: Sequence[Place]) -> tuple[int, dict[Place, str]]:
    """How many calls were made with ids of `owner`, and the places where one was answered as no absent id is."""
    calls, unlike = 0, {}
    for place in chosen:
        for type_, raw in candidates(place[1], place[2], owner.ids).items():
            type_ = type_.partition("#")[0]
            # The id of a new audience is in use afterwards.
            nobody_yet = ABSENT if place[1:] not in NEW_IDS else ABSENT.replace("1", "2")
            absent = f"crm:{nobody_yet}" if type_ == "Profile" else nobody_yet
            forms = [(raw, absent)]
            forms += [(str(global_id(type_, raw)), str(global_id(type_, absent)))] if type_ else []
            for foreign, nobody in forms:
                expected = await answer(tenant, place, nobody)
                got = await answer(tenant, place, foreign)
                calls += 1
                if got != expected or (MARK in got and tenant is not owner):
                    unlike[place] = f"{foreign}: {got[:800]}\n  instead of {expected[:800]}"
    return calls, unlike


def last_what_ends(place: Place) -> tuple[bool, bool, bool]:
    """Places in an order that leaves objects there, and ids unused, for as long as they are asked for."""
    _, root, path = place
    ends = root.startswith(("delete", "revoke", "cancel"))
    return (root, path) in NEW_IDS, ends, root in {"deleteAudience", "deleteDataset"}


ORDERED = sorted(PLACES, key=last_what_ends)
SILENT = {("query", "exportJobs", ("filter", "scheduleId")), ("mutation", "eraseProfile", ("input", "identity", "id"))}
"""No export has been made by the tenant's schedule; and an erasure is accepted for whomever, there or not."""
FREE = {"flowId", "aoWorkflowId", "audienceFolderId"}
"""Ids of other systems, which are only kept."""


@pytest.fixture
def limits() -> Limits:
    return Limits(max_cost=10**9)


@pytest.mark.timeout(900)
async def test_no_id_of_another_tenant_makes_a_difference(api: Api) -> None:
    owner = Tenant(api, "acme", "prod", MARK)
    strangers = [Tenant(api, "acme", "dev", "lavender"), Tenant(api, "globex", "prod", "oregano")]
    for tenant in (owner, *strangers):
        await tenant.fill()
    before = await rows_of(owner), files_of(owner)
    own_ids = dict(owner.ids)
    for stranger in strangers:
        owner.ids = dict(own_ids)
        # Keys belong to the whole organisation.
        same = stranger.headers["x-gw-ims-org-id"] == "acme"
        chosen = [place for place in ORDERED if not (same and place[1] == "revokeApiKey")]
        if same:
            owner.ids.pop("ApiKey")
        calls, unlike = await differing(stranger, owner, chosen)
        assert calls > 200
        assert unlike == {}
    assert (await rows_of(owner), files_of(owner)) == before


@pytest.mark.timeout(900)
async def test_every_place_can_tell_an_id_that_is_there(api: Api) -> None:
    """The control: without it, a place where the call fails for another reason would pass for one that is tight."""
    own = Tenant(api, "acme", "prod", MARK)
    await own.fill()
    _, unlike = await differing(own, own, ORDERED)
    blind = [place for place in ORDERED if place not in unlike and place[2][-1] not in FREE and place not in SILENT]
    assert blind == [], "\n".join(map(str, blind))
