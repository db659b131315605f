"""Each thing that can be wrong is broken once, and the doctor names it, and nothing else."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from app.clock import FixedClock, utc_now
from app.engine.members.membership import MembershipLost
from app.engine.store.delta import append
from app.engine.store.lake import Lake
from app.services.audiences import computed as definitions
from app.services.datasets import datasets
from app.services.datasets.uploads import Uploaded
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.services.maintenance.doctor import Finding, examine
from app.services.people.profiles import ProfileReader
from app.storage.database import Database
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from tests.engine.test_cleaning import long_ago
from tests.services.conftest import SCOPE, Define, Gateway
from tests.services.test_segment_jobs import results, run_next

Found = Callable[[], Awaitable[list[tuple[str, str]]]]


@pytest.fixture
def clock() -> FixedClock:
    """As the files have their times."""
    return FixedClock(utc_now())


@pytest.fixture
def found(database: Database, lake: Lake, clock: FixedClock) -> Found:
    async def examined() -> list[tuple[str, str]]:
        findings: list[Finding] = await examine(database, lake, clock)
        assert all(finding.advice for finding in findings)
        return [(f"{finding.check}: {finding.where}", finding.problem) for finding in findings]

    return examined


@pytest.fixture
async def healthy(database: Database, lake: Lake, clock: FixedClock, define: Define, found: Found) -> str:
    """A sandbox with a dataset and an audience 'A' that has been evaluated; gives the id of the job."""
    audience = await define("A")
    job = await segment_jobs.create(database, clock, SCOPE, [audience.id])
    await run_next(database, lake, clock)
    assert await found() == []
    return job.id


async def execute(database: Database, statement: str, **values: Any) -> None:
    async with database.write() as session:
        await session.execute(text(statement), values)


def a_file(folder: Path) -> Path:
    return min(folder.rglob("*.parquet"))


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_files_of_a_dataset(lake: Lake, purchases: Uploaded, found: Found) -> None:
    dataset = purchases.batch.dataset_id
    where = f"dataset 'purchases' ({dataset})"
    folder = lake.tenant(SCOPE.tenant).dataset(dataset)
    file = a_file(folder)
    name, content = file.relative_to(folder).as_posix(), file.read_bytes()
    file.unlink()
    assert await found() == [("datasets: acme/prod", f"{where}: files are missing: {name}")]
    file.write_bytes(content[:-4])
    assert await found() == [("datasets: acme/prod", f"{where}: files cannot be read: {name}")]
    file.write_bytes(content)
    (file.parent / "stray.parquet").write_bytes(content)
    assert await found() == [], "it may be on its way into the table"
    long_ago(file.parent)
    stray = f"{name.split('/')[0]}/stray.parquet"
    assert await found() == [("files: acme/prod", f"{where}: nothing refers to {stray}")]


@pytest.mark.usefixtures("healthy")
async def test_files_of_an_export(database: Database, lake: Lake, clock: FixedClock, found: Found) -> None:
    dataset = await datasets.create(database, clock, SCOPE, datasets.NewDataset("export", DatasetKind.EXPORT))
    table, folder = pa.table({"profileId": ["crm:1", "crm:2"]}), lake.tenant(SCOPE.tenant).dataset(dataset.id)
    (folder / "b1").mkdir(parents=True)
    pq.write_table(table, folder / "b1" / "part.parquet")
    append(folder, table.schema, [("b1/part.parquet", 2)], "b1")
    where = f"dataset 'export' ({dataset.id})"
    assert await found() == [("datasets: acme/prod", f"{where} has 2 rows in the lake, but 0 in the database")]
    await execute(database, "UPDATE dataset SET row_count = 2 WHERE kind = 'EXPORT'")
    assert await found() == []
    (folder / "b1" / "part.parquet").unlink()
    assert await found() == [("datasets: acme/prod", f"{where}: files are missing: b1/part.parquet")]


async def test_rows_and_batches(database: Database, purchases: Uploaded, clock: FixedClock, found: Found) -> None:
    dataset, batch = purchases.batch.dataset_id, purchases.batch.id
    where = f"dataset 'purchases' ({dataset})"
    await execute(database, "UPDATE dataset SET row_count = 7")
    assert await found() == [("datasets: acme/prod", f"{where} has 3 rows in the lake, but 7 in the database")]
    await execute(database, "UPDATE dataset SET row_count = 3")
    await execute(database, "UPDATE batch SET id = 'other'")
    assert await found() == [
        ("batches: acme/prod", f"batch other is ACTIVE, but the lake has nothing of it in dataset {dataset}")
    ]
    await execute(
        database,
        "UPDATE batch SET id = :id, status = 'LOADING', lease_until = :past",
        id=batch,
        past=clock() - timedelta(minutes=3) if database.dialect == "postgresql" else "2020-01-01 00:00:00.0",
    )
    assert await found() == [("batches: acme/prod", f"batch {batch} is LOADING, but no process works on it")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_memberships(database: Database, lake: Lake, healthy: str, found: Found) -> None:
    file = a_file(lake.tenant(SCOPE.tenant).membership(healthy))
    file.write_bytes(file.read_bytes()[:-1])
    ((check, problem),) = await found()
    assert check == "heads: acme/prod"
    assert problem.startswith("audience 'A' (")
    assert problem.endswith(f"shows run {healthy}, whose files are missing or cannot be read: {file.name}")
    file.unlink()
    assert await found() == [(check, problem)]


async def test_a_job_mends_the_lost_members_of_its_definitions(
    database: Database, lake: Lake, clock: FixedClock, define: Define, found: Found
) -> None:
    a = (await define("A")).id
    other = (await define("B", f'inSegment("{a}")')).id
    first = await segment_jobs.create(database, clock, SCOPE, [a, other])
    await run_next(database, lake, clock)
    files = sorted(lake.tenant(SCOPE.tenant).membership(first.id).glob("*.parquet"))
    assert len(files) == 2
    files[0].unlink()
    assert len(await found()) == 2

    problem = f"the stored members of run {first.id}, file {files[0].name}, are missing or cannot be read"
    referring = await segment_jobs.create(database, clock, SCOPE, [other])
    await run_next(database, lake, clock)
    ((_, count, _, error),) = (await results(database, referring.id)).values()
    assert count is None
    assert error == {
        "code": "INVALID_STATE",
        "message": f"{problem}: `segmentation doctor` names the audiences and what to do",
    }
    with pytest.raises(MembershipLost, match=problem):
        await ProfileReader(database, lake, clock, SCOPE).members_many([a], PageRequest(5))

    mended = await segment_jobs.create(database, clock, SCOPE, [a, other])
    await run_next(database, lake, clock)
    statuses = {"REALIZED": 1, "EXISTING": 1, "EXITED": 0}
    for _, count, by_status, error in (await results(database, mended.id)).values():
        assert (count, by_status, error) == (2, statuses, None)
    assert await found() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_streamed_memberships(gateway: Gateway, found: Found) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "2", "tier": "gold"}])
    await gateway.stream()
    assert await found() == []
    file = a_file(gateway.files.lake.folder / "membership")
    assert file.parent.name.startswith("streaming-")
    file.unlink()
    problem = (
        f"audience 'Gold' ({gold}) shows run {file.parent.name}, whose files are missing or cannot be read: {file.name}"
    )
    assert await found() == [("heads: acme/prod", problem)]
    await gateway.job()
    assert await found() == [], "the job has replaced them"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_streamed_memberships_of_nobody_any_more(gateway: Gateway, found: Found) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "2", "tier": "gold"}])
    await gateway.stream()
    await definitions.delete(gateway.database, gateway.clock, SCOPE, gold)
    a_file(gateway.files.lake.folder / "membership").unlink()
    assert await found() == []


async def test_jobs_that_nobody_works_on(database: Database, clock: FixedClock, define: Define, found: Found) -> None:
    a = await define("A")
    job = await segment_jobs.create(database, clock, SCOPE, [a.id])
    other = await segment_jobs.create(database, clock, SCOPE, [a.id])
    created = clock()
    clock.advance(timedelta(minutes=2))
    assert await found() == []
    clock.advance(timedelta(seconds=1))
    told = f"is QUEUED, and no worker has processed it since {created:%F %T}Z"
    assert await found() == [("jobs: acme/prod", f"segment job {id_} {told}") for id_ in sorted([job.id, other.id])]
    claim = await claim_next(database, clock, owner="w", lease=timedelta(seconds=15), kind=JobKind.SEGMENT)
    assert claim is not None
    assert await found() == [], "somebody is at work, the other waits for its turn"
    clock.advance(timedelta(minutes=3))
    checks = [problem for _, problem in await found()]
    assert len(checks) == 2
    assert any(claim.job_id in problem and "is PROCESSING" in problem for problem in checks)


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_layout_and_identities(lake: Lake, found: Found) -> None:
    folder = lake.tenant(SCOPE.tenant).folder
    layout = folder / "layout.json"
    content = layout.read_text()
    for damage, problem in (
        ("{", "layout.json cannot be read"),
        ("[4]", "layout.json cannot be read"),
        ('{"bucket_bits": 1}', "layout.json says 1 bits, which this program never wrote"),
        ('{"bucket_bits": 5, "buckets": 16}', "layout.json says 5 bits, but 16 buckets"),
    ):
        layout.write_text(damage)
        ((check, told),) = await found()
        assert (check, told[: len(problem)]) == ("layout: acme/prod", problem)
    layout.unlink()
    assert await found() == [("layout: acme/prod", "layout.json is missing although there are profiles")]
    layout.write_text(content)
    file = a_file(folder / "identities")
    file.unlink()
    name = file.relative_to(folder / "identities").as_posix()
    assert await found() == [("identities: acme/prod", f"files are missing or cannot be read: {name}")]


@pytest.mark.usefixtures("healthy")
async def test_a_sandbox_that_the_database_does_not_know(lake: Lake, found: Found) -> None:
    (lake.root / "acme" / "old").mkdir()
    assert await found() == [("folders: acme/old", "the lake has data of a sandbox that the database does not know")]


async def test_tables_and_indexes(database: Database, found: Found) -> None:
    await execute(database, "DROP INDEX ix_segment_job_live")
    assert await found() == [("tables: database", "index ix_segment_job_live is missing")]
    await execute(database, "DROP TABLE job_bucket")
    assert ("tables: database", "table job_bucket is missing") in await found()


async def test_a_database_without_tables(empty_database_url: str, lake: Lake, clock: FixedClock) -> None:
    empty = Database(empty_database_url)
    try:
        assert [finding.problem for finding in await examine(empty, lake, clock)] == [
            "it has no tables of this program"
        ]
    finally:
        await empty.dispose()


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_log_that_cannot_be_read_stops_no_other_check(lake: Lake, purchases: Uploaded, found: Found) -> None:
    dataset = purchases.batch.dataset_id
    tenant = lake.tenant(SCOPE.tenant)
    identities = tenant.identities / "_delta_log" / f"{1:020}.json"
    for log, start in (
        (tenant.dataset(dataset) / "_delta_log" / f"{0:020}.json", f"dataset 'purchases' ({dataset}): the log"),
        (identities, "the log"),
    ):
        content = log.read_bytes()
        for damage in (b"garbled", content[: len(content) // 2], b""):
            log.write_bytes(damage)
            problems = [problem for check, problem in await found() if not check.startswith("batches")]
            assert [problem[: len(start)] for problem in problems] == [start], damage
        log.write_bytes(content)
    assert await found() == []


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_checksums(database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded, found: Found) -> None:
    """A bit that no reader trips over is found by those who ask for checksums, in datasets and identities."""
    tenant = lake.tenant(SCOPE.tenant)
    for folder, check in ((tenant.dataset(purchases.batch.dataset_id), "datasets"), (tenant.identities, "identities")):
        file = a_file(folder)
        content = file.read_bytes()
        file.write_bytes(content[:20] + bytes([content[20] ^ 1]) + content[21:])
        assert await found() == []
        (finding,) = await examine(database, lake, clock, checksums=True)
        assert finding.check == check
        assert finding.problem.endswith(f"cannot be read: {file.relative_to(folder).as_posix()}")
        file.write_bytes(content)
    assert await examine(database, lake, clock, checksums=True) == []


async def test_a_database_file_that_is_damaged(tmp_path: Path, clock: FixedClock) -> None:
    path = tmp_path / "segmentation.db"
    whole = Database(f"sqlite:///{path}")
    await whole.migrate()
    await whole.dispose()
    content = path.read_bytes()
    for damage in (content[: len(content) // 2], b"garbled" * 999, content[:4096] + b"\xff" * 20_000 + content[24096:]):
        path.write_bytes(damage)
        damaged = Database(f"sqlite:///{path}")
        findings = await examine(damaged, Lake(tmp_path / "lake"), clock)
        assert {(finding.check, finding.where) for finding in findings} == {("tables", "database")}
        assert all("restore" in finding.advice for finding in findings)
        await damaged.dispose()
