"""One line for each request, each mutation and each job, and the spans of their traces."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.applications import Starlette

from app import traces
from app.api.context import ApiServices
from app.api.transport.guard import GuardRules, guards
from app.api.transport.routes import api_routes
from app.engine.store.lake import Lake
from app.logs import _fields, _with_context
from app.storage.database import Database
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.api.conftest import Api
from tests.api.test_socket_limits import begun, connected, subscribe

VIEWER = "query Who { viewer { sandbox } }"


@pytest.fixture
def app(services: ApiServices) -> Starlette:
    return Starlette(routes=api_routes(services), middleware=guards(GuardRules()))


class Lines(logging.Handler):
    """What was logged, as fields."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.addFilter(_with_context)
        self.lines: list[dict[str, Any]] = []
        self.levels: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append({"message": record.getMessage(), **_fields(record)})
        self.levels.append(record.levelname)

    def take(self, message: str) -> list[dict[str, Any]]:
        """The lines with this message, without their durations, which are above zero."""
        taken = [dict(line) for line in self.lines if line["message"] == message]
        for line in taken:
            assert line.pop("duration_ms") > 0
            del line["message"]
        return taken


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, loggers = Lines(), [logging.getLogger(name) for name in ("segmentation", "app")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield handler
    for logger, level in zip(loggers, levels, strict=True):
        logger.removeHandler(handler)
        logger.setLevel(level)


async def test_a_line_for_each_request(api: Api, lines: Lines) -> None:
    headers = {"x-request-id": "r-1", "x-sandbox-name": "dev"}
    await api.http.post("/graphql?token=secret", json={"query": VIEWER}, headers=headers)
    await api.http.post("/graphql", json={"query": "{ nothing }"}, headers={"x-request-id": "r-2"})
    await api.http.post("/graphql", content=b"{", headers={"content-type": "application/json", "x-request-id": "r-3"})
    await api.http.get("/nowhere")
    await api.http.get("/health/live")
    tenant = {"organisation": "default", "sandbox": "prod"}
    post = {"method": "POST", "path": "/graphql"}
    named = {"request_id": "r-1", "organisation": "default", "sandbox": "dev", "operation": "Who", "kind": "query"}
    assert lines.take("request") == [
        {**post, "status": 200, **named, "outcome": "ok"},
        {**post, "status": 200, "request_id": "r-2", **tenant, "kind": "query", "outcome": "ERROR"},
        {**post, "status": 400, "request_id": "r-3", "outcome": "BAD_REQUEST"},
        {"method": "GET", "path": "/nowhere", "status": 404},
        {"method": "GET", "path": "/health/live", "status": 200},
    ]
    assert lines.levels[-1] == "DEBUG"
    assert "secret" not in str(lines.lines)


async def test_a_line_for_each_mutation(api: Api, lines: Lines) -> None:
    one = """createFolder(input: {name: "Ada's", namespace: "AUDIENCE"}) { errors { message } }"""
    two = f"mutation {{ one: {one} two: {one} }}"
    await api.http.post("/graphql", json={"query": two}, headers={"x-request-id": "r-1"})
    first, second = lines.take("action")
    common = {"action": "createFolder", "request_id": "r-1", "organisation": "default", "sandbox": "prod"}
    assert len(first.pop("resource_id")) == 36
    assert (first, second) == ({**common, "outcome": "OK"}, {**common, "outcome": "ALREADY_EXISTS"})
    assert [line["kind"] for line in lines.take("request")] == ["mutation"]
    assert "Ada" not in str(lines.lines), "what a mutation writes is not logged"


async def test_operations_of_a_socket_leave_lines_of_their_own(port: int, lines: Lines) -> None:
    async with connected(port) as socket:
        await begun(socket)
        await socket.send(json.dumps(subscribe("1", query=VIEWER)))
        await socket.recv()
        await socket.recv()
    (line,) = lines.take("operation")
    assert len(line.pop("request_id")) == 32
    assert line == {
        "operation": "Who", "kind": "query", "outcome": "ok", "organisation": "default", "sandbox": "prod",
    }  # fmt: skip


# ---------------------------------------------------------------- traces


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    memory = InMemorySpanExporter()
    traces.configure("test", memory)
    yield memory
    traces.switch_off()


@pytest.fixture
async def traced(
    exporter: InMemorySpanExporter, database_url: str, tmp_path: Any, clock: Any
) -> AsyncIterator[tuple[Api, ApiServices]]:
    """The API over a database that was opened with traces on."""
    database = Database(database_url)
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    async with Changes.open(database) as changes:
        services = ApiServices(database, Lake(tmp_path / "lake"), changes, clock, uploads)
        app = Starlette(routes=api_routes(services), middleware=guards(GuardRules()))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://gateway") as http:
            yield Api(http, services), services
    await database.dispose()


async def test_a_trace_from_the_request_to_the_bucket(
    traced: tuple[Api, ApiServices], exporter: InMemorySpanExporter, lines: Lines
) -> None:
    api, services = traced
    await api.loaded()
    definition = await api.define("A")
    exporter.clear()
    trace, caller = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    api.http.headers["traceparent"] = f"00-{trace}-{caller}-01"
    job = await api.start(definition)

    stop = asyncio.Event()
    options = WorkerOptions(concurrency=1, threads=2)
    worker = Worker(Resources(services.database, services.changes, services.lake, services.clock), options)
    running = asyncio.create_task(worker.run(stop))
    api.http.headers.pop("traceparent")
    assert (await api.ended(job))["status"] == "SUCCEEDED"
    stop.set()
    await running

    spans = [span for span in exporter.get_finished_spans() if f"{span.context.trace_id:032x}" == trace]
    by_id = {span.context.span_id: span for span in spans}

    def path(span: ReadableSpan) -> list[str]:
        names = [span.name]
        while span.parent is not None and (above := by_id.get(span.parent.span_id)) is not None:
            names.insert(0, above.name)
            span = above
        return names

    paths = {" > ".join(path(span)) for span in spans}
    request = "HTTP POST > GraphQL operation"
    assert f"{request} > level" in paths
    assert f"{request} > level > SQL INSERT" in paths
    assert f"{request} > level > job SEGMENT" in paths
    assert f"{request} > level > job SEGMENT > SQL UPDATE" in paths
    assert f"{request} > level > job SEGMENT > bucket" in paths
    (first,) = [span for span in spans if span.name == "HTTP POST"]
    assert first.parent is not None
    assert f"{first.parent.span_id:016x}" == caller
    (attempt,) = [span for span in spans if span.name == "job SEGMENT"]
    assert dict(attempt.attributes or {}) == {"job_id": job, "attempt": 1}
    ended = lines.take("job ended")
    tenant = {"organisation": "default", "sandbox": "prod"}
    assert ended == [{"job_id": job, **tenant, "kind": "SEGMENT", "attempt": 1, "outcome": "SUCCEEDED"}]


def test_without_traces_nothing_is_spanned() -> None:
    assert traces.present() is None
    assert traces.begin("x") is None
    with traces.span("x", parent="y", a=1):
        pass
