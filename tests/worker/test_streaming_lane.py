"""The lane that streams: what it takes it finishes or gives back, for the next one to take at once."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.clock import FixedClock
from app.engine.limits.pool import Cancelled
from app.engine.run.engine import LocalEngine
from app.engine.store.lake import Lake
from app.settings import Settings
from app.storage.database import Database
from app.storage.queue.turns import claim_turn
from app.storage.topics import audience_topic
from app.storage.wakeups import Changes
from app.wiring import Services
from app.worker.jobs import WorkerOptions
from app.worker.service import Resources
from app.worker.streaming import StreamingLane
from tests.services.conftest import SCOPE
from tests.support.gateway import LEASE, Gateway


async def test_a_lane_that_stops_gives_its_turn_back(
    database: Database, changes: Changes, clock: FixedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(tmp_path / "lake")
    gateway = Gateway(database, lake, clock, tmp_path)
    await gateway.people([{"id": "1", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    assert await gateway.nothing_waits()
    await gateway.people([{"id": "1", "tier": "gold"}])
    taken, stop = asyncio.Event(), asyncio.Event()

    async def run_turn(*arguments: Any) -> int:
        stopping: Callable[[], bool] = arguments[-1]
        taken.set()
        await stop.wait()
        assert stopping()
        raise Cancelled

    monkeypatch.setattr("app.worker.streaming.run_turn", run_turn)
    lane = StreamingLane(
        Resources(database, changes, lake, clock), WorkerOptions(lease_seconds=LEASE.total_seconds(), threads=1)
    )
    running = asyncio.create_task(lane.run(stop))
    await taken.wait()
    assert await claim_turn(database, clock, owner="another", lease=timedelta(seconds=60)) is None
    stop.set()
    await running
    # The clock has stood still, so no lease has run out.
    assert await gateway.stream() == 1
    assert await gateway.numbers(gold) == (1, {"crm": 1})


async def test_a_lane_sweeps_what_depends_on_the_clock(
    database: Database, changes: Changes, clock: FixedClock, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path, streaming_sweep_minutes=30)
    gateway = Gateway(database, Lake(tmp_path / "lake"), clock, tmp_path)
    await gateway.people([{"id": "1"}])
    await gateway.events([{"id": "1", "timestamp": clock().isoformat()}])
    recent = await gateway.define("Recent", "xEvent[timestamp occurs <= 24 hours before now]")
    await gateway.job()
    clock.advance(timedelta(hours=25))
    stop = asyncio.Event()
    async with changes.subscribe(audience_topic(SCOPE.tenant, recent)) as changed:
        services = Services(settings, database, gateway.lake, changes, clock, LocalEngine(2))
        running = asyncio.create_task(services.lane().run(stop))
        # A wake-up may still come from the job's commit: only the numbers tell that the sweep is over.
        while await gateway.numbers(recent) != (0, {}):
            assert await changed.wait(60)
        stop.set()
        await running
    assert Settings(data_dir=tmp_path, streaming_sweep_minutes=0).streaming_sweep is None
