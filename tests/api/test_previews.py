"""Previews through the API: figures, people, refusals, and an estimate watched while it refines."""

from typing import Any

import pytest

from app.api.global_ids import global_id
from app.clock import Clock, utc_now
from tests.api.conftest import Api
from tests.api.test_subscriptions import WAYS, by_websocket
from tests.support.databases import count_statements

FIGURES = """previewId state estimatedSize numRowsToRead profilesReadSoFar profilesMatchedSoFar totalRows standardError
  confidenceInterval { level low high } estimatedNamespaceDistribution { namespace count } error sequence"""
PREVIEW = f"""query ($id: ID!) {{ preview(id: $id) {{
  id previewId state expression graphType excludeOptOut mergePolicy {{ mergePolicyId }} createdAt
  estimate {{ id {FIGURES} }}
  profiles(first: 1) {{ totalCount pageInfo {{ hasNextPage endCursor }} nodes {{
    profileId identities {{ namespace id }} attributes
    events {{ nodes {{ attributes(paths: ["dollars"]) }} }} }} }} }} }}"""
WATCH = f"subscription ($id: ID!, $after: Int) {{ estimateUpdated(id: $id, after: $after) {{ {FIGURES} }} }}"
CREATE = """mutation ($input: CreatePreviewInput!) { createPreview(input: $input) { preview { state } errors {
  __typename code message path ... on ExpressionError { diagnostics { kind line column length } } } } }"""
CANCEL = """mutation ($id: ID!) { cancelPreview(id: $id) { preview { state estimate { state sequence } }
  errors { code message path } } }"""


@pytest.fixture
def clock() -> Clock:
    """The real one: a worker and streams are at work."""
    return utc_now


async def watched(port: int, id: str, **more: Any) -> list[dict[str, Any]]:
    return [item["estimateUpdated"] async for item in by_websocket(port, WATCH, id=id, **more)]


@pytest.mark.usefixtures("working")
async def test_a_preview_from_its_creation_to_its_people(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    id_ = await api.preview("xEvent.sum(dollars) > 500", mergePolicyId=global_id("MergePolicy", "default"))
    await watched(port, id_)
    with count_statements(api.services.database) as statements:
        found = (await api.query(PREVIEW, id=id_))["preview"]
    estimate = found.pop("estimate")
    people = found.pop("profiles")
    assert found.pop("createdAt")
    assert found == {
        "id": global_id("Preview", id_),
        "previewId": id_,
        "state": "RESULT_READY",
        "expression": "xEvent.sum(dollars) > 500",
        "graphType": "NONE",
        "excludeOptOut": True,
        "mergePolicy": {"mergePolicyId": "default"},
    }
    assert estimate.pop("sequence") >= 4
    assert estimate == {
        "id": global_id("Estimate", id_),
        "previewId": id_,
        "state": "RESULT_READY",
        "estimatedSize": 2,
        "numRowsToRead": 2,
        "profilesReadSoFar": 2,
        "profilesMatchedSoFar": 2,
        "totalRows": 2,
        "standardError": 0.0,
        "confidenceInterval": {"level": 0.95, "low": 2, "high": 2},
        "estimatedNamespaceDistribution": [{"namespace": "crm", "count": 2}],
        "error": None,
    }
    assert (people["totalCount"], people["pageInfo"]["hasNextPage"]) == (2, True)
    (first,) = people["nodes"]
    number = first["identities"][0]["id"]
    amounts: dict[str, list[float]] = {"00001": [600, 12.5], "00002": [700]}
    assert first == {
        "profileId": f"crm:{number}",
        "identities": [{"namespace": "crm", "id": number}],
        "attributes": {"identityMap": {"crm": [{"id": number, "primary": True}]}},
        "events": {"nodes": [{"attributes": {"dollars": amount}} for amount in amounts[number]]},
    }
    document = "query ($id: ID!, $at: String) { preview(id: $id) { profiles(after: $at) { nodes { profileId } } } }"
    rest = (await api.query(document, id=id_, at=people["pageInfo"]["endCursor"]))["preview"]["profiles"]["nodes"]
    assert {first["profileId"], *(node["profileId"] for node in rest)} == {"crm:00001", "crm:00002"}
    # The preview, its policy, its buckets, and the datasets that people are read from.
    own = [statement for statement in statements if "AS tenants" not in statement]
    assert len(own) == 5, own


@WAYS
@pytest.mark.usefixtures("working")
async def test_an_estimate_is_watched_and_resumed(api: Api, port: int, way: Any) -> None:
    await api.loaded()
    id_ = await api.preview("xEvent.sum(dollars) > 650")
    states = [item["estimateUpdated"] async for item in way(port, WATCH, id=global_id("Preview", id_))]
    sequences = [state["sequence"] for state in states]
    assert sequences == list(range(sequences[0], sequences[-1] + 1))
    assert (states[-1]["state"], states[-1]["estimatedSize"]) == ("RESULT_READY", 1)
    everything = [item["estimateUpdated"] async for item in way(port, WATCH, id=global_id("Estimate", id_), after=0)]
    assert [state["sequence"] for state in everything] == list(range(1, sequences[-1] + 1))
    assert [state["state"] for state in everything[:2]] == ["NEW", "RUNNING"]
    assert everything[0]["estimatedSize"] is None
    again = [item["estimateUpdated"] async for item in way(port, WATCH, id=id_, after=3)]
    assert again == everything[3:]


async def test_a_bad_expression_and_bad_ids_are_refused_where_they_stand(api: Api) -> None:
    await api.loaded()
    dataset = global_id("Dataset", "x")

    async def refused(**input: Any) -> dict[str, Any]:
        answer = (await api.query(CREATE, input=input))["createPreview"]
        assert answer["preview"] is None
        (error,) = answer["errors"]
        return dict(error)

    assert await refused(expression="xEvent.sum(dolars) > 1") == {
        "__typename": "ExpressionError",
        "code": "INVALID_EXPRESSION",
        "message": "line 1, column 12: there is no field or variable `dolars` here; did you mean `dollars`?",
        "path": ["input", "expression"],
        "diagnostics": [{"kind": "UNKNOWN_FIELD", "line": 1, "column": 12, "length": 6}],
    }
    assert (await refused(expression="{", format="PQL_JSON"))["path"] == ["input", "expression"]
    assert (await refused(expression="true", mergePolicyId="x"))["path"] == ["input", "mergePolicyId"]
    error = await refused(expression="true", mergePolicyId=dataset)
    assert (error["code"], error["path"]) == ("NOT_FOUND", ["input", "mergePolicyId"])


async def test_cancelling(api: Api, port: int) -> None:
    await api.loaded()
    id_ = await api.preview("true")
    cancelled = {"state": "CANCELLED", "estimate": {"state": "CANCELLED", "sequence": 2}}
    for _ in range(2):
        assert (await api.query(CANCEL, id=id_))["cancelPreview"] == {"preview": cancelled, "errors": []}
    states = await watched(port, id_, after=0)
    assert [state["state"] for state in states] == ["NEW", "CANCELLED"]
    for missing in ("x", global_id("Dataset", id_)):
        answer = (await api.query(CANCEL, id=missing))["cancelPreview"]
        assert answer["preview"] is None
        assert [(error["code"], error["path"]) for error in answer["errors"]] == [("NOT_FOUND", ["id"])]


@pytest.mark.usefixtures("working")
async def test_a_preview_that_has_its_result_cannot_be_cancelled(api: Api, port: int) -> None:
    await api.loaded()
    id_ = await api.preview("true")
    await watched(port, id_)
    assert (await api.query(CANCEL, id=id_))["cancelPreview"] == {
        "preview": None,
        "errors": [
            {
                "code": "INVALID_STATE",
                "message": "the preview has its result and can no longer be cancelled",
                "path": ["id"],
            }
        ],
    }


async def test_watching_what_is_not_there_is_refused(api: Api, port: int) -> None:
    document = 'subscription { estimateUpdated(id: "x") { state } }'
    with pytest.raises(Exception, match="there is no preview 'x' in this sandbox"):
        [item async for item in by_websocket(port, document)]
