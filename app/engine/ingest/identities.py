"""Assigns each person a permanent bucket and ordinal by primary identity; knows no attributes and no events."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import CommitFailedError

from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.checksums import FileLost, whole
from app.engine.store.delta import BUCKET, DataFile, TableVersion, commit, open_table
from app.engine.store.lake import TenantLake, only_row, text_literal
from app.engine.store.layout import Layout, first_layout, hash_sql
from app.engine.store.leases import LeaseLost
from app.errors import LakeAway

SCHEMA = pa.schema(
    [(BUCKET, pa.int32()), ("ordinal", pa.int32()), ("namespace", pa.string()), ("id", pa.string())],
)
_GROWTH = 4
_COLUMNS = "__bucket INTEGER, ordinal INTEGER, namespace VARCHAR, id VARCHAR"
_PLACES = "places"
"""The id of the transactions that assign places: of two that start from one version only one commits."""


def assign(
    lake: TenantLake,
    database: duckdb.DuckDBPyConnection,
    scratch: Path,
    namespace: str,
    check: Callable[[], None] | None = None,
) -> int:
    """Assigns places to the ids of `senders(__sender, __first)`: fills `people(__sender, __bucket, __ordinal,
    __fresh)`.

    Returns the number of new people. New identities are committed before any of their data; an identity without data is
    harmless, since only people with a record or an event are profiles. `check` may raise to abort, until that commit.
    """
    with lake.lock("identities", check):
        hashed = hash_sql(f"{text_literal(namespace + ':')} || __sender")
        database.execute(f"CREATE TABLE placed AS SELECT *, {hashed} AS __hash FROM senders")
        current, layout = open_table(lake.identities), lake.layout()
        if layout is not None and current is not None:
            layout.require(file.bucket for file in current.files)
        _match(database, current, layout, namespace)
        new = int(only_row(database, "SELECT count(*) FROM matched WHERE ordinal IS NULL")[0])
        grown = _with_room(lake, current, layout, new)
        if grown != layout:
            lake.change_layout(layout, grown)
        _place(database, current, grown)
        if check is not None:
            check()
        if new:
            _append(lake, database, scratch, current, namespace)
        return new


def _match(
    database: duckdb.DuckDBPyConnection, current: TableVersion | None, layout: Layout | None, namespace: str
) -> None:
    """Fills `matched`: `placed` with the bucket and ordinal of known people."""
    touched = {
        number
        for generation in (layout.generations if layout is not None else ())
        for (number,) in database.execute(f"SELECT DISTINCT {generation.bucket_sql('__hash')} FROM placed").fetchall()
    }
    database.execute(
        f"CREATE TABLE matched AS SELECT placed.*, known.__bucket, known.ordinal FROM placed"
        f" LEFT JOIN {rows_of(current, touched)} known"
        f" ON known.id = placed.__sender AND known.namespace = {text_literal(namespace)}"
    )


def _with_room(lake: TenantLake, current: TableVersion | None, layout: Layout | None, new: int) -> Layout:
    """The layout with room for new people."""
    if layout is None:
        return first_layout(new, lake.lake.people_in_a_bucket)
    newest = layout.generations[-1]
    present = sum(file.rows for file in current.files if file.bucket in newest) if current is not None else 0
    return layout.grown(present, new, lake.lake.people_in_a_bucket) if new else layout


def _place(database: duckdb.DuckDBPyConnection, current: TableVersion | None, layout: Layout) -> None:
    """Fills `people` from `matched`: new people get the next ordinals in a bucket of the newest generation."""
    place = layout.generations[-1].bucket_sql("__hash")
    database.execute(
        f"CREATE TABLE fresh AS SELECT __sender, __first, {place} AS __bucket FROM matched WHERE ordinal IS NULL"
    )
    receiving = [number for (number,) in database.execute("SELECT DISTINCT __bucket FROM fresh").fetchall()]
    database.execute(
        f"""
        CREATE TABLE people AS
        WITH next AS (
            SELECT __bucket, max(ordinal) + 1 AS ordinal FROM {rows_of(current, receiving)} GROUP BY __bucket
        )
        SELECT __sender, __bucket, ordinal AS __ordinal, false AS __fresh FROM matched WHERE ordinal IS NOT NULL
        UNION ALL
        SELECT __sender, __bucket,
            (coalesce(next.ordinal, 0) - 1
             + row_number() OVER (PARTITION BY __bucket ORDER BY __first))::INTEGER,
            true
        FROM fresh LEFT JOIN next USING (__bucket)
        """
    )


def find(lake: TenantLake, namespace: str, id: str) -> tuple[int, int] | None:
    """The bucket and ordinal of the person with this primary identity; None if it is unknown."""
    # In this order, so that the layout has every bucket of the table.
    current, layout = open_table(lake.identities), lake.layout()
    if layout is None or current is None:
        return None
    for generation in layout.generations:
        bucket = generation.bucket_of(f"{namespace}:{id}")
        for path in current.paths(bucket):
            table = _read(path)
            rows = table.filter(pc.and_(pc.equal(table["id"], id), pc.equal(table["namespace"], namespace)))
            if rows.num_rows:
                return bucket, int(rows["ordinal"][0].as_py())
    return None


def primary_identities(current: TableVersion | None, bucket: int) -> pa.Table:
    """The identities of one bucket: ordinal, namespace, id, sorted by ordinal (dense, from 0)."""
    paths = current.paths(bucket) if current is not None else []
    schema = pa.schema([field for field in SCHEMA if field.name != BUCKET])
    if not paths:
        return schema.empty_table()
    return pa.concat_tables([_read(path) for path in paths]).sort_by("ordinal").combine_chunks()


def _read(path: Path) -> pa.Table:
    """Raises `FileLost`: a damaged id would belong to another person."""
    try:
        return pq.ParquetFile(whole(path)).read()
    except LakeAway:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FileLost(path) from error


def rows_of(current: TableVersion | None, buckets: Iterable[int]) -> str:
    """SQL for the identities of these buckets."""
    wanted = set(buckets)
    paths = [current.folder / file.name for file in current.files if file.bucket in wanted] if current else []
    return parquet_list(paths, _COLUMNS)


def _append(
    lake: TenantLake, database: duckdb.DuckDBPyConnection, scratch: Path, current: TableVersion | None, namespace: str
) -> None:
    """Commits the new people, in one file for each bucket with those of its small files."""
    fresh = dict(database.execute("SELECT __bucket, count(*) FROM people WHERE __fresh GROUP BY __bucket").fetchall())
    old = [] if current is None else _merged(current.files, fresh)
    earlier = parquet_list([lake.identities / file.name for file in old], _COLUMNS)
    reader = database.sql(
        f"SELECT __bucket, __ordinal AS ordinal, {text_literal(namespace)} AS namespace, __sender AS id"
        " FROM people WHERE __fresh"
        f" UNION ALL SELECT __bucket, ordinal, namespace, id FROM {earlier} ORDER BY 1, 2"
    ).to_arrow_reader(65_536)
    writer = BucketWriter(scratch / "identities", uuid.uuid4().hex)
    files = writer.write(reader)
    writer.move(lake.identities, files)
    try:
        # The lock excludes other processes; this also excludes those that have lost it without noticing.
        commit(lake.identities, current, SCHEMA, files, old, _PLACES, alone=True)
    except CommitFailedError as error:
        raise LeaseLost from error


def _merged(files: Iterable[DataFile], fresh: Mapping[int, int]) -> list[DataFile]:
    """The files that are rewritten together with new people (their number by bucket): those that have at most `_GROWTH`
    times the people of all smaller ones, so that a bucket of n people has few files (a logarithm of n), and a row is
    rewritten as rarely.

    >>> files = [DataFile("a", 1, 1_000), DataFile("b", 1, 9), DataFile("c", 1, 40), DataFile("d", 2, 1)]
    >>> [file.name for file in _merged(files, {1: 3})]
    ['b', 'c']
    """
    people, merged = dict(fresh), []
    for file in sorted(files, key=lambda file: file.rows):
        if file.bucket in people and file.rows <= _GROWTH * people[file.bucket]:
            people[file.bucket] += file.rows
            merged.append(file)
    return merged


__all__ = ["SCHEMA", "DataFile", "assign", "find", "primary_identities", "rows_of"]
