"""Two servers on two hosts (two folders for copies) with one PostgreSQL and one lake on object storage."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.end_to_end.conftest import RunningServer, free_port, wait_until_ready
from tests.end_to_end.test_killed import ROOT
from tests.support import processes
from tests.support.client import Gateway
from tests.support.object_storage import Storage

PEOPLE = "".join(
    json.dumps({"id": f"p{n}", "city": "Rome" if n % 3 else "Paris", "age": n % 70}) + "\n" for n in range(300)
)
BUYS = "id,at,dollars\n" + "".join(f"p{n % 310},2026-03-{n % 28 + 1:02}T10:00:00Z,{n % 97}\n" for n in range(3000))
MORE = "id,at,dollars\n" + "".join(f"p{n},2026-04-01T10:00:00Z,500\n" for n in range(0, 320, 5))
RICH, ROMANS = "xEvent.sum(dollars) > 480", 'city = "Rome" and age > 30'

COUNTS = """{ segmentDefinitions(first: 10, orderBy: {field: NAME, direction: ASC}) { nodes { name audience {
  metrics { totalProfiles } members(first: 3) { totalCount nodes { profile { profileId } } } } } } }"""
PREVIEW = """mutation ($expression: String!) { createPreview(input: {expression: $expression}) {
  preview { previewId } errors { message } } }"""
EXPORT = """mutation ($dataset: ID!) { createExportJob(input: {fields: ["city"],
  destination: {datasetId: $dataset}, schemaName: "_xdm.context.profile"}) { job { jobId } errors { message } } }"""
ERASE = """mutation { eraseProfile(input: {identity: {namespace: "customer", id: "p10"}}) {
  job { jobId } errors { message } } }"""


@contextmanager
def host(storage: Storage, database_url: str, folder: Path, prefix: str = "team", first: str = "") -> Iterator[Gateway]:
    """`segmentation serve` of a host, in whose folder is nothing but copies; `first` is run in its process before."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RunningServer(f"http://127.0.0.1:{free_port()}", folder, folder / "server.log")
    with server.log.open("wb") as log:
        arguments = ["serve", "--port", server.url.rpartition(":")[2]]
        environment = variables(storage, database_url, folder, prefix)
        process = processes.start(arguments, folder, environment, stdout=log, stderr=log, first=first)
        try:
            wait_until_ready(process, server)
            yield Gateway(server.url, pid=process.pid)
        finally:
            process.terminate()
            process.wait()


def variables(storage: Storage, database_url: str, folder: Path, prefix: str = "team") -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SEGMENTATION_", "AWS_"))}
    return environment | {
        **storage.environment,
        "SEGMENTATION_DATABASE_URL": database_url,
        "SEGMENTATION_DATA_DIR": f"s3://lake/{prefix}",
        "SEGMENTATION_CACHE_DIR": str(folder / "copies"),
        "PYTHONPATH": str(ROOT),
    }


def ended(ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The job once it has ended."""
    while (job := ask())["status"] not in {"SUCCEEDED", "FAILED", "CANCELLED"}:
        time.sleep(0.1)
    return job


def life(first: Gateway, second: Gateway) -> dict[str, Any]:
    """What users do, each step at the other server than the one before; gives all that can be compared."""
    people = first.create_dataset("people", "PROFILE", "id")
    assert second.upload(people, "people.ndjson", PEOPLE.encode(), "NDJSON")["batch"]["rowCount"] == 300
    buys = second.create_dataset("buys", "EVENT", "id", "at")
    assert first.upload(buys, "buys.csv", BUYS.encode(), "CSV")["batch"]["rowCount"] == 3000
    second.define("rich", RICH)
    first.define("romans", ROMANS)
    seen: dict[str, Any] = {"jobs": []}
    for content in (None, MORE):
        if content is not None:
            seen["more"] = second.upload(buys, "more.csv", content.encode(), "CSV")["batch"]["rowCount"]
        id_ = first.start_job()
        job = ended(lambda id_=id_: second.job(id_))  # type: ignore[misc]
        seen["jobs"].append((job["status"], job["errors"], first.query(COUNTS), second.query(COUNTS)))
    preview = second.query(PREVIEW, expression=RICH)["createPreview"]["preview"]["previewId"]
    document = "query ($id: ID!) { preview(id: $id) { state estimate { estimatedSize } } }"
    while (estimate := first.query(document, id=preview)["preview"])["state"] not in {"RESULT_READY", "FAILED"}:
        time.sleep(0.1)
    seen["preview"] = estimate
    create = (
        'mutation { createDataset(input: {name: "out", kind: EXPORT}) { dataset { datasetId } errors { message } } }'
    )
    target = first.query(create)["createDataset"]["dataset"]["datasetId"]
    export = second.query(EXPORT, dataset=target)["createExportJob"]["job"]["jobId"]
    document = "query ($id: ID!) { exportJob(id: $id) { status errors { message } destination { rowCount } } }"
    seen["export"] = ended(lambda: first.query(document, id=export)["exportJob"])
    erasure = second.query(ERASE)["eraseProfile"]["job"]["jobId"]
    document = "query ($id: ID!) { erasureJob(id: $id) { status verified errors { message } } }"
    seen["erasure"] = ended(lambda: first.query(document, id=erasure)["erasureJob"])
    seen["erased"] = first.query(COUNTS), second.query(COUNTS)
    document = "mutation ($id: ID!) { deleteDataset(input: {id: $id}) { errors { message } } }"
    seen["deleted"] = second.query(document, id=target)
    seen["datasets"] = first.query("{ datasets(first: 9) { nodes { name rowCount } } }")
    return seen


@pytest.mark.timeout(400)  # The same life twice: beside other tests that is much for two cores.
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_hosts_share_a_lake_and_answer_as_one_on_a_disk(
    storage: Storage, database_url: str, tmp_path: Path, running_server: RunningServer
) -> None:
    with ExitStack() as stack:
        hosts = [stack.enter_context(host(storage, database_url, tmp_path / name)) for name in "ab"]
        shared = life(*hosts)
        before, after = (jobs[2:] for jobs in shared["jobs"])
        assert before[0] == before[1], "both hosts show the same"
        assert after[0] == after[1] != before[0], "the second batch counts"
    on_disk = Gateway(running_server.url, "compared-with-object-storage")
    assert shared == life(on_disk, on_disk)
    (tmp_path / "c").mkdir()
    environment = variables(storage, database_url, tmp_path / "c")
    checked = processes.run("doctor", "--checksums", cwd=tmp_path / "c", environment=environment)
    assert (checked.returncode, checked.stdout) == (0, "nothing is wrong\n"), checked.stderr


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_host_is_killed_in_an_upload_and_another_one_takes_it(
    storage: Storage, database_url: str, tmp_path: Path
) -> None:
    impatient = "import app.engine.store.leases as leases; leases.TAKE_OVER_SECONDS = 1.0"
    with (
        host(storage, database_url, tmp_path / "a", "killed") as dying,
        host(storage, database_url, tmp_path / "b", "killed", impatient) as other,
    ):
        buys = dying.create_dataset("buys", "EVENT", "id", "at")
        assert dying.upload(buys, "buys.csv", BUYS.encode(), "CSV")["errors"] == []

        def kill(method: str, path: str) -> None:
            # All of the files are there, and the commit is not.
            if method == "PUT" and path.endswith(f"{buys}/_delta_log/00000000000000000002.json") and dying.pid:
                os.kill(dying.pid, signal.SIGKILL)
                dying.pid = None
                raise ConnectionError("the host is gone")

        storage.watch(kill)
        with pytest.raises(httpx.TransportError):
            dying.upload(buys, "more.csv", MORE.encode(), "CSV")
        assert other.upload(buys, "more.csv", MORE.encode(), "CSV")["batch"]["rowCount"] == 64
        job = other.define("rich", RICH) and other.start_job()
        assert ended(lambda: other.job(job))["errors"] == []
        assert other.query("{ datasets(first: 9) { nodes { rowCount } } }")["datasets"]["nodes"] == [{"rowCount": 3064}]
    (tmp_path / "c").mkdir()
    environment = variables(storage, database_url, tmp_path / "c", "killed")
    checked = processes.run("doctor", "--checksums", cwd=tmp_path / "c", environment=environment)
    assert (checked.returncode, checked.stdout) == (0, "nothing is wrong\n"), checked.stderr


@pytest.mark.timeout(400)
def test_storage_goes_away_for_a_while(storage: Storage, tmp_path: Path) -> None:
    words = "the object storage that SEGMENTATION_DATA_DIR names does not answer"
    with host(storage, f"sqlite:///{tmp_path / 'one.db'}", tmp_path / "a", "away") as server:
        buys = server.create_dataset("buys", "EVENT", "id", "at")
        assert server.upload(buys, "buys.csv", BUYS.encode(), "CSV")["errors"] == []
        storage.stop()
        try:
            with pytest.raises(AssertionError, match=f"{words}.*UNAVAILABLE"):
                server.upload(buys, "more.csv", MORE.encode(), "CSV")
            ready = httpx.get(f"{server.url}/health/ready", timeout=60)
            assert (ready.status_code, words in ready.text) == (503, True)
        finally:
            storage.start()
        while httpx.get(f"{server.url}/health/ready", timeout=60).status_code != 200:
            time.sleep(0.1)
        assert server.upload(buys, "more.csv", MORE.encode(), "CSV")["batch"]["rowCount"] == 64
        assert server.query("{ datasets(first: 9) { nodes { rowCount } } }")["datasets"]["nodes"] == [
            {"rowCount": 3064}
        ]
