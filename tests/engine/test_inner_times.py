"""Times declared as numbers since 1970 inside objects, lists and maps, in every format that has such values."""

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.declared import dataset_schema, declare
from app.engine.ingest.rows import Ingested
from app.engine.store.delta import open_table
from tests.support.sandbox import PEOPLE, Sandbox

SECONDS: Any = {"type": "integer", "format": "epoch"}
MILLIS: Any = {"type": "integer", "format": "epoch_ms"}
FRACTIONS: Any = {"type": "number", "format": "epoch"}
DEEP: Any = {"properties": {"t": FRACTIONS}}
STEPS: Any = {"type": "array", "items": {"properties": {"at": MILLIS}}}
SCHEMA: Any = {
    "properties": {
        "o": {"properties": {"at": SECONDS, "At": MILLIS, "n": {"type": "integer"}, "deep": DEEP}},
        "list": {"type": "array", "items": MILLIS},
        "map": {"type": "object", "additionalProperties": SECONDS},
        "orders": {
            "type": "array",
            "items": {
                "properties": {
                    "sku": {"type": "string"},
                    "paid": SECONDS,
                    "steps": {"type": "object", "additionalProperties": STEPS},
                }
            },
        },
    }
}
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
AT, AT_MS = 1767225600, 1767225600000
GOOD: list[Any] = [
    {
        "id": "0",
        "o": {"at": AT, "At": AT_MS + 5, "n": 7, "deep": {"t": AT + 0.25}},
        "list": [AT_MS, None, AT_MS + 1],
        "map": {"a": AT, "b c": AT + 1},
        "orders": [{"sku": "x", "paid": AT, "steps": {"s": [{"at": AT_MS}, {"at": None}]}}, {"sku": "y"}],
        "new": 1.5,
    },
    {"id": "1", "o": {"n": 8}, "list": [], "map": {}, "orders": []},
    {"id": "2", "o": None},
]
FORMATS = ("NDJSON", "ARRAY", "PARQUET", "TEXTS")


def take(sandbox: Sandbox, format: str, rows: list[Any]) -> Ingested:
    """The rows in the format; TEXTS are NDJSON with digits in quotes."""
    if format == "PARQUET":
        path = sandbox.folder / "rows.parquet"
        pq.write_table(pa.Table.from_pylist(rows, _arrow(rows)), path)
        return sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")
    if format == "ARRAY":
        return sandbox.take("p", PEOPLE, json.dumps(rows).encode(), "NDJSON")
    if format == "TEXTS":
        rows = [_quoted(row) for row in rows]
    return sandbox.rows("p", PEOPLE, rows)


def _arrow(rows: list[Any]) -> pa.Schema:
    """Maps as maps, all else as pyarrow infers it."""
    inferred = pa.Table.from_pylist(rows).schema
    maps = {"map": pa.map_(pa.string(), pa.int64())}
    steps = pa.map_(pa.string(), pa.list_(pa.struct([("at", pa.int64())])))
    maps["orders"] = pa.list_(pa.struct([("sku", pa.string()), ("paid", pa.int64()), ("steps", steps)]))
    return pa.schema([pa.field(field.name, maps.get(field.name, field.type)) for field in inferred])


def _quoted(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            return {key: _quoted(inner, key) for key, inner in value.items()}
        case list():
            return [_quoted(inner, name) for inner in value]
        case int() | float() if not isinstance(value, bool) and name not in ("n", "new"):
            return str(value)
        case _:
            return value


def stored(sandbox: Sandbox) -> list[list[Any]]:
    """The columns of the schema, by person; maps are lists of pairs."""
    table = open_table(sandbox.lake.dataset("p"))
    assert table is not None
    rows = [row for file in table.files for row in pq.read_table(table.folder / file.name).to_pylist()]
    return [[row.get(name) for name in SCHEMA["properties"]] for row in sorted(rows, key=lambda row: str(row["id"]))]


@pytest.mark.parametrize("format", FORMATS)
def test_places_inside_hold_times(sandbox: Sandbox, format: str) -> None:
    declare(sandbox.lake, "p", PEOPLE, SCHEMA)
    done = take(sandbox, format, GOOD)
    assert (done.row_count, done.rejected_rows) == (3, 0), done.rejected
    first, second, third = stored(sandbox)
    milli = timedelta(milliseconds=1)
    quarter = NEW_YEAR + timedelta(seconds=0.25)
    assert first[0] == {"at": NEW_YEAR, "At~case1": NEW_YEAR + 5 * milli, "n": 7, "deep": {"t": quarter}}
    assert first[1] == [NEW_YEAR, None, NEW_YEAR + milli]
    assert first[2] == [("a", NEW_YEAR), ("b c", NEW_YEAR + timedelta(seconds=1))]
    steps = [("s", [{"at": NEW_YEAR}, {"at": None}])]
    assert first[3] == [{"sku": "x", "paid": NEW_YEAR, "steps": steps}, {"sku": "y", "paid": None, "steps": None}]
    assert second == [{"at": None, "At~case1": None, "n": 8, "deep": None}, [], [], []]
    assert third == [None, None, None, None]
    written: Any = dataset_schema(sandbox.lake, "p")["properties"]
    assert written["orders"]["items"]["properties"]["paid"] == {"type": "string", "format": "date-time"}


NO_SECONDS = "is not a number of seconds since 1970, as declared (epoch)"
BEYOND = "since 1970 are outside the years 1 to 9999"


@pytest.mark.parametrize("format", ["NDJSON", "TEXTS", "PARQUET"])
@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"o": {"at": 1.5}}, 'o.at: "1.5" has fractions of a second'),
        ({"o": {"at": AT_MS}}, f'o.at: "{AT_MS}" seconds {BEYOND}: if it counts milliseconds, declare'),
        ({"list": [AT_MS, 10**18]}, f'list: "{10**18}" milliseconds {BEYOND}'),
        ({"orders": [{"sku": "x", "paid": AT}, {"paid": AT_MS}]}, f'orders.paid: "{AT_MS}" seconds {BEYOND}'),
        ({"o": {"at": "soon"}}, f'o.at: "soon" {NO_SECONDS}'),
        ({"o": {"at": "2026-01-01"}}, f'o.at: "2026-01-01" {NO_SECONDS}'),
        ({"o": {"at": True}}, f'o.at: "true" {NO_SECONDS}'),
    ],
)
def test_other_values_inside_cost_their_row(sandbox: Sandbox, format: str, row: Any, message: str) -> None:
    declare(sandbox.lake, "p", PEOPLE, SCHEMA)
    name = next(iter(row))
    rows: list[Any] = [{"id": "1", **row}]
    if format != "PARQUET":  # in which a column has one type
        rows.insert(0, {"id": "0", name: GOOD[0][name]})
    else:
        sandbox.rows("p", PEOPLE, [{"id": "0", name: GOOD[0][name]}])
        rows.append({"id": "2"})
    path = sandbox.folder / "rows.parquet"
    if format == "PARQUET":
        pq.write_table(pa.Table.from_pylist(rows), path)
        done = sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")
    else:
        done = take(sandbox, format, rows)
    assert done.rejected_rows == 1
    assert done.rejected[0].message.startswith(message), done.rejected
    assert len(stored(sandbox)) == (2 if format == "PARQUET" else 1)


def test_listed_values_inside_count_as_their_place_does(sandbox: Sandbox) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"o": {"properties": {"at": {**SECONDS, "enum": [AT]}}}}})
    done = sandbox.rows("p", PEOPLE, [{"id": "0", "o": {"at": AT}}, {"id": "1", "o": {"at": AT + 1}}])
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [2])
    assert "is not one of 2026-01-01T00:00:00Z" in done.rejected[0].message


def test_a_place_that_was_a_day_may_count_from_1970(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "0", "o": {"at": "2026-01-01"}}])
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"o": {"properties": {"at": SECONDS}}}})
    done = sandbox.rows("p", PEOPLE, [{"id": "1", "o": {"at": AT + 1, "more": [1]}}])
    assert (done.row_count, done.rejected) == (1, ())
    written: Any = dataset_schema(sandbox.lake, "p")["properties"]
    assert written["o"]["properties"]["at"] == {"type": "string", "format": "date-time"}


def test_milliseconds_inside_that_are_seconds_are_reported(sandbox: Sandbox) -> None:
    declare(sandbox.lake, "p", PEOPLE, SCHEMA)
    done = sandbox.rows("p", PEOPLE, [{"id": "0", "list": [AT]}, {"id": "1", "list": [AT, AT + 9], "map": {"a": AT}}])
    assert [warning.partition(" the first")[0] for warning in done.warnings] == ['all times of "list" are in']


@pytest.mark.parametrize("name", ["v", "o", "m", "t", "k", "e", "x0", "j0", "u", "entry", "value", "item", "identity"])
def test_columns_do_not_hide_what_is_inside_others(sandbox: Sandbox, name: str) -> None:
    inner: Any = {"properties": {"at": MILLIS, "n": {"type": "integer", "minimum": 1}, "s": {"type": "string"}}}
    inner["required"] = ["s"]
    maps: Any = {"type": "object", "additionalProperties": {"type": "array", "items": inner}}
    schema: Any = {"properties": {name: {"type": "string"}, "a": {"type": "array", "items": inner}, "b": maps}}
    declare(sandbox.lake, "p", PEOPLE, schema)
    one = {"at": AT_MS, "n": 1, "s": "x"}
    rows = [
        {"id": "0", name: "text", "a": [one], "b": {"k": [one]}},
        {"id": "1", name: "text", "a": [{"at": AT_MS, "n": 0, "s": "x"}], "b": {"k": [one]}},
        {"id": "2", name: "text", "a": [one], "b": {"k": [{"at": AT_MS, "n": 1, "s": None}]}},
    ]
    path, item = (
        sandbox.folder / "rows.parquet",
        pa.list_(pa.struct({"at": pa.int64(), "n": pa.int32(), "s": pa.string()})),
    )
    types = pa.schema({"id": pa.string(), name: pa.string(), "a": item, "b": pa.map_(pa.string(), item)})
    pq.write_table(pa.Table.from_pylist(rows, types), path)
    for done in (sandbox.rows("p", PEOPLE, rows), sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")):
        messages = ['a.n: "0" is below 1', "b.s: a value is required"]
        assert (done.row_count, [row.message for row in done.rejected]) == (1, messages)


@pytest.mark.parametrize("name", ["x0", "x1", "v", "item"])
def test_columns_do_not_hide_what_parquet_values_are_checked_for(sandbox: Sandbox, name: str) -> None:
    inner = pa.struct({"s": pa.string(), "d": pa.list_(pa.float64())})
    types = pa.schema({"id": pa.string(), name: pa.struct({"s": pa.string()}), "a": pa.list_(inner)})
    rows = [
        {"id": str(at), name: {"s": "x"}, "a": [{"s": "y", "d": [value]}]} for at, value in enumerate([1.5, math.inf])
    ]
    path = sandbox.folder / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(rows, types), path)
    done = sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [2])
