"""A worker that takes up an erasure and is killed (SIGKILL) right after its n-th step that cannot be taken back.

python -m tests.support.killed_erasure DATABASE_URL LAKE N
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from app.clock import utc_now
from app.engine.erasure import cut, memberships, purge, subject
from app.engine.store.lake import Lake
from app.services.jobs.erasure.run import run_erasure_job
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.support import few_buckets as few_buckets

STEPS: tuple[tuple[Any, str], ...] = (
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
)
"""Functions after which something is there, or gone."""


def fatal(step: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def plain(*arguments: Any, **named: Any) -> Any:
        result = step(*arguments, **named)
        count()
        return result

    async def awaited(*arguments: Any, **named: Any) -> Any:
        result = await step(*arguments, **named)
        count()
        return result

    return awaited if asyncio.iscoroutinefunction(step) else plain


async def main(url: str, lake: str, number: int) -> None:
    database = Database(url)
    claim = await claim_next(database, utc_now, owner="killed", lease=timedelta(0), kind=JobKind.ERASURE)
    if claim is None:
        raise SystemExit("there is no job to take up")
    left = [number]
    for module, name in STEPS:
        setattr(module, name, fatal(getattr(module, name), left))
    await run_erasure_job(Attempt(database, utc_now, claim), Lake(Path(lake)), 1)
    raise SystemExit(f"it ended with {left[0]} steps to go")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
