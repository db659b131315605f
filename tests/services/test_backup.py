"""Backup and restore, between both kinds of databases, while others write; and what is refused."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from app import wiring
from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.maintenance.copying import CopyDamaged
from app.engine.store.lake import Lake
from app.engine.store.objects import mount
from app.errors import Refusal
from app.scope import Scope
from app.services.access import audit
from app.services.datasets.batches import reconcile
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import Uploaded, UploadOptions, ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.services.maintenance import backup
from app.services.maintenance.backup import back_up, restore
from app.services.maintenance.doctor import examine
from app.services.people.profiles import ProfileReader
from app.services.search import folders
from app.settings import Settings
from app.storage import dump
from app.storage.columns import Row, StoredValues, table
from app.storage.database import Database
from app.storage.migrate import REVISIONS
from app.storage.tables.datasets import BatchRow, DatasetKind, DatasetRow
from app.storage.topics import jobs_topic
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.services.conftest import SCOPE, Define

NEW = NewDataset("purchases", DatasetKind.EVENT, "customer", "crm", "when")


@pytest.fixture
async def empty(empty_database_url: str) -> AsyncIterator[Database]:
    database = Database(empty_database_url)
    yield database
    await database.dispose()


async def run_jobs(database: Database, changes: Changes, lake: Lake, clock: FixedClock, definition: str) -> set[str]:
    """The members of a definition after a job."""
    await segment_jobs.create(database, clock, SCOPE, [definition])
    stop = asyncio.Event()
    worker = Worker(Resources(database, changes, lake, clock), WorkerOptions(concurrency=1, threads=1))
    running = asyncio.create_task(worker.run(stop))
    async with changes.subscribe(jobs_topic(SCOPE.tenant)) as wakeups:
        while await unfinished(database):
            await wakeups.wait(1)
    stop.set()
    await running
    return await members(database, lake, clock, definition)


async def unfinished(database: Database) -> int:
    live = text("SELECT count(*) FROM segment_job WHERE status IN ('QUEUED', 'PROCESSING')")
    async with database.session() as session:
        return int((await session.execute(live)).scalar_one())


async def members(database: Database, lake: Lake, clock: FixedClock, definition: str) -> set[str]:
    reader = ProfileReader(database, lake, clock, SCOPE)
    page = (await reader.members_many([definition], PageRequest(500)))[definition]
    people = await reader.people([member.key for member in page.items])
    return {person.profile_id for person in people.values()}


async def restored(database: Database, lake: Lake, clock: FixedClock, source: Path) -> backup.Summary:
    """As the command does it: nothing is wrong afterwards."""
    summary = await restore(database, lake, source)
    await reconcile(database, lake, clock)
    assert await examine(database, lake, clock, checksums=True) == []
    return summary


async def contents(database: Database) -> dict[str, int]:
    async with database.session() as session:
        return {
            name: int((await session.execute(select(func.count()).select_from(each))).scalar_one())
            for name, each in Row.metadata.tables.items()
            if name not in dump.TRANSIENT
        }


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
@pytest.mark.parametrize("empty_database_url", ["sqlite", "postgresql"], indirect=True)
async def test_all_that_there_is_comes_back(
    database: Database,
    changes: Changes,
    empty: Database,
    lake: Lake,
    clock: FixedClock,
    define: Define,
    tmp_path: Path,
) -> None:
    definition = (await define("Over 500")).id
    assert await run_jobs(database, changes, lake, clock, definition) == {"crm:00001", "crm:00002"}
    parent = await folders.create(database, clock, SCOPE, folders.NewFolder("parent", "AEPSegments"))
    child = await folders.create(database, clock, SCOPE, folders.NewFolder("child", "AEPSegments", parent.id))
    async with database.write() as session:
        # A parent that is younger than its child, and has the greater id.
        await session.execute(text("UPDATE folder SET parent_id = NULL WHERE id = :id"), {"id": child.id})
        await session.execute(
            text("UPDATE folder SET parent_id = :child WHERE id = :id"), {"child": child.id, "id": parent.id}
        )
    summary = await back_up(database, lake, clock, tmp_path / "backup")
    before = await contents(database)
    assert summary.rows == sum(before.values())

    other = Lake(tmp_path / "restored" / "lake", must_exist=True)
    assert await restored(empty, other, clock, tmp_path / "backup") == summary
    assert await contents(empty) == before
    assert await members(empty, other, clock, definition) == {"crm:00001", "crm:00002"}
    async with empty.session() as session:
        assert (await folders.get_many(session, SCOPE, [parent.id]))[parent.id].parent_id == child.id

    # It works as the original does: loads, jobs, audit.
    file = tmp_path / "more.csv"
    file.write_text("customer,when,dollars\n00003,2026-03-01,501\n")
    await ingest_file(empty, other, clock, SCOPE, NEW, InputFile(file, "CSV"))
    async with Changes.open(empty) as watched:
        people = await run_jobs(empty, watched, other, clock, definition)
    assert people == {"crm:00001", "crm:00002", "crm:00003"}
    entry = audit.Entry(Scope("default", "prod", "ada"), clock, "test", "r")
    async with audit.audited(empty, entry):
        pass
    with pytest.raises(Exception, match=r"audit"):
        async with empty.write() as session:
            await session.execute(text("DELETE FROM audit_event"))


async def test_while_others_load(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    """Whatever moment a backup is of: after a restore each batch is there with all of its rows, or not at all."""
    done = asyncio.Event()

    async def load(worker: int) -> int:
        number = 0
        while not done.is_set():
            file = tmp_path / f"{worker}-{number}.csv"
            rows = (f"{worker}-{number}-{row},2026-01-01,1\n" for row in range(20))
            file.write_text("customer,when,dollars\n" + "".join(rows))
            await ingest_file(database, lake, clock, SCOPE, NEW, InputFile(file, "CSV"), UploadOptions())
            number += 1
        return number

    loading = [asyncio.create_task(load(worker)) for worker in range(2)]
    moments = []
    for number in range(4):
        await asyncio.sleep(0)
        summary = await back_up(database, lake, clock, tmp_path / f"backup-{number}")
        moments.append(summary.files)
    done.set()
    loaded = sum(await asyncio.gather(*loading))
    for number in range(4):
        empty = Database(f"sqlite:///{tmp_path / f'{number}.db'}")
        other = Lake(tmp_path / f"restored-{number}" / "lake", must_exist=True)
        await restored(empty, other, clock, tmp_path / f"backup-{number}")
        async with empty.session() as session:
            batches = select(table(BatchRow).c.status, func.count(), func.sum(table(BatchRow).c.row_count))
            by_status = {row[0]: row[1:] for row in await session.execute(batches.group_by("status"))}
            (rows,) = (await session.execute(select(table(DatasetRow).c.row_count))).one()
        active, counted = by_status["ACTIVE"]
        assert counted == rows == 3 + 20 * (active - 1)
        assert set(by_status) <= {"ACTIVE", "FAILED"}, "nobody loads here"
        assert active <= loaded + 1
        await empty.dispose()
    assert moments == sorted(moments)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("earlier", sorted(REVISIONS)[-3:-1])
async def test_a_backup_of_an_earlier_version_is_migrated(
    earlier: str,
    database: Database,
    changes: Changes,
    empty: Database,
    lake: Lake,
    clock: FixedClock,
    define: Define,
    tmp_path: Path,
) -> None:
    """Each of the last migrations, over the rows of a sandbox that was in use."""
    definition = (await define("Over 500")).id
    await run_jobs(database, changes, lake, clock, definition)
    source = tmp_path / "backup"
    await back_up(database, lake, clock, source)
    rows = await as_of(earlier, source, tmp_path / "earlier.db")

    await restored(empty, Lake(tmp_path / "restored" / "lake"), clock, source)
    assert await empty.misfit() is None
    async with empty.session() as session:
        now = [(name, row) async for name, row in dump.rows(session)]
    for name, row in rows:
        assert any(name == other and row.items() <= later.items() for other, later in now), (name, row)
    assert await members(empty, Lake(tmp_path / "restored" / "lake"), clock, definition) == {"crm:00001", "crm:00002"}


async def as_of(revision: str, source: Path, scratch: Path) -> list[tuple[str, StoredValues]]:
    """Makes a backup into that of an earlier version: its rows without the tables and columns that came later."""
    old = Database(f"sqlite:///{scratch}")
    await old.migrate(revision)
    async with old.session() as session:
        tables = await dump.tables_of(session)
    await old.dispose()
    rows = [
        (name, {column: value for column, value in row.items() if column in tables[name].columns})
        for name, row in backup._lines(source / backup.ROWS)
        if name in tables
    ]
    with gzip.open(source / backup.ROWS, "wt") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    summary = json.loads((source / backup.SUMMARY).read_text())
    (source / backup.SUMMARY).write_text(json.dumps({**summary, "revision": revision}))
    return rows


async def test_what_is_refused(
    database: Database, empty: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    target = tmp_path / "backup"
    await back_up(database, lake, clock, target)
    with pytest.raises(Refusal, match="is not an empty folder"):
        await back_up(database, lake, clock, target)
    with pytest.raises(Refusal, match="lies in the lake"):
        await back_up(database, lake, clock, lake.root / "backup")
    elsewhere = Lake(tmp_path / "restored" / "lake")
    with pytest.raises(Refusal, match="the database is not empty"):
        await restore(database, elsewhere, target)
    with pytest.raises(Refusal, match="is not empty: restore into another data folder"):
        await restore(empty, lake, target)
    with pytest.raises(Refusal, match="is no backup, or one that was never finished"):
        await restore(empty, elsewhere, tmp_path)
    (file, *_) = sorted((target / "lake").rglob("*.parquet"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(CopyDamaged, match=f"the backup is damaged: .*{file.name}"):
        await restore(empty, elsewhere, target)
    assert not elsewhere.root.exists()
    async with empty.session() as session:
        assert await dump.is_empty(session)
    file.write_bytes(content)
    await restored(empty, elsewhere, clock, target)  # What failed left nothing in the way.


async def test_a_lost_file_is_found_by_the_backup(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, tmp_path: Path
) -> None:
    next(lake.root.rglob("datasets/**/*.parquet")).unlink()
    with pytest.raises(CopyDamaged, match=r"datasets/.* is missing or cannot be read"):
        await back_up(database, lake, clock, tmp_path / "backup")
    assert not (tmp_path / "backup" / backup.SUMMARY).exists()


async def test_jobs_that_wait_are_no_fault_of_a_backup(
    database: Database, empty_database_url: str, lake: Lake, clock: FixedClock, define: Define, tmp_path: Path
) -> None:
    await segment_jobs.create(database, clock, SCOPE, [(await define("A")).id])
    summary = await back_up(database, lake, clock, tmp_path / "backup")
    clock.advance(timedelta(hours=1))
    (waiting,) = await examine(database, lake, clock)
    assert waiting.check == "jobs"
    settings = Settings(data_dir=tmp_path / "restored", database_url=empty_database_url)
    assert await wiring.restored(settings, tmp_path / "backup", clock=clock) == wiring.Restored(summary, [], 0)


@pytest.mark.parametrize(("database_url", "empty_database_url"), [("sqlite", "sqlite")], indirect=True)
async def test_a_lake_moves_to_object_storage_and_back(
    database: Database,
    empty: Database,
    lake: Lake,
    clock: FixedClock,
    purchases: Uploaded,
    object_url: str,
    tmp_path: Path,
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    await back_up(database, lake, clock, first)
    shared = Lake(mount(object_url, tmp_path / "host"), must_exist=True)
    await restore(empty, shared, first)
    assert await examine(empty, shared, clock, checksums=True) == []
    await back_up(empty, shared, clock, second)

    def contents(copy: Path) -> dict[str, bytes]:
        paths = (path for path in (copy / backup.LAKE).rglob("*") if path.is_file())
        return {path.relative_to(copy).as_posix(): path.read_bytes() for path in paths}

    assert contents(first) == contents(second) != {}
    with pytest.raises(Refusal, match=f"the lake {object_url} is not empty"):
        await restore(empty, shared, first)
