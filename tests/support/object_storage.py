"""A server that speaks S3, with objects in memory, which can go away and come back. A pytest plugin."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from urllib.request import Request, urlopen

import pytest

KEY, SECRET, REGION = "tests", "tests-secret", "us-east-1"


class Storage:
    """A running server. `requests` counts by method; `watch` is called with method and path before each is done."""

    def __init__(self, application: "_Application") -> None:
        self._application = application
        self._port = 0
        self._server: Any = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def requests(self) -> dict[str, int]:
        return self._application.requests

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": REGION,
        }

    def watch(self, look: Callable[[str, str], None]) -> None:
        self._application.watchers.append(look)

    def start(self) -> None:
        """At the same port as before, with all objects."""
        from werkzeug.serving import make_server

        self._server = make_server("127.0.0.1", self._port, self._application, threaded=True)
        self._port = self._server.server_port
        Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Application:
    """Moto's, whose conditional writes look first and write then: here one request is done at a time."""

    def __init__(self) -> None:
        # Half of a second of a whole run for those who need it.
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

        self._moto = DomainDispatcherApplication(create_backend_app)
        self._turn = Lock()
        self.requests: dict[str, int] = {}
        self.watchers: list[Callable[[str, str], None]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method, path = str(environ["REQUEST_METHOD"]), str(environ["PATH_INFO"])
        with self._turn:
            for look in self.watchers:
                look(method, path)
            self.requests[method] = self.requests.get(method, 0) + 1
            return list(self._moto(environ, start_response))


@contextmanager
def object_storage() -> Iterator[Storage]:
    """A server in this process, with the bucket `lake`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    storage = Storage(_Application())
    storage.start()
    try:
        with urlopen(Request(f"{storage.endpoint}/lake", method="PUT")):
            yield storage
    finally:
        storage.stop()


@pytest.fixture(scope="session")
def storage() -> Iterator[Storage]:
    """For all tests of a process, each with a prefix of its own."""
    with object_storage() as running:
        yield running


@pytest.fixture
def object_url(storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Where nothing is yet, with the variables by which it is reached."""
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://lake/{tmp_path.parent.name}/{tmp_path.name}"
