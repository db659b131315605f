"""Event ids: the `_id`, or an id made from the position in the batch, as in `ingest.rows.event_id_sql`."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.engine.ingest.rows import EVENT_ID


def event_ids(path: Path, groups: Sequence[int]) -> pa.ChunkedArray:
    """The event ids of some row groups of a file."""
    file = pq.ParquetFile(path)
    return stored_ids(file.read_row_groups(groups, columns=_columns(file.schema_arrow)))


def stored_ids(rows: pa.Table) -> pa.ChunkedArray:
    """The event ids of rows with the columns of a file."""
    columns = rows.select(_columns(rows.schema))
    return named_ids(
        columns.rename_columns([f"__{name}" if name == EVENT_ID else name for name in columns.schema.names])
    )


def named_ids(rows: pa.Table) -> pa.ChunkedArray:
    """The event ids of rows whose `_id`, if any, is named `___id`."""
    places = pc.utf8_lpad(rows["__row"].cast(pa.string()), width=12, padding="0")
    generated = pc.binary_join_element_wise(rows["__batch"], places, "-")
    return pc.coalesce(rows["___id"], generated) if "___id" in rows.schema.names else generated


def _columns(schema: pa.Schema) -> list[str]:
    return [name for name in (EVENT_ID, "__batch", "__row") if name in schema.names]
