"""The staged rows of a batch become files of a dataset and one commit; knows no formats of files."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from app.engine.ingest import identities
from app.engine.ingest.neighbours import NeighboursChanged
from app.engine.ingest.notes import note_path, prefix, remove_unfinished
from app.engine.ingest.progress import STORING, Progress
from app.engine.ingest.reading import Destination, Staged
from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, Ingested, columns_of, event_id_sql
from app.engine.ingest.stop import Stop
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.case_names import file_schema, with_names
from app.engine.store.delta import BUCKET, DataFile, commit, next_version
from app.engine.store.field_types import widen
from app.engine.store.lake import TenantLake, name_literal, text_literal, write_atomically
from app.pql.schema import ObjectType


class Storing:
    """One batch on its way from `staged` into its dataset."""

    def __init__(
        self,
        lake: TenantLake,
        database: duckdb.DuckDBPyConnection,
        destination: Destination,
        batch_id: str,
        scratch: Path,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self.lake = lake
        self.database = database
        self.destination = destination
        self.batch_id = batch_id
        self.scratch = scratch
        self.stop = stop
        self.progress = progress

    def store(self, staged: Staged, size: int, assigned: int = 0) -> Ingested:
        """Commits the good rows of a file of so many bytes, for which so many profiles were created before.

        Raises `Stopped` and `GivenUp`, and `NeighboursChanged` when nothing was committed and the file is to be read
        again.
        """
        into = self.destination
        self.progress.begin(STORING)
        self.database.execute(
            "CREATE TABLE senders AS SELECT __id AS __sender, min(__row) AS __first FROM staged"
            " WHERE __problem IS NULL GROUP BY __id"
        )
        new_profiles = identities.assign(self.lake, self.database, self.scratch, into.shape.namespace, self.stop.check)
        schema = columns_of(into.shape, widen(into.known, staged.fields))
        version = next_version(into.current, schema)
        writer = BucketWriter(self.scratch / "batch", prefix(self.batch_id))
        stored = self.database.sql(self._sorted(staged.fields, version)).to_arrow_reader(1 << 15)
        names = file_schema(schema)
        files = writer.write(with_names(batch, names) for batch in self._counted(stored, staged.good))
        rows = sum(file.rows for file in files)
        result = Ingested(
            row_count=rows,
            rejected_rows=staged.rejected_rows,
            rejected=staged.rejected,
            bytes=size,
            version=version,
            new_profiles=new_profiles + assigned,
            duplicate_rows=staged.good - rows,
            warnings=staged.warnings,
        )
        return replace(result, version=self._commit(writer, files, schema, result, staged))

    def _counted(self, batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
        """The batches of so many rows at most, with a look at whether to stop before each."""
        written = 0
        for batch in self.stop.checked(batches):
            yield batch
            written += batch.num_rows
            self.progress.reached(written / rows)

    def _sorted(self, fields: ObjectType, version: int) -> str:
        """SQL for the rows to store, in the order in which they lie in the files."""
        names = self.destination.staged_names(fields.fields)
        users = [name_literal(names[name]) for name in fields.fields]
        batch = text_literal(self.batch_id)
        ingested = f"{text_literal(datetime.now(UTC).isoformat())}::TIMESTAMPTZ"
        ours = f"__bucket, __ordinal, {batch} AS __batch"
        origin = f"{version}::BIGINT AS __version, {ingested} AS __ingested"
        good = "staged JOIN people ON __sender = __id WHERE __problem IS NULL"
        if not self.destination.is_event:
            latest = "QUALIFY row_number() OVER (PARTITION BY __bucket, __ordinal ORDER BY __row DESC) = 1"
            time = f"coalesce(__time, {ingested}) AS __time"
            return f"SELECT {', '.join([ours, origin, time, *users])} FROM {good} {latest} ORDER BY __bucket, __ordinal"
        chosen = ", ".join([ours, "__row", origin, f"__time AS {TIMESTAMP}", *users])
        order = f"__bucket, __ordinal, __time, {event_id_sql(EVENT_ID in fields.fields, batch)}"
        if EVENT_ID not in fields.fields:
            return f"SELECT {chosen} FROM {good} ORDER BY __bucket, __ordinal, __time, __row"
        self._find_sent()
        first = "(_id IS NULL OR row_number() OVER (PARTITION BY __bucket, __ordinal, _id ORDER BY __row) = 1)"
        return f"SELECT {chosen} FROM {good} AND __row NOT IN (SELECT __row FROM sent) QUALIFY {first} ORDER BY {order}"

    def _find_sent(self) -> None:
        """Fills `sent` with the rows whose event the dataset has already: the same person's with the same `_id`."""
        touched = {n for (n,) in self.database.execute("SELECT DISTINCT __bucket FROM people").fetchall()}
        current = self.destination.current
        paths = []
        if current is not None and EVENT_ID in current.schema.names:
            paths = [current.folder / file.name for file in current.files if file.bucket in touched]
        columns = f"{BUCKET} INTEGER, __ordinal INTEGER, {EVENT_ID} VARCHAR"
        # With the columns of no file besides: those of these buckets may all be older than the first `_id`.
        stored = f"(FROM {parquet_list(paths, columns)} UNION ALL BY NAME FROM {parquet_list([], columns)})"
        self.database.execute(
            f"CREATE TABLE sent AS SELECT DISTINCT staged.__row FROM {stored} stored"
            f" JOIN (staged JOIN people ON __sender = __id) ON stored.{BUCKET} = people.{BUCKET}"
            f" AND stored.__ordinal = people.__ordinal AND stored.{EVENT_ID} = staged.{EVENT_ID}"
            " WHERE __problem IS NULL"
        )

    def _commit(
        self, writer: BucketWriter, files: list[DataFile], schema: pa.Schema, result: Ingested, staged: Staged
    ) -> int:
        """Commits the files, after a note of them, and gives the version.

        The note says what to remove when no commit follows, and what the batch brought when one does.
        """
        folder = self.destination.folder
        note = note_path(folder, self.batch_id)
        note.parent.mkdir(parents=True, exist_ok=True)
        content = {"batch": self.batch_id, "files": [file.name for file in files], "ingested": asdict(result)}
        self.stop.check()
        write_atomically(note, json.dumps(content).encode())
        unfinished = note.with_suffix(".unfinished")
        unfinished.touch()
        try:
            writer.move(folder, files)
            self.stop.check()
            with self.destination.neighbours.settled(self.stop.check) as neighbours:
                beside_fractions = neighbours.beside_fractions(staged.fields)
                if beside_fractions - staged.beside_fractions or neighbours.beside_large(staged.fields):
                    raise NeighboursChanged(result.new_profiles)
                neighbours.mark()
                version = commit(folder, self.destination.current, schema, files, transaction=self.batch_id)
        except Exception:
            remove_unfinished(folder)
            raise
        unfinished.unlink()
        return version
