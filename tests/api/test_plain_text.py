"""Text that no database keeps is refused at the door, wherever it stands, and changes nothing."""

import base64
import json
from typing import Any

import orjson
import pytest
from httpx import Response

from app.api.context import ApiServices, Caller
from app.api.schema import build_schema
from app.api.transport.json_text import read_json
from app.engine.ingest.formats.ndjson_lines import TOO_DEEP
from app.scope import Scope
from tests.api.conftest import Api

NUL, HALF = "a\0b", "\ud83d"
WHY = "holds a NUL character or half of a surrogate pair, which no database keeps: omit it"
CREATE = "mutation ($input: CreateAudienceInput!) { createAudience(input: $input) { errors { message } } }"


@pytest.mark.parametrize(
    ("input", "path"),
    [
        ({"name": NUL}, ["input", "name"]),
        ({"name": "A", "labels": ["core/C1", NUL]}, ["input", "labels", "1"]),
        ({"name": "A", "audienceMeta": {"a": [{"b": NUL}]}}, ["input", "audienceMeta", "a", "0", "b"]),
        ({"name": "A", "audienceMeta": {NUL: 1}}, ["input", "audienceMeta", repr(NUL)]),
    ],
)
async def test_in_variables(api: Api, input: dict[str, Any], path: list[str]) -> None:
    answer = await api.answer(CREATE, input={"type": "EXTERNAL_SEGMENT", **input})
    (error,) = answer["errors"]
    assert (error["message"], error["extensions"]) == (
        f"the text at {'.'.join(path)} {WHY}",
        {"code": "INVALID_INPUT", "path": path},
    )
    assert answer.get("data") is None
    assert (await api.query("{ audiences { totalCount } }"))["audiences"] == {"totalCount": 0}


async def post(api: Api, body: str) -> Response:
    return await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})


async def test_half_of_a_pair(api: Api, services: ApiServices) -> None:
    """A request may have one in its variables, by HTTP as by WebSocket, and nowhere else."""
    variables = {"input": {"type": "EXTERNAL_SEGMENT", "name": HALF}}
    sent = await post(api, json.dumps({"query": CREATE, "variables": variables}))
    assert [error["message"] for error in sent.json()["errors"]] == [f"the text at input.name {WHY}"]
    sent = await post(api, json.dumps({"query": f"{{ {HALF} }}"}))
    assert (sent.status_code, "the body is not JSON" in sent.text) == (400, True)
    caller = Caller(services, scope=Scope("default", "prod", "test"))
    result = await build_schema(services.limits).execute(CREATE, variables, caller)
    assert [error.message for error in result.errors or []] == [f"the text at input.name {WHY}"]


async def test_in_the_document(api: Api) -> None:
    for _ in range(2):  # the second time as a document that might be known
        answer = await api.answer('{ audience(id: "a\\u0000b") { name } }')
        (error,) = answer["errors"]
        assert (error["message"], error["locations"]) == (f"the string {WHY}", [{"line": 1, "column": 16}])
    assert await api.query('{ audience(id: "Zo\\u00eb \\ud83d\\ude42") { name } }') == {"audience": None}


async def test_in_global_ids_and_cursors(api: Api) -> None:
    strange = base64.b64encode(b"Audience:a\0b").decode()
    assert await api.query("query ($id: ID!) { audience(id: $id) { name } node(id: $id) { id } }", id=strange) == {
        "audience": None,
        "node": None,
    }
    time = {"t": "2026-06-15T12:00:00+00:00"}
    for keys in ([time, NUL], [time, 2**63], [{"t": "2026-06-15T12:00:00"}, "a"], [time, 1.5], [time, ["a"]]):
        packed = json.dumps(["CREATED_AT DESC", *keys]).encode()
        cursor = base64.urlsafe_b64encode(packed).decode().rstrip("=")
        answer = await api.answer("query ($after: String) { audiences(after: $after) { nodes { id } } }", after=cursor)
        message = f"{cursor!r} is not a cursor: send back one that a page of this list gave"
        assert [error["message"] for error in answer.get("errors", [])] == [message], keys


ROWS = """mutation ($input: IngestRowsInput!) { ingestRows(input: $input) {
  batch { rowCount rejectedRows } rejected { row message } errors { message } } }"""
SENT, WHOLE = '{"customer": "1", "when": "2026-01-01"', "is not a whole number of 64 bits"
BAD_ROWS = {
    '{"customer": "1", "text": "a\\u0000"}': "a text has a zero byte",
    '{"customer": "1\\u0000"}': "a text has a zero byte",
    '{"customer": "1", "text": ["\\udc00"]}': "a text has half of a surrogate pair, which is no character",
    '{"customer": "1", "a\\ud800": 1}': "a text has half of a surrogate pair, which is no character",
    '{"customer": "1", "n": NaN}': "a number is NaN, infinite or too large",
    '{"customer": "1", "n": 1e999}': "a number is NaN, infinite or too large",
    f'{SENT}, "n": 99999999999999999999}}': f'n: "99999999999999999999" {WHOLE}',
    f'{SENT}, "n": -9223372036854775809}}': f'n: "-9223372036854775809" {WHOLE}',
    f'{{"customer": "1", "deep": {"[" * 400 + "]" * 400}}}': TOO_DEEP,
    f'{{"customer": "1", "deep": {"[" * 150 + "]" * 150}}}': TOO_DEEP,
    "7": "the line is not a JSON object",
    "null": "the line is not a JSON object",
    f'{SENT}, "n": 1, "n": 2}}': 'the name "n" stands twice in one object',
    f'{SENT}, "o": [{{"p": {{"q" : 1, "q":1}}}}]}}': 'the name "q" stands twice in one object',
}
GOOD_ROW = f'{SENT}, "n": 7, "list": [1, 2, 3, 4, 5, 6, 7, 8]}}'


async def test_a_bad_row_costs_itself(api: Api) -> None:
    """Whatever it is that no database or no JSON has: the rows around it land, in a call of 10,000."""
    dataset = await api.dataset()
    rows = [GOOD_ROW] * 10_000
    rows[1 : 600 * len(BAD_ROWS) : 600] = BAD_ROWS
    input = f'{{"datasetId": "{dataset}", "rows": [{", ".join(rows)}]}}'
    sent = await post(api, f'{{"query": {json.dumps(ROWS)}, "variables": {{"input": {input}}}}}')
    payload = sent.json()["data"]["ingestRows"]
    assert payload["rejected"] == [
        {"row": 2 + 600 * place, "message": message} for place, message in enumerate(BAD_ROWS.values())
    ]
    assert payload["batch"] == {"rowCount": 10_000 - len(BAD_ROWS), "rejectedRows": len(BAD_ROWS)}
    assert payload["errors"] == []


@pytest.mark.parametrize(
    ("signature", "rows", "variables"),
    [
        ("", '[GOOD, {customer: "2", text: "\\u0000"}]', {}),
        ("", '[GOOD, {customer: "2", n: 99999999999999999999}]', {}),
        ("($rows: [JSON!]!)", "$rows", {"rows": [json.loads(GOOD_ROW), {"customer": NUL}]}),
        ("($row: JSON!)", "[GOOD, $row]", {"row": {"customer": NUL}}),
        ("", "[GOOD, null]", {}),
        ("($rows: [JSON]!)", "$rows", {"rows": [json.loads(GOOD_ROW), None]}),
    ],
)
async def test_rows_however_they_are_written(api: Api, signature: str, rows: str, variables: dict[str, Any]) -> None:
    input = f'{{datasetId: "{await api.dataset()}", rows: {rows}}}'.replace(
        "GOOD", '{customer: "1", when: "2026-01-01"}'
    )
    answer = await api.query(
        f"mutation {signature} {{ ingestRows(input: {input}) {{ batch {{ rowCount }} rejected {{ row }} }} }}",
        **variables,
    )
    assert answer == {"ingestRows": {"batch": {"rowCount": 1}, "rejected": [{"row": 2}]}}


async def test_a_row_as_deep_as_json_is_read(api: Api) -> None:
    """Too deep to be written into a file, and rejected like any that is too deep."""
    rows = f'[{GOOD_ROW}, {{"customer": "1", "deep": {"[" * 1010 + "]" * 1010}}}]'
    input = f'{{"datasetId": "{await api.dataset()}", "rows": {rows}}}'
    sent = await post(api, f'{{"query": {json.dumps(ROWS)}, "variables": {{"input": {input}}}}}')
    assert sent.json()["data"]["ingestRows"] == {
        "batch": {"rowCount": 1, "rejectedRows": 1},
        "rejected": [{"row": 2, "message": TOO_DEEP}],
        "errors": [],
    }


def test_a_name_twice_is_written_as_it_was_read() -> None:
    """In rows alone: elsewhere the last value counts, as JSON's readers have it."""
    text = '{"rows": [{"a": 1, "a": {"b": "\\":", "b": 2}, "c": 3}]}'
    assert json.dumps(read_json(text)) == text
    assert read_json(text) == {"rows": [{"a": {"b": 2}, "c": 3}]}
    assert json.dumps(read_json(text.replace("rows", "meta"))) == '{"meta": [{"a": {"b": 2}, "c": 3}]}'


def test_long_numbers_among_very_many_values_are_refused_not_rounded() -> None:
    """Reading them exactly takes several times as long."""
    many = "1, " * 2_000_001
    with pytest.raises(orjson.JSONDecodeError, match="a whole number of more than 64 bits among more than 2,000,000"):
        read_json(f"[{many} 123456789012345678901]")
    assert read_json(f'[{many} "123456789012345678901", 9223372036854775807]')
    with pytest.raises(orjson.JSONDecodeError, match=r"^NaN, Infinity, .* among more than 2,000,000 values"):
        read_json(f"[{many} NaN]")
    with pytest.raises(orjson.JSONDecodeError, match="an object with a name twice among more than 2,000,000"):
        read_json(f'{{"rows": [{many} {{"a": 1, "a": 2}}]}}')


async def test_a_row_that_is_something_else_as_well(api: Api) -> None:
    document = """mutation ($x: JSON!) { ingestRows(input: {datasetId: "x", rows: [$x]}) { errors { message } }
      createAudience(input: {type: EXTERNAL_SEGMENT, name: "A", audienceMeta: $x}) { errors { message } } }"""
    (error,) = (await api.answer(document, x={"a": NUL}))["errors"]
    assert error["message"] == f"the text at x.a {WHY}"


async def test_numbers_are_as_they_were_sent(api: Api) -> None:
    """More than 64 bits is refused where it is no row, never rounded."""
    input = '{"type": "EXTERNAL_SEGMENT", "name": "A", "audienceMeta": {"n": 123456789012345678901}}'
    sent = await post(api, f'{{"query": {json.dumps(CREATE)}, "variables": {{"input": {input}}}}}')
    assert [error["message"] for error in sent.json()["errors"]] == [
        "the number at input.audienceMeta.n has more than 64 bits: send it as a text"
    ]
