"""A real server in a process of its own, with an empty data folder, and a browser; shared by all end-to-end tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser

from app.api.transport.page import missing_reason
from tests.support.browser import chromium, launched
from tests.support.processes import Command
from tests.support.web import NotInstalled, installed

ROOT = Path(__file__).parents[2]
START_SECONDS = 60
STOP_SECONDS = 20


@dataclass(frozen=True)
class RunningServer:
    """`url` has no path; `data_dir` and `log` are files of this server alone."""

    url: str
    data_dir: Path
    log: Path


@pytest.fixture(autouse=True)
def _as_in_production(real_buckets: None) -> None:
    """Work of many buckets, in whose middle a process can be caught."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """One Chromium for all tests of a process, which are in the loop of the session and open windows of their own.

    Without a browser or pages they are skipped; a failure where SEGMENTATION_TEST_REQUIRE has `browser`.
    """
    reason = "there is no Chromium (Debian: apt-get install chromium)" if chromium() is None else missing_reason()
    if reason:
        required = "browser" in os.environ.get("SEGMENTATION_TEST_REQUIRE", "").split(",")
        (pytest.fail if required else pytest.skip)(reason)
    async with launched() as started:
        yield started


@pytest.fixture(scope="session")
def axe() -> str:
    """The source of axe-core."""
    try:
        return (installed() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    except NotInstalled as reason:
        pytest.skip(f"npm cannot install axe-core here: {str(reason)[-300:]}")


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """`segmentation serve` on SQLite with its worker inside; tests keep apart by using a sandbox each."""
    folder = tmp_path_factory.mktemp("server")
    server = RunningServer(f"http://127.0.0.1:{free_port()}", folder / "data", folder / "server.log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {"SEGMENTATION_DATA_DIR": str(server.data_dir), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "app.cli", "serve", "--host", "127.0.0.1", "--port", server.url.rsplit(":", 1)[1]]
    with server.log.open("wb") as log:
        # Started in the temporary folder, where no `.env` of a developer is read.
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(process, server)
            yield server
            process.send_signal(signal.SIGTERM)
            code = process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
    assert code == 0, f"the server ended with code {code}:\n{server.log.read_text()}"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_ready(
    process: subprocess.Popen[bytes] | Command, server: RunningServer, seconds: float = START_SECONDS
) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"{server.url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"the server was not ready (exit code {process.poll()}):\n{server.log.read_text()}")
