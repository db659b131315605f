"""Pages of people for a reader: identities, attributes, events as JSON values; knows files of a bucket, no rules."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path as FilePath
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.engine.ingest.rows import ORDINAL
from app.engine.people.compaction import event_paths
from app.engine.people.event_ids import named_ids
from app.engine.store.delta import TableVersion
from app.engine.store.parquet_columns import groups_with, open_file, read_columns
from app.json_values import JsonObject, JsonValue
from app.pql.schema import IDENTITY_MAP, ArrayType, MapType, ObjectType, Type

Key = tuple[int, int]
"""A person: bucket and ordinal."""
_IDENTITIES = ObjectType({"identityMap": IDENTITY_MAP})


class Identity(NamedTuple):
    namespace: str
    id: str
    primary: bool


class Person(NamedTuple):
    """`profile_id` is "namespace:id" of the primary identity."""

    profile_id: str
    bucket: int
    ordinal: int
    identities: tuple[Identity, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """(`timestamp`, `event_id`) is its place among the person's events, and the cursor of a page that begins there."""

    event_id: str
    timestamp: datetime
    attributes: JsonObject


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in the order in which they were asked for, and whether `more` follow them in it."""

    items: tuple[Event, ...]
    more: bool


class People:
    """Who the people of some places are, held as columns: a person is made when it is asked for.

    A bucket that was not read has nobody.
    """

    def __init__(self) -> None:
        self._columns: dict[int, tuple[NDArray[np.int32], pa.Table]] = {}

    def read(self, path: FilePath | None, bucket: int, ordinals: NDArray[np.int32]) -> None:
        """Reads those with these ordinals (rising) from the bucket's file."""
        if path is not None and len(ordinals):
            table = _rows(path, ordinals, _IDENTITIES, ["__profile"])
            self._columns[bucket] = table[ORDINAL].to_numpy(), table

    def at(self, bucket: int, ordinals: Sequence[int]) -> list[Person | None]:
        """The person at each place; None where there is none."""
        if bucket not in self._columns:
            return [None] * len(ordinals)
        known, table = self._columns[bucket]
        asked = np.asarray(ordinals, np.int32)
        rows = np.searchsorted(known, asked)
        missing = known[np.minimum(rows, len(known) - 1)] != asked if len(known) else np.ones(len(rows), np.bool_)
        chosen = table.take(pa.array(rows, mask=missing)).combine_chunks()
        people = zip(
            chosen["__profile"].to_pylist(), ordinals, _identities(chosen["identityMap"].chunk(0)), strict=True
        )
        return [
            None if profile_id is None else Person(profile_id, bucket, ordinal, identities)
            for profile_id, ordinal, identities in people
        ]


def _identities(maps: pa.MapArray) -> list[tuple[Identity, ...]]:
    """The identities of each person, from a whole array (no slice)."""
    namespaces, groups = maps.keys.dictionary_encode(), maps.items
    ends, sizes = groups.offsets.to_numpy(), np.diff(groups.offsets.to_numpy())
    names = namespaces.dictionary.to_pylist()
    flat = [
        Identity(names[code], id, bool(primary))
        for code, id, primary in zip(
            np.repeat(namespaces.indices.to_numpy(), sizes).tolist(),
            groups.values.field("id").to_pylist(),
            groups.values.field("primary").to_pylist(),
            strict=True,
        )
    ]
    bounds = ends[maps.offsets.to_numpy()].tolist()
    return [tuple(flat[start:end]) for start, end in pairwise(bounds)]


def people(path_of: Callable[[int], FilePath | None], keys: Sequence[Key]) -> list[Person | None]:
    read, by_bucket = People(), _by_bucket(keys)
    for bucket, ordinals in by_bucket.items():
        read.read(path_of(bucket), bucket, ordinals)
    persons = {
        (bucket, ordinal): person
        for bucket, ordinals in by_bucket.items()
        for ordinal, person in zip(ordinals.tolist(), read.at(bucket, ordinals.tolist()), strict=True)
    }
    return [persons[key] for key in keys]


def attributes(path_of: Callable[[int], FilePath | None], keys: Sequence[Key], wanted: ObjectType) -> list[JsonObject]:
    values: dict[Key, JsonObject] = {}
    for bucket, ordinals in _by_bucket(keys).items():
        path = path_of(bucket)
        if path is None:
            continue
        table = _rows(path, ordinals, wanted)
        for ordinal, row in zip(table[ORDINAL].to_pylist(), table.drop_columns([ORDINAL]).to_pylist(), strict=True):
            values[bucket, ordinal] = _object(row, wanted)
    return [values.get(key, {}) for key in keys]


def events(
    datasets: Mapping[str, TableVersion],
    keys: Sequence[Key],
    wanted: ObjectType,
    limit: int,
    place: tuple[datetime, str] | None,
    backward: bool,
) -> list[EventPage]:
    """Newest first, by (timestamp, id) downwards, or upwards when `backward`; without those up to a `place`. The
    same event in two datasets is shown once."""
    by_key: dict[Key, dict[tuple[datetime, str], tuple[pa.Table, int]]] = {key: {} for key in keys}
    for bucket, ordinals in _by_bucket(keys).items():
        for path in (path for table in datasets.values() for path in event_paths(table, bucket)):
            table = _rows(path, ordinals, wanted, ["__batch", "__row", "timestamp", "_id"], split=True)
            rows = zip(
                table[ORDINAL].to_pylist(), _times(table["__timestamp"]), named_ids(table).to_pylist(), strict=True
            )
            for row, (ordinal, *own) in enumerate(rows):
                if place is None or (tuple(own) > place if backward else tuple(own) < place):
                    by_key[bucket, ordinal].setdefault((own[0], own[1]), (table, row))
    return [_page(by_key[key], wanted, limit, backward) for key in keys]


def newest_rows(
    table: TableVersion, keys: Sequence[Key], wanted: ObjectType, batches: Collection[str]
) -> dict[Key, JsonObject]:
    """Of each person the newest row that one of the batches brought, as JSON values without nulls."""
    newest: dict[Key, tuple[int, JsonObject]] = {}
    for bucket, ordinals in _by_bucket(keys).items():
        for path in table.paths(bucket):
            rows = _rows(path, ordinals, wanted, ["__batch", "__version"])
            for row in rows.to_pylist():
                key = bucket, row[ORDINAL]
                if row["__batch"] in batches and (key not in newest or newest[key][0] < row["__version"]):
                    newest[key] = row["__version"], _object(row, wanted)
    return {key: values for key, (_, values) in newest.items()}


def event_counts(datasets: Mapping[str, TableVersion], keys: Sequence[Key]) -> list[int]:
    counts = dict.fromkeys(keys, 0)
    for bucket, ordinals in _by_bucket(keys).items():
        for path in (path for table in datasets.values() for path in event_paths(table, bucket)):
            values, sizes = np.unique(_rows(path, ordinals, ObjectType())[ORDINAL].to_numpy(), return_counts=True)
            for ordinal, size in zip(values.tolist(), sizes.tolist(), strict=True):
                counts[bucket, ordinal] += size
    return [counts[key] for key in keys]


def _by_bucket(keys: Iterable[Key]) -> dict[int, NDArray[np.int32]]:
    grouped: dict[int, set[int]] = {}
    for bucket, ordinal in keys:
        grouped.setdefault(bucket, set()).add(ordinal)
    return {bucket: np.array(sorted(ordinals), np.int32) for bucket, ordinals in grouped.items()}


def _rows(
    path: FilePath, ordinals: NDArray[np.int32], wanted: ObjectType, plain: Sequence[str] = (), split: bool = False
) -> pa.Table:
    """The rows of some people, from the row groups that may have them (files are sorted by ordinal).

    With `split` the plain columns are read apart and get two more underscores when users may ask for them too.
    """
    file = open_file(path, wanted)
    groups = groups_with(file, ordinals, ORDINAL)
    if split:
        table = read_columns(file, wanted, groups=groups)
        keys = read_columns(pq.ParquetFile(path), ObjectType(), plain=[ORDINAL, *plain], groups=groups)
        for name in keys.column_names:
            table = table.append_column(name if name.startswith("__") else f"__{name}", keys[name])
    else:
        table = read_columns(file, wanted, plain=[ORDINAL, *plain], groups=groups)
    return table.filter(pc.is_in(table[ORDINAL], pa.array(ordinals)))


def _page(
    events: dict[tuple[datetime, str], tuple[pa.Table, int]], wanted: ObjectType, limit: int, backward: bool
) -> EventPage:
    order = sorted(events, reverse=not backward)
    items = []
    for place in order[:limit]:
        table, row = events[place]
        there = [name for name in wanted.fields if name in table.schema.names]
        values = table.select(there).slice(row, 1).to_pylist()[0] if there else {}
        items.append(Event(place[1], place[0], _object(values, wanted)))
    return EventPage(tuple(items), len(order) > limit)


def _times(column: pa.ChunkedArray) -> list[datetime]:
    return [value.replace(tzinfo=UTC) for value in column.cast(pa.timestamp("us")).to_pylist()]


def _object(values: Mapping[str, object], type_: ObjectType) -> JsonObject:
    fields = {name: _json(values[name], inner) for name, inner in type_.fields.items() if values.get(name) is not None}
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: Any, type_: Type) -> JsonValue:
    """The value as JSON has it: whole numbers without a point, times in ISO 8601, objects of nulls only as None."""
    match type_:
        case ObjectType():
            return _object(value, type_) or None
        case ArrayType(element):
            return [_json(item, element) for item in value if item is not None]
        case MapType(inner):
            return {key: _json(item, inner) for key, item in value if item is not None}
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    plain: JsonValue = value
    return plain
