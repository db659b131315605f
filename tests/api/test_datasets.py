"""Datasets and uploads."""

import gzip
import io
import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.api.global_ids import global_id
from app.clock import FixedClock
from tests.api.conftest import CSV, Api

CREATE = """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
  dataset { id datasetId name kind rowCount fields { path type } createdAt updatedAt }
  errors { __typename code message path } } }"""


def parquet() -> bytes:
    sink = io.BytesIO()
    table = {"customer": ["00001", "00002"], "when": ["2026-01-01", "2026-01-02"], "dollars": [12.5, 700.0]}
    pq.write_table(pa.table(table), sink)
    return sink.getvalue()


NDJSON = b'{"customer": "00001", "when": "2026-01-01", "dollars": 1}\n{"customer": "00002", "when": "2026-01-02"}\n'


async def create(api: Api, **values: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await api.query(CREATE, input=values))["createDataset"]
    return payload


async def test_a_dataset_is_created_and_found_again(api: Api) -> None:
    identity = {"column": "customer", "namespace": "crm"}
    made = await create(api, name="purchases", kind="EVENT", primaryIdentity=identity, timestampColumn="when")
    assert made["errors"] == []
    dataset = made["dataset"]
    assert dataset == {
        "id": global_id("Dataset", dataset["datasetId"]),
        "datasetId": dataset["datasetId"],
        "name": "purchases",
        "kind": "EVENT",
        "rowCount": 0,
        "fields": [],
        "createdAt": "2026-06-15T12:00:00Z",
        "updatedAt": "2026-06-15T12:00:00Z",
    }
    for id_ in (dataset["id"], dataset["datasetId"]):
        assert (await api.query("query ($id: ID!) { dataset(id: $id) { name } }", id=id_))["dataset"] == {
            "name": "purchases"
        }
    node = await api.query("query ($id: ID!) { node(id: $id) { __typename id } }", id=dataset["id"])
    assert node["node"] == {"__typename": "Dataset", "id": dataset["id"]}


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ("xEvent", 'the column "xEvent" is named like a part of the profile'),
        ("__id", 'the column "__id" begins with two underscores, which is reserved'),
        ("__index_level_0__", 'the column "__index_level_0__" begins with two underscores, which is reserved'),
        ("identityMap", 'the column "identityMap" holds the further identities of a row'),
    ],
)
async def test_a_column_that_no_file_can_have_is_refused(api: Api, column: str, problem: str) -> None:
    identity = {"column": column, "namespace": "crm"}
    made = await create(api, name="a", kind="PROFILE", primaryIdentity=identity)
    message = f"{problem}: choose another column"
    assert made["dataset"] is None
    assert [(error["message"], error["path"]) for error in made["errors"]] == [
        (message, ["input", "primaryIdentity", "column"])
    ]
    identity["column"] = "customer"
    made = await create(api, name="a", kind="EVENT", primaryIdentity=identity, timestampColumn=column)
    assert [(error["message"], error["path"]) for error in made["errors"]] == [(message, ["input", "timestampColumn"])]


async def test_the_time_of_an_event_leaves_no_column_for_an_identity(api: Api) -> None:
    identity = {"column": "timestamp", "namespace": "crm"}
    made = await create(api, name="a", kind="EVENT", primaryIdentity=identity, timestampColumn="when")
    assert [(error["message"], error["path"]) for error in made["errors"]] == [
        (
            'the time of each event becomes the column "timestamp": choose another column',
            ["input", "primaryIdentity", "column"],
        )
    ]
    assert (await create(api, name="a", kind="PROFILE", primaryIdentity=identity))["errors"] == []


async def test_a_column_cannot_hold_both_the_identity_and_the_time(api: Api) -> None:
    identity = {"column": "customer", "namespace": "crm"}
    made = await create(api, name="a", kind="EVENT", primaryIdentity=identity, timestampColumn="customer")
    assert [(error["message"], error["path"]) for error in made["errors"]] == [
        ('the column "customer" already holds the identity: name the one with the time', ["input", "timestampColumn"])
    ]


async def test_a_dry_run_names_types_like_the_dataset(api: Api) -> None:
    schema = {"properties": {"m": {"type": "object", "additionalProperties": {"type": "integer"}}}}
    identity = {"column": "customer", "namespace": "crm"}
    made = await create(api, name="a", kind="EVENT", primaryIdentity=identity, timestampColumn="when", schema=schema)
    dataset = made["dataset"]["datasetId"]
    rows = (
        b'{"customer": "1", "when": "2026-01-01", "n": 5, "ns": [1], "o": {"n": 1, "xs": [{"n": 2}]}, "m": {"k": 1}}\n'
    )
    tried = (await api.upload(dataset, rows, "NDJSON", dryRun=True)).json()["data"]["uploadBatch"]["dryRun"]
    await api.upload(dataset, rows, "NDJSON")
    found = await api.query("query ($id: ID!) { dataset(id: $id) { fields { path type } } }", id=dataset)
    types = {field["path"]: field["type"] for field in found["dataset"]["fields"]}
    assert {field["path"]: field["type"] for field in tried["fields"]} == types
    assert (types["xEvent.n"], types["xEvent.ns"], types["xEvent.m"]) == ("number", "array<number>", "map<number>")


async def test_a_taken_name_is_refused(api: Api) -> None:
    await api.dataset("purchases")
    refused = await create(
        api, name="purchases", kind="PROFILE", primaryIdentity={"column": "customer", "namespace": "crm"}
    )
    assert refused == {
        "dataset": None,
        "errors": [
            {
                "__typename": "InputError",
                "code": "ALREADY_EXISTS",
                "message": "a dataset named 'purchases' already exists: choose another name",
                "path": ["input", "name"],
            }
        ],
    }
    assert (await api.query("{ datasets { totalCount } }"))["datasets"] == {"totalCount": 1}


async def test_what_does_not_fit_together_is_refused_all_at_once(api: Api) -> None:
    refused = await create(api, name=" ", kind="EVENT")
    assert refused["dataset"] is None
    assert {error["code"] for error in refused["errors"]} == {"INVALID_INPUT"}
    assert [error["path"] for error in refused["errors"]] == [
        ["input", "name"],
        ["input", "primaryIdentity"],
        ["input", "timestampColumn"],
    ]
    assert (await api.query("{ datasets { totalCount } }"))["datasets"] == {"totalCount": 0}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("format", "content", "rows"), [("CSV", CSV, 3), ("NDJSON", NDJSON, 2), ("PARQUET", parquet(), 2)]
)
async def test_an_upload(api: Api, format: str, content: bytes, rows: int, compressed: bool) -> None:
    dataset = await api.dataset()
    sent = gzip.compress(content) if compressed else content
    response = await api.upload(dataset, sent, format)
    payload = response.json()["data"]["uploadBatch"]
    batch = payload["batch"]
    assert payload == {"batch": batch, "rejected": [], "warnings": [], "dryRun": None, "errors": []}
    assert batch == {
        "id": global_id("Batch", batch["batchId"]),
        "batchId": batch["batchId"],
        "status": "ACTIVE",
        "rowCount": rows,
        "rejectedRows": 0,
        "bytes": len(sent),
    }
    found = await api.query(
        """query ($id: ID!) { dataset(id: $id) { rowCount fields { path type }
          batches { totalCount nodes { batchId status } } } }""",
        id=dataset,
    )
    assert found["dataset"]["rowCount"] == rows
    assert found["dataset"]["batches"] == {
        "totalCount": 1,
        "nodes": [{"batchId": batch["batchId"], "status": "ACTIVE"}],
    }
    assert "xEvent.dollars" in [field["path"] for field in found["dataset"]["fields"]]


async def test_rejected_rows_are_reported_and_good_ones_land(api: Api) -> None:
    dataset = await api.dataset()
    content = b"customer,when,dollars\n1,2026-01-01,5\n,2026-01-01,5\n2,never,5\n"
    payload = (await api.upload(dataset, content)).json()["data"]["uploadBatch"]
    assert payload["errors"] == []
    assert (payload["batch"]["rowCount"], payload["batch"]["rejectedRows"]) == (1, 2)
    assert [row["row"] for row in payload["rejected"]] == [2, 3]
    assert all(row["message"] for row in payload["rejected"])
    await api.upload(dataset, b"customer,when,dollars\n4,2026-01-01,5\n")
    kept = [batch["rejected"] for batch in await batches(api, dataset)]
    assert sorted(kept, key=len) == [[], payload["rejected"]]


BATCHES = """query ($id: ID!) { dataset(id: $id) { batches {
  nodes { batchId status rejectedRows rejected { row message } error } } } }"""


async def batches(api: Api, dataset: str) -> list[dict[str, Any]]:
    """With the rejected rows that each keeps."""
    found: list[dict[str, Any]] = (await api.query(BATCHES, id=dataset))["dataset"]["batches"]["nodes"]
    return found


@pytest.mark.parametrize(
    ("content", "format"),
    [(b"", "CSV"), (b"a,b\n1,2\n", "CSV"), (b"customer,when\n1,2026-01-01\n", "PARQUET"), (b"\x00\x01", "NDJSON")],
    ids=["empty", "no identity column", "not parquet", "not text"],
)
async def test_a_file_that_cannot_be_used_changes_nothing(api: Api, content: bytes, format: str) -> None:
    dataset = await api.dataset()
    payload = (await api.upload(dataset, content, format)).json()["data"]["uploadBatch"]
    assert payload["batch"] is None
    (error,) = payload["errors"]
    assert (error["__typename"], error["code"], error["path"]) == ("InputError", "INVALID_INPUT", ["input", "file"])
    found = await api.query("query ($id: ID!) { dataset(id: $id) { rowCount fields { path } } }", id=dataset)
    assert found["dataset"] == {"rowCount": 0, "fields": []}


async def test_rows_that_are_all_bad_are_reported(api: Api) -> None:
    dataset = await api.dataset()
    payload = (await api.upload(dataset, b"customer,when\n1,never\n")).json()["data"]["uploadBatch"]
    assert payload["batch"] is None
    assert [row["row"] for row in payload["rejected"]] == [1]
    (error,) = payload["errors"]
    assert error["path"] == ["input", "file"]
    (batch,) = await batches(api, dataset)
    assert (batch["status"], batch["rejected"], batch["error"]) == ("FAILED", [], error["message"])


async def test_an_upload_to_nowhere(api: Api) -> None:
    for id_ in ("nothing", global_id("Audience", "nothing")):
        payload = (await api.upload(id_, CSV)).json()["data"]["uploadBatch"]
        (error,) = payload["errors"]
        assert (error["code"], error["path"]) == ("NOT_FOUND", ["input", "datasetId"])


async def test_a_file_must_be_a_file(api: Api) -> None:
    answer = await api.answer(
        "mutation ($input: UploadBatchInput!) { uploadBatch(input: $input) { errors { message } } }",
        input={"datasetId": await api.dataset(), "file": "/etc/passwd", "format": "CSV"},
    )
    assert "Upload must be a file" in json.dumps(answer["errors"])
    assert "data" not in answer


async def test_datasets_by_kind_page_by_page(api: Api, clock: FixedClock) -> None:
    names = [f"d{number}" for number in range(5)]
    for name in names:
        await api.dataset(name, "EVENT" if name != "d2" else "PROFILE")
        clock.advance(timedelta(seconds=1))
    document = """query ($after: String, $kind: DatasetKind) { datasets(first: 2, after: $after, kind: $kind) {
      nodes { name } edges { cursor node { name } } totalCount
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    seen, after = [], None
    while True:
        page = (await api.query(document, after=after, kind="EVENT"))["datasets"]
        seen += [node["name"] for node in page["nodes"]]
        assert page["totalCount"] == 4
        assert [edge["node"] for edge in page["edges"]] == page["nodes"]
        assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == ["d0", "d1", "d3", "d4"]


async def test_a_cursor_that_is_none(api: Api) -> None:
    answer = await api.answer('{ datasets(after: "nonsense") { nodes { id } } }')
    (error,) = answer["errors"]
    assert error["extensions"] == {"code": "INVALID_INPUT", "path": ["after"]}
    assert error["message"] == "'nonsense' is not a cursor: send back one that a page of this list gave"


async def test_datasets_of_members_and_of_exports_are_created(api: Api) -> None:
    identity = {"column": "customer", "namespace": "crm"}
    members = await create(api, name="members", kind="AUDIENCE", primaryIdentity=identity)
    exports = await create(api, name="exports", kind="EXPORT")
    assert (members["errors"], exports["errors"]) == ([], [])
    assert (members["dataset"]["kind"], exports["dataset"]["kind"]) == ("AUDIENCE", "EXPORT")
    wrong = [
        await create(api, name="a", kind="AUDIENCE", timestampColumn="when"),
        await create(api, name="b", kind="EXPORT", primaryIdentity=identity, timestampColumn="when"),
    ]
    assert [[(error["code"], error["path"]) for error in one["errors"]] for one in wrong] == [
        [("INVALID_INPUT", ["input", "primaryIdentity"]), ("INVALID_INPUT", ["input", "timestampColumn"])],
        [("INVALID_INPUT", ["input", "primaryIdentity"]), ("INVALID_INPUT", ["input", "timestampColumn"])],
    ]
    assert (await api.query("{ datasets { totalCount } }"))["datasets"] == {"totalCount": 2}


async def test_nothing_is_uploaded_into_a_dataset_of_exports(api: Api) -> None:
    made = await create(api, name="exports", kind="EXPORT")
    id_ = made["dataset"]["datasetId"]
    refused = (await api.upload(id_, CSV)).json()["data"]["uploadBatch"]
    assert refused["batch"] is None
    assert refused["errors"] == [
        {
            "__typename": "InputError",
            "code": "INVALID_INPUT",
            "message": "'exports' is a dataset of kind EXPORT, which export jobs fill: upload into another one",
            "path": ["input", "datasetId"],
        }
    ]
    batches = await api.query("query ($id: ID!) { dataset(id: $id) { rowCount batches { totalCount } } }", id=id_)
    assert batches["dataset"] == {"rowCount": 0, "batches": {"totalCount": 0}}


async def deleted(api: Api, id_: str, etag: str | None = None) -> dict[str, Any]:
    document = """mutation ($input: DeleteInput!) { deleteDataset(input: $input) { deletedId errors {
      __typename code message path ... on DependentsError { dependents { __typename id } } } } }"""
    payload: dict[str, Any] = (await api.query(document, input={"id": id_, "etag": etag}))["deleteDataset"]
    return payload


async def test_a_deleted_dataset_takes_its_people_with_it(api: Api, working: None) -> None:
    events = await api.loaded()
    people = await api.dataset("people", "PROFILE")
    await api.upload(people, b"customer,level\n00001,gold\n")
    spenders = await api.define("A", "xEvent.count() >= 1")
    gold = await api.define("B", 'level = "gold"')
    assert await api.ended(await api.start()) == {"status": "SUCCEEDED", "errors": []}
    assert await deleted(api, events) == {"deletedId": global_id("Dataset", events), "errors": []}
    found = await api.query(
        """query ($dataset: ID!, $a: ID!, $b: ID!) { dataset(id: $dataset) { name } datasets { totalCount }
          gone: profile(id: "crm:00002") { profileId } left: profile(id: "crm:00001") { events { totalCount } }
          a: audience(id: $a) { members { totalCount nodes { profile { profileId } } } }
          b: audience(id: $b) { members { totalCount nodes { profile { profileId } } } } }""",
        dataset=events,
        a=spenders,
        b=gold,
    )
    one = {"totalCount": 1, "nodes": [{"profile": {"profileId": "crm:00001"}}]}
    assert found == {
        "dataset": None,
        "datasets": {"totalCount": 1},
        "gone": None,
        "left": {"events": {"totalCount": 0}},
        "a": {"members": one},
        "b": {"members": one},
    }
    renamed = await api.query(
        """mutation ($id: ID!) { updateAudience(input: {id: $id, name: "C", lifecycleState: INACTIVE}) {
          audience { name lifecycleState } errors { message } } }""",
        id=spenders,
    )
    told = {"name": "C", "lifecycleState": "INACTIVE"}
    assert renamed["updateAudience"] == {"audience": told, "errors": []}
    refused = (await deleted(api, people))["errors"]
    assert [(error["code"], error["message"]) for error in refused] == [
        ("HAS_DEPENDENTS", "'B' use its fields: change, cancel or delete them first")
    ]
    await api.query("mutation ($id: ID!) { deleteSegmentDefinition(input: {id: $id}) { deletedId } }", id=gold)
    assert (await deleted(api, people))["errors"] == []
    assert [error["code"] for error in (await deleted(api, people))["errors"]] == ["NOT_FOUND"]
    assert (await api.query('{ profile(id: "crm:00001") { profileId } }'))["profile"] is None


async def test_a_dataset_that_others_rely_on_is_not_deleted(api: Api) -> None:
    people, members = await api.dataset("people", "PROFILE"), await api.dataset("members", "AUDIENCE")
    made = await api.query(
        """mutation ($people: ID!, $members: ID!) {
          createMergePolicy(input: {name: "P", method: DATA_SET_PRECEDENCE, datasetIds: [$people]}) {
            mergePolicy { id } }
          createAudience(input: {name: "X", type: EXTERNAL_SEGMENT, datasetId: $members}) { audience { id } } }""",
        people=people,
        members=members,
    )
    users = {
        people: ("'P' name it in their order", "MergePolicy", made["createMergePolicy"]["mergePolicy"]["id"]),
        members: ("'X' have their members from it", "Audience", made["createAudience"]["audience"]["id"]),
    }
    for id_, (words, type_name, user) in users.items():
        assert await deleted(api, id_) == {
            "deletedId": None,
            "errors": [
                {
                    "__typename": "DependentsError",
                    "code": "HAS_DEPENDENTS",
                    "message": f"{words}: change, cancel or delete them first",
                    "path": ["input", "id"],
                    "dependents": [{"__typename": type_name, "id": user}],
                }
            ],
        }
    assert [error["code"] for error in (await deleted(api, people, "7"))["errors"]] == ["STALE_ETAG"]
    assert (await api.query("{ datasets { totalCount } }"))["datasets"] == {"totalCount": 2}
    assert (await api.within("dev").query("{ datasets { totalCount } }"))["datasets"] == {"totalCount": 0}
    assert [error["code"] for error in (await deleted(api.within("dev"), people))["errors"]] == ["NOT_FOUND"]


INGEST = """mutation ($input: IngestRowsInput!) { ingestRows(input: $input) {
  batch { id batchId status rowCount rejectedRows duplicateRows dataset { datasetId rowCount } }
  rejected { row message } errors { code message path } } }"""


async def test_rows_by_a_mutation(api: Api) -> None:
    dataset = await api.dataset()
    rows: list[Any] = [
        {"customer": "1", "when": "2026-01-01", "_id": "a", "nested": {"deep": [1, 2]}},
        {"customer": "2", "when": "never", "_id": "b"},
        {"customer": "1", "when": "2026-01-01", "_id": "a"},
        [1],
    ]
    input = {"datasetId": dataset, "rows": rows, "idempotencyKey": "k"}
    payload = (await api.query(INGEST, input=input))["ingestRows"]
    assert payload["errors"] == []
    batch = payload["batch"]
    assert {name: batch[name] for name in ("status", "rowCount", "rejectedRows", "duplicateRows", "dataset")} == {
        "status": "ACTIVE",
        "rowCount": 1,
        "rejectedRows": 2,
        "duplicateRows": 1,
        "dataset": {"datasetId": dataset, "rowCount": 1},
    }
    assert [row["row"] for row in payload["rejected"]] == [2, 4]
    assert (await api.query(INGEST, input=input))["ingestRows"] == payload, "the same key gives the same batch"
    assert list(api.services.uploads.iterdir()) == []
    found = await api.query(
        "query ($id: ID!) { batch(id: $id) { batchId dataset { name } } unknown: batch(id: 7) { id } }",
        id=batch["id"],
    )
    assert found == {"batch": {"batchId": batch["batchId"], "dataset": {"name": "purchases"}}, "unknown": None}
    other = await api.within("other").query("query ($id: ID!) { batch(id: $id) { id } }", id=batch["batchId"])
    assert other == {"batch": None}


async def test_rows_up_to_ten_thousand(api: Api) -> None:
    dataset = await api.dataset()
    rows = [{"customer": str(number), "when": "2026-01-01", "text": "x" * 200} for number in range(10_001)]
    for sent, code in ((rows, "LIMIT_EXCEEDED"), ([], "INVALID_INPUT")):
        (error,) = (await api.query(INGEST, input={"datasetId": dataset, "rows": sent}))["ingestRows"]["errors"]
        assert (error["code"], error["path"]) == (code, ["input", "rows"])
    (error,) = (await api.query(INGEST, input={"datasetId": dataset, "rows": [{"who": 1}]}))["ingestRows"]["errors"]
    assert (error["code"], error["path"]) == ("INVALID_INPUT", ["input", "rows"])
    payload = (await api.query(INGEST, input={"datasetId": dataset, "rows": rows[1:]}))["ingestRows"]
    assert (payload["errors"], payload["batch"]["rowCount"]) == ([], 10_000)


async def test_a_batch_is_deleted(api: Api) -> None:
    dataset = await api.dataset()
    rows = [{"customer": "1", "when": "2026-01-01"}]
    batch = (await api.query(INGEST, input={"datasetId": dataset, "rows": rows}))["ingestRows"]["batch"]
    document = "mutation ($input: DeleteInput!) { deleteBatch(input: $input) { deletedId errors { code path } } }"
    refused = {"deletedId": None, "errors": [{"code": "NOT_FOUND", "path": ["input", "id"]}]}
    foreign = api.within("other")
    assert (await foreign.query(document, input={"id": batch["batchId"]}))["deleteBatch"] == refused
    misfit = (await api.query(document, input={"id": batch["id"], "etag": "1"}))["deleteBatch"]
    assert misfit == {"deletedId": None, "errors": [{"code": "INVALID_INPUT", "path": ["input", "etag"]}]}
    deleted = (await api.query(document, input={"id": batch["id"]}))["deleteBatch"]
    assert deleted == {"deletedId": batch["id"], "errors": []}
    assert (await api.query(document, input={"id": batch["id"]}))["deleteBatch"] == refused
    left = await api.query("query ($id: ID!) { dataset(id: $id) { rowCount batches { totalCount } } }", id=dataset)
    assert left == {"dataset": {"rowCount": 0, "batches": {"totalCount": 0}}}


async def test_csv_options_say_how_a_file_is_written(api: Api) -> None:
    dataset = await api.dataset()
    content = "customer#when#dollars\n1#31.12.2026 10:00#1,5\n2#01.02.2026 9:30#NA\n".encode("utf-16-le")
    options = {
        "delimiter": "#",
        "decimalSeparator": ",",
        "timestampFormat": "%d.%m.%Y %H:%M",
        "encoding": "utf-16-le",
        "nullValues": ["NA"],
        "header": True,
    }
    payload = (await api.upload(dataset, content, csv=options)).json()["data"]["uploadBatch"]
    assert (payload["errors"], payload["warnings"], payload["batch"]["rowCount"]) == ([], [], 2)
    found = await api.query("query ($id: ID!) { dataset(id: $id) { fields { path type } } }", id=dataset)
    assert {"path": "xEvent.dollars", "type": "number"} in found["dataset"]["fields"]


async def test_an_option_that_cannot_be_followed_is_named(api: Api) -> None:
    dataset = await api.dataset()
    payload = (await api.upload(dataset, CSV, csv={"decimalSeparator": ";"})).json()["data"]["uploadBatch"]
    assert payload["batch"] is None
    assert payload["errors"] == [
        {
            "__typename": "InputError",
            "code": "INVALID_INPUT",
            "message": "the decimal separator ';' must be '.' or ','",
            "path": ["input", "csv", "decimalSeparator"],
        }
    ]
    found = await api.query("query ($id: ID!) { dataset(id: $id) { batches { totalCount } } }", id=dataset)
    assert found["dataset"]["batches"]["totalCount"] == 0


async def test_a_dry_run_stores_nothing(api: Api) -> None:
    dataset = await api.dataset()
    content = b"customer,when,n\n1,2026-01-01,5\n2,never,6\n"
    payload = (await api.upload(dataset, content, dryRun=True)).json()["data"]["uploadBatch"]
    assert payload["batch"] is None
    assert [row["row"] for row in payload["rejected"]] == [2]
    assert payload["dryRun"] == {
        "rowCount": 1,
        "rejectedRows": 1,
        "duplicateRows": 0,
        "fields": [
            {"path": "xEvent.timestamp", "type": "timestamp"},
            {"path": "xEvent.customer", "type": "string"},
            {"path": "xEvent.n", "type": "number"},
        ],
        "newFields": ["timestamp", "customer", "n"],
    }
    found = await api.query(
        "query ($id: ID!) { dataset(id: $id) { rowCount batches { totalCount } fields { path } } }", id=dataset
    )
    assert found["dataset"] == {"rowCount": 0, "batches": {"totalCount": 0}, "fields": []}
