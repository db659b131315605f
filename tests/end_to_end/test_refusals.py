"""Bad input through the real server: a clear error, and nothing lost or changed."""

import json
from typing import Any

import httpx
import pytest

from tests.support.client import Gateway

EVENTS = b"customer,time,dollars,shop\n0001,2026-01-01,20,a\n0002,2026-01-02,30.5,b\n"

DEFINE = """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
  definition { segmentId } errors { __typename code message path
    ... on ExpressionError { diagnostics { kind line column length suggestions } } } } }"""
START = """mutation ($input: CreateSegmentJobInput!) { createSegmentJob(input: $input) {
  job { jobId } errors { __typename code message path } } }"""
CANCEL = "mutation ($id: ID!) { cancelSegmentJob(id: $id) { job { status } errors { code message path } } }"


@pytest.fixture
def gateway(running_server: Any, request: pytest.FixtureRequest) -> Gateway:
    return Gateway(running_server.url, sandbox=request.node.name.replace("_", "-")[:60])


@pytest.fixture
def dataset(gateway: Gateway) -> str:
    id_ = gateway.create_dataset("events", "EVENT", "customer", "time")
    assert gateway.upload(id_, "e.csv", EVENTS, "CSV")["batch"]["rowCount"] == 2
    return id_


def row_count(gateway: Gateway, dataset: str) -> int:
    return int(gateway.query("query ($id: ID!) { dataset(id: $id) { rowCount } }", id=dataset)["dataset"]["rowCount"])


def refused_expression(gateway: Gateway, expression: str) -> dict[str, Any]:
    payload = gateway.query(DEFINE, input={"name": "x", "expression": expression})["createSegmentDefinition"]
    assert payload["definition"] is None
    [error] = payload["errors"]
    assert (error["__typename"], error["code"]) == ("ExpressionError", "INVALID_EXPRESSION")
    assert error["path"] == ["input", "expression"]
    assert gateway.query("{ segmentDefinitions { totalCount } }")["segmentDefinitions"]["totalCount"] == 0
    [diagnostic] = error["diagnostics"]
    return dict(diagnostic)


def test_an_unknown_column_names_the_nearest(gateway: Gateway, dataset: str) -> None:
    found = refused_expression(gateway, "xEvent.sum(dolars) > 5")
    assert (found["kind"], found["line"], found["column"], found["length"]) == ("UNKNOWN_FIELD", 1, 12, 6)
    assert found["suggestions"][0] == "dollars"


def test_a_malformed_expression_has_line_and_column(gateway: Gateway, dataset: str) -> None:
    found = refused_expression(gateway, "xEvent.sum(dollars)\n  > > 5")
    assert (found["kind"], found["line"], found["column"]) == ("SYNTAX", 2, 5)


def test_an_unknown_segment(gateway: Gateway, dataset: str) -> None:
    found = refused_expression(gateway, 'inSegment("nobody")')
    assert (found["kind"], found["column"]) == ("UNKNOWN_SEGMENT", 11)


def test_broken_rows_are_reported_and_good_ones_land(gateway: Gateway, dataset: str) -> None:
    rows = ("0003,2026-01-03,1,a", ",2026-01-03,2,a", "0004,yesterday,3,a", "0005,2026-01-05,much,a")
    broken = "\n".join(("customer,time,dollars,shop", *rows)).encode()
    payload = gateway.upload(dataset, "b.csv", broken, "CSV")
    assert payload["errors"] == []
    assert (payload["batch"]["rowCount"], payload["batch"]["rejectedRows"]) == (1, 3)
    assert [row["row"] for row in payload["rejected"]] == [2, 3, 4]
    assert "yesterday" in payload["rejected"][1]["message"]
    assert "much" in payload["rejected"][2]["message"]
    assert row_count(gateway, dataset) == 3


@pytest.mark.parametrize(
    ("content", "format", "says"),
    [
        (b"", "CSV", "empty"),
        (EVENTS, "PARQUET", "Parquet"),
        (EVENTS, "NDJSON", "JSON"),
        (b"person,time,dollars\n1,2026-01-01,2\n", "CSV", "customer"),
        (b"customer,dollars\n1,2\n", "CSV", "time"),
    ],
    ids=["empty", "not-parquet", "not-ndjson", "no-identity", "no-time"],
)
def test_a_file_that_cannot_be_read_changes_nothing(
    gateway: Gateway, dataset: str, content: bytes, format: str, says: str
) -> None:
    payload = gateway.upload(dataset, "f", content, format)
    assert payload["batch"] is None
    [error] = payload["errors"]
    assert error["code"] == "INVALID_INPUT"
    assert says in error["message"]
    assert row_count(gateway, dataset) == 2


def test_an_upload_without_a_preflight_header_is_turned_away(gateway: Gateway, dataset: str) -> None:
    answer = httpx.post(
        f"{gateway.url}/graphql",
        data={"operations": json.dumps({"query": "{ viewer { sandbox } }"}), "map": "{}"},
        files={"file": ("f.csv", EVENTS)},
    )
    assert answer.status_code == 403
    assert "graphql-preflight" in answer.text
    assert row_count(gateway, dataset) == 2


def test_a_name_is_given_once(gateway: Gateway, dataset: str) -> None:
    gateway.define("Spenders", "xEvent.sum(dollars) > 5")
    payload = gateway.query(DEFINE, input={"name": "Spenders", "expression": "xEvent.count() > 1"})
    [error] = payload["createSegmentDefinition"]["errors"]
    assert (error["code"], error["path"]) == ("ALREADY_EXISTS", ["input", "name"])
    assert "'Spenders'" in error["message"]
    assert gateway.query("{ segmentDefinitions { totalCount } }")["segmentDefinitions"]["totalCount"] == 1


def test_several_mistakes_are_reported_together(gateway: Gateway, dataset: str) -> None:
    payload = gateway.query(DEFINE, input={"name": " ", "expression": "dolars", "schemaName": "_xdm.other"})
    errors = payload["createSegmentDefinition"]["errors"]
    assert [(error["code"], error["path"]) for error in errors] == [
        ("INVALID_INPUT", ["input", "name"]),
        ("INVALID_INPUT", ["input", "schemaName"]),
        ("INVALID_EXPRESSION", ["input", "expression"]),
    ]


@pytest.mark.parametrize(
    ("given", "code", "path"),
    [
        ({"definitionIds": []}, "INVALID_INPUT", ["input", "definitionIds"]),
        ({}, "INVALID_INPUT", ["input", "definitionIds"]),
        ({"allDefinitions": True}, "INVALID_INPUT", ["input", "allDefinitions"]),
        ({"definitionIds": ["nobody"]}, "NOT_FOUND", ["input", "definitionIds", "0"]),
        ({"definitionIds": ["a"], "allDefinitions": True}, "INVALID_INPUT", ["input", "definitionIds"]),
        ({"definitionIds": ["a"] * 1_501}, "LIMIT_EXCEEDED", ["input", "definitionIds"]),
    ],
    ids=["none", "neither", "all-of-nothing", "unknown", "both", "too-many"],
)
def test_a_job_over_nothing(gateway: Gateway, given: dict[str, Any], code: str, path: list[str]) -> None:
    payload = gateway.query(START, input=given)["createSegmentJob"]
    assert payload["job"] is None
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [(code, path)]
    assert gateway.query("{ segmentJobs { totalCount } }")["segmentJobs"]["totalCount"] == 0


async def test_a_finished_job_is_not_cancelled(gateway: Gateway, dataset: str) -> None:
    job = gateway.start_job(gateway.define("Spenders", "xEvent.sum(dollars) > 5"))
    watch = "subscription ($id: ID!) { segmentJobUpdated(id: $id) { status } }"
    states = [state async for state in gateway.by_sse(watch, id=job)]
    assert states[-1]["segmentJobUpdated"]["status"] == "SUCCEEDED"
    payload = gateway.query(CANCEL, id=job)["cancelSegmentJob"]
    assert payload["job"] is None
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [("INVALID_STATE", ["id"])]
    assert gateway.job(job)["status"] == "SUCCEEDED"


def test_unknown_ids_are_not_found(gateway: Gateway) -> None:
    found = gateway.query('{ segmentJob(id: "x") { jobId } dataset(id: "x") { name } node(id: "bm9uc2Vuc2U=") { id } }')
    assert found == {"segmentJob": None, "dataset": None, "node": None}
    payload = gateway.query(CANCEL, id="x")["cancelSegmentJob"]
    assert [(error["code"], error["path"]) for error in payload["errors"]] == [("NOT_FOUND", ["id"])]


def test_another_sandbox_sees_and_changes_nothing(gateway: Gateway, dataset: str, running_server: Any) -> None:
    definition = gateway.define("Spenders", "xEvent.sum(dollars) > 5")
    stranger = Gateway(running_server.url, sandbox="elsewhere")
    assert stranger.query("query ($id: ID!) { dataset(id: $id) { name } }", id=dataset)["dataset"] is None
    [error] = stranger.upload(dataset, "e.csv", EVENTS, "CSV")["errors"]
    assert error["code"] == "NOT_FOUND"
    [error] = stranger.query(START, input={"definitionIds": [definition]})["createSegmentJob"]["errors"]
    assert error["code"] == "NOT_FOUND"
    assert stranger.query('{ profile(id: "customer:0001") { profileId } }')["profile"] is None
    assert row_count(gateway, dataset) == 2
    assert gateway.query('{ profile(id: "customer:0001") { profileId } }')["profile"] == {"profileId": "customer:0001"}
