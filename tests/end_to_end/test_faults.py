"""Disks that are really full or read-only, a damaged database, a lost lake: a sentence, and nothing lost."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cli.test_commands import segmentation

INGEST = ("ingest", "p.csv", "--dataset", "p", "--kind", "event", "--id", "id", "--time", "t")
pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB."""
    folder = tmp_path / "data"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def rows(tmp_path: Path, number: int, name: str = "p.csv") -> None:
    lines = (f"{at},2026-01-01,{os.urandom(40).hex()}" for at in range(number))
    (tmp_path / name).write_text("\n".join(["id,t,v", *lines]) + "\n")


def count(tmp_path: Path) -> str:
    return segmentation(tmp_path, "dataset", "list").stdout.split("\t")[3]


def test_a_disk_that_is_full(tmp_path: Path, disk: Path) -> None:
    rows(tmp_path, 100)
    assert segmentation(tmp_path, *INGEST).returncode == 0
    rows(tmp_path, 200_000)
    full = segmentation(tmp_path, *INGEST)
    assert (full.returncode, full.stdout) == (1, "")
    message = full.stderr.strip().splitlines()[-1]
    assert "the disk of the data folder or of the database is full, and nothing was changed: free space" in message
    assert "Traceback" not in full.stderr
    assert count(tmp_path) == "100"
    filler = os.open(disk / "filler", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while os.write(filler, b"x" * 4096):
            pass
    os.close(filler)
    rows(tmp_path, 10, "few.csv")
    none = segmentation(tmp_path, "ingest", "few.csv", *INGEST[2:])
    assert none.returncode == 1
    assert "Traceback" not in none.stderr
    (disk / "filler").unlink()
    again = segmentation(tmp_path, "ingest", "few.csv", *INGEST[2:])
    assert (again.returncode, again.stderr.strip()) == (0, "10 rows in, 0 rejected")
    assert count(tmp_path) == "110"
    assert segmentation(tmp_path, "doctor", "--checksums").stdout == "nothing is wrong\n"


def test_a_disk_that_is_read_only(tmp_path: Path, disk: Path) -> None:
    rows(tmp_path, 100)
    assert segmentation(tmp_path, *INGEST).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for command in (INGEST, ("serve", "--port", "0"), ("worker",)):
        refused = segmentation(tmp_path, *command)
        assert refused.returncode == 1, command
        assert "cannot be written, and nothing was changed: mount it for writing" in refused.stderr
        assert "Traceback" not in refused.stderr
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    assert count(tmp_path) == "100"


@pytest.mark.parametrize("damage", ["garbled", "truncated"])
def test_a_damaged_database(tmp_path: Path, damage: str) -> None:
    rows(tmp_path, 100)
    assert segmentation(tmp_path, *INGEST).returncode == 0
    file = tmp_path / "data" / "segmentation.db"
    content = file.read_bytes()
    file.write_bytes(content[:100] + b"\xff" * 5000 + content[5100:] if damage == "garbled" else content[:20_000])
    for name in ("segmentation.db-wal", "segmentation.db-shm"):
        (tmp_path / "data" / name).unlink(missing_ok=True)
    for command in (("serve", "--port", "0"), ("worker",), ("job", "list"), INGEST):
        refused = segmentation(tmp_path, *command)
        assert refused.returncode == 1, command
        assert "the SQLite file is damaged: stop all processes and restore it from a copy" in refused.stderr
        assert "Traceback" not in refused.stderr
    examined = segmentation(tmp_path, "doctor")
    assert (examined.returncode, "Traceback" in examined.stderr) == (1, False)
    assert examined.stdout.startswith("tables: database: it cannot be read: ")


def test_a_lost_lake(tmp_path: Path) -> None:
    rows(tmp_path, 100)
    assert segmentation(tmp_path, *INGEST).returncode == 0
    lake, away = tmp_path / "data" / "lake", tmp_path / "away"
    lake.rename(away)
    for command in (("serve", "--port", "0"), ("worker",), ("job", "list"), INGEST):
        refused = segmentation(tmp_path, *command)
        assert refused.returncode == 1, command
        assert "mount or restore the folder that SEGMENTATION_DATA_DIR names. Nothing was changed" in refused.stderr
        assert "Traceback" not in refused.stderr
    assert not lake.exists(), "nobody made an empty one"
    away.rename(lake)
    assert segmentation(tmp_path, "doctor", "--checksums").stdout == "nothing is wrong\n"
