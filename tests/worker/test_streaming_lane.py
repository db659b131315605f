"""The lane that streams: what it takes it finishes or gives back, for the next one to take at once."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.clock import FixedClock
from app.engine.limits.pool import Cancelled
from app.engine.store.lake import Lake
from app.storage.database import Database
from app.storage.queue.turns import claim_turn
from app.storage.wakeups import Changes
from app.worker.streaming import StreamingLane
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
    lane = StreamingLane(database, changes, lake, clock, lease_seconds=LEASE.total_seconds(), threads=1)
    running = asyncio.create_task(lane.run(stop))
    await taken.wait()
    assert await claim_turn(database, clock, owner="another", lease=timedelta(seconds=60)) is None
    stop.set()
    await running
    # The clock has stood still, so no lease has run out.
    assert await gateway.stream() == 1
    assert await gateway.numbers(gold) == (1, {"crm": 1})
