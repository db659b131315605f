"""Stores the staged rows of a batch as files of a dataset in one commit; knows no file formats."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from app.engine.ingest import identities
from app.engine.ingest.destination import Destination
from app.engine.ingest.neighbours import NeighboursChanged
from app.engine.ingest.notes import note_path, prefix, remove_unfinished
from app.engine.ingest.progress import STORING, Progress
from app.engine.ingest.reading import Staged
from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, Ingested, columns_of, event_id_sql
from app.engine.ingest.spooling import side_by_side
from app.engine.ingest.stop import Stop
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.case_names import file_schema, with_stored_names
from app.engine.store.delta import BUCKET, DataFile, commit, next_version
from app.engine.store.field_types import widen
from app.engine.store.lake import TenantLake, name_literal, only_row, text_literal, write_atomically
from app.pql.schema import ObjectType


class Storing:
    """Stores one batch from `staged` in its dataset."""

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
        """Commits the good rows of a file with this size in bytes; `assigned` profiles were created for it before.

        Raises `Stopped` and `GivenUp`, and `NeighboursChanged` if nothing was committed and the file must be read
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
        names = file_schema(schema)
        stored = self._counted(self._sorted(staged, version), staged.good)
        files = writer.write(with_stored_names(batch, names) for batch in stored)
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
        """The batches, with a stop check before each; reports progress, given that they have at most `rows` rows."""
        written = 0
        for batch in self.stop.checked(batches):
            yield batch
            written += batch.num_rows
            self.progress.reached(written / rows)

    def _sorted(self, staged: Staged, version: int) -> Iterator[pa.RecordBatch]:
        """The rows to store, in file order. Their columns, if they are in several tables, are sorted apart and put
        side by side, a few rows at a time."""
        fields, tables = staged.fields.fields, sorted({*staged.tables.values()})
        names = self.destination.staged_names(fields)
        columns = {name: name_literal(names[name]) for name in fields}
        ours, order = self._chosen(staged.fields, version)
        if len(tables) < 2:
            selected = ", ".join([*ours, *columns.values()])
            rows = self.database.sql(f"SELECT {selected} {self._from('loaded')} ORDER BY {order}")
            return iter(rows.to_arrow_reader(1 << 15))
        places = f"row_number() OVER (ORDER BY {order}) AS __place, __row AS __sent"
        self.database.execute(f"CREATE TABLE places AS SELECT {places}, {', '.join(ours)} {self._from('staged')}")
        parts = ["SELECT * EXCLUDE (__place, __sent) FROM places ORDER BY __place"]
        for table in tables:
            selected = ", ".join(columns[name] for name in fields if staged.tables[name] == table)
            parts.append(f"SELECT {selected} FROM {table} JOIN places ON {table}.__row = __sent ORDER BY __place")
        return side_by_side(self.database, parts, len(fields), self.scratch, self.stop)

    def _chosen(self, fields: ObjectType, version: int) -> tuple[list[str], str]:
        """SQL for our columns, and for the order of the rows. Fills `dropped` with the rows that are not stored."""
        batch = text_literal(self.batch_id)
        ingested = f"{text_literal(datetime.now(UTC).isoformat())}::TIMESTAMPTZ"
        ours = ["__bucket", "__ordinal", f"{batch} AS __batch"]
        origin = [f"{version}::BIGINT AS __version", f"{ingested} AS __ingested"]
        is_event, has_id = self.destination.is_event, self.destination.is_event and EVENT_ID in fields.fields
        self.database.execute("CREATE TABLE dropped AS SELECT __row FROM staged WHERE __problem IS NOT NULL")
        if has_id:
            self._drop_sent()
        elif not is_event:
            self._drop_replaced()
        if not is_event:
            return [*ours, *origin, f"coalesce(__time, {ingested}) AS __time"], "__bucket, __ordinal"
        order = f"__bucket, __ordinal, __time, {event_id_sql(True, batch) if has_id else '__row'}"
        return [*ours, "__row", *origin, f"__time AS {TIMESTAMP}"], order

    def _from(self, rows: str) -> str:
        """SQL for the rows to store with their places."""
        has_all = only_row(self.database, "SELECT count(*) FROM dropped") == (0,)
        return f"FROM {rows} JOIN people ON __sender = __id{'' if has_all else ' WHERE __row NOT IN (FROM dropped)'}"

    def _drop_replaced(self) -> None:
        """Drops records that a later row of the same person replaces."""
        people, good = only_row(
            self.database, "SELECT count(DISTINCT __id), count(*) FROM staged WHERE __problem IS NULL"
        )
        if people < good:
            self.database.execute(
                "INSERT INTO dropped SELECT __row FROM staged WHERE __problem IS NULL"
                " AND __row NOT IN (SELECT max(__row) FROM staged WHERE __problem IS NULL GROUP BY __id)"
            )

    def _drop_sent(self) -> None:
        """Drops rows whose event, the same person and `_id`, is already in the dataset or in an earlier row."""
        touched = {n for (n,) in self.database.execute("SELECT DISTINCT __bucket FROM people").fetchall()}
        current = self.destination.current
        paths = []
        if current is not None and EVENT_ID in current.schema.names:
            paths = [current.folder / file.name for file in current.files if file.bucket in touched]
        if paths:
            columns = f"{BUCKET} INTEGER, __ordinal INTEGER, {EVENT_ID} VARCHAR"
            # Adds the columns without rows: the files of these buckets may all predate the first `_id` and lack its
            # column.
            stored = f"(FROM {parquet_list(paths, columns)} UNION ALL BY NAME FROM {parquet_list([], columns)})"
            self.database.execute(
                f"INSERT INTO dropped SELECT DISTINCT staged.__row FROM {stored} stored"
                f" JOIN (staged JOIN people ON __sender = __id) ON stored.{BUCKET} = people.{BUCKET}"
                f" AND stored.__ordinal = people.__ordinal AND stored.{EVENT_ID} = staged.{EVENT_ID}"
                " WHERE __problem IS NULL"
            )
        good = f"staged WHERE __problem IS NULL AND {EVENT_ID} IS NOT NULL"
        # Most files have no id twice: hashes take less memory than ids, and a few may agree by chance.
        suspects = f"SELECT hash({EVENT_ID}) FROM {good} GROUP BY 1 HAVING count(*) > 1"
        self.database.execute(
            f"CREATE TABLE suspects AS SELECT __row, __id, {EVENT_ID} FROM {good}"
            f" AND hash({EVENT_ID}) IN ({suspects}) AND __row NOT IN (FROM dropped)"
        )
        self.database.execute(
            "INSERT INTO dropped SELECT __row FROM suspects"
            f" WHERE __row NOT IN (SELECT min(__row) FROM suspects GROUP BY __id, {EVENT_ID})"
        )

    def _commit(
        self, writer: BucketWriter, files: list[DataFile], schema: pa.Schema, result: Ingested, staged: Staged
    ) -> int:
        """Notes and commits the files; returns the version.

        The note lists the files to remove if no commit follows, and what the batch brought if one does.
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
