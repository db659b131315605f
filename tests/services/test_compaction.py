"""Compaction in the background: what changed since the last look, of all sandboxes, one dataset's fault alone."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.engine.people import compaction as files
from app.engine.people.compaction import FEW, event_paths
from app.engine.store.delta import TableVersion, open_table
from app.services.maintenance import compaction
from app.services.maintenance.compaction import Compaction
from tests.services.conftest import SCOPE, Gateway


async def small_batches(gateway: Gateway, dataset: str) -> TableVersion:
    for day in range(1, FEW + 1):
        await gateway.events([{"id": "1", "timestamp": f"2026-01-0{day}"}], dataset)
    lake = gateway.lake.tenant(SCOPE.tenant)
    (table,) = (table for path in lake.dataset("x").parent.iterdir() if (table := open_table(path)) and table.files)
    return table


async def test_what_has_changed_is_compacted_once(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    table = await small_batches(gateway, "visits")
    looked: list[str] = []

    def noted(lake: Any, tables: Any, *others: Any) -> None:
        looked.extend(table.folder.name for table in tables)
        files.compact(lake, tables, *others)

    monkeypatch.setattr(compaction, "compact", noted)
    work = Compaction(gateway.database, gateway.lake, gateway.clock)
    await work.step(asyncio.Event())
    assert len(event_paths(table, table.files[0].bucket)) == 1
    assert looked == [table.folder.name]
    gateway.clock.advance(timedelta(minutes=2))
    await work.step(asyncio.Event())
    gateway.clock.advance(timedelta(minutes=2))
    await work.step(asyncio.Event())
    # The second look was for transactions that were under way at the first.
    assert looked == [table.folder.name] * 2


async def test_one_that_fails_does_not_stop_the_others(gateway: Gateway, caplog: pytest.LogCaptureFixture) -> None:
    broken = await small_batches(gateway, "broken")
    (broken.folder / "_delta_log" / f"{broken.version:020}.json").write_text("{")
    for day in range(1, FEW + 1):
        await gateway.events([{"id": "1", "timestamp": f"2026-01-0{day}"}], "whole")
    whole = next(
        table
        for path in broken.folder.parent.iterdir()
        if path != broken.folder and (table := open_table(path)) is not None
    )
    await Compaction(gateway.database, gateway.lake, gateway.clock).step(asyncio.Event())
    assert len(event_paths(whole, whole.files[0].bucket)) == 1
    assert "compaction failed in acme/prod" in caplog.text
