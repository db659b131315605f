"""Parquet files of one bucket each: written from sorted rows, and listed in SQL; knows no people."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.store.checksums import seal
from app.engine.store.delta import BUCKET, DataFile, bucket_folder
from app.engine.store.files import publish, readable
from app.engine.store.lake import text_literal
from app.engine.store.parquet_columns import leaves

ROW_GROUP = 1 << 16
_FEW_ROWS = 16
_GROUP_BYTES = 64 << 20
"""Size from which the rows of many or large columns are a row group."""


class BucketWriter:
    """Writes rows sorted by bucket into one file per bucket. While a row group is encoded by a thread, the next one is
    collected, so that it holds three at most, of 64 MB each unless a single batch has more.

    File names start with `prefix` and contain the checksum.
    """

    def __init__(self, folder: Path, prefix: str, row_group: int = ROW_GROUP) -> None:
        self.folder = folder
        self.prefix = prefix
        self.row_group = row_group
        self._files: list[DataFile] = []
        self._file: _BucketFile | None = None
        self._waiting: list[pa.RecordBatch] = []

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
        """Writes the files into the writer's folder; the bucket's column is stored only in their names."""
        with ThreadPoolExecutor(1, thread_name_prefix="writing") as thread:
            under_way: Future[None] | None = None
            for file, rows in self._groups(batches):
                if under_way is not None:
                    under_way.result()
                under_way = thread.submit(self._append, file, rows)
            if under_way is not None:
                under_way.result()
        self._close()
        return self._files

    def move(self, target: Path, files: Sequence[DataFile]) -> None:
        """Moves finished files into the folder of their table."""
        publish([(self.folder / _written(file.bucket), target / file.name) for file in files])

    def _groups(self, batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[int, pa.Table]]:
        """The row groups with their buckets."""
        bucket, size = -1, 0
        for batch in batches:
            numbers = batch.column(BUCKET).to_numpy()
            rest = batch.drop_columns([BUCKET])
            edges = np.flatnonzero(np.diff(numbers)) + 1
            for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(numbers)], strict=True):
                if end == start:
                    continue
                if self._waiting and numbers[start] != bucket:
                    yield bucket, self._taken()
                    size = 0
                bucket = int(numbers[start])
                self._waiting.append(rest.slice(start, end - start))
                size += self._waiting[-1].nbytes
                if size >= _GROUP_BYTES or sum(rows.num_rows for rows in self._waiting) >= self.row_group:
                    yield bucket, self._taken()
                    size = 0
        if self._waiting:
            yield bucket, self._taken()

    def _taken(self) -> pa.Table:
        rows, self._waiting = pa.Table.from_batches(self._waiting), []
        return rows

    def _append(self, bucket: int, rows: pa.Table) -> None:
        if self._file is None or self._file.bucket != bucket:
            self._close()
            # No folder for each bucket: for a small batch, creating and removing them would take longer than the rest.
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = _BucketFile(self.folder / _written(bucket), bucket, rows.schema, rows.num_rows)
        self._file.writer.write_table(rows, row_group_size=self.row_group)
        self._file.rows += rows.num_rows

    def _close(self) -> None:
        if self._file is not None:
            self._files.append(self._file.close(self.prefix))
        self._file = None


class _BucketFile:
    """A file that is being written."""

    def __init__(self, path: Path, bucket: int, schema: pa.Schema, rows: int) -> None:
        self.bucket, self.rows, self._path = bucket, 0, path
        if rows < _FEW_ROWS:
            # A dictionary and compression for each of many columns would only add size.
            self.writer = pq.ParquetWriter(path, schema, compression="none", use_dictionary=False, store_schema=False)
            return
        # Nearly every time and row number is different: a dictionary of them is larger than their differences.
        distinct = [field.name for field in schema if _is_distinct(field)]
        self.writer = pq.ParquetWriter(
            path,
            schema,
            compression="zstd",
            use_dictionary=[leaf for leaf in leaves(schema) if leaf not in distinct],
            column_encoding=dict.fromkeys(distinct, "DELTA_BINARY_PACKED"),
            store_schema=False,
        )

    def close(self, prefix: str) -> DataFile:
        self.writer.close()
        return DataFile(f"{bucket_folder(self.bucket)}/{seal(self._path, prefix)}", self.bucket, self.rows)


def _is_distinct(field: pa.Field) -> bool:
    numbers_rows = field.name.startswith("__") and pa.types.is_int64(field.type)
    return bool(numbers_rows or pa.types.is_timestamp(field.type))


def _written(bucket: int) -> str:
    return f"{bucket}.parquet"


def parquet_list(paths: Sequence[Path], columns: str) -> str:
    """SQL for the rows of the files with their bucket; `columns` gives names and types if there are no files."""
    if not paths:
        names = ", ".join(
            f"CAST(NULL AS {column.split(' ', 1)[1]}) AS {column.split(' ', 1)[0]}" for column in columns.split(", ")
        )
        return f"(SELECT {names} WHERE false)"
    names = ", ".join(text_literal(path) for path in readable(paths))
    return (
        f"read_parquet([{names}], hive_partitioning = true, hive_types = {{'{BUCKET}': INTEGER}}, union_by_name = true)"
    )
