"""A real server to attack, and what must not happen to it; shared by the programs that do so."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

HANGS_AFTER = 5.0
"""Seconds after which an answer counts as a hang."""
TELLTALE = re.compile(r"Traceback|File \"|sqlalchemy|sqlite3|asyncpg|duckdb\.|/site-packages/|\bSELECT .* FROM ", re.I)
"""What an answer never holds: traces, paths and SQL."""


@dataclass(slots=True)
class Target:
    """A running server, and what was found out about it."""

    url: str
    process: psutil.Process
    log: Path
    http: httpx.Client
    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    slowest: float = 0.0
    hangs_after: float = HANGS_AFTER

    def judge(self, what: str, status: int, text: str, seconds: float) -> None:
        """Counts an answer, and notes what is wrong with it."""
        self.slowest = max(self.slowest, seconds)
        code = re.search(r'"code":"(\w+)"', text)
        outcome = code[1] if code else "GraphQL error" if '"errors":[{"message' in text else "OK"
        self.outcomes[f"{status} {outcome}"] += 1
        if status >= 500:
            self.problems.append(f"{status} to {what}: {text[:300]}")
        elif '"INTERNAL"' in text:
            self.problems.append(f"INTERNAL to {what}: {text[:300]}")
        elif seconds > self.hangs_after:
            self.problems.append(f"{seconds:.1f} s for {what}")

    def post(self, what: str, document: str, variables: Any = None) -> Any:
        """Sends an operation, judges the answer, and returns it."""
        began = time.perf_counter()
        response = self.http.post("/graphql", json={"query": document, "variables": variables or {}})
        self.judge(what, response.status_code, response.text, time.perf_counter() - began)
        if TELLTALE.search(response.text) and not TELLTALE.search(json.dumps([document, variables])):
            self.problems.append(f"the answer to {what} tells too much: {response.text[:300]}")
        return response.json()

    def end(self) -> int:
        """Prints the figures; 1 when something is wrong."""
        assert self.http.get("/health/live").status_code == 200, "it is no longer alive"
        traces = self.log.read_text(errors="replace").count("Traceback")
        self.problems += [f"{traces} traces in the log"] if traces else []
        print(f"answers: {dict(self.outcomes.most_common())}; slowest {self.slowest:.2f} s")
        print(f"problems: {len(self.problems)}")
        for problem in self.problems[:40]:
            print(f"  {problem}")
        return 1 if self.problems else 0


@contextmanager
def target(**settings: str) -> Iterator[Target]:
    """A server of its own, with a temporary data folder."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        environment = os.environ | {"SEGMENTATION_DATA_DIR": f"{folder}/data"}
        environment |= {f"SEGMENTATION_{name.upper()}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "app.cli", "serve", "--port", "0"]
        with log.open("wb") as output:
            server = subprocess.Popen(command, env=environment, stderr=output, stdout=output)
        try:
            url = _address(server, log)
            with httpx.Client(base_url=url, timeout=60) as http:
                # It accepts before it has imported everything; what is measured begins when it is ready.
                http.get("/health/ready").raise_for_status()
                yield Target(url, psutil.Process(server.pid), log, http)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(30)


def _address(server: "subprocess.Popen[bytes]", log: Path) -> str:
    while True:
        if found := re.search(r"the API: (http://\S+)/graphql", log.read_text(errors="replace")):
            return found[1]
        if server.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace"))
        time.sleep(0.1)
