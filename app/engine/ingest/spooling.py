"""Puts the results of several queries side by side, a few rows at a time; knows no datasets."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from app.engine.ingest.stop import Stop

_CELLS = 1 << 20
"""Number of values in a batch: memory is bounded for any number of columns."""


def side_by_side(
    database: duckdb.DuckDBPyConnection, queries: Sequence[str], width: int, scratch: Path, stop: Stop
) -> Iterator[pa.RecordBatch]:
    """The rows of all queries, which must have equally many, in batches of about 1 million values in `width` columns.
    Each result is first written to a file, since a query that sorts many columns holds a chunk of all of them in each
    of its steps."""
    rows = max(1, _CELLS // width)
    files = [scratch / f"part{number}.arrow" for number in range(len(queries))]
    for query, file in zip(queries, files, strict=True):
        batches = database.sql(query).to_arrow_reader(rows)
        with pa.ipc.new_stream(str(file), batches.schema) as writer:
            for batch in stop.checked(batches):
                writer.write_batch(batch)
    parts = [pa.ipc.open_stream(pa.memory_map(str(file))) for file in files]
    schema = pa.schema([field for part in parts for field in part.schema])
    for batches in zip(*parts, strict=True):
        yield pa.RecordBatch.from_arrays([column for batch in batches for column in batch.columns], schema=schema)
