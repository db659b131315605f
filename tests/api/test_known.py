"""A query that the server knows is answered, counted and logged as it was when its document was new."""

import json
import logging
from typing import Any
from uuid import uuid4

import pytest
import strawberry

from app.api.context import request_log
from app.api.context.request_log import RequestLog
from app.logs import Field
from tests.api.conftest import Api

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

TWO = "query One { viewer { sandbox } } query Two { __typename }"
PAGE = "query P($first: Int, $shown: Boolean = true) { audiences(first: $first) { nodes { id @include(if: $shown) } } }"
CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "plain": ({"query": "{ __typename audiences { totalCount nodes { name } } }"}, True),
    "named": ({"query": TWO, "operationName": "Two"}, True),
    "ambiguous": ({"query": TWO}, False),
    "without such an operation": ({"query": TWO, "operationName": "Three"}, False),
    "fragment": ({"query": "{ ...F } fragment F on Query { viewer { organisation } }"}, True),
    "variables": ({"query": PAGE, "variables": {"first": 2, "shown": False}}, True),
    "variables that nothing uses": ({"query": PAGE, "variables": {"second": 2}}, True),
    "variables of another type": ({"query": PAGE, "variables": {"first": "2"}}, False),
    "variables with strange text": ({"query": PAGE, "variables": {"second": "\0"}}, False),
    "missing object": ({"query": '{ audience(id: "none") { name } }'}, True),
    "refused page": ({"query": "{ viewer { sandbox } audiences(first: -1) { totalCount } }"}, True),
    "introspection": ({"query": "{ __schema { queryType { name } } }"}, True),
    "too dear": ({"query": "{ audiences(first: 500) { nodes { members { nodes { profileId } } } } }"}, False),
    "too large a number": ({"query": "{ a: audiences(first: 1e999) { totalCount } }"}, False),
    "unknown field": ({"query": "{ viewer { none } }"}, False),
    "mutation": ({"query": 'mutation { deleteFolder(id: "none") { errors { code } } }'}, False),
    "subscription": ({"query": "subscription { audienceUpdated(id: \"none\") { __typename } }"}, False),
}  # fmt: skip


def counted(api: Api) -> dict[object, float]:
    """All counts of the server."""
    return {
        (sample.name, *sample.labels.items()): sample.value
        for metric in api.services.metrics.registry.collect()
        for sample in metric.samples
        if sample.name.endswith(("_total", "_count", "_running", "_streams"))
    }


@pytest.mark.parametrize("name", CASES)
async def test_a_known_query_is_executed_as_a_new_one(api: Api, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    request, is_known = CASES[name]
    body = {**request, "query": f"# {uuid4()}\n{request['query']}"}
    by_strawberry: list[object] = []
    execute = strawberry.Schema.execute

    async def noting(schema: strawberry.Schema, *arguments: Any, **options: Any) -> Any:
        by_strawberry.append(options)
        return await execute(schema, *arguments, **options)

    lines: list[dict[str, Field]] = []

    def event(_log: object, message: str, _level: int = logging.INFO, **fields: Field) -> None:
        fields.pop("duration_ms")
        lines.append({"message": message, **fields})

    monkeypatch.setattr(strawberry.Schema, "execute", noting)
    monkeypatch.setattr(request_log, "event", event)
    api.http._transport.app = RequestLog(api.http._transport.app)  # type: ignore[attr-defined]
    outcomes = []
    for _ in range(2):
        before = counted(api)
        response = await api.http.post("/graphql", json=body, headers={"x-request-id": "same"})
        after = counted(api)
        changes = {count: after[count] - before.get(count, 0) for count in after}
        answer = {**response.json(), "extensions": response.json().get("extensions")}
        outcomes.append((response.status_code, json.dumps(answer), {k: v for k, v in changes.items() if v}))
    assert outcomes[0] == outcomes[1]
    assert len(by_strawberry) == 2 - is_known
    assert lines[0] == lines[1]


async def test_introspection_is_closed_for_known_queries_too(api: Api) -> None:
    document = f"# {uuid4()}\n{{ __schema {{ queryType {{ name }} }} }}"
    open_, first = api.services.limits, await api.answer(document)
    assert first["data"] == {"__schema": {"queryType": {"name": "Query"}}}
    object.__setattr__(api.services, "limits", type(open_)(introspection="nobody"))
    for _ in range(2):
        (error,) = (await api.answer(document))["errors"]
        assert error["extensions"]["code"] == "FORBIDDEN"


@pytest.mark.parametrize("value", ["\0", "x" * 100_001, 2**64, [[0]] * 20_001])
async def test_variables_of_known_queries_are_checked(api: Api, value: object) -> None:
    known, new = (f"# {uuid4()}\n{PAGE}" for _ in range(2))
    await api.query(known, first=2)
    answers = [await api.answer(document, first=2, second=value) for document in (known, new)]
    assert answers[0] == answers[1]
    assert "data" not in answers[0]
