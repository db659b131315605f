"""Background maintenance of a worker process: settles lost batches, expires members, cleans up; knows no jobs."""

import asyncio
from dataclasses import dataclass

from app.clock import Clock, SteadyClock
from app.engine.store.lake import Lake
from app.services.audiences.external import expire
from app.services.datasets.batches import reconcile
from app.services.jobs.export.run import tidy
from app.services.jobs.preview import requests as previews
from app.services.maintenance import retention
from app.services.maintenance.compaction import Compaction
from app.storage.database import Database
from app.worker.service import Rest, serve

CLEAN_SECONDS = 600.0
COMPACT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Maintenance:
    """Background maintenance. Any number of processes may run it concurrently."""

    database: Database
    lake: Lake
    clock: Clock
    keep_for: retention.Keep
    settle_seconds: float = 30.0
    """Half of a batch's lease: a lost batch is settled after at most one and a half leases."""
    steady: SteadyClock | None = None
    """Nothing is settled or cleaned while the clock is not steady."""

    async def keep(self, stop: asyncio.Event, clean_every: float = CLEAN_SECONDS) -> None:
        """Runs all tasks at once and then at intervals, until `stop` is set."""

        async def settle() -> Rest:
            if self._is_steady():
                await self.settle()
            return Rest(self.settle_seconds)

        async def clean() -> Rest:
            if self._is_steady():
                await self.clean()
            return Rest(clean_every)

        compaction = Compaction(self.database, self.lake, self.clock)

        async def compact() -> Rest:
            await compaction.step(stop)
            return Rest(COMPACT_SECONDS)

        await asyncio.gather(
            serve(compact, stop, name="compaction", retry_seconds=(COMPACT_SECONDS,)),
            serve(settle, stop, name="lost batches and expired members", retry_seconds=(self.settle_seconds,)),
            serve(clean, stop, name="retention", retry_seconds=(clean_every,)),
        )

    def _is_steady(self) -> bool:
        return self.steady is None or self.steady.is_steady()

    async def settle(self) -> None:
        await reconcile(self.database, self.lake, self.clock)
        await tidy(self.database, self.lake)
        await expire(self.database, self.clock)

    async def clean(self) -> None:
        await retention.clean(self.database, self.lake, self.clock, self.keep_for)
        await previews.clean(self.database, self.lake, self.clock, self.keep_for.previews)
