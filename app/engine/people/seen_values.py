"""The values that occur in a text field, as suggestions for expressions; reads a few files only."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from app.engine.ingest.rows import user_fields
from app.engine.people.sources import Dataset
from app.engine.store.bucket import Path
from app.engine.store.delta import open_table
from app.engine.store.lake import TenantLake
from app.engine.store.parquet_columns import open_file, prune, read_columns
from app.pql.schema import EVENTS

ROWS = 100_000
"""For each dataset, files are examined until they contain this many rows."""

MOST = 50
"""A field with more values is not a choice from a list."""


def seen_values(lake: TenantLake, datasets: Sequence[Dataset], path: Path) -> list[str]:
    """The values of the text field at a path from the profile, most frequent first; empty if there are many."""
    kind, inner = ("EVENT", path[1:]) if path[:1] == (EVENTS,) else ("PROFILE", path)
    counts: Counter[str] = Counter()
    for dataset in datasets:
        table = open_table(lake.dataset(dataset.id)) if dataset.kind == kind else None
        if table is None:
            continue
        pruned = prune(user_fields(table.schema), [inner])
        rows = 0
        for file in table.paths():
            opened = open_file(file, pruned)
            groups = [0] if opened.num_row_groups else []
            columns = read_columns(opened, pruned, groups=groups)
            for count in pc.value_counts(_leaf(columns, inner)).to_pylist():
                counts[count["values"]] += count["counts"]
            rows += columns.num_rows
            if len(counts) > MOST:
                return []
            if rows >= ROWS:
                break
    return [value for value, _ in counts.most_common() if value is not None]


def _leaf(table: pa.Table, path: Path) -> pa.Array:
    """The flattened values at a path; empty if it does not exist or is not text."""
    nothing = pa.array([], pa.string())
    if not path or path[0] not in table.column_names:
        return nothing
    column = table[path[0]].combine_chunks()
    array = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
    for name in (*path[1:], None):
        while pa.types.is_list(array.type):
            array = array.flatten()
        if name is None:
            break
        if not pa.types.is_struct(array.type) or array.type.get_field_index(name) < 0:
            return nothing
        array = pc.struct_field(array, name)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    return array if pa.types.is_string(array.type) else nothing
