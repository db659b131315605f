"""The members of one audience as tables, one part of a bucket at a time, and their encoding as CSV, NDJSON or Parquet.

Columns: `profileId`, `status`, `lastQualificationTime`, then attributes. In CSV the fields of objects are separate
columns (`homeAddress.city`), and lists and maps are JSON.
"""

import io
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pyroaring import BitMap

from app.engine.export.rows import attributes_of
from app.engine.members.membership import STATUSES, Membership, MembershipStatus
from app.engine.people.merging import PROFILE
from app.engine.people.snapshot import Snapshot
from app.engine.store.arrow_types import arrow_type
from app.engine.store.bitmaps import bitmap
from app.engine.store.bucket import Needs, Path
from app.engine.store.parquet_columns import prune
from app.pql.schema import ObjectType

PROFILE_ID, STATUS, SINCE = "profileId", "status", "lastQualificationTime"
ROWS = 1 << 13
"""Maximum number of rows per table."""

Tables = Iterator[pa.Table]
Encoder = Callable[[pa.Schema, Tables], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Members:
    """People with one of the statuses; `paths` are attributes, None for all. `chosen` has the selected people by
    bucket, None for all."""

    snapshot: Snapshot
    read: Callable[[int], Membership | None]
    statuses: Collection[str]
    paths: frozenset[Path] | None = None
    chosen: Mapping[int, BitMap] | None = None

    @property
    def attributes(self) -> ObjectType:
        whole = attributes_of(self.snapshot.stored_fields)
        return whole if self.paths is None else prune(whole, self.paths)

    @property
    def schema(self) -> pa.Schema:
        own_names = {PROFILE_ID, STATUS, SINCE}
        fields = [
            pa.field(PROFILE_ID, pa.string()),
            pa.field(STATUS, pa.string()),
            pa.field(SINCE, pa.timestamp("us", tz="UTC")),
        ]
        for name, type_ in self.attributes.fields.items():
            fields.append(pa.field(f"{name}_" if name in own_names else name, arrow_type(type_)))
        return pa.schema(fields)

    def tables(self) -> Iterator[pa.Table]:
        """Tables ordered by bucket and ordinal; one bucket is in memory at a time."""
        for number in self.snapshot.buckets:
            membership = self.read(number)
            if membership is None:
                continue
            people = membership.with_status(self.statuses)
            if self.chosen is not None:
                people &= self.chosen.get(number, BitMap())
            if people:
                table = self.of_bucket(number, membership, people)
                for start in range(0, table.num_rows, ROWS):
                    yield table.slice(start, ROWS).combine_chunks()

    def of_bucket(self, number: int, membership: Membership, wanted: BitMap) -> pa.Table:
        """The members of a bucket that still exist, by ordinal."""
        names = list(self.attributes.fields)
        paths = frozenset({(PROFILE,), *(self.paths if self.paths is not None else {(name,) for name in names})})
        bucket = self.snapshot.read(number, Needs(paths), wanted)
        people, ordinals = bitmap(bucket.ordinals), bucket.ordinals
        statuses = np.full(len(ordinals), STATUSES.index(MembershipStatus.EXISTING), np.int8)
        since = np.full(len(ordinals), np.datetime64("NaT"), "datetime64[us]")
        for status, members in (
            (MembershipStatus.REALIZED, membership.entered),
            (MembershipStatus.EXITED, membership.exited),
        ):
            statuses[_rows(ordinals, members & people)] = STATUSES.index(status)
        for at, cohort in membership.qualified:
            since[_rows(ordinals, cohort & people)] = np.datetime64(at.replace(tzinfo=None), "us")
        present = frozenset(bucket.profiles.schema.names)  # The list is made anew each time.
        columns = [
            bucket.profiles[PROFILE],
            pa.array(STATUSES).take(pa.array(statuses)),
            pa.array(since, pa.timestamp("us", tz="UTC")),
            *(bucket.profiles[name] if name in present else None for name in names),
        ]
        schema = self.schema
        return pa.table(
            [
                pa.nulls(len(ordinals), field.type) if column is None else column.cast(field.type)
                for column, field in zip(columns, schema, strict=True)
            ],
            schema,
        )


def _rows(ordinals: np.ndarray[Any, np.dtype[np.uint32]], people: Any) -> Any:
    return np.searchsorted(ordinals, np.frombuffer(people.to_array(), np.uint32)) if people else np.empty(0, np.intp)


# ---------------------------------------------------------------- formats


def as_ndjson(_schema: pa.Schema, tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """One object per line, without nulls."""
    for table in tables:
        written = _times_as_text(table)
        names = written.column_names
        rows: list[Any] = [
            dict(zip(names, row, strict=True)) for row in zip(*map(_values, written.columns), strict=True)
        ]
        if any(column.null_count or pa.types.is_nested(column.type) for column in written.columns):
            rows = [_known(row) for row in rows]
        yield b"".join(orjson.dumps(row, option=_JSON, default=str) for row in rows)


def as_csv(schema: pa.Schema, tables: Iterator[pa.Table]) -> Iterator[bytes]:
    """A header, then one row per member; null is empty, the empty text is quoted."""
    yield _csv(_flat(schema.empty_table()), header=True)
    for table in tables:
        yield _csv(_flat(table), header=False)


def as_parquet(schema: pa.Schema, tables: Iterator[pa.Table]) -> Iterator[bytes]:
    sink = _Sink()
    with pq.ParquetWriter(sink, schema, compression="zstd", store_schema=False) as writer:
        for table in tables:
            writer.write_table(table)
            yield sink.taken()
    yield sink.taken()


ENCODERS: Mapping[str, tuple[str, Encoder]] = {
    "csv": ("text/csv; charset=utf-8; header=present", as_csv),
    "ndjson": ("application/x-ndjson", as_ndjson),
    "parquet": ("application/vnd.apache.parquet", as_parquet),
}
"""Media type and encoder, by file name suffix."""

_JSON = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC | orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE


class _Sink(io.RawIOBase):
    """Collects what a writer writes until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._place = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._parts.append(content)
        self._place += len(content)
        return len(content)

    def taken(self) -> bytes:
        content, self._parts = b"".join(self._parts), []
        return content


def _times_as_text(table: pa.Table) -> pa.Table:
    """Converts times outside lists and maps to text, whole columns at once, since Python is slow on single values."""
    columns = [
        pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ") if pa.types.is_timestamp(column.type) else column
        for column in table.columns
    ]
    return pa.table(columns, names=table.column_names)


def _values(column: pa.ChunkedArray) -> list[object]:
    """The values in Python, through numpy where that is lossless, which is several times as fast."""
    plain = pa.types.is_string(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    if plain and not column.null_count:
        values: list[Any] = column.to_numpy().tolist()
        return values
    return list(column.to_pylist(maps_as_pydicts="lossy"))


def _known(value: object) -> Any:
    if isinstance(value, dict):
        return {name: _known(part) for name, part in value.items() if part is not None}
    return [_known(part) for part in value] if isinstance(value, list) else value


def _csv(table: pa.Table, *, header: bool) -> bytes:
    target = io.BytesIO()
    options = pa.csv.WriteOptions(include_header=header)
    pa.csv.write_csv(table, target, options)
    return target.getvalue()


def _flat(table: pa.Table) -> pa.Table:
    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    table = _times_as_text(table)
    columns = [_as_json(column) if pa.types.is_nested(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _as_json(column: pa.ChunkedArray) -> pa.Array:
    values = column.to_pylist(maps_as_pydicts="lossy")
    return pa.array([None if value is None else _text(value) for value in values], pa.string())


def _text(value: Any) -> str:
    return orjson.dumps(_known(value), option=_JSON, default=str).decode().rstrip("\n")
