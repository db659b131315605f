"""How soon a preview has its first figures: previews through a real database and a real worker, and a full job.

    python tests/benchmarks/preview.py [--profiles 1000000] [--events 20000000] [--read-in-full 250000]

For each expression it prints the time from its creation to the first figures, to the last ones, and how wide the
interval was at first. `--read-in-full` is the size of the sample, so that a sandbox that fits a laptop is sampled as
one of many millions is. Then a job for each reads everybody, for comparison. `--keep FOLDER` keeps the data for
another run.
"""

import argparse
import asyncio
import logging
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from app.clock import utc_now
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.people.profiles import open_snapshot
from app.engine.run import sampling as estimate
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets
from app.services.evaluation.expressions import data_sources
from app.services.jobs import watching
from app.services.jobs.preview import requests as previews
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.settings import Settings
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.wiring import Services, open_services, working

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
SCOPE = Scope("benchmark", "prod", "benchmark")
EXPRESSIONS = {
    "an attribute": 'homeAddress.country = "DE" and loyalty.tier = "gold"',
    "a sum of events": 'xEvent[eventType = "purchase"].sum(commerce.order.priceTotal) > 500',
    "items of events": 'xEvent.productListItems[price > 150].SKU = "SKU-0007"',
    "a sequence": 'CHAIN(xEvent, timestamp, [A: WHAT(eventType = "view"), '
    'B: WHAT(eventType = "purchase") WHEN(<= 1 days after A)])',
    "a rare one": 'loyalty.tier = "platinum" and homeAddress.country = "JP" and loyalty.points > 9900',
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=1_000_000)
    options.add_argument("--events", type=int, default=20_000_000)
    options.add_argument("--read-in-full", type=int, default=250_000)
    options.add_argument("--keep", type=Path)
    asked = options.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(measure(folder, asked.profiles, asked.events, asked.read_in_full))


async def measure(folder: Path, profiles: int, events: int, read_in_full: int) -> None:
    async with open_services(Settings(data_dir=folder / "data")) as services:
        await _load(services, folder, profiles, events)
        started = time.perf_counter()
        await _opened(services)
        print(f"the merged view was brought up to date in {time.perf_counter() - started:.2f} s")
        async with working(services):
            for name, expression in EXPRESSIONS.items():
                estimate.READ_IN_FULL = read_in_full
                await _preview(services, name, expression)
            await _jobs(services)


async def _load(services: Services, folder: Path, profiles: int, events: int) -> None:
    async with services.database.session() as session:
        if await data_sources(session, SCOPE):
            return
    people, facts = write_shop(folder, profiles, events, NOW)
    started = time.perf_counter()
    for kind, path, column in (("PROFILE", people, None), ("EVENT", facts, "timestamp")):
        new = datasets.NewDataset(kind.lower(), DatasetKind(kind), IDENTITY_COLUMN, IDENTITY_NAMESPACE, column)
        row = await datasets.create(services.database, services.clock, SCOPE, new)
        shape = DatasetShape(kind, IDENTITY_COLUMN, IDENTITY_NAMESPACE, column)  # type: ignore[arg-type]
        lake = services.lake.tenant(SCOPE.tenant)
        await asyncio.to_thread(ingest, lake, row.id, shape, InputFile(path, "PARQUET"), "b1")
    print(f"loaded {profiles:,} profiles and {events:,} events in {time.perf_counter() - started:.0f} s")


async def _opened(services: Services) -> None:
    policy = await merge_policies.ensure_default(services.database, services.clock, SCOPE)
    async with services.database.session() as session:
        sources = await data_sources(session, SCOPE)
    rule = merge_policies.rule_of(policy)
    snapshot = await asyncio.to_thread(open_snapshot, services.lake.tenant(SCOPE.tenant), rule, sources)
    print(f"{snapshot.total_profiles:,} people in {len(snapshot.buckets)} buckets")


async def _preview(services: Services, name: str, expression: str) -> None:
    started, first = time.perf_counter(), None
    new = previews.NewPreview(expression)
    made = await previews.create(services.database, services.lake, utc_now, SCOPE, new)
    created = time.perf_counter() - started
    async for state in previews.watch(services.database, services.changes, SCOPE, made.id):
        found = previews.figures(state)
        if found is not None and state.profiles_read and first is None:
            first = time.perf_counter() - started
            at_first = f"{found.size:,} in {found.low:,}–{found.high:,} of {state.profiles_read:,} read"
    last = time.perf_counter() - started
    assert found is not None
    print(
        f"{name}: checked and queued {created:.2f} s, first figures {first:.2f} s ({at_first}), "
        f"last {last:.2f} s ({found.size:,} in {found.low:,}–{found.high:,} of {state.profiles_read:,})"
    )


async def _jobs(services: Services) -> None:
    """One for each definition: a preview is compared with a job of its own."""
    for name, expression in EXPRESSIONS.items():
        new = NewDefinition(name=f"{name} {time.time()}", expression=expression)
        made = await definitions.create(services.database, services.lake, utc_now, SCOPE, new)
        started = time.perf_counter()
        job = await segment_jobs.create(services.database, utc_now, SCOPE, [made.id])
        async for _ in watching.watch(services.database, services.changes, SCOPE, JobKind.SEGMENT, job.id):
            pass
        took = time.perf_counter() - started
        async with services.database.session() as session:
            page = await segment_jobs.segments_by_job(session, SCOPE, [job.id], PageRequest(1))
        print(f"{name}: a full job {took:.2f} s, {page[job.id].items[0].profile_count:,} members")


if __name__ == "__main__":
    main()
