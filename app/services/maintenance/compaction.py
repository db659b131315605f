"""Limits the number of files of event datasets that receive small batches; the lake does the work."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from sqlalchemy import select

from app.clock import Clock
from app.engine.limits.pool import Cancelled
from app.engine.people.compaction import compact
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake
from app.scope import Tenant
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind, DatasetRow

log = logging.getLogger(__name__)

_DATASETS = columns(DatasetRow)
_UNDER_WAY = timedelta(minutes=1)
"""Maximum delay between a transaction's timestamp and its commit."""


class Compaction:
    """Examines the datasets that have changed since its last step; any number of processes may do so concurrently."""

    def __init__(self, database: Database, lake: Lake, clock: Clock, threads: int = 1) -> None:
        self.database, self.lake, self.clock, self.threads = database, lake, clock, threads
        self._since = datetime.min.replace(tzinfo=UTC)

    async def step(self, stop: asyncio.Event) -> None:
        began = self.clock()
        changed = (
            select(_DATASETS.organisation, _DATASETS.sandbox, _DATASETS.id)
            .where(_DATASETS.kind == DatasetKind.EVENT, _DATASETS.updated_at >= self._since)
            .order_by(_DATASETS.updated_at)
        )
        async with self.database.session() as session:
            datasets = [(Tenant(row.organisation, row.sandbox), row.id) for row in await session.execute(changed)]
        for tenant, dataset in datasets:
            if stop.is_set():
                return
            try:
                await asyncio.to_thread(self._compact, tenant, dataset, stop)
            except Cancelled:
                return
            except Exception:
                # Readers report problems of a dataset; here, one must not stop the others.
                log.exception("compaction failed in %s/%s", tenant.organisation, tenant.sandbox)
        self._since = began - _UNDER_WAY

    def _compact(self, tenant: Tenant, dataset: str, stop: asyncio.Event) -> None:
        lake = self.lake.tenant(tenant)
        table = open_table(lake.dataset(dataset))
        if table is not None:
            compact(lake, [table], self.threads, stop.is_set)
