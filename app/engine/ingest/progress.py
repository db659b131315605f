"""Progress of loading one file, readable from another thread; knows no files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_MOST = 0.99
"""The fraction stays below 1 until everything is stored."""


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the work: its measured share of the total, as start and end; `passes` is how often it reads the file, 0
    if the loader reports progress itself."""

    name: str
    begin: float
    end: float
    passes: int = 0


UNPACKING = Stage("unpacking", 0.0, 0.1)
READING = Stage("reading", 0.1, 0.5, passes=2)
CHECKING = Stage("checking", 0.5, 0.75, passes=1)
STORING = Stage("storing", 0.75, 1.0)


def bytes_read() -> int:
    """The bytes that this process has read so far; 0 if the system does not report them.

    DuckDB's queries read the file without reporting progress.
    """
    try:
        return int(Path("/proc/self/io").read_bytes().split(maxsplit=2)[1])
    except (OSError, ValueError, IndexError):
        return 0


@dataclass(frozen=True, slots=True)
class _State:
    stage: Stage
    size: int
    read_before: int
    inside: float = 0.0


@dataclass(slots=True)
class Progress:
    """Written by the loading thread, read by one other."""

    read_so_far: Callable[[], int] = bytes_read
    _state: _State | None = None
    _is_packed: bool = False
    _shown: float = 0.0

    def begin(self, stage: Stage, size: int = 0) -> None:
        """Starts the stage; `size` is the size in bytes of the file that it reads."""
        self._is_packed = self._is_packed or stage is UNPACKING
        self._state = _State(stage, size, self.read_so_far())

    def reached(self, part: float) -> None:
        """Sets the completed fraction of the stage, from 0 to 1."""
        if (state := self._state) is not None:
            self._state = _State(state.stage, state.size, state.read_before, part)

    @property
    def stage(self) -> str:
        """The current stage."""
        return "" if self._state is None else self._state.stage.name

    @property
    def fraction(self) -> float:
        """The completed fraction of the work: below 1, and never decreasing."""
        if (state := self._state) is None:
            return self._shown
        stage, inside = state.stage, state.inside
        if stage.passes and state.size:
            inside = (self.read_so_far() - state.read_before) / (stage.passes * state.size)
        fraction = stage.begin + min(max(inside, 0.0), 1.0) * (stage.end - stage.begin)
        if not self._is_packed:
            fraction = (fraction - UNPACKING.end) / (1 - UNPACKING.end)
        self._shown = max(self._shown, min(fraction, _MOST))
        return self._shown
