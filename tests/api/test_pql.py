"""PQL as a service: conversions, completions, the functions, and the warning of a duplicate."""

import json
from typing import Any

import pytest

from app.pql.functions import FUNCTIONS
from tests.api.conftest import Api

# What is tried here asks nothing of the database that depends on its kind.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

EXPRESSION = 'xEvent[dollars > 500 and kind = "web"].count() >= 2'
NDJSON = b"""
{"customer": "1", "when": "2026-01-01", "dollars": 7, "place": {"country": "US"}}
{"customer": "2", "when": "2026-01-02", "dollars": 9, "place": {"country": "CA"}}
{"customer": "3", "when": "2026-01-03", "dollars": 9, "place": {"country": "US"}}
"""


async def convert(api: Api, expression: str, source: str, target: str) -> dict[str, Any]:
    document = """query ($e: String!, $from: ExpressionFormat!, $to: ExpressionFormat!) { pql {
      convert(expression: $e, from: $from, to: $to) {
        expression diagnostics { kind line column length message } } } }"""
    answer = await api.query(document, e=expression, **{"from": source, "to": target})
    found: dict[str, Any] = answer["pql"]["convert"]
    return found


async def complete(api: Api, marked: str, first: int | None = 5) -> list[dict[str, Any]]:
    document = """query ($e: String!, $at: Int!, $first: Int) { pql {
      complete(expression: $e, offset: $at, first: $first) { text kind detail replaceFrom replaceTo } } }"""
    offset = marked.index("|")
    answer = await api.query(document, e=marked.replace("|", ""), at=offset, first=first)
    found: list[dict[str, Any]] = answer["pql"]["complete"]
    return found


async def test_expressions_are_converted_both_ways(api: Api) -> None:
    there = await convert(api, EXPRESSION, "PQL_TEXT", "PQL_JSON")
    assert there["diagnostics"] == []
    assert json.loads(there["expression"])["fnName"] == ">="
    back = await convert(api, there["expression"], "PQL_JSON", "PQL_TEXT")
    assert back == {"expression": EXPRESSION, "diagnostics": []}
    again = await convert(api, there["expression"], "PQL_JSON", "PQL_JSON")
    assert again == there


async def test_what_cannot_be_converted_is_told_with_its_place(api: Api) -> None:
    refused = await convert(api, '{"nodeType": "fnApply",\n "fnName": "=", "params": [{"nodeType": "x"}]}', "PQL_JSON", "PQL_TEXT")  # fmt: skip  # noqa: E501
    (found,) = refused["diagnostics"]
    assert refused["expression"] is None
    assert (found["kind"], found["line"], found["column"], found["length"]) == ("SYNTAX", 2, 28, 17)
    assert found["message"].startswith('there is no nodeType "x"; there are: ')
    refused = await convert(api, "income >", "PQL_TEXT", "PQL_JSON")
    assert [(each["line"], each["column"]) for each in refused["diagnostics"]] == [(1, 9)]


async def test_a_definition_may_be_sent_as_json(api: Api) -> None:
    await api.loaded()
    there = await convert(api, "xEvent.sum(dollars)>500", "PQL_TEXT", "PQL_JSON")
    document = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
      definition { text: expression json: expression(format: PQL_JSON) } errors { code message path } } }"""
    wanted = {"name": "Big", "expression": there["expression"], "format": "PQL_JSON"}
    made = (await api.query(document, input=wanted))["createSegmentDefinition"]
    assert made["errors"] == []
    assert made["definition"] == {"text": "xEvent.sum(dollars) > 500", "json": there["expression"]}
    refused = await api.query(document, input={**wanted, "name": "Bad", "expression": "{}"})
    (error,) = refused["createSegmentDefinition"]["errors"]
    assert (error["code"], error["path"]) == ("INVALID_EXPRESSION", ["input", "expression"])


async def test_completions_know_the_data(api: Api) -> None:
    assert await api.upload(await api.dataset(), NDJSON, "NDJSON")
    definition = await api.define("Big spenders", "xEvent.sum(dollars) > 500")
    found = await complete(api, "xEvent[dol|]")
    assert found[0] == {"text": "dollars", "kind": "FIELD", "detail": "number", "replaceFrom": 7, "replaceTo": 10}
    # The most frequent value first.
    found = await complete(api, "xEvent.place.country = |", 2)
    assert [(each["text"], each["kind"], each["detail"]) for each in found] == [
        ('"US"', "VALUE", "seen in xEvent.place.country"),
        ('"CA"', "VALUE", "seen in xEvent.place.country"),
    ]
    assert [each["text"] for each in await complete(api, 'xEvent.place.country in ["C|')] == ['"CA"']
    found = await complete(api, 'inSegment("big|')
    assert found == [
        {"text": f'"{definition}"', "kind": "SEGMENT", "detail": "Big spenders", "replaceFrom": 10, "replaceTo": 14}
    ]
    assert [each["kind"] for each in await complete(api, "xEvent.coun|")] == ["FUNCTION", "FIELD"]
    assert len(await complete(api, "|", None)) == 20


async def test_another_sandbox_completes_nothing_of_this_one(api: Api) -> None:
    assert await api.upload(await api.dataset(), NDJSON, "NDJSON")
    await api.define("Big spenders", "xEvent.sum(dollars) > 500")
    other = api.within("dev")
    assert await complete(other, "xEvent[dol|]") == []
    assert await complete(other, "inSegment(|") == []
    assert await complete(other, 'xEvent.place.country = "|') == []


@pytest.mark.parametrize(("offset", "first", "path"), [(0, -1, ["first"]), (0, 201, ["first"]), (-1, 5, ["offset"])])
async def test_senseless_numbers_are_refused(api: Api, offset: int, first: int, path: list[str]) -> None:
    document = (
        'query ($at: Int!, $first: Int) { pql { complete(expression: "a", offset: $at, first: $first) { text } } }'
    )
    (error,) = (await api.answer(document, at=offset, first=first))["errors"]
    assert error["extensions"]["code"] == "INVALID_INPUT"
    assert error["message"] == f"`first` is from 0 to 200 and `offset` from 0, not {first} and {offset}"


async def test_the_functions_are_listed(api: Api) -> None:
    listed = (await api.query("{ pql { functions { name signature description example } } }"))["pql"]["functions"]
    assert [function["name"] for function in listed] == [row.name for row in FUNCTIONS]
    assert {
        "name": "getMonth",
        "signature": "date or timestamp.getMonth() → number",
        "description": "Its month, 1 to 12.",
        "example": "person.birthDate.getMonth() = today.getMonth()",
    } in listed


async def test_a_definition_that_says_the_same_as_another_warns(api: Api) -> None:
    await api.loaded()
    first = await api.define("Big", "xEvent.sum(dollars) > 500")
    document = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
      definition { segmentId } warnings { kind severity message line column length } errors { message } } }"""
    wanted = {"name": "Large", "expression": "(xEvent.sum( dollars )>500)"}
    made = (await api.query(document, input=wanted))["createSegmentDefinition"]
    assert made["errors"] == []
    assert made["warnings"] == [
        {
            "kind": "DUPLICATE",
            "severity": "WARNING",
            "message": f"equivalent to 'Big' ({first}): use that definition, or refer to it with inSegment, so that it "
            "is evaluated once",
            "line": 1,
            "column": 1,
            "length": 27,
        }
    ]
    other = await api.query(document, input={"name": "Other", "expression": "xEvent.sum(dollars) > 501"})
    assert other["createSegmentDefinition"]["warnings"] == []
    second = made["definition"]["segmentId"]
    check = "query ($e: String!) { pql { check(expression: $e) { ok diagnostics { kind message } } } }"
    found = (await api.query(check, e="xEvent.sum(dollars)>500.0"))["pql"]["check"]
    assert (found["ok"], [each["kind"] for each in found["diagnostics"]]) == (True, ["DUPLICATE"])
    assert f"'Big' ({first}), 'Large' ({second}):" in found["diagnostics"][0]["message"]
    # Nobody else's definitions are named.
    await api.within("dev").loaded()
    found = (await api.within("dev").query(check, e="xEvent.sum(dollars)>500.0"))["pql"]["check"]
    assert found == {"ok": True, "diagnostics": []}
