"""CSV as a source of rows: loads all values as text, then infers types from all of them; knows no datasets."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

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
from app.engine.ingest.formats.csv_dialect import find_dialect
from app.engine.ingest.formats.csv_options import DETECTED, CsvOptions
from app.engine.ingest.formats.csv_rows import RowReader
from app.engine.ingest.formats.csv_styles import SAMPLE, Style, Styles
from app.engine.ingest.formats.csv_texts import (
    column_of,
    count_each,
    load_row_by_row,
    load_well_written,
    rows_of,
    table_of,
)
from app.engine.store.field_types import guess, looks_like, parsed, sql_type, wider_types
from app.engine.store.lake import only_row
from app.pql.schema import ObjectType, Scalar, Type

_GUESSED = (Scalar.BOOLEAN, Scalar.INTEGER, Scalar.NUMBER, Scalar.DATE, Scalar.TIMESTAMP)
_TIMES = (Scalar.DATE, Scalar.TIMESTAMP)
_STYLED = (Scalar.INTEGER, Scalar.NUMBER, *_TIMES)
_UNNAMED_INDEX = re.compile(r"Unnamed: 0([.][0-9]+)*")
_LEFT_OUT = 'the column "{}" is left out: it numbers the rows, as the index does that pandas writes'


def read(
    database: duckdb.DuckDBPyConnection,
    file: Path,
    scratch: Path,
    known: KnownTypes,
    as_text: frozenset[str],
    options: CsvOptions = DETECTED,
) -> Source:
    dialect = find_dialect(file, options)
    width, unreadable = len(dialect.names), Unreadable()
    if not load_well_written(database, file, dialect, options):
        reader = RowReader(file, dialect, frozenset(options.null_values))
        load_row_by_row(database, reader, width, scratch)
        unreadable = reader.unreadable
    last = column_of(width - 1)
    if dialect.names[-1] == UNNAMED and only_row(database, f"SELECT count({last}) FROM {table_of(last)}")[0]:
        raise refuse(f"column {width} of the header has no name, but values")
    index = set(_index_columns(database, dialect.names, known.fields.fields.keys() | as_text))
    texts = {name: column_of(at) for at, name in enumerate(dialect.names) if not is_index(name) and name not in index}
    settled = {name for name, type_ in known.fields.fields.items() if len(wider_types(type_)) < 2} | as_text
    seen = _count_values(database, texts, [name for name in texts if name not in settled], known.fields)
    styles = Styles(database, texts, options)
    styled = styles.find(_unread(database, texts, seen, known, as_text, options))
    return Source(
        rows=lambda some: rows_of(texts[name] for name in some),
        names=tuple(texts),
        columns=_columns(texts, seen, known, as_text, styled),
        texts=texts,
        unreadable=unreadable,
        warnings=(*(_LEFT_OUT.format(name) for name in sorted(index)), *styles.warnings),
    )


def _index_columns(database: duckdb.DuckDBPyConnection, names: Sequence[str], used: Collection[str]) -> Iterator[str]:
    """Leading columns that are a former pandas index, which got a name when pandas read the file again."""
    for position, name in enumerate(names):
        if is_index(name):
            continue
        if name in used or not _UNNAMED_INDEX.fullmatch(name):
            return
        text = column_of(position)
        numbers = f"bool_and(coalesce(regexp_full_match({text}, '[0-9]+'), false))"
        query = f"SELECT {numbers} AND count(*) = count(DISTINCT {text}) FROM {table_of(text)}"
        if only_row(database, query) != (True,):
            return
        yield name


def _count_values(
    database: duckdb.DuckDBPyConnection, texts: Mapping[str, str], names: Sequence[str], known: ObjectType
) -> dict[str, tuple[int, dict[Scalar, int]]]:
    """For each column, the number of values and how many look like each type that the column may get.

    An unknown column gets a type if all of its values look like it. Most types are ruled out by the first rows, where a
    column is then not counted further, and the others are counted over all rows one after the other.
    """
    sampled = _count_types(database, texts, dict.fromkeys(names, _GUESSED), SAMPLE)
    seen = {name: sampled[name] for name in names if name not in known.fields}
    possible = {
        name: [type_ for type_, count in looks.items() if count == values] for name, (values, looks) in seen.items()
    }
    typed = {name: wider_types(known.fields[name]) for name in names if name in known.fields}
    seen |= _count_types(database, texts, typed)
    while waiting := {name: (types.pop(0),) for name, types in possible.items() if types}:
        counted = _count_types(database, texts, waiting)
        seen |= counted
        possible = {name: possible[name] for name, (values, looks) in counted.items() if values not in looks.values()}
    return seen


def _count_types(
    database: duckdb.DuckDBPyConnection,
    texts: Mapping[str, str],
    types_of: Mapping[str, tuple[Scalar, ...]],
    first: int | None = None,
) -> dict[str, tuple[int, dict[Scalar, int]]]:
    """For each column, the number of values and how many look like each of its types."""
    counted = {}
    for types in set(types_of.values()):
        names = [name for name, some in types_of.items() if some == types]

        def counts(text: str, types: tuple[Scalar, ...] = types) -> list[str]:
            looks = [f"count(*) FILTER (WHERE {text} IS NOT NULL AND {looks_like(text, type_)})" for type_ in types]
            return [f"count({text})", *looks]

        each = count_each(database, [texts[name] for name in names], counts, first)
        for name, (values, *looks) in zip(names, each, strict=True):
            counted[name] = values, dict(zip(types, looks, strict=True))
    return counted


def _unread(
    database: duckdb.DuckDBPyConnection,
    texts: Mapping[str, str],
    seen: Mapping[str, tuple[int, dict[Scalar, int]]],
    known: KnownTypes,
    as_text: frozenset[str],
    options: CsvOptions,
) -> dict[str, Scalar | None]:
    """Columns that may use another style, with their types if known: text, and columns with values of another type."""
    columns: dict[str, Scalar | None] = {}
    for name, (count, looks) in seen.items():
        guessed = guess(count, looks)
        comma = options.decimal_separator == "," and guessed is Scalar.NUMBER
        compact = guessed is Scalar.INTEGER and (options.date_format or options.timestamp_format) is not None
        if count and name not in known.fields.fields and (guessed is Scalar.STRING or comma or compact):
            columns[name] = None
    scalars = {name: known.fields.fields[name] for name in texts.keys() & known.fields.fields.keys() - as_text}
    for type_ in _STYLED:
        names = [name for name, known_type in scalars.items() if known_type is type_]

        def misfits(text: str, type_: Scalar = type_) -> list[str]:
            return [f"count({text}) > count({parsed(text, type_)})"]

        misfit = count_each(database, [texts[name] for name in names], misfits)
        columns |= {name: type_ for name, (is_misfit,) in zip(names, misfit, strict=True) if is_misfit}
    return columns


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
            # The first possible type that most of the values look like.
            looks = seen[name][1]
            looked = max(wider_types(old), key=lambda type_: looks[type_])
        else:
            columns[name] = _column(name, text, old, Style())
            continue
        target = known.widened(name, looked)
        narrowed = target is Scalar.INTEGER and looked is Scalar.NUMBER
        column = _column(name, f"regexp_replace({text}, '[.]0+$', '')" if narrowed else text, target, style)
        # In a column of unknown type, all values must look like the type.
        columns[name] = replace(column, problem=None) if old is None and target is looked else column
    return columns


def _column(name: str, text: str, target: Type, style: Style) -> Column:
    if target is Scalar.STRING:
        return Column(target, text)
    value = style.value(text, target) if isinstance(target, Scalar) else f"CAST(NULL AS {sql_type(target)})"
    wrong = f"CASE WHEN {text} IS NOT NULL AND ({value}) IS NULL THEN {complaint(name, text, target)} END"
    return Column(target, value, wrong)
