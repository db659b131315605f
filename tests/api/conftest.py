"""Fixtures: the API over a real database and a real lake, called in process or through a real server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from app.api.context import ApiServices, Limits
from app.api.transport.routes import api_routes
from app.api.transport.slow_clients import Patience, http_protocol, websocket_protocol
from app.clock import Clock
from app.engine.store.lake import Lake
from app.storage.database import Database
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources

CSV = b"customer,when,dollars\n00001,2026-01-01T10:00:00Z,12.5\n00002,2026-01-02T10:00:00Z,700\n00001,2026-02-01,600\n"


class Api:
    """Calls the API as one tenant."""

    def __init__(self, http: httpx.AsyncClient, services: ApiServices, sandbox: str | None = None) -> None:
        self.http = http
        self.services = services
        self.headers = {} if sandbox is None else {"x-sandbox-name": sandbox}

    def within(self, sandbox: str) -> "Api":
        return Api(self.http, self.services, sandbox)

    async def answer(self, document: str, **variables: Any) -> dict[str, Any]:
        """The whole answer, errors included."""
        response = await self.http.post(
            "/graphql", json={"query": document, "variables": variables}, headers=self.headers
        )
        found: dict[str, Any] = response.json()
        return found

    async def query(self, document: str, **variables: Any) -> dict[str, Any]:
        answer = await self.answer(document, **variables)
        assert "errors" not in answer, answer
        data: dict[str, Any] = answer["data"]
        return data

    async def upload(
        self,
        dataset_id: str,
        content: bytes,
        format: str = "CSV",
        headers: dict[str, str] | None = None,
        **more: Any,
    ) -> httpx.Response:
        document = """mutation ($input: UploadBatchInput!) { uploadBatch(input: $input) {
          batch { id batchId status rowCount rejectedRows bytes } rejected { row message }
          warnings dryRun { rowCount rejectedRows duplicateRows fields { path type } newFields }
          errors { __typename code message path } } }"""
        variables = {"input": {"datasetId": dataset_id, "file": None, "format": format, **more}}
        return await self.http.post(
            "/graphql",
            data={
                "operations": json.dumps({"query": document, "variables": variables}),
                "map": json.dumps({"0": ["variables.input.file"]}),
            },
            files={"0": ("file", content)},
            headers={**self.headers, **({"graphql-preflight": "1"} if headers is None else headers)},
        )

    async def dataset(self, name: str = "purchases", kind: str = "EVENT") -> str:
        payload = (
            await self.query(
                """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
                  dataset { datasetId } errors { message } } }""",
                input={
                    "name": name,
                    "kind": kind,
                    "primaryIdentity": {"column": "customer", "namespace": "crm"},
                    **({"timestampColumn": "when"} if kind == "EVENT" else {}),
                },
            )
        )["createDataset"]
        assert payload["errors"] == []
        id_: str = payload["dataset"]["datasetId"]
        return id_

    async def loaded(self) -> str:
        """A dataset with three purchases of two people."""
        dataset = await self.dataset()
        batch = (await self.upload(dataset, CSV)).json()["data"]["uploadBatch"]
        assert batch["errors"] == []
        return dataset

    async def define(self, name: str, expression: str = "xEvent.sum(dollars) > 500") -> str:
        payload = (
            await self.query(
                """mutation ($input: CreateSegmentDefinitionInput!) { createSegmentDefinition(input: $input) {
                  definition { segmentId } errors { message } } }""",
                input={"name": name, "expression": expression},
            )
        )["createSegmentDefinition"]
        assert payload["errors"] == []
        id_: str = payload["definition"]["segmentId"]
        return id_

    async def start(self, *definitions: str) -> str:
        payload = (
            await self.query(
                """mutation ($input: CreateSegmentJobInput!) { createSegmentJob(input: $input) {
                  job { jobId } errors { message } } }""",
                input={"definitionIds": definitions} if definitions else {"allDefinitions": True},
            )
        )["createSegmentJob"]
        assert payload["errors"] == []
        id_: str = payload["job"]["jobId"]
        return id_

    async def preview(self, expression: str, **more: Any) -> str:
        payload = (
            await self.query(
                """mutation ($input: CreatePreviewInput!) { createPreview(input: $input) {
                  preview { previewId } errors { message } } }""",
                input={"expression": expression, **more},
            )
        )["createPreview"]
        assert payload["errors"] == []
        id_: str = payload["preview"]["previewId"]
        return id_

    async def export_dataset(self, name: str = "exports") -> str:
        document = """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
          dataset { datasetId } errors { message } } }"""
        payload = (await self.query(document, input={"name": name, "kind": "EXPORT"}))["createDataset"]
        assert payload["errors"] == []
        id_: str = payload["dataset"]["datasetId"]
        return id_

    async def export(self, dataset: str) -> str:
        """An export of everybody to the dataset."""
        document = """mutation ($input: CreateExportJobInput!) { createExportJob(input: $input) {
          job { jobId } errors { message } } }"""
        asked = {"destination": {"datasetId": dataset}, "schemaName": "_xdm.context.profile"}
        payload = (await self.query(document, input=asked))["createExportJob"]
        assert payload["errors"] == []
        id_: str = payload["job"]["jobId"]
        return id_

    async def ended(self, job: str) -> dict[str, Any]:
        """The job when nothing more happens to it; needs the `working` fixture."""
        while True:
            found: dict[str, Any] = (
                await self.query("query ($id: ID!) { segmentJob(id: $id) { status errors { code message } } }", id=job)
            )["segmentJob"]
            if found["status"] in {"SUCCEEDED", "FAILED", "CANCELLED"}:
                return found
            await asyncio.sleep(0.02)


@pytest.fixture
def limits() -> Limits:
    return Limits()


@pytest.fixture
def services(database: Database, changes: Changes, clock: Clock, tmp_path: Path, limits: Limits) -> ApiServices:
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    return ApiServices(database, Lake(tmp_path / "lake"), changes, clock, uploads, limits)


@pytest.fixture
def app(services: ApiServices) -> Starlette:
    return Starlette(routes=api_routes(services))


@pytest.fixture
async def api(app: Starlette, services: ApiServices) -> AsyncIterator[Api]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        yield Api(http, services)


@pytest.fixture
async def working(services: ApiServices) -> AsyncIterator[None]:
    """A worker beside the test."""
    async with worker_of(services):
        yield


@asynccontextmanager
async def worker_of(services: ApiServices) -> AsyncIterator[None]:
    """A worker while it is open."""
    stop = asyncio.Event()
    worker = Worker(
        Resources(services.database, services.changes, services.lake, services.clock),
        WorkerOptions(concurrency=1, threads=1),
    )
    running = asyncio.create_task(worker.run(stop))
    yield
    stop.set()
    await running


@pytest.fixture
async def port(app: Starlette) -> AsyncIterator[int]:
    """The port of a real server of the app."""
    async with serving(app) as number:
        yield number


@asynccontextmanager
async def serving(app: Any, patience: Patience | None = None) -> AsyncIterator[int]:
    patience = patience or Patience(10.0, 30.0)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            port=0,
            log_level="warning",
            lifespan="off",
            http=http_protocol(patience),
            ws=websocket_protocol(patience),
            timeout_graceful_shutdown=2,
        )
    )
    running = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.01)
        assert not running.done(), running.exception()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await running
