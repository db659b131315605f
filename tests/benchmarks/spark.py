"""What a Spark cluster adds to a job: the same job by threads and by Spark, with equal counts, and what a bucket costs.

    python -m tests.benchmarks.spark [--master 'local[2]'] [--profiles 100000] [--events 2000000] [--empty 200]

Prints the start of the session (once for each worker process), the job of the 100 definitions of `hundred` twice by
threads and twice by Spark (a job after the first takes over what cannot have changed), and, of `--empty` buckets in
which nothing is to be done, what one costs beside its work: Spark's task, its note and its row.
"""

import argparse
import asyncio
import logging
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sqlalchemy import select

from app.clock import FixedClock, utc_now
from app.engine.limits.pool import Stopped
from app.engine.run.engine import Done, Engine, LocalEngine
from app.engine.run.spark import SparkEngine
from app.engine.store.lake import Lake, TenantLake
from app.json_values import JsonObject
from app.scope import Tenant
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.settings import Settings
from app.storage.columns import columns
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow
from app.wiring import Services, open_services
from tests.benchmarks.job import SCOPE, loaded


@dataclass(frozen=True, slots=True)
class Nothing:
    """Work without work."""

    lake: TenantLake

    def bucket(self, number: int, stopped: Stopped) -> Done:
        return Done(number, "", 0, {})

    def as_json(self) -> JsonObject:
        return {"root": str(self.lake.lake.root)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        return cls(Lake(value["root"]).tenant(Tenant("a", "b")))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--master", default="local[2]")
    options.add_argument("--profiles", type=int, default=100_000)
    options.add_argument("--events", type=int, default=2_000_000)
    options.add_argument("--empty", type=int, default=200)
    chosen = options.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory(prefix="segmentation-spark-") as folder:
        asyncio.run(compare(Path(folder), chosen))


async def compare(folder: Path, chosen: argparse.Namespace) -> None:
    threads = os.cpu_count() or 2
    # All jobs as of one instant, so that windows of time count the same events.
    clock = FixedClock(utc_now())
    async with open_services(Settings(data_dir=folder / "data", threads=threads), clock) as services:
        ids = await loaded(services, folder, chosen.profiles, chosen.events)
        spark = SparkEngine(chosen.master, services.lake)
        began = time.monotonic()
        await asyncio.to_thread(spark.start)
        print(f"session with {spark.parallel} parallel tasks: {time.monotonic() - began:.1f} s")
        try:
            local = LocalEngine(threads)
            for name in (f"{threads} threads, first", f"{threads} threads, again"):
                by_threads = await job(services, ids, name, local, threads)
            for name in ("Spark, first", "Spark, again"):
                assert await job(services, ids, name, spark, threads) == by_threads
            began = time.monotonic()
            nothing = Nothing(services.lake.tenant(SCOPE.tenant))
            await asyncio.to_thread(spark.run, nothing, range(chosen.empty), lambda done: None, lambda: False)
            milliseconds = (time.monotonic() - began) / chosen.empty * 1000
            print(f"a bucket without work: {milliseconds:.1f} ms ({chosen.empty} of them, {spark.parallel} at a time)")
        finally:
            await asyncio.to_thread(spark.stop)


async def job(services: Services, ids: list[str], name: str, engine: Engine, threads: int) -> dict[str, int]:
    """The members of each definition."""
    await segment_jobs.create(services.database, services.clock, SCOPE, ids)
    claim = await claim_next(
        services.database, services.clock, owner="benchmark", lease=services.settings.batch_lease, kind=JobKind.SEGMENT
    )
    assert claim is not None
    attempt = Attempt(services.database, services.clock, claim)
    began = time.monotonic()
    await run_segment_job(attempt, services.lake, threads, engine)
    print(f"job by {name}: {time.monotonic() - began:.2f} s")
    parts = columns(SegmentJobDefinitionRow)
    async with services.database.session() as session:
        rows = select(parts.definition_id, parts.profile_count).where(parts.job_id == claim.job_id)
        return {row.definition_id: row.profile_count for row in await session.execute(rows)}


if __name__ == "__main__":
    main()
