"""Schedules over the API: made, changed, read with what they are for and what they started, and refused."""

from typing import Any

from app.api.global_ids import global_id
from app.clock import FixedClock
from tests.api.conftest import Api
from tests.support.databases import count_statements

FIELDS = """schedule { id scheduleId name description type state cronExpression frequency nextRunTimes(first: 2)
  allAudiences
  export { fields mergePolicy { name } schemaName evaluateFirst segmentPerBatch destination { datasetId }
    filter { segments { segmentId namespace status audience { name } } segmentQualificationTime { start end }
      fromIngestTimestamp emptyProfiles } additionalFields { fields from to } }
  audiences { totalCount nodes { name } } jobs { totalCount } lastJob { jobId } lastRun { runId }
  createdBy lastModifiedBy createdAt updatedAt etag }"""
ERRORS = """errors { __typename code path message ... on StaleEtagError { currentEtag }
  ... on ExpressionError { diagnostics { kind line column length message } }
  ... on DependentsError { dependents { id ... on Schedule { name } } } }"""
MUTATIONS = {
    "create": f"""mutation ($input: CreateScheduleInput!) {{
      done: createSchedule(input: $input) {{ {FIELDS} {ERRORS} }} }}""",
    "update": f"""mutation ($input: UpdateScheduleInput!) {{
      done: updateSchedule(input: $input) {{ {FIELDS} {ERRORS} }} }}""",
    "delete": f"mutation ($input: DeleteInput!) {{ done: deleteSchedule(input: $input) {{ deletedId {ERRORS} }} }}",
    "add": f"""mutation ($id: ID!, $ids: [ID!]!) {{
      done: addScheduleAudiences(id: $id, audienceIds: $ids) {{ {FIELDS} {ERRORS} }} }}""",
    "remove": f"""mutation ($id: ID!, $ids: [ID!]!) {{
      done: removeScheduleAudiences(id: $id, audienceIds: $ids) {{ {FIELDS} {ERRORS} }} }}""",
    "trigger": f"""mutation ($id: ID!) {{ done: triggerSchedule(id: $id) {{ {ERRORS}
      job {{ __typename id jobId status source runId schedule {{ name }} }} }} }}""",
}


async def do(api: Api, name: str, **variables: Any) -> dict[str, Any]:
    done: dict[str, Any] = (await api.query(MUTATIONS[name], **variables))["done"]
    return done


async def plan(api: Api, **input: Any) -> dict[str, Any]:
    """A schedule that is there."""
    done = await do(api, "create", input={"name": "Nightly", "cronExpression": "0 0 2 ? * MON-FRI", **input})
    assert done["errors"] == []
    schedule: dict[str, Any] = done["schedule"]
    return schedule


async def test_a_schedule_is_made_changed_and_deleted(api: Api) -> None:
    await api.loaded()
    one, two = await api.define("A"), await api.define("B")
    made = await plan(api, audienceIds=[one, global_id("Audience", two)], description="At night")
    id_ = made["scheduleId"]
    assert made == {
        "id": global_id("Schedule", id_),
        "scheduleId": id_,
        "name": "Nightly",
        "description": "At night",
        "type": "BATCH_SEGMENTATION",
        "state": "INACTIVE",
        "cronExpression": "0 0 2 ? * MON-FRI",
        "frequency": "At 02:00 UTC, on Monday to Friday",
        "nextRunTimes": ["2026-06-16T02:00:00Z", "2026-06-17T02:00:00Z"],
        "allAudiences": False,
        "export": None,
        "audiences": {"totalCount": 2, "nodes": [{"name": "A"}, {"name": "B"}]},
        "jobs": {"totalCount": 0},
        "lastJob": None,
        "lastRun": None,
        "createdBy": "anonymous",
        "lastModifiedBy": "anonymous",
        "createdAt": "2026-06-15T12:00:00Z",
        "updatedAt": "2026-06-15T12:00:00Z",
        "etag": "1",
    }
    assert (await do(api, "remove", id=id_, ids=[one]))["schedule"]["audiences"]["nodes"] == [{"name": "B"}]
    added = await do(api, "add", id=made["id"], ids=[one])
    assert (added["schedule"]["audiences"]["totalCount"], added["schedule"]["etag"]) == (2, "3")
    change = {"id": id_, "etag": "3", "state": "ACTIVE", "allAudiences": True, "description": None}
    changed = (await do(api, "update", input=change))["schedule"]
    assert (changed["state"], changed["allAudiences"], changed["description"]) == ("ACTIVE", True, None)
    stale = (await do(api, "update", input=change))["errors"]
    assert [(error["__typename"], error["path"], error["currentEtag"]) for error in stale] == [
        ("StaleEtagError", ["input", "etag"], "4")
    ]
    assert await do(api, "delete", input={"id": id_}) == {"deletedId": made["id"], "errors": []}
    found = await api.query("query ($id: ID!) { schedule(id: $id) { id } schedules { totalCount } }", id=id_)
    assert found == {"schedule": None, "schedules": {"totalCount": 0}}


REFUSED: list[tuple[dict[str, Any], list[Any]]] = [
    (
        {"name": "S", "cronExpression": "0 0/30 2 * * ?", "allAudiences": True},
        [("ExpressionError", "INVALID_EXPRESSION", ["input", "cronExpression"])],
    ),
    (
        {"name": "", "cronExpression": "0 0 2 30 2 ?"},
        [
            ("InputError", "INVALID_INPUT", ["input", "name"]),
            ("ExpressionError", "INVALID_EXPRESSION", ["input", "cronExpression"]),
            ("InputError", "INVALID_INPUT", ["input", "audienceIds"]),
        ],
    ),
    (
        {"name": "S", "audienceIds": ["nobody"]},
        [("InputError", "NOT_FOUND", ["input", "audienceIds", "0"])],
    ),
    (
        {"name": "S", "audienceIds": ["nobody"], "allAudiences": True},
        [
            ("InputError", "INVALID_INPUT", ["input", "audienceIds"]),
            ("InputError", "NOT_FOUND", ["input", "audienceIds", "0"]),
        ],
    ),
    (
        {"name": "S", "audienceIds": [global_id("Schedule", "x")]},
        [("InputError", "NOT_FOUND", ["input", "audienceIds", "0"])],
    ),
]


async def test_what_cannot_be_is_refused_at_its_place(api: Api) -> None:
    for input, errors in REFUSED:
        done = await do(api, "create", input=input)
        assert [(error["__typename"], error["code"], error["path"]) for error in done["errors"]] == errors
        assert done["schedule"] is None
    assert (await api.query("{ schedules { totalCount } }"))["schedules"] == {"totalCount": 0}


async def test_a_dense_expression_says_where_and_why(api: Api) -> None:
    done = await do(api, "create", input={"name": "S", "cronExpression": "0 0/30 2 * * ?", "allAudiences": True})
    assert done["errors"][0]["diagnostics"] == [
        {
            "kind": "LIMIT",
            "line": 1,
            "column": 3,
            "length": 4,
            "message": "it would fire at 02:00:00 and again at 02:30:00 of the same day, and a schedule fires at most "
            "once in 24 hours: give one value for the minutes, such as 0",
        }
    ]


async def test_nulls_and_unknown_ids_are_refused(api: Api) -> None:
    made = await plan(api, allAudiences=True)
    change = {"id": made["id"], "name": None, "cronExpression": None, "state": None, "allAudiences": None}
    errors = (await do(api, "update", input=change))["errors"]
    assert [error["path"][-1] for error in errors] == ["name", "cronExpression", "state", "allAudiences"]
    for name, variables, path in (
        ("update", {"input": {"id": "none", "name": "N"}}, ["input", "id"]),
        ("delete", {"input": {"id": "none"}}, ["input", "id"]),
        ("add", {"id": "none", "ids": []}, ["id"]),
        ("remove", {"id": "none", "ids": []}, ["id"]),
        ("trigger", {"id": "none"}, ["id"]),
    ):
        errors = (await do(api, name, **variables))["errors"]
        assert [(error["code"], error["path"]) for error in errors] == [("NOT_FOUND", path)]


async def test_next_times_are_bounded(api: Api) -> None:
    made = await plan(api, allAudiences=True)
    document = "query ($id: ID!, $first: Int) { schedule(id: $id) { nextRunTimes(first: $first) } }"
    for first, code in ((0, "INVALID_INPUT"), (-1, "INVALID_INPUT"), (101, "LIMIT_EXCEEDED")):
        answer = await api.answer(document, id=made["id"], first=first)
        assert [(error["extensions"]["code"], error["extensions"]["path"]) for error in answer["errors"]] == [
            (code, ["first"])
        ]
    assert len((await api.query(document, id=made["id"], first=100))["schedule"]["nextRunTimes"]) == 100


async def test_schedules_are_filtered_ordered_and_paged(api: Api, clock: FixedClock) -> None:
    await api.loaded()
    one = await api.define("A")
    for name, state in (("b", "ACTIVE"), ("a", "INACTIVE"), ("c", "ACTIVE")):
        await plan(api, name=name, state=state, **({"audienceIds": [one]} if name == "b" else {"allAudiences": True}))
    document = """query ($first: Int, $after: String, $filter: ScheduleFilter, $orderBy: ScheduleOrder) {
      schedules(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
        totalCount nodes { name } pageInfo { hasNextPage endCursor } } }"""

    async def names(**variables: Any) -> tuple[int, list[str]]:
        found = (await api.query(document, **variables))["schedules"]
        return found["totalCount"], [node["name"] for node in found["nodes"]]

    by_name = {"field": "NAME", "direction": "ASC"}
    assert await names(orderBy=by_name) == (3, ["a", "b", "c"])
    page = (await api.query(document, first=2, orderBy=by_name))["schedules"]["pageInfo"]
    assert page["hasNextPage"]
    assert await names(first=2, after=page["endCursor"], orderBy=by_name) == (3, ["c"])
    assert await names(filter={"state": "ACTIVE", "name": {"ne": "c"}}) == (1, ["b"])
    assert await names(filter={"type": "EXPORT"}) == (0, [])
    assert await names(filter={"audienceId": global_id("Audience", one)}, orderBy=by_name) == (3, ["a", "b", "c"])


async def test_a_run_now_shows_in_the_schedule_and_its_job(api: Api) -> None:
    await api.loaded()
    one, other = await api.define("A"), await api.define("B")
    made = await plan(api, audienceIds=[one])
    done = await do(api, "trigger", id=made["id"])
    assert done["errors"] == []
    job = done["job"]
    assert (job["__typename"], job["status"], job["source"], job["schedule"]) == (
        "SegmentJob",
        "QUEUED",
        "SCHEDULER",
        {"name": "Nightly"},
    )
    by_hand = await api.start(other)
    document = """query ($id: ID!, $schedule: ID!) {
      schedule(id: $schedule) { lastJob { jobId runId } jobs(first: 5) { totalCount nodes { jobId } }
        lastRun { runId outcome dueAt ranAt message job { jobId } } }
      audience(id: $id) { schedules { totalCount nodes { name lastJob { jobId } } } }
      segmentDefinition(id: $id) { schedules { totalCount nodes { name } } }
      segmentJobs(filter: {scheduleId: $schedule}) { totalCount nodes { jobId } } }"""
    found = await api.query(document, id=one, schedule=made["id"])
    own = {"jobId": job["jobId"]}
    assert found == {
        "schedule": {
            "lastJob": own | {"runId": job["runId"]},
            "jobs": {"totalCount": 1, "nodes": [own]},
            "lastRun": {
                "runId": job["runId"],
                "outcome": "STARTED",
                "dueAt": None,
                "ranAt": "2026-06-15T12:00:00Z",
                "message": None,
                "job": own,
            },
        },
        "audience": {"schedules": {"totalCount": 1, "nodes": [{"name": "Nightly", "lastJob": own}]}},
        "segmentDefinition": {"schedules": {"totalCount": 1, "nodes": [{"name": "Nightly"}]}},
        "segmentJobs": {"totalCount": 1, "nodes": [own]},
    }
    document = "query ($id: ID!) { segmentJob(id: $id) { source runId schedule { name } } }"
    assert (await api.query(document, id=by_hand))["segmentJob"] == {"source": "API", "runId": None, "schedule": None}
    assert (await do(api, "delete", input={"id": made["id"]}))["errors"] == []
    assert (await api.query(document, id=job["jobId"]))["segmentJob"] == {
        "source": "SCHEDULER",
        "runId": job["runId"],
        "schedule": None,
    }


async def test_an_export_schedule_is_checked_kept_and_run(api: Api) -> None:
    await api.loaded()
    one = await api.define("A")
    document = 'mutation { createDataset(input: {name: "out", kind: EXPORT}) { dataset { datasetId } } }'
    target = (await api.query(document))["createDataset"]["dataset"]["datasetId"]
    export = {
        "destination": {"datasetId": global_id("Dataset", target)},
        "schemaName": "_xdm.context.profile",
        "filter": {"segments": [{"segmentId": global_id("Audience", one)}]},
        "evaluateFirst": True,
    }
    new = {"name": "Out", "type": "EXPORT", "export": export}
    wrong: list[tuple[dict[str, Any], list[str]]] = [
        ({"destination": {"datasetId": "none"}}, ["destination", "datasetId"]),
        ({"idempotencyKey": "k"}, ["idempotencyKey"]),
        (
            {"filter": {"segments": [{"segmentId": "none"}]}, "evaluateFirst": False},
            ["filter", "segments", "0", "segmentId"],
        ),
        ({"fields": ["nothing"]}, ["fields", "0"]),
    ]
    for change, path in wrong:
        done = await do(api, "create", input=new | {"export": export | change})
        assert [error["path"] for error in done["errors"]] == [["input", "export", *path]]
    made = await plan(api, **new)
    assert (made["type"], made["allAudiences"]) == ("EXPORT", False)
    assert made["audiences"] == {"totalCount": 1, "nodes": [{"name": "A"}]}
    assert made["export"] == {
        "fields": [],
        "mergePolicy": None,
        "filter": {
            "segments": [
                {
                    "segmentId": one,
                    "namespace": "AEPSegments",
                    "status": ["REALIZED", "EXISTING"],
                    "audience": {"name": "A"},
                }
            ],
            "segmentQualificationTime": None,
            "fromIngestTimestamp": None,
            "emptyProfiles": False,
        },
        "additionalFields": None,
        "destination": {"datasetId": target},
        "segmentPerBatch": False,
        "schemaName": "_xdm.context.profile",
        "evaluateFirst": True,
    }
    job = (await do(api, "trigger", id=made["id"]))["job"]
    assert (job["__typename"], job["source"], job["schedule"]) == ("ExportJob", "SCHEDULER", {"name": "Out"})
    document = """query ($id: ID!) {
      schedule(id: $id) { lastJob { __typename jobId } lastRun { job { jobId } }
        jobs { totalCount nodes { __typename runId } } }
      exportJobs(filter: {scheduleId: $id}) { nodes { jobId evaluation { schedule { name } } } } }"""
    found = await api.query(document, id=made["id"])
    assert sorted(node["__typename"] for node in found["schedule"].pop("jobs")["nodes"]) == ["ExportJob", "SegmentJob"]
    assert found == {
        "schedule": {
            "lastJob": {"__typename": "ExportJob", "jobId": job["jobId"]},
            "lastRun": {"job": {"jobId": job["jobId"]}},
        },
        "exportJobs": {"nodes": [{"jobId": job["jobId"], "evaluation": {"schedule": {"name": "Out"}}}]},
    }


async def test_a_definition_in_an_active_schedule_is_not_deleted(api: Api) -> None:
    await api.loaded()
    one = await api.define("A")
    made = await plan(api, audienceIds=[one], state="ACTIVE")
    await plan(api, name="Every", allAudiences=True, state="ACTIVE")
    deletion = f"mutation ($input: DeleteInput!) {{ done: deleteSegmentDefinition(input: $input) {{ {ERRORS} }} }}"
    (error,) = (await api.query(deletion, input={"id": one}))["done"]["errors"]
    assert (error["code"], error["path"]) == ("HAS_DEPENDENTS", ["input", "id"])
    assert error["message"] == "'Nightly' run it at their times: change or delete them first"
    assert error["dependents"] == [{"id": made["id"], "name": "Nightly"}]
    assert (await do(api, "update", input={"id": made["id"], "state": "INACTIVE"}))["errors"] == []
    assert (await api.query(deletion, input={"id": one}))["done"]["errors"] == []
    assert (await api.query("{ segmentDefinitions { totalCount } }"))["segmentDefinitions"] == {"totalCount": 0}


NESTED = """{ audiences { nodes { name schedules(first: 3) { totalCount nodes { name frequency nextRunTimes
  audiences(first: 2) { totalCount nodes { name } } lastJob { jobId schedule { name } }
  lastRun { outcome job { jobId } }
  jobs(first: 3) { totalCount nodes { jobId ... on SegmentJob { segments { nodes { segmentId } } } } } } } } } }"""


async def test_a_nested_query_costs_the_same_for_2_schedules_and_for_12(api: Api) -> None:
    await api.loaded()
    ids = [await api.define(name) for name in ("A", "B", "C")]

    async def cost() -> int:
        with count_statements(api.services.database) as statements:
            found = await api.query(NESTED)
        assert len(found["audiences"]["nodes"]) == 3
        return len([one for one in statements if "FROM job_update" not in one])

    for number in range(2):
        await do(api, "trigger", id=(await plan(api, name=f"S{number}", audienceIds=ids))["id"])
    few = await cost()
    for number in range(2, 12):
        made = await plan(
            api, name=f"S{number}", **({"audienceIds": ids[:2]} if number % 2 else {"allAudiences": True})
        )
        await do(api, "trigger", id=made["id"])
    assert few == await cost() == 12
