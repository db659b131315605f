"""Finds a person's rows in a file of any of our tables, and writes the file without them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.engine.erasure.subject import Subject
from app.engine.export.rows import IDENTITIES, PROFILE_ID
from app.engine.ingest.rows import ORDINAL
from app.engine.store.bucket_files import ROW_GROUP
from app.engine.store.delta import BUCKET

Mask = NDArray[np.bool_]
_BY_NAME = frozenset({"identities", "nodes", "members"})
"""Folders of tables whose rows name people, also those of other buckets."""


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file, with the columns that identify their person."""

    subject: Subject
    path: Path

    def count(self) -> int:
        """The number of the person's rows; reads only the columns that identify them, and only where the person can
        be."""
        if self._is_elsewhere:
            return 0
        file = pq.ParquetFile(self.path)
        columns = self._telling(file.schema_arrow.names)
        if not columns:
            return 0
        groups = range(file.num_row_groups)
        return sum(int(self._mine(file.read_row_group(group, columns=columns)).sum()) for group in groups)

    def without(self, target: Path) -> int:
        """Writes the other rows in the same order into a new file, one row group at a time, and returns their
        number."""
        file = pq.ParquetFile(self.path)
        rows = 0
        with pq.ParquetWriter(target, file.schema_arrow, compression="zstd", store_schema=False) as writer:
            for table in self._others(file):
                writer.write_table(table, row_group_size=ROW_GROUP)
                rows += table.num_rows
        return rows

    def _others(self, file: pq.ParquetFile) -> Iterator[pa.Table]:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            yield table.filter(pa.array(~self._mine(table)))

    @property
    def _is_elsewhere(self) -> bool:
        """Whether the file is known, without opening it, to have ordinals of another bucket."""
        folder = self.path.parent
        by_ordinal = folder.name.startswith(f"{BUCKET}=") and folder.parent.name not in _BY_NAME
        return by_ordinal and self._bucket not in self.subject.ordinals

    def _telling(self, names: list[str]) -> list[str]:
        if ORDINAL in names:
            return [ORDINAL] if self._bucket in self.subject.ordinals else []
        if PROFILE_ID in names:
            return [name for name in (PROFILE_ID, IDENTITIES) if name in names]
        return ["namespace", "id"] if {"namespace", "id"} <= set(names) else []

    def _mine(self, table: pa.Table) -> Mask:
        names = table.schema.names
        if ORDINAL in names:
            ordinals = self.subject.ordinals.get(self._bucket)
            if ordinals is None:
                return np.zeros(table.num_rows, bool)
            return np.isin(table[ORDINAL].to_numpy(), np.array(ordinals.to_array(), np.int64))
        if PROFILE_ID in names:
            named = _is_in(table[PROFILE_ID], self.subject.names)
            return named | self._identified(table[IDENTITIES]) if IDENTITIES in names else named
        if {"namespace", "id"} <= set(names):
            return _is_in(_named(table["namespace"], table["id"]), self.subject.names)
        return np.zeros(table.num_rows, bool)

    @property
    def _bucket(self) -> int:
        name = self.path.parent.name
        return int(name.partition("=")[2]) if name.startswith(f"{BUCKET}=") else 0

    def _identified(self, column: pa.ChunkedArray) -> Mask:
        """The rows whose identity map contains one of the person's identities."""
        return np.concatenate([*(self._in_maps(chunk) for chunk in column.chunks), np.zeros(0, bool)])

    def _in_maps(self, maps: pa.MapArray) -> Mask:
        lists = maps.items
        owners = np.repeat(np.repeat(np.arange(len(maps)), np.diff(maps.offsets)), np.diff(lists.offsets))
        namespaces = maps.keys.take(pa.array(np.repeat(np.arange(len(lists)), np.diff(lists.offsets))))
        matches = np.zeros(len(maps), bool)
        matches[owners[_is_in(_named(namespaces, lists.values.field("id")), self.subject.names)]] = True
        return matches


def _named(namespaces: pa.Array, ids: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(namespaces.cast(pa.string()), ids.cast(pa.string()), ":")


def _is_in(names: pa.Array | pa.ChunkedArray, wanted: frozenset[str]) -> Mask:
    matches = pc.is_in(names, pa.array(sorted(wanted), pa.string()))
    plain = matches.combine_chunks() if isinstance(matches, pa.ChunkedArray) else matches
    return np.asarray(plain.to_numpy(zero_copy_only=False), bool)
