"""The tasks of a worker process between its jobs."""

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.services.maintenance.compaction import Compaction
from app.services.maintenance.retention import Keep
from app.storage.database import Database
from app.worker.maintenance import Maintenance

KEEP = Keep(*[timedelta(days=1)] * 3)


@dataclass(frozen=True, slots=True)
class Recorded(Maintenance):
    """Notes its tasks; the one that settles ends them all once each has begun."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[str] = field(default_factory=list)

    async def settle(self) -> None:
        self.tasks.append("settle")
        for _ in range(10):
            await asyncio.sleep(0)
        self.stop.set()

    async def clean(self) -> None:
        self.tasks.append("clean")


async def test_every_task_runs_at_once(clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(f"sqlite:///{tmp_path / 'never opened.db'}")
    maintenance = Recorded(database, Lake(tmp_path / "lake"), clock, KEEP)

    async def step(_self: Compaction, _stop: asyncio.Event) -> None:
        maintenance.tasks.append("compact")

    monkeypatch.setattr(Compaction, "step", step)
    await maintenance.keep(maintenance.stop)
    assert sorted(maintenance.tasks) == ["clean", "compact", "settle"]
    await database.dispose()
