"""The log of changes in the form that feeds read: entries with the states before and after them; reads no people."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.evaluation.heads import NO_RUN, Heads, read_pinned
from app.services.evaluation.pins import HeadPins
from app.services.insight.history import Period
from app.services.lists.rows import as_row, select_rows
from app.storage.columns import columns, table
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.streaming import StreamingTurnRow
from app.storage.tenancy import AnySelect, same_tenant, within

ROWS_AT_ONCE = 50
"""Number of log entries of a feed examined per read; each may stand for any number of changes."""
ENTERED, EXITED = 0, 1

_CHANGES = columns(MembershipChangeRow)
_AUDIENCES = columns(AudienceRow)
_TURNS = columns(StreamingTurnRow)


class Place(NamedTuple):
    """The position of a change among all changes of a sandbox."""

    sequence: int
    bucket: int
    side: int
    ordinal: int


@dataclass(frozen=True, slots=True)
class Feed:
    """Changes read as one list: those of some audiences, starting at a place."""

    audiences: Sequence[str]
    start: Place | None


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the log, with the locations of the members before and after it."""

    row: MembershipChangeRow
    base: MembershipChangeRow | None
    """The previous entry; None for the first of an audience, before which it had no members."""
    before: Heads
    after: Heads

    def unchanged(self, bucket: int) -> bool:
        """Whether a streaming turn left a bucket unchanged: it has the same run and patch as before."""
        same_run = self.base is not None and self.base.run_id == self.row.run_id
        return same_run and self.before.patches.get(bucket) == self.after.patches.get(bucket)


async def read_entries(
    session: AsyncSession, scope: Scope, feeds: Sequence[Feed], period: Period, room: int, backward: bool
) -> list[tuple[list[Entry], bool]]:
    """The next (or previous) log entries of each feed, starting with the one that contains its place, until they stand
    for more than `room` changes; and whether more entries may follow.

    Several feeds have one audience each; the number of statements does not depend on the number of feeds.
    """
    rows = await _rows(session, scope, feeds, period, backward)
    cut = [_enough(feed, mine, room) for feed, mine in zip(feeds, rows, strict=True)]
    bases = await _bases(session, scope, [row for mine in cut for row in mine])
    states = [row for mine in cut for row in mine] + list(bases.values())
    heads = dict(zip([row.sequence for row in states], await heads_of(session, scope, states), strict=True))

    def entry(row: MembershipChangeRow) -> Entry:
        base = bases.get(row.sequence)
        return Entry(row, base, Heads({}, {}) if base is None else heads[base.sequence], heads[row.sequence])

    return [
        ([entry(row) for row in mine], len(mine) < len(page) or len(page) == ROWS_AT_ONCE)
        for mine, page in zip(cut, rows, strict=True)
    ]


async def heads_of(session: AsyncSession, scope: Scope, rows: Sequence[MembershipChangeRow]) -> list[Heads]:
    """The locations of the members of an entry's audience after it, for each of some entries."""
    return await read_pinned(session, scope, [_pins(row) for row in rows]) if rows else []


def _pins(row: MembershipChangeRow) -> HeadPins:
    runs = {} if row.run_id == NO_RUN else {row.audience_id: row.run_id}
    graphs = {} if row.graph is None else {row.audience_id: row.graph}
    return HeadPins(runs, row.turn, graphs)


async def policies_of(session: AsyncSession, scope: Scope, audiences: Collection[str]) -> Mapping[str, str | None]:
    """The merge policies of audiences; None for the default one."""
    statement = within(select(_AUDIENCES.id, _AUDIENCES.merge_policy_id), AudienceRow, scope.tenant)
    rows = await session.execute(statement.where(_AUDIENCES.id.in_(sorted(audiences))))
    return {row.id: row.merge_policy_id for row in rows}


async def change_counts(
    session: AsyncSession, scope: Scope, audiences: Sequence[str], period: Period
) -> dict[str, int]:
    """The number of changes kept for each audience."""
    numbers = select(_CHANGES.audience_id, func.sum(_CHANGES.entered + _CHANGES.exited))
    mine = within(numbers, MembershipChangeRow, scope.tenant).where(
        _CHANGES.audience_id.in_(audiences), _CHANGES.baseline.is_(False), *period.on(_CHANGES.at)
    )
    totals = {id: int(number) for id, number in await session.execute(mine.group_by(_CHANGES.audience_id))}
    return {id: totals.get(id, 0) for id in audiences}


async def forgotten(session: AsyncSession, scope: Scope, audiences: Sequence[str], after: Place) -> dict[str, Refusal]:
    """For each audience, why a feed cannot continue after a place: the following changes are no longer kept."""
    begins = within(select(_CHANGES.audience_id, func.min(_CHANGES.at).label("at")), MembershipChangeRow, scope.tenant)
    mine = begins.where(_CHANGES.audience_id.in_(audiences), _CHANGES.baseline, _CHANGES.sequence > after.sequence)
    return {
        row.audience_id: Refusal(
            ErrorCode.INVALID_STATE,
            f"changes after this cursor are no longer kept: history begins at {row.at.isoformat()}; read the members "
            "again, then follow the changes from there",
            ("after",),
        )
        for row in await session.execute(mine.group_by(_CHANGES.audience_id).order_by(func.min(_CHANGES.at)))
    }


async def newest_sequence(session: AsyncSession, scope: Scope) -> int:
    """The sequence of the last entry; 0 if there is none."""
    newest = within(select(_TURNS.changes), StreamingTurnRow, scope.tenant)
    return (await session.execute(newest)).scalar() or 0


# ---------------------------------------------------------------- internals


async def _rows(
    session: AsyncSession, scope: Scope, feeds: Sequence[Feed], period: Period, backward: bool
) -> list[list[MembershipChangeRow]]:
    """At most `ROWS_AT_ONCE` rows of each feed, in reading direction."""
    statement = select_rows(MembershipChangeRow, scope).where(_CHANGES.baseline.is_(False), *period.on(_CHANGES.at))
    if len(feeds) == 1:
        return [await _of_one(session, statement, feeds[0], backward)]
    starts = {feed.audiences[0]: feed.start.sequence for feed in feeds if feed.start is not None}
    mine = statement.where(_CHANGES.audience_id.in_([feed.audiences[0] for feed in feeds]))
    if starts:
        start = case(starts, value=_CHANGES.audience_id, else_=_CHANGES.sequence)
        mine = mine.where(_from(start, backward))
    number = func.row_number().over(partition_by=_CHANGES.audience_id, order_by=_sorted(backward))
    numbered = mine.add_columns(number.label("number")).subquery()
    first = select(*(numbered.c[column.name] for column in _CHANGES)).where(numbered.c.number <= ROWS_AT_ONCE)
    by_audience: dict[str, list[MembershipChangeRow]] = {feed.audiences[0]: [] for feed in feeds}
    for row in await session.execute(first.order_by(numbered.c.audience_id, numbered.c.number)):
        by_audience[row.audience_id].append(as_row(MembershipChangeRow, row))
    return [by_audience[feed.audiences[0]] for feed in feeds]


async def _of_one(session: AsyncSession, statement: AnySelect, feed: Feed, backward: bool) -> list[MembershipChangeRow]:
    mine = statement.where(_CHANGES.audience_id.in_(feed.audiences))
    if feed.start is not None:
        mine = mine.where(_from(feed.start.sequence, backward))
    rows = await session.execute(mine.order_by(_sorted(backward)).limit(ROWS_AT_ONCE))
    return [as_row(MembershipChangeRow, row) for row in rows]


def _from(sequence: ColumnElement[int] | int, backward: bool) -> ColumnElement[bool]:
    return _CHANGES.sequence <= sequence if backward else _CHANGES.sequence >= sequence


def _sorted(backward: bool) -> ColumnElement[int]:
    return _CHANGES.sequence.desc() if backward else _CHANGES.sequence.asc()


def _enough(feed: Feed, rows: Sequence[MembershipChangeRow], room: int) -> list[MembershipChangeRow]:
    """The first rows, until they stand for more changes than there is room for; the row that contains the feed's place
    may stand for none."""
    changes = 0
    for number, row in enumerate(rows, 1):
        if feed.start is None or row.sequence != feed.start.sequence:
            changes += row.entered + row.exited
        if changes > room:
            return list(rows[:number])
    return list(rows)


async def _bases(
    session: AsyncSession, scope: Scope, rows: Sequence[MembershipChangeRow]
) -> dict[int, MembershipChangeRow]:
    """For each row, by sequence, the previous entry of its audience."""
    if not rows:
        return {}
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
    pairs = within(
        select(_CHANGES.sequence.label("of"), before.label("before")), MembershipChangeRow, scope.tenant
    ).where(_CHANGES.sequence.in_([row.sequence for row in rows]))
    pair = pairs.subquery("pair")
    statement = select_rows(MembershipChangeRow, scope).add_columns(pair.c.of)
    joined = await session.execute(statement.join(pair, _CHANGES.sequence == pair.c.before))
    return {row.of: as_row(MembershipChangeRow, row) for row in joined}
