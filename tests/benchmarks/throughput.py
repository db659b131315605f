"""Requests a second of `serve --workers 1` and `2` on PostgreSQL: `python -m tests.benchmarks.throughput [seconds]`.

Prints, for `{ __typename }`, a list of audiences and a mutation, the requests a second of 32 connections that each wait
for their answers, and the processor's time that the server's processes took for one. The clients run on the same
machine: compare the times where there are few cores.
"""

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

import psutil

from tests.support.databases import postgresql_url
from tests.support.hostile.server import Target, target

CONNECTIONS = 32
OPERATIONS = {
    "{ __typename }": "{ __typename }",
    "20 audiences": "{ audiences(first: 20) { nodes { id name } } }",
    "a mutation": 'mutation { createTheFolder: createFolder(input: { name: "%s", namespace: "AEPSegments" }) '
    "{ folder { id } errors { message } } }",
}


def cpu_seconds(server: psutil.Process) -> float:
    """Of the server and all its processes that live."""
    times = [process.cpu_times() for process in (server, *server.children(recursive=True))]
    return float(sum(time.user + time.system for time in times))


async def client(server: Target, document: str, number: int, until: float) -> int:
    """One connection, until a moment: how many answers it got. Each is looked at."""
    host, port = urlsplit(server.url).hostname, urlsplit(server.url).port
    reader, writer = await asyncio.open_connection(host, port)
    answers = 0
    while time.perf_counter() < until:
        text = document % f"{time.time_ns()} {number} {answers}" if "%s" in document else document
        body = json.dumps({"query": text}).encode()
        head = f"POST /graphql HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head_lines = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head_lines.partition(b"content-length: ")[2].split(b"\r\n")[0])
        answer = await reader.readexactly(length)
        if b'"message"' in answer:
            raise RuntimeError(answer.decode())
        answers += 1
    writer.close()
    return answers


async def measure(server: Target, document: str, seconds: float) -> tuple[float, float]:
    """Requests a second, and milliseconds of the processor for each."""
    await asyncio.gather(*(client(server, document, at, time.perf_counter() + 1) for at in range(CONNECTIONS)))
    began, cpu = time.perf_counter(), cpu_seconds(server.process)
    clients = (client(server, document, at, began + seconds) for at in range(CONNECTIONS))
    answers = sum(await asyncio.gather(*clients))
    return answers / (time.perf_counter() - began), 1000 * (cpu_seconds(server.process) - cpu) / answers


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    with postgresql_url() as url:
        for processes in ("1", "2"):
            with target(server_processes=processes, database_url=url) as server:
                for name, document in OPERATIONS.items():
                    rate, cpu = asyncio.run(measure(server, document, seconds))
                    print(f"{processes} serving: {name:15} {rate:8.0f} requests/s {cpu:8.2f} ms of CPU each")


if __name__ == "__main__":
    main()
