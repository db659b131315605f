"""The log of membership changes, in commit order. It is written in the transaction that makes the members visible.

Each entry is the state of one audience after a change, and the audience's previous entry is the state before it. Two
entries thus determine who entered and exited, and no change can be lost or counted twice.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import bindparam, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Scope
from app.services.evaluation.heads import NO_RUN
from app.storage.columns import StoredValues, columns, table
from app.storage.queue.turns import lock_turn
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.streaming import StreamingTurnRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_TURNS = columns(StreamingTurnRow)
_CHANGES = columns(MembershipChangeRow)


@dataclass(frozen=True, slots=True)
class Moved:
    """How many profiles entered and exited an audience, and the version of its definition (0 for external
    audiences)."""

    entered: int
    exited: int
    version: int = 0


async def note_changes(
    session: AsyncSession,
    scope: Scope,
    at: datetime,
    moved: Mapping[str, Moved],
    *,
    job_id: str | None = None,
    turn: int | None = None,
) -> None:
    """Logs the current state of each audience that profiles entered or exited in this transaction.

    `turn` is the streaming turn that made the change. Call it after writing the audiences' rows and after `lock_turn`.
    """
    await lock_turn(session, scope.tenant)
    changed = {id: change for id, change in moved.items() if change.entered or change.exited}
    state = (
        await session.execute(within(select(_TURNS.published, _TURNS.changes), StreamingTurnRow, scope.tenant))
    ).one()
    published = state.published if turn is None else turn
    rows = await _rows(session, scope, at, changed, state.changes, published, job_id)
    if rows:
        await session.execute(insert(table(MembershipChangeRow)), rows)
    await _same_members(session, scope, moved.keys() - changed.keys(), published)
    numbers = within(update(StreamingTurnRow), StreamingTurnRow, scope.tenant)
    await session.execute(numbers.values(published=published, changes=state.changes + len(rows)))


async def _same_members(session: AsyncSession, scope: Scope, ids: Collection[str], turn: int) -> None:
    """A run with unchanged members replaces the previous run in the last entry, so that the old files are no longer
    needed."""
    newest = within(
        select(_CHANGES.audience_id, func.max(_CHANGES.sequence).label("sequence")), MembershipChangeRow, scope.tenant
    )
    last = newest.where(_CHANGES.audience_id.in_(sorted(ids))).group_by(_CHANGES.audience_id).subquery("last")
    fields = select(last.c.sequence, _AUDIENCES.membership_run_id, _AUDIENCES.membership_graph)
    present = within(fields.join(last, last.c.audience_id == _AUDIENCES.id), AudienceRow, scope.tenant)
    rows = [
        {"of": row.sequence, "run_id": row.membership_run_id or NO_RUN, "graph": row.membership_graph, "turn": turn}
        for row in await session.execute(present.order_by(last.c.sequence))
    ]
    if rows:
        change = within(update(table(MembershipChangeRow)), MembershipChangeRow, scope.tenant)
        await session.execute(change.where(_CHANGES.sequence == bindparam("of")), rows)


async def _rows(
    session: AsyncSession,
    scope: Scope,
    at: datetime,
    changed: Mapping[str, Moved],
    last: int,
    turn: int,
    job_id: str | None,
) -> Sequence[StoredValues]:
    fields = (_AUDIENCES.id, _AUDIENCES.membership_run_id, _AUDIENCES.membership_graph, _AUDIENCES.total_profiles)
    present = within(select(*fields), AudienceRow, scope.tenant).where(_AUDIENCES.id.in_(sorted(changed)))
    return [
        {
            "organisation": scope.organisation,
            "sandbox": scope.sandbox,
            "sequence": last + number,
            "audience_id": row.id,
            "at": at,
            "job_id": job_id,
            "version": changed[row.id].version,
            "run_id": row.membership_run_id or NO_RUN,
            "turn": turn,
            "graph": row.membership_graph,
            "total_profiles": row.total_profiles or 0,
            "entered": changed[row.id].entered,
            "exited": changed[row.id].exited,
            "baseline": False,
        }
        for number, row in enumerate(await session.execute(present.order_by(_AUDIENCES.id)), 1)
    ]
