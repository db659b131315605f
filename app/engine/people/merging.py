"""Merges the records of several datasets into one row per person, by the merge rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.engine.ingest.identities import primary_identities
from app.engine.ingest.rows import ORDINAL
from app.engine.people.compaction import event_paths
from app.engine.people.identity_map import identity_map
from app.engine.people.sources import Sources
from app.engine.people.stitching import FRAGMENT
from app.engine.store.delta import TableVersion
from app.engine.store.parquet_columns import open_file, read_columns, stored_type
from app.pql.schema import ObjectType, Type

PROFILE = "__profile"
IDENTITIES = "identityMap"


def merged_people(sources: Sources, fields: ObjectType, known: TableVersion | None, bucket: int) -> pa.Table:
    """The people of the bucket: ordinals, ids, identities and merged fields."""
    records = [_records(table, fields, bucket) for table in sources.records.values()]
    senders = [ordinals_in(path) for table in sources.events.values() for path in event_paths(table, bucket)]
    senders += [ordinals_in(path) for table in sources.members.values() for path in table.paths(bucket)]
    ordinals = np.unique(np.concatenate([*(record[ORDINAL].to_numpy() for record in records), *senders]))
    ordinals = np.setdiff1d(ordinals, sources.retired_in(bucket), assume_unique=True)
    columns: dict[str, pa.Array] = {ORDINAL: pa.array(ordinals.astype(np.int32))}
    owners, names = _names(sources, known, ordinals, bucket)
    firsts = names.take(pa.array(np.searchsorted(owners, np.arange(len(ordinals)))))
    columns[PROFILE] = pc.binary_join_element_wise(firsts["namespace"], firsts["id"], ":").combine_chunks()
    values_of = [
        (record[ORDINAL].to_numpy(), record[IDENTITIES]) for record in records if IDENTITIES in record.schema.names
    ]
    columns[IDENTITIES] = identity_map(ordinals, owners, names, values_of)
    order = _order(sources, ordinals, records)
    # Sets, since the schema lists its names anew each time, and records may have thousands.
    named = [(record, frozenset(record.schema.names)) for record in records]
    for name, type_ in fields.fields.items():
        if name != IDENTITIES and any(name in names for _, names in named):
            columns[name] = _best(_column(named, name, type_), type_, order)
    return pa.table(columns)


def _names(
    sources: Sources, known: TableVersion | None, ordinals: NDArray[np.int32], bucket: int
) -> tuple[NDArray[np.int64], pa.Table]:
    """Identities (namespace, id, primary) and the (ascending) row of each one's person; that of the profile id
    first."""
    if sources.graph is None:
        table = primary_identities(known, bucket).take(pa.array(ordinals))
        return np.arange(len(ordinals)), table.append_column("primary", pa.array(np.ones(len(ordinals), bool)))
    table = sources.graph.members_of(bucket)
    persons = table["person"].to_numpy()
    table = table.filter(pa.array(np.isin(persons, ordinals)))
    own = (
        pc.fill_null(
            pc.and_(pc.equal(table["place"], bucket), pc.equal(table["ordinal"], table["person"])), False
        ).to_numpy(zero_copy_only=False)
        if table.num_rows
        else np.zeros(0, bool)
    )
    owners = np.searchsorted(ordinals, table["person"].to_numpy())
    order = np.lexsort((~own, owners))
    named = table.select(["namespace", "id"]).append_column("primary", pc.is_valid(table["ordinal"]))
    return owners[order], named.take(pa.array(order))


def _records(table: TableVersion, fields: ObjectType, bucket: int) -> pa.Table:
    """The data of one dataset about each person of the bucket, unordered; a later batch replaces a fragment's
    record."""
    parts, retired = [], table.retired_in(bucket)
    for path in table.paths(bucket):
        file = open_file(path, fields)
        part = read_columns(file, fields, plain=[ORDINAL, FRAGMENT, "__version", "__time"])
        if len(retired):
            part = part.filter(pa.array(~np.isin(part[ORDINAL].to_numpy(), retired)))
        absent = (fields.fields.keys() & table.schema.names) - {*part.schema.names}
        for name in sorted(absent):
            part = part.append_column(name, pa.nulls(part.num_rows, stored_type(fields.fields[name])))
        parts.append(part)
    if not parts:
        return pa.table({ORDINAL: pa.array([], pa.int32()), "__time": pa.array([], pa.timestamp("us", tz="UTC"))})
    rows = pa.concat_tables([part.select(parts[0].schema.names) for part in parts]).combine_chunks()
    fragments = rows[FRAGMENT if FRAGMENT in rows.schema.names else ORDINAL].to_numpy()
    order = np.lexsort((rows["__version"].to_numpy(), fragments))
    last = np.flatnonzero(np.append(np.diff(fragments[order]) != 0, True))
    return rows.take(pa.array(order[last]))


def ordinals_in(path: Path) -> NDArray[np.int32]:
    """The distinct ordinals of a file, ascending; files are usually sorted by them, which saves sorting."""
    ordinals = pq.ParquetFile(path).read(columns=[ORDINAL])[ORDINAL].to_numpy()
    steps = np.diff(ordinals)
    if not len(ordinals) or bool((steps < 0).any()):
        return np.unique(ordinals)
    first: NDArray[np.int32] = ordinals[np.append(True, steps > 0)]
    return first


# ---------------------------------------------------------------- precedence


@dataclass(frozen=True)
class _Order:
    """All records concatenated: `rows` are sorted by person, then by precedence; `owners` are their persons."""

    rows: NDArray[np.int64]
    owners: NDArray[np.int64]
    people: int

    @cached_property
    def merges(self) -> bool:
        """Whether a person has several records."""
        return bool((np.diff(self.owners) == 0).any())

    @cached_property
    def keeps(self) -> bool:
        """Whether each person has one record, in the order of the people: nothing is to do then."""
        return len(self.rows) == self.people and all(
            np.array_equal(numbers, np.arange(self.people)) for numbers in (self.rows, self.owners)
        )

    def first(self, valid: NDArray[np.bool_]) -> pa.Array:
        """The first valid row of each person; null if there is none."""
        places = np.flatnonzero(valid[self.rows])
        owners = self.owners[places]
        begins = np.flatnonzero(np.insert(np.diff(owners) != 0, 0, True)) if len(owners) else places
        first_rows = np.full(self.people, -1, np.int64)
        first_rows[owners[begins]] = self.rows[places[begins]]
        return pa.array(first_rows, mask=first_rows < 0)


def _order(sources: Sources, ordinals: NDArray[np.int32], records: Sequence[pa.Table]) -> _Order:
    """Sorts by the rule. Of equally recent records, that of the first dataset, then of the first fragment, wins."""
    if not records:
        return _Order(np.empty(0, np.int64), np.empty(0, np.int64), len(ordinals))
    owners = np.searchsorted(ordinals, np.concatenate([record[ORDINAL].to_numpy() for record in records]))
    ages = -np.concatenate([record["__time"].cast(pa.int64()).to_numpy() for record in records])
    datasets = np.repeat(np.arange(len(records)), [record.num_rows for record in records])
    rows = np.arange(len(owners))
    keys = (ages, datasets) if sources.rule.method == "TIMESTAMP_ORDERED" else (datasets, ages)
    order = np.lexsort((rows, keys[1], keys[0], owners))
    return _Order(order, owners[order], len(ordinals))


def _column(records: Sequence[tuple[pa.Table, frozenset[str]]], name: str, type_: Type) -> pa.Array:
    """One field of all concatenated records, which are given with their names."""
    target = stored_type(type_)
    parts = [
        _one_array(record[name]) if name in names else pa.nulls(record.num_rows, target) for record, names in records
    ]
    return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _best(values: pa.Array, type_: Type, order: _Order) -> pa.Array:
    """For each person, the non-null value with the highest precedence; for objects, per field."""
    if order.keeps:
        return values
    if isinstance(type_, ObjectType) and order.merges:
        children = [
            _best(child, inner, order) for child, inner in zip(values.flatten(), type_.fields.values(), strict=True)
        ]
        absent = np.logical_and.reduce([child.is_null().to_numpy(zero_copy_only=False) for child in children])
        return pa.StructArray.from_arrays(children, fields=list(stored_type(type_)), mask=pa.array(absent))
    return values.take(order.first(values.is_valid().to_numpy(zero_copy_only=False)))
