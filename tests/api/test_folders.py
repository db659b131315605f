"""Folders through the API: made, moved, refused, and linked from what is in them."""

from typing import Any

from app.api.global_ids import global_id
from tests.api.conftest import Api

ERRORS = "errors { __typename code message path ... on DependentsError { dependents { __typename id } } }"
CREATE = f"""mutation ($input: CreateFolderInput!) {{ createFolder(input: $input) {{
  folder {{ id folderId name namespace path etag parent {{ name }} }} {ERRORS} }} }}"""
UPDATE = f"""mutation ($input: UpdateFolderInput!) {{ updateFolder(input: $input) {{
  folder {{ name path etag parent {{ path parent {{ path }} }} }} {ERRORS} }} }}"""
DELETE = f"mutation ($input: DeleteInput!) {{ deleteFolder(input: $input) {{ deletedId {ERRORS} }} }}"
PUT = """mutation ($input: UpdateSegmentDefinitionInput!) { updateSegmentDefinition(input: $input) {
  definition { folder { path } audience { folder { path } } } errors { code path } } }"""


async def make(api: Api, name: str, parent: str | None = None, namespace: str = "AEPSegments") -> dict[str, Any]:
    input = {"name": name, "namespace": namespace, **({} if parent is None else {"parentId": parent})}
    payload = (await api.query(CREATE, input=input))["createFolder"]
    assert payload["errors"] == []
    folder: dict[str, Any] = payload["folder"]
    return folder


async def test_a_tree_is_made_moved_and_read(api: Api) -> None:
    shop = await make(api, "Shop")
    assert shop == {
        "id": global_id("Folder", shop["folderId"]),
        "folderId": shop["folderId"],
        "name": "Shop",
        "namespace": "AEPSegments",
        "path": "/Shop",
        "etag": "1",
        "parent": None,
    }
    summer = await make(api, "Summer", shop["id"])
    assert (summer["path"], summer["parent"]) == ("/Shop/Summer", {"name": "Shop"})
    june = await make(api, "June", summer["folderId"])
    moved = (await api.query(UPDATE, input={"id": june["id"], "parentId": shop["folderId"], "etag": "1"}))[
        "updateFolder"
    ]
    assert moved == {
        "folder": {"name": "June", "path": "/Shop/June", "etag": "2", "parent": {"path": "/Shop", "parent": None}},
        "errors": [],
    }
    rooted = (await api.query(UPDATE, input={"id": june["folderId"], "name": "Juni", "parentId": None}))["updateFolder"]
    assert rooted["folder"] == {"name": "Juni", "path": "/Juni", "etag": "3", "parent": None}
    for id_ in (summer["id"], summer["folderId"]):
        found = await api.query("query ($id: ID!) { folder(id: $id) { path } }", id=id_)
        assert found["folder"] == {"path": "/Shop/Summer"}
    node = await api.query("query ($id: ID!) { node(id: $id) { ... on Folder { path } } }", id=summer["id"])
    assert node["node"] == {"path": "/Shop/Summer"}


async def test_definitions_are_put_into_folders_and_listed_by_them(api: Api) -> None:
    shop = await make(api, "Shop")
    await api.loaded()
    buyers, others = await api.define("Buyers"), await api.define("Others")
    put = (await api.query(PUT, input={"id": buyers, "folderId": shop["id"]}))["updateSegmentDefinition"]
    assert put == {"definition": {"folder": {"path": "/Shop"}, "audience": {"folder": {"path": "/Shop"}}}, "errors": []}
    for id_ in (shop["id"], shop["folderId"]):
        found = await api.query(
            """query ($id: ID!) { audiences(filter: {folderId: $id}) { nodes { audienceId } }
              segmentDefinitions(filter: {folderId: $id}) { nodes { segmentId } } }""",
            id=id_,
        )
        assert found["audiences"]["nodes"] == [{"audienceId": buyers}]
        assert found["segmentDefinitions"]["nodes"] == [{"segmentId": buyers}]
    listed = await api.query("{ audiences(orderBy: {field: NAME, direction: ASC}) { nodes { folder { path } } } }")
    assert listed["audiences"]["nodes"] == [{"folder": {"path": "/Shop"}}, {"folder": None}]
    taken = (await api.query(PUT, input={"id": buyers, "folderId": None}))["updateSegmentDefinition"]
    assert taken == {"definition": {"folder": None, "audience": {"folder": None}}, "errors": []}
    refused = (await api.query(PUT, input={"id": others, "folderId": "ghost"}))["updateSegmentDefinition"]
    assert refused == {"definition": None, "errors": [{"code": "NOT_FOUND", "path": ["input", "folderId"]}]}


async def test_a_folder_that_holds_something_is_not_deleted(api: Api) -> None:
    shop = await make(api, "Shop")
    summer = await make(api, "Summer", shop["id"])
    await api.loaded()
    buyers = await api.define("Buyers")
    await api.query(PUT, input={"id": buyers, "folderId": shop["id"]})
    assert (await api.query(DELETE, input={"id": shop["id"]}))["deleteFolder"] == {
        "deletedId": None,
        "errors": [
            {
                "__typename": "DependentsError",
                "code": "HAS_DEPENDENTS",
                "message": "the folder '/Shop' holds 'Summer', 'Buyers': move or delete them first",
                "path": ["input", "id"],
                "dependents": [
                    {"__typename": "Folder", "id": summer["id"]},
                    {"__typename": "Audience", "id": global_id("Audience", buyers)},
                ],
            }
        ],
    }
    deleted = (await api.query(DELETE, input={"id": summer["folderId"], "etag": "1"}))["deleteFolder"]
    assert deleted == {"deletedId": summer["id"], "errors": []}
    assert (await api.query("query ($id: ID!) { folder(id: $id) { id } }", id=summer["id"]))["folder"] is None


async def test_refusals_lead_to_the_input(api: Api) -> None:
    shop = await make(api, "Shop")

    async def refused(document: str, **input: Any) -> list[tuple[str, list[str]]]:
        (payload,) = (await api.query(document, input=input)).values()
        assert payload.get("folder") is None
        return [(error["code"], error["path"]) for error in payload["errors"]]

    wrong = global_id("Audience", "x")
    assert await refused(CREATE, name="Shop", namespace="AEPSegments") == [("ALREADY_EXISTS", ["input", "name"])]
    assert await refused(CREATE, name="", namespace="") == [
        ("INVALID_INPUT", ["input", "name"]),
        ("INVALID_INPUT", ["input", "namespace"]),
    ]
    assert await refused(CREATE, name="New", namespace="AEPSegments", parentId=wrong) == [
        ("NOT_FOUND", ["input", "parentId"])
    ]
    assert await refused(UPDATE, id=shop["id"], name=None) == [("INVALID_INPUT", ["input", "name"])]
    assert await refused(UPDATE, id=shop["id"], parentId=shop["id"]) == [("INVALID_INPUT", ["input", "parentId"])]
    assert await refused(UPDATE, id=shop["id"], etag="9", name="New") == [("STALE_ETAG", ["input", "etag"])]
    assert await refused(UPDATE, id=wrong, name="New") == [("NOT_FOUND", ["input", "id"])]
    assert await refused(DELETE, id="ghost") == [("NOT_FOUND", ["input", "id"])]
    found = await api.query("query ($id: ID!) { folder(id: $id) { path etag } }", id=shop["id"])
    assert found["folder"] == {"path": "/Shop", "etag": "1"}


async def test_another_sandbox_sees_and_changes_no_folder(api: Api) -> None:
    shop, dev = await make(api, "Shop"), api.within("dev")
    for id_ in (shop["id"], shop["folderId"]):
        assert (await dev.query("query ($id: ID!) { folder(id: $id) { id } }", id=id_))["folder"] is None
        for document, input in ((UPDATE, {"id": id_, "name": "Mine"}), (DELETE, {"id": id_})):
            (payload,) = (await dev.query(document, input=input)).values()
            assert [error["code"] for error in payload["errors"]] == ["NOT_FOUND"]
    found = await api.query("query ($id: ID!) { folder(id: $id) { path etag } }", id=shop["id"])
    assert found["folder"] == {"path": "/Shop", "etag": "1"}
