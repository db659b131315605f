"""Datasets: named tables of profiles, events or audience members, filled batch by batch."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypedDict

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.ingest.batch import dataset_fields
from app.engine.ingest.declared import dataset_schema, declare
from app.engine.ingest.formats.columns import name_problem
from app.engine.ingest.notes import rejected_rows
from app.engine.ingest.rows import IDENTITIES, TIMESTAMP, DatasetShape, RejectedRow
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals
from app.json_values import JsonValue
from app.pql.schema import numbers_alike
from app.pql.syntax.paths import leaf_paths
from app.scope import Scope
from app.services.lists.dependents import MOST_FOUND, Dependent, Finder
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, current_row, get_rows, rows_of_any, select_rows
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.sessions.writing import insert_rows, update_row
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, DatasetKind, DatasetRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import RUNNING, WAITING
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tenancy import within

_DATASETS = columns(DatasetRow)
_BATCHES = columns(BatchRow)
_AUDIENCES = columns(AudienceRow)
_EXPORTS = columns(ExportJobRow)
_POLICIES = columns(MergePolicyRow)
_DATASET_ORDER = Order("CREATED", (Key(_DATASETS.created_at), Key(_DATASETS.id)))
_BATCH_ORDER = Order("NEWEST", (Key(_BATCHES.created_at, descending=True), Key(_BATCHES.id, descending=True)))


@dataclass(frozen=True, slots=True)
class NewDataset:
    """`identity_column` and `namespace` are the primary identity, required except for EXPORT datasets.

    `timestamp_column` is the time of an event, or the recency of a record; `schema` is the declared JSON Schema of a
    row.
    """

    name: str
    kind: DatasetKind
    identity_column: str | None = None
    namespace: str | None = None
    timestamp_column: str | None = None
    schema: JsonValue = None


SHAPES: dict[str, Literal["PROFILE", "EVENT", "AUDIENCE"]] = {
    "PROFILE": "PROFILE",
    "EVENT": "EVENT",
    "AUDIENCE": "AUDIENCE",
}


class DatasetChanges(TypedDict, total=False):
    name: str
    schema: JsonValue


async def create(
    database: Database, clock: Clock, scope: Scope, new: NewDataset, lake: Lake | None = None
) -> DatasetRow:
    """Creates a dataset. Raises `Refusals` for inconsistent input and `Refusal` for a name that is taken.

    With a schema, the dataset has its fields at once; they are stored in the `lake`.
    """
    refuse_misfits(new)
    now = clock()
    async with _declaring() as declaring, database.write(scope.tenant) as session:
        await refuse_taken_name(session, scope, new.name)
        row = DatasetRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            id=new_id(now),
            name=new.name,
            kind=new.kind,
            identity_column=new.identity_column,
            namespace=new.namespace,
            timestamp_column=new.timestamp_column,
            row_count=0,
            created_by=scope.user,
            created_at=now,
            updated_at=now,
        )
        await insert_rows(session, row)
        if new.schema is not None and lake is not None:
            await _declare(session, declaring, lake, scope, row, new.schema)
    return row


async def update(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, changes: DatasetChanges
) -> DatasetRow:
    """Updates the given fields. Raises `Refusal` for a name that is taken or an incompatible schema, and
    `StaleEtag`."""
    async with _declaring() as declaring, database.write(scope.tenant) as session:
        current = await required(session, scope, id, etag)
        name = changes.get("name", current.name)
        refusals: list[Refusal] = []
        refuse_bad_name(name, refusals)
        if refusals:
            raise Refusals(refusals)
        if name != current.name:
            await refuse_taken_name(session, scope, name)
        values = {"name": name, "revision": current.revision + 1, "updated_at": clock()}
        await update_row(session, DatasetRow, scope.tenant, id, values)
        if changes.get("schema") is not None:
            await _declare(session, declaring, lake, scope, current, changes["schema"])
        return (await get_many(session, scope, [id]))[id]


@asynccontextmanager
async def _declaring() -> AsyncIterator[list[Callable[[], None]]]:
    """Reverts declarations in the lake if the database transaction fails."""
    undo: list[Callable[[], None]] = []
    try:
        yield undo
    except BaseException:
        for revert in undo:
            await asyncio.shield(asyncio.to_thread(revert))
        raise


async def _declare(
    session: AsyncSession,
    declaring: list[Callable[[], None]],
    lake: Lake,
    scope: Scope,
    row: DatasetRow,
    schema: JsonValue,
) -> None:
    if row.kind == DatasetKind.EXPORT:
        message = "export jobs determine the columns of an EXPORT dataset: omit it"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("schema",))
    shape = await shape_beside(session, scope, row.name, shape_of(row))
    declaring.append(await asyncio.to_thread(declare, lake.tenant(scope.tenant), row.id, shape, schema))


def shape_of(dataset: DatasetRow) -> DatasetShape:
    """How its rows are read. Raises `Refusal` for a dataset that cannot be loaded into."""
    if dataset.identity_column is None or dataset.namespace is None:
        message = (
            f"{dataset.name!r} is a dataset of kind {dataset.kind}, which export jobs fill: upload into another one"
        )
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("dataset_id",))
    return DatasetShape(SHAPES[dataset.kind], dataset.identity_column, dataset.namespace, dataset.timestamp_column)


async def shape_beside(session: AsyncSession, scope: Scope, name: str, shape: DatasetShape) -> DatasetShape:
    """The shape, with all other datasets of the sandbox whose rows share views with the dataset `name`."""
    if shape.kind == "AUDIENCE":
        return shape
    others = within(select(_DATASETS.id), DatasetRow, scope.tenant)
    same = others.where(_DATASETS.kind == shape.kind, _DATASETS.name != name).order_by(_DATASETS.id)
    return replace(shape, beside=tuple(await session.scalars(same)))


async def required(session: AsyncSession, scope: Scope, id: str, etag: str | None) -> DatasetRow:
    return current_row((await get_many(session, scope, [id])).get(id), "dataset", id, etag)


async def _policies(session: AsyncSession, scope: Scope, dataset_id: str) -> list[Dependent]:
    """The merge policies that name the dataset; a sandbox has few, so all are examined."""
    rows = await session.execute(select_rows(MergePolicyRow, scope).order_by(_POLICIES.name, _POLICIES.id))
    return [
        Dependent("MergePolicy", row.id, repr(row.name), "name it in their order")
        for row in rows
        if dataset_id in row.datasets
    ]


async def _audiences(session: AsyncSession, scope: Scope, dataset_id: str) -> list[Dependent]:
    statement = within(select(_AUDIENCES.id, _AUDIENCES.name), AudienceRow, scope.tenant)
    mine = statement.where(_AUDIENCES.dataset_id == dataset_id).order_by(_AUDIENCES.name, _AUDIENCES.id)
    rows = await session.execute(mine.limit(MOST_FOUND))
    return [Dependent("Audience", row.id, repr(row.name), "have their members from it") for row in rows]


async def _exports(session: AsyncSession, scope: Scope, dataset_id: str) -> list[Dependent]:
    """Unfinished export jobs."""
    statement = within(select(_EXPORTS.id), ExportJobRow, scope.tenant)
    live = statement.where(_EXPORTS.destination_id == dataset_id, _EXPORTS.status.in_(WAITING | RUNNING))
    ids = await session.scalars(live.order_by(_EXPORTS.id).limit(MOST_FOUND))
    return [Dependent("ExportJob", id_, repr(id_), "write to it") for id_ in ids]


DEPENDENTS: tuple[Finder, ...] = (_policies, _audiences, _exports)
"""Everything that depends on a dataset: each finder returns dependents of one type, by name."""


async def refuse_taken_name(session: AsyncSession, scope: Scope, name: str) -> None:
    if await by_name(session, scope, name) is not None:
        message = f"a dataset named {name!r} already exists: choose another name"
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("name",))


async def by_name(session: AsyncSession, scope: Scope, name: str) -> DatasetRow | None:
    row = (await session.execute(select_rows(DatasetRow, scope).where(_DATASETS.name == name))).first()
    return None if row is None else as_row(DatasetRow, row)


async def by_id_or_name(session: AsyncSession, scope: Scope, dataset: str) -> DatasetRow | None:
    """Looks up a dataset as named on the command line: an id takes precedence over a name."""
    return (await get_many(session, scope, [dataset])).get(dataset) or await by_name(session, scope, dataset)


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, DatasetRow]:
    return await get_rows(session, DatasetRow, scope, ids)


async def page(session: AsyncSession, scope: Scope, request: PageRequest, kind: str | None = None) -> Slice[DatasetRow]:
    statement = rows_of_any(DatasetRow)
    if kind is not None:
        statement = statement.where(_DATASETS.kind == kind)
    listing = Listing(statement, _DATASET_ORDER, lambda row: as_row(DatasetRow, row))
    return await listing.page(session, scope.tenant, request)


async def count(session: AsyncSession, scope: Scope, kind: str | None = None) -> int:
    statement = within(select(func.count()).select_from(DatasetRow), DatasetRow, scope.tenant)
    if kind is not None:
        statement = statement.where(_DATASETS.kind == kind)
    return int((await session.execute(statement)).scalar_one())


async def fields_many(lake: Lake, scope: Scope, ids: Iterable[str]) -> dict[str, list[tuple[str, str]]]:
    """Path and type of each field of each dataset, as PQL types; empty before the first batch."""

    def read() -> dict[str, list[tuple[str, str]]]:
        tenant = lake.tenant(scope.tenant)
        return {
            id_: [(path, str(numbers_alike(type_))) for path, type_ in leaf_paths(dataset_fields(tenant, id_))]
            for id_ in ids
        }

    return await asyncio.to_thread(read)


async def schemas_many(lake: Lake, scope: Scope, ids: Iterable[str]) -> dict[str, StoredValues]:
    """The JSON Schema of each dataset: the declared schema, widened by the loaded data."""

    def read() -> dict[str, StoredValues]:
        tenant = lake.tenant(scope.tenant)
        return {id_: dataset_schema(tenant, id_) for id_ in ids}

    return await asyncio.to_thread(read)


async def rejected_many(
    lake: Lake, scope: Scope, batches: Iterable[tuple[str, str]]
) -> dict[tuple[str, str], tuple[RejectedRow, ...]]:
    """The rejected rows that each batch kept, by the ids of its dataset and its own."""

    def read() -> dict[tuple[str, str], tuple[RejectedRow, ...]]:
        tenant = lake.tenant(scope.tenant)
        return {key: rejected_rows(tenant, *key) for key in batches}

    return await asyncio.to_thread(read)


async def batches_get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, BatchRow]:
    return await get_rows(session, BatchRow, scope, ids)


async def batches_by_dataset(
    session: AsyncSession, scope: Scope, dataset_ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[BatchRow]]:
    """Newest first."""
    return await _batches().pages(session, scope.tenant, request, dataset_ids)


@cache
def _batches() -> Listing[BatchRow]:
    return Listing(rows_of_any(BatchRow), _BATCH_ORDER, lambda row: as_row(BatchRow, row), _BATCHES.dataset_id)


async def batch_counts(session: AsyncSession, scope: Scope, dataset_ids: Sequence[str]) -> dict[str, int]:
    statement = within(select(_BATCHES.dataset_id, func.count()), BatchRow, scope.tenant)
    grouped = statement.where(_BATCHES.dataset_id.in_(dataset_ids)).group_by(_BATCHES.dataset_id)
    counts = {dataset_id: int(number) for dataset_id, number in await session.execute(grouped)}
    return {dataset_id: counts.get(dataset_id, 0) for dataset_id in dataset_ids}


def refuse_misfits(new: NewDataset) -> None:
    """Raises `Refusals` for inconsistent input."""
    refusals: list[Refusal] = []

    def refuse(message: str, *path: str) -> None:
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))

    refuse_bad_name(new.name, refusals)
    if new.kind == DatasetKind.EXPORT:
        if new.identity_column or new.namespace:
            refuse("export jobs write whole people into an EXPORT dataset: omit it", "primary_identity")
    elif not new.identity_column or not new.namespace:
        refuse("say which column holds the primary identity, and its namespace", "primary_identity")
    if new.kind == DatasetKind.EVENT and not new.timestamp_column:
        refuse("an EVENT dataset needs `timestampColumn`: the column with the time of each event", "timestamp_column")
    if new.kind in {DatasetKind.AUDIENCE, DatasetKind.EXPORT} and new.timestamp_column:
        refuse(f"rows of {new.kind} datasets have no time of their own: omit it", "timestamp_column")
    refusals += _unusable_columns(new)
    if refusals:
        raise Refusals(refusals)


def _unusable_columns(new: NewDataset) -> list[Refusal]:
    """Refusals of columns for the identity and the time from which no file could be loaded."""
    refusals: list[Refusal] = []
    for argument, name in {"identity_column": new.identity_column, "timestamp_column": new.timestamp_column}.items():
        problem = name_problem(name or "")
        if name == IDENTITIES:
            problem = f'the column "{name}" holds the further identities of a row'
        if new.kind == DatasetKind.EVENT and argument == "identity_column" and name == TIMESTAMP:
            problem = f'the time of each event becomes the column "{TIMESTAMP}"'
        if problem is not None:
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, f"{problem}: choose another column", (argument,)))
    if new.identity_column and new.identity_column == new.timestamp_column:
        message = f'the column "{new.timestamp_column}" already holds the identity: name the one with the time'
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("timestamp_column",)))
    return refusals
