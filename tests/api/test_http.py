"""GraphQL over HTTP: what clients of every kind send, and what they get."""

import json
import logging
from typing import Any

import httpx
import pytest

from app.api.context import ApiServices
from app.api.transport import http
from app.services.datasets import datasets
from tests.api.conftest import CSV, Api

VIEWER = "{ viewer { organisation sandbox } }"
NOBODY = {"viewer": {"organisation": "default", "sandbox": "prod"}}
BOTH = ["application/json", "application/graphql-response+json"]

# What is tried here asks nothing of the database that depends on its kind.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def message(response: httpx.Response) -> str:
    body = response.json()
    assert set(body) == {"errors"}, "nothing was executed, so there is no data"
    (error,) = body["errors"]
    text: str = error["message"]
    return text


@pytest.mark.parametrize("accept", [*BOTH, None, "*/*", "application/*;q=0.5", "text/plain, application/json;q=0.1"])
async def test_a_query_by_post(api: Api, accept: str | None) -> None:
    headers = {} if accept is None else {"accept": accept}
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers=headers)
    assert response.status_code == 200
    media = accept if accept in BOTH else "application/json"
    assert response.headers["content-type"] == f"{media}; charset=utf-8"
    assert response.json()["data"] == NOBODY


@pytest.mark.parametrize("accept", BOTH)
async def test_a_query_by_get(api: Api, accept: str) -> None:
    params = {"query": "query ($id: ID!) { audience(id: $id) { id } }", "variables": '{"id": "x"}'}
    response = await api.http.get("/graphql", params=params, headers={"accept": accept})
    assert (response.status_code, response.json()["data"]) == (200, {"audience": None})


async def test_what_is_preferred_is_answered(api: Api) -> None:
    accept = "application/json;q=0.5, application/graphql-response+json"
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"accept": accept})
    assert response.headers["content-type"] == "application/graphql-response+json; charset=utf-8"


@pytest.mark.parametrize(
    ("query", "variables", "says"),
    [
        ("{ viewer { nothing } }", None, "Cannot query field 'nothing' on type 'Viewer'."),
        ("{ viewer {", None, "Syntax Error: Expected Name, found <EOF>."),
        ("query ($id: ID!) { audience(id: $id) { id } }", {}, "Variable '$id' has invalid value"),
        ("query A { viewer { sandbox } } query B { viewer { sandbox } }", None, "the document has 2 operations"),
    ],
)
@pytest.mark.parametrize(("accept", "status"), [(BOTH[0], 200), (BOTH[1], 400)])
async def test_what_graphql_itself_refuses(
    api: Api, query: str, variables: Any, says: str, accept: str, status: int
) -> None:
    body = {"query": query, "variables": variables}
    response = await api.http.post("/graphql", json=body, headers={"accept": accept})
    assert message(response).startswith(says)
    assert response.status_code == status


async def test_one_of_several_operations_is_run_by_its_name(api: Api) -> None:
    body = {"query": "query A { viewer { sandbox } } query B { viewer { organisation } }", "operationName": "B"}
    for _ in range(2):
        response = await api.http.post("/graphql", json=body)
        assert response.json()["data"] == {"viewer": {"organisation": "default"}}
    response = await api.http.post("/graphql", json={**body, "operationName": "C"})
    assert response.status_code == 400
    assert "data" not in response.json()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "the body is not JSON"),
        (b"[]", "several operations in one request are not supported"),
        (b'[{"query": "{ viewer { sandbox } }"}]', "several operations in one request are not supported"),
        (b"1", "a GraphQL request is a JSON object"),
        (b"{}", "the request has no `query`"),
        (b'{"query": 1}', "the request has no `query`"),
        (b'{"query": "{ a }", "variables": []}', "`variables` must be a JSON object"),
        (b'{"query": "{ a }", "operationName": 1}', "`operationName` must be a text"),
        (b'{"query": "{ a }", "extensions": "x"}', "`extensions` must be a JSON object"),
    ],
)
async def test_what_is_no_graphql_request(api: Api, body: bytes, says: str) -> None:
    response = await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert message(response).startswith(says)


async def test_wrong_methods_and_types(api: Api) -> None:
    response = await api.http.put("/graphql", json={"query": VIEWER})
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")
    response = await api.http.post("/graphql", content=VIEWER, headers={"content-type": "text/plain"})
    assert response.status_code == 415
    assert message(response) == (
        "the content type 'text/plain' is not taken: send application/json, or multipart/form-data for files"
    )
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"accept": "image/png"})
    assert response.status_code == 406
    response = await api.http.get("/graphql", params={"query": VIEWER, "variables": "{"})
    assert response.status_code == 400
    response = await api.http.post(
        "/graphql", content=b" " * (16 * 1024**2 + 1), headers={"content-type": "application/json"}
    )
    assert response.status_code == 413


async def test_a_get_request_changes_nothing(api: Api) -> None:
    mutation = 'mutation { createDataset(input: {name: "a", kind: EXPORT}) { errors { message } } }'
    response = await api.http.get("/graphql", params={"query": mutation})
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert message(response) == "a GET request may only read: send mutations by POST"
    assert (await api.query("{ datasets { totalCount } }"))["datasets"]["totalCount"] == 0


async def test_a_subscription_needs_a_stream(api: Api) -> None:
    response = await api.http.post("/graphql", json={"query": "subscription { jobsUpdated { id } }"})
    assert response.status_code == 400
    assert message(response) == (
        "a subscription is a stream: accept text/event-stream, or use a WebSocket with graphql-transport-ws"
    )


async def test_headers_choose_the_tenant(api: Api) -> None:
    headers = {"x-gw-ims-org-id": "ACME@Org", "x-sandbox-name": "dev"}
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers=headers)
    assert response.json()["data"]["viewer"] == {"organisation": "ACME@Org", "sandbox": "dev"}


@pytest.mark.parametrize("name", ["x" * 129, " ", "a\tb"])
async def test_a_tenant_with_a_bad_name_is_refused(api: Api, name: str) -> None:
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"x-sandbox-name": name})
    assert response.status_code == 400
    assert message(response).startswith("x-sandbox-name is ")
    assert message(response).endswith("it must be 1 to 128 printable characters, or be left out")


async def test_a_request_keeps_its_id(api: Api) -> None:
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"x-request-id": "abc-1"})
    assert response.headers["x-request-id"] == "abc-1"
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"x-request-id": "a b"})
    assert len(response.headers["x-request-id"]) == 32


async def test_a_bug_is_masked_and_logged(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("SELECT secret FROM /etc/shadow")

    monkeypatch.setattr(datasets, "page", broken)
    with caplog.at_level(logging.ERROR):
        response = await api.http.post(
            "/graphql",
            json={"query": "{ datasets { nodes { id } } viewer { sandbox } }"},
            headers={"x-request-id": "r1"},
        )
    assert response.json() == {
        "data": None,
        "errors": [
            {
                "message": "internal error: the log of the server has it under the request id r1",
                "locations": [{"line": 1, "column": 3}],
                "path": ["datasets"],
                "extensions": {"code": "INTERNAL", "requestId": "r1"},
            }
        ],
    }
    assert "SELECT secret" in caplog.text
    assert "request r1 failed at ['datasets']" in caplog.text


async def test_a_bug_outside_of_graphql_is_masked_too(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(http, "read_params", broken)
    response = await api.http.post("/graphql", json={"query": VIEWER}, headers={"x-request-id": "r2"})
    assert response.status_code == 500
    assert message(response) == "internal error: the log of the server has it under the request id r2"
    assert "RuntimeError: secret" in caplog.text


async def test_multipart_without_preflight_header_is_refused(api: Api) -> None:
    dataset = await api.dataset()
    response = await api.upload(dataset, CSV, headers={})
    assert response.status_code == 403
    assert response.json()["errors"][0]["extensions"] == {"code": "PREFLIGHT_REQUIRED"}
    assert message(response) == (
        "a multipart request needs one of the headers graphql-preflight, apollo-require-preflight, x-requested-with, "
        "so that no foreign page can send it"
    )
    assert (await api.query("{ datasets { nodes { rowCount } } }"))["datasets"]["nodes"] == [{"rowCount": 0}]


@pytest.mark.parametrize("header", ["graphql-preflight", "apollo-require-preflight", "x-requested-with"])
async def test_each_preflight_header_will_do(api: Api, header: str) -> None:
    response = await api.upload(await api.dataset(), CSV, headers={header: "x"})
    assert response.json()["data"]["uploadBatch"]["errors"] == []


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({}, "the request has no part `operations`"),
        ({"operations": "{"}, "the part `operations` is not JSON"),
        ({"operations": "[]", "map": "{}"}, "`operations` must be one operation"),
        ({"operations": "{}"}, "the request has no part `map`"),
        ({"operations": "{}", "map": "[]"}, "`map` must be a JSON object"),
        ({"operations": "{}", "map": '{"1": ["variables.f"]}'}, "`map` names the file '1'"),
        ({"operations": "{}", "map": '{"0": ["variables.f"]}'}, "`map` puts a file at 'variables.f'"),
        ({"operations": '{"variables": {"f": 1}}', "map": '{"0": ["variables.f"]}'}, "`map` puts a file at"),
    ],
)
async def test_multipart_that_is_not_as_specified(api: Api, form: dict[str, str], says: str) -> None:
    response = await api.http.post("/graphql", data=form, files={"0": ("f", b"x")}, headers={"graphql-preflight": "1"})
    assert response.status_code == 400
    assert message(response).startswith(says)


async def test_a_multipart_body_that_ends_in_the_middle(api: Api) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="operations"\r\n\r\n{}'
    headers = {"content-type": "multipart/form-data; boundary=b", "graphql-preflight": "1"}
    response = await api.http.post("/graphql", content=body, headers=headers)
    assert response.status_code == 400
    assert message(response) == "the multipart body ends in the middle: send it again"


async def test_files_in_transit_are_gone_afterwards(api: Api, services: ApiServices) -> None:
    response = await api.upload(await api.dataset(), CSV)
    assert json.loads(response.content)["data"]["uploadBatch"]["errors"] == []
    assert list(services.uploads.iterdir()) == []


async def test_health(api: Api) -> None:
    assert (await api.http.get("/health/live")).text == "alive\n"
    ready = await api.http.get("/health/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True})


async def test_a_browser_gets_the_page_and_a_program_does_not(api: Api) -> None:
    page = await api.http.get("/graphql", headers={"accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert page.status_code in {200, 503}
    assert page.headers["content-type"].startswith("text/")
    program = await api.http.get("/graphql", headers={"accept": "application/json"})
    assert program.status_code == 400


async def test_only_a_request_with_files_needs_a_folder_for_them(api: Api, services: ApiServices) -> None:
    services.uploads.rmdir()
    response = await api.http.post("/graphql", json={"query": VIEWER})
    assert response.json()["data"] == NOBODY


@pytest.mark.parametrize(
    ("query", "name", "status", "says"),
    [
        ('mutation { deleteFolder(input: { id: "x" }) { errors { code } } }', None, 405, "a GET request may only read"),
        ("query A { __typename }", "B", 400, 'Unknown operation named "B".'),
    ],
)
async def test_a_stream_that_cannot_begin(api: Api, query: str, name: str | None, status: int, says: str) -> None:
    params = {"query": query} | ({"operationName": name} if name else {})
    response = await api.http.get("/graphql", params=params, headers={"accept": "text/event-stream"})
    assert response.status_code == status
    (error,) = response.json()["errors"]
    assert error["message"].startswith(says)
    assert error["extensions"] == {"code": "BAD_REQUEST"}
