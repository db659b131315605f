"""What one operation may cost."""

import asyncio
import dataclasses
from typing import Any

import pytest

from app.api.context import ApiServices, Caller, Limits
from app.api.execution import levels
from app.api.guards.cost import WEIGHTS
from app.api.schema import build_schema
from app.scope import Scope
from tests.api.conftest import Api

# What is tried here asks nothing of the database that depends on its kind.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def limits() -> Limits:
    return Limits(max_tokens=200, max_depth=4, max_aliases=3, max_upload_bytes=2_000, max_cost=30_000)


async def refusals(api: Api, document: str) -> list[str]:
    answer = await api.answer(document)
    assert "data" not in answer
    return [error["message"] for error in answer["errors"]]


async def test_depth(api: Api) -> None:
    allowed = "{ segmentJobs { nodes { segments { totalCount } } } }"
    assert "errors" not in await api.answer(allowed)
    deeper = "{ segmentJobs { nodes { segments { nodes { version } } } } }"
    says = ["the operation is 5 levels deep, and at most 4 are allowed: split it"]
    assert await refusals(api, deeper) == says
    spread = "{ segmentJobs { ...A } } fragment A on SegmentJobConnection { nodes { ... on SegmentJob { ...B } } } "
    assert await refusals(api, spread + "fragment B on SegmentJob { segments { nodes { version } } }") == says


async def test_aliases_also_in_fragments(api: Api) -> None:
    three = "{ a: viewer { sandbox } b: viewer { sandbox } c: viewer { sandbox } }"
    assert "errors" not in await api.answer(three)
    twice = "{ a: viewer { ...F } b: viewer { ...F } } fragment F on Viewer { c: sandbox }"
    assert await refusals(api, twice) == ["the operation has 4 aliases, and at most 3 are allowed: split it"]


async def test_fragments_that_multiply_come_to_an_end(api: Api) -> None:
    chain = " ".join(f"fragment F{i} on Viewer {{ ...F{i + 1} ...F{i + 1} }}" for i in range(12))
    document = f"{{ viewer {{ ...F0 }} }} {chain} fragment F12 on Viewer {{ x: sandbox }}"
    assert await refusals(api, document) == [f"the operation has {2**12} aliases, and at most 3 are allowed: split it"]


async def test_unknown_and_circular_fragments_are_graphqls_own_errors(api: Api) -> None:
    assert await refusals(api, "{ viewer { ...Gone } }") == ["Unknown fragment 'Gone'."]
    circle = "{ viewer { ...A } } fragment A on Viewer { ...A }"
    assert await refusals(api, circle) == ["Cannot spread fragment 'A' within itself."]


async def test_tokens(api: Api) -> None:
    (says,) = await refusals(api, "{ viewer { " + "sandbox " * 200 + "} }")
    assert says == "the document has more than 200 tokens: split it"


async def test_a_document_that_was_valid_is_valid_again_and_one_that_was_not_is_not(api: Api) -> None:
    for _ in range(2):
        assert "errors" not in await api.answer("{ viewer { sandbox } }")
        assert await refusals(api, "{ viewer { nothing } }") == ["Cannot query field 'nothing' on type 'Viewer'."]


async def test_uploads(api: Api) -> None:
    response = await api.upload(await api.dataset(), b"customer,when\n" + b"1,2026-01-01\n" * 200)
    assert response.status_code == 413
    assert response.json()["errors"][0]["message"].startswith("the request is larger than 2,000 bytes")


async def test_pages(api: Api) -> None:
    for first, code, says in (
        (501, "LIMIT_EXCEEDED", "`first` is 501, but a page has at most 500 items: ask for several pages"),
        (-1, "INVALID_INPUT", "`first` is -1, but a page has 0 items or more"),
    ):
        answer = await api.answer("query ($first: Int) { datasets(first: $first) { totalCount } }", first=first)
        (error,) = answer["errors"]
        assert error["message"] == says
        assert error["extensions"] == {"code": code, "path": ["first"]}
        assert error["path"] == ["datasets"]


@pytest.mark.parametrize(
    ("document", "cost"),
    [
        ("{ __typename }", 1),
        ("{ viewer { sandbox } }", 2),
        ("{ datasets { totalCount } }", 2),
        ("{ datasets { nodes { name kind } pageInfo { endCursor } } }", 1 + (1 + 50 * 2) + 2),
        ("{ datasets(last: 7) { edges { cursor node { name } } } }", 1 + 1 + 7 * (1 + 1 + 1)),
        ("{ datasets(first: 0) { nodes { name } } }", 3),
        ("{ audiences(first: 2) { nodes { name members(first: 3) { totalCount } } } }", 2 + 2 * (1 + 2)),
        ('{ nodes(ids: ["a", "b", "c"]) { id } }', 1 + 3 + 3),
        ("{ profiles(first: 2) { nodes { id } } }", 1 + 1 + 2),
        ('{ profiles(first: 2, where: "true") { nodes { id } } }', 1 + 5_000 + 1 + 2),
        ("{ profiles(first: 2) { nodes { events(first: 3) { totalCount } } } }", 1 + 1 + 2 * (1 + 250 + 1)),
        ("{ audiences(first: 2) { nodes { waterfall { name } } } }", 1 + 1 + 2 * (1 + 5_000 + 10)),
        ('{ audiences(first: 1) { nodes { statistics(expressions: ["1", "2"]) { count } } } }', 2 + 1 + 5_000 + 2 + 2),
        ('{ overlap(people: [{ expression: "true" }, { expression: "false" }]) { union } }', 1 + 5_000 + 2 + 1),
        ('{ compare(audienceId: "x", expression: "true") { enter } }', 1 + 5_000 + 1),
        ("{ ...F } fragment F on Query { datasets(first: 4) { ...P } } "
         "fragment P on DatasetConnection { nodes { name } }", 2 + 4),
    ],
)  # fmt: skip
async def test_every_answer_says_what_it_cost(api: Api, document: str, cost: int) -> None:
    answer = await api.answer(document)
    assert "errors" not in answer
    assert answer["extensions"] == {"cost": {"requested": cost, "limit": 30_000}}


def test_weights_are_of_fields_that_there_are(database_url: str) -> None:
    schema = build_schema(Limits())._schema
    for coordinate, (_, arguments) in WEIGHTS.items():
        type_, name = coordinate.split(".")
        field = schema.type_map[type_].fields[name]  # type: ignore[attr-defined]
        assert set(arguments) <= set(field.args), coordinate


async def test_pages_in_variables_count(api: Api) -> None:
    document = "query ($n: Int = 5) { datasets(first: $n) { nodes { name } } }"
    assert (await api.answer(document))["extensions"]["cost"]["requested"] == 7
    assert (await api.answer(document, n=20))["extensions"]["cost"]["requested"] == 22


@pytest.mark.parametrize(
    ("document", "variables", "cost"),
    [
        (
            "{ segmentJobs(first: 500) { nodes { segments(first: 500) { totalCount } } } }",
            {},
            1 + 1 + 500 * (1 + 1),
        ),
        (
            "{ a: audiences(first: 500) { nodes { members(first: 500) { nodes { status } } } } }",
            {},
            2 + 500 * (2 + 500),
        ),
        ("query ($i: [ID!]!) { nodes(ids: $i) { id } }", {"i": ["x"] * 19_000}, 1 + 19_000 + 19_000),
    ],
)
async def test_what_costs_too_much_is_not_executed(
    api: Api, document: str, variables: dict[str, Any], cost: int
) -> None:
    answer = await api.answer(document, **variables)
    if cost <= 30_000:
        assert answer["extensions"]["cost"]["requested"] == cost
        return
    error = answer["errors"][0]
    assert "data" not in answer
    assert error["message"] == f"the operation costs {cost:,}, and at most 30,000 is allowed: " + (
        "ask for smaller pages, or split it"
    )
    says = {"code": "LIMIT_EXCEEDED", "path": [], "name": "max_cost", "limit": 30_000, "value": cost}
    assert error["extensions"] == says


@pytest.mark.parametrize("value", [["x"] * 20_001, {f"k{number}": 1 for number in range(20_001)}])
async def test_variables_with_very_many_items(api: Api, value: Any) -> None:
    answer = await api.answer("query ($i: [ID!]!) { nodes(ids: $i) { id } }", i=value)
    (error,) = answer["errors"]
    assert error["message"] == "the variable i has 20,001 items, and at most 20,000 are taken: split it"
    assert error["extensions"]["limit"] == 20_000


async def test_introspection_costs_too(api: Api) -> None:
    types = "fragment T on __Schema { types { fields { args { name } } } }"
    once = (await api.answer(f"{{ __schema {{ ...T }} }} {types}"))["extensions"]["cost"]["requested"]
    assert 1_000 < once < 10_000
    aliased = " ".join(f"a{number}: __schema {{ ...T }}" for number in range(20))
    says = await refusals(api, f"{{ {aliased} }} {types}")
    assert says == [f"the operation costs {20 * once:,}, and at most 30,000 is allowed: "
                    "ask for smaller pages, or split it"]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "says", "path"),
    [
        (
            "query ($f: AudienceFilter) { audiences(filter: $f) { totalCount } }",
            "the text at filter.name.contains has 60,000 characters, and at most 1,000 are allowed: shorten it",
            ["filter", "name", "contains"],
        ),
        (
            "query ($f: AudienceFilter) { audiences(filter: $f) { totalCount } }",
            "`in` has 5,001 items, and at most 5,000 are allowed: split it",
            ["filter", "name", "in"],
        ),
    ],
)
async def test_inputs_of_queries(api: Api, document: str, says: str, path: list[str]) -> None:
    values = {"contains": "x" * 60_000, "in": ["x"] * 5_001}
    answer = await api.answer(document, f={"name": {path[-1]: values[path[-1]]}})
    (error,) = answer["errors"]
    name, limit, value = ("max_text", 1_000, 60_000) if path[-1] == "contains" else ("max_list_items", 5_000, 5_001)
    extensions = {"code": "LIMIT_EXCEEDED", "path": path, "name": name, "limit": limit, "value": value}
    assert (error["message"], error["extensions"]) == (says, extensions)


CREATE = """mutation ($input: CreateAudienceInput!) {
  createAudience(input: $input) { audience { audienceMeta } errors { code message path } } }"""


@pytest.mark.parametrize(
    ("field", "value", "says", "path"),
    [
        ("audienceId", "x" * 256, "the text at input.audienceId has 256 characters", ["audienceId"]),
        ("namespace", "漢" * 5_000, "the text at input.namespace has 5,000 characters", ["namespace"]),
        ("description", "x" * 10_001, "the text at input.description has 10,001 characters", ["description"]),
        ("labels", ["core/C1"] * 100_000, "`labels` has 100,000 items, and at most 5,000 are", ["labels"]),
        ("labels", ["core/C1", "x" * 300], "the text at input.labels.1 has 300 characters", ["labels", "1"]),
        ("labels", ["core/C1"] * 101, "there are 101 labels, and at most 100 are allowed", ["labels"]),
    ],
)  # fmt: skip
async def test_inputs_of_mutations_are_refused_as_data(
    api: Api, field: str, value: Any, says: str, path: list[str]
) -> None:
    sent = {"name": "A", "type": "EXTERNAL_SEGMENT", "audienceId": "a", field: value}
    payload = await api.answer(CREATE.replace("{ audienceMeta }", "{ name }"), input=sent)
    if field == "labels" and len(value) > 30_000:  # costs too much already
        assert payload["errors"][0]["extensions"]["value"] > 30_000
        return
    payload = payload["data"]["createAudience"]
    assert payload["audience"] is None
    (error,) = payload["errors"]
    assert (error["code"], error["path"]) == ("LIMIT_EXCEEDED", ["input", *path])
    assert error["message"].startswith(says)
    assert (await api.query("{ audiences { totalCount } }"))["audiences"] == {"totalCount": 0}


async def test_json_that_is_deep(api: Api) -> None:
    meta: dict[str, Any] = {}
    for _ in range(300):
        meta = {"a": meta}
    answer = await api.answer(CREATE, input={"name": "A", "type": "EXTERNAL_SEGMENT", "audienceMeta": meta})
    (error,) = answer["errors"]
    assert error["message"] == "the variable input is more than 100 levels deep: flatten it"
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "path": ["input"], "name": "max_json_depth", "limit": 100}


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        ("1" * 5_001, "11111111111111111111… (5,001 digits)"),
        ("1" * 30, "1" * 30),
        ("1e400", "1e400"),
        (str(2**64), str(2**64)),
        (str(-(2**63) - 1), str(-(2**63) - 1)),
    ],
)
async def test_numbers_that_json_does_not_keep(api: Api, number: str, shown: str) -> None:
    meta = f'mutation {{ createAudience(input: {{ name: "A", type: EXTERNAL_SEGMENT, audienceMeta: {{ a: {number} }} }}) {{ errors {{ code }} }} }}'  # noqa: E501
    for document in (meta, f"{{ datasets(first: {number}) {{ totalCount }} }}"):
        for _ in range(2):
            says = f"the number {shown} is too large: send it as a text, or use a whole number of 64 bits"
            assert await refusals(api, document) == [says]
    largest = f'mutation {{ createAudience(input: {{ name: "A", type: EXTERNAL_SEGMENT, audienceId: "a", audienceMeta: {{ a: {2**63 - 1} }} }}) {{ audience {{ audienceMeta }} }} }}'  # noqa: E501
    payload = (await api.query(largest))["createAudience"]
    assert payload["audience"] == {"audienceMeta": {"a": 2**63 - 1}}


@pytest.mark.parametrize(
    ("who", "user", "open_"),
    [
        ("everybody", "anonymous", True),
        ("identified", "anonymous", False),
        ("identified", "ann", True),
        ("nobody", "ann", False),
    ],
)
async def test_a_closed_introspection(services: ApiServices, who: Any, user: str, open_: bool) -> None:
    limits = Limits(introspection=who)
    caller = Caller(dataclasses.replace(services, limits=limits), scope=Scope("default", "prod", user))
    schema = build_schema(limits)
    for document in (
        "{ __schema { queryType { name } } }",
        '{ ...F } fragment F on Query { __type(name: "Query") { name } }',
    ):
        result = await schema.execute(document, context_value=caller)
        says = [] if open_ else ["the introspection is closed: ask the operator of this server for its schema"]
        assert [error.message for error in result.errors or []] == says
    result = await schema.execute("{ viewer { sandbx } __typename }", context_value=caller)
    suggestion = " Did you mean 'sandbox' or 'sandboxes'?" if open_ else ""
    assert [error.message for error in result.errors or []] == [
        f"Cannot query field 'sandbx' on type 'Viewer'.{suggestion}"
    ]


async def test_a_long_answer_lets_others_go_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = 0

    async def pausing(seconds: float) -> None:
        nonlocal turns
        turns += seconds == 0
        await sleep(seconds)

    sleep = asyncio.sleep
    monkeypatch.setattr(asyncio, "sleep", pausing)
    monkeypatch.setattr(levels, "PAUSE_AFTER", 100)
    monkeypatch.setattr(levels, "PAUSE_SECONDS", 0.0)
    assert "errors" not in await api.answer("{ __schema { types { name kind } } }")
    types, expected, values = len(build_schema(Limits())._schema.type_map), 0, 2
    for part in [*[100] * (types // 100), types % 100] * 2:  # of each of the two fields
        values += part
        if values >= 100:
            expected, values = expected + 1, 0
    assert turns == expected > 2


async def test_a_cost_beyond_all_numbers(api: Api) -> None:
    huge = 2**31 - 1
    inner = f"audiences(first: {huge}) {{ nodes {{ members(first: {huge}) {{ nodes {{ status }} }} }} }}"
    (error,) = (await api.answer(f"{{ {inner} ...F }} fragment F on Query {{ x: {inner} }}"))["errors"][:1]
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert error["extensions"]["value"] == 2**53 - 1
