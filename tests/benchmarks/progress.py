"""How far off a job's progress is: what it said of the time left, against the time that it then took.

    python tests/benchmarks/progress.py [--profiles 100000] [--events 2000000]

Evaluates 90 definitions over a generated shop with a worker of this process, once with the merged view to be made first
and once with it there, and prints from the job's own update log, at the first state with 25, 50 and 75% done: the
seconds left that it told and those that were left, and how far the fraction was from the share of the time passed.
"""

import argparse
import asyncio
import logging
import tempfile
from pathlib import Path
from typing import Any

from app.engine.ingest.formats import InputFile
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.scope import Scope
from app.services.audiences.computed import create
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs import watching
from app.services.jobs.segment import requests as segment_jobs
from app.settings import Settings
from app.storage.tables.datasets import DatasetKind
from app.wiring import Services, open_services, working
from tests.benchmarks.hundred import examples

SCOPE = Scope("default", "prod", "benchmark")


async def measure(folder: Path, profiles: int, events: int) -> None:
    async with open_services(Settings(data_dir=folder, database_url=f"sqlite:///{folder / 'progress.db'}")) as services:
        files = await asyncio.to_thread(write_shop, folder, profiles, events, services.clock())
        for name, kind, time, file in (
            ("people", "PROFILE", None, files[0]),
            ("events", "EVENT", "timestamp", files[1]),
        ):
            await ingest_file(
                services.database,
                services.lake,
                services.clock,
                SCOPE,
                NewDataset(name, DatasetKind(kind), IDENTITY_COLUMN, IDENTITY_NAMESPACE, time),
                InputFile(file, "PARQUET"),
            )
        for at, expression in enumerate(example.pql for example in examples() if not example.others):
            new = NewDefinition(name=f"{at:02d}", expression=expression)
            await create(services.database, services.lake, services.clock, SCOPE, new)
        async with working(services):
            for what in ("with the view to be made", "with the view there"):
                await run(services, what)


async def run(services: Services, what: str) -> None:
    job = await segment_jobs.create(services.database, services.clock, SCOPE, all_definitions=True)
    states: list[Any] = []
    async for state in watching.watch(services.database, services.changes, SCOPE, segment_jobs.KIND, job.id, after=0):
        states.append(state)
    began, ended = states[-1].started_at, states[-1].finished_at
    total = (ended - began).total_seconds()
    print(f"{what}: {states[-1].status} in {total:.1f} s, {len(states)} states")
    for share in (0.25, 0.5, 0.75):
        state = next(state for state in states if state.fraction >= share)
        left = (ended - state.updated_at).total_seconds()
        told = "nothing" if state.seconds_left is None else f"{state.seconds_left:.1f} s"
        off = "" if state.seconds_left is None else f", off by {(state.seconds_left - left) / total:+.0%} of the whole"
        passed = (state.updated_at - began).total_seconds() / total
        print(
            f"  at {state.fraction:.0%} done: {told} left by its word, {left:.1f} s in truth{off}; "
            f"{passed:.0%} of the time had passed"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profiles", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=2_000_000)
    chosen = parser.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory(prefix="segmentation-progress-") as folder:
        asyncio.run(measure(Path(folder), chosen.profiles, chosen.events))


if __name__ == "__main__":
    main()
