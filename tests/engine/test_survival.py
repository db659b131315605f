"""Killed processes, several processes at once, little memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.notes import committed_batch
from app.engine.people.profiles import Dataset, MergeRule, open_snapshot
from app.engine.store.bucket import Needs
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake
from app.scope import Tenant
from tests.support.sandbox import EVENTS, Sandbox

RULE = MergeRule("default", "TIMESTAMP_ORDERED")

_INGEST = """
import os, signal, sys
import tests.support.few_buckets
from pathlib import Path
from app.engine.store import bucket_files
from app.engine.store import delta
from app.engine.ingest import identities
from app.engine.ingest import storing
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.store import lake
from app.engine.people import merged_view as view
from app.engine.people.profiles import Dataset, MergeRule, open_snapshot
from app.scope import Tenant

def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def after(function):
    def called(*args, **kwargs):
        function(*args, **kwargs)
        die()
    return called

sandbox = lake.Lake(Path(sys.argv[1])).tenant(Tenant("org", "prod"))
exec(sys.argv[4])
shape = DatasetShape("EVENT", "id", "CRM", "timestamp")
for number, file in enumerate(sys.argv[5:]):
    print(ingest(sandbox, sys.argv[2], shape, InputFile(Path(file), "CSV"), f"{sys.argv[3]}{number}"), flush=True)
open_snapshot(sandbox, MergeRule("default", "TIMESTAMP_ORDERED"), [Dataset(sys.argv[2], "EVENT")])
"""


def start(sandbox: Sandbox, dataset: str, batch: str, patch: str, *files: Path) -> "subprocess.Popen[str]":
    arguments = [str(sandbox.folder / "lake"), dataset, batch, patch, *map(str, files)]
    return subprocess.Popen(
        [sys.executable, "-c", _INGEST, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def events(sandbox: Sandbox, *datasets: str) -> tuple[int, list[float]]:
    """How many people there are, and the values `n` of all their events."""
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset(name, "EVENT") for name in datasets])
    needs = Needs(event=frozenset({("n",)}), events=True)
    values = [value for bucket in snapshot.buckets for value in snapshot.read(bucket, needs).events["n"].to_pylist()]
    return snapshot.total_profiles, sorted(values)


@pytest.mark.parametrize(
    ("patch", "landed"),
    [
        ("identities.commit = die", False),
        ("identities.commit = after(identities.commit)", False),
        ("bucket_files.BucketWriter.move = die", False),
        ("storing.BucketWriter.move = after(storing.BucketWriter.move)", False),
        ("storing.commit = die", False),
        ("storing.commit = after(storing.commit)", True),
        ("view.commit = die", True),
        ("view.commit = after(view.commit)", True),
    ],
)
def test_a_kill_at_any_moment_leaves_the_old_state_or_the_new(sandbox: Sandbox, patch: str, landed: bool) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp,n\nold,2026-01-01,1\n")
    file = sandbox.folder / "next.csv"
    file.write_text("id,timestamp,n,wider\n" + "".join(f"p{n},2026-01-01,{n},x\n" for n in range(100, 150)))
    process = start(sandbox, "e", "killed", patch, file)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -9, errors
    assert (committed_batch(sandbox.lake, "e", "killed0") is not None) is landed
    before = (51, [1.0, *map(float, range(100, 150))]) if landed else (1, [1.0])
    assert events(sandbox, "e") == before
    done = ingest(sandbox.lake, "e", EVENTS, InputFile(file, "CSV"), "killed0")
    assert done.row_count == 50
    assert events(sandbox, "e") == (51, [1.0, *map(float, range(100, 150))])
    table = open_table(sandbox.lake.dataset("e"))
    assert table is not None
    assert sorted(sandbox.lake.dataset("e").rglob("*.parquet")) == sorted(table.paths())
    assert list(sandbox.lake.dataset("e").rglob("*.unfinished")) == []
    assert list((sandbox.lake.folder / "scratch").iterdir()) == []


def test_what_a_killed_batch_left_is_removed_by_the_next(sandbox: Sandbox) -> None:
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-01,1\n")
    file = sandbox.folder / "next.csv"
    file.write_text("id,timestamp,n\n1,2026-01-02,2\n")
    process = start(sandbox, "e", "killed", "storing.commit = die", file)
    process.communicate(timeout=60)
    assert len(list(sandbox.lake.dataset("e").rglob("*.parquet"))) == 2
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-03,3\n")
    assert events(sandbox, "e") == (1, [1.0, 3.0])
    assert len(list(sandbox.lake.dataset("e").rglob("*.parquet"))) == 2


def test_processes_side_by_side_lose_and_double_nothing(sandbox: Sandbox) -> None:
    def files(start: int) -> list[Path]:
        made = []
        for batch in range(4):
            file = sandbox.folder / f"{start}-{batch}.csv"
            rows = (f"p{n % 400},2026-01-01,{start + batch * 300 + n}\n" for n in range(batch * 100, batch * 100 + 300))
            file.write_text("id,timestamp,n\n" + "".join(rows))
            made.append(file)
        return made

    processes = [
        start(sandbox, dataset, batch, "", *files(first))
        for dataset, batch, first in [("e", "one", 0), ("e", "two", 10_000), ("f", "three", 20_000)]
    ]
    for process in processes:
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
    expected = sorted(
        float(first + batch * 300 + n)
        for first in (0, 10_000, 20_000)
        for batch in range(4)
        for n in range(batch * 100, batch * 100 + 300)
    )
    assert events(sandbox, "e", "f") == (400, expected)
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("e", "EVENT"), Dataset("f", "EVENT")])
    for bucket in snapshot.buckets:
        ordinals = snapshot.read(bucket, Needs()).ordinals.tolist()
        assert ordinals == list(range(len(ordinals)))


def test_a_file_larger_than_the_memory_allowed(tmp_path: Path) -> None:
    file = tmp_path / "large.csv"
    with file.open("w") as out:
        out.write("id,timestamp,n,note\n")
        for n in range(600_000):
            words = f"{n * 2654435761 % 2**64:020d} some words to fill it {n}"
            out.write(f"{n * 7919 % 30_000:06d},2026-01-{1 + n % 28:02d},{n},{words}\n")
    assert file.stat().st_size > 40_000_000
    lake = Lake(tmp_path / "lake", memory_limit="80MB", threads=2).tenant(Tenant("org", "prod"))
    done = ingest(lake, "e", EVENTS, InputFile(file, "CSV"), "b")
    assert (done.row_count, done.new_profiles) == (600_000, 30_000)
