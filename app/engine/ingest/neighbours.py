"""Number columns of other datasets that share a column with this one in views, and which numbers may be combined; knows
no formats.

A view has one column for a field of several datasets. It holds either fractions (as doubles) or integers beyond 2^53,
which a double would round. Concurrent loads are therefore decided one after the other, by `settled`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, lru_cache
from pathlib import Path

import pyarrow.parquet as pq

from app.engine.ingest.rows import DatasetShape
from app.engine.store.arrow_types import object_type
from app.engine.store.case_names import our_name
from app.engine.store.delta import TableVersion, open_table
from app.engine.store.lake import TenantLake, file_name, write_atomically
from app.engine.store.parquet_columns import leaf_name
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

Place = tuple[str, ...]
"""Steps to a place in a row: names, `[]` for list elements, `{}` for map values."""

_EXACT = 1 << 53
_NUMBERS = (Scalar.INTEGER, Scalar.NUMBER)
_KIND = "_kind"
"""File in the folder of a dataset with rows: its kind, so that loads that started before the dataset was created find
it."""


class Neighbours:
    """The datasets of the same views, in their newest versions at first use."""

    def __init__(self, lake: TenantLake, folder: Path, shape: DatasetShape) -> None:
        self._lake = lake
        self._folder = folder
        self._shape = shape

    def again(self) -> "Neighbours":
        """The same, in their current versions."""
        return Neighbours(self._lake, self._folder, self._shape)

    def fractions(self, path: Place) -> bool:
        """Whether another dataset has fractions at the place."""
        return any(numbers.get(path) is Scalar.NUMBER for _, numbers in self._tables)

    def large(self, path: Place) -> bool:
        """Whether another dataset has integers at the place that a double cannot represent."""
        return any(numbers.get(path) is Scalar.INTEGER and holds_large(table, path) for table, numbers in self._tables)

    def beside_fractions(self, fields: ObjectType) -> frozenset[Place]:
        """The places of integers among the fields where another dataset has fractions."""
        leaves = number_leaves(fields)
        return frozenset(path for path, type_ in leaves if type_ is Scalar.INTEGER and self.fractions(path))

    def beside_large(self, fields: ObjectType) -> frozenset[Place]:
        """The places of fractions among the fields where another dataset has integers beyond 2^53."""
        leaves = number_leaves(fields)
        return frozenset(path for path, type_ in leaves if type_ is Scalar.NUMBER and self.large(path))

    @contextmanager
    def settled(self, waiting: Callable[[], None] | None = None) -> Iterator["Neighbours"]:
        """The current neighbours; none of them can commit meanwhile. Call `mark` before committing."""
        if self._shape.kind == "AUDIENCE":
            yield self
            return
        with self._lake.lock(f"numbers {self._shape.kind}", waiting):
            yield self.again()

    def mark(self) -> None:
        """Registers the dataset with neighbours that do not know it."""
        if self._shape.kind != "AUDIENCE" and not (self._folder / _KIND).exists():
            self._folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._folder / _KIND, self._shape.kind.encode())

    @cached_property
    def _tables(self) -> list[tuple[TableVersion, dict[Place, Scalar]]]:
        if self._shape.kind == "AUDIENCE":
            return []
        known = {self._folder.with_name(file_name(id)) for id in self._shape.beside}
        kind = self._shape.kind.encode()
        marked = {mark.parent for mark in self._folder.parent.glob(f"*/{_KIND}") if mark.read_bytes() == kind}
        tables = [open_table(folder) for folder in sorted((known | marked) - {self._folder})]
        return [(table, dict(number_leaves(object_type(table.schema)))) for table in tables if table is not None]


class NeighboursChanged(Exception):
    """Another dataset has got numbers that cannot be combined with those of the rows read: read the rows again."""

    def __init__(self, new_profiles: int) -> None:
        super().__init__(new_profiles)
        self.new_profiles = new_profiles


def number_leaves(type_: Type, path: Place = ()) -> Iterator[tuple[Place, Scalar]]:
    """The places of numbers, with their types.

    >>> [(path, str(type_)) for path, type_ in number_leaves(ObjectType({"a": ArrayType(Scalar.INTEGER)}))]
    [(('a', '[]'), 'integer')]
    """
    match type_:
        case ObjectType():
            for name, inner in type_.fields.items():
                yield from number_leaves(inner, (*path, name))
        case ArrayType(inner):
            yield from number_leaves(inner, (*path, "[]"))
        case MapType(inner):
            yield from number_leaves(inner, (*path, "{}"))
        case Scalar() if type_ in _NUMBERS:
            yield path, type_


def holds_large(table: TableVersion, path: Place) -> bool:
    """Whether a file contains integers at the place that a double cannot represent, by its statistics."""
    leaf = leaf_name(path)
    return any(leaf in _large_leaves(file) for file in table.paths())


@lru_cache(maxsize=1 << 12)
def _large_leaves(path: Path) -> frozenset[str]:
    """The leaves of a file with integers that a double cannot represent, found once for all of thousands of columns."""
    metadata = pq.read_metadata(path)
    large = set()
    for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
        for column in (group.column(number) for number in range(group.num_columns)):
            statistics = column.statistics
            if column.physical_type != "INT64":
                continue
            if statistics is None or not statistics.has_min_max:
                is_large = statistics is None or statistics.null_count < group.num_rows
            else:
                least, most = statistics.min, statistics.max  # Of times, they are no integers.
                is_large = isinstance(least, int) and max(abs(least), abs(most)) > _EXACT
            if is_large:
                large.add(_our_path(column.path_in_schema))
    return frozenset(large)


def _our_path(stored: str) -> str:
    return ".".join(map(our_name, stored.split(".")))
