"""Batches: one file into one dataset, by upload or from the command line; all of its good rows, or nothing."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.ingest.batch import DatasetShape, Ingested, RejectedRow, committed_batch, ingest
from app.engine.ingest.formats import FileFormat
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.scope import Scope, Tenant
from app.services.audiences import external_members as members
from app.services.datasets import datasets
from app.services.streaming.turn import batch_landed
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.datasets import BatchRow, DatasetRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

FORMATS: dict[str, FileFormat] = {"csv": "CSV", "ndjson": "NDJSON", "jsonl": "NDJSON", "parquet": "PARQUET"}
"""Ending of a file's name → format."""

_SHAPES: Mapping[str, Literal["PROFILE", "EVENT", "AUDIENCE"]] = {
    "PROFILE": "PROFILE",
    "EVENT": "EVENT",
    "AUDIENCE": "AUDIENCE",
}
_LEASE = timedelta(seconds=60)
_BATCHES = columns(BatchRow)
_DATASETS = columns(DatasetRow)


@dataclass(frozen=True, slots=True)
class Uploaded:
    batch: BatchRow
    rejected: tuple[RejectedRow, ...]


async def upload_batch(
    database: Database, lake: Lake, clock: Clock, scope: Scope, dataset_id: str, file: Path, format: FileFormat
) -> Uploaded:
    """Adds the file to the dataset. Raises `Refusal`; the dataset then is as it was, and the batch is FAILED."""
    async with database.session() as session:
        dataset = (await datasets.get_many(session, scope, [dataset_id])).get(dataset_id)
    if dataset is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no dataset {dataset_id!r} in this sandbox", ("dataset_id",))
    return await _load(database, lake, clock, scope, dataset, file, format)


async def ingest_file(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    name: str,
    kind: str,
    identity_column: str,
    namespace: str,
    timestamp_column: str | None,
    file: Path,
    format: FileFormat,
) -> Uploaded:
    """The same for a dataset by name, made if it is not there. Raises `Refusal` if it is there and differs."""
    new = datasets.NewDataset(name, kind, identity_column, namespace, timestamp_column)
    async with database.session() as session:
        dataset = await datasets.by_name(session, scope, name)
    if dataset is None:
        dataset = await datasets.create(database, clock, scope, new)
    there = datasets.NewDataset(
        dataset.name, dataset.kind, dataset.identity_column, dataset.namespace, dataset.timestamp_column
    )
    if there != new:
        message = f"the dataset {name!r} is there already, as {there}: say the same, or choose another name"
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("name",))
    return await _load(database, lake, clock, scope, dataset, file, format)


async def _load(
    database: Database, lake: Lake, clock: Clock, scope: Scope, dataset: DatasetRow, file: Path, format: FileFormat
) -> Uploaded:
    shape = _shape(dataset)
    batch = await _begin(database, clock, scope, dataset)
    tenant = lake.tenant(scope.tenant)
    renewing = asyncio.create_task(_renew(database, clock, scope.tenant, batch.id))
    try:
        try:
            loaded = await asyncio.to_thread(ingest, tenant, dataset.id, shape, file, format, batch.id)
        except Refusal as refusal:
            await _end(database, scope.tenant, batch, {"status": "FAILED", "error": refusal.message})
            raise
        except Exception:
            await _end(database, scope.tenant, batch, {"status": "FAILED", "error": "internal error, see the log"})
            raise
        # From here on the rows are there: should this process die, another one lands the batch.
        await _land(database, lake, clock, scope.tenant, dataset, batch, loaded)
    finally:
        renewing.cancel()
    async with database.session() as session:
        fresh = (await datasets.batches_get_many(session, scope, [batch.id]))[batch.id]
    return Uploaded(fresh, loaded.rejected)


async def reconcile(database: Database, lake: Lake, clock: Clock) -> None:
    """Settles the batches whose process died: ACTIVE if their rows landed, FAILED if not. Any process may do it, at
    any time."""
    async with database.session() as session:
        stale = list(await session.scalars(_lost(clock)))
    for batch in stale:
        tenant = Tenant(batch.organisation, batch.sandbox)
        landed = await asyncio.to_thread(committed_batch, lake.tenant(tenant), batch.dataset_id, batch.id)
        if landed is None:
            outcome = {"status": "FAILED", "error": "the process that loaded it died: send the file again"}
            await _end(database, tenant, batch, outcome)
        else:
            async with database.session() as session:
                scope = Scope(tenant.organisation, tenant.sandbox, batch.created_by)
                dataset = (await datasets.get_many(session, scope, [batch.dataset_id]))[batch.dataset_id]
            await _land(database, lake, clock, tenant, dataset, batch, landed)
        log.info("batch %s was left unfinished and is %s now", batch.id, "ACTIVE" if landed else "FAILED")


def _shape(dataset: DatasetRow) -> DatasetShape:
    if dataset.identity_column is None or dataset.namespace is None:
        message = (
            f"{dataset.name!r} is a dataset of kind {dataset.kind}, which export jobs fill: upload into another one"
        )
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("dataset_id",))
    return DatasetShape(_SHAPES[dataset.kind], dataset.identity_column, dataset.namespace, dataset.timestamp_column)


async def _begin(database: Database, clock: Clock, scope: Scope, dataset: DatasetRow) -> BatchRow:
    now = clock()
    batch = BatchRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=new_id(now),
        dataset_id=dataset.id,
        status="LOADING",
        row_count=0,
        rejected_rows=0,
        bytes=0,
        segment_ids=[],
        lease_until=now + _LEASE,
        created_by=scope.user,
        created_at=now,
    )
    async with database.write(scope.tenant) as session:
        if dataset.id not in await datasets.get_many(session, scope, [dataset.id]):
            raise Refusal(ErrorCode.NOT_FOUND, f"the dataset {dataset.name!r} is being deleted", ("dataset_id",))
        session.add(batch)
    return batch


async def _renew(database: Database, clock: Clock, tenant: Tenant, batch_id: str) -> None:
    """Keeps the batch ours while its file is read, so that nobody takes it for lost."""
    while True:
        await asyncio.sleep(_LEASE.total_seconds() / 4)
        async with database.write() as session:
            renewal = within(update(BatchRow), BatchRow, tenant).where(_BATCHES.id == batch_id)
            await session.execute(renewal.values(lease_until=clock() + _LEASE))


def _lost(clock: Clock) -> Any:
    """Every tenant's batches that nobody loads any more: the one read here that is not within a tenant."""
    return select(BatchRow).where(_BATCHES.status == "LOADING", _BATCHES.lease_until < clock())


async def _end(database: Database, tenant: Tenant, batch: BatchRow, values: dict[str, Any]) -> bool:
    """Settles a batch once: false when somebody else did."""
    async with database.write() as session:
        return await _settle(session, tenant, batch.id, values)


async def _land(
    database: Database,
    lake: Lake,
    clock: Clock,
    tenant: Tenant,
    dataset: DatasetRow,
    batch: BatchRow,
    loaded: Ingested,
) -> None:
    """The batch is ACTIVE, its rows count in the dataset, its people are members and wait for streaming, at once."""
    scope = Scope(tenant.organisation, tenant.sandbox, batch.created_by)
    values = {
        "status": "ACTIVE",
        "row_count": loaded.row_count,
        "rejected_rows": loaded.rejected_rows,
        "bytes": loaded.bytes,
    }
    while True:
        written = None
        if dataset.kind == "AUDIENCE":
            written = await members.write(database, lake, clock, scope, batch.id, dataset.id, [batch.id])
        async with database.write(tenant) as session:
            if written is not None and not await members.still_holds(session, scope, dataset.id, written):
                continue  # Another batch, or an edit of an audience, came first: these people join what it left.
            if await _settle(session, tenant, batch.id, values):
                grown = within(update(DatasetRow), DatasetRow, tenant).where(_DATASETS.id == batch.dataset_id)
                rows = _DATASETS.row_count + loaded.row_count
                await session.execute(grown.values(row_count=rows, updated_at=clock()))
                if written is not None:
                    await members.publish(session, scope, written)
                await batch_landed(session, scope, batch.dataset_id, batch.id, loaded.version, clock())
            return


async def _settle(session: AsyncSession, tenant: Tenant, batch_id: str, values: dict[str, Any]) -> bool:
    change = within(update(BatchRow), BatchRow, tenant)
    settled = change.where(_BATCHES.id == batch_id, _BATCHES.status == "LOADING").values(lease_until=None, **values)
    return (await session.execute(settled.returning(_BATCHES.id))).first() is not None
