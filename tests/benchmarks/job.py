"""A hundred definitions in one job, through the server and in the engine alone, beside DuckDB on the same files.

    python -m tests.benchmarks.job [--profiles 100000] [--events 2000000] [--jobs 2] [--keep FOLDER] [--skip duckdb]

Loads a generated shop, creates the definitions of `hundred` and runs `--jobs` jobs through a database and a worker;
then the engine alone, one pass of DuckDB that groups the events by profile (the floor), and one query of DuckDB for
each definition, all with as many threads, over the files of the lake, and as of the instant of the last job. All 100
counts are compared before anything is printed. Times are in seconds of the clock and, since other programs may run,
of the processor; compare ratios. `--profile` prints where the engine spends its time, `--keep` leaves the data there.

`--lasting` runs only the definitions that read no clock, `--batch N` loads events of N people before each job but the
first: what a job need not evaluate again shows in its time and in the profiles that it says were unchanged.
"""

import argparse
import asyncio
import cProfile
import gc
import json
import logging
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
from sqlalchemy import select

from app.engine.ingest.formats import InputFile
from app.engine.people.profiles import Snapshot, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.pql.check.checker import check
from app.pql.core import Builder
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences.computed import create
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.evaluation.expressions import data_sources
from app.services.jobs import watching
from app.services.jobs.segment import requests as segment_jobs
from app.settings import Settings
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.wiring import Services, open_services, working
from tests.benchmarks.hundred import Example, examples

SCOPE = Scope("default", "prod", "benchmark")


@dataclass(slots=True)
class Cost:
    """Seconds of the clock and of the processor, and the most memory of this process meanwhile, in MB."""

    wall: float = 0.0
    cpu: float = 0.0
    peak: float = 0.0

    def __str__(self) -> str:
        return f"{self.wall:6.2f} s, {self.cpu:6.2f} CPU s, at most {self.peak:,.0f} MB"


@contextmanager
def measured() -> Iterator[Cost]:
    cost = Cost()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost.wall, cost.cpu = time.perf_counter() - wall, time.process_time() - cpu
    cost.peak = _status("VmHWM")


def _status(name: str) -> float:
    """A figure of this process's memory in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=100_000)
    options.add_argument("--events", type=int, default=2_000_000)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    options.add_argument("--jobs", type=int, default=2)
    options.add_argument("--lasting", action="store_true")
    options.add_argument("--batch", type=int, default=0)
    options.add_argument("--keep", type=Path)
    options.add_argument("--skip", choices=["duckdb"])
    options.add_argument("--profile", action="store_true")
    chosen = options.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory(prefix="segmentation-job-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(compare(folder, chosen))


async def compare(folder: Path, chosen: argparse.Namespace) -> None:
    async with open_services(Settings(data_dir=folder / "data", threads=chosen.threads)) as services:
        ids = await loaded(services, folder, chosen.profiles, chosen.events)
        async with working(services):
            for number in range(1, chosen.jobs + 1):
                if chosen.batch and number > 1:
                    await _batch(services, folder, chosen.batch)
                with measured() as server:
                    job = await run_job(
                        services, [id_ for at, id_ in enumerate(ids) if not chosen.lasting or lasts(at)]
                    )
                unchanged = f"{job.metrics['unchanged_profiles']:,} profiles unchanged"
                print(f"job {number} through the server: {server}; {_status('VmRSS'):,.0f} MB afterwards; {unchanged}")
        now, counts = await results_of(services, job.id)
        with measured() as engine:
            own = await _engine(services, ids, now, chosen.threads, chosen.profile)
        print(f"engine alone:               {engine}", flush=True)
        _agree("the engine", own, counts, ids)
        lake = services.lake.tenant(SCOPE.tenant).folder
    if chosen.skip == "duckdb":
        return
    connection = _duckdb(lake, chosen.threads)
    floor_query = "SELECT count(*) FROM (SELECT who, count(*) FROM events GROUP BY who)"
    connection.execute(floor_query).fetchall()  # the files are in the system's cache then
    with measured() as floor:
        connection.execute(floor_query).fetchall()
    print(f"floor, GROUP BY profile:    {floor}", flush=True)
    with measured() as separate:
        theirs = {id_: _count(connection, sql, now) for id_, sql in zip(ids, _queries(), strict=True)}
    for id_, sql in zip(ids, _queries(), strict=True):
        if id_ in counts and theirs[id_] != counts[id_]:
            theirs[id_] = _count(connection, _exact(sql), now)
    print(f"DuckDB, {len(ids)} queries:        {separate}", flush=True)
    _agree("DuckDB", theirs, counts, ids)
    print("            engine/floor  server/engine  DuckDB/server")
    for name in ("wall", "cpu"):
        one = [getattr(cost, name) for cost in (engine, floor, server, separate)]
        print(f"{name:>10}  {one[0] / one[1]:12.1f}  {one[2] / one[0]:13.2f}  {one[3] / one[2]:13.1f}")


async def loaded(services: Services, folder: Path, profiles: int, events: int) -> list[str]:
    """The ids of the definitions in the order of the examples; makes data and definitions unless they are there."""
    audiences = columns(AudienceRow)
    async with services.database.session() as session:
        by_name = select(audiences.id).where(audiences.name.like("benchmark %")).order_by(audiences.name)
        ids = list(await session.scalars(by_name))
    if ids:
        return ids
    files = await asyncio.to_thread(write_shop, folder, profiles, events, datetime.now(UTC))
    for name, kind, column, file in (("people", "PROFILE", None, files[0]), ("events", "EVENT", "timestamp", files[1])):
        new = NewDataset(name, DatasetKind(kind), IDENTITY_COLUMN, IDENTITY_NAMESPACE, column)
        data = InputFile(file, "PARQUET")
        with measured() as cost:
            await ingest_file(services.database, services.lake, services.clock, SCOPE, new, data)
        print(f"loaded {name}: {cost}")
        file.unlink()
    for at, example in enumerate(examples()):
        text = example.pql.format(*(ids[other] for other in example.others)) if example.others else example.pql
        definition = NewDefinition(name=f"benchmark {at:03d}", expression=text)
        ids.append((await create(services.database, services.lake, services.clock, SCOPE, definition)).id)
    return ids


async def run_job(services: Services, ids: list[str]) -> Any:
    job = await segment_jobs.create(services.database, services.clock, SCOPE, ids)
    async for _ in watching.watch(services.database, services.changes, SCOPE, segment_jobs.KIND, job.id):
        pass
    async with services.database.session() as session:
        return (await segment_jobs.get_many(session, SCOPE, [job.id]))[job.id]


def lasts(at: int) -> bool:
    """Whether an example and all that it refers to read no clock."""
    example = examples()[at]
    return " now" not in example.pql and all(map(lasts, example.others))


async def _batch(services: Services, folder: Path, people: int) -> None:
    file, now = folder / "batch.ndjson", services.clock()
    event = {"timestamp": now.isoformat(), "eventType": "view"}
    rows = ({IDENTITY_COLUMN: f"{n:07d}", "_id": f"{now}-{n}", **event} for n in range(people))
    file.write_text("\n".join(map(json.dumps, rows)))
    new = NewDataset("events", DatasetKind.EVENT, IDENTITY_COLUMN, IDENTITY_NAMESPACE, "timestamp")
    await ingest_file(services.database, services.lake, services.clock, SCOPE, new, InputFile(file, "NDJSON"))
    file.unlink()


async def results_of(services: Services, job_id: str) -> tuple[datetime, dict[str, int]]:
    """The instant that a job was evaluated at, and the members of each definition."""
    rows, parts = columns(SegmentJobRow), columns(SegmentJobDefinitionRow)
    async with services.database.session() as session:
        now = (await session.execute(select(rows.evaluated_at).where(rows.id == job_id))).scalar_one()
        of_job = select(parts.definition_id, parts.profile_count).where(parts.job_id == job_id)
        return now, {row.definition_id: row.profile_count for row in await session.execute(of_job)}


async def _engine(services: Services, ids: list[str], now: datetime, threads: int, profile: bool) -> dict[str, int]:
    policy = await merge_policies.ensure_default(services.database, services.clock, SCOPE)
    async with services.database.session() as session:
        sources = await data_sources(session, SCOPE)
    lake = services.lake.tenant(SCOPE.tenant)
    snapshot = open_snapshot(lake, merge_policies.rule_of(policy), sources)
    if not profile:
        return _evaluate(snapshot, ids, now, threads)
    profiler = cProfile.Profile()
    counts = profiler.runcall(_evaluate, snapshot, ids, now, 0)
    pstats.Stats(profiler, stream=sys.stdout).sort_stats("tottime").print_stats(45)
    return counts


def _evaluate(snapshot: Snapshot, ids: list[str], now: datetime, threads: int) -> dict[str, int]:
    """Who is in, without previous members, with no thread of its own when `threads` is 0."""
    builder, conditions = Builder(), {}
    for id_, example in zip(ids, examples(), strict=True):
        text = example.pql.format(*(ids[other] for other in example.others)) if example.others else example.pql
        checked = check(text, snapshot.schema, segments=set(ids), builder=builder)
        assert checked.condition is not None, checked.diagnostics
        conditions[id_] = checked.condition
    counts = dict.fromkeys(conditions, 0)

    def add(result: BucketResult) -> None:
        for membership in result.memberships:
            counts[membership.definition] += len(membership.members)

    stage = Stage(Plan(conditions), snapshot, lambda _id, _bucket: None, lambda _bucket: {}, lambda _bucket: {})
    evaluator = BucketEvaluator([stage], now, dict.fromkeys(conditions, 1))
    if not threads:
        for bucket in snapshot.buckets:
            add(evaluator.bucket(bucket, lambda: False))
        return counts
    run(evaluator, snapshot.buckets, finished=add, cancelled=lambda: False, threads=threads)
    return counts


def _duckdb(lake: Path, threads: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    for view, column in (("profiles", "newsletter"), ("events", "eventType")):
        files = [str(file) for file in lake.glob("datasets/*/*/*.parquet") if column in _columns(connection, file)]
        connection.execute(
            f"CREATE VIEW {view} AS SELECT {IDENTITY_COLUMN} AS who, * "
            f"FROM read_parquet({files!r}, hive_partitioning = true)"
        )
    return connection


def _columns(connection: duckdb.DuckDBPyConnection, file: Path) -> set[str]:
    return {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM read_parquet('{file}')").fetchall()}


def _queries() -> list[str]:
    every: list[Example] = examples()

    def sql(at: int) -> str:
        one = every[at]
        return one.sql.format(*map(sql, one.others)) if one.others else one.sql

    return [sql(at) for at in range(len(every))]


def _count(connection: duckdb.DuckDBPyConnection, ids: str, now: datetime) -> int:
    parameters: Mapping[str, datetime] = {"now": now.astimezone(UTC)} if "$now" in ids else {}
    query: Callable[..., duckdb.DuckDBPyConnection] = connection.execute
    (count,) = query(f"SELECT count(*) FROM ({ids})", parameters).fetchall()[0]
    return int(count)


def _exact(ids: str) -> str:
    """The query with sums of decimals: a sum of doubles may be wrong in its last digit, and so on the other side of a
    limit."""
    return ids.replace("priceTotal)", "priceTotal::DECIMAL(18, 6))")


def _agree(name: str, counts: Mapping[str, int], job: Mapping[str, int], ids: list[str]) -> None:
    """Ends the program when a count differs from that of the job."""
    different = [(id_, at) for at, id_ in enumerate(ids) if id_ in job and counts[id_] != job[id_]]
    for id_, at in different:
        print(f"DIFFERENT: {name} {counts[id_]:,}, the job {job[id_]:,}: {examples()[at].pql}")
    if different:
        sys.exit(f"{len(different)} counts of {len(ids)} differ")
    print(f"  all {len(job)} counts equal those of the job, {sum(job.values()):,} members in all")


if __name__ == "__main__":
    main()
