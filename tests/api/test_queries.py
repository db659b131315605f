"""Representative queries as files in `tests/data/queries`: `x.graphql`, its answer `x.json`, its SQL `x.sql`.

`pytest tests/api/test_queries.py --rewrite` writes answers and SQL anew: a worse query then shows in the diff. Every
field of every type that a query can reach is in one of the files.
"""

import asyncio
import base64
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    build_schema,
    get_named_type,
    is_abstract_type,
    parse,
    visit,
)

from app.api.schema import print_schema
from app.clock import FixedClock
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.api.conftest import Api
from tests.api.test_folders import PUT, make
from tests.support.databases import count_statements

QUERIES = Path(__file__).parents[1] / "data" / "queries"
PROFILES = b"""{"customer": "00001", "person": {"name": "Ann", "country": "US"}, "tags": ["vip", "new"]}
{"customer": "00002", "person": {"name": "Bob"}}
{"customer": "00003", "person": {"name": "Cyd", "country": "DE"}}
"""
SCHEDULE = """mutation ($input: CreateScheduleInput!) { createSchedule(input: $input) {
  schedule { scheduleId } errors { message } } }"""
TRIGGER = "mutation ($id: ID!) { triggerSchedule(id: $id) { job { jobId } errors { message } } }"
ERASE = """mutation { eraseProfile(input: { identity: { namespace: "crm", id: "gone" } }) {
  job { jobId } errors { message } } }"""
KEY = """mutation { createApiKey(input: { name: "nightly", permissions: ["read"] }) { errors { message } } }"""
EXPORT_BATCH = "query ($id: ID!) { exportJob(id: $id) { batches(first: 1) { nodes { batchId } } } }"
UNDER_WAY = """{ segmentJobs(filter: { status: [NEW, QUEUED, PROCESSING] }) { totalCount }
  exportJobs(filter: { status: [NEW, QUEUED, PROCESSING] }) { totalCount }
  jobs(filter: { status: [NEW, QUEUED, PROCESSING] }) { totalCount } }"""
VARYING = re.compile(
    "|".join(
        (
            r"cursor|startCursor|endCursor|etag|prefix|requestId|runId",
            r"startedAt|finishedAt|updatedAt|begun|ended|estimatedSecondsLeft|\w+Ms|slowest",
            r"sequence|bytes|score|functions",
        )
    )
)
"""Fields whose values are measured, drawn by lot, or follow from the moment at which a worker looks: shown by kind."""
WRITTEN = {"DependentsError.dependents", "StaleEtagError.currentEtag"}
"""What only mutations answer."""
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
async def world(api: Api, clock: FixedClock) -> tuple[Api, dict[str, str]]:
    """Two people with purchases and one without; three definitions, one made of another; two jobs, a preview, an
    export, two schedules, one of which was run, and an erasure of nobody who was there.

    Everything happens at a time of its own, so that ids and lists have one order. With the ids that queries ask for.
    """

    async def moment(done: Any) -> Any:
        result = await done
        clock.advance(timedelta(seconds=1))
        return result

    async def settled(done: Any) -> Any:
        """Before the clock moves on, so that all jobs have times of their own."""
        result = await done
        under_way = True
        while under_way:
            await asyncio.sleep(0.02)
            under_way = any(jobs["totalCount"] for jobs in (await api.query(UNDER_WAY)).values())
        return result

    await moment(api.loaded())
    people = await moment(api.dataset("people", "PROFILE"))
    await moment(api.upload(people, PROFILES, "NDJSON"))
    folder = await moment(make(api, "Retail"))
    inner = await moment(make(api, "Summer", folder["id"]))
    a = await moment(api.define("Over 500"))
    await moment(api.define("Over 500 in the US", f'inSegment("{a}") and person.country = "US"'))
    await moment(api.define("Not the US", 'person.country != "US"'))
    await moment(api.query(PUT, input={"id": a, "folderId": inner["id"], "description": "Spent more than 500"}))
    services = api.services
    worker = Worker(
        Resources(services.database, services.changes, services.lake, clock), WorkerOptions(concurrency=1, threads=1)
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    for names in ((), (a,)):
        job = await moment(settled(api.start(*names)))
        clock.advance(timedelta(seconds=1))
    preview = await moment(api.preview(f'inSegment("{a}") and person.country = "US"'))
    export = await moment(settled(api.export(await moment(api.export_dataset()))))
    await moment(api.query(KEY))
    for name, input in (("Everybody", {"allAudiences": True}), ("Big spenders", {"audienceIds": [a]})):
        made = await moment(api.query(SCHEDULE, input={"name": name, "cronExpression": "0 30 2 ? * MON", **input}))
    await settled(api.query(TRIGGER, id=made["createSchedule"]["schedule"]["scheduleId"]))
    clock.advance(timedelta(seconds=1))
    erasure = (await settled(api.query(ERASE)))["eraseProfile"]["job"]["jobId"]
    stop.set()
    await running
    (batch,) = (await api.query(EXPORT_BATCH, id=export))["exportJob"]["batches"]["nodes"]
    return api, {
        "id": a,
        "preview": preview,
        "erasure": erasure,
        "job": job,
        "export": export,
        "batch": batch["batchId"],
        "dataset": people,
        "folder": inner["id"],
        "schedule": made["createSchedule"]["schedule"]["scheduleId"],
    }


def plain(answer: Any) -> str:
    """The answer as text, with each id, bare or in a global id, as its number in the order of creation."""
    text = json.dumps(_steady(answer), indent=2, ensure_ascii=False)
    text = re.sub(r'"id": "([A-Za-z0-9+/=]+)"', lambda match: f'"id": "{_opened(match[1])}"', text)
    numbers = {id_: f"#{number}" for number, id_ in enumerate(sorted(set(_UUID.findall(text))), 1)}
    return _UUID.sub(lambda match: numbers[match[0]], text) + "\n"


def _steady(value: Any) -> Any:
    """With the kinds of `VARYING` values in their places."""
    if isinstance(value, list):
        return [_steady(part) for part in value]
    if not isinstance(value, dict):
        return value
    return {
        name: f"<{type(part).__name__}>" if VARYING.fullmatch(name) and part is not None else _steady(part)
        for name, part in value.items()
    }


def _opened(id: str) -> str:
    try:
        return base64.b64decode(id, validate=True).decode()
    except ValueError:
        return id


def sql(statements: list[str]) -> str:
    """Statements one below the other, sorted: the loaders of one level ask at the same time, so they have no order.

    What watches for changes of jobs belongs to no query.
    """
    own = (re.sub(r"\s+", " ", one).strip() + ";" for one in statements if "FROM job_update" not in one)
    return "\n".join(sorted(own)) + "\n"


_VARIABLE = re.compile(r"\$(\w+): ID!")
NAMES = sorted(path.stem for path in QUERIES.glob("*.graphql"))


async def test_query(
    world: tuple[Api, dict[str, str]], subtests: pytest.Subtests, request: pytest.FixtureRequest
) -> None:
    rewrite = request.config.getoption("--rewrite")
    api, ids = world
    on_sqlite = api.services.database.dialect == "sqlite"
    for name in NAMES:
        document = (QUERIES / f"{name}.graphql").read_text()
        with count_statements(api.services.database) as statements:
            answer = await api.answer(document, **{name: ids[name] for name in _VARIABLE.findall(document)})
        cost = answer.pop("extensions")["cost"]["requested"]
        if rewrite and on_sqlite:
            (QUERIES / f"{name}.json").write_text(plain(answer))
            (QUERIES / f"{name}.sql").write_text(sql(statements))
        with subtests.test(name):
            assert "errors" not in answer
            assert 0 < cost < 20_000
            assert plain(answer) == (QUERIES / f"{name}.json").read_text()
            if on_sqlite:
                assert sql(statements) == (QUERIES / f"{name}.sql").read_text()
            else:
                assert len(sql(statements).splitlines()) == len((QUERIES / f"{name}.sql").read_text().splitlines())


def selected(schema: GraphQLSchema) -> set[str]:
    """The fields, as `Type.field`, that the files select, on their type or an interface of it."""
    fields: set[str] = set()

    class Fields(Visitor):
        def enter_field(self, node: Any, *_: object) -> None:
            if (parent := types.get_parent_type()) is not None:
                own = schema.get_possible_types(parent) if is_abstract_type(parent) else ()
                fields.update(f"{type_.name}.{node.name.value}" for type_ in (parent, *own))

    for name in NAMES:
        types = TypeInfo(schema)
        visit(parse((QUERIES / f"{name}.graphql").read_text()), TypeInfoVisitor(types, Fields()))
    return fields


def readable(schema: GraphQLSchema) -> set[str]:
    """The fields, as `Type.field`, of every object that a query can lead to."""
    fields: set[str] = set()
    ahead, passed = [schema.query_type], set[str]()
    while ahead:
        type_ = get_named_type(ahead.pop())
        if type_ is None or type_.name in passed:
            continue
        passed.add(type_.name)
        if is_abstract_type(type_):
            ahead += schema.get_possible_types(type_)
        if isinstance(type_, GraphQLObjectType):
            fields.update(f"{type_.name}.{name}" for name in type_.fields)
        if isinstance(type_, GraphQLObjectType | GraphQLInterfaceType):
            ahead += [field.type for field in type_.fields.values()]
    return fields


def test_every_field_that_can_be_read_is_in_a_query() -> None:
    schema = build_schema(print_schema())
    fields = readable(schema)
    assert {"Audience.history", "ErasedRows.place", "OverlapCell.in", "MembershipChange.cursor"} <= fields
    assert fields >= WRITTEN
    assert sorted(fields - selected(schema) - WRITTEN) == []


def test_there_are_no_other_files() -> None:
    expected = {f"{name}.{ending}" for name in NAMES for ending in ("graphql", "json", "sql")}
    assert {path.name for path in QUERIES.iterdir()} == expected
