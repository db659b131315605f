"""Reads segment definitions, each as one row with the audience it computes."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import cache
from typing import Any, cast

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.store.lake import Lake
from app.errors import (
    Diagnostic,
    DiagnosticKind,
    ErrorCode,
    Refusal,
    Severity,
    StaleEtag,
)
from app.pql.check.checker import Checked
from app.scope import Scope
from app.services.audiences.reads import AudienceFilter, audience_order
from app.services.evaluation.expressions import ExpressionFormat, vocabulary
from app.services.lists.filters import DateTimeFilter, OrderBy, StringFilter
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import Among, rows_among
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow, LifecycleState
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow
from app.storage.tenancy import AnySelect, parameters, same_tenant, within, within_any

DUPLICATES_NAMED = 3
"""Maximum number of definitions that one warning names."""

_AUDIENCES = columns(AudienceRow)
_DEFINITIONS = columns(DefinitionRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)


@dataclass(frozen=True, slots=True)
class DefinitionView:
    """A definition with the fields that it shares with its audience. `revision` is the etag."""

    id: str
    name: str
    description: str | None
    labels: list[str]
    lifecycle_state: LifecycleState
    evaluates_batch: bool
    evaluates_streaming: bool
    evaluates_edge: bool
    exclude_opt_out: bool
    merge_policy_id: str
    folder_id: str | None
    revision: int
    created_by: str
    last_modified_by: str
    created_at: datetime
    updated_at: datetime
    version: int
    expression: str
    canonical: str
    kept: StoredValues | None
    schema_name: str


_VIEW = tuple(each.name for each in fields(DefinitionView))


@dataclass(frozen=True, slots=True)
class DefinitionFilter:
    """All given conditions must match."""

    ids: Collection[str] | None = None
    name: StringFilter = field(default_factory=StringFilter)
    description: StringFilter = field(default_factory=StringFilter)
    evaluation_method: str | None = None
    label: str | None = None
    merge_policy_id: str | None = None
    folder_id: str | None = None
    created_by: StringFilter = field(default_factory=StringFilter)
    created_at: DateTimeFilter = field(default_factory=DateTimeFilter)
    updated_at: DateTimeFilter = field(default_factory=DateTimeFilter)

    def of_audience(self) -> AudienceFilter:
        return AudienceFilter(**{each.name: getattr(self, each.name) for each in fields(self)})


async def check_expression(
    database: Database,
    lake: Lake,
    scope: Scope,
    expression: str,
    format: ExpressionFormat = ExpressionFormat.PQL_TEXT,
) -> Checked:
    """Checks an expression against the tenant's schema and segments, and warns if a definition with the same meaning
    exists. Raises `ExpressionRefused` for invalid pql/json."""
    checked = (await vocabulary(database, lake, scope, [expression])).check(expression, format)
    warnings = await duplicates(database, scope, expression, checked.canonical)
    return replace(checked, diagnostics=(*checked.diagnostics, *warnings))


async def duplicates(
    database: Database, scope: Scope, expression: str, canonical: str | None, but: str | None = None
) -> list[Diagnostic]:
    """A warning that names definitions with the same canonical text, oldest first; empty if there are none."""
    if canonical is None:
        return []
    statement = (
        _views()
        .where(_DEFINITIONS.canonical == canonical, _DEFINITIONS.kept.is_(None), _AUDIENCES.id != (but or ""))
        .order_by(_AUDIENCES.created_at, _AUDIENCES.name)
        .limit(DUPLICATES_NAMED + 1)
    )
    async with database.session() as session:
        labels = [f"{row.name!r} ({row.id})" for row in await session.execute(statement, parameters(scope.tenant))]
    if not labels:
        return []
    names = ", ".join(labels[:DUPLICATES_NAMED]) + (" and others" if len(labels) > DUPLICATES_NAMED else "")
    message = f"equivalent to {names}: use that definition, or refer to it with inSegment, so that it is evaluated once"
    return [Diagnostic(DiagnosticKind.DUPLICATE, message, 1, 1, len(expression), severity=Severity.WARNING)]


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, DefinitionView]:
    return {row.id: _view(row) for row in await rows_among(session, _by_ids(), scope, ids)}


@cache
def _by_ids() -> Among:
    return Among(_views(), _DEFINITIONS.id)


async def required(session: AsyncSession, scope: Scope, id: str, etag: str | None) -> DefinitionView:
    current = (await get_many(session, scope, [id])).get(id)
    if current is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no segment definition {id!r} in this sandbox", ("id",))
    if etag is not None and etag != str(current.revision):
        raise StaleEtag(str(current.revision), ("etag",))
    return current


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: DefinitionFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[DefinitionView]:
    listing = _all(order)
    if filter is not None:
        conditions = filter.of_audience().conditions()
        listing = Listing(listing.statement.where(*conditions), listing.order, None)
    return await listing.page(session, scope.tenant, request)


@cache
def _all(order: OrderBy | None) -> Listing[DefinitionView]:
    return Listing(_views(), audience_order(order), None)


async def count(session: AsyncSession, scope: Scope, filter: DefinitionFilter | None = None) -> int:
    conditions = (filter or DefinitionFilter()).of_audience().conditions()
    statement = within(select(func.count()).select_from(DefinitionRow), DefinitionRow, scope.tenant)
    return int((await session.execute(statement.join(AudienceRow, _same_audience()).where(*conditions))).scalar_one())


# ---------------------------------------------------------------- dependencies


async def dependencies_by_definition(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[DefinitionView]]:
    """The definitions that each one references, by name."""
    return await _related(dependents=False).pages(session, scope.tenant, request, ids)


async def dependents_by_definition(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[DefinitionView]]:
    """The definitions that reference each one, by name."""
    return await _related(dependents=True).pages(session, scope.tenant, request, ids)


async def dependency_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    return await _related_counts(session, scope, ids, _DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id)


async def dependent_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    return await _related_counts(session, scope, ids, _DEPENDENCIES.depends_on_id, _DEPENDENCIES.definition_id)


@cache
def _related(dependents: bool) -> Listing[DefinitionView]:
    ends = _DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id
    parent, other = reversed(ends) if dependents else ends
    joined = _views().join(DefinitionDependencyRow, _links(other))
    return Listing(joined, Order("NAME", (Key(_AUDIENCES.name), Key(_AUDIENCES.id))), None, parent)


async def _related_counts(
    session: AsyncSession, scope: Scope, ids: Sequence[str], this: Any, other: Any
) -> dict[str, int]:
    statement = within(select(this, func.count()).select_from(DefinitionRow), DefinitionRow, scope.tenant)
    counted = statement.join(DefinitionDependencyRow, _links(other)).where(this.in_(ids)).group_by(this)
    counts = {id_: int(number) for id_, number in await session.execute(counted)}
    return {id_: counts.get(id_, 0) for id_ in ids}


def _links(other: object) -> Any:
    """Joins dependencies to the definitions at one end; the other end may be external audiences."""
    return and_(
        same_tenant(_DEPENDENCIES, _DEFINITIONS),
        other == _DEFINITIONS.id,
    )


# ---------------------------------------------------------------- rows


@cache
def _views() -> AnySelect:
    """Selects the definitions of the tenant given at execution."""
    by_name: Mapping[str, Any] = {**dict(_AUDIENCES.items()), **dict(_DEFINITIONS.items())}
    joined = select(*(by_name[name] for name in _VIEW)).select_from(DefinitionRow).join(AudienceRow, _same_audience())
    return within_any(joined, DefinitionRow)


def _same_audience() -> Any:
    return and_(
        same_tenant(_AUDIENCES, _DEFINITIONS),
        _AUDIENCES.id == _DEFINITIONS.id,
    )


def view_of(audience: AudienceRow, definition: DefinitionRow) -> DefinitionView:
    """The view of a definition whose rows are known."""
    rows = {name: definition if name in _DEFINITIONS else audience for name in _VIEW}
    return DefinitionView(**{name: getattr(row, name) for name, row in rows.items()})


def _view(row: object) -> DefinitionView:
    """A row of `_views`, which has the attributes of a view."""
    return cast(DefinitionView, row)
