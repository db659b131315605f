"""Requests a second beside graphql-yoga and PostGraphile:
`python -m tests.benchmarks.graphql.compare [seconds] [rounds]`.

All three serve the same rows of one PostgreSQL, each with one process. N and F are those of `hot_path`; "new text"
sends each request with a name of its own, so that nothing kept of the document helps. First the answers are compared.
Then the servers take turns; the best round of each counts. The client runs on the same machine: where there are few
cores, look at the processor's time of a server. Needs the npm registry once (`node/package-lock.json`).
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil

from app.json_values import JsonValue
from app.storage.database import Database
from tests.benchmarks.graphql.hot_path import FLAT, NESTED, TYPENAME, rows
from tests.support.databases import postgresql_url
from tests.support.hostile.server import target
from tests.support.web import NODE, NPM, environment

NODE_SERVERS = Path(__file__).parent / "node"
CONNECTIONS = 16
OURS = "this server"
TABLES = """
CREATE SCHEMA comparison;
CREATE TABLE comparison.audiences AS
  SELECT id, translate(encode(convert_to('Audience:' || id, 'UTF8'), 'base64'), E'\\n', '') AS global_id, audience_id,
    name, description, namespace, created_by, created_at, updated_at FROM audience;
CREATE TABLE comparison.definitions AS
  SELECT d.id, a.name, d.expression FROM definition d JOIN audience a USING (organisation, sandbox, id);
CREATE TABLE comparison.jobs AS SELECT id, status, created_at, fraction FROM segment_job;
CREATE TABLE comparison.evaluations AS SELECT definition_id, job_id, created_at FROM segment_job_definition;
CREATE TABLE comparison.schedules AS SELECT id, name, state FROM schedule;
CREATE TABLE comparison.scheduled AS SELECT schedule_id, audience_id FROM schedule_audience;
ALTER TABLE comparison.audiences ADD PRIMARY KEY (id);
ALTER TABLE comparison.definitions ADD PRIMARY KEY (id), ADD FOREIGN KEY (id) REFERENCES comparison.audiences;
ALTER TABLE comparison.jobs ADD PRIMARY KEY (id);
ALTER TABLE comparison.evaluations ADD PRIMARY KEY (job_id, definition_id);
CREATE INDEX ON comparison.evaluations (definition_id, created_at, job_id);
ALTER TABLE comparison.schedules ADD PRIMARY KEY (id);
ALTER TABLE comparison.scheduled ADD PRIMARY KEY (audience_id, schedule_id);
CREATE FUNCTION comparison.definitions_jobs(d comparison.definitions) RETURNS SETOF comparison.jobs
  LANGUAGE sql STABLE AS
  $$ SELECT j.* FROM comparison.evaluations e JOIN comparison.jobs j ON j.id = e.job_id WHERE e.definition_id = d.id
     ORDER BY e.created_at DESC, e.job_id DESC $$;
CREATE FUNCTION comparison.audiences_schedules(a comparison.audiences) RETURNS SETOF comparison.schedules
  LANGUAGE sql STABLE AS
  $$ SELECT s.* FROM comparison.scheduled l JOIN comparison.schedules s ON s.id = l.schedule_id
     WHERE l.audience_id = a.id ORDER BY s.name, s.id $$;
ANALYZE;
"""
OF_POSTGRAPHILE = {
    "N": """{ audiences: allAudiences(first: 50, orderBy: PRIMARY_KEY_DESC) { nodes {
      name definition: definitionByRowId { name expression jobs(first: 5) { nodes { status createdAt fraction } } }
      schedules(first: 5) { nodes { name state } } } } }""",
    "F": """{ audiences: allAudiences(first: 100, orderBy: PRIMARY_KEY_DESC) { nodes {
      id: globalId audienceId name description namespace createdBy createdAt updatedAt } } }""",
    "typename": TYPENAME,
}
DOCUMENTS = {"N": NESTED, "F": FLAT, "typename": TYPENAME}


@dataclass(frozen=True, slots=True)
class Server:
    name: str
    url: str
    process: psutil.Process
    documents: dict[str, str]


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one round: requests a second, milliseconds of the server's processor for each, and how long they took."""

    rate: float
    cpu: float
    p50: float
    p99: float


async def fill(url: str) -> None:
    database = Database(url)
    await database.migrate()
    for group in rows():
        async with database.write() as session:
            session.add_all(group)
    await database.dispose()
    connection = await asyncpg.connect(url)
    await connection.execute(TABLES)
    await connection.close()


@contextmanager
def node_server(script: str, name: str, database_url: str, documents: dict[str, str]) -> Iterator[Server]:
    command: list[str | Path] = [NODE, NODE_SERVERS / script, database_url]
    with subprocess.Popen(
        command, cwd=NODE_SERVERS, stdout=subprocess.PIPE, text=True, env={**environment(), "NODE_ENV": "production"}
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line.strip().isdigit():
                raise RuntimeError(f"{name} did not start: {line!r}")
            yield Server(name, f"http://127.0.0.1:{line.strip()}", psutil.Process(process.pid), documents)
        finally:
            process.terminate()


def leaves(value: JsonValue) -> Iterator[JsonValue]:
    """The values of an answer in their order: names differ from server to server, as does how times are written."""
    if isinstance(value, dict):
        for each in value.values():
            yield from leaves(each)
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, str) and value[:4].isdigit() and "T" in value:
        yield datetime.fromisoformat(value).timestamp()
    else:
        yield value


def check_answers(servers: list[Server]) -> None:
    """Raises `RuntimeError` unless all give the same."""
    for operation in ("N", "F"):
        answers = {}
        for server in servers:
            response = httpx.post(
                f"{server.url}/graphql", json={"query": server.documents[operation]}, timeout=60
            ).json()
            if "errors" in response:
                raise RuntimeError(f"{server.name}: {response['errors']}")
            answers[server.name] = list(leaves(response["data"]))
        for name, answer in answers.items():
            if answer != answers[OURS]:
                raise RuntimeError(
                    f"{name} answers {operation} otherwise: {answer[:20]} instead of {answers[OURS][:20]}"
                )
        print(f"{operation}: {len(answers[OURS]):,} equal values from each server")


_NAMES = count()


async def client(server: Server, request: Callable[[], JsonValue], until: float) -> list[float]:
    """One connection, until a moment: the seconds that each answer took. Raises `RuntimeError` for a failed one."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    seconds = []
    while (began := time.perf_counter()) < until:
        body = json.dumps(request()).encode()
        head = f"POST /graphql HTTP/1.1\r\nhost: {address.netloc}\r\ncontent-type: application/json\r\n"
        writer.write(f"{head}accept: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        headers = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not headers.startswith(b"http/1.1 200"):
            raise RuntimeError(f"{server.name}: {headers.decode()}")
        answer = await _body(reader, headers)
        if b'"errors":[{' in answer:
            raise RuntimeError(f"{server.name}: {answer[:600].decode()}")
        seconds.append(time.perf_counter() - began)
    writer.close()
    return seconds


async def _body(reader: asyncio.StreamReader, headers: bytes) -> bytes:
    if b"content-length: " in headers:
        return await reader.readexactly(int(headers.partition(b"content-length: ")[2].split(b"\r\n")[0]))
    parts = []
    while size := int(await reader.readline(), 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


def request_of(document: str, new_text: bool) -> Callable[[], JsonValue]:
    return lambda: {"query": f"query Q{next(_NAMES)} {document}" if new_text else document}


async def measure(server: Server, request: Callable[[], JsonValue], seconds: float) -> Figures:
    warm = time.perf_counter() + seconds / 5
    await asyncio.gather(*(client(server, request, warm) for _ in range(CONNECTIONS)))
    before, began = _cpu(server.process), time.perf_counter()
    until = began + seconds
    lists = await asyncio.gather(*(client(server, request, until) for _ in range(CONNECTIONS)))
    passed, times = time.perf_counter() - began, sorted(each for times in lists for each in times)
    cpu = 1000 * (_cpu(server.process) - before) / len(times)
    return Figures(len(times) / passed, cpu, 1000 * times[len(times) // 2], 1000 * times[len(times) * 99 // 100])


def _cpu(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system for each in times))


def install() -> dict[str, str]:
    """Installs what the lock file says, once; the versions by name."""
    lock = NODE_SERVERS / "package-lock.json"
    marker = NODE_SERVERS / "node_modules" / ".package-lock.json"
    if not marker.exists() or marker.stat().st_mtime < lock.stat().st_mtime:
        command: list[str | Path] = [*NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=NODE_SERVERS, check=True, env=environment())
    packages: dict[str, Any] = json.loads(lock.read_text())["packages"]
    return {
        name: packages[f"node_modules/{name}"]["version"] for name in ("postgraphile", "graphql-yoga", "graphql", "pg")
    }


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    versions = install()
    with postgresql_url() as url, ExitStack() as stack:
        asyncio.run(fill(url))
        ours = stack.enter_context(target(server_processes="1", database_url=url))
        servers = [
            stack.enter_context(node_server("postgraphile.mjs", "PostGraphile", url, OF_POSTGRAPHILE)),
            stack.enter_context(node_server("yoga.mjs", "graphql-yoga", url, DOCUMENTS)),
            Server(OURS, ours.url, ours.process, DOCUMENTS),
        ]
        check_answers(servers)
        for operation, new_text in (("N", False), ("F", False), ("typename", False), ("N", True), ("F", True)):
            best: dict[str, Figures] = {}
            for _ in range(rounds):
                for server in servers:
                    request = request_of(server.documents[operation], new_text)
                    figures = asyncio.run(measure(server, request, seconds))
                    best[server.name] = max(figures, best.get(server.name, figures), key=lambda each: each.rate)
            first = best["PostGraphile"]
            for name, figures in best.items():
                print(
                    f"{operation + (', new text' if new_text else ''):12} {name:14} {figures.rate:8.1f} requests/s "
                    f"({figures.rate / first.rate:5.2f}) {figures.cpu:7.2f} ms of CPU ({figures.cpu / first.cpu:5.2f}) "
                    f"p50 {figures.p50:7.1f} ms, p99 {figures.p99:7.1f} ms"
                )
    print("in brackets: times PostGraphile; " + ", ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    main()
