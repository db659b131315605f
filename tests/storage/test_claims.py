"""The queue: one worker for a job, turns among tenants, and nothing written by a worker whose time is over."""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert, text

from app.clock import FixedClock
from app.scope import Tenant
from app.storage.database import Database
from app.storage.queue.claims import Claim, claim_next, fence, hand_back, look, renew, request_cancel
from app.storage.queue.leases import LeaseLost
from app.storage.tables.jobs import JobKind
from app.storage.tables.segment_jobs import SegmentJobRow
from tests.support.jobs import ACME, GLOBEX, history, job, queue, queue_export

LEASE = timedelta(seconds=15)


async def claim(database: Database, clock: FixedClock, owner: str = "w1") -> Claim | None:
    return await claim_next(database, clock, owner=owner, lease=LEASE, kind=JobKind.SEGMENT)


async def claimed(database: Database, clock: FixedClock, owner: str = "w1") -> Claim:
    found = await claim(database, clock, owner)
    assert found is not None
    return found


async def cancel(database: Database, clock: FixedClock, id: str, tenant: Tenant = ACME) -> None:
    async with database.write() as session:
        await request_cancel(session, tenant, id, clock(), JobKind.SEGMENT)


async def test_an_empty_queue_gives_nothing(database: Database, clock: FixedClock) -> None:
    assert await claim(database, clock) is None


async def test_a_claimed_job_runs_and_says_so(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    clock.advance(timedelta(seconds=3))
    mine = await claimed(database, clock)
    assert (mine.job_id, mine.tenant, mine.token, mine.owner) == ("j1", ACME, 1, "w1")
    row = await job(database, "j1")
    assert (row.status, row.phase, row.attempts, row.lease_owner) == ("PROCESSING", "READING", 1, "w1")
    assert (row.started_at, row.updated_at, row.lease_until) == (clock(), clock(), clock() + LEASE)
    assert await history(database, "j1", "status", "sequence") == [(1, "QUEUED", 1), (2, "PROCESSING", 2)]
    assert await claim(database, clock, "w2") is None


async def test_of_many_claimers_one_gets_the_job(database: Database, database_url: str, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    others = [Database(database_url) for _ in range(3)]
    try:
        claims = await asyncio.gather(*(claim(one, clock, str(n)) for n, one in enumerate(others * 4)))
    finally:
        for one in others:
            await one.dispose()
    assert [found.token for found in claims if found is not None] == [1]
    assert (await job(database, "j1")).attempts == 1


async def test_claimers_of_many_jobs_get_different_ones(database: Database, clock: FixedClock) -> None:
    ids = [f"j{n:02}" for n in range(12)]
    await queue(database, clock(), *ids)
    claims = await asyncio.gather(*(claimed(database, clock, str(n)) for n in range(12)))
    assert sorted(found.job_id for found in claims) == ids


_CLAIMS_ALL = """
import asyncio, json, sys
from datetime import timedelta
from app.clock import utc_now
from app.storage.queue.claims import claim_next
from app.storage.database import Database
from app.storage.tables.jobs import JobKind

async def main():
    database = Database(sys.argv[1])
    found = []
    mine = {"owner": sys.argv[2], "lease": timedelta(hours=1), "kind": JobKind.SEGMENT}
    while (claim := await claim_next(database, utc_now, **mine)) is not None:
        found.append(claim.job_id)
    await database.dispose()
    print(json.dumps(found))

asyncio.run(main())
"""


async def test_processes_share_the_queue_without_doing_a_job_twice(
    database: Database, database_url: str, clock: FixedClock
) -> None:
    ids = [f"j{n:02}" for n in range(30)]
    await queue(database, clock(), *ids)
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CLAIMS_ALL, database_url, str(number)),
            cwd=Path(__file__).parents[2],
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(2)
    ]
    outputs = [json.loads((await process.communicate())[0]) for process in processes]
    assert sorted(outputs[0] + outputs[1]) == ids


# ---------------------------------------------------------------- turns


async def test_jobs_of_a_tenant_go_in_the_order_of_their_creation(database: Database, clock: FixedClock) -> None:
    for name in ("b", "a", "c"):
        await queue(database, clock(), name)
        clock.advance(timedelta(seconds=1))
    assert [(await claimed(database, clock)).job_id for _ in range(3)] == ["b", "a", "c"]


async def test_many_jobs_of_one_tenant_do_not_hold_up_the_first_of_another(
    database: Database, clock: FixedClock
) -> None:
    row = {"organisation": "acme", "sandbox": "prod", "created_by": "a", "created_at": clock(), "updated_at": clock()}
    async with database.write() as session:
        await session.execute(insert(SegmentJobRow), [{**row, "id": f"a{n:03}"} for n in range(1_000)])
    assert (await claimed(database, clock)).job_id == "a000"
    clock.advance(timedelta(seconds=1))
    await queue(database, clock(), "g1", "g2", tenant=GLOBEX)
    # One runs for acme, none for globex; then one each, and acme was served longer ago.
    assert [(await claimed(database, clock)).job_id for _ in range(3)] == ["g1", "a001", "g2"]


async def test_tenants_take_turns_though_only_one_job_runs_at_a_time(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "a1", "a2", "a3")
    clock.advance(timedelta(seconds=1))
    await queue(database, clock(), "g1", "g2", tenant=GLOBEX)
    order = []
    for _ in range(5):
        clock.advance(timedelta(seconds=1))
        mine = await claimed(database, clock)
        order.append(mine.job_id)
        await _end(database, mine)
    assert order == ["a1", "g1", "a2", "g2", "a3"]


# ---------------------------------------------------------------- leases and fencing


async def test_a_job_is_taken_over_when_its_lease_has_run_out_and_not_before(
    database: Database, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    await claimed(database, clock)
    clock.advance(LEASE)
    assert await claim(database, clock, "w2") is None
    clock.advance(timedelta(microseconds=1))
    taken = await claimed(database, clock, "w2")
    assert (taken.job_id, taken.token, taken.row.lost_leases) == ("j1", 2, 1)
    assert taken.row.started_at == clock() - LEASE - timedelta(microseconds=1)


async def test_a_renewed_lease_is_not_taken_over(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    mine = await claimed(database, clock)
    clock.advance(timedelta(seconds=10))
    assert await renew(database, mine, clock()) == "PROCESSING"
    clock.advance(timedelta(seconds=10))
    assert await claim(database, clock, "w2") is None


async def test_who_lost_the_lease_can_neither_renew_nor_look_nor_hand_back_nor_write(
    database: Database, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    late = await claimed(database, clock)
    clock.advance(LEASE * 2)
    await claimed(database, clock, "w2")
    before = await job(database, "j1")

    async def write() -> None:
        async with database.write() as session:
            await fence(session, late, clock())

    for act in (lambda: renew(database, late, clock()), lambda: look(database, late), write):
        with pytest.raises(LeaseLost, match="attempt 1 at job j1 has lost its lease"):
            await act()
    with pytest.raises(LeaseLost):
        await hand_back(database, late, clock())
    assert await job(database, "j1") == before


async def test_an_expired_lease_that_nobody_took_still_counts(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    mine = await claimed(database, clock)
    clock.advance(LEASE * 2)
    assert await renew(database, mine, clock()) == "PROCESSING"
    assert await claim(database, clock, "w2") is None


async def test_a_takeover_waits_for_a_fenced_write_and_then_finds_the_lease_renewed(
    database: Database, database_url: str, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    mine = await claimed(database, clock)
    clock.advance(LEASE * 2)
    other = Database(database_url)
    try:
        async with database.write() as session:
            await fence(session, mine, clock())
            taking = asyncio.create_task(claim(other, clock, "w2"))
            await asyncio.wait([taking], timeout=0.2)
        assert await taking is None
    finally:
        await other.dispose()
    assert (await job(database, "j1")).attempts == 1


async def test_a_job_handed_back_is_taken_up_at_once_and_counts_as_no_loss(
    database: Database, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    await hand_back(database, await claimed(database, clock), clock())
    row = await job(database, "j1")
    assert (row.status, row.lease_owner, row.lease_until) == ("PROCESSING", None, None)
    again = await claimed(database, clock, "w2")
    assert (again.token, again.row.lost_leases) == (2, 0)


async def test_a_job_whose_workers_keep_dying_fails_with_the_reason(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    for attempt in range(1, 6):
        assert (await claimed(database, clock)).token == attempt
        clock.advance(LEASE * 2)
    assert await claim(database, clock) is None
    row = await job(database, "j1")
    assert (row.status, row.phase, row.attempts, row.finished_at) == ("FAILED", "DONE", 6, clock())
    assert (row.lease_owner, row.lease_until) == (None, None)
    assert [error["code"] for error in row.errors] == ["WORKERS_LOST"]
    assert row.errors[0]["message"].startswith("5 workers in a row crashed")
    assert (await history(database, "j1", "status"))[-1] == (7, "FAILED")


# ---------------------------------------------------------------- cancelling


async def test_a_waiting_job_is_cancelled_at_once(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    clock.advance(timedelta(seconds=1))
    await cancel(database, clock, "j1")
    row = await job(database, "j1")
    assert (row.status, row.phase, row.finished_at) == ("CANCELLED", "DONE", clock())
    assert await claim(database, clock) is None


async def test_a_running_job_is_asked_to_stop_once(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    mine = await claimed(database, clock)
    await cancel(database, clock, "j1")
    await cancel(database, clock, "j1")
    assert await look(database, mine) == "CANCELLING"
    assert [status for _, status in await history(database, "j1", "status")] == ["QUEUED", "PROCESSING", "CANCELLING"]


async def test_a_job_that_nobody_holds_is_cancelled_at_once(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    await hand_back(database, await claimed(database, clock), clock())
    await cancel(database, clock, "j1")
    assert (await job(database, "j1")).status == "CANCELLED"


async def test_a_cancelling_job_whose_worker_died_ends_as_cancelled(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    await claimed(database, clock)
    await cancel(database, clock, "j1")
    clock.advance(LEASE * 2)
    assert await claim(database, clock, "w2") is None
    row = await job(database, "j1")
    assert (row.status, row.lease_owner, row.finished_at) == ("CANCELLED", None, clock())


async def test_a_job_handed_back_while_it_was_cancelling_is_cancelled(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    mine = await claimed(database, clock)
    await cancel(database, clock, "j1")
    await hand_back(database, mine, clock())
    assert (await job(database, "j1")).status == "CANCELLED"


async def test_cancelling_touches_no_other_tenant(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    await cancel(database, clock, "j1", tenant=GLOBEX)
    assert await history(database, "j1", "status") == [(1, "QUEUED")]
    assert (await job(database, "j1")).status == "QUEUED"


async def _end(database: Database, mine: Claim) -> None:
    async with database.write() as session:
        await session.execute(text("UPDATE segment_job SET status = 'SUCCEEDED' WHERE id = :id"), {"id": mine.job_id})


async def test_a_job_that_waits_for_another_is_not_its_turn_until_that_has_ended(
    database: Database, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    await queue_export(database, clock(), "e1", waits_for="j1")
    await queue_export(database, clock(), "e2")

    async def next_export() -> str | None:
        found = await claim_next(database, clock, owner="w1", lease=LEASE, kind=JobKind.EXPORT)
        return found.job_id if found else None

    assert [await next_export(), await next_export()] == ["e2", None]
    first = await claimed(database, clock)
    assert await next_export() is None
    await cancel(database, clock, "j1")
    assert await next_export() is None
    await hand_back(database, first, clock())
    assert (await job(database, "j1")).status == "CANCELLED"
    assert [await next_export(), await next_export()] == ["e1", None]
