"""Converts people of a bucket to rows of an export and writes a file per batch; knows no jobs.

The columns, in order: `__batch` (the batch's id), `profileId` ("namespace:id"), `identityMap`, the attributes nested as
in the data, `segmentMembership` (namespace → segment → {status, lastQualificationTime}) and, if events are requested,
`xEvent` (a list, oldest first). An attribute with one of these names gets a trailing underscore.
"""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.export.request import Audience, Batch, BatchFile, Events, Exported, What, Who
from app.engine.ingest.rows import INGESTED, ORDINAL, TIMESTAMP
from app.engine.members.membership import STATUSES, Membership, MembershipStatus
from app.engine.members.membership_map import NO_TIME, Standings, nested
from app.engine.people.merging import PROFILE
from app.engine.people.snapshot import Snapshot
from app.engine.store.arrow_types import arrow_type
from app.engine.store.bitmaps import bitmap
from app.engine.store.bucket import Bucket, Needs, Path
from app.engine.store.case_names import file_schema, with_names
from app.engine.store.files import publish
from app.engine.store.lake import on_disk
from app.engine.store.parquet_columns import prune
from app.pql.schema import EVENTS, IDENTITY_MAP, SEGMENT_MEMBERSHIP, ArrayType, ObjectType, Scalar

BATCH, PROFILE_ID, IDENTITIES, MEMBERSHIP = "__batch", "profileId", "identityMap", "segmentMembership"

_OURS = frozenset(name.lower() for name in (BATCH, PROFILE_ID, IDENTITIES, MEMBERSHIP, EVENTS))
_ROWS, _PARTS = 1 << 14, 1 << 20
"""Limits of a row group: people, and memberships and events unless one person has more."""


class Export:
    """One export over one snapshot; thread-safe."""

    def __init__(self, snapshot: Snapshot, who: Who, what: What, batches: Sequence[Batch]) -> None:
        self.snapshot = snapshot
        self.who = who
        self.what = what
        self.batches = batches
        self.audiences = sorted(who.audiences, key=lambda one: (one.namespace, one.audience_id))
        attributes = attributes_of(snapshot.stored_fields)
        self.attributes = attributes if what.paths is None else prune(attributes, what.paths)
        self.event = _event_fields(snapshot.sources.event_fields, what.events)
        self.schema = self._schema()

    def bucket(self, number: int, memberships: Mapping[str, Membership], folder: FilePath, attempt: int) -> Exported:
        """Writes the rows of one bucket below the folder. `memberships` are those of the bucket, by audience."""
        looked_at = self.snapshot.profiles_in(number)
        members = self._chosen(number, memberships)
        if members is not None and not members:
            return Exported(number, looked_at, 0, {}, {})
        bucket = self.snapshot.read(number, self._needs(), members)
        rows = _Rows(self, bucket, memberships)
        files = {}
        written = BitMap()
        for batch in self.batches:
            people = rows.people_of(batch)
            if len(people):
                name = f"{batch.id}/{number}-{attempt}.parquet"
                files[batch.id] = _write(folder, name, self.schema, rows.tables(batch, people))
                written |= bitmap(bucket.ordinals[people])
        counted = {name: written.intersection_cardinality(o) for name, o in self.snapshot.namespaces(number).items()}
        by_namespace = {name: count for name, count in counted.items() if count}
        return Exported(number, looked_at, len(written), by_namespace, files)

    def _schema(self) -> pa.Schema:
        fields = [pa.field(BATCH, pa.string()), pa.field(PROFILE_ID, pa.string())]
        fields.append(pa.field(IDENTITIES, arrow_type(IDENTITY_MAP)))
        for name, type_ in self.attributes.fields.items():
            fields.append(pa.field(column_name(name, self.attributes), arrow_type(type_)))
        fields.append(pa.field(MEMBERSHIP, arrow_type(SEGMENT_MEMBERSHIP)))
        if self.event is not None:
            fields.append(pa.field(EVENTS, arrow_type(ArrayType(self.event))))
        return pa.schema(fields)

    def _needs(self) -> Needs:
        paths = self.what.paths if self.what.paths is not None else {(name,) for name in self.attributes.fields}
        event: set[Path] = set()
        if self.what.events is not None:
            event = {(TIMESTAMP,)}
            event |= self.what.events.paths or {(name,) for name in self.snapshot.sources.event_fields.fields}
            if self.what.events.ingested.bounded:
                event.add((INGESTED,))
        return Needs(frozenset({(PROFILE,), (IDENTITIES,), *paths}), frozenset(event), bool(event))

    def _chosen(self, number: int, memberships: Mapping[str, Membership]) -> BitMap | None:
        """The ordinals to examine; None for everyone."""
        parts = []
        if self.who.members_only:
            qualified = [self.qualified(audience, memberships) for audience in self.audiences]
            parts.append(BitMap.union(BitMap(), *qualified))
        sources = self.snapshot.sources
        records = [path for table in sources.records.values() for path in table.paths(number)]
        if self.who.with_record:
            parts.append(_ordinals(records, None))
        if self.who.ingested_since is not None:
            events = [path for table in sources.events.values() for path in table.paths(number)]
            parts.append(_ordinals([*records, *events], self.who.ingested_since))
        return BitMap.intersection(*parts) if parts else None

    def qualified(self, audience: Audience, memberships: Mapping[str, Membership]) -> BitMap:
        """The people of an audience to export."""
        membership = memberships.get(audience.id)
        if membership is None:
            return BitMap()
        people = membership.with_status(audience.statuses)
        if self.who.qualified.bounded:
            at_that_time = [cohort for at, cohort in membership.qualified if at in self.who.qualified]
            people &= BitMap.union(BitMap(), *at_that_time)
        return people


def attributes_of(schema: ObjectType) -> ObjectType:
    """The attributes of a profile: everything except the events and the two built-in maps, which have their own
    columns."""
    others = {EVENTS, IDENTITIES, MEMBERSHIP}
    return ObjectType({name: type_ for name, type_ in schema.fields.items() if name not in others})


def column_name(name: str, attributes: ObjectType) -> str:
    """
    >>> column_name("ProfileID", ObjectType()), column_name("city", ObjectType())
    ('ProfileID_', 'city')
    """
    if name.lower() not in _OURS:
        return name
    reserved = _OURS | {other.lower() for other in attributes.fields if other != name}
    while name.lower() in reserved:
        name += "_"
    return name


def _event_fields(fields: ObjectType, events: Events | None) -> ObjectType | None:
    if events is None:
        return None
    pruned = fields if events.paths is None else prune(fields, events.paths)
    return ObjectType({TIMESTAMP: Scalar.TIMESTAMP, **pruned.fields})


def _ordinals(paths: Sequence[FilePath], since: datetime | None) -> BitMap:
    """The ordinals with rows in the files: all, or those ingested at or after an instant."""
    selected = BitMap()
    for path in paths:
        columns = [ORDINAL] if since is None else [ORDINAL, INGESTED]
        table = pq.ParquetFile(path).read(columns=columns)
        ordinals = table[ORDINAL].to_numpy()
        if since is not None:
            ordinals = ordinals[_instants(table[INGESTED]) >= _microseconds(since)]
        selected |= bitmap(np.unique(ordinals).astype(np.uint32))
    return selected


def _write(folder: FilePath, name: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> BatchFile:
    path = folder / name
    temporary = on_disk(path).with_name(f".{path.name}.{uuid.uuid4().hex}")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    try:
        stored = file_schema(schema)
        with pq.ParquetWriter(temporary, stored, compression="zstd", store_schema=False) as writer:
            for table in tables:
                batches = [with_names(batch, stored) for batch in table.combine_chunks().to_batches()]
                writer.write_table(pa.Table.from_batches(batches, stored), row_group_size=_ROWS)
                rows += table.num_rows
        publish([(temporary, path)])
    finally:
        temporary.unlink(missing_ok=True)
    return BatchFile(name, rows, path.stat().st_size)


class _Rows:
    """The people of a bucket that may be written, as rows; converted to tables a few at a time."""

    def __init__(self, export: Export, bucket: Bucket, memberships: Mapping[str, Membership]) -> None:
        self.export = export
        self.bucket = bucket
        self.count = len(bucket.ordinals)
        self.parts = [self._part(audience, memberships) for audience in export.audiences]
        self.events, owners = self._kept_events()
        self.first_event = np.searchsorted(owners, np.arange(self.count + 1))

    def people_of(self, batch: Batch) -> NDArray[np.int64]:
        """The ascending rows of a batch."""
        if batch.audiences is None:
            return np.arange(self.count)
        mine = [part.rows for part, audience in self._parts(batch) if audience.id in batch.audiences]
        return np.unique(np.concatenate(mine)) if mine else np.empty(0, np.int64)

    def tables(self, batch: Batch, people: NDArray[np.int64]) -> Iterator[pa.Table]:
        weight = self.first_event[people + 1] - self.first_event[people]
        for part, _ in self._parts(batch):
            weight = weight + np.isin(people, part.rows, assume_unique=True)
        for some in _slices(people, weight):
            yield self._table(batch, some)

    def _parts(self, batch: Batch) -> "list[tuple[_Part, Audience]]":
        everything = zip(self.parts, self.export.audiences, strict=True)
        return [
            (p, audience) for p, audience in everything if batch.audiences is None or audience.id in batch.audiences
        ]

    def _part(self, audience: Audience, memberships: Mapping[str, Membership]) -> "_Part":
        """The rows whose people are in an audience, with status and time."""
        people = self.export.qualified(audience, memberships) & bitmap(self.bucket.ordinals)
        ordinals = _array(people)
        statuses = np.full(len(ordinals), STATUSES.index(MembershipStatus.EXISTING), np.int8)
        times = np.full(len(ordinals), NO_TIME)
        if (membership := memberships.get(audience.id)) is not None and len(ordinals):
            for status, members in (
                (MembershipStatus.REALIZED, membership.entered),
                (MembershipStatus.EXITED, membership.exited),
            ):
                statuses[np.searchsorted(ordinals, _array(members & people))] = STATUSES.index(status)
            for at, cohort in membership.qualified:
                times[np.searchsorted(ordinals, _array(cohort & people))] = _microseconds(at)
        return _Part(np.searchsorted(self.bucket.ordinals, ordinals), statuses, times)

    def _kept_events(self) -> tuple[pa.Table, NDArray[np.int32]]:
        events, owners = self.bucket.events, self.bucket.event_rows
        asked = self.export.what.events
        if asked is not None and asked.ingested.bounded and len(owners):
            at = _instants(events[INGESTED])
            in_range = np.ones(len(owners), bool)
            if asked.ingested.start is not None:
                in_range &= at >= _microseconds(asked.ingested.start)
            if asked.ingested.end is not None:
                in_range &= at <= _microseconds(asked.ingested.end)
            events, owners = events.filter(pa.array(in_range)), owners[in_range]
        return events, owners

    def _table(self, batch: Batch, people: NDArray[np.int64]) -> pa.Table:
        export, rows = self.export, pa.array(people)
        profiles = self.bucket.profiles.take(rows)
        columns: dict[str, Any] = {
            BATCH: pa.repeat(batch.id, len(people)),
            PROFILE_ID: profiles[PROFILE],
            IDENTITIES: profiles[IDENTITIES],
            MEMBERSHIP: self._membership(batch, people),
        }
        # A set, since the schema lists its names anew each time, and profiles may have thousands of columns.
        filled = {*profiles.schema.names}
        for name in export.attributes.fields:
            if name in filled:
                columns[column_name(name, export.attributes)] = profiles[name]
        if export.event is not None:
            columns[EVENTS] = self._event_lists(people, export.event)
        return pa.table([_cast(columns.get(field.name), field, len(people)) for field in export.schema], export.schema)

    def _event_lists(self, people: NDArray[np.int64], fields: ObjectType) -> pa.Array:
        """The events of each person. The rows of several people need not be contiguous."""
        sizes = self.first_event[people + 1] - self.first_event[people]
        offsets = np.concatenate([[0], np.cumsum(sizes)])
        event_rows = np.repeat(self.first_event[people] - offsets[:-1], sizes) + np.arange(offsets[-1])
        some = self.events.take(pa.array(event_rows))
        type_, filled = arrow_type(fields), {*some.schema.names}
        children = [
            _one_chunk(_cast(some[field.name] if field.name in filled else None, field, len(event_rows)))
            for field in type_
        ]
        items = pa.StructArray.from_arrays(children, fields=list(type_))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items)

    def _membership(self, batch: Batch, people: NDArray[np.int64]) -> pa.Array:
        """For each person a nested map: namespace → segment → status and time."""
        parts = self._parts(batch)
        places, owners, statuses, times = [], [], [], []
        for place, (part, _) in enumerate(parts):
            mine = np.flatnonzero(np.isin(part.rows, people, assume_unique=True))
            places.append(np.full(len(mine), place))
            owners.append(np.searchsorted(people, part.rows[mine]))
            statuses.append(part.statuses[mine])
            times.append(part.times[mine])
        entries = (places, owners, statuses, times)
        where, who, codes, since = (np.concatenate([*some, np.empty(0, np.int64)]).astype(np.int64) for some in entries)
        names = [(audience.namespace, audience.audience_id) for _, audience in parts]
        return nested(len(people), Standings(names, who, where, pa.array(STATUSES).take(pa.array(codes)), since))


@dataclass(frozen=True, slots=True)
class _Part:
    """The ascending rows of one audience's people, each with status and last qualification time."""

    rows: NDArray[np.int64]
    statuses: NDArray[np.int8]
    times: NDArray[np.int64]


def _slices(people: NDArray[np.int64], weight: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Splits the rows so that neither their number nor their size exceeds the limits."""
    ends = np.cumsum(weight)
    start = 0
    while start < len(people):
        before = ends[start - 1] if start else 0
        end = max(int(np.searchsorted(ends, before + _PARTS, side="right")), start + 1)
        end = min(end, start + _ROWS)
        yield people[start:end]
        start = end


def _cast(column: Any, field: pa.Field, count: int) -> Any:
    return pa.nulls(count, field.type) if column is None else column.cast(field.type)


def _one_chunk(column: object) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _array(people: BitMap) -> NDArray[np.uint32]:
    return np.frombuffer(people.to_array(), np.uint32) if people else np.empty(0, np.uint32)


def _instants(column: pa.ChunkedArray) -> NDArray[np.int64]:
    micros: NDArray[np.int64] = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
    return micros


def _microseconds(at: datetime) -> int:
    return int(np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us").astype(np.int64))
