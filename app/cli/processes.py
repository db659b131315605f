"""`serve --workers N`: several processes behind one address, and the supervisor that starts and stops them."""

import asyncio
import multiprocessing
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING

from app.cli.terminal import console, failures_said, observe, run

if TYPE_CHECKING:
    from app.settings import Settings

RESTART_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Delays before a dead process is restarted: after the first death, and after each further death soon after a start.
After the last one it is not restarted."""

STEADY_SECONDS = 60.0
"""A process that ran this long did not fail at startup; its next death counts as a first one."""

TICK_SECONDS = 1.0

KILL_SECONDS = 15.0
"""How long a process may take to stop, in addition to its grace period for requests."""

_SPAWN = multiprocessing.get_context("spawn")

Task = Callable[["Settings", socket.socket, Connection], None]


def supervise(settings: "Settings", listener: socket.socket) -> None:
    """Serves in `server_processes` processes and runs jobs in one more, until SIGTERM or Ctrl+C.

    All server processes accept from one listener, so that a busy or frozen one takes no connections. A process that
    dies is restarted, after increasing delays. If one cannot start at all, or its successors all die soon after
    starting, the command exits with its exit code.
    """
    serving = settings.model_copy(update={"worker": False})
    places = [_Place(_serve, serving, listener) for _ in range(settings.server_processes)]
    if settings.worker:
        places.append(_Place(_work, settings, listener))
    with tempfile.TemporaryDirectory(prefix="segmentation-metrics-") as folder, _woken_by_signals() as signals:
        # The metrics library of each process reads this and shares its counters with the others through files.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        exit_code = _keep(places, signals)
        _stop(places, signals, settings.drain_seconds + settings.shutdown_seconds + KILL_SECONDS)
    raise SystemExit(exit_code)


@dataclass(slots=True)
class _Place:
    """A slot for a process: what it runs, and its current process."""

    task: Task
    settings: "Settings"
    listener: socket.socket
    process: SpawnProcess | None = None
    news: Connection | None = None
    """Readable once the process has opened the database and the lake."""
    was_open: bool = False
    """Whether a process of this slot has ever been open: then later ones may fail and are restarted."""
    started_at: float = 0.0
    restart_at: float = 0.0
    early_deaths: int = 0
    """Consecutive deaths, each soon after a start."""

    def start(self) -> None:
        self.started_at = time.monotonic()
        self.news, opened = _SPAWN.Pipe(duplex=False)
        # A daemon: the child is terminated whenever Python can still run its exit handlers in this process.
        self.process = _SPAWN.Process(target=self.task, args=(self.settings, self.listener, opened), daemon=True)
        self.process.start()
        opened.close()

    def bury(self) -> float | None:
        """Removes the ended process and its live gauges from the metrics.

        Returns the delay before the next start in seconds; None if too many processes died early.
        """
        from prometheus_client.multiprocess import mark_process_dead

        if self.process is not None:
            mark_process_dead(self.process.pid)  # type: ignore[no-untyped-call]
        now = time.monotonic()
        self.early_deaths = 0 if now - self.started_at >= STEADY_SECONDS else self.early_deaths + 1
        if self.early_deaths > len(RESTART_SECONDS):
            return None
        seconds = RESTART_SECONDS[max(self.early_deaths - 1, 0)]
        self.process, self.restart_at = None, now + seconds
        return seconds


def _keep(places: list[_Place], signals: socket.socket) -> int:
    """Starts the processes, and restarts dead ones, until a signal arrives. Returns 0, or the exit code of a process
    that could not be started."""
    while True:
        for place in places:
            if place.process is None and place.restart_at <= time.monotonic():
                place.start()
        if signals in _await_ends(places, signals, TICK_SECONDS):
            signals.recv(1)
            return 0
        for place in places:
            process = place.process
            if process is None or process.is_alive():
                continue
            place.was_open |= _said(place.news)
            if not place.was_open:
                return _exit_code(process)
            what = f"segmentation: process {process.pid} ended ({process.exitcode})"
            seconds = place.bury()
            if seconds is None:
                console.print(
                    f"{what}, as did the {len(RESTART_SECONDS)} before it, each within {STEADY_SECONDS:.0f} s of its "
                    "start: the server gives up; the log above says why they ended",
                    soft_wrap=True,
                )
                return _exit_code(process)
            console.print(f"{what} and is started again in {seconds:.0f} s")


def _exit_code(process: SpawnProcess) -> int:
    """The exit code as a shell reports it; never 0, since the process should not have ended."""
    code = process.exitcode or 1
    return code if code > 0 else 128 - code


def _said(news: Connection | None) -> bool:
    try:
        return news is not None and news.poll() and bool(news.recv())
    except EOFError:
        return False


def _stop(places: list[_Place], signals: socket.socket, patience: float) -> None:
    """Ends all processes: asks them to stop, again at each further signal, and kills those left after `patience`
    seconds."""
    deadline = time.monotonic() + patience
    _ask(places)
    while any(place.process is not None and place.process.is_alive() for place in places):
        if signals in _await_ends(places, signals, max(deadline - time.monotonic(), 0.0)):
            signals.recv(1)
            _ask(places)
        if time.monotonic() >= deadline:
            for place in places:
                if place.process is not None and place.process.is_alive():
                    console.print(f"segmentation: process {place.process.pid} did not stop and is killed")
                    place.process.kill()
            deadline += KILL_SECONDS


def _await_ends(places: list[_Place], signals: socket.socket, seconds: float) -> list[object]:
    running = [place.process.sentinel for place in places if place.process is not None and place.process.is_alive()]
    return list(wait([*running, signals], seconds))


def _ask(places: list[_Place]) -> None:
    for place in places:
        if place.process is not None and place.process.is_alive():
            place.process.terminate()


@contextmanager
def _woken_by_signals() -> Iterator[socket.socket]:
    """A socket that becomes readable for each SIGTERM or Ctrl+C, since a signal handler cannot interrupt a wait."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    with receiver, sender:
        before = signal.set_wakeup_fd(sender.fileno())
        handlers = {number: signal.signal(number, _leave_to_wakeup) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield receiver
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _leave_to_wakeup(_number: int, _frame: object) -> None:
    """Does nothing: the signal's number has already been written to the socket."""


def _serve(settings: "Settings", listener: socket.socket, opened: Connection) -> None:
    from app.cli.serving import serve_on

    _settle_in(settings, "segmentation-server")
    with failures_said():
        run(serve_on(listener, settings, partial(_report_open, opened)))


def _work(settings: "Settings", listener: socket.socket, opened: Connection) -> None:
    from app.cli.serving import work

    listener.close()
    _settle_in(settings, "segmentation-worker")
    with failures_said():
        run(work(settings, started=partial(_report_open, opened)))


def _settle_in(settings: "Settings", service: str) -> None:
    # Ctrl+C reaches every process of the terminal; only the parent handles it, as one request to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    observe(settings, service)


def _report_open(opened: Connection, stop: Callable[[], None]) -> None:
    """Reports to the parent that this process is open, and stops it on SIGTERM or when the parent dies."""
    with suppress(BrokenPipeError):
        opened.send(True)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def orphaned() -> None:
            loop.remove_reader(sentinel)
            stop()

        loop.add_reader(sentinel, orphaned)
