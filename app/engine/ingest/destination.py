"""The dataset that receives the rows of a file, as of the start of the load; knows no formats."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.engine.ingest.neighbours import Neighbours
from app.engine.ingest.returning import Returning
from app.engine.ingest.rows import TIMESTAMP, DatasetShape, user_fields
from app.engine.ingest.widening import declarable, declared_of
from app.engine.store.case_names import file_names
from app.engine.store.delta import TableVersion, open_table
from app.engine.store.json_schema import Declared, declared
from app.engine.store.lake import TenantLake
from app.json_values import JsonValue
from app.pql.schema import ObjectType


@dataclass(frozen=True, slots=True)
class Destination:
    """The dataset that receives the rows, as of the start of the load."""

    folder: Path
    shape: DatasetShape
    current: TableVersion | None
    known: ObjectType
    returning: Returning
    declared: Declared
    neighbours: Neighbours

    @classmethod
    def of(cls, lake: TenantLake, folder: Path, shape: DatasetShape, schema: JsonValue = None) -> "Destination":
        """With a JSON `schema`, as if that had been declared. Raises `Refusal` if it cannot be."""
        current = open_table(folder)
        known = ObjectType() if current is None else user_fields(current.schema)
        neighbours = Neighbours(lake, folder, shape)
        if schema is None:
            return cls(folder, shape, current, known, Returning.of(lake), declared_of(folder), neighbours)
        new = declared(schema)
        known = declarable(current, known, new.fields, shape, neighbours)
        return cls(folder, shape, current, known, Returning.of(lake), new, neighbours)

    @property
    def is_event(self) -> bool:
        return self.shape.kind == "EVENT"

    @property
    def time_column(self) -> str | None:
        return (self.shape.timestamp_column or TIMESTAMP) if self.is_event else self.shape.timestamp_column

    def staged_names(self, columns: Iterable[str]) -> dict[str, str]:
        """Column names in `staged`; `timestamp` is reserved for events."""
        return file_names([TIMESTAMP, *columns] if self.is_event else columns)
