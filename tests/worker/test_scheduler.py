"""The scheduler: runs what is due when it is, wakes when that changes, and shares the work with others."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import Clock, FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.store.lake import Lake
from app.errors import DatabaseAway
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules import run as schedule_runs
from app.services.jobs.schedules.requests import NewSchedule
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.schedules import ScheduleRow, ScheduleRunRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.topics import SCHEDULES
from app.storage.wakeups import Changes
from app.worker import scheduler
from app.worker.scheduler import keep_time

SCOPE = Scope("acme", "prod", "ann")
NO_LAKE = Lake(Path("/nowhere"))
"""A schedule that exports nothing needs no data."""
_RUNS = columns(ScheduleRunRow)
_JOBS = columns(SegmentJobRow)
Keeping = Callable[..., AbstractAsyncContextManager[asyncio.Task[None]]]


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.fixture
async def audience(database: Database, clock: FixedClock, tmp_path: Path) -> str:
    lake, file = Lake(tmp_path / "lake"), tmp_path / "people.csv"
    file.write_text("customer,age\n1,20\n2,60\n")
    await ingest_file(
        database,
        lake,
        clock,
        SCOPE,
        NewDataset("people", DatasetKind.PROFILE, "customer", "crm", None),
        InputFile(file, "CSV"),
    )
    new = NewDefinition(name="Old", expression="age > 50")
    return (await definitions.create(database, lake, clock, SCOPE, new)).id


@pytest.fixture
def keeping(database: Database, changes: Changes, clock: FixedClock) -> Keeping:
    """A scheduler, until the block ends."""

    @asynccontextmanager
    async def run(other: Database | None = None, time: Clock | None = None) -> AsyncIterator[asyncio.Task[None]]:
        stop = asyncio.Event()
        task = asyncio.create_task(keep_time(other or database, changes, time or clock, stop))
        try:
            yield task
        finally:
            stop.set()
            await asyncio.wait_for(task, 60)

    return run


async def plan(database: Database, clock: Clock, audience: str, name: str = "S", **options: Any) -> ScheduleRow:
    values = {"cron_expression": "0 0 2 * * ?", "state": "ACTIVE", "audience_ids": [audience], **options}
    return await schedules.create(database, NO_LAKE, clock, SCOPE, NewSchedule(name, **values))


async def runs(database: Database) -> list[tuple[str, str, str]]:
    """Schedule, due time and outcome of every run, in order."""
    async with database.session() as session:
        statement = select(_RUNS.schedule_id, _RUNS.due_at, _RUNS.outcome).order_by(_RUNS.due_at, _RUNS.schedule_id)
        return [(row[0], row[1].strftime("%d %H:%M"), row[2]) for row in await session.execute(statement)]


async def jobs(database: Database) -> list[str | None]:
    """The schedule of every job."""
    async with database.session() as session:
        return sorted(await session.scalars(select(_JOBS.schedule_id)))


async def until(database: Database, number: int) -> None:
    while len(await runs(database)) < number:  # noqa: ASYNC110  # what happens is seen in the database alone
        await asyncio.sleep(0.01)


async def test_it_runs_what_was_missed_at_once_and_the_next_when_it_is_due(
    database: Database, changes: Changes, clock: FixedClock, audience: str, keeping: Keeping
) -> None:
    made = (await plan(database, clock, audience)).id
    clock.instant = at("2026-06-17T02:00:30")
    async with keeping():
        await until(database, 2)
        assert await runs(database) == [(made, "16 02:00", "SKIPPED"), (made, "17 02:00", "STARTED")]
        clock.instant = at("2026-06-18T01:59:59.999999")
        changes.wake(SCHEDULES)
        await asyncio.sleep(0.1)
        assert len(await runs(database)) == 2
        clock.instant = at("2026-06-18T02:00")
        changes.wake(SCHEDULES)
        await until(database, 3)
    assert await jobs(database) == [made, made]


async def test_it_sleeps_until_the_first_is_due_and_wakes_when_an_earlier_one_comes(
    database: Database, clock: FixedClock, audience: str, keeping: Keeping
) -> None:
    """Nobody wakes it by hand: the first run is due by the clock, the second one by a change."""
    late = (await plan(database, clock, audience, "Late")).id
    began = asyncio.get_running_loop().time()

    def running() -> datetime:
        """Half a second before the first is due when the scheduler begins, and then as fast as any clock."""
        passed = timedelta(seconds=asyncio.get_running_loop().time() - began)
        return at("2026-06-16T01:59:59.500000") + passed

    async with keeping(time=running):
        await until(database, 1)
        assert running() >= at("2026-06-16T02:00")
        early = (await plan(database, clock, audience, "Early", cron_expression="0 0 1 * * ?")).id
        await until(database, 2)
    assert await runs(database) == [(early, "16 01:00", "STARTED"), (late, "16 02:00", "STARTED")]


async def test_many_schedulers_start_one_job_for_each_due_time(
    database: Database, database_url: str, changes: Changes, clock: FixedClock, audience: str, keeping: Keeping
) -> None:
    made = [(await plan(database, clock, audience, f"S{number}")).id for number in range(4)]
    others = [Database(database_url) for _ in range(2)]
    try:
        async with keeping(), keeping(), keeping(others[0]), keeping(others[1]):
            for day in (16, 17, 18):
                clock.instant = at(f"2026-06-{day}T02:00:01")
                changes.wake(SCHEDULES)
                await until(database, 4 * (day - 15))
            await asyncio.sleep(0.1)
    finally:
        for other in others:
            await other.dispose()
    times = ("16 02:00", "17 02:00", "18 02:00")
    assert await runs(database) == sorted(
        ((id_, time, "STARTED") for id_ in made for time in times), key=lambda run: (run[1], run[0])
    )
    assert await jobs(database) == sorted(made * 3)


async def test_it_goes_on_after_errors(
    database: Database,
    changes: Changes,
    clock: FixedClock,
    audience: str,
    keeping: Keeping,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = sorted([(await plan(database, clock, audience, name)).id for name in ("A", "B")])
    clock.instant = at("2026-06-16T02:00")
    errors: list[Exception | None] = [DatabaseAway("gone"), RuntimeError("a mistake"), None]

    async def run_due(*arguments: Any) -> None:
        error = errors.pop(0) if errors else None
        if error is not None:
            raise error
        await schedule_runs.run_due(*arguments)

    monkeypatch.setattr(scheduler, "run_due", run_due)
    monkeypatch.setattr(scheduler, "RETRY_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING):
        async with keeping():
            await until(database, 2)
    assert await runs(database) == [(id_, "16 02:00", "STARTED") for id_ in made]
    assert [record.message.split(" schedule ")[0].split("; ")[0] for record in caplog.records] == [
        "database unavailable",
        "could not run",
    ]


async def test_it_rests_after_a_schedule_that_fails(
    database: Database, clock: FixedClock, audience: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is due still, and would otherwise be tried again without a pause."""

    async def run_due(*_arguments: Any) -> None:
        raise RuntimeError("a mistake")

    await plan(database, clock, audience)
    assert await scheduler._run_all(database, clock) == scheduler.LONGEST_SECONDS
    clock.instant = at("2026-06-16T02:00")
    monkeypatch.setattr(scheduler, "run_due", run_due)
    assert await scheduler._run_all(database, clock) == scheduler.RETRY_SECONDS
