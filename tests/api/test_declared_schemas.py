"""Datasets with a declared JSON Schema: fields before data, loads that follow it, and what cannot be declared."""

import json
from typing import Any

import pytest

from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Schemas are JSON to the database."""

CREATE = """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
  dataset { datasetId etag schema timestampColumn primaryIdentity { column namespace } fields { path type } }
  errors { code message path } } }"""
UPDATE = """mutation ($input: UpdateDatasetInput!) { updateDataset(input: $input) {
  dataset { name etag schema } errors { code message path } } }"""
DEFINE = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
  errors { message } } }"""
UPLOAD = """mutation ($file: Upload!, $id: ID!) { uploadBatch(input: {datasetId: $id, file: $file, format: CSV}) {
  batch { rowCount rejectedRows } rejected { row message } errors { message } } }"""
IDENTITY = {"column": "customer", "namespace": "crm"}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Orders",
    "type": "object",
    "properties": {
        "customer": {"type": "string"},
        "when": {"type": "string", "format": "date-time"},
        "zip": {"type": ["string", "null"], "meta:xdmType": "string"},
        "count": {"type": "integer"},
        "amount": {"type": "number"},
        "due": {"type": "string", "format": "date"},
        "prefs": {"type": "object", "additionalProperties": {"type": "string"}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    },
}


async def create(api: Api, schema: Any, **values: Any) -> dict[str, Any]:
    given = {"name": "orders", "kind": "EVENT", "primaryIdentity": IDENTITY, "timestampColumn": "when", **values}
    payload: dict[str, Any] = (await api.query(CREATE, input={**given, "schema": schema}))["createDataset"]
    return payload


async def upload(api: Api, id: str, text: str) -> dict[str, Any]:
    form = {
        "operations": json.dumps({"query": UPLOAD, "variables": {"file": None, "id": id}}),
        "map": json.dumps({"0": ["variables.file"]}),
    }
    headers = {"graphql-preflight": "1"}
    answer = await api.http.post("/graphql", data=form, files={"0": ("f.csv", text.encode())}, headers=headers)
    payload: dict[str, Any] = answer.json()["data"]["uploadBatch"]
    return payload


async def test_declared_fields_are_there_before_any_data(api: Api) -> None:
    made = await create(api, SCHEMA)
    assert made["errors"] == []
    dataset = made["dataset"]
    assert dataset["primaryIdentity"] == IDENTITY
    assert dataset["timestampColumn"] == "when"
    assert {field["path"]: field["type"] for field in dataset["fields"]} == {
        "xEvent.timestamp": "timestamp",
        "xEvent.customer": "string",
        "xEvent.zip": "string",
        "xEvent.count": "number",
        "xEvent.amount": "number",
        "xEvent.due": "date",
        "xEvent.prefs": "map<string>",
        "xEvent.lines.sku": "string",
    }
    shown = dataset["schema"]["properties"]
    assert shown["count"] == {"type": "integer"}
    assert shown["timestamp"] == {"type": "string", "format": "date-time"}
    assert shown["prefs"] == {"type": "object", "additionalProperties": {"type": "string"}}
    segment = 'xEvent.exists(prefs.get("k") = "v" and zip.startsWith("0")) and xEvent.sum(count) > 1'
    found = await api.query(DEFINE, input={"name": "a", "expression": segment})
    assert found["createSegmentDefinition"]["errors"] == []


async def test_loading_follows_the_declaration(api: Api) -> None:
    made = await create(api, SCHEMA)
    id_ = made["dataset"]["datasetId"]
    done = await upload(
        api,
        id_,
        "customer,when,zip,count,amount,due\n"
        "1,2026-01-01,01234,5,2.50,2026-02-01\n"
        "2,2026-01-01,90210,5.5,1,2026-02-01\n"
        "3,2026-01-01,90210,5,1,2026-02-01T10:00:00Z\n",
    )
    assert done["errors"] == []
    assert done["batch"] == {"rowCount": 1, "rejectedRows": 2}
    assert done["rejected"] == [
        {"row": 2, "message": 'count: "5.5" is not a whole number of 64 bits'},
        {"row": 3, "message": 'due: "2026-02-01T10:00:00Z" is not a date (YYYY-MM-DD)'},
    ]
    page = await api.query(
        'query { profile(identity: {namespace: "crm", id: "1"}) { events { nodes { attributes } } } }'
    )
    (event,) = page["profile"]["events"]["nodes"]
    assert event["attributes"]["zip"] == "01234"
    assert event["attributes"]["amount"] == 2.5


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": {"type": "string"}}, "schema: the schema of a row must be of type object"),
        ([], "schema: a schema must be an object"),
        (
            {"properties": {"a": {"type": "object", "properties": {"b": {"type": "string", "contains": 1}}}}},
            "schema/properties/a/properties/b/contains: the keyword 'contains' is not supported",
        ),
        ({"properties": {"a": {"$ref": "#/x"}}}, "schema/properties/a/$ref: there is no '#/x' in the schema"),
        ({"properties": {"a": {"type": ["string", "number"]}}}, "schema/properties/a/type: `type` must be one of"),
        ({"properties": {"a": {"type": "array"}}}, "schema/properties/a: an array needs `items`"),
        ({"properties": {"a": {"type": "object"}}}, "schema/properties/a: an object needs `properties`"),
        ({"properties": {"xEvent": {"type": "string"}}}, "schema/properties/xEvent: the name 'xEvent' is reserved"),
        ({"properties": {"customer": {"type": "integer"}}}, "'customer' is an id, read as text exactly as written"),
        ({"properties": {"when": {"type": "number"}}}, "'when' is the time of an event: declare it as a string"),
    ],
)
async def test_what_cannot_be_declared_is_rejected_by_name(api: Api, schema: Any, message: str) -> None:
    made = await create(api, schema)
    assert made["dataset"] is None
    assert made["errors"][0]["message"].startswith(message)
    assert made["errors"][0]["path"] == ["input", "schema"]
    assert (await api.query("query { datasets { totalCount } }"))["datasets"]["totalCount"] == 0


async def test_an_update_renames_and_widens(api: Api) -> None:
    made = (await create(api, None, name="people", kind="PROFILE", timestampColumn=None))["dataset"]
    await upload(api, made["datasetId"], "customer,n,day\n1,3,2026-01-01\n")
    schema = {"properties": {"n": {"type": "number"}, "more": {"type": "boolean"}}}
    changed = await api.query(
        UPDATE, input={"id": made["datasetId"], "etag": made["etag"], "name": "p", "schema": schema}
    )
    payload = changed["updateDataset"]
    assert payload["errors"] == []
    assert payload["dataset"]["name"] == "p"
    assert {name: one["type"] for name, one in payload["dataset"]["schema"]["properties"].items()} == {
        "customer": "string",
        "n": "number",
        "day": "string",
        "more": "boolean",
    }
    stale = await api.query(UPDATE, input={"id": made["datasetId"], "etag": made["etag"], "name": "q"})
    assert [error["code"] for error in stale["updateDataset"]["errors"]] == ["STALE_ETAG"]
    wrong = {"properties": {"n": {"type": "string"}}}
    refused = await api.query(UPDATE, input={"id": made["datasetId"], "schema": wrong})
    assert refused["updateDataset"]["errors"][0]["message"] == (
        "'n' holds data of the type number, which cannot become string: declare it as it is"
    )


async def test_without_data_another_declaration_replaces_the_first(api: Api) -> None:
    made = (await create(api, SCHEMA))["dataset"]
    schema = {"properties": {"count": {"type": "string"}}}
    changed = await api.query(UPDATE, input={"id": made["datasetId"], "schema": schema})
    assert [*changed["updateDataset"]["dataset"]["schema"]["properties"]] == ["timestamp", "count"]
