"""Members who entered and left audiences, one by one, in commit order; resumable by cursor while history is kept."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice, repeat
from typing import NamedTuple

from app.engine.members.membership import MembershipFiles, MembershipStatus, Ordinals, differences
from app.engine.people.pages import tuples_of
from app.engine.people.profiles import People, Person
from app.errors import Refusal
from app.scope import Scope
from app.services.insight.change_log import (
    ENTERED,
    EXITED,
    Entry,
    Feed,
    Place,
    change_counts,
    forgotten,
    newest_sequence,
    policies_of,
    read_entries,
)
from app.services.insight.history import Period
from app.services.lists.paging import (
    Cursors,
    PageRequest,
    Slice,
    decode_cursor,
    encode_cursor,
    not_a_cursor,
)
from app.services.people.members import Who, beyond, nearest
from app.services.people.profiles import ProfileReader
from app.storage.database import Database
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.topics import audience_topic
from app.storage.wakeups import PATIENCE_SECONDS, Changes, Wakeups

ORDER = "CHANGE"
EVER = Period()
SMALLEST_WINDOW, LARGEST_WINDOW = 500, 1 << 16
"""Number of changes that a stream reads at once; larger for a faster reader."""
WINDOW_SECONDS = 30.0
"""After this many seconds the rest of a window is read again, since its profiles are from the time of the read."""
_PEOPLE_AT_ONCE = 500
"""Number of profiles of a window converted to objects at once."""

_FIRST_IN_ENTRY = (-1, ENTERED, -1)
_LAST_IN_ENTRY = (1 << 32, EXITED, 1 << 32)

counts = change_counts


class Change(NamedTuple):
    """A profile that entered (REALIZED) or left (EXITED) an audience."""

    row: MembershipChangeRow
    policy: str
    side: int
    person: Person

    @property
    def audience(self) -> str:
        return self.row.audience_id

    @property
    def who(self) -> Who:
        return Who(self.policy, self.person.bucket, self.person.ordinal)

    @property
    def status(self) -> MembershipStatus:
        return MembershipStatus.REALIZED if self.side == ENTERED else MembershipStatus.EXITED

    @property
    def at(self) -> datetime:
        return self.row.at

    @property
    def job_id(self) -> str | None:
        return self.row.job_id

    @property
    def cursor(self) -> str:
        return encode_cursor(ORDER, (self.row.sequence, self.person.bucket, self.side, self.person.ordinal))


class _Part(NamedTuple):
    """Changes of one entry in one bucket and in one direction, in reading order."""

    row: MembershipChangeRow
    policy: str
    bucket: int
    side: int
    ordinals: Sequence[int]


@dataclass(slots=True)
class _List:
    """The state of reading a feed: its parts, where they end, and whether more may follow."""

    feed: Feed
    parts: list[_Part] = field(default_factory=list)
    more: bool = True

    @property
    def size(self) -> int:
        return sum(len(part.ordinals) for part in self.parts)


async def page(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    audiences: Sequence[str],
    request: PageRequest,
    period: Period = EVER,
) -> Slice[Change]:
    """The changes of the audiences as one list, after or before a cursor, oldest first. Raises `Refusal` for a cursor
    whose successors are no longer kept.

    Profiles that no longer exist are left out.
    """
    place = _place(request)
    await _refuse_forgotten(database, scope, audiences, place, request)
    return (await _pages(database, scope, reader, [Feed(audiences, place)], request, period))[0]


async def pages_by_audience(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    audiences: Sequence[str],
    request: PageRequest,
    period: Period = EVER,
) -> Mapping[str, Slice[Change] | Refusal]:
    """The same page for each audience; the number of statements does not depend on the number of audiences. Raises
    `Refusal` for an invalid cursor."""
    place = _place(request)
    refusals: Mapping[str, Refusal] = {}
    if place is not None and not request.backward:
        async with database.session() as session:
            refusals = await forgotten(session, scope, audiences, place)
    readable = [audience for audience in audiences if audience not in refusals]
    pages = await _pages(database, scope, reader, [Feed([id], place) for id in readable], request, period)
    return {**refusals, **dict(zip(readable, pages, strict=True))}


async def watch(
    database: Database,
    signals: Changes,
    scope: Scope,
    reader: Callable[[], ProfileReader],
    audiences: Sequence[str],
    after: str | None,
) -> AsyncGenerator[Change, None]:
    """Yields every later change; with a cursor also those since it. Does not end. Raises `Refusal` like `page`.

    Each read is limited to a window; a window that a slow reader does not finish is read again.
    """
    async with AsyncExitStack() as stack:
        wakeups = [
            await stack.enter_async_context(signals.subscribe(audience_topic(scope.tenant, id))) for id in audiences
        ]
        cursor = await _end(database, scope) if after is None else after
        room = SMALLEST_WINDOW
        while True:
            request, number, read_at = PageRequest(room, cursor=cursor), 0, time.monotonic()
            place = _place(request)
            await _refuse_forgotten(database, scope, audiences, place, request)
            window = _List(Feed(audiences, place))
            people = await _extend(database, scope, reader(), [window], request, EVER)
            for change in _changes(window.parts, people):
                number += 1
                yield change
                if time.monotonic() - read_at > WINDOW_SECONDS:
                    cursor = change.cursor
                    break
            else:
                # Also after profiles that no longer exist.
                cursor = encode_cursor(ORDER, window.feed.start) if window.feed.start is not None else cursor
            room = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, 4 * number))
            if not number and not window.more:
                await _any(wakeups)


async def _any(wakeups: Sequence[Wakeups]) -> None:
    """Waits for the first wake-up, at most `PATIENCE_SECONDS`, so that a lost one only costs seconds."""
    waiting = [asyncio.create_task(wakeup.wait(PATIENCE_SECONDS)) for wakeup in wakeups]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


# ---------------------------------------------------------------- reads


async def _pages(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    feeds: Sequence[Feed],
    request: PageRequest,
    period: Period,
) -> list[Slice[Change]]:
    """A page of each feed. If profiles no longer exist, a page takes several rounds, each with the same few
    statements."""
    changes_of: list[list[Change]] = [[] for _ in feeds]
    lists = [_List(feed) for feed in feeds]
    while waiting := [at for at, each in enumerate(lists) if each.more and len(changes_of[at]) <= request.limit]:
        people = await _extend(database, scope, reader, [lists[at] for at in waiting], request, period)
        for at in waiting:
            changes_of[at] += _changes(lists[at].parts, people)
            lists[at].parts.clear()
    return [
        _slice(changes, request, behind=feed.start is not None) for changes, feed in zip(changes_of, feeds, strict=True)
    ]


def _slice(changes: list[Change], request: PageRequest, behind: bool) -> Slice[Change]:
    more, items = len(changes) > request.limit, changes[: request.limit]
    if request.backward:
        items.reverse()
    cursors = Cursors(lambda change: change.cursor, items)
    return Slice(items, cursors, *((behind, more) if request.backward else (more, behind)))


async def _extend(
    database: Database,
    scope: Scope,
    reader: ProfileReader,
    lists: Sequence[_List],
    request: PageRequest,
    period: Period,
) -> Mapping[str, People]:
    """Extends each list by at most one more change than a page has, and reads the people by merge policy."""
    room, backward = request.limit + 1, request.backward
    audiences = {audience for each in lists for audience in each.feed.audiences}
    async with database.session() as session:
        entries = await read_entries(session, scope, [one.feed for one in lists], period, request.limit, backward)
        assigned = await policies_of(session, scope, audiences)
    files, default = (view := await reader.view()).files, view.policy
    # An audience may have been deleted meanwhile.
    policies = dict.fromkeys(audiences, default) | {id: policy or default for id, policy in assigned.items()}

    def read() -> None:
        for each, (mine, more) in zip(lists, entries, strict=True):
            _read_on(each, files, mine, policies, room, backward)
            each.more = more or each.size >= room

    await asyncio.to_thread(read)
    return await _people(reader, lists)


def _read_on(
    one: _List, files: MembershipFiles, entries: Sequence[Entry], policies: Mapping[str, str], room: int, backward: bool
) -> None:
    for entry in entries:
        policy = policies[entry.row.audience_id]
        for bucket, side, people in _sides(files, entry, one.feed.start, backward):
            ordinals = list(nearest(people, room, backward))
            if ordinals:
                one.parts.append(_Part(entry.row, policy, bucket, side, ordinals))
                room -= len(ordinals)
            if not room:
                one.feed = Feed(one.feed.audiences, Place(entry.row.sequence, bucket, side, ordinals[-1]))
                return
    if entries:
        end = _FIRST_IN_ENTRY if backward else _LAST_IN_ENTRY
        one.feed = Feed(one.feed.audiences, Place(entries[-1].row.sequence, *end))


def _sides(
    files: MembershipFiles, entry: Entry, start: Place | None, backward: bool
) -> Iterator[tuple[int, int, Ordinals]]:
    """The changes of an entry after a place, by bucket, profiles that entered before those that left; if `backward`,
    the changes before the place, in reverse order."""
    audience, graph = entry.row.audience_id, entry.row.graph
    ahead = start if start is not None and start.sequence == entry.row.sequence else None
    old, new = entry.before.people(files, [audience], graph), entry.after.people(files, [audience], graph)
    for bucket in sorted(old.buckets | new.buckets, reverse=backward):
        if _is_passed(ahead, (bucket,), backward) or entry.unchanged(bucket):
            continue
        sides = list(enumerate(differences(old.read(bucket).get(audience), new.read(bucket).get(audience))))
        for side, people in reversed(sides) if backward else sides:
            if _is_passed(ahead, (bucket, side), backward):
                continue
            inside = ahead is not None and (bucket, side) == (ahead.bucket, ahead.side)
            yield bucket, side, beyond(people, ahead.ordinal, backward) if ahead is not None and inside else people


def _is_passed(place: Place | None, part: tuple[int, ...], backward: bool) -> bool:
    """Whether a bucket, or one direction of it, is behind a place in reading order."""
    if place is None:
        return False
    own = (place.bucket, place.side)[: len(part)]
    return part > own if backward else part < own


async def _people(reader: ProfileReader, lists: Sequence[_List]) -> Mapping[str, People]:
    """The people by merge policy; each bucket is read once for all its changes."""
    places: dict[str, dict[int, Ordinals]] = defaultdict(lambda: defaultdict(Ordinals))
    for part in (part for each in lists for part in each.parts):
        places[part.policy][part.bucket] |= Ordinals(part.ordinals)
    return {policy: await reader.people_in(policy, ordinals) for policy, ordinals in places.items()}


def _changes(parts: Sequence[_Part], people: Mapping[str, People]) -> Iterator[Change]:
    """The individual changes, without those of profiles that no longer exist."""
    for row, policy, bucket, side, ordinals in parts:
        for start in range(0, len(ordinals), _PEOPLE_AT_ONCE):
            present = filter(None, people[policy].at(bucket, ordinals[start : start + _PEOPLE_AT_ONCE]))
            yield from tuples_of(Change, repeat(row), repeat(policy), repeat(side), present)


# ---------------------------------------------------------------- cursors


def _place(request: PageRequest) -> Place | None:
    if request.cursor is None:
        return None
    values = decode_cursor(ORDER, request.cursor, request.argument)
    if len(values) != len(Place._fields) or not all(type(value) is int and value >= 0 for value in values):
        raise not_a_cursor(request)
    return Place(*values)


async def _refuse_forgotten(
    database: Database, scope: Scope, audiences: Sequence[str], place: Place | None, request: PageRequest
) -> None:
    if place is not None and not request.backward:
        async with database.session() as session:
            refusals = await forgotten(session, scope, audiences, place)
        for refusal in islice(refusals.values(), 1):
            raise refusal


async def _end(database: Database, scope: Scope) -> str:
    """The cursor after all existing changes."""
    async with database.session() as session:
        return encode_cursor(ORDER, Place(await newest_sequence(session, scope), *_LAST_IN_ENTRY))
