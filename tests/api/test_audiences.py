"""Audiences: made, changed, replaced, deleted and counted; what is refused, and that nothing changed then."""

import asyncio
import base64
import io
import json
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gql.transport.exceptions import TransportQueryError

from app.api.global_ids import global_id
from app.clock import FixedClock
from tests.api.conftest import Api
from tests.api.test_subscriptions import by_sse, by_websocket

FIELDS = """id audienceId name description type origin namespace lifecycleState evaluationMethods excludeOptOut labels
  ttlInDays expiresAt audienceMeta linkedAudienceRef { flowId aoWorkflowId payloadFieldGroupRef audienceFolderId }
  isSystem saveSegmentMembership overridePerformanceWarnings createdBy lastModifiedBy createdAt updatedAt etag
  metrics { totalProfiles byNamespace { namespace count } updatedAt job { jobId } }
  definition { segmentId expression version } mergePolicy { mergePolicyId } dataset { datasetId } folder { name }"""
ERRORS = """errors { __typename code message path
  ... on ExpressionError { diagnostics { kind line column } }
  ... on StaleEtagError { currentEtag }
  ... on DependentsError { dependents { __typename id } } }"""
COMPUTED = "xEvent.sum(dollars) > 500"


async def call(api: Api, mutation: str, type_name: str, fields: str, value: Any) -> dict[str, Any]:
    document = f"mutation ($input: {type_name}!) {{ {mutation}(input: $input) {{ {fields} {ERRORS} }} }}"
    payload: dict[str, Any] = (await api.query(document, input=value))[mutation]
    return payload


async def create(api: Api, **values: Any) -> dict[str, Any]:
    fields = f"audience {{ {FIELDS} }} warnings {{ kind message }}"
    return await call(api, "createAudience", "CreateAudienceInput", fields, values)


async def update(api: Api, **values: Any) -> dict[str, Any]:
    return await call(api, "updateAudience", "UpdateAudienceInput", f"audience {{ {FIELDS} }}", values)


async def replace(api: Api, **values: Any) -> dict[str, Any]:
    return await call(api, "replaceAudience", "ReplaceAudienceInput", f"audience {{ {FIELDS} }}", values)


async def delete(api: Api, **values: Any) -> dict[str, Any]:
    return await call(api, "deleteAudience", "DeleteInput", "deletedId", values)


async def count(api: Api, items: list[Any]) -> dict[str, Any]:
    fields = "audiences { audienceId etag metrics { totalProfiles byNamespace { namespace count } } }"
    return await call(api, "updateAudienceMetrics", "[AudienceMetricsInput!]", fields, items)


async def everything(api: Api) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.query(f"{{ audiences {{ nodes {{ {FIELDS} }} }} }}"))["audiences"]["nodes"]
    return found


async def made(api: Api, **values: Any) -> str:
    payload = await create(api, **values)
    assert payload["errors"] == []
    id_: str = payload["audience"]["audienceId"]
    return id_


async def members_dataset(api: Api, name: str = "members") -> str:
    return await api.dataset(name, "AUDIENCE")


async def test_a_computed_audience_comes_with_its_definition(api: Api) -> None:
    await api.loaded()
    payload = await create(api, name="Spenders", expression=COMPUTED, description="d", labels=["core/C1"])
    assert (payload["errors"], payload["warnings"]) == ([], [])
    found = payload["audience"]
    id_ = found["audienceId"]
    assert found == {
        "id": global_id("Audience", id_),
        "audienceId": id_,
        "name": "Spenders",
        "description": "d",
        "type": "SEGMENT_DEFINITION",
        "origin": "REAL_TIME_CUSTOMER_PROFILE",
        "namespace": "AEPSegments",
        "lifecycleState": "PUBLISHED",
        "evaluationMethods": ["BATCH"],
        "excludeOptOut": True,
        "labels": ["core/C1"],
        "ttlInDays": None,
        "expiresAt": None,
        "audienceMeta": None,
        "linkedAudienceRef": None,
        "isSystem": False,
        "saveSegmentMembership": True,
        "overridePerformanceWarnings": False,
        "createdBy": "anonymous",
        "lastModifiedBy": "anonymous",
        "createdAt": "2026-06-15T12:00:00Z",
        "updatedAt": "2026-06-15T12:00:00Z",
        "etag": "1",
        "metrics": None,
        "definition": {"segmentId": id_, "expression": COMPUTED, "version": 1},
        "mergePolicy": {"mergePolicyId": "default"},
        "dataset": None,
        "folder": None,
    }
    twin = await create(api, name="Twin", expression=COMPUTED)
    assert [warning["kind"] for warning in twin["warnings"]] == ["DUPLICATE"]


async def test_an_external_audience_is_found_by_what_its_maker_calls_it(api: Api, clock: FixedClock) -> None:
    dataset = await members_dataset(api)
    ref = {"flowId": "f1", "audienceFolderId": "a1"}
    payload = await create(
        api,
        name="Partners",
        type="EXTERNAL_SEGMENT",
        audienceId="partner-7",
        namespace="AAM",
        origin="AUDIENCE_MANAGER",
        datasetId=global_id("Dataset", dataset),
        ttlInDays=7,
        audienceMeta={"a": [1, None]},
        linkedAudienceRef=ref,
        excludeOptOut=False,
        labels=["core/C2"],
    )
    assert payload["errors"] == []
    found = payload["audience"]
    assert {name: found[name] for name in ("audienceId", "namespace", "origin", "type", "lifecycleState")} == {
        "audienceId": "partner-7",
        "namespace": "AAM",
        "origin": "AUDIENCE_MANAGER",
        "type": "EXTERNAL_SEGMENT",
        "lifecycleState": "PUBLISHED",
    }
    assert (found["evaluationMethods"], found["definition"], found["mergePolicy"]) == ([], None, None)
    assert (found["ttlInDays"], found["excludeOptOut"], found["labels"]) == (7, False, ["core/C2"])
    assert (found["dataset"], found["audienceMeta"]) == ({"datasetId": dataset}, {"a": [1, None]})
    assert found["linkedAudienceRef"] == {
        "flowId": "f1",
        "aoWorkflowId": None,
        "payloadFieldGroupRef": None,
        "audienceFolderId": "a1",
    }
    for id_ in (found["id"], "partner-7"):
        answer = await api.query("query ($id: ID!) { audience(id: $id) { name } }", id=id_)
        assert answer["audience"] == {"name": "Partners"}
    assert (await api.within("dev").query('{ audience(id: "partner-7") { name } }'))["audience"] is None
    taken = await create(api, name="Others", type="EXTERNAL_SEGMENT", audienceId="partner-7", namespace="AAM")
    assert taken == {
        "audience": None,
        "warnings": [],
        "errors": [
            {
                "__typename": "InputError",
                "code": "ALREADY_EXISTS",
                "message": "audience 'partner-7' already exists in the namespace 'AAM': update it instead",
                "path": ["input", "audienceId"],
            }
        ],
    }
    assert await everything(api) == [found]
    clock.advance(timedelta(seconds=1))
    twin = await made(api, name="Twin", type="EXTERNAL_SEGMENT", audienceId="partner-7", namespace="AAMTraits")
    assert twin == "partner-7"
    ambiguous = await api.query('{ audience(id: "partner-7") { name } }')
    assert ambiguous["audience"] == {"name": "Partners"}, "the one that was made first, in every place"


async def test_defaults_of_an_external_audience(api: Api) -> None:
    payload = await create(api, name="Uploaded", type="EXTERNAL_SEGMENT", expression=None, format=None)
    assert payload["errors"] == []
    found = payload["audience"]
    assert (found["origin"], found["namespace"]) == ("CUSTOM_UPLOAD", "CustomerAudienceUpload")
    assert (found["ttlInDays"], found["expiresAt"], found["metrics"]) == (30, None, None)
    assert found["id"] == global_id("Audience", found["audienceId"])


async def test_each_type_has_its_own_fields(api: Api) -> None:
    await api.loaded()
    dataset, events = await members_dataset(api), (await api.query("{ datasets { nodes { datasetId kind } } }"))
    event = next(one["datasetId"] for one in events["datasets"]["nodes"] if one["kind"] == "EVENT")
    refused = [
        await create(api, name="A", expression="true", audienceId="x", ttlInDays=3),
        await create(api, name="A"),
        await create(api, name="A", type="EXTERNAL_SEGMENT", expression="true", evaluationMethods=["BATCH"]),
        await create(
            api, name=" ", type="EXTERNAL_SEGMENT", ttlInDays=0, origin="REAL_TIME_CUSTOMER_PROFILE", labels=["%"]
        ),
        await create(api, name="A", type="EXTERNAL_SEGMENT", lifecycleState="DRAFT", namespace=" "),
        await create(api, name="A", expression="true", lifecycleState="INACTIVE", evaluationMethods=[]),
        await create(api, name="A", type="EXTERNAL_SEGMENT", datasetId=event),
        await create(api, name="A", type="EXTERNAL_SEGMENT", datasetId="nope"),
        await create(api, name="A", type="EXTERNAL_SEGMENT", datasetId=dataset, folderId="nope"),
    ]
    assert [[(error["code"], error["path"][1:]) for error in one["errors"]] for one in refused] == [
        [("INVALID_INPUT", ["audienceId"]), ("INVALID_INPUT", ["ttlInDays"])],
        [("INVALID_INPUT", ["expression"])],
        [("INVALID_INPUT", ["expression"]), ("INVALID_INPUT", ["evaluationMethods"])],
        [
            ("INVALID_INPUT", ["name"]),
            ("INVALID_INPUT", ["origin"]),
            ("INVALID_INPUT", ["ttlInDays"]),
            ("INVALID_INPUT", ["labels", "0"]),
        ],
        [("INVALID_STATE", ["lifecycleState"]), ("INVALID_INPUT", ["namespace"])],
        [("INVALID_STATE", ["lifecycleState"]), ("INVALID_INPUT", ["evaluationMethods"])],
        [("INVALID_INPUT", ["datasetId"])],
        [("NOT_FOUND", ["datasetId"])],
        [("NOT_FOUND", ["folderId"])],
    ]
    assert await everything(api) == []


async def test_an_expression_that_cannot_be_used_is_refused_with_its_place(api: Api) -> None:
    await api.loaded()
    refused = await create(api, name="A", expression="xEvent.sum(dolars) > 1")
    (error,) = refused["errors"]
    assert (error["__typename"], error["code"], error["path"]) == (
        "ExpressionError",
        "INVALID_EXPRESSION",
        ["input", "expression"],
    )
    assert error["diagnostics"] == [{"kind": "UNKNOWN_FIELD", "line": 1, "column": 12}]
    assert await everything(api) == []


async def test_the_definition_and_its_audience_change_together(api: Api) -> None:
    await api.loaded()
    id_ = await made(api, name="A", expression=COMPUTED)
    changed = await update(api, id=id_, etag="1", expression="xEvent.sum(dollars) > 5", name="B", description="d")
    assert changed["errors"] == []
    found = changed["audience"]
    assert (found["name"], found["etag"], found["description"]) == ("B", "2", "d")
    assert found["definition"] == {"segmentId": id_, "expression": "xEvent.sum(dollars) > 5", "version": 2}
    definition = await api.query("query ($id: ID!) { segmentDefinition(id: $id) { name etag version } }", id=id_)
    assert definition["segmentDefinition"] == {"name": "B", "etag": "2", "version": 2}


async def test_only_given_fields_change_and_null_clears(api: Api) -> None:
    dataset = await members_dataset(api)
    external = {"type": "EXTERNAL_SEGMENT", "datasetId": dataset, "audienceMeta": {"a": 1}, "description": "d"}
    id_ = await made(api, name="A", **external)
    changed = await update(api, id=id_, description=None, audienceMeta=None, datasetId=None, ttlInDays=3)
    found = changed["audience"]
    assert (found["description"], found["audienceMeta"], found["dataset"], found["ttlInDays"]) == (None, None, None, 3)
    assert (found["name"], found["etag"]) == ("A", "2")
    refused = await update(api, id=id_, name=None, labels=None, ttlInDays=None, lifecycleState=None)
    assert sorted((error["code"], error["path"][1]) for error in refused["errors"]) == [
        ("INVALID_INPUT", "labels"),
        ("INVALID_INPUT", "lifecycleState"),
        ("INVALID_INPUT", "name"),
        ("INVALID_INPUT", "ttlInDays"),
    ]
    strange = await update(api, id=id_, expression="true")
    assert [(error["code"], error["path"]) for error in strange["errors"]] == [
        ("INVALID_INPUT", ["input", "expression"])
    ]
    assert await everything(api) == [found]


async def test_a_stale_etag_names_the_present_one_and_changes_nothing(api: Api) -> None:
    await api.loaded()
    computed = await made(api, name="A", expression=COMPUTED)
    external = await made(api, name="B", type="EXTERNAL_SEGMENT")
    for id_ in (computed, external):
        assert (await update(api, id=id_, etag="1", description="new"))["errors"] == []
    before = await everything(api)
    for id_, whole in (
        (computed, {"name": "C", "expression": COMPUTED}),
        (external, {"name": "C", "type": "EXTERNAL_SEGMENT"}),
    ):
        for refused in (
            await update(api, id=id_, etag="1", description="newer"),
            await replace(api, id=id_, etag="1", audience=whole),
            await delete(api, id=id_, etag="1"),
        ):
            assert refused["errors"] == [
                {
                    "__typename": "StaleEtagError",
                    "code": "STALE_ETAG",
                    "message": "the object has been changed since it was read: read it again and repeat the change",
                    "path": ["input", "etag"],
                    "currentEtag": "2",
                }
            ]
    assert await everything(api) == before


async def test_a_replaced_audience_returns_to_its_defaults(api: Api) -> None:
    await api.loaded()
    recent = "exists E from xEvent where E.timestamp occurs <= 24 hours before now"
    computed = await made(
        api,
        name="A",
        expression=recent,
        description="d",
        labels=["core/C1"],
        excludeOptOut=False,
        evaluationMethods=["STREAMING"],
        lifecycleState="DRAFT",
    )
    done = await replace(api, id=computed, etag="1", audience={"name": "B", "expression": COMPUTED})
    assert done["errors"] == []
    found = done["audience"]
    assert (found["name"], found["description"], found["labels"], found["excludeOptOut"]) == ("B", None, [], True)
    assert (found["evaluationMethods"], found["lifecycleState"], found["etag"]) == (["BATCH"], "PUBLISHED", "2")
    assert found["definition"]["version"] == 2
    external = await made(
        api, name="C", type="EXTERNAL_SEGMENT", audienceId="x", namespace="AAM", ttlInDays=3, audienceMeta=1
    )
    done = await replace(
        api, id=external, audience={"name": "D", "type": "EXTERNAL_SEGMENT", "audienceId": "x", "description": "d"}
    )
    assert done["errors"] == []
    found = done["audience"]
    assert (found["name"], found["description"], found["ttlInDays"], found["audienceMeta"]) == ("D", "d", 30, None)
    assert (found["audienceId"], found["namespace"]) == ("x", "AAM")
    before = await everything(api)
    refused = await replace(api, id=external, audience={"name": "E", "expression": "true", "audienceId": "y"})
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("INVALID_INPUT", ["input", "audience", "type"]),
        ("INVALID_INPUT", ["input", "audience", "audienceId"]),
    ]
    assert await everything(api) == before


async def test_the_life_of_an_audience(api: Api) -> None:
    await api.loaded()
    a = await made(api, name="A", expression=COMPUTED, lifecycleState="DRAFT")
    refused = await create(api, name="B", expression=f'inSegment("{a}")')
    assert refused["errors"] == [
        {
            "__typename": "InputError",
            "code": "INVALID_STATE",
            "message": "it refers to 'A' (DRAFT), and what a published audience refers to must be published: "
            "publish that first",
            "path": ["input", "lifecycleState"],
        }
    ]
    b = await made(api, name="B", expression=f'inSegment("{a}")', lifecycleState="DRAFT")
    early = await update(api, id=b, lifecycleState="PUBLISHED")
    assert [(error["code"], error["path"]) for error in early["errors"]] == [
        ("INVALID_STATE", ["input", "lifecycleState"])
    ]
    wrong = await update(api, id=a, lifecycleState="INACTIVE")
    assert [error["message"] for error in wrong["errors"]] == ["INACTIVE cannot follow DRAFT: PUBLISHED can"]
    for id_ in (a, b):
        assert (await update(api, id=id_, lifecycleState="PUBLISHED"))["audience"]["lifecycleState"] == "PUBLISHED"
    before = await everything(api)
    told = {
        "__typename": "DependentsError",
        "code": "HAS_DEPENDENTS",
        "message": "'B' refer to it by inSegment: change or delete them first",
        "dependents": [{"__typename": "SegmentDefinition", "id": global_id("SegmentDefinition", b)}],
    }
    leaving = await update(api, id=a, lifecycleState="INACTIVE")
    assert leaving["errors"] == [{**told, "path": ["input", "lifecycleState"]}]
    assert (await delete(api, id=a)) == {"deletedId": None, "errors": [{**told, "path": ["input", "id"]}]}
    assert await everything(api) == before
    assert (await update(api, id=b, lifecycleState="INACTIVE"))["audience"]["lifecycleState"] == "INACTIVE"
    back = await update(api, id=b, lifecycleState="DRAFT")
    assert [error["code"] for error in back["errors"]] == ["INVALID_STATE"]
    assert (await update(api, id=b, lifecycleState="PUBLISHED"))["errors"] == []
    for id_ in (b, a):
        assert await delete(api, id=id_) == {"deletedId": global_id("Audience", id_), "errors": []}
    assert await everything(api) == []


async def test_an_audience_names_its_dependents(api: Api) -> None:
    await api.loaded()
    a = await made(api, name="A", expression=COMPUTED)
    b = await made(api, name="B", expression=f'inSegment("{a}")')
    changed = await update(api, id=b, name="C", lifecycleState="INACTIVE")
    assert (changed["errors"], changed["audience"]["definition"]["version"]) == ([], 1)
    dependents = "query ($id: ID!) { audience(id: $id) { dependents { totalCount nodes { audienceId name } } } }"
    found = (await api.query(dependents, id=a))["audience"]["dependents"]
    assert found == {"totalCount": 1, "nodes": [{"audienceId": b, "name": "C"}]}


async def test_metrics_are_written_for_many_audiences_or_for_none(api: Api) -> None:
    await api.loaded()
    computed = await made(api, name="A", expression=COMPUTED)
    await made(api, name="B", type="EXTERNAL_SEGMENT", audienceId="x")
    one = {"audienceId": "x", "totalProfiles": 5_000_000_000, "byNamespace": [{"namespace": "crm", "count": 4}]}
    done = await count(api, [one, {"audienceId": global_id("Audience", computed), "totalProfiles": 0}])
    assert done == {
        "audiences": [
            {
                "audienceId": "x",
                "etag": "1",
                "metrics": {"totalProfiles": 5_000_000_000, "byNamespace": [{"namespace": "crm", "count": 4}]},
            },
            {"audienceId": computed, "etag": "1", "metrics": {"totalProfiles": 0, "byNamespace": []}},
        ],
        "errors": [],
    }
    before = await everything(api)
    numbers = {one["audienceId"]: one["metrics"] for one in before}
    assert numbers["x"] == {**done["audiences"][0]["metrics"], "updatedAt": "2026-06-15T12:00:00Z", "job": None}
    refused = await count(
        api,
        [
            {"audienceId": computed, "totalProfiles": 1},
            {"audienceId": "nobody", "totalProfiles": -1},
            {
                "audienceId": computed,
                "totalProfiles": 1,
                "byNamespace": [{"namespace": "crm", "count": 1}, {"namespace": "crm", "count": 2}],
            },
        ],
    )
    assert refused["audiences"] == []
    assert [(error["__typename"], error["code"], error["path"]) for error in refused["errors"]] == [
        ("InputError", "NOT_FOUND", ["input", "1", "audienceId"]),
        ("InputError", "INVALID_INPUT", ["input", "1", "totalProfiles"]),
        ("InputError", "INVALID_INPUT", ["input", "2", "audienceId"]),
        ("InputError", "INVALID_INPUT", ["input", "2", "byNamespace", "1", "namespace"]),
        ("InputError", "INVALID_INPUT", ["input", "2", "byNamespace", "1", "count"]),
    ]
    assert await everything(api) == before
    assert [error["code"] for error in (await count(api, []))["errors"]] == ["LIMIT_EXCEEDED"]


MEMBERS = b"customer,score,note\n00001,1.5,old\n00009,2,\n"
IN_IT = """query ($id: ID!) { audience(id: $id) { expiresAt metrics { totalProfiles byNamespace { namespace count } }
  members { totalCount nodes { status lastQualificationTime payload
    profile { profileId identities { namespace id primary } attributes } } } } }"""


async def external(api: Api, dataset: str, **values: Any) -> str:
    return await made(api, name="Partners", type="EXTERNAL_SEGMENT", audienceId="partners", datasetId=dataset, **values)


async def load(api: Api, dataset: str, content: bytes, format: str = "CSV") -> dict[str, Any]:
    payload: dict[str, Any] = (await api.upload(dataset, content, format)).json()["data"]["uploadBatch"]
    assert payload["errors"] == []
    return payload


async def members_of(api: Api, id_: str = "partners") -> dict[str, tuple[str, str, Any]]:
    """Status, time and payload by profile."""
    found = (await api.query(IN_IT, id=id_))["audience"]
    nodes = found["members"]["nodes"]
    assert found["members"]["totalCount"] == len(nodes) == found["metrics"]["totalProfiles"]
    return {
        node["profile"]["profileId"]: (node["status"], node["lastQualificationTime"], node["payload"]) for node in nodes
    }


async def test_the_people_of_a_batch_are_members_with_what_it_says_of_them(api: Api) -> None:
    await api.loaded()
    dataset = await members_dataset(api)
    await external(api, dataset, ttlInDays=7)
    batch = await load(api, dataset, MEMBERS)
    assert (batch["batch"]["rowCount"], batch["rejected"]) == (2, [])
    found = (await api.query(IN_IT, id="partners"))["audience"]
    assert found["expiresAt"] == "2026-06-22T12:00:00Z"
    assert found["metrics"] == {"totalProfiles": 2, "byNamespace": [{"namespace": "crm", "count": 2}]}
    nodes = sorted(found["members"]["nodes"], key=lambda node: node["profile"]["profileId"])
    assert found["members"]["totalCount"] == 2
    assert nodes == [
        {
            "status": "REALIZED",
            "lastQualificationTime": "2026-06-15T12:00:00Z",
            "payload": payload,
            "profile": {
                "profileId": f"crm:{customer}",
                "identities": [{"namespace": "crm", "id": customer, "primary": True}],
                "attributes": {"identityMap": {"crm": [{"id": customer, "primary": True}]}},
            },
        }
        for customer, payload in (("00001", {"score": 1.5, "note": "old"}), ("00009", {"score": 2}))
    ]
    unknown = await api.query(
        '{ profile(id: "crm:00009") { memberships { nodes { audience { audienceId } payload } } } }'
    )
    assert unknown["profile"]["memberships"]["nodes"] == [
        {"audience": {"audienceId": "partners"}, "payload": {"score": 2}}
    ]
    fields = (await api.query('{ pql { check(expression: "score > 1") { ok } } }'))["pql"]["check"]
    assert fields == {"ok": False}, "payload columns are no attributes of people"


@pytest.mark.parametrize("format", ["NDJSON", "PARQUET"])
async def test_members_come_in_every_format(api: Api, format: str) -> None:
    dataset = await members_dataset(api)
    await external(api, dataset)
    rows = [{"customer": "00001", "score": 1.5, "tags": ["a"]}, {"customer": "00009", "score": 2.0, "tags": []}]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    await load(api, dataset, sink.getvalue() if format == "PARQUET" else lines, format)
    assert {id_: payload for id_, (_, _, payload) in (await members_of(api)).items()} == {
        "crm:00001": {"score": 1.5, "tags": ["a"]},
        "crm:00009": {"score": 2, "tags": []},
    }


async def test_a_later_batch_adds_members_and_tells_more_of_the_old_ones(api: Api, clock: FixedClock) -> None:
    dataset = await members_dataset(api)
    await external(api, dataset, ttlInDays=7)
    await load(api, dataset, MEMBERS)
    clock.advance(timedelta(days=2))
    await load(api, dataset, b"customer,score\n00001,7\n00005,3\n")
    assert await members_of(api) == {
        "crm:00001": ("EXISTING", "2026-06-15T12:00:00Z", {"score": 7}),
        "crm:00005": ("REALIZED", "2026-06-17T12:00:00Z", {"score": 3}),
        "crm:00009": ("EXISTING", "2026-06-15T12:00:00Z", {"score": 2}),
    }
    assert (await api.query(IN_IT, id="partners"))["audience"]["expiresAt"] == "2026-06-24T12:00:00Z"


async def test_an_audience_sees_who_was_loaded_before_it_was_made(api: Api, clock: FixedClock) -> None:
    dataset, other = await members_dataset(api), await members_dataset(api, "others")
    await load(api, dataset, MEMBERS)
    await load(api, other, b"customer\n00007\n")
    clock.advance(timedelta(days=1))
    await external(api, dataset)
    assert set(await members_of(api)) == {"crm:00001", "crm:00009"}
    assert (await api.query(IN_IT, id="partners"))["audience"]["expiresAt"] == "2026-07-16T12:00:00Z"
    assert (await update(api, id="partners", datasetId=other))["errors"] == []
    assert set(await members_of(api)) == {"crm:00007"}
    assert (await update(api, id="partners", datasetId=None))["audience"]["metrics"]["totalProfiles"] == 0
    assert await members_of(api) == {}


async def test_who_opted_out_is_no_member_unless_the_audience_says_so(api: Api) -> None:
    profiles = await api.dataset("people", "PROFILE")
    people = b'{"customer": "00001", "optInOut": {"globalOptout": true}}\n{"customer": "00002"}\n'
    assert (await api.upload(profiles, people, "NDJSON")).json()["data"]["uploadBatch"]["errors"] == []
    dataset = await members_dataset(api)
    await external(api, dataset)
    await made(api, name="All", type="EXTERNAL_SEGMENT", audienceId="all", datasetId=dataset, excludeOptOut=False)
    await load(api, dataset, b"customer\n00001\n00002\n00003\n")
    assert set(await members_of(api)) == {"crm:00002", "crm:00003"}
    assert set(await members_of(api, "all")) == {"crm:00001", "crm:00002", "crm:00003"}


async def test_a_file_of_members_that_cannot_be_used_changes_nothing(api: Api) -> None:
    dataset = await members_dataset(api)
    await external(api, dataset)
    await load(api, dataset, MEMBERS)
    before = await members_of(api)
    for content, words in (
        (b"client\n1\n", "there is no identity column"),
        (b"customer,score\n,1\n", "customer: the identity is missing"),
        (b"customer,identityMap\n1,x\n", 'the column "identityMap" would link people'),
    ):
        refused = (await api.upload(dataset, content)).json()["data"]["uploadBatch"]
        assert refused["batch"] is None
        assert [(error["code"], error["path"]) for error in refused["errors"]] == [("INVALID_INPUT", ["input", "file"])]
        assert words in refused["errors"][0]["message"]
    assert await members_of(api) == before


async def test_an_expression_sees_external_members_by_either_id(api: Api, working: None) -> None:
    await api.loaded()
    dataset = await members_dataset(api)
    await external(api, dataset)
    raw = (await api.query('{ audience(id: "partners") { id } }'))["audience"]["id"]
    raw = base64.b64decode(raw).decode().partition(":")[2]
    empty = await made(api, name="Nobody", type="EXTERNAL_SEGMENT")
    ids = [
        await api.define("By name", 'inSegment("partners")'),
        await api.define("By id", f'inSegment("{raw}") and xEvent.sum(dollars) > 500'),
        await api.define("Nobody here", f'inSegment("{empty}")'),
        await api.define("The rest", 'not inSegment("partners")'),
    ]
    await load(api, dataset, MEMBERS)
    assert await api.ended(await api.start()) == {"status": "SUCCEEDED", "errors": []}
    found = [set(await members_of_definition(api, id_)) for id_ in ids]
    assert found == [{"crm:00001", "crm:00009"}, {"crm:00001"}, set(), {"crm:00002"}]
    document = "query ($id: ID!) { audience(id: $id) { dependents { totalCount nodes { name } } jobs { totalCount } } }"
    told = (await api.query(document, id="partners"))["audience"]
    assert [node["name"] for node in told["dependents"]["nodes"]] == ["By id", "By name", "The rest"]
    assert (told["dependents"]["totalCount"], told["jobs"]["totalCount"]) == (3, 0)
    refers = "query ($id: ID!) { audience(id: $id) { dependencies { totalCount nodes { audienceId type } } } }"
    assert (await api.query(refers, id=ids[0]))["audience"]["dependencies"] == {
        "totalCount": 1,
        "nodes": [{"audienceId": "partners", "type": "EXTERNAL_SEGMENT"}],
    }
    refused = await delete(api, id="partners")
    assert [error["message"] for error in refused["errors"]] == [
        "'By id', 'By name', 'The rest' refer to it by inSegment: change or delete them first"
    ]
    unknown = await create(api, name="Wrong", expression='inSegment("partner")')
    assert [error["diagnostics"][0]["kind"] for error in unknown["errors"]] == ["UNKNOWN_SEGMENT"]


async def members_of_definition(api: Api, id_: str) -> list[str]:
    document = "query ($id: ID!) { audience(id: $id) { members { nodes { profile { profileId } } } } }"
    nodes = (await api.query(document, id=id_))["audience"]["members"]["nodes"]
    return [node["profile"]["profileId"] for node in nodes]


async def test_metrics_are_none_at_the_instant_of_expiry(api: Api, clock: FixedClock) -> None:
    dataset = await members_dataset(api)
    await external(api, dataset, ttlInDays=7)
    await load(api, dataset, MEMBERS)
    clock.advance(timedelta(days=7))
    assert await members_of(api) == {}
    document = (
        '{ audience(id: "partners") { name expiresAt metrics { totalProfiles updatedAt byNamespace { count } } } }'
    )
    assert (await api.query(document))["audience"] == {
        "name": "Partners",
        "expiresAt": "2026-06-22T12:00:00Z",
        "metrics": {"totalProfiles": 0, "updatedAt": "2026-06-22T12:00:00Z", "byNamespace": []},
    }


@pytest.mark.parametrize("way", [by_websocket, by_sse])
async def test_an_audience_is_watched(api: Api, port: int, working: None, way: Any) -> None:
    await api.loaded()
    id_ = await made(api, name="A", expression=COMPUTED)
    watch = """subscription ($id: ID!) { audienceUpdated(id: $id) {
      name etag metrics { totalProfiles } members { totalCount } } }"""
    stream = way(port, watch, id=id_)
    assert (await anext(stream))["audienceUpdated"] == {
        "name": "A",
        "etag": "1",
        "metrics": None,
        "members": {"totalCount": 0},
    }
    await update(api, id=id_, name="B")
    assert (await anext(stream))["audienceUpdated"]["name"] == "B"
    await api.start(id_)
    assert (await anext(stream))["audienceUpdated"] == {
        "name": "B",
        "etag": "2",
        "metrics": {"totalProfiles": 2},
        "members": {"totalCount": 2},
    }
    await delete(api, id=id_)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    for sandbox, unknown in (("prod", id_), ("dev", id_)):
        with pytest.raises(TransportQueryError) as refused:
            await anext(way(port, watch, sandbox=sandbox, id=unknown))
        (error,) = refused.value.errors or []
        assert error["extensions"]["code"] == "NOT_FOUND"


async def test_a_preview_sees_external_members_by_either_id(api: Api, working: None) -> None:
    await api.loaded()
    dataset = await members_dataset(api)
    await external(api, dataset)
    nobody = await made(api, name="Nobody", type="EXTERNAL_SEGMENT")
    await load(api, dataset, MEMBERS)
    state = "query ($id: ID!) { preview(id: $id) { state estimate { estimatedSize } } }"
    for expression, size in (('inSegment("partners")', 2), (f'inSegment("partners") and not inSegment("{nobody}")', 2)):
        id_ = await api.preview(expression)
        found: dict[str, Any] = {"state": "NEW"}
        for _ in range(1_000):
            found = (await api.query(state, id=id_))["preview"]
            if found["state"] in {"RESULT_READY", "FAILED"}:
                break
            await asyncio.sleep(0.02)
        assert found == {"state": "RESULT_READY", "estimate": {"estimatedSize": size}}
