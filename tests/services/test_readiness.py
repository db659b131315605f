"""What makes a process unable to work, each made once: it is said, and it is over when the cause is."""

import asyncio
import errno
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError

from app.clock import FixedClock, utc_now
from app.engine.store.lake import Lake
from app.errors import DatabaseAway, LakeAway, outage
from app.services.datasets.uploads import Uploaded
from app.services.jobs.segment import requests as segment_jobs
from app.services.maintenance.readiness import left_jobs, not_ready, refuse_lost_lake, watch_queue
from app.storage.columns import table
from app.storage.database import Database
from app.storage.queue.claims import claim_next
from app.storage.queue.workers import FORGOTTEN, live_workers, note_alive
from app.storage.tables.jobs import JobKind
from app.storage.tables.workers import WorkerRow
from app.worker.service import present
from tests.services.conftest import SCOPE, Define


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(utc_now())


async def test_a_data_folder_that_goes_and_comes_back(database: Database, lake: Lake, purchases: Uploaded) -> None:
    strict, away = replace(lake, must_exist=True), lake.root.with_name("elsewhere")
    await refuse_lost_lake(database, strict)
    assert await not_ready(database, strict, 5) is None
    lake.root.rename(away)
    reason = await not_ready(database, strict, 5)
    assert reason is not None
    assert reason.startswith("the data folder is missing")
    with pytest.raises(LakeAway):
        strict.tenant(SCOPE.tenant).dataset(purchases.batch.dataset_id)
    with pytest.raises(LakeAway), strict.tenant(SCOPE.tenant).lock("x"):
        pass
    with pytest.raises(LakeAway):
        await refuse_lost_lake(database, strict)
    assert not lake.root.exists(), "nothing made an empty one"
    lake.root.mkdir()
    with pytest.raises(LakeAway):
        await refuse_lost_lake(database, strict)
    lake.root.rmdir()
    away.rename(lake.root)
    assert await not_ready(database, strict, 5) is None
    await refuse_lost_lake(database, strict)


async def test_a_lake_of_nobody_may_be_empty(database: Database, tmp_path: Path) -> None:
    await refuse_lost_lake(database, Lake(tmp_path / "new", must_exist=True))


async def test_jobs_without_a_worker(database: Database, clock: FixedClock, define: Define) -> None:
    async def left() -> str | None:
        async with database.session() as session:
            return await left_jobs(session, clock())

    assert await left() is None
    audience = await define("A")
    for _ in range(2):
        await segment_jobs.create(database, clock, SCOPE, [audience.id])
    none_running = "for a worker, and none is running: start `segmentation worker`"
    assert await left() == f"2 jobs wait {none_running}"
    lease = timedelta(minutes=10)
    await note_alive(database, "w", clock(), clock(), lease)
    clock.advance(timedelta(minutes=2))
    assert await left() is None, "there is a worker, and it may be about to take them"
    clock.advance(timedelta(seconds=1))
    assert await left() == "2 jobs wait for minutes, and no worker takes them up: see the logs of the workers"
    claim = await claim_next(database, clock, owner="w", lease=timedelta(seconds=15), kind=JobKind.SEGMENT)
    assert claim is not None
    assert await left() is None, "the worker works, and the other job has to wait"
    clock.advance(timedelta(seconds=16))
    assert (await left() or "").startswith("1 job waits for minutes"), "the worker's lease is over"
    clock.advance(lease)
    assert await left() == f"1 job waits {none_running}"


async def test_workers_come_and_go(database: Database, clock: FixedClock) -> None:
    async def running() -> int:
        async with database.session() as session:
            return await live_workers(session, clock())

    lease = timedelta(seconds=15)
    async with present(database, clock, "one", lease), present(database, clock, "two", lease):
        assert await running() == 2
        clock.advance(lease)
        assert await running() == 2
        clock.advance(timedelta(microseconds=1))
        assert await running() == 0, "a worker that is silent is none"
        await note_alive(database, "one", clock(), clock(), lease)
        assert await running() == 1
    assert await running() == 0
    await note_alive(database, "killed", clock(), clock(), lease)
    clock.advance(lease + FORGOTTEN + timedelta(seconds=1))
    await note_alive(database, "one", clock(), clock(), lease)
    async with database.session() as session:
        assert (await session.execute(select(table(WorkerRow).c.name))).scalars().all() == ["one"]


async def test_tables_of_another_version(database: Database, lake: Lake, clock: FixedClock) -> None:
    assert await not_ready(database, lake, 5) is None
    for revision, words in (
        ("0001", "of an older version (0001): run `segmentation migrate`"),
        ("9999", "of a newer version (9999) than this process: restart it with that one"),
    ):
        async with database.write() as session:
            await session.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
        assert (await not_ready(database, lake, 5) or "").endswith(words)


async def test_the_log_says_once_that_nobody_works(
    database: Database, clock: FixedClock, define: Define, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "app.services.maintenance.readiness")
    await segment_jobs.create(database, clock, SCOPE, [(await define("A")).id])
    looks = iter(range(5))

    class Stopping(asyncio.Event):
        """Looks twice without a worker and twice with one, and stops."""

        async def wait(self) -> Literal[True]:
            look = next(looks)
            if look == 1:
                await note_alive(database, "w", clock(), clock(), timedelta(seconds=15))
            if look == 3:
                self.set()
            return True

    await watch_queue(database, clock, Stopping())
    assert [record.getMessage() for record in caplog.records] == [
        "1 job waits for a worker, and none is running: start `segmentation worker`",
        "no jobs are left waiting",
    ]


def test_words_for_outages() -> None:
    def caused(error: Exception) -> Exception:
        outer = RuntimeError("a job")
        outer.__cause__ = error
        return outer

    full, locked = sqlite3.OperationalError("database or disk is full"), sqlite3.OperationalError("database is locked")
    for error, start in (
        (OSError(errno.ENOSPC, "No space left on device"), "the disk of"),
        (OSError("IO Error: could not write: No space left on device"), "the disk of"),
        (caused(OSError(errno.EDQUOT, "x")), "the disk of"),
        (caused(full), "the disk of"),
        (OSError(errno.EROFS, "x"), "the data folder cannot be written"),
        (sqlite3.OperationalError("attempt to write a readonly database"), "the data folder cannot be written"),
        (FileNotFoundError(errno.ENOENT, "x"), "a file or folder of the data folder is missing"),
        (sqlite3.DatabaseError("database disk image is malformed"), "the SQLite file is damaged"),
        (LakeAway(), "the data folder is missing"),
    ):
        assert (outage(error) or "").startswith(start), error
    away = DatabaseAway("PostgreSQL does not answer")
    away.__cause__ = FileNotFoundError("its socket")
    for other in (ValueError("x"), locked, OperationalError("select", {}, locked), away, KeyError("default")):
        assert outage(other) is None
