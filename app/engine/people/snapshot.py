"""The people and events of a merge policy at fixed versions, bucket by bucket; knows no expressions."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from deltalake.exceptions import DeltaError
from numpy.typing import NDArray
from pyroaring import BitMap

from app.engine.ingest.identities import find
from app.engine.ingest.rows import INGESTED, ORDINAL, TIMESTAMP
from app.engine.limits.pool import Stopped, in_threads
from app.engine.people import pages
from app.engine.people.compaction import event_paths
from app.engine.people.event_ids import event_ids
from app.engine.people.identity_graph import Graph, open_graph
from app.engine.people.merged_view import Told, View, namespaces, open_view, refresh
from app.engine.people.merging import PROFILE, ordinals_in
from app.engine.people.pages import EventPage, Key, People, Person
from app.engine.people.sources import Dataset, MergeRule, Sources, people_graph, sources
from app.engine.store.bitmaps import bitmap
from app.engine.store.bucket import Bucket, Needs, Path
from app.engine.store.delta import DataFile, open_table
from app.engine.store.lake import TenantLake
from app.engine.store.parquet_columns import groups_with, open_file, prune, read_columns, stored_type
from app.errors import Refusal
from app.json_values import JsonObject
from app.pql.schema import EVENTS, ObjectType, Scalar

Changed = Callable[[int], BitMap | None]
"""By bucket, the people with any change; None stands for everyone."""
MOST_ROWS = 1 << 22
"""Profiles and events of a bucket that are evaluated at once."""
_MOST_CHANGED = 4
"""If more than one in this many people of a bucket changed, all are evaluated."""


def open_snapshot(
    lake: TenantLake,
    rule: MergeRule,
    datasets: Sequence[Dataset],
    told: Told | None = None,
    threads: int = 1,
    graph: Graph | None = None,
) -> "Snapshot":
    """The current data; updates the merged view first. A rule that links fragments shows the data of this version of
    the `graph`, if given."""
    inputs, view = refresh(lake, rule, datasets, graph=graph, told=told, threads=threads)
    return Snapshot(inputs, view)


def open_snapshots(
    lake: TenantLake,
    rules: Sequence[MergeRule],
    datasets: Sequence[Dataset],
    told: Told | None = None,
    threads: int = 1,
) -> "dict[str, Snapshot]":
    """The current data under several rules, by rule id: all of them see the same batches and persons."""
    stitching = any(rule.identity_graph == "PDG" for rule in rules)
    graph = people_graph(lake, datasets) if stitching else None
    tables = {dataset.id: open_table(lake.dataset(dataset.id)) for dataset in datasets}
    versions = {name: table.version for name, table in tables.items() if table is not None}
    return {rule.id: Snapshot(*refresh(lake, rule, datasets, versions, graph, told, threads)) for rule in rules}


def reopen(lake: TenantLake, rule: MergeRule, datasets: Sequence[Dataset], pinned: Mapping[str, Any]) -> "Snapshot":
    """The data of an earlier snapshot, by its `pinned`: without data added since, and still with data deleted since.

    `datasets` are for snapshots pinned without dataset kinds.
    """
    datasets = [Dataset(id_, kind) for id_, kind in pinned["kinds"]] if "kinds" in pinned else datasets
    version = pinned.get("graph")
    graph = open_graph(lake, version) if version is not None else None
    inputs = sources(lake, rule, datasets, pinned["datasets"], graph)
    return Snapshot(inputs, open_view(lake, rule, pinned["view"]["generation"], pinned["view"]["version"]))


def people_changed_since(lake: TenantLake, snapshot: "Snapshot", pinned: Mapping[str, Any]) -> "Changed":
    """The people with any change since an earlier snapshot of the same rule (by its `pinned`).

    Everyone, if a type has changed, a file was removed, the earlier snapshot no longer exists, or so many have changed
    that selecting them costs more. Everyone, too, with an identity graph: only without one does each change of a person
    come with a file that has rows of that person.
    """
    try:
        earlier = reopen(lake, snapshot.sources.rule, (), pinned)
    except (Refusal, OSError, DeltaError):
        return lambda bucket: None
    if earlier.schema != snapshot.schema or snapshot.sources.graph is not None or earlier.sources.graph is not None:
        return lambda bucket: None

    def people(bucket: int) -> BitMap | None:
        before, now = earlier.sources.paths(bucket), snapshot.sources.paths(bucket)
        if not before <= now:
            return None
        changed = BitMap.union(BitMap(), *(bitmap(ordinals_in(path).astype(np.uint32)) for path in now - before))
        return changed if len(changed) * _MOST_CHANGED <= snapshot.profiles_in(bucket) else None

    return people


def find_person(
    lake: TenantLake, snapshot: "Snapshot", datasets: Sequence[Dataset], namespace: str, id: str
) -> Key | None:
    """The person with this identity, or None.

    Without an identity graph several profiles may share an identity: the one with it as its primary identity takes
    precedence, then the one in the lowest bucket with the lowest ordinal.
    """
    graph = snapshot.sources.graph
    if graph is not None:
        candidates = [graph.find(namespace, id)]
    else:
        primary = find(lake, namespace, id)
        if primary is not None and snapshot.people([primary])[0] is not None:
            return primary
        graph = people_graph(lake, datasets)
        person = graph.find(namespace, id)
        candidates = [*graph.fragments(person)] if person is not None else []
    keys = [key for key in candidates if key is not None]
    for key, candidate in zip(keys, snapshot.people(keys), strict=True):
        if candidate is not None and any(
            (identity.namespace, identity.id) == (namespace, id) for identity in candidate.identities
        ):
            return key
    return None


@dataclass(frozen=True)
class Snapshot:
    """Files of fixed versions; repeated reads return the same. Thread-safe."""

    sources: Sources
    view: View
    schema: ObjectType = field(init=False)
    stored_fields: ObjectType = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "schema", self.sources.schema)
        object.__setattr__(self, "stored_fields", self.sources.stored_fields)

    @property
    def buckets(self) -> tuple[int, ...]:
        """The buckets with at least one person."""
        return tuple(sorted(file.bucket for file in self._view_files if file.rows))

    @property
    def total_profiles(self) -> int:
        return sum(file.rows for file in self._view_files)

    @property
    def pinned(self) -> dict[str, Any]:
        """The versions read, as JSON values, for `reopen`."""
        table = self.view.table
        return {
            "datasets": {dataset: version.version for dataset, version in self.sources.tables.items()},
            "kinds": self.sources.kinds,
            "graph": self.graph_version,
            "view": {"generation": self.view.generation, "version": table.version if table is not None else None},
        }

    @property
    def graph_version(self) -> int | None:
        """The version of the identity graph whose persons these are; None if each fragment is a person."""
        return self.sources.graph.version if self.sources.graph is not None else None

    @property
    def people_by_bucket(self) -> dict[int, int]:
        """The number of people in each nonempty bucket."""
        return {file.bucket: file.rows for file in self._view_files if file.rows}

    def present(self, bucket: int) -> BitMap:
        """The ordinals of the people in the bucket."""
        path = self.view_path(bucket)
        return BitMap() if path is None else bitmap(ordinals_in(path).astype(np.uint32))

    def profiles_in(self, bucket: int) -> int:
        return sum(file.rows for file in self._view_files if file.bucket == bucket)

    def namespaces(self, bucket: int) -> dict[str, BitMap]:
        """The ordinals of the people with an identity in each namespace."""
        path = self.view_path(bucket)
        return namespaces(path) if path is not None else {}

    def read(self, bucket: int, needs: Needs, only: BitMap | None = None) -> Bucket:
        """The requested columns of one bucket, for everyone or for the ordinals in `only`. Text outside maps is
        returned as dictionaries. Columns that expressions cannot name are available too: `PROFILE` of a person,
        `INGESTED` of an event."""
        only_ordinals = None if only is None else np.frombuffer(only.to_array(), np.uint32).astype(np.int32)
        path = self.view_path(bucket)
        fields = {name: type_ for name, type_ in self.stored_fields.fields.items() if name != EVENTS}
        pruned = prune(ObjectType({**fields, PROFILE: Scalar.STRING}), needs.profile)
        if path is None:
            ordinals, profiles = np.empty(0, np.uint32), pa.table({})
        else:
            table = _Part.of(path, pruned, [ORDINAL], only_ordinals).table
            ordinals = table[ORDINAL].to_numpy().astype(np.uint32)
            profiles = table.drop_columns([ORDINAL])
        events, owners = (
            self._events(bucket, needs.event, only_ordinals) if needs.events or needs.event else _no_events()
        )
        return Bucket(bucket, ordinals, profiles, events, _rows_of(owners, ordinals))

    def parts(self, bucket: int, needs: Needs, only: BitMap | None = None) -> list[BitMap | None]:
        """The people to `read` one after the other, so that memory holds about `MOST_ROWS` rows at a time; one person
        is never divided."""
        rows = self.profiles_in(bucket)
        if needs.events or needs.event:
            files = (file for table in self.sources.events.values() for file in table.files)
            rows += sum(file.rows for file in files if file.bucket == bucket)
        if rows <= MOST_ROWS:
            return [only]
        people = np.frombuffer(self.present(bucket).to_array(), np.uint32)
        parts = [bitmap(part) for part in np.array_split(people, math.ceil(rows / MOST_ROWS)) if len(part)]
        if only is not None:
            parts = [part & only for part in parts]
        return [part for part in parts if part] or [only]

    def people(self, keys: Sequence[Key]) -> list[Person | None]:
        """The people; None for a key without a profile."""
        return pages.people(self.view_path, keys)

    def people_in(self, ordinals: Mapping[int, BitMap], threads: int) -> People:
        """The people with these ordinals, by bucket, as columns."""
        people = People()

        def read(bucket: int, _stopped: Stopped) -> None:
            asked = np.frombuffer(ordinals[bucket].to_array(), np.uint32).astype(np.int32)
            people.read(self.view_path(bucket), bucket, asked)

        in_threads(read, ordinals, finished=lambda _: None, cancelled=lambda: False, threads=threads)
        return people

    def attributes(self, keys: Sequence[Key], paths: Sequence[Path] | None) -> list[JsonObject]:
        """The merged fields as JSON values (only those of the paths, if given), without nulls and events."""
        fields = ObjectType({name: type_ for name, type_ in self.stored_fields.fields.items() if name != EVENTS})
        return pages.attributes(self.view_path, keys, fields if paths is None else prune(fields, paths))

    def events(
        self,
        keys: Sequence[Key],
        *,
        limit: int,
        place: tuple[datetime, str] | None,
        backward: bool = False,
        paths: Sequence[Path] | None = None,
    ) -> list[EventPage]:
        """For each person the newest events, or the next older ones after an event's (timestamp, id); when `backward`
        the oldest, or the next newer ones."""
        fields = self.sources.event_fields
        pruned = fields if paths is None else prune(fields, paths)
        return pages.events(self.sources.events, keys, pruned, limit, place, backward)

    def event_counts(self, keys: Sequence[Key]) -> list[int]:
        return pages.event_counts(self.sources.events, keys)

    @property
    def _view_files(self) -> Sequence[DataFile]:
        return self.view.table.files if self.view.table is not None else ()

    def view_path(self, bucket: int) -> FilePath | None:
        paths = self.view.table.paths(bucket) if self.view.table is not None else []
        return paths[0] if paths else None

    def _events(
        self, bucket: int, paths: frozenset[Path], chosen: NDArray[np.int32] | None
    ) -> tuple[pa.Table, NDArray[np.int32]]:
        """The events of the bucket by (ordinal, timestamp, id), with their owners' ordinals."""
        fields = self.sources.event_fields.fields
        pruned = prune(ObjectType({**fields, INGESTED: Scalar.TIMESTAMP}), paths)
        files = [path for table in self.sources.events.values() for path in event_paths(table, bucket)]
        if not files:
            return _no_events()
        retired = self.sources.retired_in(bucket)
        if chosen is not None:
            chosen = np.setdiff1d(chosen, retired, assume_unique=True)
        plain = [ORDINAL] if len(files) == 1 else [ORDINAL, TIMESTAMP]
        hidden = {ORDINAL: ORDINAL} if len(files) == 1 else {ORDINAL: ORDINAL, TIMESTAMP: "__at"}
        parts = []
        for path in files:
            key = _Part.of(path, ObjectType(), plain, chosen, retired)
            if key.table.num_rows or len(files) == 1:
                named = key.table.rename_columns([hidden[name] for name in key.table.column_names])
                parts.append((key, named, key.also(pruned)))
        if not parts:
            return _no_events()
        keys = pa.concat_tables([named for _, named, _ in parts])
        table = _together([part for _, _, part in parts], pruned)
        if len(parts) > 1:
            order = pa.array(_merged_order(keys, [part for part, _, _ in parts]))
            keys, table = keys.take(order), table.take(order)
        return table.combine_chunks(), keys[ORDINAL].to_numpy()


@dataclass(frozen=True, slots=True)
class _Part:
    """The content of one file: all of it, or the rows of some people (files are sorted by ordinal), or of all others
    than those `retired`."""

    path: FilePath
    groups: Sequence[int]
    rows: pa.Array | None
    table: pa.Table

    @classmethod
    def of(
        cls,
        path: FilePath,
        wanted: ObjectType,
        plain: Sequence[str],
        chosen: NDArray[np.int32] | None,
        retired: Sequence[int] | NDArray[np.int32] = (),
    ) -> "_Part":
        file = open_file(path, wanted)
        groups = list(range(file.num_row_groups)) if chosen is None else groups_with(file, chosen, ORDINAL)
        table = read_columns(file, wanted, plain=plain, groups=groups)
        if chosen is None and not len(retired):
            return cls(path, groups, None, table)
        owners = table[ORDINAL].to_numpy()
        included = np.isin(owners, retired, invert=True) if chosen is None else np.isin(owners, chosen)
        rows = pa.array(np.flatnonzero(included))
        return cls(path, groups, rows, table.take(rows))

    def also(self, wanted: ObjectType) -> pa.Table:
        """Other columns of the same rows."""
        table = read_columns(open_file(self.path, wanted), wanted, groups=self.groups)
        return table if self.rows is None else table.take(self.rows)

    def event_ids(self) -> pa.ChunkedArray:
        ids = event_ids(self.path, self.groups)
        return ids if self.rows is None else ids.take(self.rows)


def _rows_of(owners: NDArray[np.int32], ordinals: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The row of each event's person; the ascending `ordinals` include all owners."""
    rows = np.zeros(int(ordinals[-1]) + 1 if len(ordinals) else 0, np.int32)
    rows[ordinals] = np.arange(len(ordinals), dtype=np.int32)
    return rows[owners]


def _no_events() -> tuple[pa.Table, NDArray[np.int32]]:
    return pa.table({}), np.empty(0, np.int32)


def _together(parts: Sequence[pa.Table], wanted: ObjectType) -> pa.Table:
    """Concatenates the parts; a column missing in some of them is null there."""
    present = [frozenset(part.schema.names) for part in parts]
    columns = {}
    for name in (name for name in wanted.fields if any(name in names for names in present)):
        target = stored_type(wanted.fields[name])
        columns[name] = pa.chunked_array(
            [
                chunk
                for part, names in zip(parts, present, strict=True)
                for chunk in (part[name].chunks if name in names else [pa.nulls(part.num_rows, target)])
            ],
            target,
        )
    return pa.table(columns)


def _merged_order(keys: pa.Table, parts: Sequence[_Part]) -> NDArray[np.int64]:
    """The order of all events by (ordinal, time, id); ids are read only if two events have the same time."""
    ordinals = keys[ORDINAL].to_numpy()
    times = keys["__at"].cast(pa.int64()).to_numpy()
    order = np.lexsort((times, ordinals))
    tied = (np.diff(ordinals[order]) == 0) & (np.diff(times[order]) == 0)
    if not tied.any():
        return order
    either = np.flatnonzero(np.append(tied, False) | np.insert(tied, 0, False))
    ids = pa.chunked_array([chunk for part in parts for chunk in part.event_ids().chunks], pa.string()).take(
        pa.array(order[either])
    )
    ranks = pc.rank(ids.combine_chunks(), tiebreaker="dense").to_numpy()
    inner = np.lexsort((ranks, times[order[either]], ordinals[order[either]]))
    order[either] = order[either][inner]
    return order


__all__ = ["Changed", "Snapshot", "find_person", "open_snapshot", "open_snapshots", "people_changed_since", "reopen"]
