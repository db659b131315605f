"""Two servers and a worker over one database: what one starts is watched at the other, from where the first stopped."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.conftest import RunningServer, free_port, wait_until_ready
from tests.end_to_end.test_killed import PURCHASES, ROOT, expressions, worker_process
from tests.support import processes
from tests.support.client import Gateway

WATCH = """subscription ($id: ID!, $after: Int) {
  segmentJobUpdated(id: $id, after: $after) { status progress { sequence fraction } } }"""


@contextmanager
def server_process(database_url: str, data_dir: Path) -> Iterator[Gateway]:
    """`segmentation serve --no-worker` on a port of its own."""
    port = free_port()
    server = RunningServer(f"http://127.0.0.1:{port}", data_dir, data_dir / f"server-{port}.log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {"SEGMENTATION_DATABASE_URL": database_url, "SEGMENTATION_DATA_DIR": str(data_dir)}
    environment["PYTHONPATH"] = str(ROOT)
    arguments = ["serve", "--no-worker", "--port", str(port)]
    with server.log.open("wb") as log:
        process = processes.start(arguments, data_dir, environment, stdout=log, stderr=log)
        try:
            wait_until_ready(process, server)
            yield Gateway(server.url, pid=process.pid)
        finally:
            process.terminate()
            process.wait()


@pytest.fixture
def servers(database_url: str, tmp_path: Path) -> Iterator[list[Gateway]]:
    with ExitStack() as stack:
        yield [stack.enter_context(server_process(database_url, tmp_path)) for _ in range(2)]


async def test_a_stream_goes_on_at_another_server(servers: list[Gateway], database_url: str, tmp_path: Path) -> None:
    first, second = servers
    dataset = first.create_dataset("purchases", "EVENT", "customer_id", "date")
    assert second.upload(dataset, PURCHASES.name, PURCHASES.read_bytes(), "CSV")["errors"] == []
    for at, expression in enumerate(expressions()[:-5]):
        first.define(f"{at:03d}", expression)
    job = second.start_job()
    seen: list[Any] = []
    with worker_process(database_url, tmp_path):
        while not seen or seen[-1]["status"] not in {"SUCCEEDED", "FAILED"}:
            # By turns at either server and over either protocol, two states at a time.
            gateway = servers[len(seen) // 2 % 2]
            watching = gateway.by_sse if len(seen) // 4 % 2 else gateway.by_websocket
            stream = watching(WATCH, id=job, after=seen[-1]["progress"]["sequence"] if seen else 0)
            before = len(seen)
            async for item in stream:
                seen.append(item["segmentJobUpdated"])
                if len(seen) == before + 2:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
    assert [state["progress"]["sequence"] for state in seen] == list(range(1, len(seen) + 1))
    assert [state["status"] for state in (seen[0], seen[-1])] == ["QUEUED", "SUCCEEDED"]
    fractions = [state["progress"]["fraction"] for state in seen]
    assert fractions == sorted(fractions)
    assert len(seen) > 4
    again = [item["segmentJobUpdated"] async for item in first.by_sse(WATCH, id=job, after=0)]
    assert again == seen
