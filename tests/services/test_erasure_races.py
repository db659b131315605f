"""Readers that make files of what there was before an erasure: nothing of the person is left by them."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from app.engine.people import compaction, merged_view
from app.engine.store import lake
from app.engine.store.delta import open_table
from app.services.jobs.erasure import requests as erasures
from app.services.jobs.erasure.run import run_erasure_job
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_erasure import ANN, claimed, clock, erase, erasure, later, naming, small

__all__ = ["clock"]
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def test_who_builds_profiles_of_an_earlier_version_is_waited_for(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    await small(gateway)
    await gateway.people([{"id": ANN, "tier": "silver"}])
    building, erasing = threading.Event(), threading.Event()
    rebuild = merged_view._rebuild

    def held(*arguments: Any) -> None:
        building.set()
        erasing.wait()
        rebuild(*arguments)

    def wait_a_little(seconds: float) -> None:
        erasing.set()
        threading.Event().wait(seconds)

    monkeypatch.setattr(merged_view, "_rebuild", held)
    reading = asyncio.create_task(gateway.reader().view())
    await asyncio.to_thread(building.wait)
    # Whoever waits for a lock looks again and again.
    monkeypatch.setattr(lake, "time", SimpleNamespace(sleep=wait_a_little))
    job = await erasures.create(gateway.database, gateway.lake, gateway.clock, SCOPE, erasures.NewErasure("crm", ANN))
    run = await claimed(gateway, JobKind.ERASURE)
    work = asyncio.create_task(run_erasure_job(run, gateway.lake, 1))
    work.add_done_callback(lambda _: erasing.set())
    await asyncio.gather(reading, work)
    assert (await erasure(gateway, job.id)).verified
    assert naming(gateway.lake.tenant(SCOPE.tenant).folder, ANN) == []


@pytest.mark.usefixtures("real_buckets")
async def test_a_version_that_has_the_person_is_not_copied_afterwards(gateway: Gateway) -> None:
    for day in range(1, 10):
        await gateway.events([{"id": id, "timestamp": f"2026-01-0{day}"} for id in (ANN, "somebody-else")])
    tenant = gateway.lake.tenant(SCOPE.tenant)
    (folder,) = (tenant.folder / "datasets").iterdir()
    earlier = open_table(folder)
    later(gateway)
    assert (await erase(gateway)).verified
    assert earlier is not None
    compaction.compact(tenant, [earlier], 1)
    assert list((tenant.folder / "compacted").rglob("*.parquet")) == []
    current = open_table(folder)
    assert current is not None
    compaction.compact(tenant, [current], 1)
    assert len(list((tenant.folder / "compacted").rglob("*.parquet"))) == 1
    assert naming(tenant.folder, ANN) == []


@pytest.mark.usefixtures("real_buckets")
@pytest.mark.parametrize("refuse", [True, False])
async def test_copies_with_later_batches_have_the_person_only_where_they_are_accepted(
    gateway: Gateway, refuse: bool
) -> None:
    async def visits(first: int) -> None:
        for day in range(first, first + 9):
            await gateway.events(
                [{"id": id, "timestamp": f"2026-01-{day:02}", "by": id} for id in (ANN, "somebody-else")]
            )

    def copied() -> int:
        tenant = gateway.lake.tenant(SCOPE.tenant)
        table = open_table(next((tenant.folder / "datasets").iterdir()))
        assert table is not None
        compaction.compact(tenant, [table], 1)
        return len(naming(tenant.folder / "compacted", ANN))

    await visits(1)
    assert copied() == 1
    later(gateway)
    assert (await erase(gateway)).verified
    assert copied() == 0
    gateway.lake = lake.Lake(gateway.lake.root, refuse_erased=refuse)
    audience = await gateway.define("visitors", "xEvent.count() = 9", "BATCH")
    later(gateway)
    await visits(11)
    assert copied() == (0 if refuse else 1)
    await gateway.job(audience)
    # Whoever is accepted is somebody new, without the events of before.
    assert len(await gateway.members(audience)) == (0 if refuse else 1)
    later(gateway)
    assert (await erase(gateway)).verified
    assert (copied(), naming(gateway.lake.tenant(SCOPE.tenant).folder, ANN)) == (0, [])
