"""Segment definitions, their audiences, and PQL as a service."""

from typing import Any

import pytest

from app.api.global_ids import global_id
from app.services import merge_policies
from tests.api.conftest import Api

ERRORS = """errors { __typename code message path
  ... on ExpressionError { diagnostics { kind severity message line column length suggestions } }
  ... on StaleEtagError { currentEtag }
  ... on DependentsError { dependents { __typename id } } }"""
CREATE = f"""mutation ($input: CreateSegmentDefinitionInput!) {{ createSegmentDefinition(input: $input) {{
  definition {{ id segmentId version etag }} {ERRORS} }} }}"""
UPDATE = f"""mutation ($input: UpdateSegmentDefinitionInput!) {{ updateSegmentDefinition(input: $input) {{
  definition {{ name description expression version etag }} {ERRORS} }} }}"""
DELETE = f"""mutation ($input: DeleteInput!) {{ deleteSegmentDefinition(input: $input) {{ deletedId {ERRORS} }} }}"""
READ = "query ($id: ID!) { segmentDefinition(id: $id) { name expression version etag } }"


async def create(api: Api, **values: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await api.query(CREATE, input=values))["createSegmentDefinition"]
    return payload


async def update(api: Api, **values: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await api.query(UPDATE, input=values))["updateSegmentDefinition"]
    return payload


async def test_a_definition_and_its_audience(api: Api) -> None:
    await api.loaded()
    made = await create(
        api,
        name="Big spenders",
        description="Over 500",
        expression="xEvent.sum(dollars) > 500",
        labels=["core/C1"],
        excludeOptOut=False,
    )
    assert made["errors"] == []
    id_ = made["definition"]["segmentId"]
    found = await api.query(
        """query ($id: ID!) {
          segmentDefinition(id: $id) {
            id segmentId name description expression version evaluationMethods schemaName excludeOptOut labels
            mergePolicy { mergePolicyId isDefault method identityGraph datasets { id } }
            createdBy lastModifiedBy createdAt updatedAt etag
            dependencies { totalCount } dependents { totalCount } jobs { totalCount nodes { id } }
            audience { id audienceId } }
          audience(id: $id) {
            id audienceId name description type origin namespace lifecycleState evaluationMethods excludeOptOut labels
            ttlInDays expiresAt dataset { id } audienceMeta linkedAudienceRef { flowId } isSystem
            saveSegmentMembership overridePerformanceWarnings metrics { totalProfiles } etag
            definition { id } mergePolicy { id } dependencies { nodes { id } } dependents { nodes { id } }
            jobs { nodes { id } } members { totalCount nodes { status } } } }""",
        id=id_,
    )
    assert found["segmentDefinition"] == {
        "id": global_id("SegmentDefinition", id_),
        "segmentId": id_,
        "name": "Big spenders",
        "description": "Over 500",
        "expression": "xEvent.sum(dollars) > 500",
        "version": 1,
        "evaluationMethods": ["BATCH"],
        "schemaName": "_xdm.context.profile",
        "excludeOptOut": False,
        "labels": ["core/C1"],
        "mergePolicy": {
            "mergePolicyId": merge_policies.DEFAULT_POLICY_ID,
            "isDefault": True,
            "method": "TIMESTAMP_ORDERED",
            "identityGraph": "NONE",
            "datasets": [],
        },
        "createdBy": "anonymous",
        "lastModifiedBy": "anonymous",
        "createdAt": "2026-06-15T12:00:00Z",
        "updatedAt": "2026-06-15T12:00:00Z",
        "etag": "1",
        "dependencies": {"totalCount": 0},
        "dependents": {"totalCount": 0},
        "jobs": {"totalCount": 0, "nodes": []},
        "audience": {"id": global_id("Audience", id_), "audienceId": id_},
    }
    assert found["audience"] == {
        "id": global_id("Audience", id_),
        "audienceId": id_,
        "name": "Big spenders",
        "description": "Over 500",
        "type": "SEGMENT_DEFINITION",
        "origin": "REAL_TIME_CUSTOMER_PROFILE",
        "namespace": "AEPSegments",
        "lifecycleState": "PUBLISHED",
        "evaluationMethods": ["BATCH"],
        "excludeOptOut": False,
        "labels": ["core/C1"],
        "ttlInDays": None,
        "expiresAt": None,
        "dataset": None,
        "audienceMeta": None,
        "linkedAudienceRef": None,
        "isSystem": False,
        "saveSegmentMembership": True,
        "overridePerformanceWarnings": False,
        "metrics": None,
        "etag": "1",
        "definition": {"id": global_id("SegmentDefinition", id_)},
        "mergePolicy": {"id": global_id("MergePolicy", merge_policies.DEFAULT_POLICY_ID)},
        "dependencies": {"nodes": []},
        "dependents": {"nodes": []},
        "jobs": {"nodes": []},
        "members": {"totalCount": 0, "nodes": []},
    }


async def test_an_expression_that_cannot_be_used_is_refused_with_its_places(api: Api) -> None:
    await api.loaded()
    refused = await create(api, name="Typo", expression="xEvent.sum(dolars) > 500")
    assert refused["definition"] is None
    (error,) = refused["errors"]
    assert (error["__typename"], error["code"]) == ("ExpressionError", "INVALID_EXPRESSION")
    assert error["path"] == ["input", "expression"]
    (finding,) = error["diagnostics"]
    assert (finding["kind"], finding["severity"]) == ("UNKNOWN_FIELD", "ERROR")
    assert (finding["line"], finding["column"], finding["length"]) == (1, 12, 6)
    assert "dollars" in finding["suggestions"]
    assert (await api.query("{ segmentDefinitions { totalCount } }"))["segmentDefinitions"] == {"totalCount": 0}


async def test_a_taken_name_is_refused(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    assert await create(api, name="A", expression="xEvent.sum(dollars) > 1") == {
        "definition": None,
        "errors": [
            {
                "__typename": "InputError",
                "code": "ALREADY_EXISTS",
                "message": "a definition named 'A' already exists: choose another name",
                "path": ["input", "name"],
            }
        ],
    }
    assert (await api.query("{ audiences { totalCount } }"))["audiences"] == {"totalCount": 1}


async def test_several_mistakes_are_told_together(api: Api) -> None:
    refused = await create(
        api, name="", expression="xEvent.sum(", labels=['a"b'], mergePolicyId=None, evaluationMethods=[]
    )
    assert [(error["__typename"], error["code"], error["path"]) for error in refused["errors"]] == [
        ("InputError", "INVALID_INPUT", ["input", "name"]),
        ("InputError", "INVALID_INPUT", ["input", "evaluationMethods"]),
        ("InputError", "INVALID_INPUT", ["input", "labels", "0"]),
        ("ExpressionError", "INVALID_EXPRESSION", ["input", "expression"]),
    ]


async def test_an_update_changes_what_is_given_and_counts_versions(api: Api) -> None:
    await api.loaded()
    id_ = await api.define("A")
    assert (await update(api, id=id_, description="x"))["definition"] == {
        "name": "A",
        "description": "x",
        "expression": "xEvent.sum(dollars) > 500",
        "version": 1,
        "etag": "2",
    }
    changed = await update(
        api, id=global_id("SegmentDefinition", id_), etag="2", expression="xEvent.sum(dollars) > 5", description=None
    )
    assert changed == {
        "definition": {
            "name": "A",
            "description": None,
            "expression": "xEvent.sum(dollars) > 5",
            "version": 2,
            "etag": "3",
        },
        "errors": [],
    }


async def test_a_stale_etag_is_refused_with_the_present_one(api: Api) -> None:
    await api.loaded()
    id_ = await api.define("A")
    await update(api, id=id_, name="B")
    refused = await update(api, id=id_, etag="1", name="C")
    assert refused == {
        "definition": None,
        "errors": [
            {
                "__typename": "StaleEtagError",
                "code": "STALE_ETAG",
                "message": "the object has been changed since it was read: read it again and repeat the change",
                "path": ["input", "etag"],
                "currentEtag": "2",
            }
        ],
    }
    assert (await api.query(READ, id=id_))["segmentDefinition"]["name"] == "B"


async def test_null_does_not_clear_what_must_be_there(api: Api) -> None:
    await api.loaded()
    id_ = await api.define("A")
    refused = await update(api, id=id_, name=None, expression=None)
    assert [(error["code"], error["path"]) for error in refused["errors"]] == [
        ("INVALID_INPUT", ["input", "name"]),
        ("INVALID_INPUT", ["input", "expression"]),
    ]
    assert (await api.query(READ, id=id_))["segmentDefinition"]["etag"] == "1"


async def test_one_that_others_refer_to_is_not_deleted(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    b = await api.define("B", f'inSegment("{a}")')
    refused = (await api.query(DELETE, input={"id": a}))["deleteSegmentDefinition"]
    assert refused == {
        "deletedId": None,
        "errors": [
            {
                "__typename": "DependentsError",
                "code": "HAS_DEPENDENTS",
                "message": "'B' refer to it by inSegment: change or delete them first",
                "path": ["input", "id"],
                "dependents": [{"__typename": "SegmentDefinition", "id": global_id("SegmentDefinition", b)}],
            }
        ],
    }
    links = await api.query(
        """query ($a: ID!, $b: ID!) {
          a: segmentDefinition(id: $a) { dependents { totalCount nodes { name } } dependencies { totalCount } }
          b: audience(id: $b) { dependencies { totalCount nodes { name } } dependents { nodes { name } } } }""",
        a=a,
        b=b,
    )
    assert links["a"] == {"dependents": {"totalCount": 1, "nodes": [{"name": "B"}]}, "dependencies": {"totalCount": 0}}
    assert links["b"] == {"dependencies": {"totalCount": 1, "nodes": [{"name": "A"}]}, "dependents": {"nodes": []}}
    for id_ in (b, a):
        gone = (await api.query(DELETE, input={"id": id_}))["deleteSegmentDefinition"]
        assert gone == {"deletedId": global_id("SegmentDefinition", id_), "errors": []}
    assert (await api.query("{ audiences { totalCount } }"))["audiences"] == {"totalCount": 0}


@pytest.mark.parametrize("wrong", ["nothing", global_id("Dataset", "1"), ""])
async def test_unknown_ids(api: Api, wrong: str) -> None:
    assert (await api.query(READ, id=wrong))["segmentDefinition"] is None
    for document, input_ in ((UPDATE, {"id": wrong, "name": "x"}), (DELETE, {"id": wrong})):
        ((_, payload),) = (await api.query(document, input=input_)).items()
        assert [(error["code"], error["path"]) for error in payload["errors"]] == [("NOT_FOUND", ["input", "id"])]


async def test_lists_are_filtered_and_ordered(api: Api) -> None:
    await api.loaded()
    ids = {name: await api.define(name) for name in ("beta", "Alpha", "gamma")}
    document = """query ($filter: SegmentDefinitionFilter, $order: SegmentDefinitionOrder) {
      segmentDefinitions(filter: $filter, orderBy: $order) { totalCount nodes { name } } }"""

    async def names(filter: Any = None, field: str = "NAME", direction: str = "ASC") -> list[str]:
        order = {"field": field, "direction": direction}
        found = (await api.query(document, filter=filter, order=order))["segmentDefinitions"]
        assert found["totalCount"] == len(found["nodes"])
        return [node["name"] for node in found["nodes"]]

    assert sorted(await names()) == ["Alpha", "beta", "gamma"]
    assert await names(direction="DESC") == list(reversed(await names()))
    assert await names({"name": {"contains": "A"}}, direction="DESC") == await names(direction="DESC")
    assert await names({"name": {"startsWith": "al"}}) == ["Alpha"]
    assert await names({"name": {"in": ["beta", "x"]}}) == ["beta"]
    assert await names({"id": [ids["gamma"], global_id("SegmentDefinition", ids["beta"])]}) == ["beta", "gamma"]
    assert await names({"createdAt": {"lt": "2026-06-15T12:00:00Z"}}) == []
    assert len(await names({"createdAt": {"gte": "2026-06-15T12:00:00Z"}, "evaluationMethod": "BATCH"})) == 3
    answer = await api.answer(document, filter={"id": [global_id("Dataset", "1")]})
    assert answer["errors"][0]["extensions"] == {"code": "NOT_FOUND", "path": ["filter", "id", "0"]}


async def test_audiences_are_filtered_and_ordered(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    await api.define("B")
    document = """query ($filter: AudienceFilter, $order: AudienceOrder) {
      audiences(filter: $filter, orderBy: $order) { totalCount nodes { name } } }"""
    found = await api.query(
        document,
        filter={"type": ["SEGMENT_DEFINITION"], "lifecycleState": ["PUBLISHED"], "name": {"ne": "A"}},
        order={"field": "TOTAL_PROFILES", "direction": "DESC"},
    )
    assert found["audiences"] == {"totalCount": 1, "nodes": [{"name": "B"}]}


async def test_pages_backward(api: Api) -> None:
    await api.loaded()
    for name in ("a", "b", "c"):
        await api.define(name)
    document = """query ($last: Int, $before: String) {
      segmentDefinitions(last: $last, before: $before, orderBy: {field: NAME, direction: ASC}) {
        nodes { name } pageInfo { hasNextPage hasPreviousPage startCursor } } }"""
    page = (await api.query(document, last=2))["segmentDefinitions"]
    assert [node["name"] for node in page["nodes"]] == ["b", "c"]
    assert (page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == (False, True)
    page = (await api.query(document, last=2, before=page["pageInfo"]["startCursor"]))["segmentDefinitions"]
    assert [node["name"] for node in page["nodes"]] == ["a"]
    assert (page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == (True, False)


async def test_pql_is_checked(api: Api) -> None:
    await api.loaded()
    document = """query ($expression: String!) { pql { check(expression: $expression) {
      ok canonical references diagnostics { kind message line column length suggestions } } } }"""
    good = (await api.query(document, expression="xEvent.sum( dollars )>500"))["pql"]["check"]
    assert (good["ok"], good["diagnostics"], good["references"]) == (True, [], [])
    assert good["canonical"] == "xEvent.sum(dollars) > 500"
    bad = (await api.query(document, expression="xEvent.sum(dollars) >"))["pql"]["check"]
    assert (bad["ok"], bad["canonical"]) == (False, None)
    assert [finding["kind"] for finding in bad["diagnostics"]] == ["SYNTAX"]


async def test_a_limit_is_given_read_changed_and_taken_away(api: Api) -> None:
    await api.loaded()
    create = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
      definition { segmentId version limit { first by direction } streamingEligibility { eligible reasons } }
      errors { code path message } } }"""
    update = """mutation ($input: UpdateSegmentDefinitionInput!) { updateSegmentDefinition(input: $input) {
      definition { version limit { first by direction } } errors { code path message } } }"""
    new = {"name": "Best", "expression": "xEvent.count() > 0", "limit": {"first": 1, "by": "xEvent.sum(dollars)"}}
    made = (await api.query(create, input=new))["createSegmentDefinition"]["definition"]
    kept = {"first": 1, "by": "xEvent.sum(dollars)", "direction": "DESC"}
    reasons = ["a limit compares all profiles with one another, which only a job does"]
    assert made["limit"] == kept
    assert made["streamingEligibility"]["eligible"] is False
    assert made["streamingEligibility"]["reasons"][-1:] == reasons
    id = made["segmentId"]
    changed = {"id": id, "limit": {**kept, "direction": "ASC"}}
    payload = (await api.query(update, input=changed))["updateSegmentDefinition"]
    assert payload["definition"] == {"version": 2, "limit": {**kept, "direction": "ASC"}}
    payload = (await api.query(update, input={"id": id, "limit": None}))["updateSegmentDefinition"]
    assert payload["definition"] == {"version": 3, "limit": None}
    wrong = {"id": id, "limit": {"first": 0, "by": "xEvent.sum(dollar)"}}
    errors = (await api.query(update, input=wrong))["updateSegmentDefinition"]["errors"]
    assert [(error["code"], error["path"]) for error in errors] == [
        ("INVALID_INPUT", ["input", "limit", "first"]),
        ("INVALID_EXPRESSION", ["input", "limit", "by"]),
    ]
