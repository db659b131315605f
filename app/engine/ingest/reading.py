"""Loads the rows of a file into a table with values, times and errors; does not assign people."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from app.engine.ingest.destination import Destination
from app.engine.ingest.formats import Column, InputFile, Source, Unreadable, open_source, refuse
from app.engine.ingest.formats.columns import MOST_COLUMNS
from app.engine.ingest.inner_times import InnerTimes, TypesOfText
from app.engine.ingest.neighbours import Place
from app.engine.ingest.progress import CHECKING, Progress
from app.engine.ingest.rows import EVENT_ID, IDENTITIES, TIMESTAMP, NoGoodRows, RejectedRow
from app.engine.ingest.staging import Staging, Times
from app.engine.ingest.stop import Stop
from app.engine.ingest.widening import StoredTypes
from app.engine.store.epochs import EPOCHS, Epoch
from app.engine.store.field_types import MAPS
from app.engine.store.lake import name_literal, only_row
from app.engine.store.schema_rules import label_of, values_at
from app.pql.schema import ObjectType, Scalar

REPORTED = 20


def _first(warnings: tuple[str, ...]) -> tuple[str, ...]:
    """The first warnings and the number of the others: a file may have one for each of thousands of columns.

    >>> _first(tuple(map(str, range(1022))))[-2:]
    ('19', 'and 1,002 more warnings of this kind')
    """
    more = len(warnings) - REPORTED
    return warnings if more <= 1 else (*warnings[:REPORTED], f"and {more:,} more warnings of this kind")


_NOT_THE_FILE = (
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
)
"""Query errors that damaged files do not cause. For damaged files DuckDB raises many kinds."""


@dataclass(frozen=True, slots=True)
class Staged:
    """The rows of a file in the table `staged(__row, __id, __time, __problem, …)`: the stored fields and the table or
    view with the values of each, the numbers of good and rejected rows, the first rejected ones, and warnings for the
    sender."""

    fields: ObjectType
    tables: Mapping[str, str]
    good: int
    rejected_rows: int
    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]
    beside_fractions: frozenset[Place]


class Reading:
    """Loads one file into `staged`."""

    def __init__(
        self,
        database: duckdb.DuckDBPyConnection,
        destination: Destination,
        file: InputFile,
        scratch: Path,
        stop: Stop,
        progress: Progress,
    ) -> None:
        self.database = database
        self.destination = destination
        self.shape = destination.shape
        self.file = file
        self.scratch = scratch
        self.stop = stop
        self.progress = progress
        epochs = destination.declared.epochs
        self.epochs = {path[0]: epoch for path, epoch in epochs.items() if len(path) == 1}
        self.inner_times = InnerTimes({path: epoch for path, epoch in epochs.items() if len(path) > 1})
        said, time = file.csv.timestamp_format, destination.time_column
        if said in EPOCHS and time in self.epochs:
            self.epochs[time] = Epoch(said, is_whole=False)

    def stage(self) -> Staged:
        """Raises `Refusal` for an unusable file, and `NoGoodRows` if no row is usable."""
        source = self._open()
        self.progress.begin(CHECKING, self.file.path.stat().st_size)
        columns = {**source.columns, **dict(self._epochs(source))}
        width = len(columns.keys() | self.destination.known.fields.keys())
        if width > MOST_COLUMNS:
            raise refuse(f"with it the dataset would have {width:,} columns: at most {MOST_COLUMNS:,} can be loaded")
        try:
            tables = self._stage(source, columns)
        except duckdb.Error as error:
            if isinstance(error, _NOT_THE_FILE):
                raise
            raise refuse(f"the file cannot be read to its end as {self.file.format}: it is damaged") from error
        rejected_rows, rejected = self._rejected(source.unreadable)
        self.stop.check()
        good = self._count("SELECT count(*) FROM staged WHERE __problem IS NULL")
        if good == 0:
            if rejected_rows:
                raise NoGoodRows(rejected_rows, rejected)
            raise refuse("the file has no rows")
        fields = ObjectType({name: column.type for name, column in columns.items()})
        returning = self.destination.returning.warnings(self.database, self.shape)
        notes = _first((*source.warnings, *(note for name, note in source.notes if name in columns)))
        warnings = (*notes, *self._odd_ids(), *_first(tuple(self._all_in_1970(columns))), *returning)
        return Staged(fields, tables, good, rejected_rows, rejected, warnings, self._beside_fractions(columns))

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

    def _all_in_1970(self, columns: Mapping[str, Column]) -> Iterator[str]:
        """Warnings about places declared as milliseconds that seem to contain seconds: read as milliseconds, all
        times in seconds of this century are in the first weeks of 1970."""
        formats: dict[tuple[str, ...], str] = {(name,): epoch.format for name, epoch in self.epochs.items()}
        if self.file.csv.timestamp_format in EPOCHS and self.destination.time_column is not None:
            formats[self.destination.time_column,] = self.file.csv.timestamp_format or ""
        formats |= {path: epoch.format for path, epoch in self.inner_times.epochs.items()}
        names = self.destination.staged_names(columns)
        typed = {name: (name_literal(names[name]), column.type) for name, column in columns.items()}
        if self.destination.time_column is not None:
            typed[self.destination.time_column] = ("__time", Scalar.TIMESTAMP)
        for path in (path for path, format in formats.items() if format == "epoch_ms" and path[0] in typed):
            times, type_ = values_at(*typed[path[0]], path[1:])
            if type_ is Scalar.TIMESTAMP and only_row(
                self.database,
                "SELECT bool_and(time BETWEEN '1970-01-01' AND '1970-03-01')"
                f" FROM (SELECT unnest({times}) AS time FROM staged WHERE __problem IS NULL)",
            ) == (True,):
                place = f'the column "{path[0]}"' if len(path) == 1 else f'"{label_of(path)}"'
                yield (
                    f"all times of {place} are in the first weeks of 1970: it seems to count seconds, not "
                    "milliseconds; take the batch back out, and name the format epoch"
                )

    def _epochs(self, source: Source) -> Iterator[tuple[str, Column]]:
        """The columns declared to count from 1970: read as text, they become times."""
        for name, epoch in self.epochs.items():
            if (text := source.texts.get(name)) is not None:
                yield name, Column(Scalar.TIMESTAMP, epoch.value(text), epoch.problem(name, text))

    def _open(self) -> Source:
        identity, time, is_event = self.shape.identity_column, self.destination.time_column, self.destination.is_event
        as_text = frozenset({identity, EVENT_ID} if is_event else {identity}) | self.epochs.keys()
        maps = {path[0]: type_ for path, type_ in MAPS.items() if len(path) == 1}
        typed = {**maps, **self.destination.known.fields}
        fields = {n: t for n, t in typed.items() if not (is_event and n == TIMESTAMP)}
        if is_event and time is not None and self.file.format == "CSV" and time != identity:
            fields[time] = Scalar.TIMESTAMP
        into = self.destination
        stored = StoredTypes(ObjectType(fields), into.declared.fields, into.current, into.neighbours)
        known = TypesOfText(stored, self.inner_times)
        source = open_source(self.database, self.file, self.scratch, known, as_text)
        there = ", ".join(source.names)
        if identity not in source.names:
            raise refuse(f'there is no identity column "{identity}"; the columns of the file are: {there}')
        if time is not None and time not in source.names:
            raise refuse(f'there is no time column "{time}"; the columns of the file are: {there}')
        if self.shape.kind == "AUDIENCE" and IDENTITIES in source.names:
            raise refuse(
                f'the column "{IDENTITIES}" would link people, which members do not: rename it or leave it out'
            )
        if is_event and time != TIMESTAMP and TIMESTAMP in source.names:
            raise refuse(f'the time column "{time}" becomes "{TIMESTAMP}", but the file has a column of that name too')
        return source

    def _stage(self, source: Source, columns: dict[str, Column]) -> Mapping[str, str]:
        times = Times(self.epochs, self.inner_times, self.file.csv.timestamp_format)
        precise = self._beside_fractions(columns)
        return Staging(self.database, self.destination, source, times, precise, self.stop).fill(columns)

    def _beside_fractions(self, columns: Mapping[str, Column]) -> frozenset[Place]:
        fields = ObjectType({name: column.type for name, column in columns.items()})
        return self.destination.neighbours.beside_fractions(fields)

    def _rejected(self, unreadable: Unreadable) -> tuple[int, tuple[RejectedRow, ...]]:
        count = len(unreadable.rows) + self._count("SELECT count(*) FROM staged WHERE __problem IS NOT NULL")
        found = self.database.execute(
            f"SELECT __row, __problem FROM staged WHERE __problem IS NOT NULL ORDER BY __row LIMIT {REPORTED}"
        ).fetchall()
        rows = [RejectedRow(unreadable.true_row(row), message) for row, message in found]
        rows += [RejectedRow(row, message) for row, message in unreadable.first]
        return count, tuple(sorted(rows, key=lambda row: row.row)[:REPORTED])

    def _count(self, query: str) -> int:
        return int(only_row(self.database, query)[0])
