"""How long others wait while somebody attacks: `python -m tests.benchmarks.attacks`.

Prints, for each attack on a real server, what it got and the latency of `{ __typename }` beside it (median, p99 and
longest, in milliseconds), and the same without an attack before and after.
"""

import json
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx

from tests.support.hostile.server import Target, target

SECONDS = 6.0
INNER = "{ nodes { id name status segments(first: 500) { nodes { definition { audience { jobs(first: 500) { nodes { segments(first: 500) { totalCount } } } } } } } } }"
TYPES = "types { name fields { name args { name type { name } } type { name ofType { name } } } }"
LARGEST = "{ " + " ".join(f"a{number}: __schema {{ {TYPES} }}" for number in range(12)) + " }"


def operation(document: str, **variables: Any) -> Callable[[Target], str]:
    def attack(server: Target) -> str:
        body = {"query": document, "variables": variables}
        response = httpx.post(f"{server.url}/graphql", json=body, timeout=120)
        errors = response.json().get("errors")
        return str(errors[0]["message"])[:90] if errors else f"answered, {len(response.content):,} bytes"

    return attack


def websocket_pings(server: Target) -> str:
    """A socket that pings without reading the pongs."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    sent = 0
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=3) as connection:
        connection.sendall(
            b"GET /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        )
        until = time.perf_counter() + 1
        while time.perf_counter() < until:
            connection.sendall((b"\x89\xfd\0\0\0\0" + b"p" * 125) * 100)
            sent += 100
    return f"{sent:,} pings"


def silent_connections(server: Target) -> str:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connections = [socket.create_connection((host, int(port))) for _ in range(500)]
    for connection in connections:
        connection.sendall(b"POST /graphql HTTP/1.1\r\nx-a: ")
    time.sleep(1)
    for connection in connections:
        connection.close()
    return "500 connections with half a head"


ATTACKS: dict[str, Callable[[Target], str]] = {
    "105 aliased __schema": operation("{ " + " ".join(f"a{n}: __schema {{ {TYPES} }}" for n in range(105)) + " }"),
    "__schema as often as is allowed": operation(LARGEST),
    "jobs > segments > definition > audience > jobs, 500 each": operation(f"{{ segmentJobs(first: 500) {INNER} }}"),
    "audiences > members > profile, 500 each": operation("{ audiences(first: 500) { nodes { members(first: 500) { nodes { profile { attributes } } } } } }"),
    "audiences > members > profile, as much as is allowed": operation("{ audiences(first: 60) { nodes { members(first: 500) { nodes { profile { attributes } } } } } }"),
    "nodes(ids:) with 400,000 ids": operation("query ($i: [ID!]!) { nodes(ids: $i) { id } }", i=["x"] * 400_000),
    "nodes(ids:) with 5,000 ids": operation("query ($i: [ID!]!) { nodes(ids: $i) { id } }", i=["QXVkaWVuY2U6eA=="] * 5_000),
    "5,000 tokens of aliases": operation("{ " + " ".join(f"a{n}: __typename" for n in range(1_600)) + " }"),
    "a text of 1.5 MB": operation("query ($f: AudienceFilter) { audiences(filter: $f) { totalCount } }", f={"name": {"contains": "x" * 1_500_000}}),
    "JSON 10,000 deep": operation("query ($f: AudienceFilter) { audiences(filter: $f) { totalCount } }", f=json.loads("[" * 900 + "]" * 900)),
    "an expression of 100,000 characters": operation("query ($e: String!) { pql { check(expression: $e) { __typename } } }", e="(" * 49_000 + "1" + ")" * 49_000),
    "a pattern of 90,000 characters": operation("query ($e: String!) { pql { check(expression: $e) { __typename } } }", e='a.matches("' + "(a|b)*" * 15_000 + '")'),
    "pings that are not read": websocket_pings,
    "500 half heads": silent_connections,
}  # fmt: skip


def latencies(server: Target, during: threading.Event) -> list[float]:
    times = []
    with httpx.Client(base_url=server.url, timeout=60) as http:
        while not during.is_set():
            began = time.perf_counter()
            http.post("/graphql", json={"query": "{ __typename }"})
            times.append((time.perf_counter() - began) * 1000)
            time.sleep(0.002)
    return times


def beside(server: Target, attack: Callable[[Target], str] | None) -> tuple[str, list[float]]:
    """What an attack that is repeated for some seconds got, and the latencies meanwhile."""
    over, got = threading.Event(), "-"
    times: list[float] = []
    watcher = threading.Thread(target=lambda: times.extend(latencies(server, over)))
    watcher.start()
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        if attack is None:
            time.sleep(0.1)
        else:
            got = attack(server)
    over.set()
    watcher.join()
    return got, times


def report(name: str, got: str, times: list[float]) -> None:
    p99 = statistics.quantiles(times, n=100)[98] if len(times) > 1 else max(times)
    print(
        f"{name:56} p50 {statistics.median(times):7.1f}  p99 {p99:7.1f}  longest {max(times):7.1f} ms   {got}",
        flush=True,
    )


def fill(server: Target) -> None:
    """200 audiences; what attacks count on is the shape of the schema, and the limits stop most before any data."""
    create = 'mutation ($n: String!) { createAudience(input: { name: $n, expression: "true" }) { errors { message } } }'
    for number in range(200):
        server.post("an audience", create, {"n": f"a{number}"})


def main() -> None:
    with target() as server:
        fill(server)
        report("no attack", *beside(server, None))
        for name, attack in ATTACKS.items():
            report(name, *beside(server, attack))
        report("no attack", *beside(server, None))
        memory = server.process.memory_full_info().uss / 1024**2
        print(f"memory at the end {memory:.0f} MB, descriptors {server.process.num_fds()}")


if __name__ == "__main__":
    main()
