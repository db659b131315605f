"""Who entered and who left audiences, one by one, in commit order; resumable by cursor while history is kept."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.members.membership import MembershipFiles, differences
from app.engine.people.profiles import Person
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.evaluation.heads import NO_RUN, Heads, read_heads
from app.services.evaluation.pins import HeadPins
from app.services.insight.history import Period
from app.services.lists.paging import PageRequest, Slice, decode_cursor, encode_cursor, not_a_cursor, slice_of
from app.services.lists.rows import as_row, select_rows
from app.services.people.members import Who, beyond
from app.services.people.profiles import ProfileReader
from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.streaming import StreamingTurnRow
from app.storage.tenancy import same_tenant, within
from app.storage.topics import audience_topic
from app.storage.wakeups import PATIENCE_SECONDS, Changes, Wakeups

ORDER = "CHANGE"
EVER = Period()
ROWS_AT_ONCE = 50
"""Log entries that one read looks at; each may stand for any number of changes."""
PAGE = 5_000
"""Changes that a stream reads at once."""

_CHANGES = columns(MembershipChangeRow)
_TURNS = columns(StreamingTurnRow)
_ENTERED, _EXITED = 0, 1


class Place(NamedTuple):
    """Where a change stands among all of a sandbox's."""

    sequence: int
    bucket: int
    side: int
    ordinal: int


_FIRST_IN_ENTRY = (-1, _ENTERED, -1)
_LAST_IN_ENTRY = (1 << 32, _EXITED, 1 << 32)


@dataclass(frozen=True, slots=True)
class Change:
    """A profile that entered (REALIZED) or left (EXITED) an audience."""

    audience: str
    who: Who
    person: Person
    status: str
    at: datetime
    job_id: str | None
    cursor: str


@dataclass(frozen=True, slots=True)
class _Entry:
    """A log entry with the entry that it was made on; None for the first of an audience, which nobody was in."""

    row: MembershipChangeRow
    before: MembershipChangeRow | None
    policy: str | None


async def page(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    audiences: Sequence[str],
    request: PageRequest,
    period: Period = EVER,
) -> Slice[Change]:
    """The changes of the audiences after a cursor or before it, oldest first. Raises `Refusal` for a cursor whose
    successors are no longer kept.

    Profiles that no longer exist are left out.
    """
    place = _place(request)
    if place is not None and not request.backward:
        async with database.session() as session:
            await _refuse_forgotten(session, scope, audiences, place)
    changes: dict[str, Change] = {}
    start, more = place, True
    while more and len(changes) <= request.limit:
        places, start, more = await _read(database, scope, reader, audiences, start, period, request)
        persons = await reader.people([who for _, _, who in places])
        for entry, at, who in places:
            if who in persons:
                change = _change(entry, at, who, persons[who])
                changes[change.cursor] = change
    items = dict(islice(changes.items(), request.limit))
    return slice_of(items, request, has_next=len(changes) > request.limit, behind=place is not None)


async def counts(session: AsyncSession, scope: Scope, audiences: Sequence[str], period: Period) -> dict[str, int]:
    """How many changes of each audience are kept."""
    numbers = select(_CHANGES.audience_id, func.sum(_CHANGES.entered + _CHANGES.exited))
    mine = within(numbers, MembershipChangeRow, scope.tenant).where(
        _CHANGES.audience_id.in_(audiences), _CHANGES.baseline.is_(False), *period.on(_CHANGES.at)
    )
    totals = {id: int(number) for id, number in await session.execute(mine.group_by(_CHANGES.audience_id))}
    return {id: totals.get(id, 0) for id in audiences}


async def watch(
    database: Database,
    signals: Changes,
    scope: Scope,
    reader: Callable[[], ProfileReader],
    audiences: Sequence[str],
    after: str | None,
) -> AsyncGenerator[Change, None]:
    """Every later change; with a cursor also those since it. Does not end. Raises `Refusal` as `page`.

    Each read is bounded by a page, and nothing is read ahead of a slow reader.
    """
    async with AsyncExitStack() as stack:
        wakeups = [
            await stack.enter_async_context(signals.subscribe(audience_topic(scope.tenant, id))) for id in audiences
        ]
        cursor = await _end(database, scope) if after is None else after
        while True:
            next_page = await page(database, scope, reader(), audiences, PageRequest(PAGE, cursor=cursor))
            for change in next_page.items:
                cursor = change.cursor
                yield change
            if not next_page.items:
                await _any(wakeups)


async def _any(wakeups: Sequence[Wakeups]) -> None:
    """Waits for the first wake-up, or for so long that one that got lost costs seconds."""
    waiting = [asyncio.create_task(wakeup.wait(PATIENCE_SECONDS)) for wakeup in wakeups]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# ---------------------------------------------------------------- reads


async def _read(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    audiences: Sequence[str],
    start: Place | None,
    period: Period,
    request: PageRequest,
) -> tuple[list[tuple[_Entry, Place, Who]], Place | None, bool]:
    """Changes from a place on in the direction of the request, one more than its page at most, the place they end at,
    and whether there may be more."""
    limit, backward = request.limit + 1, request.backward
    files = (await reader.view()).files
    async with database.session() as session:
        entries = await _entries(session, scope, audiences, start, period, backward)
    places: list[tuple[_Entry, Place, Who]] = []
    for entry in entries:
        async with database.session() as session:
            states = await _states(session, scope, entry)
        policy = (await reader.view(entry.policy)).policy
        room = limit - len(places)
        mine = await asyncio.to_thread(_first, files, entry, states, start, room, backward)
        places += [(entry, place, Who(policy, place.bucket, place.ordinal)) for place in mine]
        if len(places) >= limit:
            return places, places[-1][1], True
    side = _FIRST_IN_ENTRY if backward else _LAST_IN_ENTRY
    end = Place(entries[-1].row.sequence, *side) if entries else start
    return places, end, len(entries) == ROWS_AT_ONCE


async def _entries(
    session: AsyncSession, scope: Scope, audiences: Sequence[str], start: Place | None, period: Period, backward: bool
) -> list[_Entry]:
    """The next log entries, or the previous ones, from the one that a place is in, each with the one before it of its
    audience."""
    statement = select_rows(MembershipChangeRow, scope).where(
        _CHANGES.audience_id.in_(audiences), _CHANGES.baseline.is_(False), *period.on(_CHANGES.at)
    )
    sequence = _CHANGES.sequence
    if start is not None:
        statement = statement.where(sequence <= start.sequence if backward else sequence >= start.sequence)
    rows = [
        as_row(MembershipChangeRow, row)
        for row in await session.execute(
            statement.order_by(sequence.desc() if backward else sequence).limit(ROWS_AT_ONCE)
        )
    ]
    if not rows:
        return []
    earlier = table(MembershipChangeRow).alias("earlier")
    before = (
        select(func.max(earlier.c.sequence))
        .where(
            same_tenant(earlier.c, _CHANGES),
            earlier.c.audience_id == _CHANGES.audience_id,
            earlier.c.sequence < _CHANGES.sequence,
        )
        .scalar_subquery()
    )
    pairs = within(select(_CHANGES.sequence, before.label("before")), MembershipChangeRow, scope.tenant)
    pair_rows = await session.execute(pairs.where(_CHANGES.sequence.in_([row.sequence for row in rows])))
    befores = {pair.sequence: pair.before for pair in pair_rows}
    states = select_rows(MembershipChangeRow, scope).where(_CHANGES.sequence.in_([n for n in befores.values() if n]))
    by_sequence = {row.sequence: as_row(MembershipChangeRow, row) for row in await session.execute(states)}
    policies = await _policies(session, scope, audiences)
    return [_Entry(row, by_sequence.get(befores[row.sequence]), policies.get(row.audience_id)) for row in rows]


async def _policies(session: AsyncSession, scope: Scope, audiences: Sequence[str]) -> Mapping[str, str | None]:
    of = columns(AudienceRow)
    statement = within(select(of.id, of.merge_policy_id), AudienceRow, scope.tenant).where(of.id.in_(audiences))
    return {row.id: row.merge_policy_id for row in await session.execute(statement)}


async def _states(session: AsyncSession, scope: Scope, entry: _Entry) -> tuple[Heads, Heads]:
    """Where the members lie before an entry and after it."""
    return (
        await state(session, scope, entry.row.audience_id, entry.before),
        await state(session, scope, entry.row.audience_id, entry.row),
    )


async def state(session: AsyncSession, scope: Scope, audience: str, row: MembershipChangeRow | None) -> Heads:
    """Where the members of an audience lay after a log entry; None is before any."""
    if row is None:
        return Heads({}, {})
    runs = {} if row.run_id == NO_RUN else {audience: row.run_id}
    graphs = {} if row.graph is None else {audience: row.graph}
    return await read_heads(session, scope, HeadPins(runs, row.turn, graphs))


def _first(
    files: MembershipFiles,
    entry: _Entry,
    states: tuple[Heads, Heads],
    start: Place | None,
    limit: int,
    backward: bool,
) -> list[Place]:
    return list(islice(_places(files, entry, states, start, backward), limit))


def _places(
    files: MembershipFiles, entry: _Entry, states: tuple[Heads, Heads], start: Place | None, backward: bool
) -> Iterator[Place]:
    """The changes of an entry after a place, by bucket, those who entered first; when `backward` those before it, from
    the last one down."""
    audience, graph, (before, now) = entry.row.audience_id, entry.row.graph, states
    sequence = entry.row.sequence
    ahead = start if start is not None and start.sequence == sequence else None
    old, new = before.people(files, [audience], graph), now.people(files, [audience], graph)
    for bucket in sorted(old.buckets | new.buckets, reverse=backward):
        if _is_passed(ahead, (bucket,), backward) or _unchanged(entry, states, bucket):
            continue
        sides = list(enumerate(differences(old.read(bucket).get(audience), new.read(bucket).get(audience))))
        for side, people in reversed(sides) if backward else sides:
            if _is_passed(ahead, (bucket, side), backward):
                continue
            if ahead is not None and (bucket, side) == (ahead.bucket, ahead.side):
                people = beyond(people, ahead.ordinal, backward)
            ordinals = reversed(list(people)) if backward else iter(people)
            yield from (Place(sequence, bucket, side, ordinal) for ordinal in ordinals)


def _is_passed(place: Place | None, part: tuple[int, ...], backward: bool) -> bool:
    """Whether a bucket, or a side of one, lies behind a place in the direction of reading."""
    if place is None:
        return False
    own = (place.bucket, place.side)[: len(part)]
    return part > own if backward else part < own


def _unchanged(entry: _Entry, states: tuple[Heads, Heads], bucket: int) -> bool:
    """Whether a streaming turn left a bucket alone: it has the same run and the same patch as before."""
    if entry.before is None or entry.before.run_id != entry.row.run_id:
        return False
    before, now = states
    return before.patches.get(bucket) == now.patches.get(bucket)


def _change(entry: _Entry, place: Place, who: Who, person: Person) -> Change:
    status = "REALIZED" if place.side == _ENTERED else "EXITED"
    row = entry.row
    return Change(row.audience_id, who, person, status, row.at, row.job_id, encode_cursor(ORDER, place))


# ---------------------------------------------------------------- cursors


def _place(request: PageRequest) -> Place | None:
    if request.cursor is None:
        return None
    values = decode_cursor(ORDER, request.cursor, request.argument)
    if len(values) != len(Place._fields) or not all(type(value) is int and value >= 0 for value in values):
        raise not_a_cursor(request)
    return Place(*values)


async def _refuse_forgotten(session: AsyncSession, scope: Scope, audiences: Sequence[str], after: Place) -> None:
    begins = within(select(func.min(_CHANGES.at)), MembershipChangeRow, scope.tenant).where(
        _CHANGES.audience_id.in_(audiences), _CHANGES.baseline, _CHANGES.sequence > after.sequence
    )
    at = (await session.execute(begins)).scalar()
    if at is not None:
        message = (
            f"changes after this cursor are no longer kept: history begins at {at.isoformat()}; read the members "
            "again, then follow the changes from there"
        )
        raise Refusal(ErrorCode.INVALID_STATE, message, ("after",))


async def _end(database: Database, scope: Scope) -> str:
    """The cursor behind all changes that there are."""
    async with database.session() as session:
        newest = (await session.execute(within(select(_TURNS.changes), StreamingTurnRow, scope.tenant))).scalar()
    return encode_cursor(ORDER, Place(newest or 0, *_LAST_IN_ENTRY))
