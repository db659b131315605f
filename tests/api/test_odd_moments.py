"""Odd moments of uploads and of the database: each really made, and what is lost by it: nothing."""

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from app.api.context import ApiServices
from app.api.transport.routes import api_routes
from app.clock import Clock
from app.engine.ingest import batch
from app.engine.store.lake import Lake
from app.storage.database import Database
from app.storage.wakeups import Changes
from tests.api.conftest import CSV, Api, serving

BATCHES = "query ($id: ID!) { dataset(id: $id) { rowCount batches { nodes { status rowCount } } } }"


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # nothing tells of a file
        await asyncio.sleep(0)


async def batches(api: Api, dataset: str) -> tuple[int, list[tuple[str, int]]]:
    found = (await api.query(BATCHES, id=dataset))["dataset"]
    return found["rowCount"], [(node["status"], node["rowCount"]) for node in found["batches"]["nodes"]]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_many_queries_over_few_connections_all_answer(database_url: str, clock: Clock, tmp_path: Path) -> None:
    few = Database(database_url, connections=10)
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    names = ("audiences", "segmentJobs", "datasets", "schedules")
    document = f"{{ {' '.join(f'{name} {{ totalCount }}' for name in names)} }}"
    most = 0
    async with Changes.open(few) as changes:
        services = ApiServices(few, Lake(tmp_path / "lake"), changes, clock, uploads)
        async with serving(Starlette(routes=api_routes(services))) as port:
            limits = httpx.Limits(max_connections=60)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60) as http:

                async def ask() -> dict[str, Any]:
                    nonlocal most
                    answer = (await http.post("/graphql", json={"query": document})).json()
                    most = max(most, few.pools()["all"].used)
                    return dict(answer)

                answers = await asyncio.gather(*(ask() for _ in range(60)))
    await few.dispose()
    assert [answer.get("data") for answer in answers] == [{name: {"totalCount": 0} for name in names}] * 60
    assert most <= 10


async def test_an_upload_that_its_client_breaks_off(api: Api, port: int, services: ApiServices) -> None:
    """Half a file never becomes a batch, and nothing of it stays on the disk."""
    dataset = await api.loaded()
    before = await batches(api, dataset)
    operations = {"query": "mutation ($input: UploadBatchInput!) { uploadBatch(input: $input) { errors { message } } }"}
    operations |= {"variables": {"input": {"datasetId": dataset, "file": None, "format": "CSV"}}}  # type: ignore[dict-item]
    parts = [
        ("operations", "", json.dumps(operations)),
        ("map", "", json.dumps({"0": ["variables.input.file"]})),
        ("0", '; filename="file"', CSV.decode() * 1000),
    ]
    body = "".join(
        f'--b\r\ncontent-disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n' for name, more, value in parts
    ).encode()
    head = (
        "POST /graphql HTTP/1.1\r\nhost: localhost\r\ngraphql-preflight: 1\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncontent-length: {len(body) * 2}\r\n\r\n"
    )
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.encode() + body)
    await writer.drain()
    await until(lambda: bool(list(services.uploads.rglob("*"))))
    # A reset, as of a machine that goes away.
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.close()
    await until(lambda: not list(services.uploads.rglob("*")))
    assert await batches(api, dataset) == before


async def test_a_dataset_is_not_deleted_under_an_upload(
    api: Api, services: ApiServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The upload is stopped just before its commit, and goes on when the deletion has been answered."""
    ingest = batch.ingest
    loop, begun, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def held(*arguments: Any) -> Any:
        loop.call_soon_threadsafe(begun.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return ingest(*arguments)

    monkeypatch.setattr("app.services.datasets.uploads.ingest", held)
    dataset = await api.dataset()
    uploading = asyncio.create_task(api.upload(dataset, CSV))
    await begun.wait()
    document = "mutation ($id: ID!) { deleteDataset(input: {id: $id}) { errors { code message } } }"
    (error,) = (await api.query(document, id=dataset))["deleteDataset"]["errors"]
    assert error["code"] == "INVALID_STATE"
    assert error["message"] == "a batch of 'purchases' is LOADING: wait until that is over"
    go_on.set()
    payload = (await uploading).json()["data"]["uploadBatch"]
    assert (payload["errors"], payload["batch"]["rowCount"]) == ([], 3)
    assert await batches(api, dataset) == (3, [("ACTIVE", 3)])
    assert (await api.query(document, id=dataset))["deleteDataset"]["errors"] == []


async def test_rows_that_are_too_long_are_counted_and_named(api: Api) -> None:
    """The rows before and after them are in."""
    dataset = await api.dataset()
    long = b"x" * 17_000_000
    csv = b"customer,when,note\n1,2026-01-01,a\n2,2026-01-02," + long + b"\n3,2026-01-03,c\n"
    answer = (await api.upload(dataset, csv)).json()["data"]["uploadBatch"]
    assert (answer["batch"]["rowCount"], answer["batch"]["rejectedRows"], answer["errors"]) == (2, 1, [])
    assert [(row["row"], "longer than" in row["message"]) for row in answer["rejected"]] == [(2, True)]
    other = await api.dataset("others")
    rows = [{"customer": "1", "when": "2026-01-01"}, {"customer": "2", "when": "2026-01-02", "note": "y" * 34_000_000}]
    rows.append({"customer": "3", "when": "2026-01-03"})
    ndjson = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    answer = (await api.upload(other, ndjson, "NDJSON")).json()["data"]["uploadBatch"]
    assert (answer["batch"]["rowCount"], answer["batch"]["rejectedRows"], answer["errors"]) == (2, 1, [])
    assert [(row["row"], "longer than" in row["message"]) for row in answer["rejected"]] == [(2, True)]


async def test_events_whose_identity_column_is_called_like_their_ids(api: Api) -> None:
    """`_id` names the person here: three events of one person are three."""
    document = """mutation { createDataset(input: {name: "visits", kind: EVENT, timestampColumn: "when",
      primaryIdentity: {column: "_id", namespace: "crm"}}) { dataset { datasetId } errors { message } } }"""
    dataset = (await api.query(document))["createDataset"]["dataset"]["datasetId"]
    csv = b"_id,when,n\nA,2026-01-01,1\nA,2026-01-02,2\nA,2026-01-02,2\nB,2026-01-03,3\n"
    answer = (await api.upload(dataset, csv)).json()["data"]["uploadBatch"]
    assert (answer["batch"]["rowCount"], answer["batch"]["rejectedRows"], answer["errors"]) == (4, 0, [])
    counts = (
        """{ a: profile(id: "crm:A") { events { totalCount } } b: profile(id: "crm:B") { events { totalCount } } }"""
    )
    found = await api.query(counts)
    assert (found["a"]["events"]["totalCount"], found["b"]["events"]["totalCount"]) == (3, 1)
