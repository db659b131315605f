"""How fast and in how much memory people are exported: `python tests/benchmarks/export.py [profiles] [events]`.

The data are made, loaded and evaluated in one process, and exported by the worker's own code in another, whose memory
is watched. Everybody is written, with all attributes and memberships; then everybody with their events too.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.engine.store.lake import Lake
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.export import requests as export_jobs
from app.services.jobs.export.input import SCHEMA, ExportEvents, NewExport
from app.services.jobs.export.run import run_export_job
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind

SCOPE = Scope("org", "prod", "ann")
EXPRESSIONS = {"Gold": 'loyalty.tier = "gold"', "Phones": 'xEvent[device = "phone"].count() > 0'}
THREADS = 2


def peak_memory() -> int:
    """The most that this process has had in memory, in kB, without what its parent had."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


async def claimed(database: Database, kind: JobKind) -> Attempt:
    claim = await claim_next(database, utc_now, owner="benchmark", lease=timedelta(hours=1), kind=kind)
    assert claim is not None
    return Attempt(database, utc_now, claim)


async def prepare(folder: Path, profiles: int, events: int) -> None:
    database, lake = Database(f"sqlite:///{folder / 'b.db'}"), Lake(folder / "lake")
    await database.migrate()
    people, facts = await asyncio.to_thread(write_shop, folder, profiles, events, utc_now())
    for name, kind, when, file in (("people", "PROFILE", None, people), ("clicks", "EVENT", "timestamp", facts)):
        await ingest_file(
            database,
            lake,
            utc_now,
            SCOPE,
            NewDataset(name, DatasetKind(kind), IDENTITY_COLUMN, IDENTITY_NAMESPACE, when),
            InputFile(file, "PARQUET"),
        )
    for name, expression in EXPRESSIONS.items():
        await definitions.create(database, lake, utc_now, SCOPE, NewDefinition(name, expression))
    await segment_jobs.create(database, utc_now, SCOPE, all_definitions=True)
    await run_segment_job(await claimed(database, JobKind.SEGMENT), lake, THREADS)
    await datasets.create(database, utc_now, SCOPE, datasets.NewDataset("exports", DatasetKind.EXPORT))
    await database.dispose()


async def export(folder: Path, with_events: bool) -> None:
    database, lake = Database(f"sqlite:///{folder / 'b.db'}"), Lake(folder / "lake")
    async with database.session() as session:
        target = (await datasets.page(session, SCOPE, PageRequest(9), "EXPORT")).items[0].id
    new = NewExport(target, SCHEMA, additional_fields=ExportEvents() if with_events else None)
    job = await export_jobs.create(database, lake, utc_now, SCOPE, new)
    before = peak_memory()
    start = time.perf_counter()
    await run_export_job(await claimed(database, JobKind.EXPORT), lake, THREADS)
    seconds = time.perf_counter() - start
    peak = peak_memory()
    async with database.session() as session:
        (batch,) = (await export_jobs.batches_by_job(session, SCOPE, [job.id], PageRequest(9)))[job.id].items
    await database.dispose()
    print(
        f"{batch.row_count:,} people {'with' if with_events else 'without'} events: {seconds:.1f} s, "
        f"{batch.row_count / seconds:,.0f} rows/s, {batch.bytes / 1e6:.0f} MB of files, "
        f"memory {before / 1e3:.0f} MB before, at most {peak / 1e3:.0f} MB"
    )


def main() -> None:
    if sys.argv[1:2] == ["--export"]:
        asyncio.run(export(Path(sys.argv[2]), sys.argv[3] == "events"))
        return
    numbers = [int(number.replace(",", "")) for number in sys.argv[1:]]
    profiles, events = (numbers + [1_000_000, 5_000_000][len(numbers) :])[:2]
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(prepare(Path(folder), profiles, events))
        print(f"{profiles:,} people, {events:,} events, {THREADS} threads", flush=True)
        for what in ("none", "events"):
            subprocess.run([sys.executable, __file__, "--export", folder, what], check=True)


if __name__ == "__main__":
    main()
