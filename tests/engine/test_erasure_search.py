"""The second look of an erasure finds a trace wherever in the files of a sandbox it hides."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.erasure.search import traces
from app.engine.erasure.subject import Subject
from tests.support.sandbox import Sandbox

ANN, BOB = "customer-00017", "customer-00018"
SUBJECT = Subject(("crm", ANN), frozenset({("crm", ANN)}))


def write(path: Path, table: pa.Table, **options: object) -> None:
    pq.write_table(table, path, compression="zstd", store_schema=False, **options)


def used(path: Path) -> None:
    write(path, pa.table({"text": [BOB, f"referred by {ANN}"]}))


def unused(path: Path) -> None:
    write(path, pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), [BOB, ANN])}))


def unused_in_lists(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), pa.array([BOB, ANN]))
    write(path, pa.table({"texts": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), texts)}))


def map_key(path: Path) -> None:
    write(path, pa.table({"map": pa.array([[(ANN, 1)]], pa.map_(pa.string(), pa.int64()))}))


def not_a_dictionary(path: Path) -> None:
    write(path, pa.table({"text": [ANN]}), use_dictionary=False)


def column_name(path: Path) -> None:
    write(path, pa.table({"of": [{ANN: 1}]}))


def note(path: Path) -> None:
    table = pa.table({"n": [1]})
    with pq.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"note": f"without {ANN}"})


def statistics(path: Path) -> None:
    """In the footer alone, as the greatest value of a page that has another by now."""
    pq.write_table(pa.table({"text": [ANN]}), path, compression="none", use_dictionary=False, store_schema=False)
    page, greatest, footer = path.read_bytes().rpartition(ANN.encode())
    path.write_bytes(page.replace(ANN.encode(), BOB.encode()) + greatest + footer)


def delta_statistics(path: Path) -> None:
    stats = {"numRecords": 17, "minValues": {"id": ANN}, "maxValues": {"id": BOB}}
    path.with_suffix(".json").write_text(json.dumps({"add": {"path": "x.parquet", "stats": json.dumps(stats)}}))


def json_key(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps({"by": {ANN: [1]}}))


def bytes_of_a_spill(path: Path) -> None:
    path.with_suffix(".duckdb").write_bytes(b"\x00\xff" + ANN.encode() + b"\x00")


@pytest.mark.parametrize(
    "hide",
    [
        used,
        unused,
        unused_in_lists,
        map_key,
        not_a_dictionary,
        column_name,
        note,
        statistics,
        delta_statistics,
        json_key,
        bytes_of_a_spill,
    ],
)
def test_a_hidden_trace_is_found(sandbox: Sandbox, hide: Callable[[Path], None]) -> None:
    folder = sandbox.lake.dataset("a")
    folder.mkdir(parents=True)
    write(folder / "clean.parquet", pa.table({"text": [BOB], "n": [1]}))
    assert traces(sandbox.lake, SUBJECT, lambda: None) == {}
    hide(folder / "hidden.parquet")
    assert traces(sandbox.lake, SUBJECT, lambda: None) == {"Datasets": 1}


def test_a_number_of_rows_is_no_id(sandbox: Sandbox) -> None:
    folder = sandbox.lake.dataset("a")
    folder.mkdir(parents=True)
    (folder / "log.json").write_text(json.dumps({"add": {"stats": json.dumps({"numRecords": 48211})}}))
    assert traces(sandbox.lake, Subject(("crm", "48211"), frozenset({("crm", "48211")})), lambda: None) == {}
