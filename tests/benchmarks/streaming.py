"""How soon a batch shows in memberships: `python -m tests.benchmarks.streaming --help`.

A shop is loaded and evaluated once. Then batches of events arrive, each row of another customer, and a lane streams
them. With `--graph PDG` each row also links its customer to another one. Printed for each size of batch: the time from
the end of the upload to the changed memberships, the processor time of both, the profiles evaluated in a second, and
what a job over everybody takes for the same.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path
from statistics import median

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.run.demo_shop import write_shop
from app.scope import Scope
from app.services import merge_policies
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
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from app.storage.topics import Topic, audience_topic
from app.wiring import Services, open_services

SCOPE = Scope("default", "prod", "benchmark")
ROUNDS = 5


def expressions(number: int) -> list[str]:
    """The first one holds of everybody in a batch; the others are of all kinds that may be streamed."""
    recent = "timestamp occurs <= 24 hours before now"
    kinds = (
        "loyalty.points > {n}",
        "xEvent[" + recent + " and commerce.order.priceTotal > {n}]",
        "CHAIN(xEvent, timestamp, [A: WHAT(commerce.order.priceTotal > {n}) WHEN(<= 24 hours before now),"
        ' B: WHAT(eventType = "return") WHEN(<= 24 hours before now)])',
    )
    return [f"xEvent[{recent} and round > 0]", *(kinds[n % 3].format(n=n) for n in range(number - 1))]


async def send(services: Services, folder: Path, people: list[int], number: int, linked: bool) -> None:
    rows = [
        {
            **({"identityMap": {"shop": [{"id": f"{person ^ 1:07d}"}]}} if linked else {}),
            "customerId": f"{person:07d}",
            "timestamp": utc_now().isoformat(),
            "eventType": "purchase",
            "commerce": {"order": {"priceTotal": person % 500}},
            "round": number,
        }
        for person in people
    ]
    file = folder / "batch.ndjson"
    file.write_text("\n".join(map(json.dumps, rows)))
    await ingest_file(
        services.database,
        services.lake,
        utc_now,
        SCOPE,
        NewDataset("live", DatasetKind.EVENT, "customerId", "shop", "timestamp"),
        InputFile(file, "NDJSON"),
    )


async def job(services: Services) -> float:
    await segment_jobs.create(services.database, utc_now, SCOPE, all_definitions=True)
    start = time.perf_counter()
    claim = await claim_next(
        services.database, utc_now, owner="benchmark", lease=timedelta(minutes=10), kind=JobKind.SEGMENT
    )
    assert claim is not None
    await run_segment_job(Attempt(services.database, utc_now, claim), services.lake, 2)
    return time.perf_counter() - start


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profiles", type=int, default=200_000)
    parser.add_argument("--events", type=int, default=20, help="of each profile")
    parser.add_argument("--definitions", type=int, default=30)
    parser.add_argument("--graph", choices=list(IdentityGraph), default=IdentityGraph.NONE)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 100, 1_000, 10_000])
    return parser.parse_args()


async def load(services: Services, folder: Path, chosen: argparse.Namespace) -> str:
    """The shop, and the definitions. Returns the id of the first."""
    people, events = write_shop(folder, chosen.profiles, chosen.profiles * chosen.events, utc_now())
    for dataset, kind, file, at in (("people", "PROFILE", people, None), ("events", "EVENT", events, "timestamp")):
        new = NewDataset(dataset, DatasetKind(kind), "customerId", "shop", at)
        await ingest_file(services.database, services.lake, utc_now, SCOPE, new, InputFile(file, "PARQUET"))
    await send(services, folder, [0], 0, chosen.graph == "PDG")
    policy = merge_policies.NewPolicy("Streamed", MergeMethod.TIMESTAMP_ORDERED, IdentityGraph(chosen.graph), [], True)
    await merge_policies.create(services.database, utc_now, SCOPE, policy)
    ids = []
    for place, expression in enumerate(expressions(chosen.definitions)):
        definition = NewDefinition(f"{place:03}", expression, evaluation_methods=["STREAMING"])
        ids.append((await definitions.create(services.database, services.lake, utc_now, SCOPE, definition)).id)
    return ids[0]


async def main() -> None:
    chosen = options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with open_services(Settings(data_dir=folder, database_url=None)) as services:
            first = await load(services, folder, chosen)
            full = await job(services)
            print(
                f"{chosen.profiles:,} profiles, {chosen.profiles * chosen.events:,} events, {chosen.definitions} "
                f"definitions, identity graph {chosen.graph}; a job: {full:.2f} s"
            )
            changed: asyncio.Queue[tuple[float, float]] = asyncio.Queue()
            topic = audience_topic(SCOPE.tenant, first)

            def noted(topics: Collection[Topic]) -> None:
                if topic in topics:
                    changed.put_nowait((time.perf_counter(), time.process_time()))

            services.database.on_commit(noted)
            stop = asyncio.Event()
            lane = asyncio.create_task(services.lane().run(stop))
            arrived = 0
            for size in chosen.sizes:
                times, used, uploads = [], [], []
                for _ in range(ROUNDS):
                    some = list(range(arrived, arrived + size))
                    arrived += size
                    start, spent = time.perf_counter(), time.process_time()
                    await send(services, folder, some, 1, chosen.graph == "PDG")
                    landed = time.perf_counter()
                    async with asyncio.timeout(120):
                        at, ended = await changed.get()
                    times.append(at - landed)
                    used.append(ended - spent)
                    uploads.append(landed - start)
                took = median(times)
                print(
                    f"a batch of {size:,}: taken in in {median(uploads):.2f} s, memberships changed {took:.2f} s later "
                    f"(median of {ROUNDS}, at most {max(times):.2f} s; {median(used):.2f} CPU s in all): "
                    f"{size / took:,.0f} profiles/s, {full / took:.1f} times sooner than a job alone takes"
                )
            stop.set()
            await lane


if __name__ == "__main__":
    asyncio.run(main())
