"""Whether a process can do its work, for load balancers and operators; changes nothing permanent."""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.run.engine import Engine
from app.engine.store.lake import Lake
from app.errors import LakeAway, outage
from app.storage.columns import columns
from app.storage.database import Database, is_unavailable
from app.storage.job_log import KINDS
from app.storage.queue.workers import live_workers
from app.storage.tables.datasets import DatasetRow
from app.storage.tables.jobs import RUNNING, WAITING

log = logging.getLogger(__name__)

LEFT = timedelta(minutes=2)
"""A job unclaimed for this long has no worker."""
WATCH_SECONDS = 30.0


async def not_ready(database: Database, lake: Lake, seconds: float) -> str | None:
    """Why the database or the lake is unusable; None if both respond within this many seconds."""
    try:
        async with asyncio.timeout(seconds):
            if problem := await database.misfit():
                return problem
    except Exception as error:
        return outage(error) or "the database does not answer"
    try:
        async with asyncio.timeout(seconds):
            await asyncio.to_thread(lake.probe)
    except Exception as error:
        return outage(error) or "the data folder cannot be written"
    return None


async def engine_away(engine: Engine | None) -> str | None:
    """Why segment jobs fail at the moment; None if they do not, or if there is no engine."""
    problem = None if engine is None else await asyncio.to_thread(engine.problem)
    return None if problem is None else f"segment jobs fail: {problem}"


async def left_jobs(session: AsyncSession, now: datetime) -> str | None:
    """Why jobs of any sandbox are not being claimed, and what to do: no worker runs, or none has worked on any job of
    their kind for minutes. None if no jobs are left waiting."""
    unclaimed = waiting = 0
    for row in KINDS.values():
        of = columns(row)
        queued = select(func.count(), func.count().filter(of.updated_at < now - LEFT)).select_from(row)
        of_kind, for_long = (await session.execute(queued.where(of.status.in_(WAITING)))).one()
        waiting += of_kind
        working = select(func.count()).select_from(row).where(of.status.in_(RUNNING), of.lease_until >= now)
        if for_long and not (await session.execute(working)).scalar_one():
            unclaimed += for_long
    if waiting and not await live_workers(session, now):
        return f"{_jobs(waiting)} for a worker, and none is running: start `segmentation worker`"
    if unclaimed:
        return f"{_jobs(unclaimed)} for minutes, and no worker takes them up: see the logs of the workers"
    return None


def _jobs(number: int) -> str:
    return "1 job waits" if number == 1 else f"{number:,} jobs wait"


async def watch_queue(database: Database, clock: Clock, stop: asyncio.Event, every: float = WATCH_SECONDS) -> None:
    """Logs once when jobs are left waiting and once when they no longer are, until `stop` is set."""
    said: str | None = None
    while not stop.is_set():
        try:
            async with database.session() as session:
                reason = await left_jobs(session, clock())
        except Exception as error:
            if not is_unavailable(error):
                raise
        else:
            if reason and not said:
                log.warning("%s", reason)
            elif said and not reason:
                log.info("no jobs are left waiting")
            said = reason
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)


async def refuse_lost_lake(database: Database, lake: Lake) -> None:
    """Raises `LakeAway` if the lake is empty although the database records rows of datasets."""
    if not await asyncio.to_thread(lake.is_empty):
        return
    async with database.session() as session:
        rows = await session.execute(select(func.coalesce(func.sum(_DATASETS.row_count), 0)))
        if rows.scalar_one():
            raise LakeAway


_DATASETS = columns(DatasetRow)
