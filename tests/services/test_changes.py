"""Who entered and left: from jobs and streams, in order, whole and resumable, for as long as history is kept."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from app.errors import Refusal
from app.services.audiences import writes
from app.services.insight import change_log, changes, history
from app.services.insight.history import Period
from app.services.jobs.segment.run import run_segment_job
from app.services.lists.paging import PageRequest, Slice, encode_cursor
from app.services.maintenance.retention import forget_changes, referenced_runs
from app.services.streaming.turn import run_turn
from app.storage.database import Database
from app.storage.queue.turns import claim_turn
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.streaming import MembershipPatchRow
from app.storage.wakeups import Changes
from tests.services.conftest import SCOPE, Gateway
from tests.support.both_ways import both_ways

Told = tuple[str, str]


@pytest.fixture
async def signals(database: Database) -> AsyncIterator[Changes]:
    async with Changes.open(database) as opened:
        yield opened


async def read(gateway: Gateway, *audiences: str, size: int = 500, after: str | None = None) -> list[changes.Change]:
    """All changes after a cursor, by pages."""
    found: list[changes.Change] = []
    while True:
        page = await changes.page(gateway.database, SCOPE, gateway.reader(), audiences, PageRequest(size, cursor=after))
        assert len(page.items) <= size
        found += page.items
        if not page.has_next:
            return found
        after = page.cursors[-1]


def told(found: list[changes.Change]) -> list[Told]:
    return [(change.person.profile_id.removeprefix("crm:"), change.status) for change in found]


def replayed(found: list[changes.Change]) -> set[str]:
    """The members that the changes lead to; nobody enters twice or leaves without being in."""
    members: set[str] = set()
    for id, status in told(found):
        assert (id in members) == (status == "EXITED"), (id, status)
        members ^= {id}
    return members


async def members(gateway: Gateway, audience: str) -> set[str]:
    reader = gateway.reader()
    page = (await reader.members_many([audience], PageRequest(500)))[audience]
    persons = await reader.people([member.key for member in page.items])
    return {person.profile_id.removeprefix("crm:") for person in persons.values()}


async def points(gateway: Gateway, audience: str, period: Period = changes.EVER) -> list[tuple[int, int, int]]:
    async with gateway.database.session() as session:
        page: dict[str, Slice[Any]] = await history.points_by_audience(
            session, SCOPE, [audience], PageRequest(500), period
        )
        count = (await history.point_counts(session, SCOPE, [audience], period))[audience]
    rows = page[audience].items
    assert count == len(rows)
    return [(row.total_profiles, row.entered, row.exited) for row in rows]


async def drain(gateway: Gateway) -> None:
    """Streams until nothing waits."""
    while True:
        turn = await claim_turn(gateway.database, gateway.clock, owner="test", lease=timedelta(minutes=1))
        if turn is None:
            return
        await run_turn(gateway.database, gateway.lake, gateway.clock, turn, 1, lambda: False)


async def numbered(gateway: Gateway, **values: int) -> None:
    await gateway.people([{"id": id, "n": n} for id, n in values.items()])


async def streamed(gateway: Gateway, **values: int) -> str:
    """A streamed audience of those with the number 1, once these people have come."""
    await numbered(gateway, nobody=-1)
    audience = await gateway.define("Ones", "n = 1")
    await numbered(gateway, **values)
    await gateway.stream()
    return audience


async def test_jobs_tell_who_entered_and_left(gateway: Gateway) -> None:
    await numbered(gateway, a=1, b=1, c=0)
    audience = await gateway.define("Ones", "n = 1", method="BATCH")
    await gateway.job()
    await gateway.job()
    await numbered(gateway, b=0, c=1)
    gateway.clock.advance(timedelta(hours=1))
    await gateway.job()
    found = await read(gateway, audience)
    assert sorted(told(found)[:2]) == [("a", "REALIZED"), ("b", "REALIZED")]
    assert sorted(told(found)[2:]) == [("b", "EXITED"), ("c", "REALIZED")]
    assert replayed(found) == await members(gateway, audience) == {"a", "c"}
    # A run that changes nobody is no point.
    assert await points(gateway, audience) == [(2, 2, 0), (2, 1, 1)]
    later = Period(gateway.clock() - timedelta(minutes=1), None)
    assert await points(gateway, audience, later) == [(2, 1, 1)]
    assert await points(gateway, audience, Period(None, later.start)) == [(2, 2, 0)]


async def test_streams_and_jobs_are_one_log(gateway: Gateway) -> None:
    audience = await streamed(gateway, **{f"p{n:02}": n % 2 for n in range(30)})
    await numbered(gateway, p00=1, p01=0)
    await gateway.stream()
    await gateway.job()
    await numbered(gateway, p00=0, p02=1)
    await gateway.stream()
    found = await read(gateway, audience)
    assert replayed(found) == await members(gateway, audience)
    entered, exited = (sum(status == one for _, status in told(found)) for one in ("REALIZED", "EXITED"))
    assert (entered, exited) == (15 + 1 + 1, 1 + 1)
    assert [moved for _, *moved in await points(gateway, audience)] == [[15, 0], [1, 1], [1, 1]]
    assert (await points(gateway, audience))[-1][0] == 15
    for size in (1, 4, 7):
        assert told(await read(gateway, audience, size=size)) == told(found)


async def test_whoever_is_streamed_in_while_a_job_runs_is_neither_lost_nor_told_twice(gateway: Gateway) -> None:
    audience = await streamed(gateway, a=1, b=0)
    run = await gateway.start_job(audience)
    prepared = asyncio.Event()
    write = run.finish

    async def finish(*arguments: Any, **options: Any) -> Any:
        # The data that the job has read are older than this person.
        await numbered(gateway, c=1)
        await gateway.stream()
        prepared.set()
        return await write(*arguments, **options)

    run.finish = finish  # type: ignore[method-assign]
    await run_segment_job(run, gateway.lake, 1)
    assert prepared.is_set()
    await drain(gateway)
    found = await read(gateway, audience)
    assert replayed(found) == await members(gateway, audience) == {"a", "c"}


async def test_a_page_goes_on_after_any_change(gateway: Gateway) -> None:
    await numbered(gateway, **{f"p{n:02}": n % 3 for n in range(40)})
    first, second = await gateway.define("One", "n = 1", "BATCH"), await gateway.define("Two", "n = 2", "BATCH")
    await gateway.job()
    found = await read(gateway, first, second)
    assert len(found) == 13 + 13
    assert {change.audience for change in found} == {first, second}
    cursors = [change.cursor for change in found]
    for at, cursor in enumerate(cursors):
        assert [change.cursor for change in await read(gateway, first, second, after=cursor)] == cursors[at + 1 :]
    assert [change.audience for change in await read(gateway, second)] == [second] * 13


async def test_changes_are_read_from_both_ends(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some who entered and some who left, in more log entries than one read takes."""
    monkeypatch.setattr(change_log, "ROWS_AT_ONCE", 2)
    await numbered(gateway, nobody=-1)
    first, second = await gateway.define("One", "n = 1", "BATCH"), await gateway.define("Two", "n = 2", "BATCH")
    for turn in range(3):
        await numbered(gateway, **{f"p{n:02}": (n + turn) % 3 for n in range(20)})
        await gateway.job()
    for audiences, sizes in (([first], (1, 7)), ([first, second], (7, 40))):

        async def read_page(request: PageRequest, audiences: list[str] = audiences) -> Slice[changes.Change]:
            return await changes.page(gateway.database, SCOPE, gateway.reader(), audiences, request)

        for size in sizes:
            assert await both_ways(read_page, size) == await read(gateway, *audiences)
    assert len(await read(gateway, first, second)) == (7 + 14 + 13) + (6 + 13 + 14)


async def test_history_begins_where_retention_has_left_it(gateway: Gateway) -> None:
    audience = await streamed(gateway, a=1, b=0, c=0)
    old = (await read(gateway, audience))[-1].cursor
    for id in ("b", "c"):
        gateway.clock.advance(timedelta(days=1))
        await numbered(gateway, **{id: 1})
        await gateway.stream()
    found = await read(gateway, audience)
    await forget_changes(gateway.database, SCOPE.tenant, gateway.clock() - timedelta(hours=1))
    assert await gateway.count(MembershipChangeRow) == 2
    # The second change is where history begins: what it changed is known no more, what came after it is.
    assert told(await read(gateway, audience)) == told(found)[2:] == [("c", "REALIZED")]
    assert told(await read(gateway, audience, after=found[1].cursor)) == [("c", "REALIZED")]
    with pytest.raises(Refusal, match="changes after this cursor are no longer kept: history begins at 2") as refused:
        await read(gateway, audience, after=old)
    assert refused.value.path == ("after",)
    async with gateway.database.session() as session:
        kept = await referenced_runs(session, SCOPE.tenant)
    patches = {row for row in kept if row.startswith("streaming-")}
    assert len(patches) == await gateway.count(MembershipPatchRow)
    await forget_changes(gateway.database, SCOPE.tenant, gateway.clock() + timedelta(hours=1))
    assert await gateway.count(MembershipChangeRow) == 1
    assert await members(gateway, audience) == {"a", "b", "c"}


async def test_sequences_go_on_after_an_audience_is_deleted(gateway: Gateway) -> None:
    await numbered(gateway, a=1)
    first = await gateway.define("First", "n = 1", "BATCH")
    await gateway.job()
    cursor = (await read(gateway, first))[-1].cursor
    await writes.delete(gateway.database, gateway.clock, SCOPE, first)
    second = await gateway.define("Second", "n = 1", "BATCH")
    await gateway.job()
    assert told(await read(gateway, second, after=cursor)) == [("a", "REALIZED")]


async def test_forged_cursors_are_refused(gateway: Gateway) -> None:
    for place in ((1, 2, 3), ("1", 0, 0, 0), (-1, 0, 0, 0), (1.0, 0, 0, 0)):
        with pytest.raises(Refusal, match="is not a cursor"):
            await read(gateway, "x", after=encode_cursor(changes.ORDER, place))


async def test_a_stream_gives_every_change_once_and_resumes(gateway: Gateway, signals: Changes) -> None:
    audience = await streamed(gateway, a=1)

    def watch(after: str | None = None) -> Any:
        return changes.watch(gateway.database, signals, SCOPE, gateway.reader, [audience], after)

    stream = watch()
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    everything = watch(encode_cursor(changes.ORDER, (0, 0, 0, 0)))
    first = await anext(everything)
    assert told([first]) == [("a", "REALIZED")]
    await numbered(gateway, b=1, a=0)
    await gateway.stream()
    new = [await waiting, await anext(stream)]
    assert sorted(told(new)) == [("a", "EXITED"), ("b", "REALIZED")]
    assert [change.cursor for change in [await anext(everything), await anext(everything)]] == [
        one.cursor for one in new
    ]
    await stream.aclose()
    await everything.aclose()
    resumed = watch(new[0].cursor)
    assert (await anext(resumed)).cursor == new[1].cursor
    await resumed.aclose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_pages_of_many_audiences_are_those_of_each(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """From both ends, after a cursor that is in the middle of one of them, and in rounds of two log entries."""
    monkeypatch.setattr(change_log, "ROWS_AT_ONCE", 2)
    await numbered(gateway, nobody=-1)
    audiences = [await gateway.define(name, f"n = {number}", "BATCH") for number, name in enumerate(("A", "B", "C"))]
    for turn in range(3):
        await numbered(gateway, **{f"p{n:02}": (n + turn) % 3 for n in range(12)})
        await gateway.job()
    middle = (await read(gateway, audiences[1]))[5].cursor
    for request in (
        PageRequest(3),
        PageRequest(100),
        PageRequest(3, True),
        PageRequest(100, True),
        PageRequest(4, False, middle),
        PageRequest(100, True, middle),
    ):
        arguments = gateway.database, SCOPE, gateway.reader()
        pages = await changes.pages_by_audience(*arguments, [*audiences, "unknown"], request)
        assert isinstance(nothing := pages["unknown"], Slice)
        assert nothing.items == []
        for audience in audiences:
            alone, together = await changes.page(*arguments, [audience], request), pages[audience]
            assert isinstance(together, Slice)
            assert (together.items, list(together.cursors)) == (alone.items, list(alone.cursors))
            assert (together.has_next, together.has_previous) == (alone.has_next, alone.has_previous)


async def test_a_slow_reader_gets_all_and_holds_up_nobody(
    gateway: Gateway, signals: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that takes a change and then waits; what is read for it goes stale, and is read again from there."""
    monkeypatch.setattr(changes, "WINDOW_SECONDS", -1.0)
    audience = await streamed(gateway, **{f"p{n:02}": 1 for n in range(12)})
    start = encode_cursor(changes.ORDER, (0, 0, 0, 0))

    def watch() -> Any:
        return changes.watch(gateway.database, signals, SCOPE, gateway.reader, [audience], start)

    slow, fast = watch(), watch()
    first = [await anext(slow)]
    everything = [await anext(fast) for _ in range(12)]
    await numbered(gateway, p03=0)
    await gateway.stream()
    everything.append(await anext(fast))
    assert [change.cursor for change in everything] == [change.cursor for change in await read(gateway, audience)]
    first += [await anext(slow) for _ in range(12)]
    assert [change.cursor for change in first] == [change.cursor for change in everything]
    await slow.aclose()
    await fast.aclose()
