"""Text that no database keeps is refused at the door, wherever it stands, and changes nothing."""

import base64
import json
from typing import Any

import pytest

from app.api.context import ApiServices, Caller
from app.api.schema import build_schema
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


async def test_half_of_a_pair(api: Api, services: ApiServices) -> None:
    """JSON over HTTP cannot have one; what comes by WebSocket can."""
    variables = {"input": {"type": "EXTERNAL_SEGMENT", "name": HALF}}
    body = json.dumps({"query": CREATE, "variables": variables})
    sent = await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})
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
