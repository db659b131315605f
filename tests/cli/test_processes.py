"""How `serve --workers` treats processes that die; its processes themselves are in `tests/end_to_end`."""

import os
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from app.cli import main, processes
from app.cli.processes import _Place, supervise
from app.settings import Settings


def is_killed(_settings: Settings, _listener: socket.socket, opened: Connection) -> None:
    """What a process does that opens and dies."""
    opened.send(True)
    os.kill(os.getpid(), signal.SIGKILL)


def test_waits_grow_until_there_is_no_further_start(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("app.cli.processes.time.monotonic", lambda: now)
    listener = socket.create_server(("127.0.0.1", 0))
    place = _Place(is_killed, Settings(), listener)
    listener.close()

    def died_after(seconds: float) -> float | None:
        nonlocal now
        place.started_at = now
        now += seconds
        return place.bury()

    assert [died_after(59.9) for _ in range(6)] == [1, 2, 4, 8, 15, 30]
    assert place.restart_at == now + 30
    assert died_after(60) == 1
    assert [died_after(1) for _ in range(7)] == [1, 2, 4, 8, 15, 30, None]


def test_a_process_that_always_dies_ends_the_server(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each is started and killed for real; only what they run, and the waits, are not the server's."""
    monkeypatch.setattr(processes, "RESTART_SECONDS", (0.0,))
    monkeypatch.setattr(processes, "_serve", is_killed)
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", "")
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(SystemExit) as ended:
        supervise(Settings(worker=False, server_processes=1), listener)
    assert ended.value.code == 137
    first, last = capfd.readouterr().err.splitlines()
    assert first.endswith(" ended (-9) and is started again in 0 s")
    assert " ended (-9), as did the 1 before it, each within 60 s of its start: the server gives up" in last


def test_a_folder_of_somebody_elses_metrics_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics library would take it at its import: the name must be gone before a command imports anything."""
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        monkeypatch.setenv(name, str(tmp_path / "theirs"))
    monkeypatch.setattr(sys, "argv", ["segmentation", "--help"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert not {name for name in os.environ if name.lower() == "prometheus_multiproc_dir"}
