"""A clock that is set: days ahead for a moment, or for good; back; and what leases and workers say of it."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import SETTLED, FixedClock, SteadyClock
from app.engine.ingest.formats import InputFile
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.audiences import external
from app.services.audiences.reads import get_many
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules.requests import NewSchedule
from app.services.jobs.shared import new_columns
from app.services.maintenance.retention import Keep
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.queue.claims import claim_next
from app.storage.queue.workers import live_workers, note_alive
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.storage.tables.schedules import ScheduleRow, ScheduleRunRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.topics import SCHEDULES
from app.storage.wakeups import Changes
from app.worker.maintenance import Maintenance
from app.worker.scheduler import keep_time

SCOPE = Scope("acme", "prod", "ann")
TEN_DAYS = timedelta(days=10)
KEEP = Keep(timedelta(days=7), timedelta(days=30), timedelta(hours=24))


class Time:
    """A clock that is set, and one that nobody sets; `looked` is set whenever somebody asks the latter."""

    def __init__(self, clock: FixedClock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.looked = asyncio.Event()

    def elapsed(self) -> float:
        self.looked.set()
        return self.seconds

    def pass_by(self, span: timedelta) -> None:
        self.seconds += span.total_seconds()
        self.clock.advance(span)


@pytest.fixture
def time(clock: FixedClock) -> Time:
    return Time(clock)


def test_a_clock_is_steady_while_both_agree(time: Time) -> None:
    steady = SteadyClock(time.clock, time.elapsed)
    for days in (0, 1, 365):
        time.pass_by(timedelta(days=days))
        assert steady.is_steady()
    time.clock.advance(timedelta(seconds=59))
    assert steady.is_steady(), "a little at a time is how a clock is kept right"
    time.clock.advance(-timedelta(seconds=59))
    assert steady.is_steady()


def test_a_moment_ahead(time: Time) -> None:
    steady = SteadyClock(time.clock, time.elapsed)
    time.clock.advance(TEN_DAYS)
    assert not steady.is_steady()
    time.pass_by(timedelta(seconds=34))
    assert not steady.is_steady()
    time.clock.advance(-TEN_DAYS)
    assert steady.is_steady()


@pytest.mark.parametrize("by", [TEN_DAYS, -TEN_DAYS])
def test_a_clock_that_was_set_for_good_is_believed_in_the_end(time: Time, by: timedelta) -> None:
    steady = SteadyClock(time.clock, time.elapsed)
    time.clock.advance(by)
    assert not steady.is_steady()
    time.pass_by(SETTLED - timedelta(seconds=1))
    assert not steady.is_steady()
    time.pass_by(timedelta(seconds=1))
    assert steady.is_steady()
    time.clock.advance(by)
    assert not steady.is_steady(), "and the next time it is doubted again"
    time.pass_by(timedelta(minutes=9))
    time.clock.advance(by)
    assert not steady.is_steady()
    time.pass_by(timedelta(minutes=9))
    assert not steady.is_steady(), "what was set once more has to last as long"


async def test_members_outlive_a_clock_that_is_ahead_for_a_moment(
    database: Database, time: Time, tmp_path: Path
) -> None:
    lake, clock = Lake(tmp_path / "lake"), time.clock
    (tmp_path / "m.csv").write_text("customer\n1\n2\n")
    new = NewDataset("members", DatasetKind.AUDIENCE, "customer", "crm", None)
    loaded = await ingest_file(database, lake, clock, SCOPE, new, InputFile(tmp_path / "m.csv", "CSV"))
    asked = external.NewExternal(name="E", namespace="crm", dataset_id=loaded.batch.dataset_id, ttl_in_days=3)
    audience = await external.create(database, lake, clock, SCOPE, asked)
    maintenance = Maintenance(database, lake, clock, KEEP, 30.0, SteadyClock(clock, time.elapsed))

    async def total() -> int | None:
        stop = asyncio.Event()
        keeping = asyncio.create_task(maintenance.keep(stop))
        time.looked.clear()
        await time.looked.wait()
        stop.set()
        await keeping
        async with database.session() as session:
            return (await get_many(session, SCOPE, [audience.id]))[audience.id].total_profiles

    clock.advance(TEN_DAYS)
    assert await total() == 2
    time.pass_by(timedelta(seconds=34))
    assert await total() == 2
    clock.advance(-TEN_DAYS)
    assert await total() == 2
    time.pass_by(timedelta(days=3))
    assert await total() == 0, "when their days are over they go"


@pytest.fixture
async def scheduler(database: Database, changes: Changes, time: Time) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    steady = SteadyClock(time.clock, time.elapsed)
    task = asyncio.create_task(keep_time(database, changes, time.clock, stop, steady))
    yield task
    stop.set()
    await task


async def test_a_schedule_is_not_moved_on_by_a_clock_that_is_ahead_for_a_moment(
    database: Database, changes: Changes, time: Time, scheduler: asyncio.Task[None], caplog: pytest.LogCaptureFixture
) -> None:
    values: dict[str, Any] = {"cron_expression": "0 0 2 * * ?", "state": "ACTIVE", "all_audiences": True}
    await schedules.create(database, Lake(Path("/nowhere")), time.clock, SCOPE, NewSchedule("S", **values))

    async def look() -> tuple[datetime | None, int]:
        """The next time, and the number of runs, once the scheduler has looked twice."""
        for _ in range(2):
            time.looked.clear()
            changes.wake(SCHEDULES)
            await time.looked.wait()
        async with database.session() as session:
            due = await session.scalar(select(columns(ScheduleRow).next_due_at))
            runs = len((await session.execute(select(columns(ScheduleRunRow).id))).all())
        return due, runs

    tomorrow = datetime(2026, 6, 16, 2, tzinfo=UTC)
    assert await look() == (tomorrow, 0)
    time.clock.advance(TEN_DAYS)
    assert await look() == (tomorrow, 0)
    assert await look() == (tomorrow, 0)
    (warning,) = [record for record in caplog.records if "clock" in record.getMessage()]
    assert warning.levelname == "WARNING"
    time.clock.advance(-TEN_DAYS)
    assert await look() == (tomorrow, 0)
    time.pass_by(timedelta(hours=14))
    assert (await look())[1] == 1, "the next day's run is there"


async def test_a_lease_from_the_future_is_nobodys(database: Database, clock: FixedClock) -> None:
    async with database.write() as session:
        session.add(SegmentJobRow(**new_columns(SCOPE, clock(), "job"), all_definitions=True))
    lease = timedelta(seconds=15)

    async def claimed() -> int | None:
        claim = await claim_next(database, clock, owner="w", lease=lease, kind=JobKind.SEGMENT)
        return None if claim is None else claim.token

    clock.advance(TEN_DAYS)
    assert await claimed() == 1
    await note_alive(database, "w", clock(), clock(), lease)
    clock.advance(-TEN_DAYS)
    assert await claimed() == 2, "its worker may have died while the clock was ahead"
    assert await claimed() is None
    async with database.session() as session:
        assert await live_workers(session, clock()) == 0
