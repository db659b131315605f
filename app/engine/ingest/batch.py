"""Loads a batch of rows as one version of a dataset: all of its good rows or nothing; knows no merge policies."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import duckdb

from app.engine.ingest.destination import Destination
from app.engine.ingest.formats import InputFile, plain_file, refuse, utf8_file
from app.engine.ingest.neighbours import NeighboursChanged
from app.engine.ingest.notes import committed_batch, remove_unfinished
from app.engine.ingest.progress import READING, Progress
from app.engine.ingest.reading import Reading
from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, DatasetShape, DryRun, Ingested, user_fields
from app.engine.ingest.stop import Stop
from app.engine.ingest.storing import Storing
from app.engine.store.delta import open_table
from app.engine.store.field_types import widen
from app.engine.store.files import discard
from app.engine.store.lake import TenantLake, only_row
from app.json_values import JsonValue
from app.pql.schema import EVENTS, ObjectType, Scalar


def ingest(
    lake: TenantLake,
    dataset_id: str,
    shape: DatasetShape,
    file: InputFile,
    batch_id: str,
    stop: Stop | None = None,
    progress: Progress | None = None,
) -> Ingested:
    """Adds the good rows of the file to the dataset in one commit; a batch id that was already committed is not added
    again.

    Raises `Refusal` if the file as a whole is unusable (`NoGoodRows` if no row is usable), `Stopped` soon after `stop`
    is requested, and `GivenUp` if `give_up_batch` came first; then nothing has changed. `progress` receives the
    progress.
    """
    stop, progress = stop or Stop(), progress or Progress()
    folder = lake.dataset(dataset_id)
    with lake.lock(f"dataset {dataset_id}", stop.check):
        remove_unfinished(folder)
        done = committed_batch(lake, dataset_id, batch_id)
        assigned = 0
        while done is None:
            destination = Destination.of(lake, folder, shape)
            with lake.scratch() as scratch, _opened(lake, destination, file, scratch, stop, progress) as reading:
                storing = Storing(lake, reading.database, destination, batch_id, scratch, stop, progress)
                try:
                    done = storing.store(reading.stage(), file.path.stat().st_size, assigned)
                except NeighboursChanged as changed:
                    assigned = changed.new_profiles
        return done


def try_out(
    lake: TenantLake,
    dataset_id: str | None,
    shape: DatasetShape,
    file: InputFile,
    schema: JsonValue = None,
    progress: Progress | None = None,
) -> DryRun:
    """Reads and checks the whole file like `ingest`, but writes nothing into the lake. Without a dataset, as if it were
    the first batch; with a JSON Schema, as if that had been declared. Raises the same errors as `ingest`."""
    with tempfile.TemporaryDirectory(prefix="segmentation-") as folder:
        scratch = Path(folder)
        # A dataset that does not exist yet has no folder.
        there = lake.dataset(dataset_id) if dataset_id is not None else lake.folder / "datasets" / "none"
        destination = Destination.of(lake, there, shape, schema)
        with _opened(lake, destination, file, scratch, Stop(), progress or Progress()) as reading:
            return _tried(reading)


def _tried(reading: Reading) -> DryRun:
    staged, known = reading.stage(), reading.destination.known
    fields, distinct = staged.fields.fields, "__id"
    if reading.destination.is_event:
        distinct = f"(__id, coalesce({EVENT_ID}, '#' || __row))" if EVENT_ID in fields else "__row"
        fields = {TIMESTAMP: Scalar.TIMESTAMP, **fields}
    query = f"SELECT count(DISTINCT {distinct}) FROM staged WHERE __problem IS NULL"
    rows = int(only_row(reading.database, query)[0])
    wider = widen(known, ObjectType(fields))
    return DryRun(
        row_count=rows,
        rejected_rows=staged.rejected_rows,
        duplicate_rows=staged.good - rows,
        rejected=staged.rejected,
        warnings=staged.warnings,
        fields=ObjectType({name: wider.fields[name] for name in fields}),
        new_fields=tuple(name for name in fields if name not in known.fields),
        above=(EVENTS,) if reading.destination.is_event else (),
    )


@contextmanager
def _opened(
    lake: TenantLake, destination: Destination, file: InputFile, scratch: Path, stop: Stop, progress: Progress
) -> Iterator[Reading]:
    """The unpacked file, with a database to read it."""
    file.csv.check(file.format == "CSV")
    plain = plain_file(file.path, scratch, stop.check, progress)
    if file.format != "PARQUET":
        plain = utf8_file(plain, scratch, file.csv, stop.check)
    progress.begin(READING, plain.stat().st_size)
    with lake.session(scratch, [plain], many_columns=True) as database, stop.interrupts(database):
        try:
            yield Reading(database, destination, replace(file, path=plain), scratch, stop, progress)
        except duckdb.OutOfMemoryException:
            raise refuse(
                f"the file needs more memory than the {lake.lake.memory_limit} allowed: its rows are too large"
            ) from None


def dataset_fields(lake: TenantLake, dataset_id: str) -> ObjectType:
    """The fields of a dataset as PQL types; empty before the first batch."""
    current = open_table(lake.dataset(dataset_id))
    return user_fields(current.schema) if current is not None else ObjectType()


def delete_dataset(lake: TenantLake, dataset_id: str) -> None:
    """Removes all data of the dataset; results computed from it remain."""
    with lake.lock(f"dataset {dataset_id}"), lake.scratch() as scratch:
        folder = lake.dataset(dataset_id)
        for gone, name in ((folder, "rows"), (lake.compacted(dataset_id), "copies")):
            discard(gone, scratch / name)
