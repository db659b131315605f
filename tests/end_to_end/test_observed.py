"""What processes tell others: traces to a collector, and a worker's metrics and health on a port of its own."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.end_to_end.test_killed import ROOT
from tests.support import processes
from tests.support.client import Gateway

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PATIENCE = 120.0
Span = tuple[str, str, str]
"""Service, trace and name."""

pytestmark = pytest.mark.timeout(600)


class Collector(ThreadingHTTPServer):
    """Receives OTLP over HTTP, and reads it as collectors do."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receiver)
        self.spans: list[Span] = []
        self.texts: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Receiver(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert (self.path, self.headers["content-type"]) == ("/v1/traces", "application/x-protobuf")
        request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["content-length"])))
        for resource in request.resource_spans:
            attributes = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
            for scope in resource.scope_spans:
                spans = [(attributes["service.name"], span.trace_id.hex(), span.name) for span in scope.spans]
                self.server.spans += spans
        self.server.texts.append(str(request))
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_arguments: object) -> None:
        """Nothing: pytest shows what was received when a test fails."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        serving = threading.Thread(target=collector.serve_forever)
        serving.start()
        yield collector
        collector.shutdown()
        serving.join()


@contextmanager
def running(folder: Path, collector: Collector, *arguments: str) -> Iterator[str]:
    """`segmentation ARGUMENTS…` until SIGTERM, which it must end of by itself; gives the address that it printed."""
    log = folder / f"{arguments[0]}.log"
    environment = {
        "SEGMENTATION_DATA_DIR": str(folder / "data"),
        "SEGMENTATION_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "PYTHONPATH": str(ROOT),
    }
    with log.open("wb") as out:
        process = processes.start(list(arguments), folder, environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + PATIENCE
        while (printed := re.search(r"(http://[\d.:]+)/(?:metrics|graphql)", log.read_text())) is None:
            assert time.monotonic() < deadline, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield printed[1]
        process.terminate()
        assert process.wait(PATIENCE) == 0, log.read_text()
    finally:
        process.kill()
        process.wait()


def test_a_trace_of_two_processes_and_what_a_worker_serves(tmp_path: Path, collector: Collector) -> None:
    with (
        running(tmp_path, collector, "serve", "--no-worker", "--port", "0") as server,
        running(tmp_path, collector, "worker", "--metrics-port", "0") as worker,
    ):
        gateway = Gateway(server)
        people = gateway.create_dataset("people", "PROFILE", "id")
        assert gateway.upload(people, "people.csv", b"id,secret\n1,hush\n", "CSV")["errors"] == []
        definition = gateway.define("all", 'secret = "hush"')
        gateway.headers["traceparent"] = f"00-{TRACE}-{CALLER}-01"
        job = gateway.start_job(definition)
        del gateway.headers["traceparent"]
        deadline = time.monotonic() + PATIENCE
        while (status := gateway.job(job)["status"]) != "SUCCEEDED":
            assert (status in {"QUEUED", "PROCESSING"}, time.monotonic() < deadline) == (True, True), status
            time.sleep(0.05)

        ready = httpx.get(f"{worker}/health/ready")
        assert (ready.status_code, ready.json()) == (200, {"ready": True})
        lines = httpx.get(f"{worker}/metrics").text.splitlines()
        assert "segmentation_workers 1.0" in lines
        assert 'segmentation_jobs_ended_total{kind="SEGMENT",status="SUCCEEDED"} 1.0' in lines
        assert httpx.post(f"{worker}/graphql", json={"query": "{ __typename }"}).status_code == 404
    names = {(service, name) for service, trace, name in collector.spans if trace == TRACE}
    assert {
        ("segmentation-server", "HTTP POST"),
        ("segmentation-server", "GraphQL operation"),
        ("segmentation-server", "level"),
        ("segmentation-server", "SQL INSERT"),
        ("segmentation-worker", "job SEGMENT"),
        ("segmentation-worker", "SQL UPDATE"),
        ("segmentation-worker", "bucket"),
    } <= names
    assert not any("hush" in text for text in collector.texts)
