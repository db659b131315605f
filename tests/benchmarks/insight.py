"""Overlap, history and changes of audiences over a million profiles.

python -m tests.benchmarks.insight [people] [runs]

Prints how long the overlap of 8 stored audiences takes, what a run of an audience costs on disk when about 1% of the
profiles enter or leave it each day, how long members of an earlier moment and a difference take, and how many changes a
second come through the pages that a subscription reads.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from app.clock import FixedClock, utc_now
from app.errors import Refusal
from app.main import settle_garbage
from app.services.audiences import computed as definitions
from app.services.audiences import reads
from app.services.audiences.definition_rules import NewDefinition
from app.services.insight import changes, moments, overlap, profiles
from app.services.insight.population import open_population
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest
from app.services.people.profiles import ProfileReader
from app.settings import Settings
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobKind
from app.wiring import Services, open_services
from tests.benchmarks.members import PEOPLE, SCOPE, prepare

RUNS, SETS, DAILY, PAGE = 100, 8, 5, 1 << 16
"""`DAILY` of 997 scores enter and as many leave the audience in a run."""


async def define(services: Services, name: str, expression: str) -> str:
    new = NewDefinition(name=name, expression=expression)
    return (await definitions.create(services.database, services.lake, utc_now, SCOPE, new)).id


async def run(services: Services, clock: FixedClock, ids: Sequence[str]) -> None:
    await segment_jobs.create(services.database, clock, SCOPE, list(ids))
    claim = await claim_next(services.database, clock, owner="benchmark", lease=timedelta(days=1), kind=JobKind.SEGMENT)
    if claim is None:
        raise RuntimeError("there is no job to take up")
    await run_segment_job(Attempt(services.database, clock, claim), services.lake, 2)


def reader(services: Services) -> ProfileReader:
    return ProfileReader(services.database, services.lake, utc_now, SCOPE)


async def rows(services: Services, ids: Sequence[str]) -> list[AudienceRow]:
    async with services.database.session() as session:
        by_id = await reads.get_many(session, SCOPE, ids)
    return [by_id[id] for id in ids]


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def measure_overlap(services: Services, clock: FixedClock) -> None:
    ids = [await define(services, f"set {n}", f"score >= {n * 100} and score < {n * 100 + 400}") for n in range(SETS)]
    await run(services, clock, ids)
    people = [overlap.People(audience=row) for row in await rows(services, ids)]
    for name in ("first", "again", "again"):
        begun = time.perf_counter()
        result = await overlap.measure(reader(services), people, None, services.lake.threads)
        print(f"overlap of {SETS} stored audiences, {name}: {(time.perf_counter() - begun) * 1e3:.0f} ms", result.exact)


async def measure_history(services: Services, clock: FixedClock, runs: int) -> tuple[str, list[datetime]]:
    folder = services.lake.tenant(SCOPE.tenant).folder / "membership"
    daily, at = await define(services, "daily", "score < 500"), list[datetime]()
    await run(services, clock, [daily])
    before = bytes_in(folder)
    for number in range(1, runs + 1):
        clock.advance(timedelta(days=1))
        window = f"score >= {number * DAILY % 997} and score < {number * DAILY % 997 + 500}"
        await definitions.update(services.database, services.lake, clock, SCOPE, daily, None, {"expression": window})
        await run(services, clock, [daily])
        at.append(clock())
    size = bytes_in(folder) - before
    print(f"{runs} runs: {size / 1e6:.1f} MB on disk, {size / runs / 1e3:.0f} kB each")
    return daily, at


async def measure_moments(services: Services, clock: FixedClock, daily: str, at: Sequence[datetime]) -> None:
    begun = time.perf_counter()
    async with services.database.session() as session:
        known = [await moments.heads_at(session, SCOPE, [daily], one, clock()) for one in (at[0], at[-1])]
    heads = [then for one in known if not isinstance(then := one[daily], Refusal)]
    population = await open_population(reader(services))
    among = profiles.Among(daily, ("REALIZED", "EXISTING"), heads[0])
    size = await profiles.count(population, None, among)
    print(f"{size:,} members of an earlier moment counted: {(time.perf_counter() - begun) * 1e3:.0f} ms")
    begun = time.perf_counter()
    counts = await (await moments.difference(reader(services), (await rows(services, [daily]))[0], *heads)).counts(2)
    taken = (time.perf_counter() - begun) * 1e3
    print(f"difference of two moments ({counts.enter.size:,} entered, {counts.leave.size:,} left): {taken:.0f} ms")


async def measure_changes(services: Services, daily: str) -> None:
    begun, cpu, number, cursor, longest = time.perf_counter(), time.process_time(), 0, None, 0.0
    more = True
    while more:
        started = time.perf_counter()
        request = PageRequest(PAGE, cursor=cursor)
        page = await changes.page(services.database, SCOPE, reader(services), [daily], request)
        longest = max(longest, time.perf_counter() - started)
        number, more = number + len(page.items), page.has_next
        cursor = page.cursors[-1] if page.cursors else cursor
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    print(
        f"{number:,} changes in {seconds:.1f} s: {number / seconds:,.0f} a second, {number / cpu:,.0f} for a second of "
        f"CPU, longest page {longest * 1e3:.0f} ms"
    )


async def main(count: int, runs: int) -> None:
    with TemporaryDirectory(prefix="insight-") as name:
        folder = Path(name)
        async with open_services(Settings(data_dir=folder / "data")) as services:
            await prepare(services, folder, count)
            clock = FixedClock(utc_now())
            settle_garbage()  # As a server does.
            print(f"{count:,} profiles")
            await measure_overlap(services, clock)
            daily, at = await measure_history(services, clock, runs)
            await measure_moments(services, clock, daily, at)
            await measure_changes(services, daily)


if __name__ == "__main__":
    sizes = [int(argument) for argument in sys.argv[1:]]
    asyncio.run(main(*sizes, *(PEOPLE, RUNS)[len(sizes) :]))
