"""What many small batches cost: `python -m tests.benchmarks.small_batches [batches] [rows] [profiles]`.

A shop is loaded and evaluated; then come batches of events, each row of another customer. Printed: the time that a
batch takes at first and at the end, its CPU time in each tenth of them, which shows what grows with their number (`1000
100` for many), the files that are left, and the CPU time of a job afterwards as a ratio to a job over the same rows
that came in one batch. The counts of both must be equal.
"""

import asyncio
import json
import math
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Literal

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.run.demo_shop import write_shop
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.settings import Settings
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.wiring import Services, open_services
from tests.benchmarks.streaming import expressions

SCOPE = Scope("default", "prod", "benchmark")
NOW = utc_now()
Kind = Literal["PROFILE", "EVENT"]


async def load(services: Services, name: str, kind: Kind, file: InputFile, at: str | None) -> None:
    new = NewDataset(name, DatasetKind(kind), "customerId", "shop", at)
    await ingest_file(services.database, services.lake, utc_now, SCOPE, new, file)


def write_batch(folder: Path, numbers: range, rows: int, profiles: int) -> InputFile:
    file = folder / "batch.ndjson"
    with file.open("w") as lines:
        for number in numbers:
            for place in range(rows):
                row = {
                    "customerId": f"{(number * rows + place) % profiles:07d}",
                    "timestamp": NOW.isoformat(),
                    "eventType": "purchase",
                    "commerce": {"order": {"priceTotal": place % 500}},
                    "round": 1,
                }
                lines.write(json.dumps(row) + "\n")
    return InputFile(file, "NDJSON")


def count_files(folder: Path) -> int:
    return sum(1 for _ in folder.rglob("datasets/*/__bucket=*/*.parquet"))


async def job(services: Services) -> tuple[float, str]:
    """CPU seconds and id."""
    job_id = (await segment_jobs.create(services.database, utc_now, SCOPE, all_definitions=True)).id
    began = time.process_time()
    claim = await claim_next(
        services.database, utc_now, owner="benchmark", lease=timedelta(minutes=10), kind=JobKind.SEGMENT
    )
    assert claim is not None
    await run_segment_job(Attempt(services.database, utc_now, claim), services.lake, 2)
    return time.process_time() - began, job_id


async def prepared(services: Services, folder: Path, profiles: int) -> None:
    people, events = write_shop(folder, profiles, profiles * 10, NOW)
    await load(services, "people", "PROFILE", InputFile(people, "PARQUET"), None)
    await load(services, "events", "EVENT", InputFile(events, "PARQUET"), "timestamp")
    await load(services, "live", "EVENT", write_batch(folder, range(1), 1, profiles), "timestamp")
    for place, expression in enumerate(expressions(30)):
        new = NewDefinition(f"{place:03}", expression, evaluation_methods=["BATCH"])
        await definitions.create(services.database, services.lake, utc_now, SCOPE, new)


async def measured(batches: int, rows: int, profiles: int, at_once: bool) -> tuple[float, float]:
    """CPU seconds of a job after all batches, and of a second one in which nothing is new."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_services(Settings(data_dir=folder, database_url=None)) as services:
            await prepared(services, folder, profiles)
            await job(services)
            times, used = [], []
            for numbers in [range(batches)] if at_once else [range(n, n + 1) for n in range(batches)]:
                file = write_batch(folder, numbers, rows, profiles)
                began, spent = time.perf_counter(), time.process_time()
                await load(services, "live", "EVENT", file, "timestamp")
                times.append(time.perf_counter() - began)
                used.append(time.process_time() - spent)
            files = count_files(folder)
            tenth = math.ceil(len(used) / 10)
            tenths = [median(used[start : start + tenth]) for start in range(0, len(used), tenth)]
            print("CPU ms of a batch, by tenths:", *(f"{seconds * 1000:.0f}" for seconds in tenths))
            first, _ = await job(services)
            again, _ = await job(services)
            print(
                f"{len(times):,} batches: the first took {median(times[:10]):.3f} s, the last {median(times[-10:]):.3f}"
                f" s; {files:,} files; a job then {first:.2f} s of CPU, the next {again:.2f} s",
                flush=True,
            )
            return first, again


async def main() -> None:
    batches, rows, profiles = (int(value) for value in (*sys.argv[1:], *("172", "500", "100000")[len(sys.argv) - 1 :]))
    many, many_again = await measured(batches, rows, profiles, at_once=False)
    one, one_again = await measured(batches, rows, profiles, at_once=True)
    print(f"jobs after many batches ÷ after one: {many / one:.2f}, next ones {many_again / one_again:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
