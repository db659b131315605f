"""How long small queries wait beside heavy work: `python -m tests.benchmarks.beside [profiles] [events]`.

Prints the latency of `{ __typename }` (median, p99 and longest, in milliseconds) on a real server that has nothing to
do, while events are uploaded, and while jobs run; in one process, and with `serve --workers 2`, where jobs have a
process of their own.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from app.engine.run.demo_shop import write_shop
from tests.benchmarks.attacks import latencies, report
from tests.support.client import Gateway
from tests.support.hostile.server import Target, target

COUNTRIES = ("DE", "FR", "IT", "ES", "US", "JP", "BR", "IN")
JOBS = 3


def define(gateway: Gateway) -> None:
    for number in range(25):
        country = COUNTRIES[number % len(COUNTRIES)]
        gateway.define(f"country {number}", f'homeAddress.country = "{country}" and loyalty.points > {number * 100}')
        gateway.define(f"buys {number}", f"xEvent[commerce.order.priceTotal > {number * 10}].count() > {number % 4}")


def run_jobs(gateway: Gateway) -> None:
    for _ in range(JOBS):
        job = gateway.start_job()
        while gateway.job(job)["status"] not in {"SUCCEEDED", "FAILED"}:
            time.sleep(0.1)


def beside(server: Target, name: str, work: Callable[[], object]) -> None:
    over, times = threading.Event(), list[float]()
    watcher = threading.Thread(target=lambda: times.extend(latencies(server, over)))
    watcher.start()
    began = time.perf_counter()
    work()
    over.set()
    watcher.join()
    report(name, f"{time.perf_counter() - began:.1f} s", times)


def main() -> None:
    profiles, events = (int(value) for value in (*sys.argv[1:], *("100000", "1000000")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as name:
        people, facts = write_shop(Path(name), profiles, events, datetime.now(UTC))
        for processes in ("1", "2"):
            with target(server_processes=processes) as server:
                gateway = Gateway(server.url)
                gateway.query("{ __typename }")
                print(f"{processes} serving, {profiles:,} profiles, {events:,} events")
                beside(server, "idle", lambda: time.sleep(5))
                records = gateway.create_dataset("people", "PROFILE", "customerId")
                gateway.upload(records, "people", people.read_bytes(), "PARQUET")
                visits = gateway.create_dataset("events", "EVENT", "customerId", "timestamp")
                content = facts.read_bytes()
                beside(server, "an upload", lambda: gateway.upload(visits, "events", content, "PARQUET"))  # noqa: B023
                define(gateway)
                beside(server, f"{JOBS} jobs", lambda: run_jobs(gateway))  # noqa: B023


if __name__ == "__main__":
    main()
