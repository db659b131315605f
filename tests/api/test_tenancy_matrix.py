"""Tenancy, generated from the schema: whatever a call asks for, it is as if no other tenant were there.

Another sandbox and another organisation hold one of each. Every query answers them the same before and after a third
tenant is filled.
"""

import json
from typing import Any

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    GraphQLUnionType,
    Undefined,
    get_named_type,
)

from app.api.context import Limits
from app.api.global_ids import split_id
from app.api.schema import build_schema
from tests.api.conftest import Api

SCHEMA: GraphQLSchema = build_schema(Limits())._schema
MARK = "marigold"
"""In every name and value of the tenant that must not be seen."""
ABSENT = "01900000-0000-7000-8000-000000000001"


class Tenant(Api):
    """One of each, under names with `mark`."""

    def __init__(self, api: Api, organisation: str, sandbox: str, mark: str) -> None:
        super().__init__(api.http, api.services, sandbox)
        self.headers = {"x-gw-ims-org-id": organisation, "x-sandbox-name": sandbox}
        self.mark = mark
        self.ids: dict[str, str] = {}

    async def fill(self) -> None:
        mark, csv = self.mark, f"customer,when,shade\n{self.mark}1,2026-01-01T10:00:00Z,{self.mark}\n".encode()
        self.ids["Dataset"] = await self.dataset(f"{mark} purchases")
        batch = (await self.upload(self.ids["Dataset"], csv)).json()["data"]["uploadBatch"]
        assert batch["errors"] == []
        self.ids["Batch"] = batch["batch"]["batchId"]
        self.ids["Profile"] = f"crm:{mark}1"
        folder = self.ids["Folder"] = await self._make("createFolder", "folder", "folderId", namespace="AEPSegments")
        self.ids["Folder#child"] = await self._make(
            "createFolder", "folder", "folderId", name=f"{mark} child", namespace="AEPSegments", parentId=folder
        )
        policy = self.ids["MergePolicy"] = await self._make(
            "createMergePolicy", "mergePolicy", "mergePolicyId", method="TIMESTAMP_ORDERED", identityGraph="NONE"
        )
        within = {"expression": "xEvent.count() > 0", "mergePolicyId": policy, "folderId": folder}
        definition = await self._make("createSegmentDefinition", "definition", "segmentId", **within)
        self.ids["Audience"] = self.ids["SegmentDefinition"] = definition
        for name in ("external", "second"):
            external = {"type": "EXTERNAL_SEGMENT", "audienceId": f"{mark}-{name}", "name": f"{mark} {name}"}
            self.ids[f"Audience#{name}"] = await self._make("createAudience", "audience", "audienceId", **external)
        self.ids["Preview"] = self.ids["Estimate"] = await self.preview("xEvent.count() > 0")
        schedule = {"audienceIds": [definition], "type": "BATCH_SEGMENTATION", "cronExpression": "0 0 2 ? * MON"}
        self.ids["Schedule"] = await self._make("createSchedule", "schedule", "scheduleId", **schedule)
        self.ids["SegmentJob"] = await self.start()
        trigger = "mutation ($id: ID!) { triggerSchedule(id: $id) { errors { message } } }"
        assert (await self.query(trigger, id=self.ids["Schedule"]))["triggerSchedule"]["errors"] == []
        destination = self.ids["Dataset#export"] = await self.export_dataset(f"{mark} exports")
        export: dict[str, Any] = {"destination": {"datasetId": destination}, "schemaName": "_xdm.context.profile"}
        export |= {"filter": {"segments": [{"segmentId": definition}]}, "evaluateFirst": True}
        self.ids["ExportJob"] = await self._make("createExportJob", "job", "jobId", name=None, **export)
        person = {"namespace": "crm", "id": f"{mark}9"}
        self.ids["ErasureJob"] = await self._make("eraseProfile", "job", "jobId", name=None, identity=person)
        key = await self._make("createApiKey", "apiKey", "id", permissions=["read"])
        self.ids["ApiKey"] = split_id(key)[1]

    async def _make(self, mutation: str, field: str, id_name: str, **values: Any) -> str:
        kind = f"{mutation[0].upper()}{mutation[1:]}Input"
        document = f"mutation ($input: {kind}!) {{ it: {mutation}(input: $input) {{ "
        document += f"{field} {{ {id_name} }} errors {{ message }} }} }}"
        given = {"name": f"{self.mark} {field}", **values}
        given = {name: value for name, value in given.items() if value is not None}
        payload = (await self.query(document, input=given))["it"]
        assert payload["errors"] == []
        id_: str = payload[field][id_name]
        return id_

    async def text(self, document: str, **variables: Any) -> str:
        """The whole answer as text, with `data` and errors, without times that pass meanwhile."""
        return json.dumps(await self.answer(document, **variables), sort_keys=True)


# ---------------------------------------------------------------- calls from the schema


def literal(type_: Any) -> str:
    """A literal for an argument that must be given."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return f"[{literal(type_.of_type)}]"
    if isinstance(type_, GraphQLInputObjectType):
        return "{" + required(type_.fields) + "}"
    if isinstance(type_, GraphQLEnumType):
        return str(next(iter(type_.values)))
    plain = {"Boolean": "true", "Int": "1", "BigInt": "1", "Float": "1", "JSON": "{}", "ID": f'"{ABSENT}"'}
    return plain.get(type_.name, '"2026-01-01T00:00:00Z"' if type_.name == "DateTime" else f'"{MARK}"')


def required(fields: Any, chosen: dict[str, str] | None = None) -> str:
    """What must be given, by the values that were chosen where they are needed."""
    parts = {
        name: literal(one.type)
        for name, one in fields.items()
        if isinstance(one.type, GraphQLNonNull) and one.default_value in (None, Undefined)
    }
    parts |= {name: value for name, value in (chosen or {}).items() if name in fields}
    return ", ".join(f"{name}: {value}" for name, value in parts.items())


def selection(type_: Any, depth: int = 2) -> str:
    """Every field of a type, with the objects behind it to some depth."""
    if isinstance(type_, GraphQLUnionType):
        return " { __typename }"
    if not isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
        return ""
    parts = ["__typename"]
    for name, field in type_.fields.items():
        inner = get_named_type(field.type)
        plain = not isinstance(inner, GraphQLObjectType | GraphQLInterfaceType | GraphQLUnionType)
        if plain or (depth > 0 and name not in {"edges", "pageInfo"}):
            arguments = required(field.args)
            further = depth if name == "nodes" else depth - 1
            parts.append(f"{name}{f'({arguments})' if arguments else ''}{selection(inner, further)}")
    return " { " + " ".join(parts) + " }"


def documents(root: Any, depth: int) -> dict[str, str]:
    """Each root field by itself, with what must be given."""
    calls = {}
    for name, field in root.fields.items():
        arguments = required(field.args)
        call = f"{name}{f'({arguments})' if arguments else ''}{selection(get_named_type(field.type), depth)}"
        calls[name] = f"{{ {call} }}"
    return calls


QUERIES = documents(SCHEMA.query_type, 1)
HINTS = [f'"{MARK[:-1]}"', f'"{MARK}1"', '"xEvent.shad"', '"shade"', f"\"inSegment('{MARK}"]
"""Texts that complete or correct to what only the owner has: half a name, an id, a field, half a reference."""
QUERIES |= {
    f"{name} with {hint}": QUERIES[name].replace(f'"{MARK}"', hint)
    for name in documents(SCHEMA.query_type, 1)
    if f'"{MARK}"' in QUERIES[name]
    for hint in HINTS
}
# ---------------------------------------------------------------- tests


@pytest.fixture
def limits() -> Limits:
    """Here every field is asked for at once."""
    return Limits(max_cost=10**9)


@pytest.fixture
async def others(api: Api) -> list[Tenant]:
    """Those who call: another sandbox, and another organisation with the same name of a sandbox."""
    tenants = [Tenant(api, "acme", "dev", "lavender"), Tenant(api, "globex", "prod", "oregano")]
    for tenant in tenants:
        await tenant.fill()
    return tenants


@pytest.mark.timeout(600)
async def test_every_query_answers_as_if_nobody_else_were_there(api: Api, others: list[Tenant]) -> None:
    before = [{name: await one.text(query) for name, query in QUERIES.items()} for one in others]
    owner = Tenant(api, "acme", "prod", MARK)
    await owner.fill()
    for one, answers in zip(others, before, strict=True):
        for name, query in QUERIES.items():
            if name.split()[0] in {"apiKeys", "viewer"} and one.headers["x-gw-ims-org-id"] == "acme":
                continue  # keys and the list of sandboxes belong to the whole organisation
            assert await one.text(query) == answers[name], name
    seen = [name for name, query in QUERIES.items() if MARK in (await owner.text(query)).replace(f'"{MARK}"', "")]
    assert {"audiences", "datasets", "folders", "schedules", "mergePolicies", "search"} <= set(seen), "it can be seen"
