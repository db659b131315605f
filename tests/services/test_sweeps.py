"""Sweeps: what depends on the clock follows it without a batch or a job, and nothing else changes."""

from datetime import timedelta

import pytest

from app.services.streaming import work
from app.storage.tables.streaming import MembershipPatchRow
from tests.support.gateway import Gateway

EVERY = timedelta(minutes=10)
RECENT = "xEvent[timestamp occurs <= 24 hours before now]"


async def test_whoever_has_been_in_for_24_hours_leaves_by_itself(gateway: Gateway) -> None:
    now = gateway.clock()
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "gold"}])
    hours = {"1": 1, "2": 20}
    await gateway.events(
        [{"id": id_, "timestamp": (now - timedelta(hours=ago)).isoformat()} for id_, ago in hours.items()]
    )
    recent = await gateway.define("Recent", RECENT)
    absent = await gateway.define("Absent", f"not({RECENT})")
    gold = await gateway.define("Gold", 'tier = "gold"')
    referring = await gateway.define("Referring", f'inSegment("{recent}")')
    await gateway.job()
    before = await gateway.members(gold)
    assert await gateway.statuses(recent) == ["REALIZED", "REALIZED"]
    gateway.clock.advance(timedelta(hours=4, minutes=1))
    assert await gateway.nothing_waits()
    assert await gateway.stream(EVERY) == 0
    assert await gateway.statuses(recent) == await gateway.statuses(referring) == ["EXITED", "REALIZED"]
    assert list((await gateway.members(absent)).values()) == [("REALIZED", gateway.clock())]
    assert [await gateway.numbers(id_) for id_ in (recent, absent, referring)] == [(1, {"crm": 1})] * 3
    assert await gateway.members(gold) == before
    assert await gateway.nothing_waits(EVERY)
    gateway.clock.advance(timedelta(hours=20))
    await gateway.stream(EVERY)
    assert await gateway.statuses(recent) == ["EXITED", "EXITED"]
    assert await gateway.numbers(recent) == (0, {})
    assert await gateway.numbers(absent) == (2, {"crm": 2})


async def test_a_sweep_is_due_so_long_after_the_last_one_and_writes_only_changes(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.events([{"id": "1", "timestamp": gateway.clock().isoformat()}])
    await gateway.define("Recent", RECENT)
    await gateway.job()
    assert await gateway.nothing_waits(EVERY)
    gateway.clock.advance(EVERY)
    await gateway.stream(EVERY)
    assert await gateway.nothing_waits(EVERY)
    gateway.clock.advance(EVERY - timedelta(seconds=1))
    assert await gateway.nothing_waits(EVERY)
    gateway.clock.advance(timedelta(seconds=1))
    await gateway.stream(EVERY)
    assert await gateway.count(MembershipPatchRow) == 0
    gateway.clock.advance(timedelta(days=-1))  # It was ahead.
    await gateway.stream(EVERY)
    assert await gateway.nothing_waits(EVERY)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_where_nothing_depends_on_the_clock_nothing_is_swept(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    gateway.clock.advance(timedelta(days=1))
    await gateway.stream(EVERY)
    gateway.clock.advance(timedelta(days=1))
    assert await gateway.nothing_waits(EVERY)


async def test_batches_wait_for_a_few_buckets_of_a_sweep_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work, "BUCKETS_SWEPT", 1)
    now = gateway.clock()
    people = [f"{n:02}" for n in range(60)]
    await gateway.people([{"id": id_, "tier": "tin"} for id_ in people])
    await gateway.events([{"id": id_, "timestamp": now.isoformat()} for id_ in people])
    recent = await gateway.define("Recent", RECENT)
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    gateway.clock.advance(timedelta(hours=25))
    assert await gateway.stream(EVERY) == 0
    left = (await gateway.numbers(recent))[0]
    assert left is not None
    assert 0 < left < 60
    await gateway.people([{"id": "00", "tier": "gold"}])
    await gateway.events([{"id": "59", "timestamp": gateway.clock().isoformat()}])
    assert await gateway.stream(EVERY) == 2
    assert await gateway.statuses(gold) == ["REALIZED"]
    await gateway.stream(EVERY)
    assert (await gateway.numbers(recent))[0] != 1
    await gateway.stream(EVERY)  # The last of four buckets.
    assert await gateway.numbers(recent) == (1, {"crm": 1})
    assert await gateway.nothing_waits(EVERY)
    swept = await gateway.memberships(recent)
    await gateway.job()
    assert {bucket: one.members for bucket, one in swept.items()} == {
        bucket: one.members for bucket, one in (await gateway.memberships(recent)).items()
    }
