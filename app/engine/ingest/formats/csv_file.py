"""CSV as a source of rows: dialect from the header, types from all values, broken rows set aside; knows no datasets."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path

import duckdb
import numpy as np

from app.engine.ingest.formats.columns import Column, Source, Unreadable, check_names, complaint, refuse
from app.engine.store.field_types import guess, looks_like, noun, parsed
from app.engine.store.lake import name_literal, only_row, text_literal
from app.pql.schema import ObjectType, Scalar

LONGEST_ROW = 2 * 1024 * 1024
_READ_AT_ONCE = 8 * 1024 * 1024
_HEADER_BYTES = 1024 * 1024
_DELIMITERS = ",;\t|"
_GUESSED = (Scalar.BOOLEAN, Scalar.NUMBER, Scalar.DATE, Scalar.TIMESTAMP)
_SENTENCES = {
    "MISSING COLUMNS": "the row has fewer values than the header",
    "TOO MANY COLUMNS": "the row has more values than the header",
    "UNQUOTED VALUE": "a quotation mark is not closed",
    "LINE SIZE OVER MAXIMUM": f"the row is longer than {LONGEST_ROW // 1024 // 1024} MB",
    "INVALID ENCODING": "the row is not UTF-8",
}


def read(
    database: duckdb.DuckDBPyConnection, file: Path, scratch: Path, known: ObjectType, as_text: frozenset[str]
) -> Source:
    names, delimiter = _header(file)
    notes: dict[int, str] = {}
    try:
        seen = _look(database, file, names, delimiter, "first", known, as_text)
        again = _swallows_rows(database, "first")
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error:
        again = True
    if again:
        file = _one_row_a_line(file, scratch / "lines.csv", len(names), delimiter, notes)
        try:
            seen = _look(database, file, names, delimiter, "second", known, as_text)
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            raise refuse("the file cannot be read as CSV: it must be UTF-8 text with one header line") from None
    return Source(
        relation=_relation(file, names, delimiter, "ignore_errors = true"),
        names=names,
        columns=_columns(names, seen, known, as_text),
        texts={name: name_literal(name) for name in names},
        unreadable=_unreadable(database, "second" if again else "first", notes),
    )


def _header(file: Path) -> tuple[tuple[str, ...], str]:
    with file.open("rb") as raw:
        start = raw.read(_HEADER_BYTES)
    if start.startswith(b"PAR1"):
        raise refuse("the file is Parquet, not CSV")
    if start.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in start:
        raise refuse("the file is not CSV in UTF-8: it has zero bytes or is UTF-16")
    text = start.decode("utf-8-sig", errors="replace").lstrip("\r\n")
    if text.startswith("{"):
        raise refuse("the file begins with { as NDJSON does, not with a CSV header")
    widths = {mark: next(csv.reader(io.StringIO(text, newline=""), delimiter=mark), []) for mark in _DELIMITERS}
    delimiter = max(_DELIMITERS, key=lambda mark: len(widths[mark]))
    names = tuple(name.strip() for name in widths[delimiter])
    if not any(names):
        raise refuse("the file has no header line")
    for position, name in enumerate(names, 1):
        if not name:
            raise refuse(f"column {position} of the header has no name")
        if name.lower() in (other.lower() for other in names[: position - 1]):
            raise refuse(f'the header names the column "{name}" twice (case does not count)')
    check_names(names)
    return names, delimiter


def _relation(file: Path, names: tuple[str, ...], delimiter: str, options: str) -> str:
    columns = ", ".join(f"{text_literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"(SELECT row_number() OVER () AS __row, * FROM read_csv({text_literal(str(file))}, auto_detect = false,"
        f" header = true, delim = {text_literal(delimiter)}, quote = '\"', escape = '\"', columns = {{{columns}}},"
        f" strict_mode = true, max_line_size = {LONGEST_ROW},"
        f" buffer_size = {_READ_AT_ONCE}, {options}))"
    )


def _look(
    database: duckdb.DuckDBPyConnection,
    file: Path,
    names: tuple[str, ...],
    delimiter: str,
    run: str,
    known: ObjectType,
    as_text: frozenset[str],
) -> Mapping[str, int]:
    """Reads the whole file once: rows, values of each column, and how many look like each type where that is open."""
    counts = ["count(*)"]
    keys = [""]
    for name in names:
        text = name_literal(name)
        counts.append(f"count({text})")
        keys.append(name)
        if name not in known.fields and name not in as_text:
            counts += [
                f"count(*) FILTER (WHERE {text} IS NOT NULL AND {looks_like(text, type_)})" for type_ in _GUESSED
            ]
            keys += [f"{type_}/{name}" for type_ in _GUESSED]
    rejects = f"store_rejects = true, rejects_table = '{run}_errors', rejects_scan = '{run}_scans'"
    found = only_row(database, f"SELECT {', '.join(counts)} FROM {_relation(file, names, delimiter, rejects)}")
    return dict(zip(keys, found, strict=True))


def _columns(
    names: tuple[str, ...], seen: Mapping[str, int], known: ObjectType, as_text: frozenset[str]
) -> dict[str, Column]:
    columns = {}
    for name in names:
        text = name_literal(name)
        if name in as_text:
            columns[name] = Column(Scalar.STRING, text)
        elif name in known.fields:
            type_ = known.fields[name]
            if isinstance(type_, Scalar):
                value = parsed(text, type_)
                wrong = (
                    f"CASE WHEN {text} IS NOT NULL AND ({value}) IS NULL THEN {complaint(name, text, noun(type_))} END"
                )
                columns[name] = Column(type_, value, None if type_ is Scalar.STRING else wrong)
            elif seen[name]:
                wrong = f"CASE WHEN {text} IS NOT NULL THEN {complaint(name, text, noun(type_))} END"
                columns[name] = Column(type_, "NULL", wrong)
        elif seen[name]:
            guessed = guess(seen[name], {type_: seen[f"{type_}/{name}"] for type_ in _GUESSED})
            columns[name] = Column(guessed, parsed(text, guessed))
    return columns


def _swallows_rows(database: duckdb.DuckDBPyConnection, run: str) -> bool:
    """Whether an open quotation mark made several lines into one broken row."""
    if not _has_rejects(database, run):
        return False
    (count,) = only_row(
        database,
        f"SELECT count(*) FROM {run}_errors WHERE error_type IN ('UNQUOTED VALUE', 'LINE SIZE OVER MAXIMUM')"
        " AND contains(rtrim(csv_line, chr(10) || chr(13)), chr(10))",
    )
    return bool(count)


def _one_row_a_line(file: Path, target: Path, width: int, delimiter: str, notes: dict[int, str]) -> Path:
    """The file with a line for each row: one with an open quotation mark becomes a row that is too long, and is noted.

    Only for files in which such a mark swallowed what follows it. Values over several lines are lost, and reported.
    """
    mark = delimiter.encode()
    broken = mark.join([b"x"] * (width + 1)) + b"\n"
    with file.open("rb") as lines, target.open("wb") as out:
        number = 0
        for line in lines:
            content = line.rstrip(b"\r\n").replace(b"\r", b" ")
            if not content and number:
                continue
            opens = content.startswith(b'"') or mark + b'"' in content
            if number and opens and content.count(b'"') % 2:
                notes[number] = _SENTENCES["UNQUOTED VALUE"]
                out.write(broken)
            else:
                out.write(content + b"\n")
            number += 1
    return target


def _has_rejects(database: duckdb.DuckDBPyConnection, run: str) -> bool:
    """DuckDB makes the table with the first rejected row."""
    return bool(database.execute("SELECT 1 FROM duckdb_tables() WHERE table_name = ?", [f"{run}_errors"]).fetchall())


def _unreadable(database: duckdb.DuckDBPyConnection, run: str, notes: Mapping[int, str]) -> Unreadable:
    if not _has_rejects(database, run):
        return Unreadable()
    rows = database.execute(f"SELECT DISTINCT line::BIGINT - 1 AS row FROM {run}_errors ORDER BY row").fetchnumpy()[
        "row"
    ]
    found = database.execute(
        f"SELECT line::BIGINT - 1 AS row, min(error_type::VARCHAR) FROM {run}_errors GROUP BY row ORDER BY row LIMIT 20"
    ).fetchall()
    first = tuple((row, notes.get(row, _SENTENCES.get(kind, "the row cannot be read"))) for row, kind in found)
    return Unreadable(np.asarray(rows, np.int64), first)
