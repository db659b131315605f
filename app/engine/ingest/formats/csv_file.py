"""CSV as a source of rows: all values as text in a table first, then types from all of them; knows no datasets."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa

from app.engine.ingest.formats.columns import (
    UNNAMED,
    Column,
    KnownTypes,
    Source,
    Unreadable,
    complaint,
    is_index,
    refuse,
)
from app.engine.ingest.formats.csv_dialect import Dialect, find_dialect
from app.engine.ingest.formats.csv_options import DETECTED, CsvOptions
from app.engine.ingest.formats.csv_rows import LONGEST_ROW, RowReader, count_rows
from app.engine.ingest.formats.csv_styles import Style, Styles, count_each
from app.engine.store.field_types import guess, looks_like, parsed, sql_type, wider_types
from app.engine.store.lake import only_row, text_literal
from app.pql.schema import Scalar, Type

_READ_AT_ONCE = 8 * 1024 * 1024
_GUESSED = (Scalar.BOOLEAN, Scalar.INTEGER, Scalar.NUMBER, Scalar.DATE, Scalar.TIMESTAMP)
_TIMES = (Scalar.DATE, Scalar.TIMESTAMP)
_STYLED = (Scalar.INTEGER, Scalar.NUMBER, *_TIMES)
_UNNAMED_INDEX = re.compile(r"Unnamed: 0([.][0-9]+)*")
_LEFT_OUT = 'the column "{}" is left out: it numbers the rows, as the index does that pandas writes'
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read(
    database: duckdb.DuckDBPyConnection,
    file: Path,
    known: KnownTypes,
    as_text: frozenset[str],
    options: CsvOptions = DETECTED,
) -> Source:
    dialect = find_dialect(file, options)
    unreadable = Unreadable()
    if not _load_well_written(database, file, dialect, options):
        unreadable = _load_row_by_row(database, file, dialect, options)
    last = len(dialect.names) - 1
    if dialect.names[last] == UNNAMED and only_row(database, f"SELECT count(c{last}) FROM texts")[0]:
        raise refuse(f"column {last + 1} of the header has no name, but values")
    index = set(_index_columns(database, dialect.names, known.fields.fields.keys() | as_text))
    texts = {name: f"c{at}" for at, name in enumerate(dialect.names) if not is_index(name) and name not in index}
    settled = {name for name, type_ in known.fields.fields.items() if len(wider_types(type_)) < 2} | as_text
    seen = _count_values(database, texts, [name for name in texts if name not in settled])
    styles = Styles(database, texts, options)
    styled = styles.find(_unread(database, texts, seen, known, as_text, options))
    return Source(
        relation="texts",
        names=tuple(texts),
        columns=_columns(texts, seen, known, as_text, styled),
        texts=texts,
        unreadable=unreadable,
        warnings=(*(_LEFT_OUT.format(name) for name in sorted(index)), *styles.warnings),
    )


def _index_columns(database: duckdb.DuckDBPyConnection, names: Sequence[str], used: Collection[str]) -> Iterator[str]:
    """The columns at the start that are an index which pandas wrote once, and named when it read the file again."""
    for position, name in enumerate(names):
        if is_index(name):
            continue
        if name in used or not _UNNAMED_INDEX.fullmatch(name):
            return
        numbers = f"bool_and(coalesce(regexp_full_match(c{position}, '[0-9]+'), false))"
        query = f"SELECT {numbers} AND count(*) = count(DISTINCT c{position}) FROM texts"
        if only_row(database, query) != (True,):
            return
        yield name


def _load_well_written(database: duckdb.DuckDBPyConnection, file: Path, dialect: Dialect, options: CsvOptions) -> bool:
    """Fills `texts` with the rows, numbered; false when a row is broken, or DuckDB and a count of lines disagree."""
    rows = count_rows(file, dialect)
    if rows is None or dialect.start > len(_BYTE_ORDER_MARK):
        return False
    columns = ", ".join(f"c{position}: 'VARCHAR'" for position in range(len(dialect.names)))
    nulls = ", ".join(text_literal(text) for text in ("", *options.null_values))
    try:
        database.execute(
            f"CREATE TABLE texts AS SELECT row_number() OVER () AS __row, * FROM read_csv({text_literal(str(file))},"
            f" auto_detect = false, header = {dialect.header_rows == 1}, delim = {text_literal(dialect.delimiter)},"
            f" quote = {text_literal(dialect.quote)}, escape = {text_literal(dialect.escape)}, columns = {{{columns}}},"
            f" nullstr = [{nulls}], strict_mode = true, max_line_size = {LONGEST_ROW}, buffer_size = {_READ_AT_ONCE})"
        )
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error:
        return False
    return bool(only_row(database, "SELECT count(*) FROM texts") == (rows,))


def _load_row_by_row(
    database: duckdb.DuckDBPyConnection, file: Path, dialect: Dialect, options: CsvOptions
) -> Unreadable:
    """Fills `texts` with the good rows, numbered; slower, but a broken row costs nothing but itself."""
    reader = RowReader(file, dialect, frozenset(options.null_values))
    columns = ", ".join(f"c{position}" for position in range(len(dialect.names)))
    schema = pa.schema([(f"c{position}", pa.string()) for position in range(len(dialect.names))])
    database.register("rows", pa.RecordBatchReader.from_batches(schema, reader.batches()))
    database.execute(f"CREATE OR REPLACE TABLE texts AS SELECT row_number() OVER () AS __row, {columns} FROM rows")
    database.unregister("rows")
    return reader.unreadable


def _count_values(
    database: duckdb.DuckDBPyConnection, texts: Mapping[str, str], names: Sequence[str]
) -> dict[str, tuple[int, dict[Scalar, int]]]:
    """How many values each of the columns has, and how many of them look like each type."""
    rows = count_each(database, "texts", [texts[name] for name in names], _counts)
    return {
        name: (seen, dict(zip(_GUESSED, each, strict=True))) for name, (seen, *each) in zip(names, rows, strict=True)
    }


def _unread(
    database: duckdb.DuckDBPyConnection,
    texts: Mapping[str, str],
    seen: Mapping[str, tuple[int, dict[Scalar, int]]],
    known: KnownTypes,
    as_text: frozenset[str],
    options: CsvOptions,
) -> dict[str, Scalar | None]:
    """The columns that may be written in another style, with their types where those are known: text, and columns
    with values that are not of their type."""
    columns: dict[str, Scalar | None] = {}
    for name, (count, looks) in seen.items():
        guessed = guess(count, looks)
        comma = options.decimal_separator == "," and guessed is Scalar.NUMBER
        compact = guessed is Scalar.INTEGER and (options.date_format or options.timestamp_format) is not None
        if count and name not in known.fields.fields and (guessed is Scalar.STRING or comma or compact):
            columns[name] = None
    scalars = {name: known.fields.fields[name] for name in texts.keys() & known.fields.fields.keys() - as_text}
    typed = [(name, type_) for name, type_ in scalars.items() if isinstance(type_, Scalar) and type_ in _STYLED]
    if typed:
        misfits = [f"count({texts[name]}) > count({parsed(texts[name], type_)})" for name, type_ in typed]
        rows = only_row(database, f"SELECT {', '.join(misfits)} FROM texts")
        columns |= {name: type_ for (name, type_), misfit in zip(typed, rows, strict=True) if misfit}
    return columns


def _counts(text: str) -> list[str]:
    looks = [f"count(*) FILTER (WHERE {text} IS NOT NULL AND {looks_like(text, type_)})" for type_ in _GUESSED]
    return [f"count({text})", *looks]


def _columns(
    texts: Mapping[str, str],
    seen: Mapping[str, tuple[int, dict[Scalar, int]]],
    known: KnownTypes,
    as_text: frozenset[str],
    styled: Mapping[str, tuple[Scalar, Style]],
) -> dict[str, Column]:
    columns = {}
    for name, text in texts.items():
        if name in as_text:
            columns[name] = Column(Scalar.STRING, text)
            continue
        old, style = known.fields.fields.get(name), Style()
        if name in styled:
            looked, style = styled[name]
        elif old is None:
            count, looks = seen[name]
            if not count:
                continue
            looked = guess(count, looks)
        elif name in seen and isinstance(old, Scalar):
            # Of the types that the column may have, the first that most values look like.
            looks = seen[name][1]
            looked = max(wider_types(old), key=lambda type_: looks[type_])
        else:
            columns[name] = _column(name, text, old, Style())
            continue
        target = known.widened(name, looked)
        narrowed = target is Scalar.INTEGER and looked is Scalar.NUMBER
        column = _column(name, f"regexp_replace({text}, '[.]0+$', '')" if narrowed else text, target, style)
        # All values of an unknown column are of the type that they look like.
        columns[name] = replace(column, problem=None) if old is None and target is looked else column
    return columns


def _column(name: str, text: str, target: Type, style: Style) -> Column:
    if target is Scalar.STRING:
        return Column(target, text)
    value = style.value(text, target) if isinstance(target, Scalar) else f"CAST(NULL AS {sql_type(target)})"
    wrong = f"CASE WHEN {text} IS NOT NULL AND ({value}) IS NULL THEN {complaint(name, text, target)} END"
    return Column(target, value, wrong)
