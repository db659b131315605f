"""Who is who: gives each person a bucket and an ordinal for good; knows no attributes and no events."""

import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.engine.store.bucket_files import BucketWriter, parquet_list
from app.engine.store.checksums import FileLost, whole
from app.engine.store.delta import BUCKET, DataFile, TableVersion, commit, open_table
from app.engine.store.lake import TenantLake, bucket_of, bucket_sql, only_row, text_literal

SCHEMA = pa.schema(
    [(BUCKET, pa.int32()), ("ordinal", pa.int32()), ("namespace", pa.string()), ("id", pa.string())],
)
_TOO_MANY_FILES = 16


def assign(
    lake: TenantLake,
    database: duckdb.DuckDBPyConnection,
    scratch: Path,
    namespace: str,
    check: Callable[[], None] | None = None,
) -> int:
    """Gives the ids of `senders(__sender, __first)` places: fills `people(__sender, __bucket, __ordinal, __fresh)`.

    Returns how many are new. New identities are committed before any of their data: one without data is harmless,
    since only people with a record or an event are profiles. `check` may raise to give up, until that commit.
    """
    with lake.lock("identities", check):
        bits = lake.choose_bucket_bits(only_row(database, "SELECT count(*) FROM senders")[0])
        place = bucket_sql(f"{text_literal(namespace + ':')} || __sender", bits)
        database.execute(f"CREATE TABLE placed AS SELECT *, {place} AS __bucket FROM senders")
        touched = [number for (number,) in database.execute("SELECT DISTINCT __bucket FROM placed").fetchall()]
        current = open_table(lake.identities)
        database.execute(
            f"""
            CREATE TABLE people AS
            WITH known AS (SELECT * FROM {rows_of(current, touched)}),
            next AS (SELECT __bucket, max(ordinal) + 1 AS ordinal FROM known GROUP BY __bucket),
            matched AS (
                SELECT placed.*, known.ordinal FROM placed
                LEFT JOIN known ON known.id = placed.__sender AND known.namespace = {text_literal(namespace)}
            )
            SELECT __sender, __bucket, ordinal AS __ordinal, false AS __fresh FROM matched WHERE ordinal IS NOT NULL
            UNION ALL
            SELECT __sender, __bucket,
                (coalesce(next.ordinal, 0) - 1
                 + row_number() OVER (PARTITION BY __bucket ORDER BY __first))::INTEGER,
                true
            FROM matched LEFT JOIN next USING (__bucket) WHERE matched.ordinal IS NULL
            """
        )
        new = int(only_row(database, "SELECT count(*) FROM people WHERE __fresh")[0])
        if check is not None:
            check()
        if new:
            _append(lake, database, scratch, current, namespace)
        return new


def find(lake: TenantLake, namespace: str, id: str) -> tuple[int, int] | None:
    """The bucket and ordinal of the person with this primary identity; None for somebody never heard of."""
    bits = lake.bucket_bits()
    current = open_table(lake.identities)
    if bits is None or current is None:
        return None
    bucket = bucket_of(f"{namespace}:{id}", bits)
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
    """Raises `FileLost`: a damaged name would be somebody else's."""
    try:
        return pq.ParquetFile(whole(path)).read()
    except (OSError, pa.ArrowException) as error:
        raise FileLost(path) from error


def rows_of(current: TableVersion | None, buckets: Iterable[int]) -> str:
    """SQL for the identities of these buckets."""
    wanted = set(buckets)
    paths = [current.folder / file.name for file in current.files if file.bucket in wanted] if current else []
    return parquet_list(paths, "__bucket INTEGER, ordinal INTEGER, namespace VARCHAR, id VARCHAR")


def _append(
    lake: TenantLake, database: duckdb.DuckDBPyConnection, scratch: Path, current: TableVersion | None, namespace: str
) -> None:
    """Commits the fresh people; a bucket with many small files gets one instead of them."""
    buckets = {
        number for (number,) in database.execute("SELECT DISTINCT __bucket FROM people WHERE __fresh").fetchall()
    }
    crowded = _crowded(current, buckets)
    old = [file for file in current.files if file.bucket in crowded] if current else []
    reader = database.sql(
        f"SELECT __bucket, __ordinal AS ordinal, {text_literal(namespace)} AS namespace, __sender AS id"
        " FROM people WHERE __fresh"
        f" UNION ALL SELECT __bucket, ordinal, namespace, id FROM {rows_of(current, crowded)} ORDER BY 1, 2"
    ).to_arrow_reader(65_536)
    writer = BucketWriter(scratch / "identities", uuid.uuid4().hex)
    files = writer.write(reader)
    writer.move(lake.identities, files)
    commit(lake.identities, current, SCHEMA, files, old)


def _crowded(current: TableVersion | None, buckets: set[int]) -> set[int]:
    if current is None:
        return set()
    counts: dict[int, int] = {}
    for file in current.files:
        counts[file.bucket] = counts.get(file.bucket, 0) + 1
    return {bucket for bucket in buckets if counts.get(bucket, 0) >= _TOO_MANY_FILES}


__all__ = ["SCHEMA", "DataFile", "assign", "find", "primary_identities", "rows_of"]
