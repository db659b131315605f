"""The lists of a sandbox: jobs of every kind, previews and folders; filtered, ordered and paged both ways."""

from datetime import timedelta
from typing import Any

import pytest

from app.clock import FixedClock
from tests.api.conftest import Api
from tests.api.test_folders import make

JOBS = """query ($first: Int, $after: String, $last: Int, $before: String, $filter: JobFilter, $orderBy: JobOrder) {
  jobs(first: $first, after: $after, last: $last, before: $before, filter: $filter, orderBy: $orderBy) {
    totalCount nodes { jobId } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
CANCEL = """mutation ($id: ID!) { cancelSegmentJob(id: $id) { errors { message } } }"""
PREVIEWS = """query ($first: Int, $after: String, $last: Int, $before: String) {
  previews(first: $first, after: $after, last: $last, before: $before) { totalCount nodes { previewId }
    pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""


async def three_jobs(api: Api, clock: FixedClock) -> list[str]:
    """A cancelled segment job, an export and a segment job that wait, a minute apart."""
    await api.loaded()
    await api.define("A")
    jobs = [await api.start()]
    await api.query(CANCEL, id=jobs[0])
    clock.advance(timedelta(minutes=1))
    jobs.append(await api.export(await api.export_dataset()))
    clock.advance(timedelta(minutes=1))
    return [*jobs, await api.start()]


async def ids(api: Api, **arguments: Any) -> list[str]:
    page = (await api.query(JOBS, **arguments))["jobs"]
    assert page["totalCount"] == len(page["nodes"])
    return [node["jobId"] for node in page["nodes"]]


async def test_jobs_of_every_kind_are_one_list(api: Api, clock: FixedClock) -> None:
    started = clock()
    cancelled, export, waiting = await three_jobs(api, clock)
    by_age = {"field": "CREATED_AT", "direction": "ASC"}
    assert await ids(api) == [waiting, export, cancelled]
    assert await ids(api, orderBy=by_age) == [cancelled, export, waiting]
    assert await ids(api, orderBy={"field": "FINISHED_AT", "direction": "ASC"}) == [cancelled, export, waiting]
    assert await ids(api, filter={"status": ["CANCELLED"]}) == [cancelled]
    assert await ids(api, filter={"status": ["QUEUED"], "source": ["API"]}) == [waiting, export]
    assert await ids(api, filter={"source": ["SCHEDULER"]}) == []
    assert await ids(api, filter={"kind": ["EXPORT", "ERASURE"]}) == [export]
    assert await ids(api, filter={"kind": ["SEGMENT"], "status": ["QUEUED"]}) == [waiting]
    assert await ids(api, filter={"kind": []}) == []
    assert await ids(api, filter={"createdAt": {"gt": started.isoformat()}}) == [waiting, export]
    types = await api.query("{ jobs { nodes { __typename } } }")
    assert [node["__typename"] for node in types["jobs"]["nodes"]] == ["SegmentJob", "ExportJob", "SegmentJob"]


async def test_jobs_are_paged_both_ways(api: Api, clock: FixedClock) -> None:
    cancelled, export, waiting = await three_jobs(api, clock)
    page = (await api.query(JOBS, first=2))["jobs"]
    assert [node["jobId"] for node in page["nodes"]] == [waiting, export]
    assert (page["totalCount"], page["pageInfo"]["hasNextPage"], page["pageInfo"]["hasPreviousPage"]) == (
        3,
        True,
        False,
    )
    rest = (await api.query(JOBS, first=2, after=page["pageInfo"]["endCursor"]))["jobs"]
    assert [node["jobId"] for node in rest["nodes"]] == [cancelled]
    back = (await api.query(JOBS, last=1, before=rest["pageInfo"]["startCursor"]))["jobs"]
    assert [node["jobId"] for node in back["nodes"]] == [export]
    assert (back["pageInfo"]["hasNextPage"], back["pageInfo"]["hasPreviousPage"]) == (True, True)


async def test_previews_are_listed_newest_first(api: Api, clock: FixedClock) -> None:
    await api.loaded()
    previews = []
    for _ in range(3):
        previews.append(await api.preview("true"))
        clock.advance(timedelta(minutes=1))
    page = (await api.query(PREVIEWS, first=2))["previews"]
    assert ([node["previewId"] for node in page["nodes"]], page["totalCount"]) == ([previews[2], previews[1]], 3)
    rest = (await api.query(PREVIEWS, after=page["pageInfo"]["endCursor"]))["previews"]
    assert [node["previewId"] for node in rest["nodes"]] == [previews[0]]
    last = (await api.query(PREVIEWS, last=2))["previews"]
    assert [node["previewId"] for node in last["nodes"]] == [previews[1], previews[0]]


async def test_folders_are_listed_by_namespace_and_parent(api: Api) -> None:
    shop = await make(api, "Shop")
    await make(api, "Winter", shop["folderId"])
    await make(api, "Summer", shop["id"])
    await make(api, "Audit", namespace="Other")

    async def paths(arguments: str) -> list[str]:
        page = (await api.query(f"{{ folders{arguments} {{ totalCount nodes {{ path }} }} }}"))["folders"]
        assert page["totalCount"] == len(page["nodes"])
        return [node["path"] for node in page["nodes"]]

    assert await paths("") == ["/Audit", "/Shop", "/Shop/Summer", "/Shop/Winter"]
    assert await paths('(namespace: "AEPSegments")') == ["/Shop", "/Shop/Summer", "/Shop/Winter"]
    assert await paths("(parentId: null)") == ["/Audit", "/Shop"]
    assert await paths('(namespace: "AEPSegments", parentId: null)') == ["/Shop"]
    assert await paths(f'(parentId: "{shop["id"]}")') == ["/Shop/Summer", "/Shop/Winter"]
    assert await paths('(parentId: "ghost")') == []
    tail = await api.query("{ folders(last: 1) { totalCount nodes { path } pageInfo { hasPreviousPage } } }")
    assert tail["folders"] == {
        "totalCount": 4,
        "nodes": [{"path": "/Shop/Winter"}],
        "pageInfo": {"hasPreviousPage": True},
    }


@pytest.mark.parametrize("field", ["datasets", "mergePolicies"])
async def test_lists_that_went_forward_only_go_back_too(api: Api, field: str) -> None:
    await api.loaded()
    await api.dataset("second")
    await api.define("A")  # brings the default merge policy about
    policy = 'createMergePolicy(input: {name: "Other", method: TIMESTAMP_ORDERED}) { errors { message } }'
    await api.query(f"mutation {{ {policy} }}")
    every = (await api.query(f"{{ {field} {{ edges {{ cursor node {{ id }} }} }} }}"))[field]["edges"]
    tail = (await api.query(f"{{ {field}(last: 1) {{ nodes {{ id }} pageInfo {{ hasPreviousPage }} }} }}"))[field]
    assert tail == {"nodes": [every[-1]["node"]], "pageInfo": {"hasPreviousPage": True}}
    before = f'{{ {field}(last: 5, before: "{every[-1]["cursor"]}") {{ nodes {{ id }} }} }}'
    assert (await api.query(before))[field]["nodes"] == [edge["node"] for edge in every[:-1]]
