"""`segmentation` as processes of their own, forked from one that has imported the program before.

Each is a process in all that a test may ask of it: it has its own environment, folder and standard streams, takes
signals, and ends as the interpreter ends. Only the imports, seconds of CPU for each start, are paid once for each
worker of pytest. What a start imports, and `serve --workers`, are tested with a new interpreter.
"""

import array
import atexit
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from app.engine.store import layout

ROOT = Path(__file__).parents[2]
_LONGEST_REQUEST = 1 << 17


class Command:
    """A running `segmentation` with the part of `subprocess.Popen` that tests use."""

    def __init__(self, arguments: list[str], replies: socket.socket) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._replies = replies
        self.pid = int(replies.recv(20))

    def poll(self) -> int | None:
        """The exit code, `-N` after signal N; None while it runs."""
        return self._end(0)

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the end at most `timeout` seconds; `subprocess.TimeoutExpired` after them."""
        code = self._end(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def _end(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._replies], [], [], timeout)[0]:
            self.returncode = int(self._replies.recv(20))
            self._replies.close()
        return self.returncode


def start(
    arguments: list[str],
    cwd: Path,
    environment: Mapping[str, str],
    *,
    stdout: IO[bytes] | int,
    stderr: IO[bytes] | int,
    stdin: int | None = None,
    first: str = "",
) -> Command:
    """Starts `segmentation ARGUMENTS…` with exactly this environment; without `stdin` there is nothing to read.

    `first` is Python that changes something in the program before.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nothing = os.open(os.devnull, os.O_RDONLY)
    # It makes its lakes as this process does.
    first = f"from app.engine.store import layout\nlayout.FEWEST_BUCKET_BITS = {layout.FEWEST_BUCKET_BITS}\n{first}"
    asked = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment), "first": first}
    request = json.dumps(asked).encode()
    try:
        streams = [nothing if stdin is None else stdin, *(_descriptor(stream) for stream in (stdout, stderr))]
        socket.send_fds(_forker(), [request], [theirs.fileno(), *streams])
    finally:
        os.close(nothing)
        theirs.close()
    return Command(arguments, ours)


def run(
    *arguments: str, cwd: Path, environment: Mapping[str, str], input: str | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `segmentation ARGUMENTS…` printed and its exit code; `input` comes through a pipe."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        reading, writing = os.pipe()
        try:
            command = start(list(arguments), cwd, environment, stdout=stdout, stderr=stderr, stdin=reading)
        finally:
            os.close(reading)
        # A command may end before it has read everything.
        with suppress(BrokenPipeError), open(writing, "wb") as pipe:
            pipe.write((input or "").encode())
        try:
            code = command.wait(timeout)
        except subprocess.TimeoutExpired:
            command.kill()
            raise
        for stream in (stdout, stderr):
            stream.seek(0)
        return subprocess.CompletedProcess(command.args, code, stdout.read().decode(), stderr.read().decode())


def _descriptor(stream: IO[bytes] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


@functools.cache
def _forker() -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SEGMENTATION_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.processes", str(theirs.fileno())],
        cwd=ROOT, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    theirs.close()

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


# ---------------------------------------------------------------- in the process that forks


def _serve(requests: socket.socket) -> list[str]:
    """Forks for each request, and ends with the test run; returns in each fork, with its arguments."""
    _import_all()
    gc.freeze()  # A collection in a fork would copy every page that holds an object.
    children: set[int] = set()
    while True:
        request, ancillary, _, _ = requests.recvmsg(_LONGEST_REQUEST, socket.CMSG_SPACE(4 * array.array("i").itemsize))
        # Waited for, so that what they took counts as what pytest took.
        children = {pid for pid in children if os.waitpid(pid, os.WNOHANG)[0] == 0}
        if not request:
            sys.exit(0)
        descriptors = array.array("i", ancillary[0][2])
        child = os.fork()
        if child == 0:
            requests.close()
            return _fork(json.loads(request), *descriptors)
        children.add(child)
        for descriptor in descriptors:
            os.close(descriptor)


def _fork(request: dict[str, object], replies: int, *streams: int) -> list[str]:
    """Forks once more: the first fork tells how the second, which returns the arguments, ends."""
    pid = os.fork()
    if pid:
        with socket.socket(fileno=replies) as answer:
            for stream in streams:
                os.close(stream)
            answer.send(str(pid).encode())
            answer.send(str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
        os._exit(0)
    os.close(replies)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(str(request["cwd"]))
    exec(str(request["first"]), {})
    return arguments


def _import_all() -> None:
    """Also what commands import when they need it."""
    import app

    for module in pkgutil.walk_packages(app.__path__, "app."):
        if not module.name.startswith(("app.web", "app.storage.migrations")) and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("alembic.command", "uvloop", "uvicorn.protocols.http.httptools_impl"):
        importlib.import_module(name)


if __name__ == "__main__":
    sys.argv = ["segmentation", *_serve(socket.socket(fileno=int(sys.argv[1])))]
    from app.cli import main

    main()
