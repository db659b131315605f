"""kill -9 of a worker in the middle of a job, on both databases: another one finishes it, and nothing is done twice."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.settings import Settings
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import FINAL, JobBucketRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow
from app.wiring import open_services
from tests.support import processes

ROOT = Path(__file__).parents[2]
PURCHASES = ROOT / "tests" / "data" / "cdnow_purchases.csv"
SCOPE = Scope("default", "prod", "test")
PATIENCE = 180


def expressions() -> list[str]:
    """A few definitions of different kinds, with so much work that a worker can be caught in the middle of it."""
    chains = [
        f"CHAIN(xEvent, timestamp, [A: WHAT(dollars > {n}), B: WHAT(dollars > {n + 1}) WHEN(<= {n} days after A)])"
        for n in range(1, 241)
    ]
    return [
        *(f"xEvent[dollars > {least}].count() >= 2" for least in range(0, 120, 10)),
        *(f"xEvent[quantity = {n}].sum(dollars) > {n}" for n in range(9)),
        *(" or ".join(chains[at : at + 40]) for at in range(0, 240, 40)),
    ]


@contextmanager
def worker_process(database_url: str, data_dir: Path, first: str = "") -> Iterator[processes.Command]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {
        "SEGMENTATION_DATABASE_URL": database_url,
        "SEGMENTATION_DATA_DIR": str(data_dir),
        "SEGMENTATION_LEASE_SECONDS": "2",
        "SEGMENTATION_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with (data_dir / "worker.log").open("ab") as log:
        process = processes.start(["worker"], data_dir, environment, stdout=log, stderr=log, first=first)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def buckets_of(database: Database, job_id: str) -> list[Any]:
    async with database.session() as session:
        rows = await session.scalars(select(JobBucketRow).where(JobBucketRow.job_id == job_id))  # type: ignore[arg-type]
        return list(rows)


async def results_of(database: Database, job_id: str) -> dict[str, tuple[Any, ...]]:
    async with database.session() as session:
        rows = await session.scalars(
            select(SegmentJobDefinitionRow).where(SegmentJobDefinitionRow.job_id == job_id)  # type: ignore[arg-type]
        )
        return {row.definition_id: (row.profile_count, row.by_status, row.by_namespace, row.error) for row in rows}


async def until_final(database: Database, job_id: str) -> Any:
    for _ in range(PATIENCE * 10):
        async with database.session() as session:
            job = (await segment_jobs.get_many(session, SCOPE, [job_id]))[job_id]
        if job.status in FINAL:
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"the job is still {job.status} after {PATIENCE} seconds")


async def test_another_worker_finishes_what_a_killed_one_began(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url)
    async with open_services(settings) as services:
        database: Database = services.database
        lake: Lake = services.lake
        await ingest_file(
            database,
            lake,
            utc_now,
            SCOPE,
            NewDataset("purchases", DatasetKind.EVENT, "customer_id", "customer", "date"),
            InputFile(PURCHASES, "CSV"),
        )
        for at, expression in enumerate(expressions()):
            new = NewDefinition(name=f"{at:03d}", expression=expression)
            await definitions.create(database, lake, utc_now, SCOPE, new)

        job = await segment_jobs.create(database, utc_now, SCOPE, all_definitions=True)
        with worker_process(database_url, tmp_path) as first:
            for _ in range(PATIENCE * 100):
                done = await buckets_of(database, job.id)
                if len(done) >= 3:
                    break
                await asyncio.sleep(0.01)
            first.send_signal(signal.SIGKILL)
            first.wait()
        kept = {row.bucket: (row.attempt, row.file) for row in await buckets_of(database, job.id)}
        assert 3 <= len(kept) < 16, "the worker was to be killed in the middle"

        with worker_process(database_url, tmp_path):
            finished = await until_final(database, job.id)
            interrupted = await results_of(database, job.id)
            again = await segment_jobs.create(database, utc_now, SCOPE, all_definitions=True)
            assert (await until_final(database, again.id)).status == "SUCCEEDED"
        assert (finished.status, finished.attempts, finished.fraction) == ("SUCCEEDED", 2, 1.0)
        assert finished.profiles_read == finished.total_profiles == 23_570
        after = {row.bucket: (row.attempt, row.file) for row in await buckets_of(database, job.id)}
        assert sorted(after) == list(range(16))
        assert {bucket: after[bucket] for bucket in kept} == kept, "finished buckets are kept as they were"
        assert {attempt for bucket, (attempt, _) in after.items() if bucket not in kept} == {2}

        undisturbed = await results_of(database, again.id)
        assert len(interrupted) == len(expressions())
        for id_, (count, by_status, by_namespace, error) in interrupted.items():
            assert by_status == {"REALIZED": count, "EXISTING": 0, "EXITED": 0}
            assert undisturbed[id_] == (count, {"REALIZED": 0, "EXISTING": count, "EXITED": 0}, by_namespace, error)
        assert sum(count for count, *_ in interrupted.values()) > 0
