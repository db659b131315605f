"""What the rows of a dataset are: whose they are, their columns, and what becomes of them; knows no files."""

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
"""Columns of ours, before those of the user: whose row it is, and where and when it came from.

`__row` is for events only, `__time` for records only: how new the record says it is."""


@dataclass(frozen=True, slots=True)
class DatasetShape:
    """How the rows of a dataset are to be read: whose they are and, for events, when they happened.

    Rows of members (AUDIENCE) are stored as records are; what else they say is about the membership, not the person.
    """

    kind: Literal["PROFILE", "EVENT", "AUDIENCE"]
    identity_column: str
    namespace: str
    timestamp_column: str | None = None
    beside: tuple[str, ...] = ()
    """The datasets whose fields become one with its own in the views of the sandbox."""


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A row that was left out; `row` counts from 1 and leaves a header out."""

    row: int
    message: str


@dataclass(frozen=True, slots=True)
class Ingested:
    """What became of a batch.

    `row_count` are the rows stored. `duplicate_rows` are good rows that are not: events that the dataset has already or
    that the file has twice, and records that a later row of the file replaces.
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
    """What would become of a batch; nothing is stored.

    `duplicate_rows` are those that the file has twice: what the dataset has already is not looked up. `fields` are
    those of the file, `new_fields` the names of those that the dataset has not yet.
    """

    row_count: int
    rejected_rows: int
    duplicate_rows: int
    rejected: tuple[RejectedRow, ...]
    warnings: tuple[str, ...]
    fields: ObjectType
    new_fields: tuple[str, ...]


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
    """The columns of a dataset or view that are not ours."""
    return object_type(pa.schema([field for field in schema if not field.name.startswith("__")]))


def event_id_sql(has_id: bool, batch: str = "__batch", row: str = "__row") -> str:
    """SQL for the id of an event: its `_id`, or one made from its place in its batch, which sorts as the file did."""
    made = f"{batch} || '-' || lpad({row}::VARCHAR, 12, '0')"
    return f"coalesce({EVENT_ID}, {made})" if has_id else made
