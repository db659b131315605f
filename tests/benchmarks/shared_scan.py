"""40 definitions over 2 million events: one job of ours against 40 separate DuckDB queries over the same Parquet files.

    python tests/benchmarks/shared_scan.py [--profiles 100000] [--events 2000000]

Prints both times, their ratio and whether all 40 counts are equal. DuckDB reads the files of our lake, with as many
threads; its queries are warmed by one unmeasured run, so that both find the files in the system's cache.
"""

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.people.profiles import Dataset, MergeRule, open_snapshot
from app.engine.plan.plan import Plan
from app.engine.run.buckets import BucketEvaluator, BucketResult, Stage, run
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.engine.store.lake import Lake
from app.pql.check.checker import check
from app.pql.core import Builder
from app.scope import Tenant

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
KINDS = ("view", "search", "cart", "purchase", "login", "email.open", "email.click", "return")

TYPE, DAYS = "e.eventType = '{}'", "e.timestamp >= TIMESTAMPTZ '2026-06-15 12:00:00+00' - INTERVAL {} DAY"


def definitions() -> list[tuple[str, str]]:
    """Pairs of PQL and of SQL over `events e` that gives the ids: counts, sums, recency, items, sequences."""
    pairs: list[tuple[str, str]] = []

    def grouped(where: str, having: str) -> str:
        return f"SELECT e.who FROM events e WHERE {where} GROUP BY e.who HAVING {having}"

    for kind, least in zip(KINDS, (20, 10, 6, 4, 5, 4, 2, 1), strict=True):
        pairs.append(
            (f'xEvent[eventType = "{kind}"].count() >= {least}', grouped(TYPE.format(kind), f"count(*) >= {least}"))
        )
    for days in (1, 3, 7, 14, 30, 60, 90, 180):
        pairs.append(
            (
                f'exists E from xEvent where E.eventType = "purchase" and E.timestamp occurs <= {days} days before now',
                grouped(
                    f"{TYPE.format('purchase')} AND {DAYS.format(days)} AND e.timestamp <= TIMESTAMPTZ '{NOW}'", "true"
                ),
            )
        )
    for amount in (100, 200, 400, 600, 800, 1_000, 1_500, 2_000):
        pairs.append(
            (
                f'xEvent[eventType = "purchase"].sum(commerce.order.priceTotal) > {amount}',
                grouped(TYPE.format("purchase"), f"sum(e.commerce.order.priceTotal) > {amount}"),
            )
        )
    for sku in range(8):
        pairs.append(
            (
                f'xEvent.productListItems[price > {60 + 10 * sku}].SKU = "SKU-{sku:04d}"',
                grouped(
                    "len(list_filter(e.productListItems, "
                    f"lambda i: i.price > {60 + 10 * sku} AND i.SKU = 'SKU-{sku:04d}')) > 0",
                    "true",
                ),
            )
        )
    for device in ("phone", "desktop", "tablet"):
        pairs.append(
            (
                f'xEvent[device = "{device}"].max(timestamp) occurs <= 30 days before now',
                grouped(f"e.device = '{device}'", f"max(e.timestamp) >= TIMESTAMPTZ '{NOW}' - INTERVAL 30 DAY"),
            )
        )
    for kind in ("view", "search", "cart", "login", "email.open"):
        pairs.append(
            (
                f'CHAIN(xEvent, timestamp, [A: WHAT(eventType = "{kind}"), '
                'B: WHAT(eventType = "purchase") WHEN(<= 7 days after A)])',
                f"""SELECT DISTINCT a.who FROM events a JOIN events b ON a.who = b.who AND b.timestamp > a.timestamp
                    AND b.timestamp <= a.timestamp + INTERVAL 7 DAY
                    WHERE a.eventType = '{kind}' AND b.eventType = 'purchase'""",
            )
        )
    return pairs


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--profiles", type=int, default=100_000)
    options.add_argument("--events", type=int, default=2_000_000)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 2)
    asked = options.parse_args()
    logging.basicConfig(level="WARNING")
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), asked.profiles, asked.events, asked.threads)


def compare(folder: Path, profiles: int, events: int, threads: int) -> None:
    _, facts = write_shop(folder, profiles, events, NOW)
    lake = Lake(folder / "lake", threads=threads).tenant(Tenant("benchmark", "prod"))
    started = time.perf_counter()
    shape = DatasetShape("EVENT", IDENTITY_COLUMN, IDENTITY_NAMESPACE, "timestamp")
    ingest(lake, "events", shape, InputFile(facts, "PARQUET"), "b1")
    print(f"ingested {events:,} events in {time.perf_counter() - started:.1f} s")
    pairs = definitions()
    sources = [Dataset("events", "EVENT")]
    open_snapshot(lake, MergeRule("default", "TIMESTAMP_ORDERED", ()), sources)

    started = time.perf_counter()
    snapshot = open_snapshot(lake, MergeRule("default", "TIMESTAMP_ORDERED", ()), sources)
    builder = Builder()
    conditions = {}
    for at, (expression, _) in enumerate(pairs):
        checked = check(expression, snapshot.schema, segments=(), builder=builder)
        assert checked.condition is not None, checked.diagnostics
        conditions[str(at)] = checked.condition
    counts = dict.fromkeys(conditions, 0)

    def add(result: BucketResult) -> None:
        for membership in result.memberships:
            counts[membership.definition] += len(membership.members)

    stage = Stage(Plan(conditions), snapshot, lambda _id, _bucket: None, lambda _bucket: {}, lambda _bucket: {})
    run(
        BucketEvaluator([stage], NOW, dict.fromkeys(conditions, 1)),
        snapshot.buckets,
        finished=add,
        cancelled=lambda: False,
        threads=threads,
    )
    ours = time.perf_counter() - started

    files = [str(file) for file in (folder / "lake").rglob("*.parquet") if "/datasets/" in str(file)]
    connection = duckdb.connect(config={"threads": threads})
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(
        f"CREATE VIEW events AS SELECT {IDENTITY_COLUMN} AS who, * FROM read_parquet(?)".replace("?", repr(files))
    )
    times, theirs = [], {}
    for _ in range(2):
        started = time.perf_counter()
        theirs = {str(at): _count(connection, sql) for at, (_, sql) in enumerate(pairs)}
        times.append(time.perf_counter() - started)
    for at, (expression, _) in enumerate(pairs):
        if counts[str(at)] != theirs[str(at)]:
            print(f"DIFFERENT: ours {counts[str(at)]:,}, DuckDB {theirs[str(at)]:,}: {expression}")
    equal = sum(counts[key] == theirs[key] for key in counts)
    print(f"one job of {len(pairs)} definitions: {ours:.2f} s;  {len(pairs)} DuckDB queries: {times[-1]:.2f} s")
    print(f"ratio {times[-1] / ours:.1f}; {equal} of {len(pairs)} counts equal; {threads} threads")


def _count(connection: duckdb.DuckDBPyConnection, ids: str) -> int:
    found: Iterable[int] = connection.execute(f"SELECT count(*) FROM ({ids})").fetchone() or (0,)
    return next(iter(found))


if __name__ == "__main__":
    main()
