"""kill -9 of a worker in the middle of a preview, on both databases: another one goes on, unnoticed by who watches."""

import asyncio
import signal
from pathlib import Path

import pytest

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.run.sampling import Estimate
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.preview import requests as previews
from app.settings import Settings
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.previews import PreviewRow
from app.wiring import open_services
from tests.end_to_end.test_killed import PATIENCE, PURCHASES, SCOPE, buckets_of, worker_process

SLOW = " or ".join(
    f"CHAIN(xEvent, timestamp, [A: WHAT(dollars > {n}), B: WHAT(dollars > {n + 1}) WHEN(<= {n} days after A)])"
    for n in range(1, 150)
)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_preview_outlives_its_worker(database_url: str, tmp_path: Path) -> None:
    async with open_services(Settings(data_dir=tmp_path, database_url=database_url)) as services:
        database = services.database
        await ingest_file(
            database,
            services.lake,
            utc_now,
            SCOPE,
            NewDataset("purchases", DatasetKind.EVENT, "customer_id", "customer", "date"),
            InputFile(PURCHASES, "CSV"),
        )
        made = await previews.create(database, services.lake, utc_now, SCOPE, previews.NewPreview(SLOW))

        async def watched() -> list[PreviewRow]:
            return [row async for row in previews.watch(database, services.changes, SCOPE, made.id, after=0)]

        watching = asyncio.create_task(watched())
        with worker_process(database_url, tmp_path) as first:
            for _ in range(PATIENCE * 100):
                if len(await buckets_of(database, made.id)) >= 3:
                    break
                await asyncio.sleep(0.01)
            first.send_signal(signal.SIGKILL)
            first.wait()
        kept = {row.bucket: (row.attempt, row.file) for row in await buckets_of(database, made.id)}
        assert 3 <= len(kept) < 16, "the worker was to be killed in the middle"
        with worker_process(database_url, tmp_path):
            states = await asyncio.wait_for(watching, PATIENCE)
            again = await previews.create(database, services.lake, utc_now, SCOPE, previews.NewPreview(SLOW))
            async for row in previews.watch(database, services.changes, SCOPE, again.id):
                undisturbed = row

        last = states[-1]
        assert (last.status, last.attempts) == ("SUCCEEDED", 2)
        assert last.profiles_read == last.rows_to_read == last.total_profiles == 23_570
        found = previews.figures(last)
        assert found == Estimate(last.profiles_matched, 0.0, last.profiles_matched, last.profiles_matched)
        assert [row.sequence for row in states] == list(range(1, last.sequence + 1))
        for name in ("profiles_read", "profiles_matched"):
            values = [getattr(row, name) for row in states]
            assert values == sorted(values), "what was told is never taken back"
        after = {row.bucket: (row.attempt, row.file) for row in await buckets_of(database, made.id)}
        assert len(after) == 16
        assert {bucket: after[bucket] for bucket in kept} == kept, "finished buckets are kept as they were"

        assert undisturbed.profiles_matched == last.profiles_matched > 0
        assert undisturbed.by_namespace == last.by_namespace == {"customer": last.profiles_matched}
