"""Streaming: after a batch its people's memberships are those of a full run, counts follow, and nothing is lost."""

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from app.engine.ingest.formats import InputFile
from app.engine.limits.pool import Cancelled
from app.services import merge_policies
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment.run import run_segment_job
from app.services.maintenance.retention import forget_changes
from app.services.streaming import turn as streaming
from app.services.streaming.turn import run_turn
from app.storage.columns import columns
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.leases import LeaseLost
from app.storage.queue.turns import PAUSES, claim_turn, hand_back, postpone
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from app.storage.tables.streaming import MembershipPatchRow, StreamingBatchRow
from app.storage.topics import audience_topic
from tests.services.conftest import SCOPE
from tests.support.gateway import LEASE, Gateway


async def test_a_batch_changes_memberships_and_counts_without_a_job(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    batch = await gateway.define("Batch", 'tier = "gold"', method="BATCH")
    await gateway.job()
    assert await gateway.nothing_waits()
    began = gateway.clock()
    gateway.clock.advance(timedelta(hours=1))
    await gateway.people([{"id": "2", "tier": "gold"}, {"id": "3", "tier": "gold"}])
    assert await gateway.statuses(gold) == ["REALIZED"]
    assert await gateway.stream() == 1
    assert sorted((await gateway.members(gold)).values()) == [
        ("REALIZED", began),
        ("REALIZED", gateway.clock()),
        ("REALIZED", gateway.clock()),
    ]
    assert await gateway.numbers(gold) == (3, {"crm": 3})
    assert await gateway.numbers(batch) == (1, {"crm": 1})
    await gateway.people([{"id": "1", "tier": "tin"}, {"id": "3", "tier": "gold"}])
    await gateway.stream()
    assert await gateway.statuses(gold) == ["EXISTING", "EXITED", "REALIZED"]
    assert await gateway.numbers(gold) == (2, {"crm": 2})
    assert await gateway.nothing_waits()
    assert await gateway.count(StreamingBatchRow) == 0
    await gateway.job()
    assert await gateway.statuses(gold) == ["EXISTING", "EXISTING"]
    assert await gateway.numbers(gold) == await gateway.numbers(batch) == (2, {"crm": 2})


async def test_a_definition_without_a_run_knows_those_whom_a_batch_touched(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"', method="EDGE")
    assert await gateway.numbers(gold) == (None, {})
    await gateway.people([{"id": "2", "tier": "gold"}])
    await gateway.stream()
    assert (await gateway.statuses(gold), await gateway.numbers(gold)) == (["REALIZED"], (1, {"crm": 1}))
    await gateway.job()
    assert sorted(await gateway.statuses(gold)) == ["EXISTING", "REALIZED"]
    assert await gateway.numbers(gold) == (2, {"crm": 2})


@pytest.mark.parametrize("state", ["DRAFT", "INACTIVE"])
async def test_nothing_waits_where_nothing_is_streamed(gateway: Gateway, state: str) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.set(gold, lifecycle_state=state)
    await gateway.people([{"id": "2", "tier": "gold"}])
    assert await gateway.nothing_waits()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_after_random_batches_everything_is_as_after_a_full_run(gateway: Gateway) -> None:
    random = Random(4)
    await gateway.people([{"id": f"{n:02}", "tier": "tin"} for n in range(40)])
    await gateway.people([{"id": "00", "points": 1}], "more")
    await gateway.events([{"id": "00", "timestamp": "2026-01-01T00:00:00Z", "amount": 1}])
    async with gateway.database.session() as session:
        more = await datasets.by_name(session, SCOPE, "more")
    assert more is not None
    policy = await merge_policies.create(
        gateway.database,
        gateway.clock,
        SCOPE,
        merge_policies.NewPolicy("More", MergeMethod.DATA_SET_PRECEDENCE, IdentityGraph.NONE, [more.id], False),
    )
    gold = await gateway.define("Gold", 'tier = "gold"')
    rich = await gateway.define("Rich", f'points > 5 or inSegment("{gold}")', policy=policy.id)
    recent = await gateway.define("Recent", "xEvent[timestamp occurs <= 24 hours before now and amount > 5]")
    both = await gateway.define("Both", f'inSegment("{rich}") and not(inSegment("{recent}"))')
    ids = [gold, rich, recent, both]
    for id_ in ids:
        await gateway.job(id_)
    changes = 0
    for kind in ("people", "visits", "more", "visits", "more", "people"):
        gateway.clock.advance(timedelta(minutes=1))
        some = random.sample(range(44), random.randint(4, 12))
        if kind == "people":
            tiers = ["gold", "tin", None]
            await gateway.people([{"id": f"{n:02}", "tier": random.choice(tiers), "note": "x"} for n in some])
        elif kind == "more":
            await gateway.people([{"id": f"{n:02}", "points": random.randint(0, 10)} for n in some], "more")
        else:
            times = [(gateway.clock() - timedelta(hours=hours)).isoformat() for hours in (1, 25)]
            await gateway.events(
                [{"id": f"{n:02}", "timestamp": random.choice(times), "amount": random.randint(0, 10)} for n in some]
            )
        before = [await gateway.members(id_) for id_ in ids]
        assert await gateway.stream() == 1
        after = [await gateway.members(id_) for id_ in ids]
        changes += sum(one != other for one, other in zip(before, after, strict=True))
    assert changes >= 6
    streamed = {id_: await gateway.members(id_) for id_ in ids}
    numbers = {id_: await gateway.numbers(id_) for id_ in ids}
    for id_ in ids:
        await gateway.job(id_)
        inside = {key: at for key, (status, at) in streamed[id_].items() if status != "EXITED"}
        full = {key: at for key, (status, at) in (await gateway.members(id_)).items() if status != "EXITED"}
        assert inside == full
        assert numbers[id_] == await gateway.numbers(id_)
        assert len(inside) > 0


# ---------------------------------------------------------------- beside jobs


async def test_a_batch_that_a_job_has_not_seen_is_streamed_once_more_onto_its_result(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    run = await gateway.start_job()
    entered = await _while_it_is_under_way(gateway, run, [{"id": "2", "tier": "gold"}])
    assert entered == ["REALIZED", "REALIZED"]
    assert await gateway.statuses(gold) == ["EXISTING"], "the job's own result, from data without the batch"
    assert await gateway.stream() == 1
    assert await gateway.statuses(gold) == ["EXISTING", "REALIZED"]
    assert await gateway.numbers(gold) == (2, {"crm": 2})
    assert await gateway.nothing_waits()
    assert await gateway.count(StreamingBatchRow) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_batch_that_the_job_has_seen_is_not_streamed_again(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "2", "tier": "gold"}])
    run = await gateway.start_job()
    entered = await _while_it_is_under_way(gateway, run, [])
    assert entered == ["REALIZED"]
    assert await gateway.statuses(gold) == ["REALIZED", "REALIZED"]
    assert await gateway.nothing_waits()


async def _while_it_is_under_way(gateway: Gateway, run: Attempt, rows: list[dict[str, Any]]) -> list[str]:
    """Runs the job; between its snapshot and its end a batch lands and is streamed. The statuses just then."""
    found: list[str] = []
    finish = run.finish

    async def late(*arguments: Any, **options: Any) -> str:
        if rows:
            await gateway.people(rows)
        await gateway.stream()
        async with gateway.database.session() as session:
            (id_,) = await session.scalars(select(columns(AudienceRow).id))
        found.extend(await gateway.statuses(id_))
        return await finish(*arguments, **options)

    run.finish = late  # type: ignore[method-assign]
    await run_segment_job(run, gateway.lake, 1)
    assert run.ended_as == "SUCCEEDED"
    return found


async def test_a_resumed_job_counts_against_what_was_streamed_when_it_began(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    await gateway.people([{"id": "2", "tier": "gold"}])
    await gateway.stream()
    first = await gateway.start_job()
    first.stop()
    await run_segment_job(first, gateway.lake, 1)
    await gateway.people([{"id": "2", "tier": "tin"}])
    await gateway.stream()
    assert await gateway.statuses(gold) == ["EXITED", "REALIZED"]
    await first.hand_back()
    claim = await claim_next(gateway.database, gateway.clock, owner="other", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    assert claim.token == 2
    await run_segment_job(Attempt(gateway.database, gateway.clock, claim), gateway.lake, 1)
    assert await gateway.statuses(gold) == ["EXISTING", "EXISTING"]
    await gateway.stream()
    assert await gateway.statuses(gold) == ["EXISTING", "EXITED"]
    assert await gateway.numbers(gold) == (1, {"crm": 1})


async def test_a_turn_whose_heads_were_replaced_begins_again(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    await gateway.people([{"id": "2", "tier": "gold"}])
    publish, tries = streaming._publish, 0

    async def late(*arguments: Any) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            await gateway.job()
        return await publish(*arguments)

    monkeypatch.setattr(streaming, "_publish", late)
    await gateway.stream()
    assert tries == 2
    assert await gateway.statuses(gold) == ["EXISTING", "EXISTING"]
    assert await gateway.numbers(gold) == (2, {"crm": 2})


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_patches_are_kept_for_history_and_the_newest_for_good(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    for tier in ("gold", "tin", "gold"):
        await gateway.people([{"id": "1", "tier": tier}])
        await gateway.stream()
    assert await gateway.count(MembershipPatchRow) == 3  # for history
    await forget_changes(gateway.database, SCOPE.tenant, gateway.clock() + timedelta(seconds=1))
    assert await gateway.count(MembershipPatchRow) == 1
    run = await gateway.start_job()
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.stream()
    assert await gateway.count(MembershipPatchRow) == 2
    await run.finish(JobStatus.FAILED)
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.stream()
    await forget_changes(gateway.database, SCOPE.tenant, gateway.clock() + timedelta(seconds=1))
    assert await gateway.count(MembershipPatchRow) == 1


async def test_what_was_streamed_stays_when_the_definition_is_streamed_no_more(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    other = await gateway.define("Other", 'tier = "tin"')
    await gateway.job()
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.stream()
    await gateway.set(gold, evaluates_streaming=False)
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.stream()
    assert (await gateway.statuses(gold), await gateway.numbers(gold)) == (["REALIZED"], (1, {"crm": 1}))
    assert (await gateway.statuses(other), await gateway.numbers(other)) == (["REALIZED"], (1, {"crm": 1}))


# ---------------------------------------------------------------- turns


async def test_one_worker_at_a_time_has_the_turn_of_a_sandbox(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    found = await asyncio.gather(
        *(claim_turn(gateway.database, gateway.clock, owner=f"w{n}", lease=LEASE) for n in range(8))
    )
    assert sum(turn is not None for turn in found) == 1


async def test_a_worker_that_lost_its_lease_changes_nothing_and_the_next_does_it_all(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    frozen = await gateway.take()
    gateway.clock.advance(LEASE + timedelta(seconds=1))
    assert await gateway.stream() == 1
    with pytest.raises(LeaseLost):
        await run_turn(gateway.database, gateway.lake, gateway.clock, frozen, 1, lambda: False)
    assert (await gateway.statuses(gold), await gateway.numbers(gold)) == (["REALIZED"], (1, {"crm": 1}))


async def test_a_stopping_worker_leaves_its_turn_to_another(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    turn = await gateway.take()
    with pytest.raises(Cancelled):
        await run_turn(gateway.database, gateway.lake, gateway.clock, turn, 1, lambda: True)
    assert await gateway.nothing_waits()
    await hand_back(gateway.database, turn)
    assert await gateway.stream() == 1
    assert await gateway.statuses(gold) == ["REALIZED"]


async def test_a_sandbox_rests_longer_after_each_failure(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    for pause in (*PAUSES, PAUSES[-1]):
        assert await postpone(gateway.database, await gateway.take(), gateway.clock()) == pause
        if pause:
            gateway.clock.advance(pause - timedelta(microseconds=1))
            assert await gateway.nothing_waits()
            gateway.clock.advance(timedelta(microseconds=1))
    assert await gateway.stream() == 1
    await gateway.people([{"id": "1", "tier": "tin"}])
    assert await postpone(gateway.database, await gateway.take(), gateway.clock()) == PAUSES[0]


async def test_workers_that_die_again_and_again_do_so_ever_more_rarely(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.define("Gold", 'tier = "gold"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.take()
    gateway.clock.advance(LEASE + timedelta(seconds=1))
    await gateway.take()
    gateway.clock.advance(LEASE + timedelta(seconds=1))
    assert await gateway.nothing_waits()
    gateway.clock.advance(PAUSES[1])
    assert (await gateway.take()).number == 3


async def test_another_sandbox_is_not_touched(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    await gateway.define("Gold", 'tier = "gold"')
    file = gateway.folder / "other.ndjson"
    file.write_text('{"id": "1", "tier": "gold"}')
    other = type(SCOPE)(SCOPE.organisation, "dev", "ann")
    await ingest_file(
        gateway.database,
        gateway.lake,
        gateway.clock,
        other,
        NewDataset("people", DatasetKind.PROFILE, "id", "crm", None),
        InputFile(file, "NDJSON"),
    )
    assert await gateway.nothing_waits()


async def test_only_audiences_that_changed_are_announced(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.define("Lead", 'tier = "lead"')
    await gateway.people([{"id": "1", "tier": "gold"}])
    turn = await gateway.take()
    announced: set[Any] = set()
    gateway.database.on_commit(announced.update)
    await run_turn(gateway.database, gateway.lake, gateway.clock, turn, 1, lambda: False)
    assert announced == {audience_topic(SCOPE.tenant, gold)}
