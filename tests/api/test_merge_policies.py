"""Merge policies over the API: made, changed, deleted, and refused with nothing changed."""

from datetime import timedelta
from typing import Any

from app.api.context import ApiServices
from app.services.jobs.segment.run import run_segment_job
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.api.conftest import Api

FIELDS = "mergePolicy { mergePolicyId name method identityGraph isDefault etag datasets { datasetId } }"
ERRORS = "errors { __typename code path message ... on StaleEtagError { currentEtag } }"
CREATE = f"mutation ($input: CreateMergePolicyInput!) {{ createMergePolicy(input: $input) {{ {FIELDS} {ERRORS} }} }}"
UPDATE = f"mutation ($input: UpdateMergePolicyInput!) {{ updateMergePolicy(input: $input) {{ {FIELDS} {ERRORS} }} }}"
DELETE = f"mutation ($input: DeleteInput!) {{ deleteMergePolicy(input: $input) {{ deletedId {ERRORS} }} }}"


async def all_policies(api: Api) -> list[Any]:
    found = await api.query("{ mergePolicies { nodes { mergePolicyId name isDefault etag } } }")
    nodes: list[Any] = found["mergePolicies"]["nodes"]
    return nodes


async def made(api: Api, **input: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await api.query(CREATE, input=input))["createMergePolicy"]
    return payload


async def test_a_policy_is_made_changed_and_deleted(api: Api) -> None:
    people = await api.dataset("people", "PROFILE")
    policy = await made(api, name="Shop first", method="DATA_SET_PRECEDENCE", datasetIds=[people])
    assert policy["errors"] == []
    one = policy["mergePolicy"]
    assert (one["etag"], one["isDefault"], one["datasets"]) == ("1", False, [{"datasetId": people}])
    id_ = one["mergePolicyId"]
    change = {"id": id_, "etag": "1", "method": "TIMESTAMP_ORDERED", "datasetIds": None, "isDefault": True}
    changed = (await api.query(UPDATE, input=change))["updateMergePolicy"]
    assert changed["errors"] == []
    assert (changed["mergePolicy"]["method"], changed["mergePolicy"]["etag"]) == ("TIMESTAMP_ORDERED", "2")
    assert {each["mergePolicyId"]: (each["isDefault"], each["etag"]) for each in await all_policies(api)} == {
        "default": (False, "2"),
        id_: (True, "2"),
    }
    stale = (await api.query(UPDATE, input=change))["updateMergePolicy"]["errors"]
    assert [(error["__typename"], error["currentEtag"]) for error in stale] == [("StaleEtagError", "2")]
    refused = (await api.query(DELETE, input={"id": id_}))["deleteMergePolicy"]
    assert (refused["deletedId"], refused["errors"][0]["code"]) == (None, "INVALID_STATE")
    back = (await api.query(UPDATE, input={"id": "default", "isDefault": True}))["updateMergePolicy"]
    assert back["errors"] == []
    assert (await api.query(DELETE, input={"id": id_, "etag": "3"}))["deleteMergePolicy"]["errors"] == []
    assert [each["mergePolicyId"] for each in await all_policies(api)] == ["default"]


async def test_what_does_not_fit_is_refused_together_and_changes_nothing(api: Api) -> None:
    events = await api.dataset()
    before = await all_policies(api)
    errors = (await made(api, name=" ", method="DATA_SET_PRECEDENCE", datasetIds=[events, "nowhere"]))["errors"]
    assert [(error["code"], error["path"]) for error in errors] == [
        ("INVALID_INPUT", ["input", "name"]),
        ("INVALID_INPUT", ["input", "datasetIds", "0"]),
        ("NOT_FOUND", ["input", "datasetIds", "1"]),
    ]
    errors = (await made(api, name="P", method="DATA_SET_PRECEDENCE"))["errors"]
    assert [(error["code"], error["path"]) for error in errors] == [("INVALID_INPUT", ["input", "datasetIds"])]
    unmade = [policy for policy in await all_policies(api) if policy["mergePolicyId"] != "default"]
    assert (unmade, before) == ([], [])


async def test_a_policy_in_use_is_not_deleted_and_another_sandbox_does_not_see_it(api: Api) -> None:
    await api.loaded()
    id_ = (await made(api, name="P", method="TIMESTAMP_ORDERED"))["mergePolicy"]["mergePolicyId"]
    document = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
      errors { message } } }"""
    new = {"name": "Big", "expression": "xEvent.sum(dollars) > 500", "mergePolicyId": id_}
    assert (await api.query(document, input=new))["createSegmentDefinition"]["errors"] == []
    errors = (await api.query(DELETE, input={"id": id_}))["deleteMergePolicy"]["errors"]
    assert [(error["__typename"], error["code"]) for error in errors] == [("DependentsError", "HAS_DEPENDENTS")]
    assert errors[0]["message"].startswith("'Big' use it")
    elsewhere = (await api.within("dev").query(DELETE, input={"id": id_}))["deleteMergePolicy"]["errors"]
    assert [error["code"] for error in elsewhere] == ["NOT_FOUND"]
    assert id_ in [policy["mergePolicyId"] for policy in await all_policies(api)]


async def test_a_job_keeps_the_policy_that_it_ran_under(api: Api, services: ApiServices) -> None:
    await api.loaded()
    policy = (await made(api, name="Then", method="TIMESTAMP_ORDERED"))["mergePolicy"]["mergePolicyId"]
    document = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
      definition { segmentId } errors { message } } }"""
    asked = {"name": "A", "expression": "xEvent.sum(dollars) > 500", "mergePolicyId": policy}
    segment = (await api.query(document, input=asked))["createSegmentDefinition"]["definition"]["segmentId"]

    async def run() -> None:
        claim = await claim_next(
            services.database, services.clock, owner="test", lease=timedelta(seconds=60), kind=JobKind.SEGMENT
        )
        assert claim is not None
        await run_segment_job(Attempt(services.database, services.clock, claim), services.lake, 1)

    job = await api.start(segment)
    await run()
    later = await api.start(segment)
    moved = """mutation ($id: ID!) { updateSegmentDefinition(input: {id: $id, mergePolicyId: "default"}) {
      errors { message } } }"""
    assert (await api.query(moved, id=segment))["updateSegmentDefinition"]["errors"] == []
    (refused,) = (await api.query(DELETE, input={"id": policy}))["deleteMergePolicy"]["errors"]
    message = f"the segment jobs {later} use it: wait until they end, or cancel them first"
    assert (refused["code"], refused["message"]) == ("HAS_DEPENDENTS", message)
    await run()
    assert (await api.query(DELETE, input={"id": policy}))["deleteMergePolicy"]["errors"] == []
    document = "query ($id: ID!) { segmentJob(id: $id) { status metrics { totalProfilesByMergePolicy { %s } } } }"
    found = await api.query(document % "count mergePolicy { mergePolicyId name }", id=job)
    counts = [{"count": 2, "mergePolicy": {"mergePolicyId": policy, "name": "Then"}}]
    assert found["segmentJob"] == {"status": "SUCCEEDED", "metrics": {"totalProfilesByMergePolicy": counts}}
