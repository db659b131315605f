"""Questions about profiles over the API: lists by expression, overlap; refusals are data."""

from typing import Any

import pytest

from app.api.global_ids import global_id
from tests.api.conftest import Api
from tests.api.test_subscriptions import by_sse

PROFILES = """query ($where: String, $orderBy: ProfileOrder, $first: Int, $after: String, $last: Int, $before: String) {
  profiles(where: $where, orderBy: $orderBy, first: $first, after: $after, last: $last, before: $before) {
    totalCount nodes { profileId } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
OVERLAP = """query ($people: [PeopleInput!]!, $policy: ID) { overlap(people: $people, mergePolicyId: $policy) {
  cells { in count } sizes union exact error { __typename code message path } } }"""


async def ids(api: Api, **arguments: Any) -> list[str]:
    return [node["profileId"] for node in (await api.query(PROFILES, **arguments))["profiles"]["nodes"]]


async def test_profiles_are_filtered_ordered_and_paged(api: Api) -> None:
    await api.loaded()
    by_sum = {"expression": "xEvent.sum(dollars)", "direction": "DESC"}
    assert await ids(api, orderBy=by_sum) == ["crm:00002", "crm:00001"]
    assert await ids(api, orderBy={"expression": "xEvent.sum(dollars)"}) == ["crm:00001", "crm:00002"]
    assert await ids(api, where="xEvent.count() = 2") == ["crm:00001"]
    first = (await api.query(PROFILES, orderBy=by_sum, first=1))["profiles"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (2, True)
    assert await ids(api, orderBy=by_sum, first=1, after=first["pageInfo"]["endCursor"]) == ["crm:00001"]
    last = (await api.query(PROFILES, orderBy=by_sum, last=1))["profiles"]
    assert [node["profileId"] for node in last["nodes"]] == ["crm:00001"]
    assert await ids(api, orderBy=by_sum, last=1, before=last["pageInfo"]["startCursor"]) == ["crm:00002"]
    assert (await api.query("{ profiles { totalCount } }"))["profiles"] == {"totalCount": 2}
    assert await ids(api.within("other")) == []


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        ({"where": "nothing = 1"}, ["where"]),
        ({"orderBy": {"expression": "nothing"}}, ["orderBy", "expression"]),
        ({"where": "true", "after": "x"}, ["after"]),
    ],
)
async def test_a_list_that_cannot_be_made_is_an_error_with_a_path(
    api: Api, arguments: dict[str, Any], path: list[str]
) -> None:
    await api.loaded()
    answer = await api.answer(PROFILES, **arguments)
    assert [error["extensions"]["path"] for error in answer["errors"] if error["path"] == ["profiles"]] == [path]


@pytest.mark.usefixtures("working")
async def test_overlap_counts_every_cell(api: Api) -> None:
    await api.loaded()
    a = await api.define("A", "xEvent.sum(dollars) > 650")
    b = await api.define("B")
    await api.ended(await api.start())
    people = [{"audienceId": a}, {"audienceId": global_id("Audience", b)}, {"expression": "xEvent.count() = 2"}]
    found = (await api.query(OVERLAP, people=people))["overlap"]
    assert found.pop("cells") == [
        {"in": [True, False, False], "count": 0},
        {"in": [False, True, False], "count": 0},
        {"in": [True, True, False], "count": 1},
        {"in": [False, False, True], "count": 0},
        {"in": [True, False, True], "count": 0},
        {"in": [False, True, True], "count": 1},
        {"in": [True, True, True], "count": 0},
    ]
    assert found == {"sizes": [1, 2, 1], "union": 2, "exact": True, "error": None}


async def test_overlap_is_refused_as_data(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    one = {"expression": "true"}
    for people, code, path in (
        ([one], "INVALID_INPUT", ["people"]),
        ([one] * 9, "LIMIT_EXCEEDED", ["people"]),
        ([one, {}], "INVALID_INPUT", ["people", "1"]),
        ([one, {"audienceId": a, "expression": "true"}], "INVALID_INPUT", ["people", "1"]),
        ([one, {"audienceId": "ghost"}], "NOT_FOUND", ["people", "1", "audienceId"]),
        ([one, {"audienceId": global_id("Dataset", a)}], "NOT_FOUND", ["people", "1", "audienceId"]),
        ([one, {"audienceId": a}], "INVALID_STATE", ["people", "1", "audienceId"]),
        ([one, {"expression": "ghost = 1"}], "INVALID_EXPRESSION", ["people", "1", "expression"]),
    ):
        found = (await api.query(OVERLAP, people=people))["overlap"]
        assert (found["cells"], found["sizes"], found["union"]) == ([], [], 0)
        assert (found["error"]["code"], found["error"]["path"]) == (code, path)
    policy = (await api.query(OVERLAP, people=[one, one], policy="ghost"))["overlap"]["error"]
    assert (policy["code"], policy["path"]) == ("NOT_FOUND", ["mergePolicyId"])
    elsewhere = (await api.within("other").query(OVERLAP, people=[one, {"audienceId": a}]))["overlap"]["error"]
    assert (elsewhere["code"], elsewhere["path"]) == ("NOT_FOUND", ["people", "1", "audienceId"])


EXPLAIN = """query ($profile: IdentityInput!, $people: PeopleInput!) { explain(profile: $profile, people: $people) {
  member root { text start end value holds elements passed children { text value holds children { text } } }
  error { code path message } } }"""


async def test_explain_shows_the_tree_and_refuses_as_data(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    profile = {"namespace": "crm", "id": "00001"}
    found = (await api.query(EXPLAIN, profile=profile, people={"audienceId": global_id("Audience", a)}))["explain"]
    assert found == {
        "member": True,
        "root": {
            "text": "xEvent.sum(dollars) > 500",
            "start": 0,
            "end": 25,
            "value": True,
            "holds": True,
            "elements": None,
            "passed": None,
            "children": [
                {
                    "text": "xEvent.sum(dollars)",
                    "value": 612.5,
                    "holds": None,
                    "children": [{"text": "xEvent"}, {"text": "dollars"}],
                },
                {"text": "500", "value": 500, "holds": None, "children": []},
            ],
        },
        "error": None,
    }
    nobody = (await api.query(EXPLAIN, profile={"namespace": "crm", "id": "x"}, people={"expression": "true"}))[
        "explain"
    ]
    assert (nobody["member"], nobody["root"]["text"], nobody["root"]["children"]) == (False, "", [])
    assert (nobody["error"]["code"], nobody["error"]["path"]) == ("NOT_FOUND", ["profile"])
    for people, path in (({}, ["people"]), ({"expression": "dolars = 1"}, ["people", "expression"])):
        error = (await api.query(EXPLAIN, profile=profile, people=people))["explain"]["error"]
        assert error["path"] == path
    other = api.within("other")
    assert (await other.query(EXPLAIN, profile=profile, people={"audienceId": a}))["explain"]["error"][
        "code"
    ] == "NOT_FOUND"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_sum_of_thousands_of_terms_is_explained(api: Api) -> None:
    await api.loaded()
    long = " + ".join(["xEvent.count()"] * 1_500) + " > 0"
    found = (await api.query(EXPLAIN, profile={"namespace": "crm", "id": "00001"}, people={"expression": long}))[
        "explain"
    ]
    assert (found["member"], found["root"]["children"][0]["value"]) == (True, 3_000)


COMPARE = """query ($id: ID!, $expression: String!) { compare(audienceId: $id, expression: $expression) {
  before after stay enter leave exact enterInterval { level low high }
  entering(first: 1) { totalCount nodes { profileId } } leaving { totalCount nodes { profileId } }
  error { code path } } }"""


@pytest.mark.usefixtures("working")
async def test_compare_counts_and_names_who_moves(api: Api) -> None:
    await api.loaded()
    a = await api.define("A", "xEvent.sum(dollars) > 650")
    await api.ended(await api.start())
    found = (await api.query(COMPARE, id=global_id("Audience", a), expression="xEvent.count() = 2"))["compare"]
    assert found == {
        "before": 1,
        "after": 1,
        "stay": 0,
        "enter": 1,
        "leave": 1,
        "exact": True,
        "enterInterval": {"level": 0.95, "low": 1, "high": 1},
        "entering": {"totalCount": 1, "nodes": [{"profileId": "crm:00001"}]},
        "leaving": {"totalCount": 1, "nodes": [{"profileId": "crm:00002"}]},
        "error": None,
    }
    refused = (await api.query(COMPARE, id=a, expression="nothing = 1"))["compare"]
    assert (refused["entering"], refused["error"]["path"]) == ({"totalCount": 0, "nodes": []}, ["expression"])
    other = (await api.within("other").query(COMPARE, id=a, expression="true"))["compare"]
    assert other["error"] == {"code": "NOT_FOUND", "path": ["audienceId"]}


HISTORY = """query ($id: ID!) { audience(id: $id) {
  history(last: 5) { totalCount nodes { totalProfiles entered exited version job { jobId } } }
  changes { totalCount nodes { status at cursor profile { profileId } audience { name } job { jobId } } }
  versions { totalCount nodes { version expression createdBy mergePolicy { name } } } } }"""
WATCH = """subscription ($ids: [ID!]!, $after: String) { membershipChanged(audienceIds: $ids, after: $after) {
  status cursor profile { profileId } } }"""
REDEFINE = """mutation ($input: UpdateSegmentDefinitionInput!) { updateSegmentDefinition(input: $input) {
  errors { message } } }"""


@pytest.mark.usefixtures("working")
async def test_history_changes_and_versions_of_an_audience(api: Api, port: int) -> None:
    await api.loaded()
    a = await api.define("A", "xEvent.sum(dollars) > 650")
    first = await api.start()
    await api.ended(first)
    await api.query(REDEFINE, input={"id": a, "expression": "xEvent.count() = 2"})
    second = await api.start()
    await api.ended(second)
    found = (await api.query(HISTORY, id=global_id("Audience", a)))["audience"]
    assert found["history"] == {
        "totalCount": 2,
        "nodes": [
            {"totalProfiles": 1, "entered": 1, "exited": 0, "version": 1, "job": {"jobId": first}},
            {"totalProfiles": 1, "entered": 1, "exited": 1, "version": 2, "job": {"jobId": second}},
        ],
    }
    changes = found["changes"]["nodes"]
    assert found["changes"]["totalCount"] == 3
    assert [change["job"]["jobId"] for change in changes] == [first, second, second]
    assert {(change["profile"]["profileId"], change["status"]) for change in changes} == {
        ("crm:00002", "REALIZED"),
        ("crm:00001", "REALIZED"),
        ("crm:00002", "EXITED"),
    }
    assert {change["audience"]["name"] for change in changes} == {"A"}
    default = {"name": "Default: newest value wins"}
    assert found["versions"] == {
        "totalCount": 2,
        "nodes": [
            {"version": 2, "expression": "xEvent.count() = 2", "createdBy": "anonymous", "mergePolicy": default},
            {"version": 1, "expression": "xEvent.sum(dollars) > 650", "createdBy": "anonymous", "mergePolicy": default},
        ],
    }
    stream = by_sse(port, WATCH, ids=[a], after=changes[0]["cursor"])
    told = [(await anext(stream))["membershipChanged"] for _ in range(2)]
    assert [change["cursor"] for change in told] == [change["cursor"] for change in changes[1:]]
    await stream.aclose()
    assert (await api.within("other").query(HISTORY, id=a))["audience"] is None


STATISTICS = """query ($id: ID!, $expressions: [String!]!, $buckets: Int) { audience(id: $id) {
  waterfall { name count }
  statistics(expressions: $expressions, buckets: $buckets) {
    expression count sum quartiles histogram { low high count } error { code path } } } }"""


@pytest.mark.usefixtures("working")
async def test_statistics_answer_each_expression_for_itself(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    expressions = ["xEvent.sum(dollars)", "dolars"]
    early = (await api.query(STATISTICS, id=a, expressions=expressions))["audience"]["statistics"]
    assert [one["error"]["code"] for one in early] == ["INVALID_STATE"] * 2
    await api.ended(await api.start())
    answer = (await api.query(STATISTICS, id=a, expressions=expressions, buckets=1))["audience"]
    assert answer["waterfall"][:3] == [
        {"name": "evaluated", "count": 2},
        {"name": "matched", "count": 2},
        {"name": "consented", "count": 2},
    ]
    dollars, unknown = answer["statistics"]
    assert (dollars["count"], dollars["error"]) == (2, None)
    assert dollars["histogram"] == [{"low": 612.5, "high": dollars["histogram"][0]["high"], "count": 2}]
    assert unknown["error"] == {"code": "INVALID_EXPRESSION", "path": ["expressions", "1"]}
    refused = (await api.query(STATISTICS, id=a, expressions=["1"], buckets=0))["audience"]["statistics"]
    assert refused[0]["error"] == {"code": "INVALID_INPUT", "path": ["buckets"]}
    assert (await api.within("other").query(STATISTICS, id=a, expressions=["1"]))["audience"] is None


MEMBERS = """query ($id: ID!, $where: String, $orderBy: ProfileOrder, $status: [MembershipStatus!], $last: Int) {
  audience(id: $id) { members(where: $where, orderBy: $orderBy, status: $status, last: $last) {
    totalCount nodes { status profile { profileId } audience { name } } pageInfo { hasPreviousPage } } } }"""


async def membership_ids(api: Api, audience: str) -> list[str]:
    """Sorted; each is the same from the audience and from the profile."""
    members = (
        await api.query(f'{{ audience(id: "{audience}") {{ members {{ nodes {{ id profile {{ profileId }} }} }} }} }}')
    )["audience"]["members"]["nodes"]
    for member in members:
        profile = member["profile"]["profileId"]
        own = await api.query(f'{{ profile(id: "{profile}") {{ memberships {{ nodes {{ id }} }} }} }}')
        assert own["profile"]["memberships"]["nodes"] == [{"id": member["id"]}]
    return sorted(member["id"] for member in members)


@pytest.mark.usefixtures("working")
async def test_members_are_filtered_and_ordered_by_expressions(api: Api) -> None:
    await api.loaded()
    raw = await api.define("A", "xEvent.count() > 0")
    a = global_id("Audience", raw)
    assert (await api.query(MEMBERS, id=a, where="true"))["audience"]["members"]["nodes"] == []
    await api.ended(await api.start())

    async def ids_of(**arguments: Any) -> list[str]:
        members = (await api.query(MEMBERS, id=a, **arguments))["audience"]["members"]
        assert {(node["status"], node["audience"]["name"]) for node in members["nodes"]} <= {("REALIZED", "A")}
        return [node["profile"]["profileId"] for node in members["nodes"]]

    assert await ids_of(orderBy={"expression": "xEvent.sum(dollars)", "direction": "DESC"}) == [
        "crm:00002",
        "crm:00001",
    ]
    assert await ids_of(orderBy={"expression": "xEvent.sum(dollars)"}) == ["crm:00001", "crm:00002"]
    assert await ids_of(orderBy={"expression": "xEvent.sum(dollars)"}, last=1) == ["crm:00002"]
    assert await ids_of(where="xEvent.count() = 2") == ["crm:00001"]
    assert await ids_of(where="true", status=["EXITED"]) == []
    for _ in range(2):
        assert await membership_ids(api, a) == [
            global_id("Membership", f"{raw}:crm:00001"),
            global_id("Membership", f"{raw}:crm:00002"),
        ]
    members = (await api.query(MEMBERS, id=a, where="xEvent.count() = 2", last=1))["audience"]["members"]
    assert (members["totalCount"], members["pageInfo"]) == (1, {"hasPreviousPage": False})
    assert (await api.within("other").query(MEMBERS, id=a, where="true"))["audience"] is None
    for arguments, path in (
        ({"where": "nothing = 1"}, ["where"]),
        ({"orderBy": {"expression": "xEvent"}}, ["orderBy", "expression"]),
    ):
        answer = await api.answer(MEMBERS, id=a, **arguments)
        assert {tuple(error["extensions"]["path"]) for error in answer["errors"]} == {tuple(path)}
    plain, filtered = [
        (await api.answer(f'{{ audience(id: "{a}") {{ members{arguments} {{ totalCount }} }} }}'))["extensions"]["cost"]
        for arguments in ("", '(where: "true")')
    ]
    assert filtered["requested"] - plain["requested"] == 5_000
