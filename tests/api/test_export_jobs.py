"""Export jobs over the API: started, refused, read with their batches, watched and cancelled."""

import asyncio
from typing import Any

import pytest

from app.api.global_ids import global_id
from tests.api.conftest import Api
from tests.support.databases import count_statements

SCHEMA = "_xdm.context.profile"
CREATE = """mutation ($input: CreateExportJobInput!) { createExportJob(input: $input) {
  job { id jobId status fields } errors { __typename code message path } } }"""
CANCEL = """mutation ($id: ID!) { cancelExportJob(id: $id) {
  job { status } errors { __typename code message path } } }"""
READ = """query ($id: ID!) { exportJob(id: $id) {
  id jobId status source runId attempts fields schemaName segmentPerBatch evaluateFirst
  filter { segments { segmentId namespace status audience { name } } segmentQualificationTime { start end }
    fromIngestTimestamp emptyProfiles }
  additionalFields { fields from to }
  mergePolicy { name } destination { name rowCount batches { nodes { batchId } } }
  evaluation { status segments { nodes { segmentId profileCount } } }
  progress { phase fraction profilesRead totalProfiles }
  errors { code message } createdBy
  batches { totalCount nodes { batchId status rowCount rejectedRows segmentIds } }
  metrics { totalTime { totalMs } profileExportTime { totalMs } totalExportedProfiles
    exportedProfilesByNamespace { namespace count } } } }"""


async def create(api: Api, dataset: str, **values: Any) -> dict[str, Any]:
    per_batch = values.pop("segmentPerBatch", False)
    destination = {"datasetId": dataset, "segmentPerBatch": per_batch}
    asked = {"destination": destination, "schemaName": SCHEMA, **values}
    payload: dict[str, Any] = (await api.query(CREATE, input=asked))["createExportJob"]
    return payload


async def ended(api: Api, job: str) -> dict[str, Any]:
    while True:
        found: dict[str, Any] = (await api.query(READ, id=job))["exportJob"]
        if found["status"] in {"SUCCEEDED", "FAILED", "CANCELLED"}:
            return found
        await asyncio.sleep(0.02)


async def test_an_export_waits_until_somebody_takes_it(api: Api) -> None:
    await api.loaded()
    made = await create(api, global_id("Dataset", await api.export_dataset()), fields=["identityMap"])
    assert made["errors"] == []
    found = (await api.query(READ, id=made["job"]["id"]))["exportJob"]
    assert found == {
        "id": global_id("ExportJob", found["jobId"]),
        "jobId": made["job"]["jobId"],
        "status": "QUEUED",
        "source": "API",
        "runId": None,
        "attempts": 0,
        "fields": ["identityMap"],
        "filter": None,
        "additionalFields": None,
        "schemaName": SCHEMA,
        "segmentPerBatch": False,
        "evaluateFirst": False,
        "mergePolicy": {"name": "Default: newest value wins"},
        "destination": {"name": "exports", "rowCount": 0, "batches": {"nodes": []}},
        "evaluation": None,
        "progress": {"phase": "WAITING", "fraction": 0.0, "profilesRead": 0, "totalProfiles": 0},
        "errors": [],
        "createdBy": "anonymous",
        "batches": {"totalCount": 0, "nodes": []},
        "metrics": None,
    }


@pytest.mark.usefixtures("working")
async def test_an_export_evaluates_writes_and_tells(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    dataset = await api.export_dataset()
    segments = [{"segmentId": global_id("SegmentDefinition", a)}]
    made = await create(
        api,
        dataset,
        filter={"segments": segments, "segmentQualificationTime": {"start": "2026-06-15T12:00:00Z"}},
        additionalFields={"fields": ["dollars"], "from": "2026-01-01T00:00:00Z"},
        segmentPerBatch=True,
        evaluateFirst=True,
    )
    assert made["errors"] == []
    found = await ended(api, made["job"]["jobId"])
    (batch,) = found["batches"]["nodes"]
    assert batch == {
        "batchId": batch["batchId"],
        "status": "ACTIVE",
        "rowCount": 2,
        "rejectedRows": 0,
        "segmentIds": [a],
    }
    assert (found["status"], found["errors"], found["attempts"]) == ("SUCCEEDED", [], 1)
    assert found["filter"] == {
        "segments": [
            {
                "segmentId": a,
                "namespace": "AEPSegments",
                "status": ["REALIZED", "EXISTING"],
                "audience": {"name": "A"},
            }
        ],
        "segmentQualificationTime": {"start": "2026-06-15T12:00:00Z", "end": None},
        "fromIngestTimestamp": None,
        "emptyProfiles": False,
    }
    assert found["additionalFields"] == {"fields": ["dollars"], "from": "2026-01-01T00:00:00Z", "to": None}
    assert found["evaluation"] == {
        "status": "SUCCEEDED",
        "segments": {"nodes": [{"segmentId": a, "profileCount": 2}]},
    }
    assert found["progress"] == {"phase": "DONE", "fraction": 1.0, "profilesRead": 2, "totalProfiles": 2}
    assert found["destination"] == {
        "name": "exports",
        "rowCount": 2,
        "batches": {"nodes": [{"batchId": batch["batchId"]}]},
    }
    assert found["metrics"]["totalExportedProfiles"] == 2
    assert found["metrics"]["exportedProfilesByNamespace"] == [{"namespace": "crm", "count": 2}]
    fields = (await api.query("query ($id: ID!) { dataset(id: $id) { fields { path type } } }", id=dataset))["dataset"]
    assert [field["path"] for field in fields["fields"]] == [
        "profileId", "identityMap", "segmentMembership", "xEvent.timestamp", "xEvent.dollars"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "code", "path"),
    [
        ({"schemaName": "people"}, "INVALID_INPUT", ["input", "schemaName"]),
        ({"fields": ["custmer"]}, "INVALID_INPUT", ["input", "fields", "0"]),
        ({"mergePolicyId": "none"}, "NOT_FOUND", ["input", "mergePolicyId"]),
        ({"mergePolicyId": global_id("Dataset", "x")}, "NOT_FOUND", ["input", "mergePolicyId"]),
        (
            {"filter": {"segments": [{"segmentId": "x"}]}},
            "NOT_FOUND",
            ["input", "filter", "segments", "0", "segmentId"],
        ),
        (
            {"filter": {"segments": [{"segmentId": global_id("Dataset", "x")}]}},
            "NOT_FOUND",
            ["input", "filter", "segments", "0", "segmentId"],
        ),
        (
            {"additionalFields": {"from": "2026-02-01T00:00:00Z", "to": "2026-01-01T00:00:00Z"}},
            "INVALID_INPUT",
            ["input", "additionalFields", "from"],
        ),
        ({"segmentPerBatch": True}, "INVALID_INPUT", ["input", "destination", "segmentPerBatch"]),
        ({"evaluateFirst": True}, "INVALID_INPUT", ["input", "evaluateFirst"]),
    ],
)
async def test_what_is_wrong_is_said_at_its_place(api: Api, values: Any, code: str, path: list[str]) -> None:
    await api.loaded()
    refused = await create(api, await api.export_dataset(), **values)
    assert refused["job"] is None
    assert [(error["__typename"], error["code"], error["path"]) for error in refused["errors"]] == [
        ("InputError", code, path)
    ]
    assert (await api.query("{ exportJobs { totalCount } }"))["exportJobs"] == {"totalCount": 0}


async def test_a_dataset_of_another_kind_and_an_unknown_one_are_refused(api: Api) -> None:
    purchases = await api.loaded()
    refused = [error for id_ in (purchases, "none") for error in (await create(api, id_))["errors"]]
    assert refused == [
        {
            "__typename": "InputError",
            "code": "INVALID_INPUT",
            "message": "'purchases' is of kind EVENT: exports are written to datasets of kind EXPORT",
            "path": ["input", "destination", "datasetId"],
        },
        {
            "__typename": "InputError",
            "code": "NOT_FOUND",
            "message": "there is no dataset 'none' in this sandbox",
            "path": ["input", "destination", "datasetId"],
        },
    ]


async def test_the_same_key_gives_the_same_export(api: Api) -> None:
    await api.loaded()
    dataset = await api.export_dataset()
    made = [await create(api, dataset, idempotencyKey="k") for _ in range(2)]
    assert made[0]["job"]["jobId"] == made[1]["job"]["jobId"]


async def test_a_key_of_no_usable_length_is_refused(api: Api) -> None:
    await api.loaded()
    dataset = await api.export_dataset()
    refused = [(await create(api, dataset, idempotencyKey=key))["errors"] for key in ("", "k" * 256)]
    assert [[(error["code"], error["path"], error["message"]) for error in errors] for errors in refused] == [
        [
            (
                "INVALID_INPUT",
                ["input", "idempotencyKey"],
                f"an idempotency key has 1 to 255 characters without NUL, this one {size}",
            )
        ]
        for size in (0, 256)
    ]


async def test_a_waiting_export_is_cancelled_at_once_and_again(api: Api) -> None:
    await api.loaded()
    made = await create(api, await api.export_dataset())
    for id_ in (made["job"]["jobId"], made["job"]["id"]):
        assert (await api.query(CANCEL, id=id_))["cancelExportJob"] == {"job": {"status": "CANCELLED"}, "errors": []}


@pytest.mark.usefixtures("working")
async def test_an_export_that_has_ended_and_an_unknown_one_are_not_cancelled(api: Api) -> None:
    await api.loaded()
    made = await create(api, await api.export_dataset())
    await ended(api, made["job"]["jobId"])
    errors = [
        error
        for id_ in (made["job"]["jobId"], "none")
        for error in (await api.query(CANCEL, id=id_))["cancelExportJob"]["errors"]
    ]
    assert [(error["code"], error["path"], error["message"]) for error in errors] == [
        ("INVALID_STATE", ["id"], "the job has succeeded and can no longer be cancelled"),
        ("NOT_FOUND", ["id"], "there is no export job 'none' in this sandbox"),
    ]


async def test_exports_are_listed_by_filter_and_page(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    one, two = await api.export_dataset(), await api.export_dataset("others")
    first = (await create(api, one, filter={"segments": [{"segmentId": a}]}, evaluateFirst=True))["job"]["jobId"]
    second = (await create(api, two))["job"]["jobId"]
    await api.query(CANCEL, id=second)
    document = """query ($filter: ExportJobFilter) { exportJobs(filter: $filter,
      orderBy: {field: UPDATED_AT, direction: ASC}) { totalCount nodes { jobId } } }"""
    for filter, expected in [
        ({"segmentId": global_id("Audience", a)}, [first]),
        ({"destinationId": global_id("Dataset", two)}, [second]),
        ({"status": ["CANCELLED"]}, [second]),
        ({"source": ["SCHEDULER"]}, []),
    ]:
        found = (await api.query(document, filter=filter))["exportJobs"]
        assert found == {"totalCount": len(expected), "nodes": [{"jobId": id_} for id_ in expected]}
    page = """query ($after: String) { exportJobs(first: 1, after: $after) {
      nodes { jobId } pageInfo { endCursor hasNextPage } } }"""
    begin = (await api.query(page))["exportJobs"]
    rest = (await api.query(page, after=begin["pageInfo"]["endCursor"]))["exportJobs"]
    assert {begin["nodes"][0]["jobId"], rest["nodes"][0]["jobId"]} == {first, second}
    assert (begin["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)


async def test_each_level_of_a_list_costs_one_statement(api: Api) -> None:
    await api.loaded()
    dataset = await api.export_dataset()
    document = """{ exportJobs { nodes { mergePolicy { name } destination { name } evaluation { status }
      batches { totalCount nodes { rowCount } } } } }"""
    costs = []
    for more in (2, 6):
        for _ in range(more):
            await create(api, dataset)
        with count_statements(api.services.database) as statements:
            await api.query(document)
        costs.append(len([one for one in statements if "FROM job_update" not in one]))
    assert costs == [5, 5]
