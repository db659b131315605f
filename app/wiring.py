"""The services shared by all kinds of processes, and the background tasks; knows no HTTP."""

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
from app.engine.maintenance.copies import trim
from app.engine.run.engine import Engine, LocalEngine
from app.engine.run.spark import SparkEngine
from app.engine.store.fitness import refuse_unfit
from app.engine.store.lake import Lake, probe
from app.engine.store.objects import mount
from app.errors import ErrorCode, InvalidSettings, Refusal
from app.services.datasets.batches import reconcile
from app.services.jobs.erasure.again import erase_again, refuse_misfit
from app.services.maintenance.backup import Summary, back_up, restore
from app.services.maintenance.doctor import JOBS, Finding, examine
from app.services.maintenance.readiness import refuse_lost_lake, watch_queue
from app.services.maintenance.retention import Keep
from app.settings import Settings
from app.storage.database import Database, is_unavailable
from app.storage.tables.jobs import JobKind
from app.storage.wakeups import Changes
from app.worker.helping import Helping
from app.worker.jobs import Worker, WorkerOptions
from app.worker.maintenance import Maintenance
from app.worker.scheduler import keep_time
from app.worker.service import Resources, Rest, serve
from app.worker.streaming import TURNS_AT_ONCE, StreamingLane

log = logging.getLogger("segmentation")

STOP_SECONDS = 9.0
"""How long a stopping process waits for buckets in progress before it leaves its jobs to other workers."""

COPIES_SECONDS = 600.0
"""Seconds between clean-ups of this host's copies of files on object storage."""

AWAY_SECONDS = 2.0
"""Seconds between connection attempts of a starting process while the database is unavailable."""


def _since_boot() -> float:
    """Seconds from a clock that is never adjusted; includes time asleep where the system provides such a clock."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


@dataclass(frozen=True, slots=True)
class Services:
    """What every process has: the server, a worker and the commands."""

    settings: Settings
    database: Database
    lake: Lake
    changes: Changes
    clock: Clock
    engine: Engine

    @property
    def _resources(self) -> Resources:
        return Resources(self.database, self.changes, self.lake, self.clock)

    def _options(self) -> WorkerOptions:
        return WorkerOptions(
            concurrency=self.settings.concurrent_jobs,
            places={JobKind.PREVIEW: self.settings.concurrent_previews},
            tenant_places={JobKind.PREVIEW: self.settings.sandbox_previews},
            threads=self.settings.threads,
            lease_seconds=self.settings.lease_seconds,
        )

    def worker(self) -> Worker:
        return Worker(self._resources, self._options(), engine=self.engine)

    def steady(self) -> SteadyClock:
        """A new instance per caller, because each caller checks at its own intervals."""
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

    def helping(self, worker: Worker) -> Helping:
        return Helping(self._resources, self._options(), idle=worker.is_idle)

    def lane(self) -> StreamingLane:
        return StreamingLane(self._resources, self._options(), sweep_every=self.settings.streaming_sweep)


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock = utc_now, *, wait: bool = False) -> AsyncIterator[Services]:
    """Opens the database (migrating it) and the lake, and closes them. With `wait`, waits for an unavailable
    database."""
    await asyncio.to_thread(_prepare, settings)
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


def _prepare(settings: Settings) -> None:
    """Creates the folder. Raises an error that says what is wrong with the folder or the object storage."""
    folder = settings.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        name = "CACHE" if settings.on_object_storage else "DATA"
        raise InvalidSettings(f"SEGMENTATION_{name}_DIR={folder} is a file: name a folder") from None
    # Report an unwritable folder by name; SQLite would only say that it cannot open its file.
    probe(folder)
    refuse_unfit(_root(settings) if settings.on_object_storage else folder)


def _root(settings: Settings) -> Path:
    if isinstance(settings.data_dir, str):
        return mount(f"{settings.data_dir}/lake", settings.folder)
    return settings.data_dir / "lake"


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
    """The doctor's findings; changes neither database nor lake. With `checksums` it reads every file."""
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
    """Backs up the database and the lake into a folder while other processes continue. Raises `Refusal` and
    `CopyDamaged`."""
    database = Database(settings.database)
    try:
        if problem := await database.misfit():
            raise Refusal(ErrorCode.INVALID_STATE, problem)
        return await back_up(database, _lake(settings), clock, target)
    finally:
        await database.dispose()


@dataclass(frozen=True, slots=True)
class Restored:
    """A summary of the restore, the doctor's findings, and the number of people whom jobs will erase again."""

    summary: Summary
    findings: list[Finding]
    erasures: int


async def restored(settings: Settings, source: Path, erased: Path | None = None, clock: Clock = utc_now) -> Restored:
    """Restores a backup into the empty database and data folder of the settings, then runs the doctor on all of it.

    Jobs erase again everyone whom the later lake `erased` records as erased but the backup does not. Waiting jobs are
    not reported as findings, since no worker is running yet. Raises `Refusal` and `CopyDamaged`.
    """
    if erased is not None:
        await asyncio.to_thread(refuse_misfit, erased, source)
    await asyncio.to_thread(_prepare, settings)
    database, lake = Database(settings.database), _lake(settings)
    try:
        summary = await restore(database, lake, source)
        await reconcile(database, lake, clock)
        erasures = 0 if erased is None else await erase_again(database, lake, clock, erased)
        findings = await examine(database, lake, clock, checksums=True)
        return Restored(summary, [finding for finding in findings if finding.check != JOBS], erasures)
    finally:
        await database.dispose()


def _lake(settings: Settings) -> Lake:
    budget = Budget(bytes_of(settings.definition_memory), settings.definition_seconds)
    return Lake(
        _root(settings),
        memory_limit=settings.memory_limit,
        threads=settings.threads,
        budget=budget,
        time_zone=settings.time_zone,
        refuse_erased=settings.erased_people == "refuse",
        people_in_a_bucket=settings.bucket_profiles,
        must_exist=True,
    )


def _engine(settings: Settings, lake: Lake) -> Engine:
    """The engine that evaluates the buckets of segment jobs; not started."""
    if settings.engine == "spark":
        return SparkEngine(settings.spark_master or "", lake)
    return LocalEngine(settings.threads)


@asynccontextmanager
async def working(services: Services) -> AsyncIterator[None]:
    """Runs a worker and a scheduler during the block; on exit it finishes or hands back their jobs.

    Raises `InvalidSettings` if the engine cannot be started.
    """
    try:
        await asyncio.to_thread(services.engine.start)
        async with _working(services):
            yield
    finally:
        await asyncio.to_thread(services.engine.stop)


@asynccontextmanager
async def _working(services: Services) -> AsyncIterator[None]:
    stop, worker = asyncio.Event(), services.worker()
    running = [
        asyncio.create_task(worker.run(stop), name="worker"),
        asyncio.create_task(services.helping(worker).run(stop), name="helping"),
        *(asyncio.create_task(services.lane().run(stop), name="streaming lane") for _ in range(TURNS_AT_ONCE)),
        asyncio.create_task(
            keep_time(services.database, services.changes, services.clock, stop, services.steady()), name="scheduler"
        ),
        asyncio.create_task(services.maintenance().keep(stop), name="housekeeping"),
        asyncio.create_task(_keep_copies(services, stop), name="copies"),
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
    """For a process without a worker: logs when jobs are waiting and no worker claims them."""
    stop = asyncio.Event()
    tasks = [
        asyncio.create_task(watch_queue(services.database, services.clock, stop), name="watch of the queue"),
        asyncio.create_task(_keep_copies(services, stop), name="copies"),
    ]
    try:
        yield
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def _keep_copies(services: Services, stop: asyncio.Event) -> None:
    """Limits the size of this host's copies from object storage, and deletes those of deleted files."""
    if not services.settings.on_object_storage:
        return
    most_bytes = bytes_of(services.settings.cache_size)

    async def step() -> Rest:
        await asyncio.to_thread(trim, services.lake.root, most_bytes)
        return Rest(COPIES_SECONDS)

    await serve(step, stop, name="copies of the lake", retry_seconds=(COPIES_SECONDS,))
