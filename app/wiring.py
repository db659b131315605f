"""What every process of ours has, and what works in the background; knows no HTTP."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from app.clock import Clock, SteadyClock, utc_now
from app.engine.limits.budget import Budget, bytes_of
from app.engine.run.engine import Engine, LocalEngine
from app.engine.run.spark import SparkEngine
from app.engine.store.lake import Lake, probe, refuse_unfit
from app.errors import ErrorCode, InvalidSettings, Refusal
from app.services.datasets.batches import reconcile
from app.services.maintenance.backup import Summary, back_up, restore
from app.services.maintenance.doctor import JOBS, Finding, examine
from app.services.maintenance.readiness import refuse_lost_lake, watch_queue
from app.services.maintenance.retention import Keep
from app.settings import Settings
from app.storage.database import Database, is_unavailable
from app.storage.tables.jobs import JobKind
from app.storage.wakeups import Changes
from app.worker.jobs import Worker, WorkerOptions
from app.worker.maintenance import Maintenance
from app.worker.scheduler import keep_time
from app.worker.streaming import TURNS_AT_ONCE, StreamingLane

log = logging.getLogger("segmentation")

STOP_SECONDS = 9.0
"""How long a stopping process waits for the bucket in hand before its jobs are left to others."""

AWAY_SECONDS = 2.0
"""How often a starting process asks for a database that is away."""


def _since_boot() -> float:
    """Seconds that nobody sets; where there is such a clock, also those of a machine that sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Services:
    """What every process of ours has: the same for the server, a worker and the commands."""

    settings: Settings
    database: Database
    lake: Lake
    changes: Changes
    clock: Clock
    engine: Engine

    def worker(self) -> Worker:
        options = WorkerOptions(
            concurrency=self.settings.concurrent_jobs,
            places={JobKind.PREVIEW: self.settings.concurrent_previews},
            tenant_places={JobKind.PREVIEW: self.settings.sandbox_previews},
            threads=self.settings.threads,
            lease_seconds=self.settings.lease_seconds,
        )
        return Worker(self.database, self.changes, self.lake, self.clock, options, engine=self.engine)

    def steady(self) -> SteadyClock:
        """One for each who asks, since each asks at times of its own."""
        return SteadyClock(self.clock, _since_boot)

    def maintenance(self) -> Maintenance:
        keep = Keep(
            job_updates=timedelta(days=self.settings.keep_job_updates_days),
            memberships=timedelta(days=self.settings.keep_memberships_days),
            versions=timedelta(hours=self.settings.keep_versions_hours),
            previews=timedelta(days=self.settings.keep_previews_days),
        )
        settle_seconds = self.settings.batch_lease.total_seconds() / 2
        return Maintenance(self.database, self.lake, self.clock, keep, settle_seconds, self.steady())

    def lane(self) -> StreamingLane:
        return StreamingLane(
            self.database,
            self.changes,
            self.lake,
            self.clock,
            lease_seconds=self.settings.lease_seconds,
            threads=self.settings.threads,
            sweep_every=self.settings.streaming_sweep,
        )


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock = utc_now, *, wait: bool = False) -> AsyncIterator[Services]:
    """Opens database (migrated) and lake, and closes them; with `wait` a database that is away is waited for."""
    _make_folder(settings.data_dir)
    # A folder that cannot be written is named as one; SQLite would only say that it cannot open its file.
    await asyncio.to_thread(probe, settings.data_dir)
    await asyncio.to_thread(refuse_unfit, settings.data_dir)
    database = Database(settings.database, connections=settings.database_connections)
    try:
        await _migrate(database, wait)
        lake = _lake(settings)
        await refuse_lost_lake(database, lake)
        lake.root.mkdir(parents=True, exist_ok=True)
        async with Changes.open(database) as changes:
            yield Services(settings, database, lake, changes, clock, _engine(settings, lake))
    finally:
        await database.dispose()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidSettings(f"SEGMENTATION_DATA_DIR={folder} is a file: name a folder") from None


async def _migrate(database: Database, wait: bool) -> None:
    while True:
        try:
            return await database.migrate()
        except Exception as error:
            if not wait or not is_unavailable(error):
                raise
            log.warning("database unavailable; retrying in %.0f s: %s", AWAY_SECONDS, error)
        await asyncio.sleep(AWAY_SECONDS)


async def examined(settings: Settings, clock: Clock = utc_now, *, checksums: bool = False) -> list[Finding]:
    """What the doctor finds, with database and lake left as they are; with `checksums` it reads every file."""
    database = Database(settings.database)
    try:
        lake = _lake(settings)
        findings = await examine(database, lake, clock, checksums=checksums)
        if problem := await asyncio.to_thread(_engine(settings, lake).problem):
            advice = "segment jobs fail until then; the data are not touched by this"
            findings.append(Finding("engine", f"SEGMENTATION_ENGINE={settings.engine}", problem, advice))
        return findings
    finally:
        await database.dispose()


async def backed_up(settings: Settings, target: Path, clock: Clock = utc_now) -> Summary:
    """Backs up database and lake into a folder; other processes may go on. Raises `Refusal` and `CopyDamaged`."""
    database = Database(settings.database)
    try:
        if problem := await database.misfit():
            raise Refusal(ErrorCode.INVALID_STATE, problem)
        return await back_up(database, _lake(settings), clock, target)
    finally:
        await database.dispose()


async def restored(settings: Settings, source: Path, clock: Clock = utc_now) -> tuple[Summary, list[Finding]]:
    """Restores a backup into the empty database and data folder of the settings, and has the doctor look at all of it.

    That jobs wait is nothing wrong: nobody works here yet. Raises `Refusal` and `CopyDamaged`.
    """
    _make_folder(settings.data_dir)
    await asyncio.to_thread(refuse_unfit, settings.data_dir)
    database, lake = Database(settings.database), _lake(settings)
    try:
        summary = await restore(database, lake, source)
        await reconcile(database, lake, clock)
        findings = await examine(database, lake, clock, checksums=True)
        return summary, [finding for finding in findings if finding.check != JOBS]
    finally:
        await database.dispose()


def _lake(settings: Settings) -> Lake:
    budget = Budget(bytes_of(settings.definition_memory), settings.definition_seconds)
    folder = settings.data_dir / "lake"
    return Lake(
        folder,
        memory_limit=settings.memory_limit,
        threads=settings.threads,
        budget=budget,
        time_zone=settings.time_zone,
        refuse_erased=settings.erased_people == "refuse",
        must_exist=True,
    )


def _engine(settings: Settings, lake: Lake) -> Engine:
    """What evaluates the buckets of segment jobs; not started."""
    if settings.engine == "spark":
        return SparkEngine(settings.spark_master or "", lake)
    return LocalEngine(settings.threads)


@asynccontextmanager
async def working(services: Services) -> AsyncIterator[None]:
    """A worker and a scheduler beside whatever the caller does; on leaving it finishes or hands back what it holds.

    Raises `InvalidSettings` when the engine cannot be started.
    """
    try:
        await asyncio.to_thread(services.engine.start)
        async with _working(services):
            yield
    finally:
        await asyncio.to_thread(services.engine.stop)


@asynccontextmanager
async def _working(services: Services) -> AsyncIterator[None]:
    stop = asyncio.Event()
    running = [
        asyncio.create_task(services.worker().run(stop), name="worker"),
        *(asyncio.create_task(services.lane().run(stop), name="streaming lane") for _ in range(TURNS_AT_ONCE)),
        asyncio.create_task(
            keep_time(services.database, services.changes, services.clock, stop, services.steady()), name="scheduler"
        ),
        asyncio.create_task(services.maintenance().keep(stop), name="housekeeping"),
    ]
    try:
        yield
    finally:
        stop.set()
        _, late = await asyncio.wait(running, timeout=STOP_SECONDS)
        for task in late:
            log.warning("the %s did not stop within %.0f seconds; leases run out", task.get_name(), STOP_SECONDS)
            task.cancel()


@asynccontextmanager
async def watching(services: Services) -> AsyncIterator[None]:
    """For a process without a worker: its log says when jobs wait and no worker takes them up."""
    stop = asyncio.Event()
    task = asyncio.create_task(watch_queue(services.database, services.clock, stop), name="watch of the queue")
    try:
        yield
    finally:
        stop.set()
        await task
