"""What a process with a worker does beside its jobs: settles what is lost or over, and clears away; knows no job."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

from app.clock import Clock
from app.engine.store.lake import Lake
from app.services.audiences.external import expire
from app.services.datasets.batches import reconcile
from app.services.jobs.export.run import tidy
from app.services.jobs.preview import requests as previews
from app.services.maintenance import retention
from app.storage.database import Database, is_unavailable

log = logging.getLogger(__name__)

CLEAN_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Any number of processes may keep it at once."""

    database: Database
    lake: Lake
    clock: Clock
    keep_for: retention.Keep
    settle_seconds: float = 30.0
    """Half of a batch's lease: a lost batch is settled after one and a half at most."""

    async def keep(self, stop: asyncio.Event, clean_every: float = CLEAN_SECONDS) -> None:
        """Looks at once and then every so many seconds, until `stop` is set."""
        await asyncio.gather(
            _again(self.settle, "lost batches and expired members wait", self.settle_seconds, stop),
            _again(self.clean, "nothing is cleared away", clean_every, stop),
        )

    async def settle(self) -> None:
        await reconcile(self.database, self.lake, self.clock)
        await tidy(self.database, self.lake)
        await expire(self.database, self.clock)

    async def clean(self) -> None:
        await retention.clean(self.database, self.lake, self.clock, self.keep_for)
        await previews.clean(self.database, self.lake, self.clock, self.keep_for.previews)


async def _again(work: Callable[[], Awaitable[None]], meanwhile: str, every: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await work()
        except Exception as error:
            if is_unavailable(error):
                log.warning("the database is away, and %s: %s", meanwhile, error)
            else:
                log.exception("keeping house failed, and %s until it is tried again in %.0f s", meanwhile, every)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)
