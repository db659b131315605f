"""Shows the progress of `ingest`: a bar on a terminal, otherwise occasional lines."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from app.cli.terminal import console

if TYPE_CHECKING:
    from app.engine.ingest.progress import Progress

_LOOK_SECONDS = 0.25
_QUIET_SECONDS = 5.0
"""Minimum interval between lines; shorter work prints none."""
_LONGEST_SECONDS = 30.0
_STEP = 0.1


class Lines:
    """Decides which states are worth a line: one per tenth, not too often, and some when progress is slow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._fraction = 0.0

    def due(self, fraction: float | None) -> bool:
        """Whether to print a line now; `fraction` is None if the total is unknown."""
        waited = self._clock() - self._last
        moved = fraction is None or fraction >= self._fraction + _STEP
        if waited < (_QUIET_SECONDS if moved else _LONGEST_SECONDS):
            return False
        self._last, self._fraction = self._clock(), fraction or 0.0
        return True


class Display:
    """Completed bytes, of `total` if known."""

    def __init__(self, total: int | None, update: Callable[[str, int], None], lines: Lines) -> None:
        self.total = total
        self.before = 0
        self._update = update
        self._lines = lines

    def show(self, name: str, completed: int, stage: str = "") -> None:
        """`stage` is the current step for the file of that name."""
        label = f"{name} ({stage})" if stage else name
        self._update(label, completed)
        if self._lines.due(completed / self.total if self.total else None):
            of = f"{100 * completed // self.total}% of {_size(self.total)}" if self.total else _size(completed)
            console.print(f"{label}: {of}", markup=False, soft_wrap=True)

    @asynccontextmanager
    async def watching(self, name: str, size: int) -> AsyncIterator["Progress"]:
        """Shows the progress of a file of this many bytes while the block loads it."""
        from app.engine.ingest.progress import Progress

        progress = Progress()

        async def look() -> None:
            while True:
                self.show(name, self.before + int(progress.fraction * size), progress.stage)
                await asyncio.sleep(_LOOK_SECONDS)

        looking = asyncio.create_task(look())
        try:
            yield progress
        finally:
            looking.cancel()
        self.before += size
        self._update(name, self.before)


@contextmanager
def display(total: int | None) -> Iterator[Display]:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def update(label: str, completed: int) -> None:
            bar.update(task, description=label, completed=completed)

        # On a terminal the bar is sufficient.
        yield Display(total, update, Lines((lambda: 0.0) if console.is_terminal else time.monotonic))


def _size(size: int) -> str:
    """
    >>> _size(1_500), _size(63_023_832)
    ('0.0 MB', '63.0 MB')
    """
    return f"{size / 1_000_000:,.1f} MB"
