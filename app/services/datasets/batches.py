"""The lifecycle of a batch in the database: started, held by its loader, committed or failed; knows no file formats.

A batch has one loader, which renews its lease. When the lease expires, any other process settles the batch: first
permanently in the lake (`give_up_batch`), then in the database. A loader that was frozen can then change nothing when
it resumes, and whatever it committed before counts once.
"""

import asyncio
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.export.batches import withdraw as withdraw_export
from app.engine.ingest.notes import clear_unfinished, give_up_batch, withdraw_batch
from app.engine.ingest.rows import Ingested
from app.engine.ingest.stop import Stop, Stopped
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.metrics import LEASES_LOST, LEASES_TAKEN_OVER
from app.scope import Scope, Tenant
from app.services.audiences import external_members as members
from app.services.datasets import datasets
from app.services.lists.validation import refuse_bad_key
from app.services.streaming.turn import batch_landed, batch_withdrawn
from app.storage.columns import StoredValues, columns
from app.storage.database import Database, is_unavailable
from app.storage.ids import new_id
from app.storage.queue.leases import Lease, LeaseLost, is_free
from app.storage.sessions.writing import insert_rows
from app.storage.tables.datasets import UNSETTLED, BatchRow, BatchStatus, DatasetKind, DatasetRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=60)
KEY_LIFETIME = timedelta(hours=24)
_RETRY_SECONDS = 0.5
_BATCHES = columns(BatchRow)
_DATASETS = columns(DatasetRow)


async def begin(
    database: Database,
    clock: Clock,
    scope: Scope,
    dataset: DatasetRow,
    key: str | None = None,
    lease: timedelta = LEASE,
    content: str | None = None,
) -> tuple[BatchRow, bool]:
    """A new batch, and True; or the batch with the same idempotency key within 24 hours, unchanged, and False.

    Raises `Refusal` for a dataset that no longer exists, an invalid key, and a key that was used with another `content`
    (its digest).
    """
    refuse_bad_key(key)
    now = clock()
    batch = BatchRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=new_id(now),
        dataset_id=dataset.id,
        status=BatchStatus.LOADING,
        idempotency_key=key,
        content=content,
        lease_until=now + lease,
        created_by=scope.user,
        created_at=now,
    )
    async with database.write(scope.tenant) as session:
        if dataset.id not in await datasets.get_many(session, scope, [dataset.id]):
            raise Refusal(ErrorCode.NOT_FOUND, f"the dataset {dataset.name!r} has been deleted", ("dataset_id",))
        if key is not None:
            earlier = within(select(BatchRow), BatchRow, scope.tenant)
            same = earlier.where(_BATCHES.dataset_id == dataset.id, _BATCHES.idempotency_key == key)
            if (row := await session.scalar(same)) is not None:
                if row.status == BatchStatus.LOADING or row.created_at > now - KEY_LIFETIME:
                    if None not in (content, row.content) and content != row.content:
                        raise _other_content(row)
                    return row, False
                row.idempotency_key = None
                await session.flush()
        await insert_rows(session, batch)
    return batch, True


def _other_content(batch: BatchRow) -> Refusal:
    message = (
        f"the idempotency key {batch.idempotency_key!r} was used at {batch.created_at:%F %T}Z for other content (batch "
        f"{batch.id}), and would hide this: send it with a key of its own"
    )
    return Refusal(ErrorCode.ALREADY_EXISTS, message, ("idempotency_key",))


class Hold:
    """A batch held by its loader: renews the lease on the event loop, and stops the loading thread.

    The thread checks as well (`stop.check`): after the lease has expired it continues only with a new one.
    """

    def __init__(self, database: Database, clock: Clock, batch: BatchRow, lease: timedelta = LEASE) -> None:
        self.stop = Stop(self._confirm)
        self.lost = False
        self._database = database
        self._clock = clock
        tenant = Tenant(batch.organisation, batch.sandbox)
        key = {"id": batch.id, "status": BatchStatus.LOADING}
        self._held = Lease(f"the loader of batch {batch.id}", BatchRow, tenant, key, lease)
        self._until = clock() + lease
        self._loop = asyncio.get_running_loop()

    async def keep(self) -> None:
        """Renews the lease until it is lost, and then stops the work."""
        held = True
        while held:
            await asyncio.sleep(self._held.duration.total_seconds() / 4)
            held = await self._renewed()
        LEASES_LOST.labels("batch").inc()
        self.stop.request()

    async def _renewed(self) -> bool:
        """Renews the lease, waiting for an unavailable database; false if another process has settled the batch."""
        while True:
            try:
                now = self._clock()
                await self._held.renew(self._database, now)
                self._until = now + self._held.duration
                return True
            except LeaseLost:
                self.lost = True
                return False
            except Exception as error:
                if not is_unavailable(error):
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    def _confirm(self) -> None:
        """Called on the loading thread: raises `Stopped` if the batch is no longer held."""
        if self._clock() < self._until:
            return
        renewal = asyncio.run_coroutine_threadsafe(self._renewed(), self._loop)
        while True:
            try:
                if renewal.result(timeout=0.1):
                    return
                raise Stopped
            except TimeoutError:
                if self.stop.requested:
                    renewal.cancel()
                    raise Stopped from None


async def fail(database: Database, tenant: Tenant, batch_id: str, error: str) -> bool:
    """Marks the batch as failed, without rows in the dataset, and frees its key; false if it was settled before."""
    async with database.write() as session:
        values = {"status": BatchStatus.FAILED, "error": error, "idempotency_key": None}
        return await _settle(session, tenant, batch_id, values)


async def land(
    database: Database, lake: Lake, clock: Clock, tenant: Tenant, dataset: DatasetRow, batch: BatchRow, loaded: Ingested
) -> None:
    """Activates the batch: at once, its rows count in the dataset and its people become members and wait for
    streaming."""
    scope = Scope(tenant.organisation, tenant.sandbox, batch.created_by)
    values = {
        "status": BatchStatus.ACTIVE,
        "row_count": loaded.row_count,
        "rejected_rows": loaded.rejected_rows,
        "duplicate_rows": loaded.duplicate_rows,
        "bytes": loaded.bytes,
    }
    while True:
        written = None
        if dataset.kind == DatasetKind.AUDIENCE:
            written = await members.write(
                database, lake, clock, scope, batch.id, members.Arrival(dataset.id, [batch.id])
            )
        async with database.write(tenant) as session:
            if written is not None and not await members.still_holds(session, scope, dataset.id, written):
                continue  # Another batch, or an update of an audience, came first: add these people to its result.
            if await _settle(session, tenant, batch.id, values):
                grown = within(update(DatasetRow), DatasetRow, tenant).where(_DATASETS.id == batch.dataset_id)
                rows = _DATASETS.row_count + loaded.row_count
                await session.execute(grown.values(row_count=rows, updated_at=clock()))
                if written is not None:
                    await members.publish(session, scope, written)
                await batch_landed(session, scope, batch.dataset_id, batch.id, loaded.version, clock())
            return


async def reconcile(database: Database, lake: Lake, clock: Clock) -> None:
    """Settles the batches whose loader died or is frozen: ACTIVE if their rows were committed, FAILED otherwise. Any
    process may do it at any time."""
    async with database.session() as session:
        lost = list(await session.scalars(_lost(clock)))
    for batch in lost:
        try:
            await settle_lost(database, lake, clock, batch)
        except Exception as error:
            if is_unavailable(error):
                raise
            # A problem of one dataset must not delay the others.
            log.exception("could not settle the unfinished batch %s; retrying", batch.id)


async def settle_lost(database: Database, lake: Lake, clock: Clock, batch: BatchRow) -> None:
    """Settles one batch with an expired lease that was being loaded or deleted."""
    tenant = Tenant(batch.organisation, batch.sandbox)
    scope = Scope(tenant.organisation, tenant.sandbox, batch.created_by)
    async with database.session() as session:
        dataset = (await datasets.get_many(session, scope, [batch.dataset_id])).get(batch.dataset_id)
    if dataset is None:
        return
    if batch.status == BatchStatus.DELETING:
        await withdraw(database, lake, clock, tenant, dataset, batch)
        return
    folder = lake.tenant(tenant)
    landed = await asyncio.to_thread(give_up_batch, folder, dataset.id, datasets.shape_of(dataset), batch.id)
    if landed is None:
        await asyncio.to_thread(clear_unfinished, folder, dataset.id)
        await fail(database, tenant, batch.id, "the process that loaded it died or was frozen: send the file again")
    else:
        await land(database, lake, clock, tenant, dataset, batch, landed)
    LEASES_TAKEN_OVER.labels("batch").inc()
    log.info(
        "batch %s was left unfinished; it is now %s", batch.id, BatchStatus.ACTIVE if landed else BatchStatus.FAILED
    )


async def settled(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, stopping: Sequence[asyncio.Event] = ()
) -> BatchRow | None:
    """The batch once it is no longer LOADING, possibly settled by another process; None if it was deleted, or on a
    stop."""
    while not any(event.is_set() for event in stopping):
        async with database.session() as session:
            batch = (await datasets.batches_get_many(session, scope, [id])).get(id)
        if batch is None or batch.status != BatchStatus.LOADING:
            return batch
        if batch.lease_until is not None and batch.lease_until < clock():
            await settle_lost(database, lake, clock, batch)
        else:
            await asyncio.sleep(0.1)
    return None


def _lost(clock: Clock) -> Any:
    """Abandoned batches of every tenant; this query deliberately spans tenants."""
    return select(BatchRow).where(_BATCHES.status.in_(UNSETTLED), is_free(_BATCHES, clock()))


async def withdraw(
    database: Database, lake: Lake, clock: Clock, tenant: Tenant, dataset: DatasetRow, batch: BatchRow
) -> None:
    """Removes a DELETING batch: its rows from the lake, then in one transaction its members, its count and itself."""
    scope, folder = Scope(tenant.organisation, tenant.sandbox, batch.created_by), lake.tenant(tenant)
    if dataset.kind == DatasetKind.EXPORT:
        await asyncio.to_thread(withdraw_export, folder, dataset.id, [batch.id])
        version = 0
    else:
        version = await asyncio.to_thread(withdraw_batch, folder, dataset.id, batch.id)
    while True:
        written = None
        if dataset.kind == DatasetKind.AUDIENCE:
            async with database.session() as session:
                remaining = await members.landed_batches(session, scope, dataset.id)
            run_id = new_id(clock())
            arrival = members.Arrival(dataset.id, remaining, joined=False)
            written = await members.write(database, lake, clock, scope, run_id, arrival)
        async with database.write(tenant) as session:
            if written is not None and (
                remaining != await members.landed_batches(session, scope, dataset.id)
                or not await members.still_holds(session, scope, dataset.id, written)
            ):
                continue
            gone = within(delete(BatchRow), BatchRow, tenant).where(_BATCHES.id == batch.id)
            if (await session.execute(gone.returning(_BATCHES.id))).first() is not None:
                shrunk = within(update(DatasetRow), DatasetRow, tenant).where(_DATASETS.id == dataset.id)
                rows = _DATASETS.row_count - batch.row_count
                await session.execute(shrunk.values(row_count=rows, updated_at=clock()))
                if written is not None:
                    await members.publish(session, scope, written)
                if dataset.kind != DatasetKind.EXPORT:
                    await batch_withdrawn(session, scope, dataset.id, batch.id, version, clock())
            return


async def _settle(session: AsyncSession, tenant: Tenant, batch_id: str, values: StoredValues) -> bool:
    change = within(update(BatchRow), BatchRow, tenant)
    settled = change.where(_BATCHES.id == batch_id, _BATCHES.status == BatchStatus.LOADING).values(
        lease_until=None, **values
    )
    return (await session.execute(settled.returning(_BATCHES.id))).first() is not None
