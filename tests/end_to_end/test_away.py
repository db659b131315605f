"""PostgreSQL goes away under a server and a worker, and comes back: clear answers meanwhile, and nothing is lost."""

import asyncio
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.end_to_end.test_killed import PURCHASES, worker_process
from tests.end_to_end.test_servers import server_process
from tests.support.client import Gateway
from tests.support.cuttable import CuttableServer
from tests.support.databases import fresh_database

COUNT = "{ segmentJobs { totalCount } }"


def asked(gateway: Gateway) -> tuple[Any, int, int]:
    """What a query, `/health/ready` and `/health/live` answer."""
    answer = httpx.post(f"{gateway.url}/graphql", json={"query": COUNT}, timeout=30).json()
    return answer, *(httpx.get(f"{gateway.url}/health/{name}", timeout=30).status_code for name in ("ready", "live"))


def prepared(gateway: Gateway) -> str:
    dataset = gateway.create_dataset("purchases", "EVENT", "customer_id", "date")
    assert gateway.upload(dataset, PURCHASES.name, PURCHASES.read_bytes(), "CSV")["errors"] == []
    gateway.define("A", "xEvent.sum(dollars) > 500")
    return gateway.start_job()


async def succeeded(gateway: Gateway, job: str) -> bool:
    for _ in range(300):
        found: dict[str, Any] = await asyncio.to_thread(gateway.job, job)
        if found["status"] in {"SUCCEEDED", "FAILED"}:
            return bool(found["status"] == "SUCCEEDED")
        await asyncio.sleep(0.2)
    return False


async def test_a_server_says_so_and_recovers_by_itself(postgresql_server: str, tmp_path: Path) -> None:
    there = ExitStack()
    database_url = await asyncio.to_thread(there.enter_context, fresh_database(postgresql_server))
    try:
        async with CuttableServer.open(database_url) as server:
            url = server.url(urlsplit(database_url).path.lstrip("/"))
            with ExitStack() as processes:
                gateway = await asyncio.to_thread(processes.enter_context, server_process(url, tmp_path))
                job = await asyncio.to_thread(prepared, gateway)
                async with server.away():
                    processes.enter_context(worker_process(url, tmp_path))  # which starts meanwhile
                    answer, ready, live = await asyncio.to_thread(asked, gateway)
                    (error,) = answer["errors"]
                    assert (error["extensions"]["code"], ready, live) == ("UNAVAILABLE", 503, 200)
                    assert error["message"].startswith("the database is unavailable")
                answer, ready, live = await asyncio.to_thread(asked, gateway)
                assert (answer["data"], ready, live) == ({"segmentJobs": {"totalCount": 1}}, 200, 200)
                assert await succeeded(gateway, job)
                later = await asyncio.to_thread(gateway.start_job)
                async with server.away():  # now under a worker that waits or works
                    await asyncio.sleep(1)
                assert await succeeded(gateway, later)
                await asyncio.to_thread(processes.close)
    finally:
        await asyncio.to_thread(there.close)
