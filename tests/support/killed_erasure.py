"""A worker that takes up an erasure and is killed (SIGKILL) in one of its steps, right after something that cannot be
taken back: a file in its place, a commit, a note. Run by `tests.support.processes` in a process of its own."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.clock import utc_now
from app.engine.erasure import cut, memberships, purge, subject
from app.engine.store.lake import Lake
from app.services.jobs.erasure import run as erasure
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.support import few_buckets as few_buckets

LASTING: tuple[tuple[Any, str], ...] = (
    (cut, "replace"),
    (cut, "write_atomically"),
    (cut, "_moved"),
    (memberships, "rewritten"),
    (purge, "replace"),
    (purge, "write_atomically"),
    (subject, "write_atomically"),
    (subject, "note_erased"),
    (Path, "unlink"),
    (Attempt, "update"),
    (Attempt, "write"),
    (Attempt, "finish"),
)
"""Functions after which something is there, or gone."""
PHASES = ("begin", *(f"step {number}" for number in range(len(erasure.STEPS))), "look again")


class _Fate:
    """Ends the process after so many lasting changes, counted from where it is armed."""

    def __init__(self, changes: int) -> None:
        self._left, self._armed = changes, False

    def arm(self) -> None:
        self._armed = True

    def lasting(self, change: Callable[..., Any]) -> Callable[..., Any]:
        def plain(*arguments: Any, **named: Any) -> Any:
            result = change(*arguments, **named)
            self._count()
            return result

        async def awaited(*arguments: Any, **named: Any) -> Any:
            result = await change(*arguments, **named)
            self._count()
            return result

        return awaited if asyncio.iscoroutinefunction(change) else plain

    def arming(self, step: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        async def armed(run: Any) -> None:
            self.arm()
            await step(run)

        return armed

    def _count(self) -> None:
        self._left -= self._armed
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


async def be_killed(url: str, lake: str, phase: str, changes: int) -> None:
    """Never returns unless the job ends before the changes of the phase and what follows it were made."""
    fate = _Fate(changes)
    for module, name in LASTING:
        setattr(module, name, fate.lasting(getattr(module, name)))
    number = PHASES.index(phase) - 1
    steps = [
        fate.arming(step) if at == number else step for at, step in enumerate((*erasure.STEPS, erasure._look_again))
    ]
    erasure.STEPS, erasure._look_again = tuple(steps[:-1]), steps[-1]  # type: ignore[assignment]
    database = Database(url)
    claim = await claim_next(database, utc_now, owner="killed", lease=timedelta(0), kind=JobKind.ERASURE)
    if claim is None:
        raise SystemExit("there is no job to take up")
    if phase == "begin":
        fate.arm()
    await erasure.run_erasure_job(Attempt(database, utc_now, claim), Lake(Path(lake)), 1)
    raise SystemExit(f"it ended with {fate._left} changes to go")
