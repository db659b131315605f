"""The history of an audience: its size over time, and the versions of its definition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Scope
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, rows_of_any
from app.storage.columns import columns
from app.storage.tables.definitions import DefinitionVersionRow
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tenancy import within

_CHANGES = columns(MembershipChangeRow)
_VERSIONS = columns(DefinitionVersionRow)
_OLDEST = Order("SEQUENCE", (Key(_CHANGES.sequence),))
_NEWEST = Order("VERSION", (Key(_VERSIONS.version, descending=True),))


@dataclass(frozen=True, slots=True)
class Period:
    """From `start` to `end` (exclusive); None means unbounded."""

    start: datetime | None = None
    end: datetime | None = None

    def on(self, column: ColumnElement[datetime]) -> Iterator[ColumnElement[bool]]:
        if self.start is not None:
            yield column >= self.start
        if self.end is not None:
            yield column < self.end


async def points_by_audience(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest, period: Period
) -> dict[str, Slice[MembershipChangeRow]]:
    """The membership changes of each audience, oldest first."""
    statement = rows_of_any(MembershipChangeRow).where(*period.on(_CHANGES.at))
    listing = Listing(statement, _OLDEST, lambda row: as_row(MembershipChangeRow, row), _CHANGES.audience_id)
    return await listing.pages(session, scope.tenant, request, ids)


async def point_counts(session: AsyncSession, scope: Scope, ids: Sequence[str], period: Period) -> dict[str, int]:
    counted = within(select(_CHANGES.audience_id, func.count()), MembershipChangeRow, scope.tenant)
    mine = counted.where(_CHANGES.audience_id.in_(ids), *period.on(_CHANGES.at)).group_by(_CHANGES.audience_id)
    numbers = {id: int(number) for id, number in await session.execute(mine)}
    return {id: numbers.get(id, 0) for id in ids}


async def versions_by_audience(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[DefinitionVersionRow]]:
    """Every version of each definition, newest first; empty for an external audience."""
    return await _versions().pages(session, scope.tenant, request, ids)


@cache
def _versions() -> Listing[DefinitionVersionRow]:
    versions = rows_of_any(DefinitionVersionRow)
    return Listing(versions, _NEWEST, lambda row: as_row(DefinitionVersionRow, row), _VERSIONS.definition_id)


async def version_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    counted = within(select(_VERSIONS.definition_id, func.count()), DefinitionVersionRow, scope.tenant)
    mine = counted.where(_VERSIONS.definition_id.in_(ids)).group_by(_VERSIONS.definition_id)
    numbers = {id: int(number) for id, number in await session.execute(mine)}
    return {id: numbers.get(id, 0) for id in ids}
