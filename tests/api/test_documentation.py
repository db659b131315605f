"""The operations of the README and the pages do what they say; the pages are served."""

import json
import re
from datetime import timedelta
from typing import Any

import httpx
import pytest
from graphql import OperationDefinitionNode, OperationType, print_ast

from app.api.transport.documentation import CONTENT_SECURITY_POLICY, page_names
from app.services.jobs.segment.run import run_segment_job
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.api.conftest import CSV, Api
from tests.api.test_subscriptions import by_sse
from tests.support.documentation import PAGES, operations

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


PURCHASES = """mutation { createDataset(input: {name: "of the pages", kind: EVENT, timestampColumn: "date",
  primaryIdentity: {column: "customer_id", namespace: "crm"}}) { dataset { datasetId } } }"""


@pytest.fixture
async def ids(api: Api) -> dict[str, str]:
    """What stands for a caller's own ids in the pages, and such an id."""
    datasets = {}
    for kind in ("EVENT", "PROFILE", "AUDIENCE"):
        datasets[kind] = await api.dataset(f"rows of {kind}", kind)
    await api.upload(datasets["EVENT"], CSV)
    await api.upload(datasets["PROFILE"], b'{"customer": "00001", "home": {"city": "Reno"}}', "NDJSON")
    segment = await api.define("Of the pages")
    evaluated = await api.define("Evaluated", "xEvent.count() > 0")
    await run_waiting(api, await api.start(evaluated))
    return {
        "the datasetId": datasets["EVENT"],
        "the purchases datasetId": (await api.query(PURCHASES))["createDataset"]["dataset"]["datasetId"],
        "the audience datasetId": datasets["AUDIENCE"],
        "the export datasetId": await api.export_dataset(),
        "the segmentId": segment,
        "the evaluated segmentId": evaluated,
        "the jobId": await api.start(segment),
        "the previewId": await api.preview("xEvent.sum(dollars) > 500"),
    }


async def run_waiting(api: Api, job: str) -> None:
    """Runs the one job that waits, as a worker does."""
    services = api.services
    claim = await claim_next(
        services.database, services.clock, owner="pages", lease=timedelta(minutes=1), kind=JobKind.SEGMENT
    )
    assert claim is not None
    assert claim.job_id == job
    await run_segment_job(Attempt(services.database, services.clock, claim), services.lake, 1)


@pytest.mark.parametrize("page", [name for name in PAGES if operations(PAGES[name])])
async def test_operations_run(api: Api, port: int, ids: dict[str, str], page: str) -> None:
    """In their order, each in the sandbox that the ones before it have changed."""
    for document in operations(PAGES[page]):
        text = re.sub(r'"(the [\w ]*[iI]d)"', lambda match: json.dumps(ids[match[1]]), print_ast(document))
        (operation,) = document.definitions
        assert isinstance(operation, OperationDefinitionNode)
        if operation.operation is OperationType.SUBSCRIPTION:
            answer: Any = await anext(by_sse(port, text))
        else:
            response = await send(api, operation, text)
            assert "errors" not in response.json(), (text, response.text)
            answer = response.json()["data"]
        assert errors_of(answer) == [], text


async def send(api: Api, operation: OperationDefinitionNode, text: str) -> httpx.Response:
    """The operation by JSON, or with a file where it has a variable for one."""
    if "Upload!" not in text:
        return await api.http.post("/graphql", json={"query": text})
    (variable,) = operation.variable_definitions or ()
    name = variable.variable.name.value
    form = {
        "operations": json.dumps({"query": text, "variables": {name: None}}),
        "map": json.dumps({"0": [f"variables.{name}"]}),
    }
    return await api.http.post(
        "/graphql", data=form, files={"0": ("file.csv", CSV)}, headers={"graphql-preflight": "1"}
    )


def errors_of(answer: dict[str, Any]) -> list[Any]:
    """What the payloads of an answer reject."""
    payloads = [payload for payload in answer.values() if isinstance(payload, dict)]
    return [error for payload in payloads for error in (*(payload.get("errors") or ()), payload.get("error")) if error]


@pytest.mark.parametrize("name", page_names())
async def test_a_page_is_served(api: Api, name: str) -> None:
    response = await api.http.get(f"/docs/{name}")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert response.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "<script" not in response.text
    assert re.search(r' style="|<style', response.text) is None, "the policy allows no style of its own"
    assert f'href="/docs/{name}" aria-current=page' in response.text


async def test_addresses(api: Api) -> None:
    first = await api.http.get("/docs")
    assert (first.status_code, first.headers["location"]) == (307, f"/docs/{page_names()[0]}")
    by_file_name = await api.http.get("/docs/data.md")
    assert (by_file_name.status_code, by_file_name.headers["location"]) == (307, "/docs/data")
    sheet = await api.http.get("/docs/style.css")
    assert (sheet.status_code, sheet.headers["content-type"]) == (200, "text/css; charset=utf-8")
    notebook = await api.http.get("/docs/audience.ipynb")
    assert (notebook.headers["content-type"], notebook.json()["nbformat"]) == ("application/x-ipynb+json", 4)
    for path in (
        "/docs/nothing",
        "/docs/nothing.ipynb",
        "/docs/images/nothing.png",
        "/docs/images/..%2fstyle.css",
        "/docs/..%2f..%2fmain",
    ):
        assert (await api.http.get(path)).status_code == 404, path
