"""Jobs as their users see them: one for each key, results of what they ran, and cancelling that takes effect soon."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.errors import Refusal
from app.services.audiences import computed as definitions
from app.services.audiences import reads as audiences
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs import watching
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.definitions import DefinitionVersionRow
from app.storage.tables.jobs import JobKind
from app.storage.tenancy import within
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.services.conftest import SCOPE, Define

PURCHASES = Path(__file__).parents[1] / "data" / "cdnow_purchases.csv"


async def job_of(database: Database, id_: str) -> Any:
    async with database.session() as session:
        return (await segment_jobs.get_many(session, SCOPE, [id_]))[id_]


async def run_next(database: Database, lake: Lake, clock: FixedClock, engine: Engine | None = None) -> Attempt:
    claim = await claim_next(database, clock, owner="test", lease=timedelta(seconds=60), kind=JobKind.SEGMENT)
    assert claim is not None
    run = Attempt(database, clock, claim)
    await run_segment_job(run, lake, 1, engine)
    return run


async def results(database: Database, job_id: str) -> dict[str, Any]:
    async with database.session() as session:
        page = (await segment_jobs.segments_by_job(session, SCOPE, [job_id], PageRequest(50)))[job_id]
    return {row.definition_id: (row.version, row.profile_count, row.by_status, row.error) for row in page.items}


async def test_twenty_calls_with_one_key_give_one_job(
    database: Database, database_url: str, clock: FixedClock, define: Define
) -> None:
    definition = await define("A")
    another = Database(database_url)  # as another process has it
    try:
        calls = (
            segment_jobs.create(server, clock, SCOPE, [definition.id], idempotency_key="k")
            for server in [database, another] * 10
        )
        created = await asyncio.gather(*calls)
    finally:
        await another.dispose()
    assert len({job.id for job in created}) == 1
    async with database.session() as session:
        assert await segment_jobs.count(session, SCOPE) == 1


async def test_a_key_is_free_again_after_a_day(database: Database, clock: FixedClock, define: Define) -> None:
    definition = await define("A")
    first = await segment_jobs.create(database, clock, SCOPE, [definition.id], idempotency_key="k")
    clock.advance(timedelta(hours=23, minutes=59))
    assert (await segment_jobs.create(database, clock, SCOPE, [definition.id], idempotency_key="k")).id == first.id
    clock.advance(timedelta(minutes=2))
    assert (await segment_jobs.create(database, clock, SCOPE, [definition.id], idempotency_key="k")).id != first.id


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ({}, "INVALID_INPUT", "a job runs either `definitionIds` or `allDefinitions: true`: give one of the two"),
        (
            {"definition_ids": ["x"], "all_definitions": True},
            "INVALID_INPUT",
            "a job runs either `definitionIds` or `allDefinitions: true`: give one of the two",
        ),
    ],
)
async def test_what_is_to_be_run_must_be_said_once(
    database: Database, clock: FixedClock, arguments: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(Refusal) as caught:
        await segment_jobs.create(database, clock, SCOPE, **arguments)
    assert (caught.value.code, caught.value.message, caught.value.path) == (code, message, ("definition_ids",))


async def test_a_job_runs_the_version_of_its_start_and_keeps_it(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = await define("A", "xEvent.sum(dollars) > 650")
    first = await segment_jobs.create(database, clock, SCOPE, [a.id])
    await run_next(database, lake, clock)
    await definitions.update(database, lake, clock, SCOPE, a.id, None, {"expression": "xEvent.sum(dollars) > 500"})
    second = await segment_jobs.create(database, clock, SCOPE, [a.id])
    await run_next(database, lake, clock)
    assert await results(database, first.id) == {a.id: (1, 1, {"REALIZED": 1, "EXISTING": 0, "EXITED": 0}, None)}
    assert await results(database, second.id) == {a.id: (2, 2, {"REALIZED": 1, "EXISTING": 1, "EXITED": 0}, None)}


async def test_one_that_fails_fails_alone_with_all_that_refer_to_it(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    good = await define("Good")
    bad = await define("Bad", "xEvent.sum(dollars) > 1")
    child = await define("Child", f'inSegment("{bad.id}")')
    async with database.write() as session:  # as if the data had lost a field since
        change = within(update(DefinitionVersionRow), DefinitionVersionRow, SCOPE.tenant)
        mine = DefinitionVersionRow.definition_id == bad.id
        await session.execute(change.where(mine).values(expression="xEvent.sum(gone) > 1"))  # type: ignore[arg-type]
    job = await segment_jobs.create(database, clock, SCOPE, all_definitions=True)
    await run_next(database, lake, clock)
    found = await results(database, job.id)
    assert found[good.id] == (1, 2, {"REALIZED": 2, "EXISTING": 0, "EXITED": 0}, None)
    assert found[bad.id][3] == {
        "code": "INVALID_EXPRESSION",
        "message": "line 1, column 12: there is no field or variable `gone` here; "
        "change the expression, then run again",
    }
    assert found[child.id][3]["code"] == "DEPENDENCY_FAILED"
    assert bad.id in found[child.id][3]["message"]
    ended = await job_of(database, job.id)
    assert (ended.status, {error["definition_id"] for error in ended.errors}) == ("SUCCEEDED", {bad.id, child.id})


async def test_a_running_job_is_cancelled_between_buckets_and_changes_no_audience(
    database: Database, changes: Changes, lake: Lake, clock: FixedClock
) -> None:
    await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("cdnow", DatasetKind.EVENT, "customer_id", "customer", "date"),
        InputFile(PURCHASES, "CSV"),
    )
    for n in range(200):
        steps = f"[A: WHAT(dollars > {n}), B: WHAT(dollars > {n} + 1) WHEN(<= {n + 1} days after A)]"
        new = NewDefinition(name=f"{n}", expression=f"CHAIN(xEvent, timestamp, {steps})")
        await definitions.create(database, lake, clock, SCOPE, new)
    job = await segment_jobs.create(database, clock, SCOPE, all_definitions=True)
    stop = asyncio.Event()
    working = asyncio.create_task(
        Worker(Resources(database, changes, lake, clock), WorkerOptions(concurrency=1, threads=1)).run(stop)
    )
    statuses: list[str] = []
    async for state in watching.watch(database, changes, SCOPE, JobKind.SEGMENT, job.id):
        statuses.append(state.status)
        if state.profiles_read and "CANCELLING" not in statuses:
            await segment_jobs.cancel(database, clock, SCOPE, job.id)
            statuses.append("CANCELLING")
    stop.set()
    await working
    assert list(dict.fromkeys(statuses)) == ["QUEUED", "PROCESSING", "CANCELLING", "CANCELLED"]
    ended = await job_of(database, job.id)
    assert 0 < ended.profiles_read < ended.total_profiles == 23_570
    assert {count for _, count, _, _ in (await results(database, job.id)).values()} == {None}
    async with database.session() as session:
        found = await audiences.page(session, SCOPE, PageRequest(500))
    assert {row.total_profiles for row in found.items} == {None}
    again = await segment_jobs.cancel(database, clock, SCOPE, job.id)
    assert again.status == "CANCELLED"
