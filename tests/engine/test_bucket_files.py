"""How the files of a bucket store their columns."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.store.bucket_files import BucketWriter
from app.engine.store.delta import BUCKET

DIFFERENCES, DICTIONARY = "DELTA_BINARY_PACKED", "RLE_DICTIONARY"


@pytest.mark.parametrize("rows", [1, 15, 16, 5_000])
def test_times_and_row_numbers_as_differences_and_other_values_once(tmp_path: Path, rows: int) -> None:
    numbers = [7 * at % 1_000 for at in range(rows)]
    batch = pa.record_batch(
        {
            BUCKET: pa.array([3] * rows, pa.int32()),
            "__row": pa.array([-at * 2**50 for at in range(rows)], pa.int64()),
            "timestamp": pa.array([None, *(at * 2**40 for at in range(1, rows))], pa.timestamp("us", tz="UTC")),
            "number": pa.array(numbers, pa.int64()),
            "items": pa.array([[{"SKU": f"s{number % 7}"}] for number in numbers]),
            "labels": pa.array([[("a", float(number))] for number in numbers], pa.map_(pa.string(), pa.float64())),
        }
    )
    (file,) = BucketWriter(tmp_path, "batch").write([batch])
    (path,) = tmp_path.rglob("*.parquet")
    assert (file.bucket, file.rows) == (3, rows)
    assert pq.ParquetFile(path).read().to_pylist() == batch.drop_columns([BUCKET]).to_pylist()
    group = pq.read_metadata(path).row_group(0)
    columns = [group.column(at) for at in range(group.num_columns)]
    stored = {column.path_in_schema: {DIFFERENCES, DICTIONARY} & set(column.encodings) for column in columns}
    distinct = {"__row", "timestamp"}
    once = {"number", "items.list.element.SKU", "labels.key_value.key", "labels.key_value.value"}
    few = rows < 16
    assert stored == {
        **{name: set() if few else {DIFFERENCES} for name in distinct},
        **{name: set() if few else {DICTIONARY} for name in once},
    }
