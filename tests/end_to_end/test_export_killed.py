"""kill -9 of a worker in the middle of an export, on both databases: another one finishes it, with each row once."""

import asyncio
import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.input import SCHEMA, ExportEvents, ExportFilter, ExportSegment, NewExport
from app.services.jobs.export.run import tidy
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.settings import Settings
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import FINAL, JobKind
from app.wiring import Services, open_services
from tests.end_to_end.test_killed import PATIENCE, PURCHASES, SCOPE, buckets_of, worker_process

SEGMENTS = 25
"""A batch for each: enough files in each bucket that a worker can be caught in the middle."""


async def prepare(services: Services) -> list[str]:
    """The purchases, and segments that are evaluated."""
    await ingest_file(
        services.database,
        services.lake,
        utc_now,
        SCOPE,
        NewDataset("purchases", DatasetKind.EVENT, "customer_id", "customer", "date"),
        InputFile(PURCHASES, "CSV"),
    )
    ids = []
    for least in range(SEGMENTS):
        new = NewDefinition(name=f"{least:03d}", expression=f"xEvent.sum(dollars) > {least * 20}")
        ids.append((await definitions.create(services.database, services.lake, utc_now, SCOPE, new)).id)
    await segment_jobs.create(services.database, utc_now, SCOPE, ids)
    claim = await claim_next(services.database, utc_now, owner="test", lease=timedelta(minutes=5), kind=JobKind.SEGMENT)
    assert claim is not None
    await run_segment_job(Attempt(services.database, utc_now, claim), services.lake, 2)
    return ids


async def start(services: Services, name: str, ids: list[str]) -> tuple[str, str]:
    """An export to a new dataset: its job and the dataset."""
    new = datasets.NewDataset(name, DatasetKind.EXPORT)
    target = (await datasets.create(services.database, utc_now, SCOPE, new)).id
    segments = ExportFilter(tuple(ExportSegment(id_) for id_ in ids))
    asked = NewExport(target, SCHEMA, (), None, segments, ExportEvents(("dollars",)), segment_per_batch=True)
    return (await export_jobs.create(services.database, services.lake, utc_now, SCOPE, asked)).id, target


async def until_final(services: Services, job_id: str) -> Any:
    for _ in range(PATIENCE * 10):
        async with services.database.session() as session:
            job = (await export_jobs.get_many(session, SCOPE, [job_id]))[job_id]
        if job.status in FINAL:
            return job
        await asyncio.sleep(0.1)
    raise AssertionError(f"the export is still {job.status} after {PATIENCE} seconds")


async def result(services: Services, job_id: str, target: str) -> dict[str, tuple[int, list[Any]]]:
    """By segment the rows that the batch says it has, and those that a reader of the table finds."""
    async with services.database.session() as session:
        page = await export_jobs.batches_by_job(session, SCOPE, [job_id], PageRequest(500))
    uris = DeltaTable(services.lake.tenant(SCOPE.tenant).dataset(target)).file_uris()
    query = "SELECT profileId, segmentMembership::VARCHAR, xEvent::VARCHAR FROM read_parquet($1)"
    found = {}
    for batch in page[job_id].items:
        rows = duckdb.execute(f"{query} WHERE __batch = $2 ORDER BY profileId", [uris, batch.id]).fetchall()
        found[batch.segment_ids[0]] = (batch.row_count, rows)
    return found


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_another_worker_finishes_an_export_that_a_killed_one_began(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url)
    async with open_services(settings) as services:
        ids = await prepare(services)
        job, target = await start(services, "disturbed", ids)
        with worker_process(database_url, tmp_path) as first:
            for _ in range(PATIENCE * 100):
                if len(await buckets_of(services.database, job)) >= 3:
                    break
                await asyncio.sleep(0.01)
            first.send_signal(signal.SIGKILL)
            first.wait()
        kept = {row.bucket for row in await buckets_of(services.database, job)}
        assert 3 <= len(kept) < 16, "the worker was to be killed in the middle"
        assert not services.lake.tenant(SCOPE.tenant).dataset(target).exists(), "nothing is visible before the end"

        undisturbed, other = await start(services, "undisturbed", ids)
        with worker_process(database_url, tmp_path):
            finished = await until_final(services, job)
            assert (await until_final(services, undisturbed)).status == "SUCCEEDED"
        assert (finished.status, finished.attempts, finished.errors) == ("SUCCEEDED", 2, [])
        assert finished.profiles_read == finished.total_profiles == 23_570
        found = await result(services, job, target)
        assert found == await result(services, undisturbed, other)
        assert list(found) == ids
        assert all(count == len(rows) for count, rows in found.values())
        assert sum(count for count, _ in found.values()) > SEGMENTS * 1_000
        await tidy(services.database, services.lake)
        assert services.lake.exports() == {}
