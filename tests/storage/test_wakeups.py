"""The update log and who is woken by it: within a process and across two of them, with nothing lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.clock import FixedClock
from app.storage.database import Database
from app.storage.job_log import JobState, append_update, changed_jobs, read_updates
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind, JobStatus
from app.storage.topics import QUEUE, Topic, job_topic, jobs_topic, publish
from app.storage.wakeups import Changes, _wake_logged
from tests.support.jobs import ACME, GLOBEX, history, job, queue


@asynccontextmanager
async def another(database_url: str) -> AsyncIterator[Database]:
    """What another process has: its own connections, and nothing in common but the database."""
    database = Database(database_url)
    try:
        yield database
    finally:
        await database.dispose()


async def bump(database: Database, id: str) -> None:
    async with database.write() as session:
        await append_update(session, await job(database, id), JobKind.SEGMENT)


async def sequences(database: Database, id: str, after: int = 0) -> list[int]:
    async with database.session() as session:
        return [state.row.sequence for state in await read_updates(session, ACME, id, after)]


# ---------------------------------------------------------------- the log


async def test_concurrent_updates_leave_no_gap_and_no_double(
    database: Database, database_url: str, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    async with another(database_url) as other:
        await asyncio.gather(*(bump(one, "j1") for one in (database, other) * 10))
    assert await history(database, "j1") == [(number,) for number in range(1, 22)]
    assert (await job(database, "j1")).sequence == 21


async def test_an_update_that_is_rolled_back_takes_no_number(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")

    async def fail() -> None:
        async with database.write() as session:
            await append_update(session, await job(database, "j1"), JobKind.SEGMENT)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        await fail()
    await bump(database, "j1")
    assert await sequences(database, "j1") == [1, 2]


async def test_updates_read_like_the_job_at_that_time(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    clock.advance(timedelta(seconds=1, microseconds=5))
    claim = await claim_next(database, clock, owner="w1", lease=timedelta(seconds=15), kind=JobKind.SEGMENT)
    assert claim is not None
    await Attempt(database, clock, claim).finish(JobStatus.FAILED, errors=[{"code": "X", "message": "why"}])
    async with database.session() as session:
        queued, running, failed = (state.row for state in await read_updates(session, ACME, "j1", 0))
    assert (queued.status, queued.started_at, queued.attempts) == ("QUEUED", None, 0)
    assert (running.status, running.started_at, running.attempts) == ("PROCESSING", clock(), 1)
    assert (failed.status, failed.finished_at, failed.errors) == ("FAILED", clock(), [{"code": "X", "message": "why"}])
    assert (failed.id, failed.created_by, failed.all_definitions) == ("j1", "ada", False)


async def test_reading_resumes_after_a_sequence_and_stays_within_the_tenant(
    database: Database, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1", "j2")
    await queue(database, clock(), "j1", tenant=GLOBEX)
    await bump(database, "j1")
    assert [await sequences(database, "j1", after) for after in (0, 1, 2)] == [[1, 2], [2], []]
    async with database.session() as session:
        assert len(await read_updates(session, GLOBEX, "j1", 0)) == 1


async def test_changed_jobs_are_those_of_the_tenant_since_an_instant(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "old")
    await queue(database, clock() + timedelta(seconds=1), "elsewhere", tenant=GLOBEX)
    clock.advance(timedelta(seconds=1))
    await queue(database, clock(), "new", "newer")
    await bump(database, "newer")
    async with database.session() as session:
        assert await changed_jobs(session, ACME, clock()) == {"new": 1, "newer": 2}


# ---------------------------------------------------------------- wake-ups


@pytest.mark.parametrize("topic", [job_topic(ACME, "j1"), jobs_topic(ACME), QUEUE], ids=lambda topic: topic.kind)
async def test_a_commit_wakes_who_waits_for_it(
    database: Database, changes: Changes, clock: FixedClock, topic: Topic
) -> None:
    async with changes.subscribe(topic) as wakeups:
        await queue(database, clock(), "j1")
        # No wait: whoever reads the log right after the commit may rely on the flag.
        assert await wakeups.wait(0)


async def test_what_is_rolled_back_wakes_nobody(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")

    async def fail() -> None:
        async with database.write() as session:
            await append_update(session, await job(database, "j1"), JobKind.SEGMENT)
            raise RuntimeError("stop")

    # Opened only now, so that what was written before wakes nobody any more.
    async with (
        Changes.open(database) as changes,
        changes.subscribe(job_topic(ACME, "j1")) as wakeups,
        changes.subscribe(QUEUE) as witness,
    ):
        with pytest.raises(RuntimeError, match="stop"):
            await fail()
        await queue(database, clock(), "j2")
        assert await witness.wait(0)
        assert not await wakeups.wait(0)


@pytest.mark.parametrize("topic", [job_topic(ACME, "j1"), jobs_topic(ACME), QUEUE], ids=lambda topic: topic.kind)
async def test_another_process_s_commit_wakes_too(
    database_url: str, changes: Changes, clock: FixedClock, topic: Topic
) -> None:
    async with another(database_url) as other, changes.subscribe(topic) as wakeups:
        await queue(other, clock(), "j1")
        assert await wakeups.wait(30)


async def test_another_process_s_commit_wakes_only_who_waits_for_it(
    database: Database, database_url: str, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1", "j2")
    async with (
        another(database_url) as other,
        Changes.open(database) as changes,
        changes.subscribe(job_topic(ACME, "j1")) as mine,
        changes.subscribe(job_topic(ACME, "j2")) as others,
        changes.subscribe(job_topic(GLOBEX, "j1")) as elsewhere,
    ):
        await bump(other, "j1")
        assert await mine.wait(30)
        assert not await others.wait(0)
        assert not await elsewhere.wait(0)


async def test_many_wakeups_are_one_for_a_slow_reader(database: Database, changes: Changes, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    async with changes.subscribe(jobs_topic(GLOBEX)) as wakeups:
        for name in ("g1", "g2", "g3"):
            await queue(database, clock(), name, tenant=GLOBEX)
        assert await wakeups.wait(0)
        async with database.session() as session:
            assert await changed_jobs(session, GLOBEX, clock()) == {"g1": 1, "g2": 1, "g3": 1}


async def test_a_reader_that_subscribes_before_it_reads_sees_every_update_in_order(
    database: Database, database_url: str, changes: Changes, clock: FixedClock
) -> None:
    await queue(database, clock(), "j1")
    seen: list[int] = []

    async def follow() -> None:
        async with changes.subscribe(job_topic(ACME, "j1")) as wakeups:
            while len(seen) < 41:
                seen.extend(await sequences(database, "j1", seen[-1] if seen else 0))
                if len(seen) < 41:
                    await wakeups.wait()

    async with another(database_url) as other:
        following = asyncio.create_task(follow())
        for _ in range(20):
            await bump(other, "j1")
            await bump(database, "j1")
        await following
    assert seen == list(range(1, 42))


async def test_nobody_is_kept_after_unsubscribing(changes: Changes) -> None:
    async with changes.subscribe(QUEUE), changes.subscribe(QUEUE):
        pass
    changes.wake_all()
    assert (changes._subscribers, changes._topics) == ({}, {})


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_cut_connection_is_made_up_for(database: Database, database_url: str, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    listener = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query = :q"
    )
    async with (
        another(database_url) as other,
        Changes.open(database) as changes,
        changes.subscribe(job_topic(ACME, "j1")) as wakeups,
    ):
        async with other.write() as session:
            cut = list(await session.execute(text(listener), {"q": 'LISTEN "segmentation"'}))
        assert len(cut) == 1
        # First the wake-up of the new connection, for what may have been missed; then every commit's again.
        assert await wakeups.wait(30)
        await bump(other, "j1")
        assert await wakeups.wait(30)


async def test_thousands_of_topics_are_told_in_one_transaction(database: Database, database_url: str) -> None:
    topics = [Topic("audience", "acme", "prod", str(number)) for number in range(4_000)]
    async with (
        another(database_url) as other,
        Changes.open(other) as elsewhere,
        elsewhere.subscribe(topics[-1]) as wakeups,
    ):
        await wakeups.wait(0.3)  # what is made up for when listening begins
        async with database.write() as session:
            await session.execute(text("CREATE TABLE scrap (id INTEGER)"))  # SQLite tells only what has written
            await publish(session, *topics)
        assert await wakeups.wait(10)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_row_ids_that_sqlite_gives_again_wake_all(database: Database, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    changes = Changes()
    async with changes.subscribe(job_topic(ACME, "j1")) as wakeups, database.engines[0].connect() as connection:
        # The newest known row was 9; rows 2 to 9 were deleted, and a new one may have any of their numbers.
        assert await _wake_logged(connection, changes, 9) == 1
        assert await wakeups.wait(0)
        assert await _wake_logged(connection, changes, 1) == 1
        assert not await wakeups.wait(0)


async def test_a_failed_read_of_a_tail_leaves_the_wake_up_for_the_next(
    database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await queue(database, clock(), "j1")
    changes = Changes()
    with changes.tail(database, ACME, "j1", 1) as tail:
        assert [state.row.sequence for state in await tail.after(0, 1)] == [1]
        await bump(database, "j1")
        changes.wake(job_topic(ACME, "j1"))

        async def read(*_arguments: object) -> list[JobState]:
            raise RuntimeError("stop")

        with monkeypatch.context() as broken:
            broken.setattr("app.storage.wakeups.read_updates", read)
            with pytest.raises(RuntimeError, match="stop"):
                await tail.after(1, 1)
        assert [state.row.sequence for state in await tail.after(1, 1)] == [2]


async def test_the_end_of_a_job_wakes_who_waits(database: Database, changes: Changes, clock: FixedClock) -> None:
    await queue(database, clock(), "j1")
    claim = await claim_next(database, clock, owner="w1", lease=timedelta(seconds=15), kind=JobKind.SEGMENT)
    assert claim is not None
    async with (
        changes.subscribe(job_topic(ACME, "j1")) as mine,
        changes.subscribe(jobs_topic(ACME)) as every,
        changes.subscribe(QUEUE) as workers,
    ):
        for wakeups in (mine, every, workers):
            wakeups.take()
        await Attempt(database, clock, claim).finish(JobStatus.SUCCEEDED)
        # A job that waits for this one can be taken up now.
        assert [await wakeups.wait(0) for wakeups in (mine, every, workers)] == [True, True, True]
