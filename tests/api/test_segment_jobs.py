"""Segment jobs: started, read, cancelled; and the people they find."""

from datetime import timedelta
from typing import Any

import pytest

from app.api.global_ids import global_id
from app.clock import FixedClock
from tests.api.conftest import Api

CREATE = """mutation ($input: CreateSegmentJobInput!) { createSegmentJob(input: $input) {
  job { id jobId status allDefinitions segments { nodes { segmentId } } }
  errors { __typename code message path } } }"""
CANCEL = """mutation ($id: ID!) { cancelSegmentJob(id: $id) {
  job { status progress { phase fraction sequence } } errors { __typename code message path } } }"""


async def create(api: Api, **values: Any) -> dict[str, Any]:
    payload: dict[str, Any] = (await api.query(CREATE, input=values))["createSegmentJob"]
    return payload


async def test_a_job_waits_until_somebody_takes_it(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    made = await create(api, definitionIds=[global_id("SegmentDefinition", a)])
    assert made["errors"] == []
    found = await api.query(
        """query ($id: ID!) { segmentJob(id: $id) { id jobId status source runId allDefinitions evaluatedAt attempts
          progress { phase fraction profilesRead totalProfiles estimatedSecondsLeft sequence }
          errors { code } metrics { totalProfiles } createdBy createdAt startedAt finishedAt } }""",
        id=made["job"]["jobId"],
    )
    assert found["segmentJob"] == {
        "id": made["job"]["id"],
        "jobId": made["job"]["jobId"],
        "status": "QUEUED",
        "source": "API",
        "runId": None,
        "allDefinitions": False,
        "evaluatedAt": None,
        "attempts": 0,
        "progress": {
            "phase": "WAITING",
            "fraction": 0.0,
            "profilesRead": 0,
            "totalProfiles": 0,
            "estimatedSecondsLeft": None,
            "sequence": 1,
        },
        "errors": [],
        "metrics": None,
        "createdBy": "anonymous",
        "createdAt": "2026-06-15T12:00:00Z",
        "startedAt": None,
        "finishedAt": None,
    }


@pytest.mark.parametrize(
    ("values", "code", "path"),
    [
        ({}, "INVALID_INPUT", ["input", "definitionIds"]),
        ({"definitionIds": []}, "INVALID_INPUT", ["input", "definitionIds"]),
        ({"allDefinitions": True}, "INVALID_INPUT", ["input", "allDefinitions"]),
        ({"definitionIds": ["nothing"]}, "NOT_FOUND", ["input", "definitionIds", "0"]),
        ({"definitionIds": [global_id("Audience", "x")]}, "NOT_FOUND", ["input", "definitionIds", "0"]),
        ({"definitionIds": ["x"] * 1_501}, "LIMIT_EXCEEDED", ["input", "definitionIds"]),
    ],
)
async def test_a_job_over_nothing_is_refused(api: Api, values: Any, code: str, path: list[str]) -> None:
    refused = await create(api, **values)
    assert refused["job"] is None
    assert [(error["__typename"], error["code"], error["path"]) for error in refused["errors"]] == [
        ("InputError", code, path)
    ]
    assert (await api.query("{ segmentJobs { totalCount } }"))["segmentJobs"] == {"totalCount": 0}


async def test_every_unknown_id_is_named(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    refused = await create(api, definitionIds=["x", a, "y"])
    assert [error["path"][-1] for error in refused["errors"]] == ["0", "2"]


async def test_the_same_key_gives_the_same_job(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    one = await create(api, allDefinitions=True, idempotencyKey="k")
    two = await create(api, allDefinitions=True, idempotencyKey="k")
    assert one["job"]["jobId"] == two["job"]["jobId"]
    assert (await api.query("{ segmentJobs { totalCount } }"))["segmentJobs"] == {"totalCount": 1}


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_a_key_of_no_usable_length_is_refused(api: Api, key: str) -> None:
    await api.loaded()
    await api.define("A")
    assert await create(api, allDefinitions=True, idempotencyKey=key) == {
        "job": None,
        "errors": [
            {
                "__typename": "InputError",
                "code": "INVALID_INPUT",
                "message": f"an idempotency key has 1 to 255 characters without NUL, this one {len(key)}",
                "path": ["input", "idempotencyKey"],
            }
        ],
    }
    assert (await create(api, allDefinitions=True, idempotencyKey="k" * 255))["errors"] == []


async def test_a_waiting_job_is_cancelled_at_once_and_again(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    for id_ in (job, global_id("SegmentJob", job)):
        payload = (await api.query(CANCEL, id=id_))["cancelSegmentJob"]
        assert payload["errors"] == []
        assert payload["job"]["status"] == "CANCELLED"
    assert payload["job"]["progress"]["sequence"] == 2


async def test_an_unknown_job_is_not_cancelled(api: Api) -> None:
    for id_ in ("nothing", global_id("Dataset", "x")):
        payload = (await api.query(CANCEL, id=id_))["cancelSegmentJob"]
        assert [(error["code"], error["path"]) for error in payload["errors"]] == [("NOT_FOUND", ["id"])]


@pytest.mark.usefixtures("working")
async def test_what_a_job_finds(api: Api) -> None:
    await api.loaded()
    a = await api.define("A")
    job = await api.start()
    assert await api.ended(job) == {"status": "SUCCEEDED", "errors": []}
    found = await api.query(
        """query ($job: ID!, $a: ID!) {
          segmentJob(id: $job) {
            evaluatedAt startedAt finishedAt attempts allDefinitions
            progress { phase fraction profilesRead totalProfiles }
            metrics { totalProfiles totalProfilesByMergePolicy { count mergePolicy { isDefault } }
              totalTime { start end totalMs }
              bucketTime { buckets totalMs readingMs evaluatingMs
                slowest { bucket profiles totalMs readingMs evaluatingMs } } }
            segments { totalCount nodes { id segmentId version expression profileCount evaluationMs definition { name }
              byNamespace { namespace count } byStatus { status count } error { message } } } }
          audience(id: $a) {
            metrics { totalProfiles byNamespace { namespace count } updatedAt job { jobId } }
            jobs { totalCount nodes { jobId metrics { totalProfiles
              totalProfilesByMergePolicy { count mergePolicy { isDefault } } totalTime { start end totalMs } } } }
            members { totalCount pageInfo { hasNextPage } nodes { status lastQualificationTime audience { audienceId }
              profile { id profileId identities { namespace id primary } attributes
                events(first: 1) { totalCount pageInfo { hasNextPage }
                  nodes { timestamp attributes(paths: ["dollars"]) } }
                memberships { totalCount nodes { status audience { name } } } } } } }
        }""",
        job=job,
        a=a,
    )
    segment_job = found["segmentJob"]
    assert segment_job["progress"] == {"phase": "DONE", "fraction": 1.0, "profilesRead": 2, "totalProfiles": 2}
    assert (segment_job["attempts"], segment_job["allDefinitions"]) == (1, True)
    instant = "2026-06-15T12:00:00Z"
    assert {segment_job[name] for name in ("evaluatedAt", "startedAt", "finishedAt")} == {instant}
    time, evaluation = segment_job["metrics"].pop("bucketTime"), segment_job["segments"]["nodes"][0].pop("evaluationMs")
    slowest = time.pop("slowest")
    assert sum(each["profiles"] for each in slowest) == 2
    assert time == {"buckets": len(slowest)} | {
        name: pytest.approx(sum(each[name] for each in slowest), abs=0.01)
        for name in ("totalMs", "readingMs", "evaluatingMs")
    }
    assert 0 < evaluation == pytest.approx(time["evaluatingMs"], abs=0.01)
    assert time["totalMs"] > time["readingMs"] + time["evaluatingMs"]
    assert segment_job["metrics"] == {
        "totalProfiles": 2,
        "totalProfilesByMergePolicy": [{"count": 2, "mergePolicy": {"isDefault": True}}],
        "totalTime": {"start": instant, "end": instant, "totalMs": 0},
    }
    assert segment_job["segments"] == {
        "totalCount": 1,
        "nodes": [
            {
                "id": global_id("SegmentJobSegment", f"{job}:{a}"),
                "segmentId": a,
                "version": 1,
                "expression": "xEvent.sum(dollars) > 500",
                "profileCount": 2,
                "definition": {"name": "A"},
                "byNamespace": [{"namespace": "crm", "count": 2}],
                "byStatus": [
                    {"status": "REALIZED", "count": 2},
                    {"status": "EXISTING", "count": 0},
                    {"status": "EXITED", "count": 0},
                ],
                "error": None,
            }
        ],
    }
    audience = found["audience"]
    assert audience["metrics"] == {
        "totalProfiles": 2,
        "byNamespace": [{"namespace": "crm", "count": 2}],
        "updatedAt": instant,
        "job": {"jobId": job},
    }
    assert audience["jobs"] == {"totalCount": 1, "nodes": [{"jobId": job, "metrics": segment_job["metrics"]}]}
    members = audience["members"]
    assert (members["totalCount"], members["pageInfo"]) == (2, {"hasNextPage": False})
    assert {
        (node["status"], node["lastQualificationTime"], node["audience"]["audienceId"]) for node in members["nodes"]
    } == {("REALIZED", instant, a)}
    people = {node["profile"]["profileId"]: node["profile"] for node in members["nodes"]}
    assert set(people) == {"crm:00001", "crm:00002"}
    first = people["crm:00001"]
    assert first["id"] == global_id("Profile", "crm:00001")
    assert first["identities"] == [{"namespace": "crm", "id": "00001", "primary": True}]
    assert first["events"] == {
        "totalCount": 2,
        "pageInfo": {"hasNextPage": True},
        "nodes": [{"timestamp": "2026-02-01T00:00:00Z", "attributes": {"dollars": 600.0}}],
    }
    assert first["memberships"] == {"totalCount": 1, "nodes": [{"status": "REALIZED", "audience": {"name": "A"}}]}


@pytest.mark.usefixtures("working")
async def test_a_finished_job_is_not_cancelled(api: Api) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    await api.ended(job)
    payload = (await api.query(CANCEL, id=job))["cancelSegmentJob"]
    assert payload == {
        "job": None,
        "errors": [
            {
                "__typename": "InputError",
                "code": "INVALID_STATE",
                "message": "the job has succeeded and can no longer be cancelled",
                "path": ["id"],
            }
        ],
    }


@pytest.mark.usefixtures("working")
async def test_members_page_by_page(api: Api) -> None:
    dataset = await api.dataset()
    rows = b"".join(b"%05d,2026-01-01,900\n" % number for number in range(25))
    await api.upload(dataset, b"customer,when,dollars\n" + rows)
    a = await api.define("A")
    await api.ended(await api.start())
    document = """query ($id: ID!, $after: String) { audience(id: $id) { members(first: 10, after: $after) {
      totalCount pageInfo { hasNextPage endCursor } nodes { profile { profileId } } } } }"""
    seen, after, pages = [], None, 0
    while True:
        page = (await api.query(document, id=a, after=after))["audience"]["members"]
        seen += [node["profile"]["profileId"] for node in page["nodes"]]
        after, pages = page["pageInfo"]["endCursor"], pages + 1
        assert page["totalCount"] == 25
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert pages == 3
    assert len(seen) == 25
    assert set(seen) == {f"crm:{number:05d}" for number in range(25)}


async def test_a_person_by_id_and_by_identity(api: Api) -> None:
    await api.loaded()
    by_identity = "query ($i: IdentityInput) { profile(identity: $i) { profileId } }"
    found = await api.query(by_identity, i={"namespace": "crm", "id": "00002"})
    assert found["profile"] == {"profileId": "crm:00002"}
    by_id = "query ($id: ID) { profile(id: $id) { profileId } }"
    for id_ in ("crm:00002", global_id("Profile", "crm:00002")):
        assert (await api.query(by_id, id=id_))["profile"] == {"profileId": "crm:00002"}
    for id_ in ("crm:2", "nothing", global_id("Dataset", "crm:00002")):
        assert (await api.query(by_id, id=id_))["profile"] is None
    node = "query ($id: ID!) { node(id: $id) { __typename ... on Profile { profileId } } }"
    assert (await api.query(node, id=global_id("Profile", "crm:00001")))["node"] == {
        "__typename": "Profile",
        "profileId": "crm:00001",
    }
    answer = await api.answer(by_id)
    assert answer["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "path": ["id"]}


async def test_a_path_that_is_none(api: Api) -> None:
    await api.loaded()
    document = 'query ($paths: [String!]) { profile(id: "crm:00001") { attributes(paths: $paths) } }'
    assert (await api.query(document, paths=[]))["profile"] == {"attributes": {}}
    answer = await api.answer(document, paths=["a..b"])
    assert answer["errors"][0]["extensions"] == {"code": "INVALID_INPUT", "path": ["paths", "0"]}


@pytest.mark.usefixtures("working")
async def test_jobs_are_filtered_and_ordered(api: Api, clock: FixedClock) -> None:
    await api.loaded()
    a, b = await api.define("A"), await api.define("B")
    one = await api.start(a)
    await api.ended(one)
    clock.advance(timedelta(seconds=1))
    two = await api.start(a, b)
    await api.ended(two)
    document = """query ($filter: SegmentJobFilter, $order: JobOrder) {
      segmentJobs(filter: $filter, orderBy: $order) { totalCount nodes { jobId } } }"""

    async def jobs(filter: Any = None, order: Any = None) -> list[str]:
        found = (await api.query(document, filter=filter, order=order))["segmentJobs"]
        assert found["totalCount"] == len(found["nodes"])
        return [node["jobId"] for node in found["nodes"]]

    assert await jobs() == [two, one]
    assert await jobs(order={"field": "CREATED_AT", "direction": "ASC"}) == [one, two]
    assert await jobs({"segmentId": global_id("SegmentDefinition", b)}) == [two]
    assert await jobs({"status": ["FAILED"]}) == []
    assert await jobs({"status": ["SUCCEEDED"], "source": ["API"]}) == [two, one]
    last = """query ($id: ID!) { segmentDefinition(id: $id) {
      jobs(first: 1, filter: {status: [SUCCEEDED]}) { totalCount nodes { jobId } } } }"""
    assert (await api.query(last, id=a))["segmentDefinition"]["jobs"] == {"totalCount": 2, "nodes": [{"jobId": two}]}


async def test_nodes_keep_their_order(api: Api) -> None:
    dataset = await api.loaded()
    a = await api.define("A")
    ids = [
        global_id("Audience", a),
        global_id("Audience", "gone"),
        a,
        global_id("Dataset", dataset),
        global_id("SegmentDefinition", a),
        global_id("MergePolicy", "default"),
        global_id("SegmentJob", "gone"),
    ]
    found = await api.query("query ($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }", ids=ids)
    assert found["nodes"] == [
        {"__typename": "Audience", "id": ids[0]},
        None,
        None,
        {"__typename": "Dataset", "id": ids[3]},
        {"__typename": "SegmentDefinition", "id": ids[4]},
        {"__typename": "MergePolicy", "id": ids[5]},
        None,
    ]
