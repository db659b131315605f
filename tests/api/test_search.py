"""Search through the API: hits, pages, namespaces, the way to an object, and what is wrong with a term."""

from typing import Any

from app.api.global_ids import global_id
from tests.api.conftest import Api
from tests.api.test_folders import PUT, make
from tests.support.databases import count_statements

SEARCH = """query ($term: String!, $namespace: String, $folderId: ID, $first: Int, $after: String) {
  search(term: $term, namespace: $namespace, folderId: $folderId, first: $first, after: $after) {
    edges { cursor node { name } } nodes { id name description namespace isFolder parentFolder { path } score
      node { __typename id ... on Audience { audienceId } ... on Folder { path } } }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } totalCount error { message position } } }"""
NAMES = """query ($term: String!, $folderId: ID) { search(term: $term, folderId: $folderId) {
  nodes { name } totalCount } }"""
NAMESPACES = """query ($term: String!) { searchNamespaces(term: $term) {
  namespaces { namespace displayName count } total error { message position } } }"""
TAXONOMY = """query ($namespace: String!, $id: ID!) { taxonomy(namespace: $namespace, id: $id) {
  name isFolder score node { __typename } } }"""


async def search(api: Api, term: str, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api.query(SEARCH, term=term, **more))["search"]
    return found


async def test_a_hit_leads_to_what_was_found(api: Api) -> None:
    await api.loaded()
    shop = await make(api, "Café")
    buyers = await api.define("Café visitors")
    await api.query(PUT, input={"id": buyers, "folderId": shop["id"], "description": "Had a coffee"})
    found = await search(api, "cafe")
    assert found["nodes"] == [
        {
            "id": shop["id"],
            "name": "Café",
            "description": None,
            "namespace": "AEPSegments",
            "isFolder": True,
            "parentFolder": None,
            "score": found["nodes"][0]["score"],
            "node": {"__typename": "Folder", "id": shop["id"], "path": "/Café"},
        },
        {
            "id": global_id("Audience", buyers),
            "name": "Café visitors",
            "description": "Had a coffee",
            "namespace": "AEPSegments",
            "isFolder": False,
            "parentFolder": {"path": "/Café"},
            "score": found["nodes"][1]["score"],
            "node": {"__typename": "Audience", "id": global_id("Audience", buyers), "audienceId": buyers},
        },
    ]
    cursors = [edge["cursor"] for edge in found["edges"]]
    assert [edge["node"]["name"] for edge in found["edges"]] == ["Café", "Café visitors"]
    assert found["pageInfo"] == {
        "hasNextPage": False,
        "hasPreviousPage": False,
        "startCursor": cursors[0],
        "endCursor": cursors[1],
    }
    assert (found["totalCount"], found["error"]) == (2, None)
    assert found["nodes"][0]["score"] > 0


async def test_a_change_is_found_by_the_next_search(api: Api) -> None:
    await api.loaded()
    assert (await search(api, "buyers"))["totalCount"] == 0
    buyers = await api.define("Buyers")
    assert (await search(api, "buyers"))["totalCount"] == 1
    await api.query(
        'mutation ($id: ID!) { updateSegmentDefinition(input: {id: $id, name: "Owners"}) { errors { code } } }',
        id=buyers,
    )
    assert [(await search(api, term))["totalCount"] for term in ("buyers", "owners")] == [0, 1]
    await api.query("mutation ($id: ID!) { deleteSegmentDefinition(input: {id: $id}) { errors { code } } }", id=buyers)
    assert (await search(api, "owners"))["totalCount"] == 0


async def test_pages_go_on_after_a_cursor(api: Api) -> None:
    for name in "abc":
        await make(api, f"Blue {name}")
    first = await search(api, "blue", first=2)
    assert [node["name"] for node in first["nodes"]] == ["Blue a", "Blue b"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"]) == (3, True)
    await make(api, "Blue")
    rest = await search(api, "blue", first=2, after=first["pageInfo"]["endCursor"])
    assert [node["name"] for node in rest["nodes"]] == ["Blue c"]
    assert (rest["totalCount"], rest["pageInfo"]["hasPreviousPage"]) == (4, True)
    answer = await api.answer(SEARCH, term="red", after=first["pageInfo"]["endCursor"])
    assert answer["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "path": ["after"]}
    answer = await api.answer(SEARCH, term="red", first=501)
    assert answer["errors"][0]["extensions"] == {"code": "LIMIT_EXCEEDED", "path": ["first"]}


async def test_namespace_and_folder_limit_a_search(api: Api) -> None:
    shop = await make(api, "Blue shop")
    await make(api, "Blue corner", shop["id"])
    await make(api, "Blue", namespace="AAM")
    assert (await search(api, "blue", namespace="AAM"))["totalCount"] == 1
    assert (await search(api, "blue", namespace="none"))["totalCount"] == 0
    for id_, names in (
        (shop["id"], ["Blue corner"]),
        (shop["folderId"], ["Blue corner"]),
        ("ghost", []),
        (global_id("Audience", shop["folderId"]), []),
    ):
        found = (await api.query(NAMES, term="blue", folderId=id_))["search"]
        assert [node["name"] for node in found["nodes"]] == names


async def test_a_mistake_in_the_term_is_data(api: Api) -> None:
    await make(api, "Blue")
    error = {"message": 'this "(" is never closed: add a ")"', "position": 10}
    found = await search(api, "blue AND (gold")
    assert found["error"] == error
    assert (found["nodes"], found["edges"], found["totalCount"]) == ([], [], 0)
    assert (await api.query(NAMESPACES, term="blue AND (gold"))["searchNamespaces"] == {
        "namespaces": [],
        "total": 0,
        "error": error,
    }
    message = "the regular expression is not well formed, or too large. It stands for one whole word, as /[mh]otel/"
    assert (await search(api, "blue /(/"))["error"] == {"message": message, "position": 6}


async def test_namespaces_with_their_hits(api: Api) -> None:
    await make(api, "Blue")
    await make(api, "Blue", namespace="AAM")
    await make(api, "Light blue", namespace="AAM")
    await make(api, "Red", namespace="ours")
    assert (await api.query(NAMESPACES, term="blue"))["searchNamespaces"] == {
        "namespaces": [
            {"namespace": "AAM", "displayName": "Audience Manager", "count": 2},
            {"namespace": "AEPSegments", "displayName": "Experience Platform segments", "count": 1},
            {"namespace": "ours", "displayName": "ours", "count": 0},
        ],
        "total": 3,
        "error": None,
    }


async def test_the_way_from_the_root(api: Api) -> None:
    await api.loaded()
    shop = await make(api, "Shop")
    summer = await make(api, "Summer", shop["id"])
    buyers = await api.define("Buyers")
    await api.query(PUT, input={"id": buyers, "folderId": summer["id"]})
    way = [
        {"name": "Shop", "isFolder": True, "score": 0, "node": {"__typename": "Folder"}},
        {"name": "Summer", "isFolder": True, "score": 0, "node": {"__typename": "Folder"}},
        {"name": "Buyers", "isFolder": False, "score": 0, "node": {"__typename": "Audience"}},
    ]
    for id_, expected in (
        (buyers, way),
        (global_id("Audience", buyers), way),
        (global_id("SegmentDefinition", buyers), way),
        (summer["id"], way[:2]),
        (summer["folderId"], way[:2]),
        (global_id("Dataset", buyers), []),
        ("ghost", []),
    ):
        assert (await api.query(TAXONOMY, namespace="AEPSegments", id=id_))["taxonomy"] == expected
    assert (await api.query(TAXONOMY, namespace="AAM", id=buyers))["taxonomy"] == []
    partner = {"name": "Partner", "type": "EXTERNAL_SEGMENT", "audienceId": "partner-7", "namespace": "AAM"}
    create = "mutation ($input: CreateAudienceInput!) { createAudience(input: $input) { errors { message } } }"
    assert (await api.query(create, input=partner))["createAudience"]["errors"] == []
    (hit,) = (await api.query(TAXONOMY, namespace="AAM", id="partner-7"))["taxonomy"]
    assert hit["name"] == "Partner"


async def test_another_sandbox_finds_nothing(api: Api) -> None:
    shop, dev = await make(api, "Shop"), api.within("dev")
    await make(dev, "Shopping")
    assert [node["name"] for node in (await search(dev, "shop*"))["nodes"]] == ["Shopping"]
    assert (await search(dev, f"folderId:{shop['folderId']}"))["totalCount"] == 0
    assert (await search(dev, "*", folderId=shop["id"]))["totalCount"] == 0
    assert (await dev.query(TAXONOMY, namespace="AEPSegments", id=shop["id"]))["taxonomy"] == []
    empty = (await api.within("empty").query(NAMESPACES, term="shop"))["searchNamespaces"]
    assert empty == {"namespaces": [], "total": 0, "error": None}


async def test_a_page_of_hits_costs_one_statement_for_each_level(api: Api) -> None:
    shop = await make(api, "Shop")
    for at in range(10):
        await make(api, f"Blue {at}", shop["id"])
    await search(api, "blue")
    with count_statements(api.services.database) as statements:
        found = await search(api, "blue")
    assert [node["parentFolder"] for node in found["nodes"]] == [{"path": "/Shop"}] * 10
    assert len(statements) == 2
