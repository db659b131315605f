"""The members of an audience at a moment in its history, and the differences between two moments."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.insight.scan import NO_VALUES, Answers, present_in
from app.engine.limits.pool import Stopped
from app.engine.members.membership import MEMBERS_NOW, Ordinals
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import Snapshot
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.evaluation.heads import Heads
from app.services.insight.change_log import heads_of
from app.services.insight.comparison import NEW, Comparison
from app.services.insight.population import open_population
from app.services.lists.rows import as_row, select_rows
from app.services.people.profiles import ProfileReader
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_CHANGES = columns(MembershipChangeRow)


async def heads_at(
    session: AsyncSession,
    scope: Scope,
    audiences: Sequence[str],
    at: datetime,
    now: datetime,
    argument: str = "as_of",
) -> dict[str, Heads | Refusal]:
    """The location of each audience's members at a moment, or the reason why it is unknown: history no longer covers
    that moment. Before the first run an audience has no members. Raises `Refusal` for a future moment.

    The number of statements does not depend on the number of audiences.
    """
    if at > now:
        message = f"{at.isoformat()} is still to come (now it is {now.isoformat()}): members are known up to now"
        raise Refusal(ErrorCode.INVALID_INPUT, message, (argument,))
    entries = await _newest_entries(session, scope, audiences, at)
    # The log records the end of an audience with a delay.
    ends = within(select(_AUDIENCES.id, _AUDIENCES.expires_at), AudienceRow, scope.tenant)
    expiring = await session.execute(ends.where(_AUDIENCES.id.in_(audiences), _AUDIENCES.expires_at <= at))
    ended = {row.id for row in expiring if row.id in entries and entries[row.id].at < row.expires_at}
    standing = [row for id, row in entries.items() if id not in ended]
    heads = dict(zip([row.audience_id for row in standing], await heads_of(session, scope, standing), strict=True))
    begins = await _begins(session, scope, [id for id in audiences if id not in entries])
    return {id: heads.get(id) or _not_kept(at, begins.get(id), argument) or Heads({}, {}) for id in audiences}


async def _newest_entries(
    session: AsyncSession, scope: Scope, audiences: Sequence[str], at: datetime
) -> dict[str, MembershipChangeRow]:
    """The last log entry of each audience up to a moment."""
    last = within(
        select(func.max(_CHANGES.sequence).label("sequence")).where(
            _CHANGES.audience_id.in_(audiences), _CHANGES.at <= at
        ),
        MembershipChangeRow,
        scope.tenant,
    ).group_by(_CHANGES.audience_id)
    rows = await session.execute(select_rows(MembershipChangeRow, scope).where(_CHANGES.sequence.in_(last)))
    return {row.audience_id: as_row(MembershipChangeRow, row) for row in rows}


async def _begins(session: AsyncSession, scope: Scope, audiences: Sequence[str]) -> dict[str, datetime]:
    """The start of the history of each audience whose beginning is no longer kept."""
    if not audiences:
        return {}
    oldest = select(_CHANGES.audience_id, func.min(_CHANGES.at).label("at")).group_by(_CHANGES.audience_id)
    mine = within(oldest, MembershipChangeRow, scope.tenant)
    rows = await session.execute(mine.where(_CHANGES.audience_id.in_(audiences), _CHANGES.baseline))
    return {row.audience_id: row.at for row in rows}


def _not_kept(at: datetime, begins: datetime | None, argument: str) -> Refusal | None:
    if begins is None:
        return None
    message = f"members of {at.isoformat()} are no longer kept: history of this audience begins at {begins.isoformat()}"
    return Refusal(ErrorCode.INVALID_STATE, message, (argument,))


@dataclass(frozen=True, slots=True)
class _Moments:
    """The members of an audience at two moments, bucket by bucket."""

    snapshot: Snapshot
    audience: str
    earlier: MembershipSource
    later: MembershipSource

    @property
    def buckets(self) -> tuple[int, ...]:
        return self.snapshot.buckets

    def bucket(self, number: int, stopped: Stopped) -> Answers:
        present = present_in(self.snapshot, number)

        def members(source: MembershipSource) -> Ordinals:
            membership = source.read(number).get(self.audience)
            return Ordinals() if membership is None else membership.with_status(MEMBERS_NOW) & present

        sides = {self.audience: members(self.earlier), NEW: members(self.later)}
        return Answers(number, present, sides, NO_VALUES, {})


async def difference(reader: ProfileReader, audience: AudienceRow, earlier: Heads, later: Heads) -> Comparison:
    """Compares the members at two moments, among current profiles."""
    population = await open_population(reader, audience.merge_policy_id)

    def read() -> _Moments:
        sources = (population.stored([audience.id], heads) for heads in (earlier, later))
        return _Moments(population.snapshot, audience.id, *sources)

    moments = await asyncio.to_thread(read)
    return Comparison(population, audience.id, moments, moments, known=True)
