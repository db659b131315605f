"""The tables that hold a CSV file's values as text, with a bounded number of columns each; knows no types."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from app.engine.ingest.formats.csv_dialect import Dialect
from app.engine.ingest.formats.csv_options import CsvOptions
from app.engine.ingest.formats.csv_rows import LONGEST_ROW, RowReader, count_rows
from app.engine.store.lake import only_row, text_literal

_READ_AT_ONCE = 8 * 1024 * 1024
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_IN_A_TABLE = 2_000
"""Number of columns of a table: DuckDB allocates 32 KB for each column of each copy of a chunk, however few rows."""
_IN_PAIRS = 40
"""More columns are counted as (column, value) pairs, since planning time grows with each expression of a query."""
_IN_A_QUERY = 500
"""Number of columns counted in one query: the time to plan a list of them is quadratic."""
_NUMBERED = "row_number() OVER () AS __row"


def column_of(position: int) -> str:
    """The column of the texts at a position of the header."""
    return f"c{position}"


def table_of(text: str) -> str:
    """The table that has a column.

    >>> table_of(column_of(1_999)), table_of(column_of(2_000))
    ('texts0', 'texts1')
    """
    return f"texts{int(text[1:]) // _IN_A_TABLE}"


def rows_of(texts: Iterable[str]) -> str:
    """SQL for a relation with `__row` and these columns.

    >>> rows_of(["c1", "c2500", "c2"])
    '(texts0 JOIN texts1 USING (__row))'
    """
    tables = list(dict.fromkeys(map(table_of, texts))) or [table_of(column_of(0))]
    return tables[0] if len(tables) == 1 else f"({tables[0]} {' '.join(f'JOIN {t} USING (__row)' for t in tables[1:])})"


def _tables(width: int) -> Iterator[tuple[str, list[str]]]:
    for start in range(0, width, _IN_A_TABLE):
        columns = [column_of(position) for position in range(start, min(width, start + _IN_A_TABLE))]
        yield table_of(columns[0]), columns


def load_well_written(database: duckdb.DuckDBPyConnection, file: Path, dialect: Dialect, options: CsvOptions) -> bool:
    """Fills the tables with numbered rows, each with a pass over the file; false if a row is malformed, or if DuckDB
    and the line count disagree."""
    rows = count_rows(file, dialect)
    if rows is None or dialect.start > len(_BYTE_ORDER_MARK):
        return False
    columns = ", ".join(f"{column_of(position)}: 'VARCHAR'" for position in range(len(dialect.names)))
    nulls = ", ".join(text_literal(text) for text in ("", *options.null_values))
    source = (
        f"read_csv({text_literal(str(file))},"
        f" auto_detect = false, header = {dialect.header_rows == 1}, delim = {text_literal(dialect.delimiter)},"
        f" quote = {text_literal(dialect.quote)}, escape = {text_literal(dialect.escape)}, columns = {{{columns}}},"
        f" nullstr = [{nulls}], strict_mode = true, max_line_size = {LONGEST_ROW}, buffer_size = {_READ_AT_ONCE})"
    )
    for table, some in _tables(len(dialect.names)):
        try:
            database.execute(f"CREATE TABLE {table} AS SELECT {_NUMBERED}, {', '.join(some)} FROM {source}")
        except (duckdb.OutOfMemoryException, duckdb.InterruptException):
            raise
        except duckdb.Error:
            return False
        if only_row(database, f"SELECT count(*) FROM {table}") != (rows,):
            return False
    return True


def load_row_by_row(database: duckdb.DuckDBPyConnection, reader: RowReader, width: int, scratch: Path) -> None:
    """Fills the tables with the valid rows, numbered; slower, but a malformed row only affects itself."""
    tables = list(_tables(width))
    if len(tables) == 1:
        schema = pa.schema([(column, pa.string()) for column in tables[0][1]])
        _create(database, *tables[0], pa.RecordBatchReader.from_batches(schema, reader.batches()))
        return
    files = {table: scratch / f"{table}.arrow" for table, _ in tables}
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pa.ipc.new_stream(files[table], pa.schema([(column, pa.string()) for column in columns]))
            )
            for table, columns in tables
        ]
        for batch in reader.batches():
            for writer, (_, columns) in zip(writers, tables, strict=True):
                writer.write_batch(batch.select(columns))
    for table, columns in tables:
        with pa.OSFile(str(files[table])) as raw, pa.ipc.open_stream(raw) as batches:
            _create(database, table, columns, batches)
        files[table].unlink()


def _create(
    database: duckdb.DuckDBPyConnection, table: str, columns: Sequence[str], batches: pa.RecordBatchReader
) -> None:
    database.register("rows", batches)
    database.execute(f"CREATE OR REPLACE TABLE {table} AS SELECT {_NUMBERED}, {', '.join(columns)} FROM rows")
    database.unregister("rows")


def count_each(
    database: duckdb.DuckDBPyConnection,
    texts: Sequence[str],
    counts: Callable[[str], list[str]],
    first: int | None = None,
) -> list[tuple[Any, ...]]:
    """The results of `counts` (SQL aggregates of a text) for each of the columns, over all rows or the `first` ones."""
    by_table: dict[str, list[str]] = {}
    for text in dict.fromkeys(texts):
        by_table.setdefault(table_of(text), []).append(text)
    counted: dict[str, tuple[Any, ...]] = {}
    for table, columns in by_table.items():
        for start in range(0, len(columns), _IN_A_QUERY):
            some = columns[start : start + _IN_A_QUERY]
            rows = table if first is None else f"(SELECT {', '.join(some)} FROM {table} LIMIT {first})"
            counted |= zip(some, _counted(database, rows, some, counts), strict=True)
    return [counted[text] for text in texts]


def _counted(
    database: duckdb.DuckDBPyConnection, rows: str, texts: Sequence[str], counts: Callable[[str], list[str]]
) -> list[tuple[Any, ...]]:
    if len(texts) > _IN_PAIRS:
        pairs = f"SELECT unnest(range({len(texts)})) AS place, unnest([{', '.join(texts)}]) AS value FROM {rows}"
        query = f"SELECT place, {', '.join(counts('value'))} FROM ({pairs}) GROUP BY place"
        counted = {place: tuple(row) for place, *row in database.execute(query).fetchall()}
        if len(counted) == len(texts):
            return [counted[place] for place in range(len(texts))]
    row = only_row(database, f"SELECT {', '.join(count for text in texts for count in counts(text))} FROM {rows}")
    width = len(row) // len(texts)
    return [row[start : start + width] for start in range(0, len(row), width)]
