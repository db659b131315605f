"""Streams of a job: who watches gets every state once and in order, at a price that does not grow with their number."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import FixedClock
from app.errors import DatabaseAway
from app.scope import Scope
from app.services.jobs import watching
from app.storage import wakeups as log
from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.job_log import append_update
from app.storage.tables.jobs import JobKind
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.topics import Topic, job_topic, jobs_topic
from app.storage.wakeups import Changes
from tests.support.databases import count_statements
from tests.support.jobs import ACME, job, queue

SCOPE = Scope(ACME.organisation, ACME.sandbox, "ann")


Watch = Callable[..., AsyncGenerator[Any, None]]


@pytest.fixture
async def watch(database: Database, changes: Changes) -> AsyncIterator[Watch]:
    """Watches the job j1; what is opened is closed."""
    opened: list[AsyncGenerator[Any, None]] = []

    def begin(after: int | None = None) -> AsyncGenerator[Any, None]:
        opened.append(watching.watch(database, changes, SCOPE, JobKind.SEGMENT, "j1", after))
        return opened[-1]

    yield begin
    for stream in opened:
        await stream.aclose()
    assert (changes._shared, changes._subscribers) == ({}, {}), "nothing is kept of who has gone"


async def grow(database: Database, times: int = 1) -> None:
    """The job changes so many times."""
    row = await job(database, "j1")
    for _ in range(times):
        async with database.write() as session:
            await append_update(session, row, JobKind.SEGMENT)


async def sequences(stream: Any, count: int) -> list[int]:
    return [(await anext(stream)).sequence for _ in range(count)]


async def all_wait(changes: Changes, topic: Topic, streams: int) -> None:
    """Returns once so many streams wait for news of the topic."""
    # Nothing tells that somebody waits.
    while sum(len(wakeups._flag._waiters) for wakeups in changes._subscribers.get(topic, ())) < streams:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_an_update_costs_one_read_however_many_watch(
    database: Database, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (log, watching):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 3000.0)  # so that nobody finds by chance what he was not told
    changes = Changes()
    database.on_commit(lambda topics: changes.wake(*topics))
    await queue(database, clock(), "j1")
    streams = [watching.watch(database, changes, SCOPE, JobKind.SEGMENT, "j1") for _ in range(50)]
    assert [await sequences(stream, 1) for stream in streams] == [[1]] * 50
    waiting = [asyncio.create_task(sequences(stream, 1)) for stream in streams]
    await all_wait(changes, job_topic(SCOPE.tenant, "j1"), 50)
    with count_statements(database) as statements:
        await grow(database)
        assert await asyncio.wait_for(asyncio.gather(*waiting), 60) == [[2]] * 50
    assert len([one for one in statements if one.startswith("SELECT") and "FROM job_update" in one]) == 1
    for stream in streams:
        await stream.aclose()


async def test_a_slow_reader_holds_nobody_up_and_goes_on_from_the_log(
    database: Database, changes: Changes, clock: FixedClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "TAIL_STATES", 4)
    await queue(database, clock(), "j1")
    slow, fast = (watch() for _ in range(2))
    assert (await sequences(slow, 1), await sequences(fast, 1)) == ([1], [1])
    for first in range(2, 22, 5):
        await grow(database, 5)
        assert await sequences(fast, 5) == list(range(first, first + 5))
    (shared,) = changes._shared.values()
    assert len(shared.value._recent) == 4, "no more is kept for those who are slow"
    assert await sequences(slow, 20) == list(range(2, 22))
    resumed = watch(3)
    assert await sequences(resumed, 18) == list(range(4, 22))
    await grow(database)
    assert [await sequences(stream, 1) for stream in (slow, fast, resumed)] == [[22]] * 3


async def test_who_comes_while_the_job_changes_misses_nothing(
    database: Database, clock: FixedClock, watch: Watch
) -> None:
    await queue(database, clock(), "j1")

    everybody_has_five = asyncio.Event()

    async def growth() -> None:
        while not everybody_has_five.is_set():
            await grow(database)

    async def watched(after: int | None) -> list[int]:
        return await sequences(watch(after), 5)

    growing = asyncio.create_task(growth())
    watching = []
    for after in (None, 0, 3) * 4:
        watching.append(asyncio.create_task(watched(after)))
        await asyncio.sleep(0.01)
    found = await asyncio.gather(*watching)
    everybody_has_five.set()
    await growing
    assert all(seen == list(range(seen[0], seen[0] + 5)) for seen in found)
    assert [seen[0] for seen in found[1::3]] == [1] * 4
    assert [seen[0] for seen in found[2::3]] == [4] * 4


async def test_a_stream_outlives_a_database_that_is_away(
    database: Database, changes: Changes, clock: FixedClock, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "AWAY_SECONDS", 0.01)
    real, away = database.session, 0

    @asynccontextmanager
    async def session() -> AsyncIterator[AsyncSession]:
        nonlocal away
        if away:
            away -= 1
            raise DatabaseAway("PostgreSQL does not answer")
        async with real() as opened:
            yield opened

    await queue(database, clock(), "j1")
    one = watch()
    assert await sequences(one, 1) == [1]
    monkeypatch.setattr(database, "session", session)
    waiting = asyncio.create_task(sequences(one, 2))
    await all_wait(changes, job_topic(SCOPE.tenant, "j1"), 1)
    row = await job(database, "j1")
    away = 3
    async with database.write() as opened:
        await append_update(opened, row, JobKind.SEGMENT)
        await append_update(opened, row, JobKind.SEGMENT)
    assert await waiting == [2, 3]
    assert away == 0


# ---------------------------------------------------------------- all jobs of a tenant


@pytest.fixture
async def told(database: Database, monkeypatch: pytest.MonkeyPatch) -> Changes:
    """Wake-ups of this process alone: nobody finds by chance what he was not told."""
    for module in (log, watching):
        monkeypatch.setattr(module, "PATIENCE_SECONDS", 3000.0)
    changes = Changes()
    database.on_commit(lambda topics: changes.wake(*topics))
    return changes


@pytest.fixture
async def watch_all(database: Database, told: Changes) -> AsyncIterator[Watch]:
    """Watches all jobs; what is opened is closed."""
    opened: list[AsyncGenerator[Any, None]] = []

    def begin(*status: str) -> AsyncGenerator[Any, None]:
        opened.append(watching.watch_all(database, told, SCOPE, status or None))
        return opened[-1]

    yield begin
    for stream in opened:
        await stream.aclose()
    assert (told._shared, told._subscribers) == ({}, {}), "nothing is kept of who has gone"


async def begun(changes: Changes, streams: list[AsyncGenerator[Any, None]]) -> list[asyncio.Task[Any]]:
    """The next state of each stream; returns when all of them wait for it."""
    tasks: list[asyncio.Task[Any]] = [asyncio.create_task(_next(stream)) for stream in streams]
    await all_wait(changes, jobs_topic(SCOPE.tenant), len(streams))
    return tasks


async def _next(stream: AsyncGenerator[Any, None]) -> tuple[str, int]:
    state = await anext(stream)
    return state.row.id, state.row.sequence


async def change(database: Database, id: str, at: datetime | None = None) -> None:
    """The job changes, now or as if it had been then."""
    row = await job(database, id)
    async with database.write() as session:
        changed = update(table(SegmentJobRow)).where(columns(SegmentJobRow).id == id)
        await session.execute(changed.values(updated_at=at or datetime.now(UTC)))
        await append_update(session, row, JobKind.SEGMENT)


async def test_a_change_of_any_job_costs_as_many_reads_for_fifty_as_for_one(
    database: Database, told: Changes, watch_all: Watch
) -> None:
    await queue(database, datetime.now(UTC), "j1", "j2")
    tasks = await begun(told, [watch_all() for _ in range(50)])
    with count_statements(database) as statements:
        await change(database, "j2")
        assert await asyncio.gather(*tasks) == [("j2", 2)] * 50
    assert len([one for one in statements if one.startswith("SELECT") and "FROM job_update" in one]) == 2


async def test_who_falls_behind_further_than_is_kept_still_gets_each_state_once(
    database: Database, told: Changes, watch_all: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "RECENT_STATES", 3)
    await queue(database, datetime.now(UTC), "j1", "j2")
    slow, fast = watch_all(), watch_all()
    tasks = await begun(told, [slow, fast])
    await change(database, "j1")
    assert await asyncio.gather(*tasks) == [("j1", 2)] * 2
    for sequence in range(2, 8):
        await change(database, "j2")
        assert await _next(fast) == ("j2", sequence)
    await change(database, "j1")
    assert await _next(fast) == ("j1", 3)
    assert [await _next(slow) for _ in range(7)] == [*(("j2", each) for each in range(2, 8)), ("j1", 3)]
    await change(database, "j2")
    assert [await _next(stream) for stream in (slow, fast)] == [("j2", 8)] * 2


async def test_a_job_that_was_quiet_for_long_comes_back_with_its_new_state_alone(
    database: Database, told: Changes, watch_all: Watch
) -> None:
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    await queue(database, hour_ago, "j1")
    await change(database, "j1", hour_ago)
    (task,) = await begun(told, [watch_all()])
    await change(database, "j1")
    assert await task == ("j1", 3)
