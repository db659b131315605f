"""Downloads of an audience with a million members: seconds, megabytes and peak memory of each format and order.

python -m tests.benchmarks.members [people]
"""

import asyncio
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.clock import utc_now
from app.engine.export.members import ENCODERS
from app.engine.ingest.formats import InputFile
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.insight.downloads import Wanted, open_download
from app.services.insight.profiles import ProfileOrder
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.people.profiles import ProfileReader
from app.settings import Settings
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.wiring import Services, open_services

PEOPLE = 1_000_000
DOWNLOADS: list[tuple[str, str | None, ProfileOrder | None]] = [
    *((format, None, None) for format in ENCODERS),
    ("csv", "score > 500", None),
    ("csv", "score > 500", ProfileOrder("spent", descending=True)),
    ("csv", None, ProfileOrder("city")),
]
SCOPE = Scope("acme", "prod", "benchmark")


def people(path: Path, count: int) -> None:
    numbers = np.arange(count)
    table = pa.table(
        {
            "id": pa.array(np.char.add("customer-", numbers.astype(str))),
            "city": pa.array(["Rome", "Oslo", "Bonn", "Lima"]).take(pa.array(numbers % 4)),
            "country": pa.array(["IT", "NO", "DE", "PE"]).take(pa.array(numbers % 4)),
            "score": pa.array(numbers % 997),
            "spent": pa.array((numbers % 10_007) / 100),
        }
    )
    pq.write_table(table, path)


async def prepare(services: Services, folder: Path, count: int) -> str:
    people(folder / "people.parquet", count)
    dataset = NewDataset("people", DatasetKind.PROFILE, "id", "crm")
    await ingest_file(
        services.database, services.lake, utc_now, SCOPE, dataset, InputFile(folder / "people.parquet", "PARQUET")
    )
    new = NewDefinition(name="everybody", expression="score >= 0")
    audience = (await definitions.create(services.database, services.lake, utc_now, SCOPE, new)).id
    await segment_jobs.create(services.database, utc_now, SCOPE, [audience])
    lease = timedelta(hours=1)
    claim = await claim_next(services.database, utc_now, owner="benchmark", lease=lease, kind=JobKind.SEGMENT)
    if claim is None:
        raise RuntimeError("there is no job to take up")
    await run_segment_job(Attempt(services.database, utc_now, claim), services.lake, 2)
    return audience


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main(count: int) -> None:
    with TemporaryDirectory(prefix="members-") as name:
        folder = Path(name)
        async with open_services(Settings(data_dir=folder / "data")) as services:
            audience = await prepare(services, folder, count)
            print(f"{count:,} members; peak memory so far {peak():.0f} MB")
            for format, where, order in DOWNLOADS:
                cpu, begun, size = time.process_time(), time.perf_counter(), 0
                reader = ProfileReader(services.database, services.lake, utc_now, SCOPE)
                wanted = Wanted(audience, format, where=where, order=order)
                download = await open_download(services.database, SCOPE, reader, wanted, services.lake.threads)
                async for part in download.parts:
                    size += len(part)
                seconds, used = time.perf_counter() - begun, time.process_time() - cpu
                what = f"{format} {where or ''} {f'by {order.expression}' if order else ''}"
                print(f"{what:30} {seconds:6.1f} s, {used:5.1f} s of CPU, {size / 1e6:6.0f} MB, peak {peak():.0f} MB")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PEOPLE))
