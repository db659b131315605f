"""The rows of a file as a table: values, times, and what is wrong with each; knows no places of people."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb

from app.engine.ingest.formats import Column, InputFile, Source, Unreadable, open_source, refuse
from app.engine.ingest.formats.columns import complaint
from app.engine.ingest.neighbours import Neighbours, Place
from app.engine.ingest.progress import CHECKING, Progress
from app.engine.ingest.returning import Returning
from app.engine.ingest.rows import EVENT_ID, IDENTITIES, TIMESTAMP, DatasetShape, NoGoodRows, RejectedRow, user_fields
from app.engine.ingest.stop import Stop
from app.engine.ingest.widening import StoredTypes, declarable, declared_of
from app.engine.store.case_names import file_names
from app.engine.store.delta import TableVersion, open_table
from app.engine.store.epochs import EPOCHS, Epoch, epoch_time
from app.engine.store.field_types import MAPS, parsed, sql_type
from app.engine.store.json_schema import Declared, declared
from app.engine.store.lake import TenantLake, name_literal, only_row, text_literal
from app.engine.store.schema_rules import PRECISE, Rule, problem
from app.json_values import JsonValue
from app.pql.schema import ObjectType, Scalar

REPORTED = 20
_AT_ONCE = 100
"""Problems of columns that one query looks for."""

_NOT_THE_FILE = (
    duckdb.OutOfMemoryException,
    duckdb.InterruptException,
    duckdb.ParserException,
    duckdb.BinderException,
    duckdb.CatalogException,
    duckdb.PermissionException,
)
"""Errors of a query that no damage in a file causes. DuckDB has many kinds for a damaged one."""


_LOCAL_DAY = "[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}.*"
_FORMAT_ADVICE = "; say how it is written by a date or timestamp format, such as %d/%m/%Y or %m/%d/%Y %H:%M"
_EPOCH_ADVICE = (
    "; if it counts seconds or milliseconds since 1970, name the timestamp format epoch or epoch_ms, or declare it"
)


@dataclass(frozen=True, slots=True)
class Destination:
    """The dataset that rows go to, as it was when they came."""

    folder: Path
    shape: DatasetShape
    current: TableVersion | None
    known: ObjectType
    returning: Returning
    declared: Declared
    neighbours: Neighbours

    @classmethod
    def of(cls, lake: TenantLake, folder: Path, shape: DatasetShape, schema: JsonValue = None) -> "Destination":
        """With a JSON `schema` as if that had been declared. Raises `Refusal` when it cannot be."""
        current = open_table(folder)
        known = ObjectType() if current is None else user_fields(current.schema)
        neighbours = Neighbours(lake, folder, shape)
        if schema is None:
            return cls(folder, shape, current, known, Returning.of(lake), declared_of(folder), neighbours)
        new = declared(schema)
        known = declarable(current, known, new.fields, shape, neighbours)
        return cls(folder, shape, current, known, Returning.of(lake), new, neighbours)

    @property
    def is_event(self) -> bool:
        return self.shape.kind == "EVENT"

    @property
    def time_column(self) -> str | None:
        return (self.shape.timestamp_column or TIMESTAMP) if self.is_event else self.shape.timestamp_column

    def staged_names(self, columns: Iterable[str]) -> dict[str, str]:
        """What the columns are called in `staged`; `timestamp` is ours for events."""
        return file_names([TIMESTAMP, *columns] if self.is_event else columns)


@dataclass(frozen=True, slots=True)
class Staged:
    """The rows of a file in the table `staged(__row, __id, __time, …, __problem)`: the fields with a column, how many
    rows are good and how many rejected, the first of these, and what the sender should look at."""

    fields: ObjectType
    good: int
    rejected_rows: int
    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]
    beside_fractions: frozenset[Place]


class Reading:
    """One file on its way into `staged`."""

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
        self.epochs = dict(destination.declared.epochs)
        said, time = file.csv.timestamp_format, destination.time_column
        if said in EPOCHS and time in self.epochs:
            self.epochs[time] = Epoch(said, is_whole=False)

    def stage(self) -> Staged:
        """Raises `Refusal` for a file that cannot be used, `NoGoodRows` for one of whose rows none can."""
        source = self._open()
        self.progress.begin(CHECKING, self.file.path.stat().st_size)
        columns = {**source.columns, **dict(self._epochs(source))}
        try:
            self._stage(source, columns)
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
        notes = (note for name, note in source.notes if name in columns)
        warnings = (*source.warnings, *notes, *self._odd_ids(), *returning)
        return Staged(fields, good, rejected_rows, rejected, warnings, self._beside_fractions(columns))

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

    def _epochs(self, source: Source) -> Iterator[tuple[str, Column]]:
        """The columns that are declared to count from 1970: read as text, they are times."""
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
        known = StoredTypes(ObjectType(fields), into.declared.fields, into.current, into.neighbours)
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

    def _stage(self, source: Source, columns: dict[str, Column]) -> None:
        """Every row of the file with its values, times and what is wrong with it, in a table on disk.

        Takes from the columns those that are stored in another way.
        """
        identity = source.texts[self.shape.identity_column]
        missing = text_literal(f"{self.shape.identity_column}: the identity is missing")
        # What else is wrong with a row of somebody who was erased would tell of them.
        problems = list(self.destination.returning.problems(source, self.shape))
        problems += [source.problem] if source.problem else []
        problems.append(f"CASE WHEN {identity} IS NULL OR trim({identity}) = '' THEN {missing} END")
        time = "NULL::TIMESTAMPTZ"
        if self.destination.time_column is not None:
            time, problem = self._time(source, self.destination.time_column)
            problems.append(problem)
        if self.destination.is_event:
            columns.pop(self.destination.time_column or TIMESTAMP, None)
            if self.shape.identity_column == EVENT_ID:
                # It says who the person is: as the id of the event it would make all of a person's events one.
                columns.pop(EVENT_ID)
        relation = source.relation
        in_columns = [column.problem for column in columns.values() if column.problem]
        if len(in_columns) > _AT_ONCE:
            relation = self._noted(relation, in_columns)
            in_columns = ["__in_column"]
        problems += in_columns
        names = self.destination.staged_names(columns)
        values = [
            f"CAST({column.value} AS {sql_type(column.type)}) AS {name_literal(names[name])}"
            for name, column in columns.items()
        ]
        chosen = ", ".join(
            [f"{identity} AS __id", f"{time} AS __time", *values, f"coalesce({', '.join(problems)}, NULL) AS __problem"]
        )
        staged = f"SELECT __row, {chosen} FROM {relation}"
        broken = self._broken_rules(columns, names)
        if broken:
            staged = f"SELECT * REPLACE (coalesce(__problem, {', '.join(broken)}) AS __problem) FROM ({staged})"
        self.database.execute(f"CREATE TABLE staged AS {staged}")

    def _noted(self, relation: str, problems: list[str]) -> str:
        """The relation with the first of many problems of each row, looked for by parts: a query holds a vector for
        each step of each of its expressions, so that all at once would need more memory than there may be."""
        self.database.execute("CREATE TABLE odd (__row BIGINT, part INTEGER, problem VARCHAR)")
        for start in range(0, len(problems), _AT_ONCE):
            first = f"coalesce({', '.join(problems[start : start + _AT_ONCE])})"
            self.database.execute(
                f"INSERT INTO odd WITH looked AS MATERIALIZED (SELECT __row, {first} AS problem FROM {relation})"
                f" SELECT __row, {start}, problem FROM looked WHERE problem IS NOT NULL"
            )
            self.stop.check()
        noted = "(SELECT __row, arg_min(problem, part) AS __in_column FROM odd GROUP BY __row) noted"
        return f"{relation} LEFT JOIN {noted} USING (__row)"

    def _broken_rules(self, columns: Mapping[str, Column], names: Mapping[str, str]) -> list[str]:
        """SQL over staged rows for what breaks a declared rule."""
        typed = {name: (name_literal(names[name]), column.type) for name, column in columns.items()}
        typed[self.shape.identity_column] = ("__id", Scalar.STRING)
        if self.destination.is_event:
            typed |= dict.fromkeys((TIMESTAMP, self.destination.time_column or TIMESTAMP), ("__time", Scalar.TIMESTAMP))
        precise = [Rule(path, PRECISE, None) for path in sorted(self._beside_fractions(columns))]
        problems = [problem(rule, typed) for rule in (*self.destination.declared.rules, *precise)]
        return [one for one in problems if one is not None]

    def _beside_fractions(self, columns: Mapping[str, Column]) -> frozenset[Place]:
        fields = ObjectType({name: column.type for name, column in columns.items()})
        return self.destination.neighbours.beside_fractions(fields)

    def _time(self, source: Source, name: str) -> tuple[str, str]:
        """SQL for the time of a row and for what is wrong with it."""
        text, column = source.texts[name], source.columns.get(name)
        epoch, said = self.epochs.get(name), self.file.csv.timestamp_format
        if epoch is not None:
            time = epoch.value(text)
        elif said in EPOCHS:
            time = epoch_time(text, said)
        elif column is not None and column.type in (Scalar.DATE, Scalar.TIMESTAMP):
            time = f"CAST({column.value} AS TIMESTAMPTZ)"
        else:
            time = parsed(text, Scalar.TIMESTAMP)
        missing = f"ELSE {text_literal(f'{name}: the time is missing')}" if self.destination.is_event else ""
        unreadable = f"WHEN {text} IS NOT NULL THEN {complaint(name, text, Scalar.TIMESTAMP)}"
        if epoch is not None:
            unreadable = f"WHEN {text} IS NOT NULL THEN {epoch.problem(name, text)}"
        elif said not in EPOCHS:
            number = f"{complaint(name, text, Scalar.TIMESTAMP)} || {text_literal(_EPOCH_ADVICE)}"
            unreadable = f"WHEN regexp_full_match({text}, '[0-9]{{9,13}}([.][0-9]+)?') THEN {number} {unreadable}"
            local = f"{complaint(name, text, Scalar.TIMESTAMP)} || {text_literal(_FORMAT_ADVICE)}"
            unreadable = f"WHEN regexp_full_match({text}, '{_LOCAL_DAY}') THEN {local} {unreadable}"
        return time, f"CASE WHEN ({time}) IS NOT NULL THEN NULL {unreadable} {missing} END"

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
