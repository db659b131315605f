"""An attempt at a job: what it writes, what it is refused, and what others see of it."""

import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import FixedClock
from app.storage.database import Database
from app.storage.queue.attempts import Attempt, BucketAlreadyRecorded
from app.storage.queue.claims import change_job, claim_next, request_cancel
from app.storage.queue.leases import LeaseLost
from app.storage.tables.datasets import DatasetRow
from app.storage.tables.jobs import JobKind, JobPhase, JobStatus
from tests.support.jobs import ACME, history, job, queue

LEASE = timedelta(seconds=15)


class Seconds:
    """A stopwatch that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
async def run(database: Database, clock: FixedClock, seconds: Seconds) -> Attempt:
    await queue(database, clock(), "j1")
    return await begin(database, clock, seconds)


async def begin(database: Database, clock: FixedClock, seconds: Seconds) -> Attempt:
    claim = await claim_next(database, clock, owner="w1", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    return Attempt(database, clock, claim, monotonic=seconds)


async def take_over(run: Attempt, clock: FixedClock, seconds: Seconds) -> Attempt:
    clock.advance(LEASE * 2)
    return await begin(run.database, clock, seconds)


async def cancel(run: Attempt) -> None:
    async with run.database.write() as session:
        await request_cancel(session, ACME, "j1", run.clock(), JobKind.SEGMENT)


def adding(run: Attempt, id: str) -> Callable[[AsyncSession], Awaitable[None]]:
    """Work that leaves a trace: a dataset."""

    async def work(session: AsyncSession) -> None:
        now = run.clock()
        values: dict[str, Any] = {
            "name": id,
            "kind": "EVENT",
            "created_by": "ada",
            "created_at": now,
            "updated_at": now,
        }
        session.add(DatasetRow(organisation="acme", sandbox="prod", id=id, **values))

    return work


async def datasets(database: Database) -> int:
    async with database.session() as session:
        return (await session.execute(select(func.count()).select_from(DatasetRow))).scalar_one()


async def test_it_knows_what_it_works_on(run: Attempt) -> None:
    assert (run.job.id, run.job.status, run.tenant, run.token) == ("j1", "PROCESSING", ACME, 1)
    assert (run.cancelled(), run.stopping(), run.interrupted(), run.ended_as) == (False, False, False, None)


async def test_a_write_renews_the_lease_and_is_kept(run: Attempt, clock: FixedClock) -> None:
    clock.advance(timedelta(seconds=10))
    await run.write(adding(run, "d1"))
    assert await datasets(run.database) == 1
    assert (await job(run.database, "j1")).lease_until == clock() + LEASE


async def test_an_update_is_logged_with_its_values(run: Attempt, clock: FixedClock) -> None:
    await run.update(evaluated_at=clock(), snapshot={"versions": [3]}, total_profiles=10)
    assert await history(run.database, "j1", "evaluated_at", "total_profiles") == [
        (1, None, 0),
        (2, None, 0),
        (3, "2026-06-15T12:00:00+00:00", 10),
    ]
    assert (await job(run.database, "j1")).snapshot == {"versions": [3]}


async def test_the_log_shows_nothing_of_the_queue(run: Attempt) -> None:
    await run.update(snapshot={"versions": [3]})
    hidden = ("snapshot", "lease_owner", "lease_until", "lost_leases", "idempotency_key")
    for name in hidden:
        with pytest.raises(KeyError, match=name):
            await history(run.database, "j1", name)


async def test_whoever_was_overtaken_writes_nothing_more(run: Attempt, clock: FixedClock, seconds: Seconds) -> None:
    successor = await take_over(run, clock, seconds)
    before = (await job(run.database, "j1"), await history(run.database, "j1"))
    run.progress(JobPhase.EVALUATING, 0.9, 9, 10)
    late: list[Callable[[], Awaitable[object]]] = [
        lambda: run.write(adding(run, "d1")),
        lambda: run.update(total_profiles=99),
        lambda: run.record_bucket(0, "late", 1, {}),
        lambda: run.write_progress(),
        lambda: run.finish(JobStatus.SUCCEEDED, write=adding(run, "d2")),
        lambda: run.hand_back(),
    ]
    for act in late:
        with pytest.raises(LeaseLost):
            await act()
    assert (await job(run.database, "j1"), await history(run.database, "j1")) == before
    assert (await datasets(run.database), await successor.done_buckets()) == (0, {})
    assert (run.stopping(), run.interrupted(), successor.stopping()) == (True, True, False)


# ---------------------------------------------------------------- buckets


async def test_finished_buckets_are_found_by_the_next_attempt(
    run: Attempt, clock: FixedClock, seconds: Seconds
) -> None:
    await run.record_bucket(3, "three", 100, {"a": {"members": 7}})
    await run.record_bucket(0, "zero", 50, {})
    successor = await take_over(run, clock, seconds)
    found = await successor.done_buckets()
    assert {number: (row.attempt, row.file, row.profiles, row.counts) for number, row in found.items()} == {
        3: (1, "three", 100, {"a": {"members": 7}}),
        0: (1, "zero", 50, {}),
    }


async def test_a_bucket_is_recorded_once(run: Attempt, clock: FixedClock, seconds: Seconds) -> None:
    await run.record_bucket(3, "three", 100, {})
    await run.record_bucket(3, "three", 100, {})
    successor = await take_over(run, clock, seconds)
    with pytest.raises(BucketAlreadyRecorded, match="bucket 3 was finished by attempt 1"):
        await successor.record_bucket(3, "again", 100, {})
    assert (await run.done_buckets())[3].file == "three"


async def test_a_finished_bucket_forgives_the_leases_lost_before(
    run: Attempt, clock: FixedClock, seconds: Seconds
) -> None:
    successor = await take_over(run, clock, seconds)
    assert successor.job.lost_leases == 1
    for bucket in range(3):
        await successor.record_bucket(bucket, str(bucket), 1, {})
    assert (await job(run.database, "j1")).lost_leases == 0
    # The claim of each attempt, and the pardon: a bucket without progress is no visible change.
    assert await history(run.database, "j1") == [(1,), (2,), (3,), (4,)]


# ---------------------------------------------------------------- progress


async def test_progress_is_written_five_times_a_second_at_most_and_the_latest_wins(
    run: Attempt, seconds: Seconds
) -> None:
    for step in range(1, 7):
        run.progress(JobPhase.EVALUATING, step / 10, step, 10, seconds_left=1.5)
        await run.write_progress()
        seconds.now += 0.1
    await run.write_progress()
    steps = await history(run.database, "j1", "phase", "fraction", "profiles_read", "total_profiles", "seconds_left")
    assert steps[2:] == [
        (3, "EVALUATING", 0.1, 1, 10, 1.5),
        (4, "EVALUATING", 0.3, 3, 10, 1.5),
        (5, "EVALUATING", 0.5, 5, 10, 1.5),
    ]
    seconds.now += 0.2
    await run.write_progress()
    await run.write_progress()
    assert [fraction for _, fraction in await history(run.database, "j1", "fraction")][5:] == [0.6]


async def test_a_fraction_never_falls_also_not_with_a_later_attempt(
    run: Attempt, clock: FixedClock, seconds: Seconds
) -> None:
    run.progress(JobPhase.EVALUATING, 0.8, 8, 10)
    await run.write_progress()
    successor = await take_over(run, clock, seconds)
    seconds.now += 1
    for fraction in (0.5, 1.7, -1.0):
        successor.progress(JobPhase.EVALUATING, fraction, int(fraction * 10), 10)
        await successor.write_progress()
        seconds.now += 1
    told = await history(run.database, "j1", "fraction", "profiles_read")
    assert told[2:] == [(3, 0.8, 8), (4, 0.8, 8), (5, 0.8, 8), (6, 1.0, 17), (7, 1.0, 17)]


async def test_a_recorded_bucket_takes_the_progress_along(run: Attempt) -> None:
    run.progress(JobPhase.EVALUATING, 0.5, 5, 10)
    await run.record_bucket(0, "zero", 5, {})
    run.progress(JobPhase.EVALUATING, 0.6, 6, 10)
    await run.record_bucket(1, "one", 1, {})
    assert await history(run.database, "j1", "fraction") == [(1, 0.0), (2, 0.0), (3, 0.5)]


async def test_what_is_noted_during_a_write_is_not_lost(run: Attempt, monkeypatch: pytest.MonkeyPatch) -> None:
    async def slow(*given: Any, **columns: Any) -> None:
        await change_job(*given, **columns)
        monkeypatch.setattr("app.storage.queue.attempts.change_job", change_job)
        run.progress(JobPhase.WRITING, 1.0, 10, 10)

    monkeypatch.setattr("app.storage.queue.attempts.change_job", slow)
    run.progress(JobPhase.EVALUATING, 0.5, 5, 10)
    await run.write_progress()
    await run.finish(JobStatus.SUCCEEDED)
    assert await history(run.database, "j1", "profiles_read") == [(1, 0), (2, 0), (3, 5), (4, 10)]


# ---------------------------------------------------------------- the end


async def test_success_is_complete_and_comes_with_its_work(run: Attempt, clock: FixedClock) -> None:
    run.progress(JobPhase.EVALUATING, 0.5, 10, 10)
    status = await run.finish(JobStatus.SUCCEEDED, metrics={"totalProfiles": 10}, write=adding(run, "d1"))
    row = await job(run.database, "j1")
    assert (status, run.ended_as) == ("SUCCEEDED", "SUCCEEDED")
    assert (row.status, row.phase, row.fraction) == ("SUCCEEDED", "DONE", 1.0)
    assert (row.profiles_read, row.metrics, row.errors, row.finished_at) == (10, {"totalProfiles": 10}, [], clock())
    assert (row.lease_owner, row.lease_until) == (None, None)
    assert await datasets(run.database) == 1


async def test_a_failure_keeps_its_errors_and_how_far_it_came(run: Attempt) -> None:
    run.progress(JobPhase.EVALUATING, 0.5, 5, 10)
    await run.finish(JobStatus.FAILED, errors=[{"code": "X", "message": "why"}])
    row = await job(run.database, "j1")
    assert (row.status, row.fraction, row.errors) == ("FAILED", 0.5, [{"code": "X", "message": "why"}])


async def test_an_end_whose_work_fails_is_no_end(run: Attempt) -> None:
    async def work(session: AsyncSession) -> None:
        await adding(run, "d1")(session)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await run.finish(JobStatus.SUCCEEDED, write=work)
    assert ((await job(run.database, "j1")).status, await datasets(run.database)) == ("PROCESSING", 0)
    assert run.ended_as is None


async def test_a_job_cancelled_in_the_last_moment_ends_as_cancelled_without_its_work(run: Attempt) -> None:
    await cancel(run)
    assert (
        await run.finish(JobStatus.SUCCEEDED, metrics={"totalProfiles": 10}, write=adding(run, "d1"))
        == JobStatus.CANCELLED
    )
    row = await job(run.database, "j1")
    assert (row.status, row.metrics, row.fraction, await datasets(run.database)) == ("CANCELLED", None, 0.0, 0)


async def test_cancelling_is_noticed_with_the_next_write(run: Attempt) -> None:
    await cancel(run)
    await run.record_bucket(0, "zero", 1, {})
    assert (run.cancelled(), run.stopping(), run.interrupted()) == (True, False, True)


async def test_a_stop_is_no_cancelling(run: Attempt) -> None:
    run.stop()
    assert (run.cancelled(), run.stopping(), run.interrupted()) == (False, True, True)


# ---------------------------------------------------------------- the database away


def away() -> OperationalError:
    return OperationalError("COMMIT", {}, sqlite3.OperationalError("database is locked"))


async def test_a_write_waits_for_the_database_and_is_made_once(run: Attempt) -> None:
    tries = 0

    async def work(session: AsyncSession) -> None:
        nonlocal tries
        tries += 1
        await adding(run, "d1")(session)
        await session.flush()
        if tries < 3:
            raise away()

    await run.write(work)
    assert (tries, await datasets(run.database)) == (3, 1)


async def test_a_stopping_attempt_does_not_wait_for_the_database(run: Attempt) -> None:
    async def work(_session: AsyncSession) -> None:
        raise away()

    run.stop()
    with pytest.raises(OperationalError):
        await run.write(work)


async def test_an_end_whose_answer_was_lost_is_found_to_be_made(run: Attempt) -> None:
    await run.finish(JobStatus.SUCCEEDED)
    run.ended_as = None
    assert await run.finish(JobStatus.SUCCEEDED, write=adding(run, "d1")) == JobStatus.SUCCEEDED
    assert await datasets(run.database) == 0


async def test_an_end_that_another_attempt_made_is_not_ours(run: Attempt, clock: FixedClock, seconds: Seconds) -> None:
    """Only who ended the job itself, and lost the answer, may take the end for its own."""
    later = await take_over(run, clock, seconds)
    await later.finish(JobStatus.SUCCEEDED)
    with pytest.raises(LeaseLost):
        await run.finish(JobStatus.SUCCEEDED)
    assert (run.ended_as, later.ended_as) == (None, "SUCCEEDED")
