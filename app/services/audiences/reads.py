"""Reads audiences. Computed ones are created, updated and deleted together with their definitions."""

import itertools
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, and_, cast, func, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.coalescing import Coalesced
from app.scope import Scope
from app.services.lists.filters import DateTimeFilter, OrderBy, StringFilter
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, current_row, get_rows, rows_of_any, select_rows
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionDependencyRow
from app.storage.tenancy import same_tenant, within
from app.storage.topics import audience_topic, publish
from app.storage.wakeups import Changes

PATIENCE_SECONDS = 5.0
"""How often a stream reads its audience without a wake-up."""

_AUDIENCES = columns(AudienceRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)
_ORDER_COLUMNS = {
    "NAME": _AUDIENCES.name,
    "CREATED_AT": _AUDIENCES.created_at,
    "UPDATED_AT": _AUDIENCES.updated_at,
    "TOTAL_PROFILES": func.coalesce(_AUDIENCES.total_profiles, -1),
}
METHOD_COLUMNS = {"evaluates_batch": "BATCH", "evaluates_streaming": "STREAMING", "evaluates_edge": "EDGE"}
"""Each column that tells when an audience is evaluated, with its evaluation method."""
_METHODS = {method: _AUDIENCES[column] for column, method in METHOD_COLUMNS.items()}


@dataclass(frozen=True, slots=True)
class AudienceFilter:
    """All given conditions must match."""

    ids: Collection[str] | None = None
    audience_id: StringFilter = field(default_factory=StringFilter)
    name: StringFilter = field(default_factory=StringFilter)
    description: StringFilter = field(default_factory=StringFilter)
    type: Collection[str] | None = None
    origin: Collection[str] | None = None
    namespace: StringFilter = field(default_factory=StringFilter)
    lifecycle_state: Collection[str] | None = None
    evaluation_method: str | None = None
    label: str | None = None
    merge_policy_id: str | None = None
    folder_id: str | None = None
    created_by: StringFilter = field(default_factory=StringFilter)
    created_at: DateTimeFilter = field(default_factory=DateTimeFilter)
    updated_at: DateTimeFilter = field(default_factory=DateTimeFilter)

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        for name in ("audience_id", "name", "description", "namespace", "created_by", "created_at", "updated_at"):
            yield from getattr(self, name).on(_AUDIENCES[name])
        for name in ("type", "origin", "lifecycle_state"):
            if (names := getattr(self, name)) is not None:
                yield _AUDIENCES[name].in_(list(names))
        for name in ("merge_policy_id", "folder_id"):
            if (condition := getattr(self, name)) is not None:
                yield _AUDIENCES[name] == condition
        if self.ids is not None:
            yield _AUDIENCES.id.in_(list(self.ids))
        if self.evaluation_method is not None:
            yield _METHODS[self.evaluation_method]
        if self.label is not None:
            yield has_label(self.label)


def has_label(label: str) -> ColumnElement[bool]:
    """Labels are stored as a JSON list of texts without quotes, so a label is matched including its quotes."""
    return cast(_AUDIENCES.labels, String).contains(literal(f'"{label}"'), autoescape=False)


def audience_order(order: OrderBy | None) -> Order:
    """Newest first by default."""
    order_by = order or OrderBy("CREATED_AT", descending=True)
    keys = Key(_ORDER_COLUMNS[order_by.field], order_by.descending), Key(_AUDIENCES.id, order_by.descending)
    return Order(order_by.name, keys)


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, AudienceRow]:
    """Looks up audiences by raw id, or by the `audienceId` of an external audience; if several share it, the oldest is
    returned."""
    unique_ids = set(ids)
    rows = await get_rows(session, AudienceRow, scope, unique_ids)
    if others := unique_ids - rows.keys():
        named = select_rows(AudienceRow, scope).where(_AUDIENCES.audience_id.in_(others))
        newest_first = named.order_by(_AUDIENCES.created_at.desc(), _AUDIENCES.id.desc())
        rows |= {row.audience_id: as_row(AudienceRow, row) for row in await session.execute(newest_first)}
    return rows


async def get_named(
    session: AsyncSession, scope: Scope, names: Iterable[tuple[str | None, str]]
) -> dict[tuple[str | None, str], AudienceRow]:
    """Looks up audiences by (namespace, `audienceId`), which are unique together."""
    named = select_rows(AudienceRow, scope).where(_AUDIENCES.audience_id.in_({audience_id for _, audience_id in names}))
    return {(row.namespace, row.audience_id): as_row(AudienceRow, row) for row in await session.execute(named)}


async def required(session: AsyncSession, scope: Scope, id: str, etag: str | None = None) -> AudienceRow:
    """The audience with this id. Raises `Refusal` for an unknown id, and `StaleEtag` if an etag is given that is not
    the current one."""
    return current_row((await get_many(session, scope, [id])).get(id), "audience", id, etag)


async def publish_change(session: AsyncSession, scope: Scope, *ids: str) -> None:
    """Notifies the subscribers of these audiences after this transaction commits. Call it after any write of their
    rows."""
    await publish(session, *(audience_topic(scope.tenant, id_) for id_ in ids))


class Reading(NamedTuple):
    """An audience as read; subscribers that share a reading have the same number."""

    number: int
    row: AudienceRow


_NUMBERS = itertools.count(1)


async def watch(
    database: Database, changes: Changes, clock: Clock, scope: Scope, id: str
) -> AsyncGenerator[Reading, None]:
    """Yields the audience, then again whenever its fields, counts or members have changed, until it is deleted.

    Raises `Refusal` for an unknown id.
    """
    async with database.session() as session:
        raw = (await required(session, scope, id)).id

    async def read() -> Reading | None:
        async with database.session() as session:
            row = (await get_rows(session, AudienceRow, scope, [raw])).get(raw)
        return None if row is None else Reading(next(_NUMBERS), row)

    topic = audience_topic(scope.tenant, raw)
    async with AsyncExitStack() as stack:
        wakeups = await stack.enter_async_context(changes.subscribe(topic))
        readings = stack.enter_context(changes.shared(topic, lambda _: Coalesced[Reading | None]()))
        last_state: tuple[Any, ...] | None = None
        since = time.monotonic()
        while True:
            reading = await readings.get(raw, since, read)
            if reading is None:
                return
            row, now = reading.row, clock()
            state = (*(getattr(row, column.name) for column in _AUDIENCES), expired(row, now))
            if state != last_state:
                last_state = state
                yield reading
            # The wait is bounded: a lost wake-up then only costs seconds, and members also expire by themselves.
            seconds = PATIENCE_SECONDS if row.expires_at is None else (row.expires_at - now).total_seconds()
            since = await wakeups.next(seconds if 0 < seconds < PATIENCE_SECONDS else PATIENCE_SECONDS)


def expired(row: AudienceRow, now: datetime) -> bool:
    """Whether the members have expired. They expire at the exact instant, even if the row is updated later."""
    return row.expires_at is not None and row.expires_at <= now


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: AudienceFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[AudienceRow]:
    listing = _all(order)
    if filter is not None:
        listing = Listing(listing.statement.where(*filter.conditions()), listing.order, None)
    return await listing.page(session, scope.tenant, request)


@cache
def _all(order: OrderBy | None) -> Listing[AudienceRow]:
    return Listing(rows_of_any(AudienceRow), audience_order(order), None)


async def dependencies_by_audience(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[AudienceRow]]:
    """The audiences that the expression of each one references, by name."""
    return await _related(dependents=False).pages(session, scope.tenant, request, ids)


async def dependents_by_audience(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[AudienceRow]]:
    """The audiences whose expressions reference each one, by name."""
    return await _related(dependents=True).pages(session, scope.tenant, request, ids)


async def dependency_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    statement = within(select(_DEPENDENCIES.definition_id, func.count()), DefinitionDependencyRow, scope.tenant)
    grouped = statement.where(_DEPENDENCIES.definition_id.in_(ids)).group_by(_DEPENDENCIES.definition_id)
    counts = {id_: int(number) for id_, number in await session.execute(grouped)}
    return {id_: counts.get(id_, 0) for id_ in ids}


@cache
def _related(dependents: bool) -> Listing[AudienceRow]:
    """For audiences at one end of a dependency, those at the other end."""
    ends = _DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id
    parent, other = reversed(ends) if dependents else ends
    joined = rows_of_any(AudienceRow).join(
        DefinitionDependencyRow, and_(same_tenant(_DEPENDENCIES, _AUDIENCES), other == _AUDIENCES.id)
    )
    return Listing(joined, Order("NAME", (Key(_AUDIENCES.name), Key(_AUDIENCES.id))), None, parent)


async def count(session: AsyncSession, scope: Scope, filter: AudienceFilter | None = None) -> int:
    statement = within(select(func.count()).select_from(AudienceRow), AudienceRow, scope.tenant)
    return int((await session.execute(statement.where(*(filter or AudienceFilter()).conditions()))).scalar_one())
