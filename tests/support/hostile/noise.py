"""Random bytes at every entrance: connections, HTTP bodies, multipart, WebSocket frames, files, and the four languages.

`python -m tests.support.hostile.noise 1000` sends so many of each kind to a real server; `--seed` chooses others, `--kinds`
only the kinds with one of these words in their names (`--kinds Lucene cron`). Half of them are something valid with a few
bytes changed, which gets further than noise does.
"""

import argparse
import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from tests.support.hostile.server import HANGS_AFTER, Target, target

UPLOAD = """mutation ($input: UploadBatchInput!) { uploadBatch(input: $input) {
  batch { rowCount rejectedRows } rejected { row message } errors { code message } } }"""
CSV = b'customer,when,dollars,note\n1,2026-01-01T10:00:00Z,12.5,"a ""b"", c"\n2,2026-01-02T10:00:00Z,7,x\n' * 5
ROW = {"customer": "1", "when": "2026-01-01T10:00:00Z", "dollars": 1, "items": [{"a": 1}], "m": {"x": None}}
NDJSON = (json.dumps(ROW) + "\n").encode() * 10
REQUEST = json.dumps(
    {"query": "query A($n: Int) { audiences(first: $n) { totalCount } }", "variables": {"n": 3}}
).encode()
MESSAGE = json.dumps({"type": "subscribe", "id": "1", "payload": {"query": "{ __typename }"}}).encode()
LANGUAGES = {
    "PQL": ("query ($t: String!) { pql { check(expression: $t) { __typename } } }",
            b'CHAIN(xEvent, timestamp, [A: WHAT(dollars > 1), B: WHAT(true) WHEN(<= 1 day after A)]) and inSegment("x")'),
    "PQL where": ("query ($t: String!) { profiles(where: $t, first: 2) { totalCount } }",
                  b'xEvent[dollars > 100 and timestamp occurs <= 24 hours before now].count() > 0 or a.b["c"].d in ["e"]'),
    "Lucene": ("query ($t: String!) { search(term: $t, first: 3) { totalCount } }",
               b'name:(gold OR "silver ring"~2)^3 AND NOT labels:[a TO z} +x* -/re(g|e)x/ created:>=2026-01-01'),
    "cron": ("mutation ($t: String!) { createSchedule(input: { name: \"n\", type: BATCH_SEGMENTATION, "
             "cronExpression: $t, allAudiences: true }) { errors { code message } } }", b"0 0/15 6-20 ? * MON-FRI,7L 2026/2"),
}  # fmt: skip


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({name: [value] * 10 for name, value in ROW.items() if name != "m"}), sink)
    return bytes(sink.getvalue())


def changed(random: Random, valid: bytes) -> bytes:
    """The bytes with some changed, cut out, doubled or put in; or nothing but noise."""
    if random.random() < 0.3:
        return random.randbytes(random.choice([0, 1, 2, 7, 100, 4_000]))
    data = bytearray(valid)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        at = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[at : at + 1] = random.randbytes(1)
            case 1:
                del data[at : at + random.choice([1, 3, 30])]
            case 2:
                data[at:at] = random.choice(
                    [b"\0", b"\xff\xfe", b'"', b"\\", b"(" * 50, b"[" * 50, b"9" * 30, b"\xf0\x9f", b"\r\n"]
                )
            case _:
                data[at:at] = data[random.randrange(len(data) + 1) :][:20]
    return bytes(data)


class Noise:
    """Sends noise to one server."""

    def __init__(self, server: Target, seed: int) -> None:
        self._server, self._random = server, Random(seed)
        self._datasets = 0
        self._parquet = parquet()
        host, _, port = server.url.removeprefix("http://").rpartition(":")
        self._address = (host, int(port))

    def kinds(self) -> Iterator[tuple[str, Callable[[], None]]]:
        yield "connections", self._connection
        yield "HTTP bodies", self._body
        yield "multipart bodies", self._multipart
        yield "WebSocket frames", self._frames
        yield "WebSocket messages", self._message
        for name, valid in (("CSV", CSV), ("NDJSON", NDJSON), ("PARQUET", self._parquet)):
            yield f"{name} files", partial(self._file, name, valid)
        for name, (document, text) in LANGUAGES.items():
            yield f"{name} texts", partial(self._text, name, document, text)

    def _connection(self) -> None:
        head = b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: "
        self._raw("a connection", changed(self._random, head + str(len(REQUEST)).encode() + b"\r\n\r\n" + REQUEST))

    def _frames(self) -> None:
        shake = (
            b"GET /graphql HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"sec-websocket-protocol: graphql-transport-ws\r\n\r\n"
        )
        mask = bytes(4)
        init = b'{"type":"connection_init"}'
        frames = (
            b"\x81" + bytes([0x80 | len(init)]) + mask + init + b"\x81" + bytes([0x80 | len(MESSAGE)]) + mask + MESSAGE
        )
        self._raw("frames", shake + changed(self._random, frames))

    def _raw(self, what: str, data: bytes) -> None:
        """Sends bytes, says that there are no more, and reads what comes back."""
        began = time.perf_counter()
        with suppress(ConnectionError), socket.create_connection(self._address, timeout=30) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65_536)
            status = int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") and answer[9:12].isdigit() else 0
            text = answer.decode(errors="replace")
            # A peer that has gone gets no answer: only what is answered counts as slow.
            self._server.judge(f"{what} {data[:200]!r}", status, text, time.perf_counter() - began if status else 0)
            return
        self._server.outcomes["0 cut off"] += 1

    def _body(self) -> None:
        self._send("a body", changed(self._random, REQUEST), {"content-type": "application/json"})

    def _multipart(self) -> None:
        parts = b""
        for name, value in (("operations", json.dumps({"query": UPLOAD, "variables": {"input": {}}})), ("map", "{}")):
            parts += f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        parts += b'--b\r\ncontent-disposition: form-data; name="0"; filename="x"\r\n\r\n' + CSV + b"\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b", "graphql-preflight": "1"}
        self._send("multipart", changed(self._random, parts), headers)

    def _send(self, what: str, body: bytes, headers: dict[str, str]) -> None:
        began = time.perf_counter()
        response = self._server.http.post("/graphql", content=body, headers=headers)
        seconds = time.perf_counter() - began
        self._server.judge(f"{what} {body[:200]!r}", response.status_code, response.text, seconds)

    def _message(self) -> None:
        url = self._server.url.replace("http", "ws", 1) + "/graphql"
        data = changed(self._random, MESSAGE)
        began = time.perf_counter()
        outcome = "0 answered"
        try:
            with connect(url, subprotocols=[Subprotocol("graphql-transport-ws")], close_timeout=5) as socket_:
                socket_.send('{"type":"connection_init"}')
                socket_.recv(30)
                socket_.send(data if self._random.random() < 0.3 else data.decode(errors="replace"))
                socket_.recv(HANGS_AFTER / 5)
        except ConnectionClosed as closed:
            outcome = f"closed {closed.rcvd.code if closed.rcvd else 'without a code'}"
            if closed.rcvd is None or closed.rcvd.code in {1006, 1011}:
                self._server.problems.append(f"{outcome} after the message {data[:200]!r}")
        except (TimeoutError, InvalidHandshake, InvalidMessage):
            outcome = "0 no answer, as to `pong` or `complete`"
        self._server.outcomes[outcome] += 1
        if time.perf_counter() - began > 2 * self._server.hangs_after:
            self._server.problems.append(f"a hang after the message {data[:200]!r}")

    def _file(self, kind: str, valid: bytes) -> None:
        content = changed(self._random, valid)
        self._datasets += 1
        create = """mutation ($input: CreateDatasetInput!) { createDataset(input: $input) {
          dataset { datasetId } errors { message } } }"""
        new = {"name": f"noise {self._datasets}", "kind": "EVENT", "timestampColumn": "when"}
        new["primaryIdentity"] = {"column": "customer", "namespace": "crm"}  # type: ignore[assignment]
        dataset = self._server.post("a dataset", create, {"input": new})["data"]["createDataset"]["dataset"][
            "datasetId"
        ]
        given = {"input": {"datasetId": dataset, "file": None, "format": kind}}
        fields = {"operations": json.dumps({"query": UPLOAD, "variables": given})}
        fields["map"] = json.dumps({"0": ["variables.input.file"]})
        began = time.perf_counter()
        response = self._server.http.post(
            "/graphql", data=fields, files={"0": ("f", content)}, headers={"graphql-preflight": "1"}
        )
        seconds = time.perf_counter() - began
        self._server.judge(f"a {kind} file {content[:300]!r}", response.status_code, response.text, seconds)

    def _text(self, name: str, document: str, valid: bytes) -> None:
        text = changed(self._random, valid).decode(errors="replace")
        self._server.post(f"{name} {text[:200]!r}", document, {"t": text})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="+", default=[""])
    arguments = parser.parse_args()
    with target() as server:
        noise = Noise(server, arguments.seed)
        for name, send in noise.kinds():
            if not any(word in name for word in arguments.kinds):
                continue
            began = time.perf_counter()
            for _ in range(arguments.count):
                send()
            print(f"{arguments.count:,} {name} in {time.perf_counter() - began:.0f} s, problems so far: "
                  f"{len(server.problems)}", flush=True)  # fmt: skip
        return server.end()


if __name__ == "__main__":
    raise SystemExit(main())
