"""The rows of every dataset laid out by persons, so that a view of persons reads like any other; knows no rules.

A view with the identity graph `pdg` needs all of a person's records and events in one bucket, while a dataset has them
in the buckets of their fragments. So each dataset has a second copy with the same columns, in which bucket and ordinal
are those of the person (`identity_graph`) and `__fragment` tells whose the row was. It is made when a view first asks
for it, and shared by all of them. New files are added to it; when a person is retired, its rows move to the one that
it belongs to now. Only files of buckets that this touches are written, and a bucket that has many gets one instead.
"""

import base64
import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, event_id_sql
from app.engine.people.identity_graph import Graph, Seen, open_graph
from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.delta import DataFile, TableVersion, open_table
from app.engine.store.lake import TenantLake, only_row, write_atomically

FRAGMENT = "__fragment"
"""Bucket (upper 32 bits) and ordinal of the fragment that a row came from."""
_CROWDED = 16


@dataclass(frozen=True, slots=True)
class Stitched:
    """The copies as they are in one version of the graph."""

    graph: Graph
    seen: Seen
    tables: Mapping[str, TableVersion]


def stitched(lake: TenantLake, graph: Graph) -> Stitched:
    """Brings the copies up to this version of the graph."""
    with lake.lock("stitched data"):
        if _note(lake, graph.version).exists():
            return open_stitched(lake, graph)
        old = _before(lake, graph)
        with lake.scratch() as scratch, lake.session(scratch) as database:
            moved = _find_moved(database, old, graph)
            tables = {}
            for dataset in graph.seen:
                updated = _updated(lake, database, scratch, graph, old, dataset, moved)
                if updated is not None:
                    tables[dataset] = updated
        _write(lake, graph, tables)
        return Stitched(graph, graph.seen, tables)


def open_stitched(lake: TenantLake, graph: Graph) -> Stitched:
    """The copies of a version for which they were made. Raises `FileNotFoundError`."""
    tables = {}
    for dataset, entry in json.loads(_note(lake, graph.version).read_text()).items():
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(entry["schema"])))
        files = tuple(DataFile(*file) for file in entry["files"])
        tables[dataset] = TableVersion(lake.stitched(dataset), graph.version, schema, files)
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
        }
        for dataset, table in tables.items()
    }
    note = _note(lake, graph.version)
    note.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(note, json.dumps(content).encode())


def _find_moved(database: duckdb.DuckDBPyConnection, old: Stitched | None, graph: Graph) -> set[int]:
    """Fills `moved` with the persons retired since the copies were made; gives the buckets that they leave."""
    database.execute("CREATE TABLE moved (bucket INTEGER, ordinal INTEGER, home INTEGER, person INTEGER)")
    if old is None:
        return set()
    paths = sorted(set(graph.paths("members")) - set(old.graph.paths("members")))
    if paths:
        database.execute(
            f"INSERT INTO moved SELECT place, ordinal, home, person FROM {parquet_list(paths, '')}"
            f" WHERE retired > {old.graph.version}"
        )
    return {number for (number,) in database.execute("SELECT DISTINCT bucket FROM moved").fetchall()}


def _updated(
    lake: TenantLake,
    database: duckdb.DuckDBPyConnection,
    scratch: Path,
    graph: Graph,
    old: Stitched | None,
    dataset: str,
    moved: Collection[int],
) -> TableVersion | None:
    source = open_table(lake.dataset(dataset))
    if source is None:
        return None
    current = old.tables.get(dataset) if old is not None else None
    files = current.files if current is not None else ()
    names = sorted(graph.seen[dataset] - (old.seen.get(dataset, frozenset()) if old is not None else frozenset()))
    fresh = [source.folder / name for name in names]
    _find_persons(database, graph, [file.bucket for file in source.files if file.name in set(names)])
    folder = lake.stitched(dataset)
    rewritten = _leaving(database, folder, files, moved) | _crowded(database, files)
    schema = source.schema.append(pa.field(FRAGMENT, pa.int64()))
    added: list[DataFile] = []
    if fresh or rewritten:
        query = _rows(source.schema, fresh, [folder / file.name for file in files if file in rewritten])
        writer = BucketWriter(scratch / f"stitched-{uuid.uuid4().hex}", uuid.uuid4().hex)
        added = writer.write(database.sql(query).to_arrow_reader(1 << 15))
        writer.move(folder, added)
    unchanged = [file for file in files if file not in rewritten]
    return TableVersion(folder, graph.version, schema, (*unchanged, *added))


def _find_persons(database: duckdb.DuckDBPyConnection, graph: Graph, buckets: Sequence[int]) -> None:
    """Fills `belongs` with the person of each fragment of these buckets."""
    paths = graph.paths("nodes", buckets)
    columns = "place INTEGER, ordinal INTEGER, home INTEGER, person INTEGER"
    database.execute(
        "CREATE OR REPLACE TABLE belongs AS SELECT place, ordinal, home, person"
        f" FROM {parquet_list(paths, columns)} WHERE ordinal IS NOT NULL"
    )


def _leaving(
    database: duckdb.DuckDBPyConnection, folder: Path, files: Sequence[DataFile], moved: Collection[int]
) -> set[DataFile]:
    """The files with rows of persons that are retired."""
    leaving = set()
    for file in files:
        if file.bucket in moved:
            rows = parquet_list([folder / file.name], "")
            query = f"SELECT count(*) FROM {rows} old JOIN moved ON {_same_place('moved.bucket', 'moved')}"
            if only_row(database, query)[0]:
                leaving.add(file)
    return leaving


def _crowded(database: duckdb.DuckDBPyConnection, files: Sequence[DataFile]) -> set[DataFile]:
    """All files of the buckets that get another one and have many."""
    targets = {number for (number,) in database.execute("SELECT DISTINCT home FROM belongs").fetchall()}
    by_bucket: dict[int, set[DataFile]] = {}
    for file in files:
        by_bucket.setdefault(file.bucket, set()).add(file)
    return {
        file
        for bucket, bucket_files in by_bucket.items()
        if bucket in targets and len(bucket_files) >= _CROWDED
        for file in bucket_files
    }


def _rows(schema: pa.Schema, fresh: Sequence[Path], rewritten: Sequence[Path]) -> str:
    """SQL for the rows to write, with the person's bucket and ordinal, in the order in which they lie in the files."""
    parts = []
    if fresh:
        parts.append(
            "SELECT belongs.home AS __bucket, belongs.person AS __ordinal, old.* EXCLUDE (__bucket, __ordinal),"
            f" (old.__bucket::BIGINT << 32) | old.__ordinal AS {FRAGMENT}"
            f" FROM {parquet_list(fresh, '')} old JOIN belongs ON {_same_place('belongs.place', 'belongs')}"
        )
    if rewritten:
        parts.append(
            "SELECT coalesce(moved.home, old.__bucket) AS __bucket, coalesce(moved.person, old.__ordinal) AS __ordinal,"
            f" old.* EXCLUDE (__bucket, __ordinal) FROM {parquet_list(rewritten, '')} old"
            f" LEFT JOIN moved ON {_same_place('moved.bucket', 'moved')}"
        )
    if TIMESTAMP in schema.names and "__row" in schema.names:
        order = f"{TIMESTAMP}, {event_id_sql(_has_ids(fresh, rewritten))}"
    else:
        order = f"{FRAGMENT}, __version"
    return f"SELECT * FROM ({' UNION ALL BY NAME '.join(parts)}) ORDER BY __bucket, __ordinal, {order}"


def _same_place(bucket: str, table: str) -> str:
    """Every name with its table: fields of the data may be called as our columns are."""
    return f"{bucket} = old.__bucket AND {table}.ordinal = old.__ordinal"


def _has_ids(*files: Sequence[Path]) -> bool:
    return any(EVENT_ID in pq.read_schema(path).names for paths in files for path in paths)
