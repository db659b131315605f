"""Parquet files of one bucket each: written from sorted rows, and named in SQL; knows no people."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.store.checksums import seal
from app.engine.store.delta import BUCKET, DataFile, bucket_folder
from app.engine.store.lake import text_literal

ROW_GROUP = 1 << 16
_FEW_ROWS = 16


class BucketWriter:
    """Writes rows that come sorted by bucket into one file for each bucket; holds one row group in memory.

    The names begin with `prefix` and tell the files' checksums.
    """

    def __init__(self, folder: Path, prefix: str, row_group: int = ROW_GROUP) -> None:
        self.folder = folder
        self.prefix = prefix
        self.row_group = row_group
        self._files: list[DataFile] = []
        self._writer: pq.ParquetWriter | None = None
        self._path = folder
        self._bucket = -1
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0

    def write(self, batches: Iterable[pa.RecordBatch]) -> list[DataFile]:
        """The files, in the writer's folder; the bucket's column is in their names only."""
        for batch in batches:
            numbers = batch.column(BUCKET).to_numpy()
            rest = batch.drop_columns([BUCKET])
            edges = np.flatnonzero(np.diff(numbers)) + 1
            for start, end in zip([0, *edges.tolist()], [*edges.tolist(), len(numbers)], strict=True):
                if end > start:
                    self._add(int(numbers[start]), rest.slice(start, end - start))
        self._close()
        return self._files

    def move(self, target: Path, files: Sequence[DataFile]) -> None:
        """Renames finished files into the folder of their table (on the same disk)."""
        for file in files:
            place = target / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            (self.folder / file.name).rename(place)

    def _add(self, bucket: int, rows: pa.RecordBatch) -> None:
        if bucket != self._bucket:
            self._close()
            self._bucket = bucket
            name = f"{bucket_folder(bucket)}/{self.prefix}.parquet"
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            self._path = path
        self._waiting.append(rows)
        self._rows += rows.num_rows
        if sum(batch.num_rows for batch in self._waiting) >= self.row_group:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            rows = pa.Table.from_batches(self._waiting)
            if self._writer is None:
                # A few rows would only grow by a dictionary and compression for each of many columns.
                form = "none" if rows.num_rows < _FEW_ROWS else "zstd"
                self._writer = pq.ParquetWriter(
                    self._path, rows.schema, compression=form, use_dictionary=form != "none", store_schema=False
                )
            self._writer.write_table(rows, row_group_size=self.row_group)
        self._waiting = []

    def _close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            folder = self.folder / bucket_folder(self._bucket)
            written = folder / f"{self.prefix}.parquet"
            name = seal(written, self.prefix)
            written.rename(folder / name)
            self._files.append(DataFile(f"{bucket_folder(self._bucket)}/{name}", self._bucket, self._rows))
        self._writer = None
        self._rows = 0


def parquet_list(paths: Sequence[Path], columns: str) -> str:
    """SQL for the rows of the files with their bucket; `columns` names and types them when there is no file."""
    if not paths:
        names = ", ".join(
            f"CAST(NULL AS {column.split(' ', 1)[1]}) AS {column.split(' ', 1)[0]}" for column in columns.split(", ")
        )
        return f"(SELECT {names} WHERE false)"
    names = ", ".join(text_literal(str(path)) for path in paths)
    return (
        f"read_parquet([{names}], hive_partitioning = true, hive_types = {{'{BUCKET}': INTEGER}}, union_by_name = true)"
    )
