"""Uploads one file into one dataset, through the API or the command line: all of its good rows, or nothing."""

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from app.clock import Clock
from app.engine.ingest.batch import ingest, try_out
from app.engine.ingest.formats import FileFormat, InputFile
from app.engine.ingest.notes import committed_batch
from app.engine.ingest.progress import Progress
from app.engine.ingest.rows import DatasetShape, DryRun, Ingested, RejectedRow
from app.engine.ingest.stop import Stop, Stopped
from app.engine.store.delta import GivenUp
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Unconfirmed
from app.metrics import BATCH_SECONDS, BATCHES_LOADED, BYTES_LOADED, ROWS_LOADED
from app.scope import Scope
from app.services.datasets import batches, datasets, deletion
from app.storage.database import Database, is_unavailable
from app.storage.tables.datasets import BatchRow, BatchStatus, DatasetRow

FORMATS: dict[str, FileFormat] = {
    "csv": "CSV",
    "tsv": "CSV",
    "ndjson": "NDJSON",
    "jsonl": "NDJSON",
    "json": "NDJSON",
    "parquet": "PARQUET",
}
"""File name suffix → format."""

MOST_ROWS = 10_000
"""Maximum number of rows in one call of `ingestRows`."""
CONFIRM_SECONDS = 20.0
"""How long a batch with stored rows waits for an unavailable database before its sender is notified."""
_RETRY_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class UploadOptions:
    """The same `idempotency_key` within 24 hours returns the same batch of the dataset. The work stops soon after an
    event in `stopping` is set; a loader that is silent for a `lease` has lost the batch. `progress` receives the
    progress."""

    idempotency_key: str | None = None
    stopping: Sequence[asyncio.Event] = ()
    lease: timedelta = batches.LEASE
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    """`repeated` is true if the batch with the same idempotency key was already committed, and nothing was loaded."""

    batch: BatchRow
    rejected: tuple[RejectedRow, ...]
    repeated: bool = False
    warnings: tuple[str, ...] = ()


async def upload_batch(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    dataset_id: str,
    file: InputFile,
    options: UploadOptions = UploadOptions(),
) -> Uploaded:
    """Adds the file to the dataset.

    Raises `Refusal`; the dataset is then unchanged, and the batch, if one was started, is FAILED. Raises `Unconfirmed`
    if the rows are stored but the database became unavailable before it confirmed the batch.
    """
    dataset = await _dataset(database, scope, dataset_id)
    return await _Upload(database, lake, clock, scope, dataset, options).load(file)


@asynccontextmanager
async def rows_as_file(rows: Sequence[object], folder: Path) -> AsyncIterator[InputFile]:
    """JSON values as a file in `folder`, deleted afterwards. Raises `Refusal` for no rows and for too many."""
    if not 1 <= len(rows) <= MOST_ROWS:
        code = ErrorCode.LIMIT_EXCEEDED if rows else ErrorCode.INVALID_INPUT
        raise Refusal(code, f"a call takes 1 to {MOST_ROWS:,} rows, this one has {len(rows):,}", ("rows",))

    def write() -> None:
        file.write_text("".join(f"{_line(row)}\n" for row in rows))

    file = folder / f"{uuid4().hex}.ndjson"
    try:
        await asyncio.to_thread(write)
        yield InputFile(file, "NDJSON")
    finally:
        file.unlink(missing_ok=True)


def _line(row: object) -> str:
    """The row as a line of a file, in ASCII, because a text may contain a lone surrogate, which has no other form."""
    try:
        return json.dumps(row)
    except RecursionError:
        return _TOO_DEEP


_TOO_DEEP = '{"v": ' + "[" * 100 + "]" * 100 + "}"
"""Stands for a row that is nested too deeply to be written: the loader rejects it for its depth."""


def content_digest(file: InputFile) -> str:
    """The content of a file and how it is read, independent of its name; SHA-256 in hexadecimal."""
    with file.path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    digest.update(json.dumps([file.format, asdict(file.csv)]).encode())
    return digest.hexdigest()


async def try_upload(database: Database, lake: Lake, scope: Scope, dataset_id: str, file: InputFile) -> DryRun:
    """What `upload_batch` would load; stores nothing. Raises `Refusal` like `upload_batch`."""
    dataset = await _dataset(database, scope, dataset_id)
    shape = await _shape(database, scope, dataset.name, datasets.shape_of(dataset))
    return await asyncio.to_thread(try_out, lake.tenant(scope.tenant), dataset_id, shape, file)


async def _shape(database: Database, scope: Scope, name: str, shape: DatasetShape) -> DatasetShape:
    async with database.session() as session:
        return await datasets.shape_beside(session, scope, name, shape)


async def _dataset(database: Database, scope: Scope, id: str) -> DatasetRow:
    async with database.session() as session:
        dataset = (await datasets.get_many(session, scope, [id])).get(id)
    if dataset is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no dataset {id!r} in this sandbox", ("dataset_id",))
    return dataset


async def ingest_file(
    database: Database,
    lake: Lake,
    clock: Clock,
    scope: Scope,
    new: datasets.NewDataset,
    file: InputFile,
    options: UploadOptions = UploadOptions(),
) -> Uploaded:
    """Uploads to a dataset by name, which is created if missing, and declared if a JSON Schema of its rows is given.

    A rejected file leaves no new dataset behind. Raises `Refusal` if the dataset exists and differs.
    """
    dataset = await _matching(database, scope, new)
    is_new = dataset is None
    if dataset is None:
        dataset = await datasets.create(database, clock, scope, new, lake)
    elif new.schema is not None:
        changes = datasets.DatasetChanges(schema=new.schema)
        dataset = await datasets.update(database, lake, clock, scope, dataset.id, None, changes)
    try:
        return await _Upload(database, lake, clock, scope, dataset, options).load(file)
    except Refusal:
        if is_new:
            await deletion.discard_empty(database, scope, dataset.id)
        raise


async def try_file(
    database: Database,
    lake: Lake,
    scope: Scope,
    new: datasets.NewDataset,
    file: InputFile,
    progress: Progress | None = None,
) -> DryRun:
    """What `ingest_file` would load; stores nothing. Raises `Refusal` like `ingest_file`."""
    datasets.refuse_misfits(new)
    dataset = await _matching(database, scope, new)
    shape = DatasetShape(
        datasets.SHAPES[new.kind], new.identity_column or "", new.namespace or "", new.timestamp_column
    )
    shape = await _shape(database, scope, new.name, shape)
    id = None if dataset is None else dataset.id
    return await asyncio.to_thread(try_out, lake.tenant(scope.tenant), id, shape, file, new.schema, progress)


async def _matching(database: Database, scope: Scope, new: datasets.NewDataset) -> DatasetRow | None:
    """The dataset with this name, None if there is none. Raises `Refusal` if its definition differs."""
    async with database.session() as session:
        dataset = await datasets.by_name(session, scope, new.name)
    if dataset is None:
        return None
    differences = [
        f"{words} is {getattr(dataset, field) or 'none'}, not {getattr(new, field) or 'none'}"
        for field, words in _DEFINITION.items()
        if getattr(dataset, field) != getattr(new, field)
    ]
    if differences:
        message = (
            f"the dataset {new.name!r} already exists with a different definition: {'; '.join(differences)}; "
            "use the same, or choose another name"
        )
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("name",))
    return dataset


_DEFINITION = {
    "kind": "its kind",
    "identity_column": "its identity column",
    "namespace": "the namespace of its identities",
    "timestamp_column": "its time column",
}


@dataclass(frozen=True, slots=True)
class _Upload:
    """Loads one file into a batch."""

    database: Database
    lake: Lake
    clock: Clock
    scope: Scope
    dataset: DatasetRow
    options: UploadOptions

    async def load(self, file: InputFile) -> Uploaded:
        shape, options = datasets.shape_of(self.dataset), self.options
        file.csv.check(file.format == "CSV")
        shape = await _shape(self.database, self.scope, self.dataset.name, shape)
        content = None if options.idempotency_key is None else await asyncio.to_thread(content_digest, file)
        while True:
            batch, fresh = await batches.begin(
                self.database, self.clock, self.scope, self.dataset, options.idempotency_key, options.lease, content
            )
            if fresh:
                break
            if (repeated := await self._same(batch.id)) is not None:
                return repeated
        began = time.perf_counter()
        hold = batches.Hold(self.database, self.clock, batch, options.lease)
        keeping = asyncio.create_task(hold.keep(), name=f"lease of batch {batch.id}")
        loading = asyncio.create_task(
            asyncio.to_thread(
                ingest,
                self.lake.tenant(self.scope.tenant),
                self.dataset.id,
                shape,
                file,
                batch.id,
                hold.stop,
                options.progress,
            )
        )
        try:
            try:
                await _ended(loading, hold.stop, options.stopping)
            finally:
                loaded = await asyncio.shield(self._settled(batch, loading, hold))
        except BaseException:
            BATCHES_LOADED.labels("failed").inc()
            raise
        finally:
            keeping.cancel()
            BATCH_SECONDS.observe(time.perf_counter() - began)
        _count(loaded.batch)
        return loaded

    async def _same(self, id: str) -> Uploaded | None:
        """The batch with the same key, if it was committed; otherwise None, and its key is free."""
        stopping = self.options.stopping
        batch = await batches.settled(self.database, self.lake, self.clock, self.scope, id, stopping)
        if any(event.is_set() for event in stopping):
            raise _refused(f"batch {id} of the same idempotency key is still being loaded: retry later")
        if batch is None or batch.status != BatchStatus.ACTIVE:
            return None
        tenant = self.lake.tenant(self.scope.tenant)
        brought = await asyncio.to_thread(committed_batch, tenant, batch.dataset_id, batch.id)
        return Uploaded(batch, brought.rejected if brought is not None else (), repeated=True)

    async def _settled(self, batch: BatchRow, loading: "asyncio.Task[Ingested]", hold: batches.Hold) -> Uploaded:
        """The result of a batch whose thread has ended: committed, or failed with an exception."""
        tenant = self.scope.tenant
        error = loading.exception()
        if error is None:
            loaded: Ingested | None = loading.result()
        elif isinstance(error, Refusal):
            loaded = None
        else:
            # It may have failed after its commit.
            loaded = await asyncio.to_thread(committed_batch, self.lake.tenant(tenant), self.dataset.id, batch.id)
        if loaded is not None:
            return await self._confirmed(batch, loaded)
        refusal = self._refusal(batch.id, error, hold)
        try:
            await batches.fail(self.database, tenant, batch.id, refusal.message if refusal else _INTERNAL)
        except Exception as away:
            # Its lease expires, and another process settles it. It is certain that nothing was committed.
            if not is_unavailable(away):
                raise
        raise refusal or error or RuntimeError("an upload ended with neither a result nor an error")

    def _refusal(self, batch_id: str, error: BaseException | None, hold: batches.Hold) -> Refusal | None:
        """The error for the sender; None for an internal error."""
        if isinstance(error, Refusal):
            return error
        if isinstance(error, GivenUp) or (isinstance(error, Stopped) and hold.lost):
            seconds = self.options.lease.total_seconds()
            return _refused(
                f"batch {batch_id} has failed, and none of its rows is stored: the process that loaded it sent no "
                f"heartbeat for more than {seconds:.0f} seconds (it or its machine was frozen or overloaded), so the "
                "batch was abandoned; send the file again"
            )
        if isinstance(error, Stopped):
            return _refused(
                f"batch {batch_id} was stopped, and none of its rows is stored: its process is stopping, or the client "
                "disconnected; send the file again"
            )
        return None

    async def _confirmed(self, batch: BatchRow, loaded: Ingested) -> Uploaded:
        """Confirms stored rows in the database, and waits for an unavailable database, but not indefinitely."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONFIRM_SECONDS
        while True:
            try:
                await batches.land(self.database, self.lake, self.clock, self.scope.tenant, self.dataset, batch, loaded)
                async with self.database.session() as session:
                    landed = (await datasets.batches_get_many(session, self.scope, [batch.id]))[batch.id]
                return Uploaded(landed, loaded.rejected, warnings=loaded.warnings)
            except Exception as error:
                if not is_unavailable(error):
                    raise
                if loop.time() > deadline or any(event.is_set() for event in self.options.stopping):
                    raise Unconfirmed(batch.id) from error
            await asyncio.sleep(_RETRY_SECONDS)


_INTERNAL = "internal error, see the log"


def _count(batch: BatchRow) -> None:
    BATCHES_LOADED.labels("active").inc()
    BYTES_LOADED.inc(batch.bytes)
    rows = {"stored": batch.row_count, "rejected": batch.rejected_rows, "duplicate": batch.duplicate_rows}
    for outcome, number in rows.items():
        ROWS_LOADED.labels(outcome).inc(number)


def _refused(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_STATE, message, ("file",))


async def _ended(loading: "asyncio.Task[Any]", stop: Stop, stopping: Sequence[asyncio.Event]) -> None:
    """Waits until the thread has ended; stops it when an event is set, or when the caller is cancelled."""
    waiting = [asyncio.create_task(event.wait()) for event in stopping]
    try:
        await asyncio.wait({loading, *waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.shield(_halted(loading, stop))


async def _halted(loading: "asyncio.Task[Any]", stop: Stop) -> None:
    while not loading.done():
        stop.request()
        await asyncio.wait({loading}, timeout=0.05)
