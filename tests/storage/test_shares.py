"""Shares of a job: each bucket is claimed by one worker at a time and recorded once, by the newest who claimed it."""

from datetime import timedelta
from typing import Any

import pytest

from app.clock import FixedClock
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next, request_cancel
from app.storage.queue.leases import LeaseLost
from app.storage.queue.shares import (
    Share,
    SharedWork,
    ShareLost,
    claim_shares,
    done_shares,
    find_shared,
    forget_shares,
    is_wanted,
    keep_shares,
    publish_shares,
    record_share,
    release_shares,
    results_of_shares,
    withdraw_shares,
)
from app.storage.tables.jobs import JobKind, JobStatus
from tests.support.jobs import ACME, GLOBEX, queue

LEASE = timedelta(seconds=15)


class Shared:
    """A job with the token 1 whose buckets 1 to 4 are shared."""

    def __init__(self, database: Database, clock: FixedClock, attempt: Attempt) -> None:
        self.database, self.clock, self.attempt = database, clock, attempt
        self.work = SharedWork(ACME, "j1", 1, "w1", 0)

    async def publish(self, *buckets: int) -> None:
        await self.attempt.write(lambda session: publish_shares(session, self.work, buckets))

    async def claim(self, owner: str, most: int = 9, **options: Any) -> list[Share]:
        return await claim_shares(self.database, self.clock, self.work, owner, LEASE, most, **options)

    async def record(self, share: Share, file: str = "f") -> None:
        row = {"organisation": "acme", "sandbox": "prod", "job_id": "j1", "bucket": share.bucket, "attempt": 1}
        row |= {"file": file, "profiles": 5, "counts": {}}
        await record_share(self.database, self.clock(), self.work, share, {"profiles": 5}, row)

    async def recorded(self) -> dict[int, str]:
        return {bucket: row.file for bucket, row in (await self.attempt.done_buckets()).items()}

    async def seen(self, *but: str) -> SharedWork | None:
        async with self.database.session() as session:
            return await find_shared(session, self.clock(), but)


@pytest.fixture
async def shared(database: Database, clock: FixedClock) -> Shared:
    await queue(database, clock(), "j1")
    await queue(database, clock(), "j1", tenant=GLOBEX)
    claim = await claim_next(database, clock, owner="holder", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    assert claim.tenant == ACME
    shared = Shared(database, clock, Attempt(database, clock, claim))
    await shared.publish(1, 2, 3, 4)
    return shared


async def test_each_bucket_is_one_workers(shared: Shared) -> None:
    assert await shared.claim("a", 2) == [Share(1, 1), Share(2, 1)]
    assert await shared.claim("b") == [Share(3, 1), Share(4, 1)]
    assert await shared.claim("c") == []
    assert await shared.seen() is None


async def test_a_helper_finds_what_waits_and_not_what_it_leaves(shared: Shared) -> None:
    assert await shared.seen() == shared.work
    assert await shared.seen("w1") is None


async def test_what_is_recorded_counts_once(shared: Shared) -> None:
    first, *_ = await shared.claim("a")
    await shared.record(first, "one")
    with pytest.raises(ShareLost, match="bucket 1 of job j1 was taken over"):
        await shared.record(first, "two")
    assert await shared.recorded() == {1: "one"}
    async with shared.database.session() as session:
        assert await done_shares(session, shared.work) == {1}
        assert await results_of_shares(session, shared.work, [1, 2]) == {1: {"profiles": 5}, 2: None}


async def test_whoever_was_frozen_for_longer_than_its_lease_records_nothing(shared: Shared) -> None:
    frozen, *_ = await shared.claim("a", 1)
    shared.clock.advance(LEASE * 2)
    successor, *_ = await shared.claim("b", 1)
    assert (frozen, successor) == (Share(1, 1), Share(1, 2))
    with pytest.raises(ShareLost):
        await shared.record(frozen, "late")
    await shared.record(successor, "right")
    assert await shared.recorded() == {1: "right"}


async def test_a_kept_lease_is_held_and_a_released_one_is_not(shared: Shared) -> None:
    await shared.claim("a")
    shared.clock.advance(LEASE * 0.9)
    await keep_shares(shared.database, shared.clock(), shared.work, "a", LEASE)
    shared.clock.advance(LEASE * 0.9)
    assert await shared.claim("b") == []
    await release_shares(shared.database, shared.work, "b")
    assert await shared.claim("b") == []
    await release_shares(shared.database, shared.work, "a")
    assert await shared.claim("b", 1) == [Share(1, 2)]


async def test_the_holder_may_take_over_what_is_held_and_nothing_that_is_done(shared: Shared) -> None:
    done, held, *_ = await shared.claim("a")
    await shared.record(done)
    assert await shared.claim("holder", held=True) == [Share(2, 2), Share(3, 2), Share(4, 2)]
    with pytest.raises(ShareLost):
        await shared.record(held)


async def test_a_job_with_another_holder_takes_nothing_from_helpers_of_the_one_before(shared: Shared) -> None:
    early, late, *_ = await shared.claim("a")
    await shared.record(early)
    shared.clock.advance(LEASE * 2)
    claims = [
        await claim_next(shared.database, shared.clock, owner="next", lease=LEASE, kind=JobKind.SEGMENT) for _ in "ab"
    ]
    claim = next(claim for claim in claims if claim is not None and claim.tenant == ACME)
    assert claim.token == 2
    assert not await is_wanted(shared.database, shared.work)
    assert await shared.seen() is None
    with pytest.raises(LeaseLost):
        await shared.record(late)
    successor = Attempt(shared.database, shared.clock, claim)
    results: list[Any] = []

    async def withdraw(session: Any) -> None:
        results.extend(await withdraw_shares(session, ACME, "j1"))

    await successor.write(withdraw)
    assert results == [(0, 1, {"profiles": 5})]
    assert await shared.claim("a") == []
    assert await shared.recorded() == {1: "f"}


async def test_what_is_withdrawn_or_published_anew_is_lost(shared: Shared) -> None:
    before, *_ = await shared.claim("a")
    shared.work = SharedWork(ACME, "j1", 1, "w2", 1)
    await shared.publish(1, 2)
    again, *_ = await shared.claim("b")
    assert again == before
    shared.work = SharedWork(ACME, "j1", 1, "w1", 0)
    with pytest.raises(ShareLost):
        await shared.record(before)


@pytest.mark.parametrize("end", ["cancelled", "ended"])
async def test_a_job_that_stops_wants_no_help(shared: Shared, end: str) -> None:
    share, *_ = await shared.claim("a", 1)
    assert await is_wanted(shared.database, shared.work)
    if end == "cancelled":
        async with shared.database.write() as session:
            await request_cancel(session, ACME, "j1", shared.clock(), JobKind.SEGMENT)
    else:
        await shared.attempt.finish(JobStatus.SUCCEEDED)
    assert not await is_wanted(shared.database, shared.work)
    assert await shared.seen() is None
    if end == "ended":
        with pytest.raises(LeaseLost):
            await shared.record(share)
        async with shared.database.write() as session:
            await forget_shares(session, ACME)
        async with shared.database.session() as session:
            assert await results_of_shares(session, shared.work, [1, 2, 3, 4]) == {}


async def test_shares_of_running_jobs_are_not_forgotten(shared: Shared) -> None:
    async with shared.database.write() as session:
        await forget_shares(session, ACME)
    assert len(await shared.claim("a")) == 4
