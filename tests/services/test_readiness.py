"""What makes a process unable to work, each made once: it is said, and it is over when the cause is."""

import errno
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from app.clock import FixedClock, utc_now
from app.engine.store.lake import Lake
from app.errors import DatabaseAway, LakeAway, outage
from app.services.datasets.uploads import Uploaded
from app.services.jobs.segment import requests as segment_jobs
from app.services.maintenance.readiness import left_jobs, not_ready, refuse_lost_lake
from app.storage.claims import claim_next
from app.storage.database import Database
from app.storage.tables.jobs import JobKind
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
    assert reason.startswith("the data folder is gone")
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
    audience = await define("A")
    for _ in range(2):
        await segment_jobs.create(database, clock, SCOPE, [audience.id])
    clock.advance(timedelta(minutes=2))
    assert await left_jobs(database, clock()) == 0
    clock.advance(timedelta(seconds=1))
    assert await left_jobs(database, clock()) == 2
    claim = await claim_next(database, clock, owner="w", lease=timedelta(seconds=15), kind=JobKind.SEGMENT)
    assert claim is not None
    assert await left_jobs(database, clock()) == 0, "somebody works, and the other one has to wait"
    clock.advance(timedelta(seconds=16))
    assert await left_jobs(database, clock()) == 1, "the one that works has died"


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
        (LakeAway(), "the data folder is gone"),
    ):
        assert (outage(error) or "").startswith(start), error
    away = DatabaseAway("PostgreSQL does not answer")
    away.__cause__ = FileNotFoundError("its socket")
    for other in (ValueError("x"), locked, OperationalError("select", {}, locked), away, KeyError("default")):
        assert outage(other) is None
