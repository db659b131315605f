"""A billion profiles, on paper: what a daily job of thousands of definitions reads, writes and takes on a cluster.

    python -m tests.benchmarks.billion [--profiles 1000000000] [--events 100] [--definitions 4000] [--workers 100]

First measures this machine on a small lake of as many events for each profile: processor time of evaluation for each
event, with 100 definitions and with all; bytes of an event and of a profile in the lake; time and bytes of a bucket's
membership file and of its counts, written as jobs write them. Then lays out the job by these figures: buckets, files,
bytes, memory of a core, and the time of the cluster when each bucket goes to the core that is free first, with buckets
of uneven size. It says which limit comes first.
"""

import argparse
import asyncio
import heapq
import json
import random
import re
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pyroaring import BitMap

from app.clock import utc_now
from app.engine.members.membership import MembershipFiles, counts, next_membership
from app.engine.people.profiles import Snapshot, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, Stage
from app.engine.store.lake import Lake
from app.engine.store.layout import MOST_BUCKET_BITS, PEOPLE_IN_A_BUCKET
from app.pql.check.checker import check
from app.pql.core import Builder, Node
from app.scope import Tenant
from app.services import merge_policies
from app.services.evaluation.expressions import data_sources
from app.services.jobs.segment.publish import as_numbers
from app.services.jobs.segment.sharing import SHARE_SECONDS
from app.settings import Settings
from app.wiring import open_services
from tests.benchmarks.hundred import examples
from tests.benchmarks.job import SCOPE, loaded

SAMPLE_PROFILES = 20_000
DENSITIES = (0.5, 0.1, 0.01, 0.001)
"""Of audiences, in equal parts."""
CORES = 4
"""Of a worker."""
SPREAD = 0.25
"""Standard deviation of the sizes of buckets by their events."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Measured: seconds of a core, and bytes."""

    seconds_an_event: float
    bytes_an_event: float
    bytes_a_profile: float
    seconds_a_membership: float
    bytes_a_membership: float
    bytes_of_counts: float


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=1_000_000_000)
    options.add_argument("--events", type=int, default=100)
    options.add_argument("--definitions", type=int, default=4_000)
    options.add_argument("--workers", type=int, default=100)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory(prefix="segmentation-billion-") as folder:
        figures = asyncio.run(measured(Path(folder), chosen.events, chosen.definitions))
    lay_out(figures, chosen)


async def measured(folder: Path, events: int, definitions: int) -> Figures:
    async with open_services(Settings(data_dir=folder / "data")) as services:
        await loaded(services, folder, SAMPLE_PROFILES, SAMPLE_PROFILES * events)
        policy = await merge_policies.ensure_default(services.database, services.clock, SCOPE)
        async with services.database.session() as session:
            sources = await data_sources(session, SCOPE)
        tenant = services.lake.tenant(SCOPE.tenant)
        snapshot = open_snapshot(tenant, merge_policies.rule_of(policy), sources)
    few, many = (evaluation(snapshot, number, SAMPLE_PROFILES * events) for number in (100, definitions))
    print(f"evaluation: {few * 1e6:.2f} µs an event for 100 definitions, {many * 1e6:.2f} for {definitions:,}")
    (people, visits) = (
        sum(file.stat().st_size for file in (tenant.folder / "datasets" / id_).rglob("*.parquet"))
        for id_ in (source.id for source in sources)
    )
    bytes_a_profile, bytes_an_event = people / SAMPLE_PROFILES, visits / SAMPLE_PROFILES / events
    print(f"lake: {bytes_an_event:.0f} bytes an event, {bytes_a_profile:.0f} a profile")
    return Figures(many, bytes_an_event, bytes_a_profile, *memberships(folder))


def evaluation(snapshot: Snapshot, number: int, events: int) -> float:
    """Seconds of a core for each event."""
    conditions = typical(snapshot, number)
    stage = Stage(Plan(conditions), snapshot, lambda _id, _bucket: None, lambda _bucket: {}, lambda _bucket: {})
    evaluator = BucketEvaluator([stage], utc_now(), dict.fromkeys(conditions, 1))
    evaluator.bucket(snapshot.buckets[0], lambda: False)  # opened
    began = time.thread_time()
    for bucket in snapshot.buckets:
        assert not evaluator.bucket(bucket, lambda: False).errors
    return (time.thread_time() - began) / events


def typical(snapshot: Snapshot, number: int) -> dict[str, Node]:
    """So many definitions: the hundred of the benchmarks, again and again with other numbers."""
    builder, conditions, written = Builder(), dict[str, Node](), examples()
    for start in range(0, number, len(written)):
        shift = partial(_shifted, by=start // len(written))
        ids = [str(start + at) for at in range(len(written))]
        for id_, example in zip(ids, written, strict=True):
            text = example.pql.format(*(ids[at] for at in example.others)) if example.others else example.pql
            text = re.sub(r"\d+(?= days)|(?<=points > )\d+", shift, text)
            checked = check(text, snapshot.schema, segments=ids, builder=builder)
            assert checked.condition is not None, checked.diagnostics
            conditions[id_] = checked.condition
    return conditions


def _shifted(number: re.Match[str], by: int) -> str:
    return str(int(number[0]) + by)


def memberships(folder: Path, definitions: int = 400) -> tuple[float, float, float]:
    """Of a full bucket: seconds and bytes of a definition's membership after a second run, and bytes of its counts."""
    chance, now = random.Random(1), utc_now()
    everybody = BitMap(range(PEOPLE_IN_A_BUCKET))
    runs = []
    for at in range(definitions):
        chosen = [n for n in range(PEOPLE_IN_A_BUCKET) if chance.random() < DENSITIES[at % len(DENSITIES)]]
        before = next_membership(None, f"{at:036d}", BitMap(chosen), 1, now)
        runs.append((before, BitMap(chosen[len(chosen) // 50 :]) | BitMap(range(at))))
    began = time.thread_time()
    written = [next_membership(before, before.definition, members, 1, utc_now()) for before, members in runs]
    numbers = {one.definition: as_numbers(counts(one, {"crm": everybody, "email": everybody})) for one in written}
    text = json.dumps(numbers)
    files = MembershipFiles(Lake(folder).tenant(Tenant("a", "b")))
    name = files.write("run", 0, 1, written)
    seconds = (time.thread_time() - began) / definitions
    size = (files.lake.membership("run") / name).stat().st_size / definitions
    print(f"membership of a full bucket: {seconds * 1e3:.2f} ms and {size:,.0f} bytes a definition", end="")
    print(f", counts {len(text) / definitions:.0f} bytes")
    return seconds, size, len(text) / definitions


def lay_out(figures: Figures, chosen: argparse.Namespace) -> None:
    buckets = 1 << MOST_BUCKET_BITS
    people, events = chosen.profiles / buckets, chosen.profiles * chosen.events / buckets
    share = people / PEOPLE_IN_A_BUCKET
    mean = events * figures.seconds_an_event + chosen.definitions * figures.seconds_a_membership * share
    chance, cores = random.Random(2), [0.0] * (chosen.workers * CORES)
    works = [max(mean * chance.gauss(1, SPREAD), mean / 10) for _ in range(buckets)]
    for work in works:
        heapq.heappush(cores, heapq.heappop(cores) + work)
    files = chosen.definitions * figures.bytes_a_membership * share
    numbers = chosen.definitions * figures.bytes_of_counts
    print(f"{buckets:,} buckets (the most there are) of {people:,.0f} profiles and {events:,.0f} events")
    print(f"lake: {chosen.profiles * (figures.bytes_a_profile + chosen.events * figures.bytes_an_event) / 1e12:.1f} TB")
    print(f"a bucket: {mean:.0f} s of a core; events in memory {events * 24 / 1e6:,.0f} MB for three columns")
    print(f"{chosen.workers} workers with {CORES} cores: {max(cores) / 60:.0f} minutes", end="")
    print(f" ({sum(works) / 3600:,.0f} core hours, {sum(works) / max(cores) / len(cores):.0%} of the cores used)")
    claims = buckets / max(round(CORES * SHARE_SECONDS / mean), 1)
    print(f"shared through the database instead: {claims:,.0f} claims, {claims / max(cores):.1f} a second")
    print(f"membership files of a run: {buckets:,}, {files / 1e6:.1f} MB each, {files * buckets / 1e9:,.0f} GB in all")
    print(f"counts in the database: {numbers / 1e6:.2f} MB a bucket, {numbers * buckets / 1e9:.1f} GB a run")


if __name__ == "__main__":
    main()
