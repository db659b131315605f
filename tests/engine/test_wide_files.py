"""Files with more columns than one query should hold: their columns are read, checked and stored some at a time."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import try_out
from app.engine.ingest.declared import declare
from app.engine.ingest.formats import InputFile
from app.engine.ingest.formats.columns import MOST_COLUMNS
from app.engine.ingest.rows import DatasetShape, user_fields
from app.engine.store.delta import open_table
from app.errors import Refusal
from app.json_values import JsonObject
from app.pql.schema import ObjectType
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

_OF_A_LOAD = ("__batch", "__version", "__ingested", "__time")
_SCHEMA: JsonObject = {
    "type": "object",
    "required": ["n2"],
    "properties": {
        "n0": {"type": "integer"},
        "n1": {"type": "string", "maxLength": 5},
        "at": {"type": "number", "format": "epoch"},
        "id": {"type": "string", "minLength": 2},
    },
}
_ROWS: list[dict[str, Any]] = [
    {
        "id": f"p{n % 7}",
        "timestamp": f"2026-01-{1 + n:02d}T10:00:00Z",
        "_id": f"e{n % 9}",
        **{f"n{k}": [n + k, f"t{n}", n / 4, n % 2 == 0, f"2026-02-{1 + n % 20:02d}", None][k % 6] for k in range(9)},
        "Email": f"A{n}",
        "email": f"a{n}",
        "at": 1_700_000_000 + n,
    }
    for n in range(12)
]
_ROWS[3]["id"] = ""
_ROWS[5]["n1"] = "much too long"
_ROWS[6]["timestamp"] = "yesterday"
_ROWS[7]["n2"] = None
_ROWS[8]["n6"] = _ROWS[9]["n0"] = "x" * 7


def _as_csv(rows: list[dict[str, Any]], damage: str = "") -> bytes:
    lines = [",".join(rows[0])]
    lines += [",".join("" if value is None else str(value).lower() for value in row.values()) for row in rows]
    return ("\n".join(lines) + damage).encode()


def _as_parquet(rows: list[dict[str, Any]]) -> bytes:
    texts = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
    typed = [{**text, "n2": row["n2"]} for text, row in zip(texts, rows, strict=True)]
    raw = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(typed), raw)
    return raw.getvalue()


_FILES = {
    "csv": ("CSV", _as_csv(_ROWS)),
    "damaged csv": ("CSV", _as_csv(_ROWS, '\np9,"a" b",1\n"p8')),
    "ndjson": ("NDJSON", "\n".join(map(json.dumps, _ROWS)).encode()),
    "parquet": ("PARQUET", _as_parquet(_ROWS)),
}


def _stored(sandbox: Sandbox, dataset: str) -> list[dict[str, Any]]:
    table = open_table(sandbox.lake.dataset(dataset))
    assert table is not None
    rows = [row for path in table.paths() for row in pq.ParquetFile(path).read().to_pylist()]
    rows = [{name: value for name, value in row.items() if name not in _OF_A_LOAD} for row in rows]
    return sorted(rows, key=str)


@pytest.mark.parametrize(
    ("is_declared", "shape"), [(False, PEOPLE), (True, EVENTS)], ids=["guessed records", "declared events"]
)
@pytest.mark.parametrize("name", _FILES)
def test_columns_apart_are_loaded_as_columns_together(
    tmp_path: Path, name: str, is_declared: bool, shape: DatasetShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox, (format, content) = Sandbox(tmp_path), _FILES[name]
    file = tmp_path / "tried"
    file.write_bytes(content)
    results = []
    for dataset in ("together", "apart"):
        if dataset == "apart":
            for limit, columns in (("staging.TOGETHER", 2), ("formats.csv_texts._IN_A_TABLE", 3)):
                monkeypatch.setattr(f"app.engine.ingest.{limit}", columns)
            monkeypatch.setattr("app.engine.ingest.formats.ndjson_file._TOGETHER", 4)
            monkeypatch.setattr("app.engine.ingest.formats.csv_texts._IN_A_QUERY", 2)
        if is_declared:
            declare(sandbox.lake, dataset, shape, _SCHEMA)
        tried = try_out(sandbox.lake, dataset, shape, InputFile(file, format))  # type: ignore[arg-type]
        batch = sandbox.take(dataset, shape, content, format)
        again = sandbox.take(dataset, shape, content, format)
        counts = [(each.row_count, each.rejected_rows, each.duplicate_rows, each.warnings) for each in (batch, again)]
        results.append((tried, counts, {row.row for row in batch.rejected}, _stored(sandbox, dataset)))
    assert results[0] == results[1]
    rows, rejected, duplicates, _ = results[0][1][0]
    assert rows + rejected + duplicates == len(_ROWS) + (2 if name == "damaged csv" else 0)
    assert (rows, rejected) != (0, 0)


def test_the_most_columns_within_the_memory_limit(tmp_path: Path) -> None:
    """The sandbox's limit is 500 MB, half of the default: a single copy of a chunk of all columns would need 320."""
    sandbox = Sandbox(tmp_path)
    names = [f"c{n}" for n in range(MOST_COLUMNS - 1)]
    rows = [[f"t{n}" if n % 2 else str(n + row) for n in range(len(names))] for row in range(2)]
    text = "\n".join([",".join(["id", *names]), *(",".join([f"p{n}", *row]) for n, row in enumerate(rows)), "p9,1"])
    batch = sandbox.csv("wide", PEOPLE, text)
    assert (batch.row_count, batch.rejected_rows) == (2, 1)
    expected = [{f"c{n}": row[n] if n % 2 else int(row[n]) for n in range(len(names))} for row in rows]
    stored = {row["id"]: {name: row[name] for name in names} for row in _stored(sandbox, "wide")}
    assert stored == {f"p{n}": row for n, row in enumerate(expected)}
    with pytest.raises(Refusal, match="would have 10,001 columns: at most 10,000"):
        sandbox.csv("wide", PEOPLE, "id,other\np0,1")


def test_more_columns_than_the_most_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="the file has 10,001 columns: at most 10,000"):
        Sandbox(tmp_path).csv("wide", PEOPLE, ",".join(["id", *(f"c{n}" for n in range(MOST_COLUMNS))]) + "\n")


@pytest.mark.parametrize("format", ["CSV", "NDJSON"])
def test_what_is_stored_is_looked_at_once_for_all_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    """Whole numbers, then fractions: each column asks whether it holds integers that a double would round."""
    opened, looked = list[Path](), list[pa.Schema]()

    def read(path: Path, metadata: Callable[[Path], pq.FileMetaData] = pq.read_metadata) -> pq.FileMetaData:
        opened.append(path)
        return metadata(path)

    def fields(schema: pa.Schema) -> ObjectType:
        looked.append(schema)
        return user_fields(schema)

    monkeypatch.setattr("app.engine.ingest.neighbours.pq.read_metadata", read)
    monkeypatch.setattr("app.engine.ingest.widening.user_fields", fields)
    sandbox = Sandbox(tmp_path)
    names = [f"n{n}" for n in range(12)]
    whole, fractions = (
        {"id": "p", **dict.fromkeys(names, 7), "n0": 2**53 + 1},
        {"id": "q", **dict.fromkeys(names, 0.5), "n0": 1},
    )
    for row in (whole, fractions):
        text = json.dumps(row) if format == "NDJSON" else f"{','.join(row)}\n{','.join(map(str, row.values()))}\n"
        sandbox.take("d", PEOPLE, text.encode(), format)
    table = open_table(sandbox.lake.dataset("d"))
    assert table is not None
    types = {field.name: str(field.type) for field in table.schema if field.name in names}
    assert types == {"n0": "int64", **dict.fromkeys(names[1:], "double")}
    assert len(opened) == len(set(opened)) == 1
    assert len(looked) == 1
