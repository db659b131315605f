"""Copies of every dataset's rows by persons, so that a view of persons is read like any other; knows no rules.

A view with the identity graph `pdg` needs all of a person's records and events in one bucket, but a dataset stores them
in the buckets of their fragments. Each dataset therefore has a second copy with the same columns, in which bucket and
ordinal are those of the person (`identity_graph`) and `__fragment` identifies the original fragment. The copy is
created when a view first needs it, and shared by all views. Rows of new files are added to it; when a person is
retired, its rows are added for the person it now belongs to.

What an update writes is bounded by what has changed: rows of retired persons stay where they are, and the version lists
these persons, whose rows readers leave out. Small files of a bucket are merged as they become many, and all files of a
bucket are rewritten when many of its persons are retired: of a few buckets at a time, so that no batch waits for all.
"""

import base64
import json
import math
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, event_id_sql
from app.engine.people.compaction import crowd
from app.engine.people.identity_graph import Graph, Seen, open_graph
from app.engine.people.persons import ByBucket, by_bucket, united
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.delta import DataFile, TableVersion, open_table
from app.engine.store.lake import TenantLake, write_atomically

FRAGMENT = "__fragment"
"""Bucket (upper 32 bits) and ordinal of the fragment that a row came from."""
_FEWEST_ROWS = 64
"""Maximum number of rows of a file in the lowest tier of those that are merged."""
_ROW_GROUP = 1 << 13
"""Small, so that the rows of a few persons can be read without most others."""
_MOST_RETIRED = 1 / 8
"""A bucket with more retired persons than this share of its identities is rewritten."""
_AT_ONCE = 4
"""In one update, one of this many crowded buckets is merged."""


@dataclass(frozen=True, slots=True)
class Stitched:
    """The copies for one version of the graph."""

    graph: Graph
    seen: Seen
    tables: Mapping[str, TableVersion]


def stitched(lake: TenantLake, graph: Graph) -> Stitched:
    """Updates the copies to this version of the graph."""
    with lake.lock("stitched data"):
        if _note(lake, graph.version).exists():
            return open_stitched(lake, graph)
        old = _before(lake, graph)
        with lake.scratch() as scratch, lake.session(scratch) as database:
            update = _Update(lake, graph, old, database, scratch, _find_moved(database, old, graph))
            tables = {dataset: table for dataset in graph.seen if (table := update.table(dataset)) is not None}
        _write(lake, graph, tables)
        return Stitched(graph, graph.seen, tables)


def open_stitched(lake: TenantLake, graph: Graph) -> Stitched:
    """The existing copies of a version. Raises `FileNotFoundError`."""
    tables = {}
    for dataset, entry in json.loads(_note(lake, graph.version).read_text()).items():
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(entry["schema"])))
        files = tuple(DataFile(*file) for file in entry["files"])
        # Copies of earlier versions have no retired persons.
        retired = {int(bucket): BitMap(ordinals) for bucket, ordinals in entry.get("retired", {}).items()}
        tables[dataset] = TableVersion(lake.stitched(dataset), graph.version, schema, files, retired)
    return Stitched(graph, graph.seen, tables)


def _note(lake: TenantLake, version: int) -> Path:
    return lake.graph / "stitched" / f"{version}.json"


def _before(lake: TenantLake, graph: Graph) -> Stitched | None:
    """The newest copies that this version continues."""
    versions = sorted((int(path.stem) for path in (lake.graph / "stitched").glob("[0-9]*.json")), reverse=True)
    for version in versions:
        if graph.born <= version < graph.version:
            return open_stitched(lake, open_graph(lake, version))
    return None


def _write(lake: TenantLake, graph: Graph, tables: Mapping[str, TableVersion]) -> None:
    content = {
        dataset: {
            "schema": base64.b64encode(table.schema.serialize()).decode(),
            "files": [[file.name, file.bucket, file.rows] for file in table.files],
            "retired": {bucket: ordinals.to_array().tolist() for bucket, ordinals in table.retired.items()},
        }
        for dataset, table in tables.items()
    }
    note = _note(lake, graph.version)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps(content).encode())


def _find_moved(database: duckdb.DuckDBPyConnection, old: Stitched | None, graph: Graph) -> ByBucket:
    """Fills `moved` with the persons retired since the copies were made, with the persons they now belong to; returns
    the retired ones."""
    database.execute("CREATE TABLE moved (bucket INTEGER, ordinal INTEGER, home INTEGER, person INTEGER)")
    if old is None:
        return {}
    paths = sorted(set(graph.paths("members")) - set(old.graph.paths("members")))
    if paths:
        database.execute(
            f"INSERT INTO moved SELECT place, ordinal, home, person FROM {parquet_list(paths, '')}"
            f" WHERE retired > {old.graph.version}"
        )
    rows = database.sql("SELECT bucket, ordinal FROM moved").to_arrow_table()
    return by_bucket(rows["bucket"].to_numpy(), rows["ordinal"].to_numpy())


@dataclass(frozen=True, slots=True)
class _Update:
    """An update of all copies; `moved` are the persons retired since the `old` ones."""

    lake: TenantLake
    graph: Graph
    old: Stitched | None
    database: duckdb.DuckDBPyConnection
    scratch: Path
    moved: ByBucket

    def table(self, dataset: str) -> TableVersion | None:
        source = open_table(self.lake.dataset(dataset))
        if source is None:
            return None
        schema, folder = source.schema.append(pa.field(FRAGMENT, pa.int64())), self.lake.stitched(dataset)
        current = self.old.tables.get(dataset) if self.old is not None else None
        files, retired = (current.files, current.retired) if current is not None else ((), {})
        seen = self.old.seen.get(dataset, frozenset()) if self.old is not None else frozenset()
        names = sorted(self.graph.seen[dataset] - seen)
        self._find_persons([file.bucket for file in source.files if file.name in {*names}])
        self._find_retired(retired)
        present = {file.bucket for file in files}
        retired = united(retired, {bucket: persons for bucket, persons in self.moved.items() if bucket in present})
        merged = {*self._crowded(files), *self._worn(files, retired)}
        query = _rows(
            source.schema,
            [source.folder / name for name in names],
            [folder / file.name for file in files if file.bucket in self.moved and file not in merged],
            [folder / file.name for file in files if file in merged],
        )
        added = self._written(folder, query) if query else []
        unchanged = [file for file in files if file not in merged]
        present = {file.bucket for file in unchanged}
        retired = {bucket: persons for bucket, persons in retired.items() if bucket in present}
        return TableVersion(folder, self.graph.version, schema, (*unchanged, *added), retired)

    def _find_persons(self, buckets: Sequence[int]) -> None:
        """Fills `belongs` with the person of each fragment of these buckets."""
        paths = self.graph.paths("nodes", buckets)
        columns = "place INTEGER, ordinal INTEGER, home INTEGER, person INTEGER"
        self.database.execute(
            "CREATE OR REPLACE TABLE belongs AS SELECT place, ordinal, home, person"
            f" FROM {parquet_list(paths, columns)} WHERE ordinal IS NOT NULL"
        )

    def _find_retired(self, retired: Mapping[int, BitMap]) -> None:
        """Fills `left_out` with the persons whose rows have been copied before."""
        places = [(bucket, ordinal) for bucket, persons in retired.items() for ordinal in persons]
        columns = np.array(places, np.int32).reshape(-1, 2).T
        left_out = pa.table({"bucket": columns[0], "ordinal": columns[1]})
        self.database.register("listed", left_out).execute("CREATE OR REPLACE TABLE left_out AS FROM listed")

    @staticmethod
    def _crowded(files: Iterable[DataFile]) -> Iterator[DataFile]:
        """Small files of the most crowded buckets."""
        groups = [crowd(of_bucket, lambda file: file.rows, _FEWEST_ROWS) for of_bucket in _by_bucket(files).values()]
        groups = sorted(filter(None, groups), key=len, reverse=True)
        return chain.from_iterable(groups[: math.ceil(len(groups) / _AT_ONCE)])

    def _worn(self, files: Iterable[DataFile], retired: Mapping[int, BitMap]) -> Sequence[DataFile]:
        """All files of the bucket with most retired persons, if these are many."""
        identities = {file.bucket: file.rows for file in self.graph.members}
        shares = {bucket: len(persons) / identities.get(bucket, 1) for bucket, persons in retired.items()}
        worn = max(shares, key=lambda bucket: shares[bucket], default=-1)
        return _by_bucket(files)[worn] if shares.get(worn, 0.0) > _MOST_RETIRED else ()

    def _written(self, folder: Path, query: str) -> list[DataFile]:
        writer = BucketWriter(self.scratch / f"stitched-{uuid.uuid4().hex}", uuid.uuid4().hex, _ROW_GROUP)
        files = writer.write(self.database.sql(query).to_arrow_reader(1 << 15))
        writer.move(folder, files)
        return files


def _by_bucket(files: Iterable[DataFile]) -> Mapping[int, list[DataFile]]:
    buckets: defaultdict[int, list[DataFile]] = defaultdict(list)
    for file in files:
        buckets[file.bucket].append(file)
    return buckets


def _rows(schema: pa.Schema, fresh: Sequence[Path], left: Sequence[Path], merged: Sequence[Path]) -> str:
    """SQL for the rows to write, with the person's bucket and ordinal, in file order: all of the `fresh` files of the
    dataset, those of the moved persons in the files that are `left`, and those of the `merged` ones. Empty if there are
    no files."""
    moved = f"JOIN moved ON {_same_place('moved.bucket', 'moved')}"
    columns = "old.* EXCLUDE (__bucket, __ordinal)"
    parts = []
    if fresh:
        parts.append(
            f"SELECT belongs.home AS __bucket, belongs.person AS __ordinal, {columns},"
            f" (old.__bucket::BIGINT << 32) | old.__ordinal AS {FRAGMENT}"
            f" FROM {parquet_list(fresh, '')} old JOIN belongs ON {_same_place('belongs.place', 'belongs')}"
        )
    if left:
        persons = f"SELECT moved.home AS __bucket, moved.person AS __ordinal, {columns}"
        parts.append(f"{persons} FROM {parquet_list(left, '')} old {moved}")
    if merged:
        parts.append(
            "SELECT coalesce(moved.home, old.__bucket) AS __bucket, coalesce(moved.person, old.__ordinal) AS __ordinal,"
            f" {columns} FROM {parquet_list(merged, '')} old LEFT {moved}"
            f" ANTI JOIN left_out ON {_same_place('left_out.bucket', 'left_out')}"
        )
    if not parts:
        return ""
    if TIMESTAMP in schema.names and "__row" in schema.names:
        order = f"{TIMESTAMP}, {event_id_sql(_has_ids(fresh, left, merged))}"
    else:
        order = f"{FRAGMENT}, __version"
    return f"SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) ORDER BY __bucket, __ordinal, {order}"


def _same_place(bucket: str, table: str) -> str:
    """Qualifies every name with its table, because fields of the data may have the names of our columns."""
    return f"{bucket} = old.__bucket AND {table}.ordinal = old.__ordinal"


def _has_ids(*files: Sequence[Path]) -> bool:
    return any(EVENT_ID in pq.read_schema(path).names for paths in files for path in paths)
