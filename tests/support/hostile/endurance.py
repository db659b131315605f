"""Whether a server grows: memory, descriptors and threads over very many requests.

`python -m tests.support.hostile.endurance 100000` sends so many (queries, mutations, refusals, uploads, WebSockets, streams)
to a real server and prints its figures ten times. It fails when the last half has added more than 10 MB or 5 descriptors.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import httpx
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.hostile.noise import CSV, UPLOAD
from tests.support.hostile.server import Target, target

MOST_BYTES = 10 * 1024**2
MOST_DESCRIPTORS = 5
VIEWER = "{ viewer { sandbox } }"
LISTS = "{ audiences(first: 20) { totalCount nodes { name } } segmentJobs { totalCount } datasets { nodes { name } } }"
FOLDER = 'mutation { createFolder(input: { name: "same", namespace: "AEPSegments" }) { errors { code } } }'
CHECK = "query ($e: String!) { pql { check(expression: $e) { __typename } } }"


class Load:
    """Requests of many kinds; `dataset` takes the uploads."""

    def __init__(self, server: Target) -> None:
        self._server, self._post = server, server.post
        create = """mutation { createDataset(input: { name: "load", kind: EVENT, timestampColumn: "when",
          primaryIdentity: { column: "customer", namespace: "crm" } }) { dataset { datasetId } } }"""
        self._dataset = self._post("a dataset", create)["data"]["createDataset"]["dataset"]["datasetId"]

    def send(self, number: int) -> None:
        """One request: mostly small ones, each kind of the others now and then."""
        if number % 2_000 == 7:
            self._upload(number)
        elif number % 500 == 3:
            self._socket()
        elif number % 500 == 4:
            self._stream()
        elif number % 50 == 5:
            self._post("a document", f"{{ a{number}: __typename }}")  # one that was never seen
        elif number % 50 == 6:
            self._post("a mutation", FOLDER)
        elif number % 50 == 8:
            self._post("an expression", CHECK, {"e": f"dollars > {number}"})
        elif number % 10 == 1:
            self._post("lists", LISTS)
        elif number % 10 == 2:
            self._post("a mistake", "{ nothing }")
        else:
            self._post("a viewer", VIEWER)

    def _upload(self, number: int) -> None:
        given = {"input": {"datasetId": self._dataset, "file": None, "format": "CSV", "dryRun": number % 4_000 > 7}}
        fields = {"operations": json.dumps({"query": UPLOAD, "variables": given})}
        fields["map"] = json.dumps({"0": ["variables.input.file"]})
        headers = {"graphql-preflight": "1"}
        answer = self._server.http.post("/graphql", data=fields, files={"0": ("f", CSV)}, headers=headers)
        self._server.judge("an upload", answer.status_code, answer.text, 0)

    def _socket(self) -> None:
        url = self._server.url.replace("http", "ws", 1) + "/graphql"
        with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
            socket.send('{"type":"connection_init"}')
            socket.recv()
            query = {"query": "subscription { jobsUpdated { __typename } }"}
            socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": query}))

    def _stream(self) -> None:
        body = {"query": "subscription { jobsUpdated { __typename } }"}
        with (
            suppress(httpx.ReadTimeout),
            self._server.http.stream(
                "POST", "/graphql", json=body, headers={"accept": "text/event-stream"}, timeout=0.05
            ) as response,
        ):
            for _ in response.iter_lines():
                return


def figures(server: Target) -> tuple[int, int, int]:
    """Bytes of memory that are the process's alone, descriptors, and threads."""
    process = server.process
    return process.memory_full_info().uss, process.num_fds(), process.num_threads()


def run(server: Target, requests: int, report: Callable[[str], None]) -> None:
    load = Load(server)
    began, noted = time.perf_counter(), []
    for number in range(requests):
        load.send(number)
        if (number + 1) % max(1, requests // 10) == 0:
            memory, descriptors, threads = figures(server)
            noted.append((memory, descriptors))
            seconds = time.perf_counter() - began
            report(f"{number + 1:>9,} requests, {seconds:6.0f} s: {memory / 1024**2:6.1f} MB, "
                   f"{descriptors} descriptors, {threads} threads")  # fmt: skip
    (memory, descriptors), (last_memory, last_descriptors) = noted[len(noted) // 2], noted[-1]
    if last_memory - memory > MOST_BYTES:
        server.problems.append(f"memory grew by {(last_memory - memory) / 1024**2:.1f} MB over the last half")
    if last_descriptors - descriptors > MOST_DESCRIPTORS:
        server.problems.append(f"descriptors grew by {last_descriptors - descriptors} over the last half")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=int, nargs="?", default=100_000)
    arguments = parser.parse_args()
    with target() as server:
        run(server, arguments.requests, partial(print, flush=True))
        return server.end()


if __name__ == "__main__":
    raise SystemExit(main())
