"""5,000 people watch one job at one server: how long they take to connect, and how late an update reaches them.

    python tests/benchmarks/subscribers.py [--subscribers 5000] [--updates 10] [--every 5]

A real `segmentation serve --no-worker` on SQLite; the subscribers are server-sent event streams of another process.
Updates come from this process, as from a worker. Prints the time to connect them all, how late updates arrive (50th and
99th of 100 and the latest, from before the commit until the stream has the bytes), whether anybody missed one, and the
server's memory before and with all streams. A process may open as many files as that takes: the limit is raised.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.clock import utc_now
from app.storage.database import Database
from app.storage.job_log import append_update
from app.storage.tables.jobs import JobKind, JobPhase, JobStatus
from app.storage.tables.segment_jobs import SegmentJobRow

ROOT = Path(__file__).parents[2]
DOCUMENT = 'subscription { segmentJobUpdated(id: "%s") { status progress { sequence fraction } } }'
TOGETHER = 200
"""Streams that are being opened at once."""


async def follow(port: int, job: str, ready: Any, arrivals: list[tuple[int, float]], updates: int) -> None:
    """One stream, read without a client library that would cost more than the server."""
    body = json.dumps({"query": DOCUMENT % job}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"accept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    seen = 0
    while seen < updates + 1:
        line = await reader.readline()
        if not line:
            raise ConnectionError("the stream ended")
        if found := re.search(rb'"sequence":(\d+)', line):
            if seen:
                arrivals.append((int(found[1]), time.time()))
            else:
                ready()
            seen += 1
    writer.close()


def follow_all(port: int, job: str, count: int, updates: int, told: Any) -> None:
    """A process with all subscribers: tells when all are connected, and then what arrived when."""

    async def run() -> None:
        arrivals: list[tuple[int, float]] = []
        connected, places = 0, asyncio.Semaphore(TOGETHER)
        all_there = asyncio.Event()

        async def one() -> None:
            nonlocal connected
            await places.acquire()

            def ready() -> None:
                nonlocal connected
                places.release()
                connected += 1
                if connected == count:
                    all_there.set()

            await follow(port, job, ready, arrivals, updates)

        began = time.monotonic()
        tasks = [asyncio.create_task(one()) for _ in range(count)]
        failing = asyncio.create_task(_first_failure(tasks))
        await asyncio.wait({asyncio.create_task(all_there.wait()), failing}, return_when=asyncio.FIRST_COMPLETED)
        told.send(time.monotonic() - began)
        await asyncio.gather(*tasks)
        told.send(arrivals)

    asyncio.run(run())


async def _first_failure(tasks: list[asyncio.Task[None]]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    for task in done:
        task.result()


def memory_of(process: subprocess.Popen[bytes]) -> float:
    """Resident megabytes."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


async def prepare(url: str) -> tuple[Database, SegmentJobRow]:
    database = Database(url)
    await database.migrate()
    now = utc_now()
    row = SegmentJobRow(
        organisation="default", sandbox="prod", id="job", created_by="benchmark", created_at=now, updated_at=now,
        status=JobStatus.PROCESSING, phase=JobPhase.EVALUATING,
    )  # fmt: skip
    async with database.write() as session:
        session.add(row)
        await append_update(session, row, JobKind.SEGMENT)
    return database, row


async def measure(count: int, updates: int, every: float, folder: Path) -> None:
    database, row = await prepare(f"sqlite:///{folder / 'segmentation.db'}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {"SEGMENTATION_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = await asyncio.to_thread(subprocess.Popen, command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            await asyncio.sleep(0.1)
        before = memory_of(server)
        mine, theirs = multiprocessing.Pipe()
        client = multiprocessing.get_context("fork").Process(
            target=follow_all, args=(port, "job", count, updates, theirs), daemon=True
        )
        client.start()
        seconds = await asyncio.to_thread(mine.recv)
        print(f"{count:,} streams connected in {seconds:.1f} s ({count / seconds:,.0f} a second)")
        with_all, sent = memory_of(server), {}
        for number in range(2, updates + 2):
            sent[number] = time.time()
            async with database.write() as session:
                await append_update(session, row, JobKind.SEGMENT)
            await asyncio.sleep(every)
        arrivals = await asyncio.to_thread(mine.recv)
        late = sorted(at - sent[sequence] for sequence, at in arrivals)
        print(
            f"{updates} updates, one in {every:g} s: late by {late[len(late) // 2] * 1000:,.0f} ms (p50), "
            f"{late[len(late) * 99 // 100] * 1000:,.0f} ms (p99), {late[-1] * 1000:,.0f} ms (latest); "
            f"{len(arrivals):,} of {count * updates:,} arrived"
        )
        print(f"server memory: {before:,.0f} MB before, {with_all:,.0f} MB with all, {memory_of(server):,.0f} MB after")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()
        await database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subscribers", type=int, default=5_000)
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--every", type=float, default=5.0, help="Seconds between two updates.")
    chosen = parser.parse_args()
    files = chosen.subscribers + 500
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < files:
        parser.error(f"a process may open {most:,} files here, and {files:,} are needed: raise `ulimit -Hn`")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    with tempfile.TemporaryDirectory(prefix="segmentation-subscribers-") as folder:
        asyncio.run(measure(chosen.subscribers, chosen.updates, chosen.every, Path(folder)))


if __name__ == "__main__":
    main()
