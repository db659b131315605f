"""Numbers of other datasets whose columns become one with a dataset's: what may stand together; knows no formats.

A view has one column of a field of several datasets, and it holds either fractions (as doubles) or whole numbers past
2^53, which a double would round. So two loads at the same instant decide one after the other, by `settled`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
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
"""Steps to a place in a row: names, `[]` for the elements of a list, `{}` for the values of a map."""

_EXACT = 1 << 53
_NUMBERS = (Scalar.INTEGER, Scalar.NUMBER)
_KIND = "_kind"
"""In the folder of a dataset with rows: its kind, so that loads that began before the dataset was created find it."""


class Neighbours:
    """The datasets of the same views in their newest versions when first asked for."""

    def __init__(self, lake: TenantLake, folder: Path, shape: DatasetShape) -> None:
        self._lake = lake
        self._folder = folder
        self._shape = shape

    def again(self) -> "Neighbours":
        """The same as they are now."""
        return Neighbours(self._lake, self._folder, self._shape)

    def fractions(self, path: Place) -> bool:
        """Whether another dataset has fractions there."""
        return any(numbers.get(path) is Scalar.NUMBER for _, numbers in self._tables)

    def large(self, path: Place) -> bool:
        """Whether another dataset has whole numbers there that a double does not hold."""
        return any(numbers.get(path) is Scalar.INTEGER and holds_large(table, path) for table, numbers in self._tables)

    def beside_fractions(self, fields: ObjectType) -> frozenset[Place]:
        """The places of whole numbers among the fields where another dataset has fractions."""
        leaves = number_leaves(fields)
        return frozenset(path for path, type_ in leaves if type_ is Scalar.INTEGER and self.fractions(path))

    def beside_large(self, fields: ObjectType) -> frozenset[Place]:
        """The places of fractions among the fields where another dataset has whole numbers past 2^53."""
        leaves = number_leaves(fields)
        return frozenset(path for path, type_ in leaves if type_ is Scalar.NUMBER and self.large(path))

    @contextmanager
    def settled(self, waiting: Callable[[], None] | None = None) -> Iterator["Neighbours"]:
        """The neighbours as they are, and nobody else of them commits meanwhile. Write `mark` before you commit."""
        if self._shape.kind == "AUDIENCE":
            yield self
            return
        with self._lake.lock(f"numbers {self._shape.kind}", waiting):
            yield self.again()

    def mark(self) -> None:
        """Makes the dataset a neighbour of those that do not know of it."""
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
    """Since the rows were read, another dataset got numbers that those of this one cannot stand beside: read again."""

    def __init__(self, new_profiles: int) -> None:
        super().__init__(new_profiles)
        self.new_profiles = new_profiles


def number_leaves(type_: Type, path: Place = ()) -> Iterator[tuple[Place, Scalar]]:
    """The places of numbers with their types.

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
    """Whether a file has whole numbers there that a double does not hold, by its statistics."""
    leaf = leaf_name(path)
    for file in table.paths():
        metadata = pq.read_metadata(file)
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            for column in (group.column(number) for number in range(group.num_columns)):
                statistics = column.statistics
                if column.physical_type != "INT64" or _our_path(column.path_in_schema) != leaf:
                    continue
                if statistics is None or not statistics.has_min_max:
                    if statistics is None or statistics.null_count < group.num_rows:
                        return True
                elif max(abs(statistics.min), abs(statistics.max)) > _EXACT:
                    return True
    return False


def _our_path(stored: str) -> str:
    return ".".join(map(our_name, stored.split(".")))
