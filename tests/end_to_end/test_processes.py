"""`serve --workers 2`: two processes that serve and one that works, their metrics, deaths and ends."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.conftest import RunningServer, free_port, wait_until_ready
from tests.end_to_end.test_killed import ROOT

TYPENAME = {"query": "{ __typename }"}

PATIENCE = 300.0
"""Seconds: four programs start at once, on a machine that may have a core for all tests."""

pytestmark = pytest.mark.timeout(1200)


class Family:
    """A server of several processes, as somebody outside sees it."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = folder / "server.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
        environment |= {"SEGMENTATION_DATA_DIR": str(folder), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "app.cli", "serve", "--workers", "2", *options]
        command += ["--port", self.url.rpartition(":")[2]]
        with self.log.open("wb") as log:
            self.parent = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(self.parent, RunningServer(self.url, folder, self.log), PATIENCE)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        self.parent.kill()
        self.parent.wait()

    def samples(self) -> list[tuple[str, dict[str, str], float]]:
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        return [
            (sample.name, sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        ]

    def pids(self) -> set[int]:
        return {int(labels["pid"]) for name, labels, _ in self.samples() if name == "process_open_fds"}

    def ask(self) -> None:
        with httpx.Client(base_url=self.url, timeout=60) as http:
            assert http.post("/graphql", json=TYPENAME).json()["data"] == {"__typename": "Query"}


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    try:
        yield family
    finally:
        family.end()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_serve_count_together_and_replace_each_other(family: Family) -> None:
    until(lambda: len(family.pids()) == 3)
    pids = family.pids()
    assert ("segmentation_workers", {}, 1.0) in family.samples()

    def asked(number: int) -> bool:
        return ("segmentation_graphql_operations_total", {"kind": "query", "outcome": "ok"}, number) in family.samples()

    for _ in range(20):
        family.ask()
    assert asked(20)

    # Any of the three may be the one that works: whichever dies, there are three again, and nothing that was counted
    # is forgotten.
    victim = min(pids)
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(family.pids() - {victim}) == 3)
    family.ask()
    assert asked(21)
    assert re.search(rf"process {victim} ended \(-9\) and is started again in 1 s", family.log.read_text())

    pids = family.pids()
    family.parent.terminate()
    assert family.parent.wait(PATIENCE) == 0
    assert not any(alive(pid) for pid in pids)


def test_processes_end_when_the_one_above_them_is_killed(tmp_path: Path) -> None:
    family = Family(tmp_path, "--no-worker")
    until(lambda: len(family.pids()) == 2)
    pids = family.pids()
    family.end()
    until(lambda: not any(alive(pid) for pid in pids))
    assert "Traceback" not in family.log.read_text()


def test_what_keeps_a_process_from_starting_ends_the_command(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.touch()
    environment = {**os.environ, "SEGMENTATION_DATA_DIR": str(file), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app.cli", "serve", "--workers", "2", "--no-worker", "--port", "0"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    sentence = f"segmentation: SEGMENTATION_DATA_DIR={file} is a file: name a folder"
    assert sentence in ended.stderr.splitlines()
    assert "Traceback" not in ended.stderr
