"""What /metrics says, after things have happened that it is to tell of; and what a job says that waits."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import insert
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.execution import CompiledExecution
from app.api.transport.health import health_routes
from app.clock import FixedClock
from app.engine.run.spark import SparkEngine
from app.scope import Tenant
from app.services.maintenance.figures import FRESH_SECONDS, FigureReader, read_figures
from app.storage.columns import table
from app.storage.database import Database
from app.storage.queue.turns import queue_batch
from app.storage.queue.workers import note_alive
from app.storage.tables.datasets import BatchRow, DatasetRow
from tests.api.conftest import CSV, Api

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
VIEWER = "{ viewer { sandbox } }"


async def scrape(api: Api) -> Samples:
    response = await api.http.get("/metrics")
    assert response.status_code == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((f"segmentation_{name}", tuple(sorted(labels.items()))), 0.0)


async def test_operations_that_are_left_to_graphql_core(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await api.query(VIEWER)
    assert of(await scrape(api), "graphql_fallbacks_total") == 0
    monkeypatch.setattr(CompiledExecution, "_is_covered", lambda _self: False)
    await api.query(VIEWER)
    assert of(await scrape(api), "graphql_fallbacks_total") == 1


async def test_objects_that_are_written_one_by_one(api: Api) -> None:
    document = "{ segmentDefinitions { nodes { name } } }"
    await api.loaded()
    await api.define("A")
    await api.define("B")
    before = await scrape(api)
    await api.query(document)
    after = await scrape(api)
    # The query, the connection, and two definitions.
    assert (
        of(after, "graphql_objects_total", way="generated") - of(before, "graphql_objects_total", way="generated") == 4
    )
    assert of(after, "graphql_objects_total", way="one_by_one") == of(before, "graphql_objects_total", way="one_by_one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.api.execution.levels.writer_for", lambda *_arguments: None)
        await api.query(document)
    assert of(await scrape(api), "graphql_objects_total", way="one_by_one") == 4


@pytest.fixture
def services(services: ApiServices) -> ApiServices:
    """Figures are read for each scrape."""
    ticks = iter(range(0, 10_000, 100))
    reader = FigureReader(services.database, services.lake, services.clock, lambda: float(next(ticks)))
    object.__setattr__(services, "figures", reader)
    return services


async def test_operations(api: Api) -> None:
    await api.query(VIEWER)
    await api.answer("{ nothing }")
    samples = await scrape(api)
    assert of(samples, "graphql_operations_total", kind="query", outcome="ok") == 1
    assert of(samples, "graphql_operations_total", kind="query", outcome="error") == 1
    assert of(samples, "graphql_seconds_count", kind="query") == 2
    assert of(samples, "graphql_running", kind="query") == 0
    assert samples["process_resident_memory_bytes", ()] > 10_000_000
    assert ("python_gc_collections_total", (("generation", "0"),)) in samples


async def test_loads_count_batches_and_rows(api: Api) -> None:
    before = await scrape(api)
    dataset = await api.dataset()
    await api.upload(dataset, CSV + b",2026-01-01,1\n")
    await api.upload(dataset, b"nothing,of,it\n1,2,3\n")
    after = await scrape(api)

    def more(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    assert more("batches_loaded_total", outcome="active") == 1
    assert more("batches_loaded_total", outcome="failed") == 1
    assert more("rows_loaded_total", outcome="stored") == 3
    assert more("rows_loaded_total", outcome="rejected") == 1
    assert more("batch_seconds_count") == 2
    assert more("bytes_loaded_total") > 0
    assert of(after, "lake_files") > 0
    assert of(after, "lake_bytes") >= more("bytes_loaded_total")
    assert of(after, "lake_free_bytes") > 0
    assert of(after, "database_up") == 1


async def test_batches_that_wait(database: Database, clock: FixedClock) -> None:
    tenant = Tenant("acme", "prod")
    async with database.write() as session:
        for number in range(2):
            await queue_batch(session, tenant, "d", f"b{number}", 1, clock())
            clock.advance(timedelta(seconds=4))
    values = {"organisation": "acme", "sandbox": "prod", "created_by": "ada", "created_at": clock()}
    row = {"name": "d", "kind": "EVENT", "updated_at": clock(), "row_count": 0, "revision": 1}
    async with database.write() as session:
        await session.execute(insert(table(DatasetRow)), [{**values, **row, "id": "d"}])
        for id_, status, seconds in (("a", "LOADING", 1), ("b", "DELETING", -1), ("c", "ACTIVE", None)):
            until = None if seconds is None else clock() + timedelta(seconds=seconds)
            batch = {"dataset_id": "d", "id": id_, "status": status, "lease_until": until, "bytes": 0, "row_count": 0}
            more = {"rejected_rows": 0, "segment_ids": []}
            await session.execute(insert(table(BatchRow)), [{**values, **batch, **more}])
    async with database.session() as session:
        figures = await read_figures(session, clock())
    assert (figures.streaming, figures.streaming_oldest) == (2, 8.0)
    assert (figures.loading, figures.lost) == (1, 1)


async def test_jobs_wait_and_run(api: Api, services: ApiServices, clock: FixedClock) -> None:
    await api.loaded()
    job = await api.start(await api.define("A"))
    clock.advance(timedelta(seconds=90))
    waiting = "query ($id: ID!) { segmentJob(id: $id) { progress { phase waitingFor } } }"
    progress = (await api.query(waiting, id=job))["segmentJob"]["progress"]
    assert progress == {"phase": "WAITING", "waitingFor": "a worker, and none is running: start `segmentation worker`"}
    ready = await api.http.get("/health/ready")
    warning = "1 job waits for a worker, and none is running: start `segmentation worker`"
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "warning": warning})
    before = await scrape(api)
    assert of(before, "jobs", kind="SEGMENT", status="QUEUED") == 1
    assert of(before, "jobs", kind="EXPORT", status="QUEUED") == 0
    assert of(before, "queue_age_seconds", kind="SEGMENT") == 90
    assert of(before, "workers") == 0

    await note_alive(services.database, "busy", clock(), clock(), timedelta(seconds=15))
    progress = (await api.query(waiting, id=job))["segmentJob"]["progress"]
    assert progress["waitingFor"] == "a free place at the worker"
    await note_alive(services.database, "busy too", clock(), clock(), timedelta(seconds=15))
    progress = (await api.query(waiting, id=job))["segmentJob"]["progress"]
    assert progress["waitingFor"] == "a free place at one of 2 workers"
    assert of(await scrape(api), "workers") == 2


async def test_a_job_that_ends(api: Api, working: None) -> None:
    before = await scrape(api)
    while of(before, "workers") != 1:
        await asyncio.sleep(0)
        before = await scrape(api)
    await api.loaded()
    job = await api.start(await api.define("A"))
    assert (await api.ended(job))["status"] == "SUCCEEDED"
    done = "query ($id: ID!) { segmentJob(id: $id) { progress { phase waitingFor } } }"
    assert (await api.query(done, id=job))["segmentJob"]["progress"] == {"phase": "DONE", "waitingFor": None}
    ended = ("segmentation_jobs_ended_total", (("kind", "SEGMENT"), ("status", "SUCCEEDED")))
    after = await scrape(api)
    while ended not in after:  # The worker counts just after the transaction that showed the job's end.
        await asyncio.sleep(0)
        after = await scrape(api)
    assert after[ended] - before.get(ended, 0.0) == 1
    assert of(after, "bucket_seconds_count") - of(before, "bucket_seconds_count") == 2, "two people, two buckets"
    assert of(after, "jobs", kind="SEGMENT", status="QUEUED") == 0


async def test_connections(api: Api, services: ApiServices) -> None:
    pool = "all" if services.database.dialect == "postgresql" else "read"
    before = await scrape(api)
    assert of(before, "database_connections_limit", pool=pool) == 20
    assert of(before, "database_connections_used", pool=pool) == services.database.pools()[pool].used
    async with services.database.session() as session:
        await session.connection()
        after = await scrape(api)
    key = ("segmentation_database_connections_used", (("pool", pool),))
    assert after[key] - before[key] == 1


async def test_a_database_that_does_not_answer(
    api: Api, services: ApiServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(services.database, "session", away)
    samples = await scrape(api)
    assert samples["segmentation_database_up", ()] == 0.0
    assert ("segmentation_workers", ()) not in samples


async def test_figures_are_not_read_for_each_who_asks(
    database: Database, services: ApiServices, clock: FixedClock
) -> None:
    now = [0.0]
    reader = FigureReader(database, services.lake, clock, lambda: now[0])
    first = await reader.figures()
    now[0] = FRESH_SECONDS - 0.1
    await note_alive(database, "w", clock(), clock(), timedelta(seconds=15))
    assert await reader.figures() is first
    now[0] = FRESH_SECONDS
    assert ((await reader.figures()).workers, first.workers) == (1, 0)


async def test_a_worker_serves_health_and_metrics_only(app: Starlette, services: ApiServices) -> None:
    transport = httpx.ASGITransport(app=Starlette(routes=health_routes(services)))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as http:
        assert (await http.get("/health/ready")).json() == {"ready": True}
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.post("/graphql", json={"query": VIEWER})).status_code == 404


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_engine_that_is_away_is_a_warning(services: ApiServices, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only segment jobs need it: everything else is answered all the same."""
    monkeypatch.setattr("app.engine.run.spark.missing", lambda master: None)
    engine = SparkEngine("spark://127.0.0.1:1", services.lake)
    with_engine = ApiServices(
        services.database, services.lake, services.changes, services.clock, services.uploads, engine=engine
    )
    transport = httpx.ASGITransport(app=Starlette(routes=health_routes(with_engine)))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as http:
        ready = await http.get("/health/ready")
    warning = "segment jobs fail: the Spark master does not answer: start it, or see the address and the network"
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "warning": warning})
