"""The rows of a dataset: their owners, columns, and load results; knows no files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from app.engine.store.arrow_types import arrow_type, object_type
from app.engine.store.delta import BUCKET
from app.errors import ErrorCode, Refusal
from app.pql.schema import ObjectType, Scalar

ORDINAL = "__ordinal"
EVENT_ID = "_id"
TIMESTAMP = "timestamp"
INGESTED = "__ingested"
IDENTITIES = "identityMap"

_SYSTEM: Mapping[str, pa.DataType] = {
    BUCKET: pa.int32(),
    ORDINAL: pa.int32(),
    "__batch": pa.string(),
    "__row": pa.int64(),
    "__version": pa.int64(),
    INGESTED: pa.timestamp("us", tz="UTC"),
    "__time": pa.timestamp("us", tz="UTC"),
}
"""Our columns, before those of the user: the row's person, and its origin in place and time.

`__row` is for events only. `__time` is for records only: how recent the record claims to be.
"""


@dataclass(frozen=True, slots=True)
class DatasetShape:
    """How to read the rows of a dataset: the person of each row and, for events, the time.

    Rows of members (AUDIENCE) are stored like records; their other fields describe the membership, not the person.
    """

    kind: Literal["PROFILE", "EVENT", "AUDIENCE"]
    identity_column: str
    namespace: str
    timestamp_column: str | None = None
    beside: tuple[str, ...] = ()
    """The datasets whose fields share columns with its own in the views of the sandbox."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A rejected row; `row` is 1-based and excludes a header."""

    row: int
    message: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of a batch.

    `row_count` is the number of stored rows. `duplicate_rows` are good rows that are not stored: events that the
    dataset already has or that occur twice in the file, and records replaced by a later row of the file.
    """

    row_count: int
    rejected_rows: int
    rejected: tuple[RejectedRow, ...]
    bytes: int
    version: int
    new_profiles: int
    duplicate_rows: int = 0
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DryRun:
    """The expected result of a batch; nothing is stored.

    `duplicate_rows` are those within the file; existing rows of the dataset are not compared. `fields` are those of the
    file, `new_fields` the names that the dataset does not have yet.
    """

    row_count: int
    rejected_rows: int
    duplicate_rows: int
    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]
    fields: ObjectType
    new_fields: tuple[str, ...]
    above: tuple[str, ...]
    """Names that lead to the fields in an expression: `xEvent` for events."""


class NoGoodRows(Refusal):
    """Every row of a file was rejected; nothing has changed."""

    def __init__(self, rejected_rows: int, rejected: tuple[RejectedRow, ...]) -> None:
        first = rejected[0]
        super().__init__(
            ErrorCode.INVALID_INPUT,
            f"none of the {rejected_rows:,} rows can be used; row {first.row}: {first.message}",
            ("input", "file"),
        )
        self.rejected_rows = rejected_rows
        self.rejected = rejected


def columns_of(shape: DatasetShape, fields: ObjectType) -> pa.Schema:
    """The columns of a dataset: ours, then the user's."""
    is_event = shape.kind == "EVENT"
    skipped = "__time" if is_event else "__row"
    ours = [pa.field(name, type_) for name, type_ in _SYSTEM.items() if name != skipped]
    if is_event:
        fields = ObjectType({TIMESTAMP: Scalar.TIMESTAMP, **fields.fields})
    return pa.schema(ours + [pa.field(name, arrow_type(type_)) for name, type_ in fields.fields.items()])


def user_fields(schema: pa.Schema) -> ObjectType:
    """The columns of a dataset or view other than ours."""
    return object_type(pa.schema([field for field in schema if not field.name.startswith("__")]))


def event_id_sql(has_id: bool, batch: str = "__batch", row: str = "__row") -> str:
    """SQL for the id of an event: its `_id`, or one made from its position in its batch, which sorts in file order."""
    made = f"{batch} || '-' || lpad({row}::VARCHAR, 12, '0')"
    return f"coalesce({EVENT_ID}, {made})" if has_id else made
