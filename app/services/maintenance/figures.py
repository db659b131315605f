"""Operational metrics over all sandboxes: queue, workers, batches, lake; contains no data of any tenant."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.maintenance.inspection import Usage, usage
from app.engine.store.lake import Lake
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.queue.workers import live_workers
from app.storage.tables.datasets import UNSETTLED, BatchRow
from app.storage.tables.jobs import RUNNING, WAITING, JobKind, JobStatus
from app.storage.tables.streaming import StreamingBatchRow

LIVE_STATES = sorted(WAITING | RUNNING)
FRESH_SECONDS = 5.0
"""Minimum interval between reads of the metrics from the database."""
LAKE_SECONDS = 60.0
"""Minimum interval between measurements of the lake's size, which count each file."""

_BATCHES = columns(BatchRow)
_STREAMED = columns(StreamingBatchRow)


@dataclass(frozen=True, slots=True)
class Figures:
    """`jobs` counts unfinished jobs by kind and status; `oldest` is the waiting time in seconds of each kind's oldest
    waiting job; `lost` counts the batches whose loader is silent."""

    jobs: dict[tuple[JobKind, JobStatus], int]
    oldest: dict[JobKind, float]
    workers: int
    loading: int
    lost: int
    streaming: int
    streaming_oldest: float


class FigureReader:
    """Reads the metrics at most once per interval."""

    def __init__(
        self, database: Database, lake: Lake, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._lake = lake
        self._clock = clock
        self._monotonic = monotonic
        self._turn = asyncio.Lock()
        self._figures: tuple[float, Figures] | None = None
        self._usage: tuple[float, Usage] | None = None

    async def figures(self) -> Figures:
        async with self._turn:
            if self._figures is None or self._monotonic() - self._figures[0] >= FRESH_SECONDS:
                async with self._database.session() as session:
                    self._figures = self._monotonic(), await read_figures(session, self._clock())
            return self._figures[1]

    async def usage(self) -> Usage:
        async with self._turn:
            if self._usage is None or self._monotonic() - self._usage[0] >= LAKE_SECONDS:
                self._usage = self._monotonic(), await asyncio.to_thread(usage, self._lake.root)
            return self._usage[1]


async def read_figures(session: AsyncSession, now: datetime) -> Figures:
    jobs = {(kind, status): 0 for kind in KINDS for status in LIVE_STATES}
    oldest = dict.fromkeys(KINDS, 0.0)
    for kind, row in KINDS.items():
        of = columns(row)
        live = select(of.status, func.count(), func.min(of.created_at)).where(of.status.in_(LIVE_STATES))
        for status, number, since in await session.execute(live.group_by(of.status)):
            jobs[kind, JobStatus(status)] = number
            if status in WAITING:
                oldest[kind] = max(oldest[kind], (now - since).total_seconds())
    over = and_(_BATCHES.status.in_(UNSETTLED), _BATCHES.lease_until < now)
    loading = select(func.count(), func.count().filter(over)).where(_BATCHES.status.in_(UNSETTLED))
    unsettled, lost = (await session.execute(loading)).one()
    waiting = select(func.count(), func.min(_STREAMED.created_at)).where(_STREAMED.waiting)
    streaming, since = (await session.execute(waiting)).one()
    return Figures(
        jobs=jobs,
        oldest=oldest,
        workers=await live_workers(session, now),
        loading=unsettled - lost,
        lost=lost,
        streaming=streaming,
        streaming_oldest=0.0 if since is None else (now - since).total_seconds(),
    )
