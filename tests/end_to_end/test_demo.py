"""The demo as it serves: every view has something to show, and GraphiQL's examples run as they are."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from graphql import OperationDefinitionNode, OperationType, parse

from app.demo import AUDIENCES
from tests.end_to_end.conftest import ROOT, RunningServer, free_port, wait_until_ready
from tests.support.client import Gateway

EXAMPLES = sorted((ROOT / "app" / "web" / "src" / "graphiql" / "examples").glob("*.graphql"))
START_SECONDS = 200
RAN = {"outcome": "STARTED", "job": {"status": "SUCCEEDED"}}

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A small demo, serving."""
    folder = tmp_path_factory.mktemp("demo")
    server = RunningServer(f"http://127.0.0.1:{free_port()}", folder, folder / "demo.log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    port = server.url.rsplit(":", 1)[1]
    command = [sys.executable, "-m", "app.cli", "demo", "--port", port, "--profiles", "1000", "--events", "20000"]
    with server.log.open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_until_ready(process, server, START_SECONDS)
            yield Gateway(server.url)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, server.log.read_text()
        finally:
            process.kill()
            process.wait()


def test_every_view_has_something_to_show(demo: Gateway) -> None:
    data = demo.query("""{
      audiences(first: 50) { nodes { name type metrics { totalProfiles } jobs(first: 10) { totalCount } } }
      schedules { nodes { name type state frequency lastRun { outcome job { status } } } }
      exportJobs { nodes { status destination { name } metrics { totalExportedProfiles } } }
      datasets { nodes { name kind } }
      profiles(first: 1) { nodes { attributes } }
    }""")
    audiences = {each["name"]: each for each in data["audiences"]["nodes"]}
    assert set(audiences) == {*AUDIENCES, "Partner guests"}
    assert all(audiences[name]["jobs"]["totalCount"] == 4 for name in AUDIENCES)
    assert audiences["Partner guests"]["type"] == "EXTERNAL_SEGMENT"
    assert audiences["Partner guests"]["metrics"]["totalProfiles"] == 25
    assert data["schedules"]["nodes"] == [
        {"name": name, "type": type_, "state": "ACTIVE", "frequency": frequency, "lastRun": RAN}
        for name, type_, frequency in [
            ("Mailing list", "EXPORT", "At 06:00 UTC, on Monday"),
            ("Nightly", "BATCH_SEGMENTATION", "At 02:30 UTC, every day"),
        ]
    ]
    winnable = audiences["Winnable"]["metrics"]["totalProfiles"]
    assert data["exportJobs"]["nodes"] == [
        {
            "status": "SUCCEEDED",
            "destination": {"name": "mailing list"},
            "metrics": {"totalExportedProfiles": winnable},
        }
    ]
    assert {each["kind"] for each in data["datasets"]["nodes"]} == {"PROFILE", "EVENT", "AUDIENCE", "EXPORT"}
    person = data["profiles"]["nodes"][0]["attributes"]
    assert person["personalEmail"]["address"].endswith("@example.com")
    assert person["person"]["name"]["firstName"]
    assert person["homeAddress"]["city"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_of_graphiql_runs_as_it_is(demo: Gateway, example: Path) -> None:
    text = example.read_text()
    preview: dict[str, str] = {}
    for definition in parse(text).definitions:
        assert isinstance(definition, OperationDefinitionNode)
        assert definition.name is not None
        body = {"query": text, "operationName": definition.name.value}
        if definition.operation is OperationType.SUBSCRIPTION:
            variables = {"id": preview["previewId"]} if definition.variable_definitions else {}
            assert first_event(demo, body | {"variables": variables}).get("errors") is None
            continue
        answer = httpx.post(f"{demo.url}/graphql", json=body, timeout=60).json()
        assert "errors" not in answer, answer
        # Nothing is rejected, and no list that an example shows is empty.
        assert not [each for each in walk(answer["data"]) if each[0] in {"errors", "error"} and each[1]]
        assert not [each for each in walk(answer["data"]) if each[0] == "nodes" and each[1] == []]
        preview = (answer["data"].get("createPreview") or {}).get("preview") or preview


def first_event(demo: Gateway, body: dict[str, object]) -> dict[str, object]:
    """Of a stream: of all jobs, the first comes only when one changes, so one is started meanwhile."""
    headers = {"accept": "text/event-stream"}
    with httpx.stream("POST", f"{demo.url}/graphql", json=body, headers=headers, timeout=60) as response:
        assert response.status_code == 200
        if body["operationName"] == "WatchJobs":
            demo.start_job()
        for line in response.iter_lines():
            if line.startswith("data:") and len(line) > len("data: "):
                event: dict[str, object] = json.loads(line.removeprefix("data:"))
                return event
    raise AssertionError("the stream ended without an event")


def walk(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from walk(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from walk(inner)
