"""Deletes batches, and datasets on which no other object depends, with everything they brought."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete as delete_rows
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.people.profiles import Dataset, schema_of
from app.engine.store.lake import Lake, TenantLake
from app.errors import ErrorCode, Refusal
from app.pql.check.checker import check
from app.pql.schema import ObjectType, leaves
from app.scope import Scope
from app.services.datasets import batches, datasets
from app.services.evaluation.expressions import Segments, data_sources, read_segments
from app.services.lists.dependents import Dependent, refuse_dependents
from app.services.merge_policies import ensure_default
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import UNSETTLED, BatchRow, BatchStatus, DatasetRow
from app.storage.tables.definitions import DefinitionRow
from app.storage.tenancy import same_tenant, within

_AUDIENCES = columns(AudienceRow)
_BATCHES = columns(BatchRow)
_DATASETS = columns(DatasetRow)
_DEFINITIONS = columns(DefinitionRow)


async def delete_dataset(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None = None
) -> None:
    """Deletes the dataset with its rows and batches. People without remaining data are in no later view.

    Its files are deleted when nothing reads them any more (`retention`). Raises `HasDependents` if it is in use.
    """
    # If nothing else is left, this tells maintenance that the sandbox exists.
    await ensure_default(database, clock, scope)
    while True:
        async with database.session() as reading:
            definitions = await _definitions(reading, scope)
            sources, segments = await data_sources(reading, scope), await read_segments(reading, scope)
        users = await asyncio.to_thread(_need_fields, lake.tenant(scope.tenant), sources, segments, definitions, id)

        async def using(
            _session: AsyncSession, _scope: Scope, _id: str, users: list[Dependent] = users
        ) -> list[Dependent]:
            return users

        async with database.write(scope.tenant) as session:
            if _versions(await _definitions(session, scope)) != _versions(definitions):
                continue
            dataset = await datasets.required(session, scope, id, etag)
            advice = "change, cancel or delete them first"
            await refuse_dependents(session, scope, id, "id", (*datasets.DEPENDENTS, using), advice)
            await _refuse_unsettled(session, scope, dataset)
            for table, column in ((BatchRow, _BATCHES.dataset_id), (DatasetRow, _DATASETS.id)):
                await session.execute(within(delete_rows(table), table, scope.tenant).where(column == id))
            return


async def discard_empty(database: Database, scope: Scope, id: str) -> None:
    """Deletes a dataset without loaded data, including its failed batches, unless it is already in use."""
    async with database.write(scope.tenant) as session:
        used = within(select(_BATCHES.id), BatchRow, scope.tenant)
        if await session.scalar(used.where(_BATCHES.dataset_id == id, _BATCHES.status != BatchStatus.FAILED).limit(1)):
            return
        if any([await find(session, scope, id) for find in datasets.DEPENDENTS]):
            return
        for table, column in ((BatchRow, _BATCHES.dataset_id), (DatasetRow, _DATASETS.id)):
            await session.execute(within(delete_rows(table), table, scope.tenant).where(column == id))


async def delete_batch(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, lease: timedelta = batches.LEASE
) -> None:
    """Removes the rows of a batch: records that it replaced become valid again, members of external audiences that only
    this batch brought leave, and streamed definitions are updated. Raises `Refusal` for a batch that is unknown or
    being loaded.

    If this process dies meanwhile, another one continues.
    """
    async with database.write(scope.tenant) as session:
        batch = (await datasets.batches_get_many(session, scope, [id])).get(id)
        if batch is None or batch.status == BatchStatus.DELETING:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no batch {id!r} in this sandbox", ("id",))
        if batch.status == BatchStatus.LOADING:
            message = f"batch {id} is being loaded: wait until it has landed or failed"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
        dataset = (await datasets.get_many(session, scope, [batch.dataset_id]))[batch.dataset_id]
        mine = within(update(BatchRow), BatchRow, scope.tenant).where(_BATCHES.id == id)
        values = {"status": BatchStatus.DELETING, "idempotency_key": None, "lease_until": clock() + lease}
        await session.execute(mine.values(**values))
    await batches.withdraw(database, lake, clock, scope.tenant, dataset, batch)


async def _definitions(session: AsyncSession, scope: Scope) -> Sequence[Any]:
    """Id, name, version and expression of every definition, by name."""
    of = (_AUDIENCES.id, _AUDIENCES.name, _DEFINITIONS.version, _DEFINITIONS.expression)
    same = (same_tenant(_AUDIENCES, _DEFINITIONS), _AUDIENCES.id == _DEFINITIONS.id)
    statement = within(select(*of), AudienceRow, scope.tenant).where(*same)
    return list(await session.execute(statement.order_by(_AUDIENCES.name, _AUDIENCES.id)))


def _versions(definitions: Sequence[Any]) -> set[tuple[str, int]]:
    return {(row.id, row.version) for row in definitions}


def _need_fields(
    lake: TenantLake, sources: Sequence[Dataset], segments: Segments, definitions: Sequence[Any], id: str
) -> list[Dependent]:
    """The definitions that can be evaluated, but not without the dataset."""
    before, after = (
        schema_of(lake, [source for source in sources if source.id != gone or gone is None]) for gone in (None, id)
    )
    names = {names[-1].replace("`", "``") for names, _ in _fields(before) ^ _fields(after)}

    def checks(expression: str, schema: ObjectType) -> bool:
        return check(expression, schema, segments=segments.names, aliases=segments.aliases).ok

    return [
        Dependent("SegmentDefinition", row.id, repr(row.name), "use its fields")
        for row in definitions
        # Checking costs a millisecond each, and most definitions do not contain the name of a removed field.
        if any(name in row.expression for name in names)
        and checks(row.expression, before)
        and not checks(row.expression, after)
    ]


def _fields(schema: ObjectType) -> set[tuple[tuple[str, ...], str]]:
    return {(names, str(type_)) for names, type_ in leaves(schema)}


async def _refuse_unsettled(session: AsyncSession, scope: Scope, dataset: DatasetRow) -> None:
    statement = within(select(_BATCHES.status), BatchRow, scope.tenant)
    busy = statement.where(_BATCHES.dataset_id == dataset.id, _BATCHES.status.in_(UNSETTLED))
    if (status := await session.scalar(busy)) is not None:
        message = f"a batch of {dataset.name!r} is {status}: wait until that is over"
        raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
