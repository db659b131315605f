"""Pages of people for readers: identities, attributes and events as JSON values; knows files of a bucket, no rules."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path as FilePath
from typing import Any, NamedTuple, TypeVar

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


T = TypeVar("T", bound=tuple[Any, ...])


def tuples_of(kind: type[T], *columns: Iterable[object]) -> Iterator[T]:
    """Named tuples from columns, up to the length of the shortest, without a Python call per tuple.

    >>> list(tuples_of(Identity, repeat("crm"), ["1", "2"], [True, False]))[1]
    Identity(namespace='crm', id='2', primary=False)
    """
    return map(partial(tuple.__new__, kind), zip(*columns, strict=False))


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
    """(`timestamp`, `event_id`) is its position among the person's events, and the cursor of a page that starts after
    it."""

    event_id: str
    timestamp: datetime
    attributes: JsonObject


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events in the requested order, and whether `more` follow."""

    items: tuple[Event, ...]
    more: bool


class People:
    """The people at some keys, held as columns; a `Person` is created on access.

    A bucket that was not read has no people.
    """

    def __init__(self) -> None:
        self._columns: dict[int, tuple[NDArray[np.int32], pa.Table]] = {}

    def read(self, path: FilePath | None, bucket: int, ordinals: NDArray[np.int32]) -> None:
        """Reads the people with these ascending ordinals from the bucket's file."""
        if path is not None and len(ordinals):
            table = _rows(path, ordinals, _IDENTITIES, ["__profile"])
            self._columns[bucket] = table[ORDINAL].to_numpy(), table

    def at(self, bucket: int, ordinals: Sequence[int]) -> list[Person | None]:
        """The person at each key; None if there is none."""
        if bucket not in self._columns:
            return [None] * len(ordinals)
        stored, table = self._columns[bucket]
        asked = np.asarray(ordinals, np.int32)
        rows = np.searchsorted(stored, asked)
        missing = stored[np.minimum(rows, len(stored) - 1)] != asked if len(stored) else np.ones(len(rows), np.bool_)
        page = table.take(pa.array(rows, mask=missing)).combine_chunks()
        names, identities = page["__profile"].to_pylist(), _identities(page["identityMap"].chunk(0))
        people: list[Person | None] = list(tuples_of(Person, names, repeat(bucket), ordinals, identities))
        for place in np.flatnonzero(missing).tolist():
            people[place] = None
        return people


def _identities(maps: pa.MapArray) -> list[tuple[Identity, ...]]:
    """The identities of each person, from a complete array (not a slice)."""
    namespaces, groups = maps.keys.dictionary_encode(), maps.items
    ends, sizes = groups.offsets.to_numpy(), np.diff(groups.offsets.to_numpy())
    names = namespaces.dictionary.to_pylist()
    codes = np.repeat(namespaces.indices.to_numpy(), sizes).tolist()
    ids, primary = groups.values.field("id"), groups.values.field("primary").fill_null(False)
    flat = list(tuples_of(Identity, map(names.__getitem__, codes), ids.to_pylist(), primary.to_pylist()))
    bounds = ends[maps.offsets.to_numpy()].tolist()
    return [tuple(flat[start:end]) for start, end in pairwise(bounds)]


def people(path_of: Callable[[int], FilePath | None], keys: Sequence[Key]) -> list[Person | None]:
    people, by_bucket = People(), _by_bucket(keys)
    for bucket, ordinals in by_bucket.items():
        people.read(path_of(bucket), bucket, ordinals)
    persons = {
        (bucket, ordinal): person
        for bucket, ordinals in by_bucket.items()
        for ordinal, person in zip(ordinals.tolist(), people.at(bucket, ordinals.tolist()), strict=True)
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
    """Sorted by (timestamp, id), descending, or ascending when `backward`, starting after `place`. An event that two
    datasets contain appears once."""
    by_key: dict[Key, dict[tuple[datetime, str], tuple[pa.Table, int]]] = {key: {} for key in keys}
    for bucket, ordinals in _by_bucket(keys).items():
        for path, people in _event_files(datasets, bucket, ordinals):
            table = _rows(path, people, wanted, ["__batch", "__row", "timestamp", "_id"], split=True)
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
    """The newest row of each person among the batches, as JSON values without nulls."""
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
        for path, people in _event_files(datasets, bucket, ordinals):
            values, sizes = np.unique(_rows(path, people, ObjectType())[ORDINAL].to_numpy(), return_counts=True)
            for ordinal, size in zip(values.tolist(), sizes.tolist(), strict=True):
                counts[bucket, ordinal] += size
    return [counts[key] for key in keys]


def _event_files(
    datasets: Mapping[str, TableVersion], bucket: int, ordinals: NDArray[np.int32]
) -> Iterator[tuple[FilePath, NDArray[np.int32]]]:
    """The files with events of these people, each with those whose rows in it count."""
    for table in datasets.values():
        people = np.setdiff1d(ordinals, table.retired_in(bucket), assume_unique=True)
        yield from ((path, people) for path in event_paths(table, bucket))


def _by_bucket(keys: Iterable[Key]) -> dict[int, NDArray[np.int32]]:
    grouped: dict[int, set[int]] = {}
    for bucket, ordinal in keys:
        grouped.setdefault(bucket, set()).add(ordinal)
    return {bucket: np.array(sorted(ordinals), np.int32) for bucket, ordinals in grouped.items()}


def _rows(
    path: FilePath, ordinals: NDArray[np.int32], wanted: ObjectType, plain: Sequence[str] = (), split: bool = False
) -> pa.Table:
    """The rows of some people, from the row groups that may contain them (files are sorted by ordinal).

    With `split`, the plain columns are read separately and get two more underscores if users may request them too.
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
        present = frozenset(table.schema.names)
        there = [name for name in wanted.fields if name in present]
        values = table.select(there).slice(row, 1).to_pylist()[0] if there else {}
        items.append(Event(place[1], place[0], _object(values, wanted)))
    return EventPage(tuple(items), len(order) > limit)


def _times(column: pa.ChunkedArray) -> list[datetime]:
    return [value.replace(tzinfo=UTC) for value in column.cast(pa.timestamp("us")).to_pylist()]


def _object(values: Mapping[str, object], type_: ObjectType) -> JsonObject:
    fields = {name: _json(values[name], inner) for name, inner in type_.fields.items() if values.get(name) is not None}
    return {name: value for name, value in fields.items() if value is not None}


def _json(value: Any, type_: Type) -> JsonValue:
    """The JSON form of the value: integers without a decimal point, times in ISO 8601, objects with only nulls as
    None."""
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
