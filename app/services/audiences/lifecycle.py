"""The lifecycle of an audience: allowed state transitions and the dependents that prevent them; knows no
expressions."""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.lists.dependents import MOST_FOUND, Dependent, Finder, refuse_dependents
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow, AudienceType, LifecycleState
from app.storage.tables.definitions import DefinitionDependencyRow
from app.storage.tables.schedules import ScheduleAudienceRow, ScheduleRow, ScheduleState
from app.storage.tenancy import same_tenant, within

STARTS: Mapping[AudienceType, Sequence[LifecycleState]] = {
    AudienceType.SEGMENT_DEFINITION: (LifecycleState.DRAFT, LifecycleState.PUBLISHED),
    AudienceType.EXTERNAL_SEGMENT: (LifecycleState.PUBLISHED,),
}
"""The initial states allowed for an audience of each type."""
NEXT: Mapping[LifecycleState, Sequence[LifecycleState]] = {
    LifecycleState.DRAFT: (LifecycleState.PUBLISHED,),
    LifecycleState.PUBLISHED: (LifecycleState.INACTIVE,),
    LifecycleState.INACTIVE: (LifecycleState.PUBLISHED,),
}
"""The states that may follow each state. Any audience may be deleted; that transition is not listed."""

_AUDIENCES = columns(AudienceRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)
_SCHEDULES = columns(ScheduleRow)
_LINKS = columns(ScheduleAudienceRow)


async def _definitions(session: AsyncSession, scope: Scope, audience_id: str) -> list[Dependent]:
    """The definitions that reference the audience."""
    statement = within(select(_AUDIENCES.id, _AUDIENCES.name), AudienceRow, scope.tenant).join(
        DefinitionDependencyRow,
        and_(
            same_tenant(_DEPENDENCIES, _AUDIENCES),
            _DEPENDENCIES.definition_id == _AUDIENCES.id,
        ),
    )
    mine = statement.where(_DEPENDENCIES.depends_on_id == audience_id)
    rows = await session.execute(mine.order_by(_AUDIENCES.name, _AUDIENCES.id).limit(MOST_FOUND))
    return [Dependent("SegmentDefinition", row.id, repr(row.name), "refer to it by inSegment") for row in rows]


async def _schedules(session: AsyncSession, scope: Scope, audience_id: str) -> list[Dependent]:
    """The active schedules that name the audience."""
    statement = within(select(_SCHEDULES.id, _SCHEDULES.name), ScheduleRow, scope.tenant).join(
        ScheduleAudienceRow,
        and_(
            same_tenant(_LINKS, _SCHEDULES),
            _LINKS.schedule_id == _SCHEDULES.id,
        ),
    )
    mine = statement.where(_LINKS.audience_id == audience_id, _SCHEDULES.state == ScheduleState.ACTIVE)
    rows = await session.execute(mine.order_by(_SCHEDULES.name, _SCHEDULES.id).limit(MOST_FOUND))
    return [Dependent("Schedule", row.id, repr(row.name), "run it at their times") for row in rows]


DEPENDENTS: tuple[Finder, ...] = (_definitions,)
"""Dependents that require the audience to be published."""
HOLDERS: tuple[Finder, ...] = (*DEPENDENTS, _schedules)
"""Dependents that require the audience to exist."""


def refuse_start(type: AudienceType, state: LifecycleState) -> list[Refusal]:
    """Errors of an initial state."""
    if state in STARTS[type]:
        return []
    message = f"an audience of type {type} cannot be created as {state}: use {' or '.join(STARTS[type])}"
    return [Refusal(ErrorCode.INVALID_STATE, message, ("lifecycle_state",))]


async def refuse_step(
    session: AsyncSession, scope: Scope, audience_id: str, old: LifecycleState, new: LifecycleState
) -> None:
    """Raises `Refusal` for an invalid transition, and `HasDependents` if dependents need the audience to be
    published."""
    if new == old:
        return
    if new not in NEXT[old]:
        message = f"{new} cannot follow {old}: {' or '.join(NEXT[old])} can"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("lifecycle_state",))
    if old == LifecycleState.PUBLISHED:
        await refuse_dependents(session, scope, audience_id, "lifecycle_state", DEPENDENTS)


async def refuse_unpublished(session: AsyncSession, scope: Scope, depends_on: Collection[str]) -> None:
    """Raises `Refusal` unless all audiences that a published one will depend on are published."""
    if not depends_on:
        return
    statement = within(select(_AUDIENCES.name, _AUDIENCES.lifecycle_state), AudienceRow, scope.tenant)
    rows = await session.execute(
        statement.where(
            _AUDIENCES.id.in_(sorted(depends_on)), _AUDIENCES.lifecycle_state != LifecycleState.PUBLISHED
        ).order_by(_AUDIENCES.name, _AUDIENCES.id)
    )
    if names := ", ".join(f"{row.name!r} ({row.lifecycle_state})" for row in rows):
        message = f"it refers to {names}, and what a published audience refers to must be published: publish that first"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("lifecycle_state",))
