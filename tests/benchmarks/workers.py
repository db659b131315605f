"""One job on one, two and more worker processes of one thread each, over one database and one data folder.

    python -m tests.benchmarks.workers [--profiles 1000000] [--events 20000000] [--workers 1 2] [--rounds 3]
                                       [--keep FOLDER] [--database postgresql://…]

Loads the shop of `tests.benchmarks.job` with its hundred definitions, and runs a job over all of them with each number
of workers in turn, so that whatever else runs meanwhile disturbs all alike. Before each job the memberships of before
are forgotten, so that all people are evaluated. The counts of all definitions that read no clock are compared before
anything is printed: seconds of the clock from start to end of the job, and processor seconds of all workers together.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import update

from app.settings import Settings
from app.storage.queue.workers import live_workers
from app.storage.tables.audiences import AudienceRow
from app.wiring import Services, open_services
from tests.benchmarks.job import lasts, loaded, results_of, run_job


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=1_000_000)
    options.add_argument("--events", type=int, default=20_000_000)
    options.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--keep", type=Path)
    options.add_argument("--database")
    chosen = options.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory(prefix="segmentation-workers-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(compare(folder, chosen))


async def compare(folder: Path, chosen: argparse.Namespace) -> None:
    settings = Settings(data_dir=folder / "data", database_url=chosen.database)
    async with open_services(settings) as services:
        ids = await loaded(services, folder, chosen.profiles, chosen.events)
        numbers = sorted(set(chosen.workers))
        costs: dict[int, list[tuple[float, float]]] = {number: [] for number in numbers}
        counts: list[dict[str, int]] = []
        for _ in range(chosen.rounds):
            for number in numbers:
                job, cpu = await measured_job(services, settings, ids, number)
                _, members = await results_of(services, job.id)
                counts.append({id_: members[id_] for at, id_ in enumerate(ids) if lasts(at)})
                costs[number].append(((job.finished_at - job.started_at).total_seconds(), cpu))
    assert all(members == counts[0] for members in counts), "the counts differ"
    print("workers      s   CPU s   times as fast as the first line")
    first = statistics.median(wall for wall, _ in costs[numbers[0]])
    for number in numbers:
        wall, cpu = (statistics.median(column) for column in zip(*costs[number], strict=True))
        print(f"{number:7d} {wall:6.2f} {cpu:7.2f}   {first / wall:.2f}")


async def measured_job(services: Services, settings: Settings, ids: list[str], workers: int) -> tuple[Any, float]:
    """A job over all definitions as if they had never run, by workers that have done one before, and the processor's
    seconds that it took."""
    with processes(settings, workers) as started:
        while await _alive(services) < workers:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
        await _forgetful_job(services, ids)
        before = sum(map(_cpu, started))
        job = await _forgetful_job(services, ids)
        return job, sum(map(_cpu, started)) - before


async def _forgetful_job(services: Services, ids: list[str]) -> Any:
    async with services.database.write() as session:
        await session.execute(update(AudienceRow).values(membership_run_id=None))
    return await run_job(services, ids)


async def _alive(services: Services) -> int:
    async with services.database.session() as session:
        return await live_workers(session, services.clock())


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def processes(settings: Settings, workers: int) -> Iterator[list[psutil.Process]]:
    environment = os.environ | {"SEGMENTATION_DATA_DIR": str(settings.data_dir), "SEGMENTATION_THREADS": "1"}
    if settings.database_url:
        environment["SEGMENTATION_DATABASE_URL"] = settings.database_url
    command = [sys.executable, "-m", "app.cli", "worker"]
    started = [subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) for _ in range(workers)]
    try:
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait()


if __name__ == "__main__":
    main()
