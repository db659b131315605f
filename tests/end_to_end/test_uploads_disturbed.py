"""Servers that are frozen, stopped, killed and left alone in the middle of an upload: what is told is true, and nothing
is half there."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy import select

from app.clock import utc_now
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake
from app.scope import Tenant
from app.services.maintenance.doctor import examine
from app.storage.database import Database
from app.storage.tables.datasets import BatchRow, DatasetRow
from tests.end_to_end.conftest import ROOT, RunningServer, free_port, wait_until_ready
from tests.end_to_end.test_killed import worker_process
from tests.support import processes
from tests.support.client import Gateway
from tests.support.cuttable import CuttableServer
from tests.support.databases import fresh_database

TENANT = Tenant("default", "prod")
ROWS = 150_000
PATIENCE = 60


@pytest.fixture(scope="module")
def large() -> bytes:
    """Some seconds of work."""
    return b"id,at,amount,note\n" + b"".join(
        b"%d,2026-01-%02dT10:00:00Z,%d,note %d\n" % (n % 9_000, n % 28 + 1, n, n) for n in range(ROWS)
    )


@contextmanager
def server_without_worker(database_url: str, folder: Path, code: str = "") -> Iterator[tuple[Any, Gateway]]:
    """A server's process, in which `code` may have changed something first."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {
        "SEGMENTATION_DATA_DIR": str(folder),
        "SEGMENTATION_DATABASE_URL": database_url,
        "SEGMENTATION_LEASE_SECONDS": "1",
        "SEGMENTATION_WORKER": "false",
        "PYTHONPATH": str(ROOT),
    }
    arguments = ["serve", "--port", str(port)]
    log = folder / "server.log"
    with log.open("ab") as out:
        process = processes.start(arguments, folder, environment, stdout=out, stderr=out, first=code)
    try:
        wait_until_ready(process, RunningServer(f"http://127.0.0.1:{port}", folder, log))
        yield process, Gateway(f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.wait()


class Watched:
    """What a database and a lake say of the only dataset."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.lake = database, Lake(folder / "lake")

    async def batches(self) -> list[tuple[str, int]]:
        async with self.database.session() as session:
            rows = await session.scalars(select(BatchRow).order_by(BatchRow.id))
            return [(row.status, row.row_count) for row in rows]

    async def until(self, *states: tuple[str, int]) -> None:
        for _ in range(PATIENCE * 100):
            if await self.batches() == list(states):
                return
            await asyncio.sleep(0.01)
        raise AssertionError(await self.batches())

    async def rows(self) -> tuple[int, int]:
        async with self.database.session() as session:
            dataset = (await session.scalars(select(DatasetRow))).one()
        table = open_table(self.lake.tenant(TENANT).dataset(dataset.id))
        return dataset.row_count, sum(file.rows for file in table.files) if table else 0

    async def doctor(self) -> list[str]:
        return [finding.problem for finding in await examine(self.database, self.lake, utc_now)]


async def sent(gateway: Gateway, dataset: str, content: bytes) -> "asyncio.Task[dict[str, Any]]":
    return asyncio.create_task(asyncio.to_thread(gateway.upload, dataset, "rows.csv", content, "CSV"))


@pytest.fixture
def watched(database: Database, tmp_path: Path) -> Watched:
    return Watched(database, tmp_path)


async def test_frozen_longer_than_its_lease(database_url: str, watched: Watched, tmp_path: Path, large: bytes) -> None:
    with server_without_worker(database_url, tmp_path) as (process, gateway), worker_process(database_url, tmp_path):
        dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
        upload = await sent(gateway, dataset, large)
        await watched.until(("LOADING", 0))
        process.send_signal(signal.SIGSTOP)
        assert (await watched.batches(), await watched.rows()) == ([("LOADING", 0)], (0, 0)), "frozen too late"
        await watched.until(("FAILED", 0))
        process.send_signal(signal.SIGCONT)
        payload = await upload
        (error,) = payload["errors"]
        assert (payload["batch"], error["code"]) == (None, "INVALID_STATE")
        assert "none of its rows is stored" in error["message"]
        assert (await watched.rows(), await watched.doctor()) == ((0, 0), [])
        again = await (await sent(gateway, dataset, large))
        assert (again["errors"], again["batch"]["rowCount"]) == ([], ROWS)
        assert (await watched.rows(), await watched.doctor()) == ((ROWS, ROWS), [])


async def test_sigterm(database_url: str, watched: Watched, tmp_path: Path, large: bytes) -> None:
    with server_without_worker(database_url, tmp_path) as (process, gateway):
        dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
        upload = await sent(gateway, dataset, large)
        await watched.until(("LOADING", 0))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
        (error,) = (await upload)["errors"]
        assert "was stopped, and none of its rows is stored" in error["message"]
    assert (await watched.batches(), await watched.rows()) == ([("FAILED", 0)], (0, 0))
    assert await watched.doctor() == []
    scratch = watched.lake.tenant(TENANT).folder / "scratch"
    assert list(scratch.iterdir()) == list((tmp_path / "uploads").iterdir()) == []


HELD_BEFORE_ITS_COMMIT = """
import time
from app.engine.ingest.stop import Stop
from app.engine.store.bucket_files import BucketWriter
request, move, requested = Stop.request, BucketWriter.move, []
def noted(self):
    request(self)
    requested.append(self)
def held(self, folder, files):
    move(self, folder, files)
    if "datasets" in folder.parts:
        open("moved", "w").close()
    while "datasets" in folder.parts and not requested:
        time.sleep(0.01)
Stop.request, BucketWriter.move = noted, held
"""


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_sigterm_between_files_and_commit(database_url: str, watched: Watched, tmp_path: Path) -> None:
    """The loader is at the worst place, and stays there until it is asked to stop: its files lie in the dataset."""
    with server_without_worker(database_url, tmp_path, HELD_BEFORE_ITS_COMMIT) as (process, gateway):
        dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
        upload = await sent(gateway, dataset, b"id,at\n1,2026-01-01\n2,2026-01-02\n")
        while not (tmp_path / "moved").exists():  # noqa: ASYNC110, another process makes it
            await asyncio.sleep(0.01)
        files = watched.lake.tenant(TENANT).dataset(dataset)
        assert len(list(files.rglob("*.parquet"))) == 2
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
        (error,) = (await upload)["errors"]
        assert "was stopped, and none of its rows is stored" in error["message"]
    assert (await watched.batches(), await watched.rows()) == ([("FAILED", 0)], (0, 0))
    assert await watched.doctor() == []
    assert list(files.rglob("*.parquet")) == list(files.glob("_batches/*")) == []


async def test_a_client_that_goes_away(database_url: str, watched: Watched, tmp_path: Path, large: bytes) -> None:
    with server_without_worker(database_url, tmp_path) as (_, gateway):
        dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
        document = "mutation ($input: UploadBatchInput!) { uploadBatch(input: $input) { errors { message } } }"
        variables = {"input": {"datasetId": dataset, "file": None, "format": "CSV"}}
        operations = json.dumps({"query": document, "variables": variables})
        async with httpx.AsyncClient(timeout=60) as client:
            asking = asyncio.create_task(
                client.post(
                    f"{gateway.url}/graphql",
                    data={"operations": operations, "map": '{"0": ["variables.input.file"]}'},
                    files={"0": ("rows.csv", large)},
                    headers={"graphql-preflight": "1"},
                )
            )
            await watched.until(("LOADING", 0))
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        await watched.until(("FAILED", 0))
        assert (await watched.rows(), await watched.doctor()) == ((0, 0), [])


KILLED = {
    "after its commit": """
import os
import app.services.datasets.batches as module
async def land(*args): os.kill(os.getpid(), 9)
module.land = land
""",
    "before its commit": """
import os
import app.engine.ingest.storing as module
def commit(*args, **options): os.kill(os.getpid(), 9)
module.commit = commit
""",
}


@pytest.mark.parametrize("place", KILLED)
async def test_killed(place: str, database_url: str, watched: Watched, tmp_path: Path) -> None:
    small = b"id,at\n1,2026-01-01\n2,2026-01-02\n"
    with server_without_worker(database_url, tmp_path, KILLED[place]) as (process, gateway):
        dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
        upload = await sent(gateway, dataset, small)
        await asyncio.gather(upload, return_exceptions=True)
        assert await asyncio.to_thread(process.wait, 60) == -signal.SIGKILL
    committed = 2 if place == "after its commit" else 0
    assert (await watched.batches(), await watched.rows()) == ([("LOADING", 0)], (0, committed))
    assert await watched.doctor() == [], "an unfinished commit is known"
    with worker_process(database_url, tmp_path):
        await watched.until(("ACTIVE", 2) if committed else ("FAILED", 0))
    assert (await watched.rows(), await watched.doctor()) == ((committed, committed), [])
    if not committed:
        folder = watched.lake.tenant(TENANT).dataset(dataset)
        assert list(folder.glob("__bucket*/*.parquet")) == list(folder.glob("_batches/*")) == []


WAITS_TO_LAND = """
import asyncio, os
import app.services.datasets.batches as module
import app.services.datasets.uploads as uploads
uploads.CONFIRM_SECONDS = 0.5
land = module.land
async def later(*args):
    open("stored", "w").close()
    while not os.path.exists("go"):
        await asyncio.sleep(0.01)
    await land(*args)
module.land = later
"""


async def test_postgresql_goes_away_before_it_confirms(postgresql_server: str, tmp_path: Path) -> None:
    """The answer names the batch, and the same key finds it once the database is back."""
    there = ExitStack()
    database_url = await asyncio.to_thread(there.enter_context, fresh_database(postgresql_server))
    try:
        async with CuttableServer.open(database_url) as server:
            url = server.url(urlsplit(database_url).path.lstrip("/"))
            with ExitStack() as processes:
                entered = processes.enter_context
                _, gateway = await asyncio.to_thread(entered, server_without_worker(url, tmp_path, WAITS_TO_LAND))
                watched = Watched(Database(database_url), tmp_path)
                dataset = await asyncio.to_thread(gateway.create_dataset, "visits", "EVENT", "id", "at")
                rows = [{"id": "1", "at": "2026-01-01"}, {"id": "2", "at": "2026-01-01"}]
                request = {
                    "query": "mutation ($input: IngestRowsInput!) { ingestRows(input: $input) {"
                    " batch { batchId status rowCount } errors { message } } }",
                    "variables": {"input": {"datasetId": dataset, "rows": rows, "idempotencyKey": "k"}},
                }

                def ask() -> dict[str, Any]:
                    answer: dict[str, Any] = httpx.post(f"{gateway.url}/graphql", json=request, timeout=60).json()
                    return answer

                asking = asyncio.create_task(asyncio.to_thread(ask))
                while not (tmp_path / "stored").exists():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                async with server.away():
                    (tmp_path / "go").touch()
                    (error,) = (await asking)["errors"]
                assert "batchId" in error["extensions"], error
                batch_id = error["extensions"]["batchId"]
                assert error["extensions"]["code"] == "UNAVAILABLE"
                assert f"the rows of batch {batch_id} are stored" in error["message"]
                again = (await asyncio.to_thread(ask))["data"]["ingestRows"]
                assert again == {"batch": {"batchId": batch_id, "status": "ACTIVE", "rowCount": 2}, "errors": []}
                assert (await watched.rows(), await watched.doctor()) == ((2, 2), [])
                await watched.database.dispose()
    finally:
        await asyncio.to_thread(there.close)
