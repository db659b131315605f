"""Who was in an audience at a moment that history still has, and how two moments differ."""

import asyncio
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.insight.scan import NO_VALUES, Answers, present_in
from app.engine.limits.pool import Stopped
from app.engine.members.membership import Ordinals
from app.engine.members.regraph import MembershipSource
from app.engine.people.profiles import Snapshot
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.evaluation.heads import Heads
from app.services.insight.changes import state
from app.services.insight.comparison import NEW, Comparison
from app.services.insight.population import open_population
from app.services.lists.rows import as_row, select_rows
from app.services.people.members import MEMBERS_NOW
from app.services.people.profiles import ProfileReader
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_CHANGES = columns(MembershipChangeRow)


async def heads_at(
    session: AsyncSession, scope: Scope, audience: str, at: datetime, now: datetime, argument: str = "as_of"
) -> Heads:
    """Where the members of an audience lay at a moment; nobody was in before its first run. Raises `Refusal` for a
    moment that is to come, and for one that history no longer has."""
    if at > now:
        message = f"{at.isoformat()} is still to come (now it is {now.isoformat()}): members are known up to now"
        raise Refusal(ErrorCode.INVALID_INPUT, message, (argument,))
    entries = select_rows(MembershipChangeRow, scope).where(_CHANGES.audience_id == audience, _CHANGES.at <= at)
    newest = (await session.execute(entries.order_by(_CHANGES.sequence.desc()).limit(1))).first()
    if newest is not None:
        row = as_row(MembershipChangeRow, newest)
        # The log learns of an audience's end a while after it.
        expires = await session.scalar(
            within(select(_AUDIENCES.expires_at), AudienceRow, scope.tenant).where(_AUDIENCES.id == audience)
        )
        return Heads({}, {}) if expires and row.at < expires <= at else await state(session, scope, audience, row)
    baselines = within(select(func.min(_CHANGES.at)), MembershipChangeRow, scope.tenant)
    begins = await session.scalar(baselines.where(_CHANGES.audience_id == audience, _CHANGES.baseline))
    if begins is not None:
        message = (
            f"members of {at.isoformat()} are no longer kept: history of this audience begins at {begins.isoformat()}"
        )
        raise Refusal(ErrorCode.INVALID_STATE, message, (argument,))
    return Heads({}, {})


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
    """Who was in at one moment only, among the profiles of now."""
    population = await open_population(reader, audience.merge_policy_id)

    def read() -> _Moments:
        sources = (population.stored([audience.id], heads) for heads in (earlier, later))
        return _Moments(population.snapshot, audience.id, *sources)

    moments = await asyncio.to_thread(read)
    return Comparison(population, audience.id, moments, moments)
