"""The progress of a load rises, and is complete when the load is."""

import gzip
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.engine.ingest.batch import ingest, try_out
from app.engine.ingest.formats import InputFile
from app.engine.ingest.progress import CHECKING, READING, STORING, UNPACKING, Progress, Stage, bytes_read
from tests.support.sandbox import CDNOW, PURCHASES, Sandbox


@dataclass(slots=True)
class Recorded(Progress):
    """Each state that the loader tells, with what a watcher would see."""

    states: list[tuple[str, float]] = field(default_factory=list)
    parts: list[tuple[str, float]] = field(default_factory=list)

    def begin(self, stage: Stage, size: int = 0) -> None:
        Progress.begin(self, stage, size)
        self.states.append((self.stage, self.fraction))

    def reached(self, part: float) -> None:
        Progress.reached(self, part)
        self.states.append((self.stage, self.fraction))
        self.parts.append((self.stage, part))


def test_a_load_tells_how_far_it_is(sandbox: Sandbox) -> None:
    file = sandbox.folder / "purchases.csv.gz"
    file.write_bytes(gzip.compress(CDNOW.read_bytes()))
    progress = Recorded()
    ingest(sandbox.lake, "d", PURCHASES, InputFile(file, "CSV"), "b", None, progress)
    assert list(dict(progress.states)) == ["unpacking", "reading", "checking", "storing"]
    fractions = [fraction for _, fraction in progress.states]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0, 0.99)
    # The whole compressed file was read, and every row stored.
    assert dict(progress.parts) == {"unpacking": 1, "storing": 1}
    assert len(progress.parts) > 2


def test_a_dry_run_tells_too(sandbox: Sandbox) -> None:
    progress = Recorded()
    try_out(sandbox.lake, None, PURCHASES, InputFile(CDNOW, "CSV"), None, progress)
    assert list(dict(progress.states)) == ["reading", "checking"]
    assert progress.states[0][1] < progress.states[1][1] < 1


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([(READING, 0)], 0),
        ([(READING, 100)], 0.4 / 0.9 / 2),
        ([(READING, 10_000)], 0.4 / 0.9),
        ([(UNPACKING, 0), (READING, 0)], 0.1),
        ([(READING, 200), (CHECKING, 50)], (0.4 + 0.125) / 0.9),
        ([(STORING, 0), (READING, 0)], 0.65 / 0.9),
    ],
)
def test_bytes_that_were_read_move_it(steps: list[tuple[Stage, int]], expected: float) -> None:
    read = 7
    progress = Progress(lambda: read)
    for stage, bytes_ in steps:
        progress.begin(stage, 100)
        assert progress.fraction < 1
        read += bytes_
        last = progress.fraction
    assert last == pytest.approx(expected)


def test_nothing_is_complete_before_the_end() -> None:
    progress: Any = Progress(lambda: 0)
    progress.reached(1.0)
    assert (progress.fraction, progress.stage) == (0, "")
    progress.begin(STORING)
    progress.reached(1.0)
    assert (progress.fraction, progress.stage) == (0.99, "storing")


def test_the_system_counts_what_is_read() -> None:
    before = bytes_read()
    size = len(CDNOW.read_bytes())
    assert before == 0 or bytes_read() - before >= size
