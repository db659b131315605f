"""Fills tables with the values, times and errors of a file's rows, a bounded number of columns at a time; knows no
formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import duckdb

from app.engine.ingest.destination import Destination
from app.engine.ingest.formats import Column, Source
from app.engine.ingest.formats.columns import complaint, first_of
from app.engine.ingest.inner_times import InnerTimes
from app.engine.ingest.neighbours import Place
from app.engine.ingest.rows import EVENT_ID, IDENTITIES, TIMESTAMP
from app.engine.ingest.stop import Stop
from app.engine.store.epochs import EPOCHS, Epoch, epoch_time
from app.engine.store.field_types import parsed, sql_type
from app.engine.store.lake import name_literal, text_literal
from app.engine.store.schema_rules import PRECISE, Rule, problem
from app.pql.schema import ObjectType, Scalar, Type

TOGETHER = 250
"""Number of columns of a table: a query holds a vector for each step of each expression, however few rows."""
_LOCAL_DAY = "[0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}.*"
_FORMAT_ADVICE = "; say how it is written by a date or timestamp format, such as %d/%m/%Y or %m/%d/%Y %H:%M"
_EPOCH_ADVICE = (
    "; if it counts seconds or milliseconds since 1970, name the timestamp format epoch or epoch_ms, or declare it"
)


@dataclass(frozen=True, slots=True)
class Times:
    """How times are written that are not text as in ISO 8601: columns declared to count from 1970, places inside of
    columns that do, and the named format of the time column."""

    epochs: Mapping[str, Epoch]
    inside: InnerTimes
    format: str | None


@dataclass(slots=True)
class Staging:
    """Fills `staged(__row, __id, __time, __problem, …)` and the tables of values. Integers at the places `precise` must
    fit a double."""

    database: duckdb.DuckDBPyConnection
    destination: Destination
    source: Source
    times: Times
    precise: frozenset[Place]
    stop: Stop
    _names: Mapping[str, str] = field(default_factory=dict)
    """The names of all columns in these tables."""

    def fill(self, columns: dict[str, Column]) -> dict[str, str]:
        """The table or view with the values of each column. Removes from `columns` those that are stored in another
        form: the time and the id of events."""
        shape, time_column = self.destination.shape, self.destination.time_column
        problems, time = self._of_row(), "NULL::TIMESTAMPTZ"
        if time_column is not None:
            time, problem = self._time(time_column)
            problems.append(problem)
        if self.destination.is_event:
            columns.pop(time_column or TIMESTAMP, None)
            if shape.identity_column == EVENT_ID:
                # It identifies the person: as an event id it would make all of a person's events the same.
                columns.pop(EVENT_ID)
        self._names = self.destination.staged_names(columns)
        used = [name for name in (shape.identity_column, time_column, IDENTITIES) if name in self.source.names]
        together = columns if len(columns) <= TOGETHER else {}
        # Below the rest, so that the time is computed once for the value and the problem.
        rows = f"(SELECT *, {time} AS __time FROM {self.source.rows([*together, *filter(None, used)])})"
        rows = self._rows(rows, together, problems, is_base=True)
        if not together and columns:
            self.database.execute(f"CREATE TABLE base AS {rows}")
            return self._fill_apart(columns)
        if self.source.is_quick:
            self._stage_again(rows, columns)
        else:
            self.database.execute(f"CREATE TABLE loaded AS {rows}")
            self.database.execute("CREATE VIEW staged AS FROM loaded")
        return dict.fromkeys(columns, "loaded")

    def _fill_apart(self, columns: dict[str, Column]) -> dict[str, str]:
        """Fills tables of some of the columns each, and `staged` with the first problem of each row."""
        self.database.execute("CREATE TABLE odd (__row BIGINT, part INTEGER, problem VARCHAR)")
        tables: dict[str, str] = {}
        names = list(columns)
        for start in range(0, len(names), TOGETHER):
            some = {name: columns[name] for name in names[start : start + TOGETHER]}
            table = f"loaded{start}"
            rows = self._rows(self.source.rows(some), some, [], is_base=False)
            self.database.execute(f"CREATE TABLE {table} AS {rows}")
            self.database.execute(
                f"INSERT INTO odd SELECT __row, {start}, __problem FROM {table} WHERE __problem IS NOT NULL"
            )
            columns |= some
            tables |= dict.fromkeys(some, table)
            self.stop.check()
        self.database.execute(
            "CREATE TABLE noted AS SELECT __row, arg_min(problem, part) AS problem FROM odd GROUP BY __row"
        )
        needed = {name: name_literal(self._names[name]) for name in self._looked_at(columns)}
        beside = "".join(f" JOIN (SELECT __row, {needed[name]} FROM {tables[name]}) USING (__row)" for name in needed)
        selected = ", ".join(["__row", "__id", "__time", *needed.values(), "coalesce(__problem, problem) AS __problem"])
        self.database.execute(
            f"CREATE TABLE staged AS SELECT {selected} FROM base LEFT JOIN noted USING (__row){beside}"
        )
        return tables

    def _stage_again(self, rows: str, columns: Mapping[str, Column]) -> None:
        """Stores only what is needed before the rows are stored: the values are read again then."""
        self.database.execute(f"CREATE VIEW loaded AS SELECT * EXCLUDE (__problem) FROM ({rows})")
        looked_at = (name_literal(self._names[name]) for name in self._looked_at(columns))
        needed = ["__row", "__id", "__time", "__problem", *looked_at]
        self.database.execute(f"CREATE TABLE staged AS SELECT {', '.join(needed)} FROM ({rows})")
        # Those that the checks have not read to the end, in which the file may be damaged as well.
        unread = [
            f"bit_xor(hash({name_literal(self._names[name])}))"
            for name, column in columns.items()
            if column.problem is None or not isinstance(column.type, Scalar)
        ]
        if unread:
            self.database.execute(f"SELECT {', '.join(unread)} FROM loaded")

    def _looked_at(self, columns: Mapping[str, Column]) -> list[str]:
        """The columns that are used before the rows are stored."""
        return sorted({EVENT_ID, *self.times.epochs, *self.times.inside.names} & columns.keys())

    def _of_row(self) -> list[str]:
        """SQL for the errors of a row that come before all others."""
        shape = self.destination.shape
        identity = self.source.texts[shape.identity_column]
        missing = text_literal(f"{shape.identity_column}: the identity is missing")
        # Other errors of an erased person's row would reveal data about the person.
        problems = list(self.destination.returning.problems(self.source, shape))
        problems += [self.source.problem] if self.source.problem else []
        return [*problems, f"CASE WHEN {identity} IS NULL OR trim({identity}) = '' THEN {missing} END"]

    def _rows(self, relation: str, columns: dict[str, Column], problems: Sequence[str], *, is_base: bool) -> str:
        """SQL for rows with the values of the columns, whose types it updates, and the first error: one of `problems`,
        or of a value, or of a rule. With `is_base`, also with the person and the time."""
        identity = self.source.texts[self.destination.shape.identity_column]
        selected = ["__row", *([f"{identity} AS __id", "__time"] if is_base else [])]
        selected += [
            f"CAST({column.value} AS {sql_type(column.type)}) AS {name_literal(self._names[name])}"
            for name, column in columns.items()
        ]
        problems = [*problems, *(column.problem for column in columns.values() if column.problem)]
        selected.append(f"{first_of(problems) or 'NULL::VARCHAR'} AS __problem")
        rows = f"SELECT {', '.join(selected)} FROM {relation}"
        rows = self._with_inner_times(rows, columns)
        if broken := self._broken_rules(columns, is_base=is_base):
            rows = f"SELECT * REPLACE (coalesce(__problem, {', '.join(broken)}) AS __problem) FROM ({rows})"
        return rows

    def _with_inner_times(self, staged: str, columns: dict[str, Column]) -> str:
        """The staged rows with times inside their values instead of text; updates the types of these columns."""
        values, problems, inside = [], ["__problem"], self.times.inside
        for name in (name for name in columns if name in inside.names):
            column, type_ = name_literal(self._names[name]), columns[name].type
            values.append(f"{inside.value(column, type_, name)} AS {column}")
            problems += inside.problems(column, type_, name)
            columns[name] = replace(columns[name], type=inside.stored(ObjectType({name: type_})).fields[name])
        if not values:
            return staged
        problem = f"coalesce({', '.join(problems)}, NULL) AS __problem"
        return f"SELECT * REPLACE ({', '.join(values)}, {problem}) FROM ({staged})"

    def _broken_rules(self, columns: Mapping[str, Column], *, is_base: bool) -> list[str]:
        """SQL over staged rows for violations of declared rules about these columns; with `is_base`, also about the
        person and the time, and about columns that the file does not have."""
        base: dict[str, tuple[str, Type]] = {self.destination.shape.identity_column: ("__id", Scalar.STRING)}
        if self.destination.is_event:
            times = (TIMESTAMP, self.destination.time_column or TIMESTAMP)
            base |= dict.fromkeys(times, ("__time", Scalar.TIMESTAMP))
        typed = {name: (name_literal(self._names[name]), column.type) for name, column in columns.items()}
        typed = typed | base if is_base else {name: typed[name] for name in typed.keys() - base.keys()}
        rules = (*self.destination.declared.rules, *(Rule(path, PRECISE, None) for path in sorted(self.precise)))
        about = ((rule, rule.path[0] if rule.path else rule.name) for rule in rules)
        relevant = [rule for rule, name in about if name in typed or (is_base and name not in self._names)]
        return [broken for rule in relevant if (broken := problem(rule, typed)) is not None]

    def _time(self, name: str) -> tuple[str, str]:
        """SQL for the time of a row, and for its error, given the time as `__time`."""
        text, column = self.source.texts[name], self.source.columns.get(name)
        epoch, said = self.times.epochs.get(name), self.times.format
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
        return time, f"CASE WHEN __time IS NOT NULL THEN NULL {unreadable} {missing} END"
