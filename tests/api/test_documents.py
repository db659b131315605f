"""Documents by their hash (Apollo's automatic persisted queries), and servers that run trusted documents only."""

import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from app.api.context import ApiServices, Limits
from app.api.guards.documents import LONGEST_REGISTERED, InvalidDocuments, TrustedDocuments
from app.api.schema import build_schema
from app.api.transport.routes import api_routes
from app.errors import InvalidSettings
from app.main import create_app
from app.settings import Settings
from tests.api.conftest import Api, serving
from tests.api.test_socket_limits import begun, connected, subscribe

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

VIEWER = "query Viewer { viewer { sandbox } }"
DATA = {"viewer": {"sandbox": "prod"}}
NOT_FOUND = {"message": "PersistedQueryNotFound", "extensions": {"code": "PERSISTED_QUERY_NOT_FOUND"}}
SCHEMA = build_schema(Limits())._schema


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def persisted(text: str, **more: Any) -> dict[str, Any]:
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": digest(text)}}, **more}


async def by_post(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await http.post("/graphql", json=body, headers=headers)


async def by_get(http: httpx.AsyncClient, body: dict[str, Any], **headers: str) -> httpx.Response:
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in body.items()}
    return await http.get("/graphql", params=texts, headers=headers)


@pytest.mark.parametrize("send", [by_post, by_get])
async def test_a_document_is_sent_once(api: Api, send: Callable[..., Any]) -> None:
    unknown = await send(api.http, persisted(VIEWER))
    assert (unknown.status_code, unknown.json()) == (200, {"errors": [NOT_FOUND]})
    assert (await send(api.http, persisted(VIEWER, query=VIEWER))).json()["data"] == DATA
    for again in (by_post, by_get):
        response = await again(api.http, persisted(VIEWER))
        assert (response.status_code, response.json()["data"]) == (200, DATA)
    assert (await by_post(api.http, {"documentId": f"sha256:{digest(VIEWER)}"})).json()["data"] == DATA


async def test_a_hash_of_another_text(api: Api) -> None:
    response = await by_post(api.http, persisted(VIEWER, query="{ __typename }"))
    assert response.status_code == 400
    assert response.json()["errors"][0]["message"].startswith("provided sha does not match query")
    assert (await by_post(api.http, persisted(VIEWER))).json() == {"errors": [NOT_FOUND]}


@pytest.mark.parametrize(
    "entry",
    [
        1,
        [],
        {"version": 2, "sha256Hash": digest(VIEWER)},
        {"version": 1},
        {"version": 1, "sha256Hash": "A" * 64},
        {"version": 1, "sha256Hash": {}},
    ],
)
async def test_what_is_no_hash(api: Api, entry: Any) -> None:
    response = await by_post(api.http, {"query": VIEWER, "extensions": {"persistedQuery": entry}})
    assert response.status_code == 400
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_organisations_share_no_documents(api: Api) -> None:
    acme = {"x-gw-ims-org-id": "acme"}
    assert (await by_post(api.http, persisted(VIEWER, query=VIEWER), **acme)).json()["data"] == DATA
    assert (await by_post(api.http, persisted(VIEWER), **{"x-gw-ims-org-id": "globex"})).json() == {
        "errors": [NOT_FOUND]
    }
    assert (await by_post(api.http, persisted(VIEWER), **acme)).json()["data"] == DATA


async def test_a_mutation_by_get_stays_refused(api: Api) -> None:
    text = 'mutation { createFolder(input: { name: "f", namespace: "AEPSegments" }) { errors { code } } }'
    assert (await by_post(api.http, persisted(text, query=text))).json()["data"]["createFolder"]["errors"] == []
    assert (await by_get(api.http, persisted(text))).status_code == 405


async def test_long_documents_run_and_are_not_kept(api: Api) -> None:
    long = VIEWER + " " * LONGEST_REGISTERED
    assert (await by_post(api.http, persisted(long, query=long))).json()["data"] == DATA
    assert (await by_post(api.http, persisted(long))).json() == {"errors": [NOT_FOUND]}


async def test_by_websocket(port: int) -> None:
    async with connected(port) as socket:
        await begun(socket)

        async def answers(count: int, **payload: Any) -> list[Any]:
            await socket.send(json.dumps(subscribe(**payload)))
            return [json.loads(await socket.recv()) for _ in range(count)]

        body = persisted(VIEWER)
        ((refused),) = await answers(1, query=None, **body)
        assert (refused["type"], refused["payload"]) == ("error", [NOT_FOUND])
        assert [a["type"] for a in await answers(2, query=VIEWER, extensions=body["extensions"])] == [
            "next",
            "complete",
        ]
        first, _ = await answers(2, query=None, **body)
        assert first["payload"]["data"] == DATA


async def test_few_are_kept_and_none_if_switched_off(services: ApiServices) -> None:
    texts = ["{ __typename }", "{ a: __typename }", "{ b: __typename }"]
    for kept, known in ((2, [False, True, True]), (0, [False] * 3)):
        object.__setattr__(services.limits, "persisted_queries", kept)
        app = Starlette(routes=api_routes(services))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http:
            answers = [(await by_post(http, persisted(text, query=text))).json() for text in texts]
            if not kept:
                unsupported = {"message": "PersistedQueryNotSupported"}
                unsupported |= {"extensions": {"code": "PERSISTED_QUERY_NOT_SUPPORTED"}}  # type: ignore[dict-item]
                assert answers == [{"errors": [unsupported]}] * 3
            assert ["data" in (await by_post(http, persisted(text))).json() for text in texts] == known


# ---------------------------------------------------------------- trusted documents


def manifest(kind: str, folder: Path) -> Path:
    """The document in each form that is taken."""
    apollo = {"format": "apollo-persisted-query-manifest", "version": 1,
              "operations": [{"id": digest(VIEWER), "name": "Viewer", "type": "query", "body": VIEWER}]}  # fmt: skip
    files = {
        "apollo.json": json.dumps(apollo),
        "relay.json": json.dumps({"f0a1": VIEWER}),
        "one.graphql": VIEWER,
        "folder/deep/viewer.graphql": VIEWER,
    }
    (folder / kind).parent.mkdir(parents=True, exist_ok=True)
    (folder / kind).write_text(files[kind])
    return folder / kind.split("/")[0]


@pytest.mark.parametrize("kind", ["apollo.json", "relay.json", "one.graphql", "folder/deep/viewer.graphql"])
async def test_trusted_documents_only(services: ApiServices, tmp_path: Path, kind: str) -> None:
    trusted = TrustedDocuments.read(manifest(kind, tmp_path), SCHEMA)
    app = Starlette(routes=api_routes(services, trusted))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http:
        allowed: list[dict[str, Any]] = [
            {"query": VIEWER},
            {"query": "# a comment\nquery Viewer {\n  viewer { sandbox }\n}"},
            persisted(VIEWER),
            {"documentId": digest(VIEWER)},
        ]
        allowed += [{"doc_id": "f0a1"}] if kind == "relay.json" else []
        for body in allowed:
            response = await by_post(http, body)
            assert (response.status_code, response.json()["data"]) == (200, DATA)
        for body, code in (
            ({"query": "{ __typename }"}, "QUERY_NOT_IN_SAFELIST"),
            ({"query": "query Viewer { viewer { sandbox subject } }"}, "QUERY_NOT_IN_SAFELIST"),
            ({"query": "{"}, "QUERY_NOT_IN_SAFELIST"),
            (persisted("{ __typename }", query="{ __typename }"), "QUERY_NOT_IN_SAFELIST"),
            (persisted("{ __typename }"), "PERSISTED_QUERY_NOT_IN_LIST"),
            ({"documentId": "none"}, "PERSISTED_QUERY_NOT_IN_LIST"),
        ):
            response = await by_post(http, body)
            assert response.status_code == 403
            assert response.json()["errors"][0]["extensions"] == {"code": code}
            assert "data" not in response.json()
    async with serving(app) as port, connected(port) as socket:
        await begun(socket)
        await socket.send(json.dumps(subscribe(query="{ __typename }")))
        refused = json.loads(await socket.recv())
        assert refused["type"] == "error"
        assert refused["payload"][0]["extensions"] == {"code": "QUERY_NOT_IN_SAFELIST"}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.graphql", "{ viewer { nothing } }", "is not valid: Cannot query field 'nothing' on type 'Viewer'."),
        ("a.graphql", "{", "is not valid: Syntax Error: Expected Name, found <EOF>."),
        ("a.json", "{", "cannot be read: unexpected end of data: line 1 column 2 (char 1)"),
        ("a.json", "[1]", "is no manifest: None must be the id of a text"),
        ("a.json", '{"x": 1}', "is no manifest: 'x' must be the id of a text"),
        ("a.txt.d/readme.md", "", "holds no documents: put .graphql files or a .json manifest there"),
        ("a.json", '{"operations": [{"id": "x", "body": "{ __typename }"}, {"id": "x", "body": "{ a: __typename }"}]}',
         "two documents have the id x"),
    ],
)  # fmt: skip
async def test_documents_that_cannot_be_trusted(
    database_url: str, tmp_path: Path, name: str, content: str, says: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    path = tmp_path / name.split("/")[0]
    with pytest.raises(InvalidDocuments) as refused:
        TrustedDocuments.read(path, SCHEMA)
    assert says in str(refused.value)
    with pytest.raises(InvalidSettings, match=f"^SEGMENTATION_TRUSTED_DOCUMENTS={path}: "):
        create_app(Settings(data_dir=tmp_path, trusted_documents=path))


async def test_a_file_that_is_not_there(database_url: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDocuments, match="does not exist: name a file or a folder"):
        TrustedDocuments.read(tmp_path / "none", SCHEMA)
