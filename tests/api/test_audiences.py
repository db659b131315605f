"""Audiences: made, changed, replaced, deleted and counted; what is refused, and that nothing changed then."""

from typing import Any

from app.api.global_ids import global_id
from tests.api.conftest import Api

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


async def test_an_external_audience_is_found_by_what_its_maker_calls_it(api: Api) -> None:
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
                "message": "there is an audience 'partner-7' in the namespace 'AAM' already: change that one",
                "path": ["input", "audienceId"],
            }
        ],
    }
    assert await everything(api) == [found]
    twin = await made(api, name="Twin", type="EXTERNAL_SEGMENT", audienceId="partner-7", namespace="AAMTraits")
    assert twin == "partner-7"
    ambiguous = await api.query('{ audience(id: "partner-7") { name } }')
    assert ambiguous["audience"] is None, "two namespaces have it: say which by the global id"


async def test_defaults_of_an_external_audience(api: Api) -> None:
    found = (await create(api, name="Uploaded", type="EXTERNAL_SEGMENT"))["audience"]
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
