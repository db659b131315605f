"""Several servers on one database: what one has answered, each other one finds, also when the first is killed."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.end_to_end.conftest import ROOT, RunningServer, free_port, wait_until_ready
from tests.support import processes
from tests.support.client import Gateway

CREATE = """mutation ($name: String!) { createFolder(input: {name: $name, namespace: "AEPSegments"}) {
  folder { folderId } errors { message } } }"""
RENAME = """mutation ($id: ID!, $name: String!) { updateFolder(input: {id: $id, name: $name}) {
  folder { name } errors { message } } }"""
DELETE = "mutation ($id: ID!) { deleteFolder(input: {id: $id}) { deletedId errors { message } } }"


@contextmanager
def server(database_url: str, data_dir: Path) -> Iterator[tuple[Gateway, processes.Command]]:
    running = RunningServer(f"http://127.0.0.1:{free_port()}", data_dir, data_dir / "server.log")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    environment |= {
        "SEGMENTATION_DATABASE_URL": database_url,
        "SEGMENTATION_DATA_DIR": str(data_dir),
        "PYTHONPATH": str(ROOT),
    }
    port = running.url.rsplit(":", 1)[1]
    arguments = ["serve", "--no-worker", "--host", "127.0.0.1", "--port", port]
    with running.log.open("ab") as log:
        process = processes.start(arguments, data_dir, environment, stdout=log, stderr=log)
        try:
            wait_until_ready(process, running)
            yield Gateway(running.url), process
        finally:
            process.kill()
            process.wait()


def names(gateway: Gateway, term: str) -> list[str]:
    found = gateway.query("query ($term: String!) { search(term: $term) { nodes { name } } }", term=term)
    return [node["name"] for node in found["search"]["nodes"]]


def create(gateway: Gateway, name: str) -> str:
    payload = gateway.query(CREATE, name=name)["createFolder"]
    assert payload["errors"] == []
    id_: str = payload["folder"]["folderId"]
    return id_


def test_what_one_server_answered_the_others_find(database_url: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        first, killed = stack.enter_context(server(database_url, tmp_path))
        second, _ = stack.enter_context(server(database_url, tmp_path))
        assert (names(first, "*"), names(second, "*")) == ([], [])
        kept, gone = create(first, "Blue"), create(second, "Light blue")
        for gateway in (first, second):
            assert names(gateway, "blue") == ["Blue", "Light blue"]
        assert first.query(RENAME, id=kept, name="Grün")["updateFolder"]["folder"] == {"name": "Grün"}
        assert (names(second, "blue"), names(second, "grun")) == (["Light blue"], ["Grün"])
        assert second.query(DELETE, id=gone)["deleteFolder"]["errors"] == []
        assert (names(first, "blue"), names(first, "grun")) == ([], ["Grün"])
        create(first, "Red")
        killed.kill()
        killed.wait()
        assert names(second, "*") == ["Grün", "Red"]
        create(second, "Dark red")
        again, _ = stack.enter_context(server(database_url, tmp_path))
        assert names(again, "red") == ["Red", "Dark red"]
        assert names(again, "*") == ["Grün", "Red", "Dark red"]
