"""Whether a process can do its work: what load balancers and operators ask; changes nothing that lasts."""

import asyncio
from datetime import datetime, timedelta

from sqlalchemy import func, select

from app.engine.store.lake import Lake
from app.errors import LakeAway, outage
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.tables.datasets import DatasetRow
from app.storage.tables.jobs import RUNNING, WAITING

LEFT = timedelta(minutes=2)
"""A job that nobody took up for so long finds no worker."""


async def not_ready(database: Database, lake: Lake, seconds: float) -> str | None:
    """Why the database or the lake cannot be used, None when both can, within so many seconds."""
    try:
        async with asyncio.timeout(seconds), database.session() as session:
            await session.execute(select(func.count()).select_from(DatasetRow).where(_DATASETS.organisation == ""))
    except Exception as error:
        return outage(error) or "the database does not answer"
    try:
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(lake.probe)
    except Exception as error:
        return outage(error) or "the data folder cannot be written"
    return None


async def left_jobs(database: Database, now: datetime) -> int:
    """The jobs of all sandboxes that have waited for minutes while no worker works on any job of their kind."""
    waiting_jobs = 0
    async with database.session() as session:
        for row in KINDS.values():
            of = columns(row)
            waiting = select(func.count()).select_from(row).where(of.status.in_(WAITING), of.updated_at < now - LEFT)
            working = select(func.count()).select_from(row).where(of.status.in_(RUNNING), of.lease_until >= now)
            if (number := (await session.execute(waiting)).scalar_one()) and not (
                await session.execute(working)
            ).scalar_one():
                waiting_jobs += number
    return waiting_jobs


async def refuse_lost_lake(database: Database, lake: Lake) -> None:
    """Raises `LakeAway` when the lake is empty although there are rows of datasets by the database."""
    if not await asyncio.to_thread(lake.is_empty):
        return
    async with database.session() as session:
        rows = await session.execute(select(func.coalesce(func.sum(_DATASETS.row_count), 0)))
        if rows.scalar_one():
            raise LakeAway


_DATASETS = columns(DatasetRow)
