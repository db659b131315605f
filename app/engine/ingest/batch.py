"""A batch of rows becomes one version of a dataset: all of its good rows or nothing; knows no merge policies."""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa

from app.engine.ingest import identities
from app.engine.ingest.formats import (
    DETECTED,
    Column,
    CsvOptions,
    FileFormat,
    Source,
    Unreadable,
    open_source,
    plain_file,
    refuse,
    utf8_file,
)
from app.engine.ingest.formats.columns import complaint
from app.engine.ingest.formats.csv_options import EPOCHS
from app.engine.ingest.stop import Stop, Stopped
from app.engine.ingest.widening import declared_fields, without_rounding
from app.engine.store.arrow_types import arrow_type, object_type
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.case_names import file_names, file_schema, with_names
from app.engine.store.delta import (
    BUCKET,
    DataFile,
    bucket_number,
    commit,
    committed_version,
    give_up,
    next_version,
    open_table,
    withdraw,
)
from app.engine.store.field_types import MAPS, noun, parsed, sql_type, widen
from app.engine.store.lake import TenantLake, name_literal, only_row, text_literal, write_atomically
from app.errors import ErrorCode, Refusal
from app.pql.schema import ObjectType, Scalar

REPORTED = 20
EVENT_ID = "_id"
TIMESTAMP = "timestamp"
INGESTED = "__ingested"
IDENTITIES = "identityMap"

_SYSTEM: Mapping[str, pa.DataType] = {
    BUCKET: pa.int32(),
    "__ordinal": pa.int32(),
    "__batch": pa.string(),
    "__row": pa.int64(),
    "__version": pa.int64(),
    INGESTED: pa.timestamp("us", tz="UTC"),
    "__time": pa.timestamp("us", tz="UTC"),
}
"""Columns of ours, before those of the user: whose row it is, and where and when it came from.

`__row` is for events only, `__time` for records only: how new the record says it is."""


_NOT_THE_FILE = (
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
)
"""Errors of a query that no damage in a file causes. DuckDB has many kinds for a damaged one."""


_EPOCH_ADVICE = "; if it counts seconds or milliseconds since 1970, name the timestamp format epoch or epoch_ms"


@dataclass(frozen=True, slots=True)
class DatasetShape:
    """How the rows of a dataset are to be read: whose they are and, for events, when they happened.

    Rows of members (AUDIENCE) are stored as records are; what else they say is about the membership, not the person.
    """

    kind: Literal["PROFILE", "EVENT", "AUDIENCE"]
    identity_column: str
    namespace: str
    timestamp_column: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was left out; `row` counts from 1 and leaves a header out."""

    row: int
    message: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    `row_count` are the rows stored. `duplicate_rows` are good rows that are not: events that the dataset has already or
    that the file has twice, and records that a later row of the file replaces.
    """

    row_count: int
    rejected_rows: int
    rejected: tuple[RejectedRow, ...]
    bytes: int
    version: int
    new_profiles: int
    duplicate_rows: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRun:
    """What would become of a batch; nothing is stored.

    `duplicate_rows` are those that the file has twice: what the dataset has already is not looked up. `fields` are
    those of the file, `new_fields` the names of those that the dataset has not yet.
    """

    row_count: int
    rejected_rows: int
    duplicate_rows: int
    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]
    fields: ObjectType
    new_fields: tuple[str, ...]


class NoGoodRows(Refusal):
    """Every row of a file was rejected; nothing has changed."""

    def __init__(self, rejected_rows: int, rejected: tuple[RejectedRow, ...]) -> None:
        first = rejected[0]
        super().__init__(
            ErrorCode.INVALID_INPUT,
            f"none of the {rejected_rows:,} rows can be used; row {first.row}: {first.message}",
            ("input", "file"),
        )
        self.rejected_rows = rejected_rows
        self.rejected = rejected


def ingest(  # noqa: PLR0913
    lake: TenantLake,
    dataset_id: str,
    shape: DatasetShape,
    file: Path,
    format: FileFormat,
    batch_id: str,
    stop: Stop | None = None,
    csv: CsvOptions = DETECTED,
) -> Ingested:
    """Adds the good rows of the file to the dataset in one commit; a batch id that was committed is not added again.

    Raises `Refusal` when the file as a whole cannot be used (`NoGoodRows` when no row can), `Stopped` soon after `stop`
    says so, and `GivenUp` when `give_up_batch` came first; nothing has changed then.
    """
    stop = stop or Stop()
    with lake.lock(f"dataset {dataset_id}", stop.check), lake.scratch() as scratch:
        _remove_unfinished(lake.dataset(dataset_id))
        done = committed_batch(lake, dataset_id, batch_id)
        if done is not None:
            return done
        loading = _Batch(lake, dataset_id, shape, batch_id, scratch, stop)
        with _opened(lake, loading, file, format, csv, stop) as batch:
            return batch.take(file.stat().st_size)


def try_out(
    lake: TenantLake,
    dataset_id: str | None,
    shape: DatasetShape,
    file: Path,
    format: FileFormat,
    stop: Stop | None = None,
    csv: CsvOptions = DETECTED,
) -> DryRun:
    """Reads and checks the whole file as `ingest` does, and writes nothing into the lake. Without a dataset, as if it
    were the first batch. Raises the same as `ingest`."""
    with tempfile.TemporaryDirectory(prefix="segmentation-") as scratch:
        stop = stop or Stop()
        trial = _Batch(lake, dataset_id, shape, "dry run", Path(scratch), stop)
        with _opened(lake, trial, file, format, csv, stop) as batch:
            return batch.try_out()


@contextmanager
def _opened(
    lake: TenantLake, batch: "_Batch", file: Path, format: FileFormat, csv: CsvOptions, stop: Stop
) -> Iterator["_Batch"]:
    """The batch with a file to read and a database to read it with."""
    csv.check(format == "CSV")
    plain = plain_file(file, batch.scratch, stop.check)
    if format == "CSV":
        plain = utf8_file(plain, batch.scratch, csv, stop.check)
    with lake.session(batch.scratch, [plain], many_columns=True) as database, stop.interrupts(database):
        batch.database = database
        batch.file, batch.format, batch.csv = plain, format, csv
        try:
            yield batch
        except duckdb.OutOfMemoryException:
            raise refuse(
                f"the file needs more memory than the {lake.lake.memory_limit} allowed: its rows are too large"
            ) from None


def committed_batch(lake: TenantLake, dataset_id: str, batch_id: str) -> Ingested | None:
    """What a batch brought, None when it never landed: tells what happened before a crash.

    `version` is one in which its rows are, not always the first.
    """
    folder = lake.dataset(dataset_id)
    current = open_table(folder)
    if current is None or committed_version(folder, batch_id) is None:
        return None
    note = json.loads(_note(folder, batch_id).read_text())["ingested"]
    rejected = tuple(RejectedRow(**row) for row in note.pop("rejected"))
    note |= {"version": current.version, "warnings": tuple(note.get("warnings", ()))}
    return Ingested(**note, rejected=rejected)


def give_up_batch(lake: TenantLake, dataset_id: str, shape: DatasetShape, batch_id: str) -> Ingested | None:
    """Settles for good that a batch never lands, whatever its loader still tries, unless it has: then what it brought.

    Does not wait for the loader, which may be frozen with the dataset's lock in its hand.
    """
    if give_up(lake.dataset(dataset_id), columns_of(shape, ObjectType()), batch_id) is None:
        return None
    return committed_batch(lake, dataset_id, batch_id)


def withdraw_batch(lake: TenantLake, dataset_id: str, batch_id: str) -> int:
    """Takes the rows of a batch out of the dataset again, and gives a version without them; records that it replaced
    count again. Doing so twice is no error. Its files stay for those who read earlier versions."""
    folder = lake.dataset(dataset_id)
    with lake.lock(f"dataset {dataset_id}"):
        current = open_table(folder)
        if current is None or committed_version(folder, batch_id) is None:
            return current.version if current is not None else 0
        names = {path for _, path in batch_files(lake, dataset_id, batch_id)}
        return withdraw(folder, [file for file in current.files if folder / file.name in names], batch_id)


def batch_files(lake: TenantLake, dataset_id: str, batch_id: str) -> list[tuple[int, Path]]:
    """The files that a landed batch brought, each with its bucket; none when the dataset is gone."""
    folder = lake.dataset(dataset_id)
    try:
        names = json.loads(_note(folder, batch_id).read_text())["files"]
    except FileNotFoundError:
        return []
    return [(bucket_number(name), folder / name) for name in names]


def dataset_fields(lake: TenantLake, dataset_id: str) -> ObjectType:
    """The fields of a dataset as PQL sees them; empty before the first batch."""
    current = open_table(lake.dataset(dataset_id))
    return user_fields(current.schema) if current is not None else ObjectType()


def user_fields(schema: pa.Schema) -> ObjectType:
    """The columns of a dataset or view that are not ours."""
    return object_type(pa.schema([field for field in schema if not field.name.startswith("__")]))


def delete_dataset(lake: TenantLake, dataset_id: str) -> None:
    """Removes all data of the dataset; what was computed from it stays as it is."""
    with lake.lock(f"dataset {dataset_id}"), lake.scratch() as scratch:
        folder = lake.dataset(dataset_id)
        if folder.exists():
            folder.rename(scratch / "deleted")


class _Batch:
    """One file on its way into one dataset."""

    database: duckdb.DuckDBPyConnection
    file: Path
    format: FileFormat
    csv: CsvOptions

    def __init__(
        self,
        lake: TenantLake,
        dataset_id: str | None,
        shape: DatasetShape,
        batch_id: str,
        scratch: Path,
        stop: Stop,
    ) -> None:
        self.lake = lake
        # Of a dataset that is yet to be there is no folder.
        self.folder = lake.dataset(dataset_id) if dataset_id is not None else scratch / "dataset"
        self.shape = shape
        self.batch_id = batch_id
        self.scratch = scratch
        self.stop = stop
        self.current = open_table(self.folder)
        self.known = user_fields(self.current.schema) if self.current is not None else ObjectType()
        self.is_event = shape.kind == "EVENT"
        self.time_column = (shape.timestamp_column or TIMESTAMP) if self.is_event else shape.timestamp_column

    def take(self, size: int) -> Ingested:
        """Stores the good rows of a file of so many bytes."""
        columns, good, rejected_rows, rejected, warnings = self._read()
        self.database.execute(
            "CREATE TABLE senders AS SELECT __id AS __sender, min(__row) AS __first FROM staged"
            " WHERE __problem IS NULL GROUP BY __id"
        )
        new_profiles = identities.assign(self.lake, self.database, self.scratch, self.shape.namespace, self.stop.check)
        fields = ObjectType({name: column.type for name, column in columns.items()})
        schema = columns_of(self.shape, widen(self.known, fields))
        version = next_version(self.current, schema)
        writer = BucketWriter(self.scratch / "batch", _prefix(self.batch_id))
        stored = self.database.sql(self._sorted(fields, version)).to_arrow_reader(1 << 15)
        names = file_schema(schema)
        files = writer.write(with_names(batch, names) for batch in self.stop.checked(stored))
        rows = sum(file.rows for file in files)
        result = Ingested(rows, rejected_rows, rejected, size, version, new_profiles, good - rows, warnings)
        return replace(result, version=self._commit(writer, files, schema, result))

    def try_out(self) -> DryRun:
        columns, good, rejected_rows, rejected, warnings = self._read()
        distinct = "__id"
        if self.is_event:
            distinct = f"(__id, coalesce({EVENT_ID}, '#' || __row))" if EVENT_ID in columns else "__row"
        rows = self._count(f"SELECT count(DISTINCT {distinct}) FROM staged WHERE __problem IS NULL")
        fields = {name: column.type for name, column in columns.items()}
        if self.is_event:
            fields = {TIMESTAMP: Scalar.TIMESTAMP, **fields}
        wider = widen(self.known, ObjectType(fields))
        new = tuple(name for name in fields if name not in self.known.fields)
        kept = ObjectType({name: wider.fields[name] for name in fields})
        return DryRun(rows, rejected_rows, good - rows, rejected, warnings, kept, new)

    def _read(self) -> tuple[dict[str, Column], int, int, tuple[RejectedRow, ...], tuple[str, ...]]:
        """Puts every row into `staged`. Its columns, the good rows, the rejected ones, the first of them, warnings."""
        source = self._open(self.file, self.format)
        columns = dict(without_rounding(source, self.known, self.current, declared_fields(self.folder)))
        try:
            self._stage(source, columns)
        except duckdb.Error as error:
            if isinstance(error, _NOT_THE_FILE):
                raise
            raise refuse(f"the file cannot be read to its end as {self.format}: it is damaged") from error
        rejected_rows, rejected = self._rejected(source.unreadable)
        self.stop.check()
        good = self._count("SELECT count(*) FROM staged WHERE __problem IS NULL")
        if good == 0:
            if rejected_rows:
                raise NoGoodRows(rejected_rows, rejected)
            raise refuse("the file has no rows")
        return columns, good, rejected_rows, rejected, (*source.warnings, *self._odd_ids())

    def _odd_ids(self) -> Iterator[str]:
        whole = "regexp_full_match(__id, '-?[0-9]+[.]0')"
        odd, example = only_row(
            self.database, f"SELECT bool_and({whole}), min(__id) FROM staged WHERE __problem IS NULL"
        )
        if odd:
            yield (
                f'the ids of the column "{self.shape.identity_column}", such as {example!r}, look like whole numbers '
                "that became decimals (pandas does that where one is missing): they are stored as written, and do not "
                f"match {example[:-2]!r} of other files"
            )

    def _open(self, file: Path, format: FileFormat) -> Source:
        identity, time = self.shape.identity_column, self.time_column
        as_text = frozenset({identity, EVENT_ID} if self.is_event else {identity})
        maps = {path[0]: type_ for path, type_ in MAPS.items() if len(path) == 1}
        typed = {**maps, **self.known.fields}
        fields = {n: t for n, t in typed.items() if not (self.is_event and n == TIMESTAMP)}
        if self.is_event and time is not None and format == "CSV" and time != identity:
            fields[time] = Scalar.TIMESTAMP
        source = open_source(self.database, file, self.scratch, format, ObjectType(fields), as_text, self.csv)
        there = ", ".join(source.names)
        if identity not in source.names:
            raise refuse(f'there is no identity column "{identity}"; the columns of the file are: {there}')
        if time is not None and time not in source.names:
            raise refuse(f'there is no time column "{time}"; the columns of the file are: {there}')
        if self.shape.kind == "AUDIENCE" and IDENTITIES in source.names:
            raise refuse(
                f'the column "{IDENTITIES}" would link people, which members do not: rename it or leave it out'
            )
        if self.is_event and time != TIMESTAMP and TIMESTAMP in source.names:
            raise refuse(f'the time column "{time}" becomes "{TIMESTAMP}", but the file has a column of that name too')
        return source

    def _stage(self, source: Source, columns: dict[str, Column]) -> None:
        """Every row of the file with its values, times and what is wrong with it, in a table on disk.

        Takes from the columns those that are stored in another way.
        """
        identity = source.texts[self.shape.identity_column]
        missing = text_literal(f"{self.shape.identity_column}: the identity is missing")
        problems = [source.problem] if source.problem else []
        problems.append(f"CASE WHEN {identity} IS NULL OR trim({identity}) = '' THEN {missing} END")
        time = "NULL::TIMESTAMPTZ"
        if self.time_column is not None:
            time, problem = self._time(source, self.time_column)
            problems.append(problem)
        if self.is_event:
            columns.pop(self.time_column or TIMESTAMP, None)
            if self.shape.identity_column == EVENT_ID:
                # It says who the person is: as the id of the event it would make all of a person's events one.
                columns.pop(EVENT_ID)
        problems += [column.problem for column in columns.values() if column.problem]
        names = self._staged_names(columns)
        values = [
            f"CAST({column.value} AS {sql_type(column.type)}) AS {name_literal(names[name])}"
            for name, column in columns.items()
        ]
        chosen = ", ".join(
            [f"{identity} AS __id", f"{time} AS __time", *values, f"coalesce({', '.join(problems)}, NULL) AS __problem"]
        )
        self.database.execute(f"CREATE TABLE staged AS SELECT __row, {chosen} FROM {source.relation}")

    def _staged_names(self, columns: Iterable[str]) -> dict[str, str]:
        """Those of the columns in `staged`; `timestamp` is ours for events."""
        return file_names([TIMESTAMP, *columns] if self.is_event else columns)

    def _time(self, source: Source, name: str) -> tuple[str, str]:
        """SQL for the time of a row and for what is wrong with it."""
        text, column = source.texts[name], source.columns.get(name)
        epoch = EPOCHS.get(self.csv.timestamp_format or "")
        if epoch is not None:
            # A decimal number: a double would move its microseconds.
            micros = f"try_cast({text} AS DECIMAL(27, 9)) * {1_000_000 // epoch}"
            time = f"TRY(make_timestamptz(CAST(floor({micros}) AS BIGINT)))"
        elif column is not None and column.type in (Scalar.DATE, Scalar.TIMESTAMP):
            time = f"CAST({column.value} AS TIMESTAMPTZ)"
        else:
            time = parsed(text, Scalar.TIMESTAMP)
        missing = f"ELSE {text_literal(f'{name}: the time is missing')}" if self.is_event else ""
        unreadable = f"WHEN {text} IS NOT NULL THEN {complaint(name, text, noun(Scalar.TIMESTAMP))}"
        if epoch is None:
            number = f"{complaint(name, text, noun(Scalar.TIMESTAMP))} || {text_literal(_EPOCH_ADVICE)}"
            unreadable = f"WHEN regexp_full_match({text}, '[0-9]{{9,13}}([.][0-9]+)?') THEN {number} {unreadable}"
        return time, f"CASE WHEN ({time}) IS NOT NULL THEN NULL {unreadable} {missing} END"

    def _rejected(self, unreadable: Unreadable) -> tuple[int, tuple[RejectedRow, ...]]:
        count = len(unreadable.rows) + self._count("SELECT count(*) FROM staged WHERE __problem IS NOT NULL")
        found = self.database.execute(
            f"SELECT __row, __problem FROM staged WHERE __problem IS NOT NULL ORDER BY __row LIMIT {REPORTED}"
        ).fetchall()
        rows = [RejectedRow(unreadable.true_row(row), message) for row, message in found]
        rows += [RejectedRow(row, message) for row, message in unreadable.first]
        return count, tuple(sorted(rows, key=lambda row: row.row)[:REPORTED])

    def _sorted(self, fields: ObjectType, version: int) -> str:
        """SQL for the rows to store, in the order in which they lie in the files."""
        names = self._staged_names(fields.fields)
        users = [name_literal(names[name]) for name in fields.fields]
        batch = text_literal(self.batch_id)
        ingested = f"{text_literal(datetime.now(UTC).isoformat())}::TIMESTAMPTZ"
        ours = f"__bucket, __ordinal, {batch} AS __batch"
        origin = f"{version}::BIGINT AS __version, {ingested} AS __ingested"
        good = "staged JOIN people ON __sender = __id WHERE __problem IS NULL"
        if not self.is_event:
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
        current = self.current
        paths = []
        if current is not None and EVENT_ID in current.schema.names:
            paths = [current.folder / file.name for file in current.files if file.bucket in touched]
        stored = parquet_list(paths, f"{BUCKET} INTEGER, __ordinal INTEGER, {EVENT_ID} VARCHAR")
        self.database.execute(
            f"CREATE TABLE sent AS SELECT DISTINCT staged.__row FROM {stored} stored"
            f" JOIN (staged JOIN people ON __sender = __id) ON stored.{BUCKET} = people.{BUCKET}"
            f" AND stored.__ordinal = people.__ordinal AND stored.{EVENT_ID} = staged.{EVENT_ID}"
            " WHERE __problem IS NULL"
        )

    def _commit(self, writer: BucketWriter, files: list[DataFile], schema: pa.Schema, result: Ingested) -> int:
        """Commits the files, after a note of them, and gives the version.

        The note says what to remove when no commit follows, and what the batch brought when one does.
        """
        note = _note(self.folder, self.batch_id)
        note.parent.mkdir(parents=True, exist_ok=True)
        content = {"batch": self.batch_id, "files": [file.name for file in files], "ingested": asdict(result)}
        self.stop.check()
        write_atomically(note, json.dumps(content).encode())
        unfinished = note.with_suffix(".unfinished")
        unfinished.touch()
        try:
            writer.move(self.folder, files)
            self.stop.check()
            version = commit(self.folder, self.current, schema, files, transaction=self.batch_id)
        except Exception:
            _remove_unfinished(self.folder)
            raise
        unfinished.unlink()
        return version

    def _count(self, query: str) -> int:
        return int(only_row(self.database, query)[0])


def event_id_sql(has_id: bool, batch: str = "__batch", row: str = "__row") -> str:
    """SQL for the id of an event: its `_id`, or one made from its place in its batch, which sorts as the file did."""
    made = f"{batch} || '-' || lpad({row}::VARCHAR, 12, '0')"
    return f"coalesce({EVENT_ID}, {made})" if has_id else made


def _prefix(batch_id: str) -> str:
    return hashlib.sha256(batch_id.encode()).hexdigest()[:32]


def _note(folder: Path, batch_id: str) -> Path:
    return folder / "_batches" / f"{_prefix(batch_id)}.json"


def columns_of(shape: DatasetShape, fields: ObjectType) -> pa.Schema:
    """The columns of a dataset: ours, then the user's."""
    is_event = shape.kind == "EVENT"
    skipped = "__time" if is_event else "__row"
    ours = [pa.field(name, type_) for name, type_ in _SYSTEM.items() if name != skipped]
    if is_event:
        fields = ObjectType({TIMESTAMP: Scalar.TIMESTAMP, **fields.fields})
    return pa.schema(ours + [pa.field(name, arrow_type(type_)) for name, type_ in fields.fields.items()])


def _remove_unfinished(folder: Path) -> None:
    """Removes files that a killed process moved here and did not commit. Call it under the dataset's lock."""
    for mark in (folder / "_batches").glob("*.unfinished"):
        note = mark.with_suffix(".json")
        # Without a note this was begun before, and ended with a kill between the two.
        content = json.loads(note.read_text()) if note.exists() else None
        if content is not None and committed_version(folder, content["batch"]) is None:
            for name in content["files"]:
                (folder / name).unlink(missing_ok=True)
            note.unlink()
        mark.unlink()


def clear_unfinished(lake: TenantLake, dataset_id: str) -> None:
    """The same at once, or not at all when a batch of the dataset is being loaded: that one does it."""
    no_waiting = Stop()
    no_waiting.request()
    with suppress(Stopped), lake.lock(f"dataset {dataset_id}", no_waiting.check):
        _remove_unfinished(lake.dataset(dataset_id))


__all__ = [
    "DatasetShape",
    "Ingested",
    "NoGoodRows",
    "RejectedRow",
    "batch_files",
    "clear_unfinished",
    "committed_batch",
    "dataset_fields",
    "delete_dataset",
    "give_up_batch",
    "ingest",
    "withdraw_batch",
]
