"""Columns that are declared to count seconds or milliseconds since 1970 are times, in every format."""

import json
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest

from app.engine.ingest.batch import ingest
from app.engine.ingest.declared import dataset_schema, declare
from app.engine.ingest.formats import CsvOptions, InputFile
from app.engine.ingest.rows import Ingested
from app.engine.store.delta import open_table
from app.engine.store.json_schema import declared
from app.engine.store.lake import text_literal
from app.json_values import JsonObject
from tests.engine.test_csv_options import times
from tests.engine.test_declared_rules import take
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

FORMATS = ("CSV", "NDJSON", "ARRAY", "PARQUET")
SECONDS: JsonObject = {"type": "integer", "format": "epoch"}
MILLIS: JsonObject = {"type": "integer", "format": "epoch_ms"}
FRACTIONS: JsonObject = {"type": "number", "format": "epoch"}
BEYOND = "since 1970 are outside the years 1 to 9999"
NO_SECONDS, NO_MILLIS = (f"is not a number of {unit}s since 1970, as declared" for unit in ("second", "millisecond"))
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def load(sandbox: Sandbox, format: str, values: list[Any]) -> Ingested:
    if format == "ARRAY":
        rows = [{"id": str(at), "a": value} for at, value in enumerate(values)]
        return sandbox.take("p", PEOPLE, json.dumps(rows).encode(), "NDJSON")
    return take(sandbox, format, values)


def stored(sandbox: Sandbox) -> list[datetime | None]:
    """The values of the column `a`, by person."""
    table = open_table(sandbox.lake.dataset("p"))
    assert table is not None
    files = ", ".join(text_literal(str(table.folder / file.name)) for file in table.files)
    with duckdb.connect() as database:
        rows = database.execute(f"SELECT a AT TIME ZONE 'UTC' FROM read_parquet([{files}]) ORDER BY id").fetchall()
    return [time and time.replace(tzinfo=UTC) for (time,) in rows]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("schema", "values", "expected", "bad"),
    [
        (SECONDS, [1767225600, None, -1], [NEW_YEAR, None, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)], {}),
        (SECONDS, [1767225600, 1767225600000], [NEW_YEAR], {2: f'a: "1767225600000" seconds {BEYOND}: if it counts'}),
        (MILLIS, [1767225600123], [NEW_YEAR.replace(microsecond=123_000)], {}),
        (MILLIS, [1767225600000, 10**18, -(10**17)], [NEW_YEAR], {2: BEYOND, 3: BEYOND}),
        (MILLIS, [1767225600000.0, 1.5], [NEW_YEAR], {2: 'a: "1.5" has fractions of a millisecond'}),
        (SECONDS, [1767225600.0, 1.5], [NEW_YEAR], {2: 'a: "1.5" has fractions of a second'}),
        (FRACTIONS, [1767225600.25], [NEW_YEAR.replace(microsecond=250_000)], {}),
        (SECONDS, ["1767225600", "soon", "2026-01-01"], [NEW_YEAR], {2: f'a: "soon" {NO_SECONDS}', 3: NO_SECONDS}),
        (MILLIS, ["1767225600000", "9" * 40, "01"], [NEW_YEAR], {2: BEYOND, 3: NO_MILLIS}),
    ],
)
def test_a_declared_column_holds_times(
    sandbox: Sandbox, format: str, schema: JsonObject, values: list[Any], expected: list[Any], bad: dict[int, str]
) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": schema}})
    done = load(sandbox, format, values)
    assert (done.row_count, done.rejected_rows) == (len(expected), len(bad)), done.rejected
    assert [row.row for row in done.rejected] == list(bad)
    assert all(bad[row.row] in row.message for row in done.rejected), done.rejected
    assert stored(sandbox) == expected
    properties: Any = dataset_schema(sandbox.lake, "p")["properties"]
    assert properties["a"] == {"type": "string", "format": "date-time"}


@pytest.mark.parametrize("value", [True, {"at": 1}, [1]])
def test_other_kinds_of_json_are_no_time(sandbox: Sandbox, value: Any) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": MILLIS}})
    done = load(sandbox, "NDJSON", [1767225600000, value])
    assert [NO_MILLIS in row.message for row in done.rejected] == [True]
    assert stored(sandbox) == [NEW_YEAR]


@pytest.mark.parametrize("format", ["CSV", "NDJSON"])
def test_the_time_of_events_may_be_declared(sandbox: Sandbox, format: str) -> None:
    declare(sandbox.lake, "d", EVENTS, {"properties": {"timestamp": MILLIS}})
    rows = {"CSV": "id,timestamp\na,1767225600000\na,x\na,\n", "NDJSON": '{"id": "a", "timestamp": 1767225600000}\n'}
    done = sandbox.take("d", EVENTS, rows[format].encode(), format)
    expected = [f'timestamp: "x" {NO_MILLIS} (epoch_ms)', "timestamp: the time is missing"]
    assert [row.message for row in done.rejected] == (expected if format == "CSV" else [])
    assert times(sandbox, "a") == ["2026-01-01T00:00:00+00:00"]


def test_what_is_said_of_a_file_precedes_the_declaration(sandbox: Sandbox) -> None:
    declare(sandbox.lake, "d", EVENTS, {"properties": {"timestamp": MILLIS}})
    file = sandbox.folder / "seconds"
    file.write_text("id,timestamp\na,1767225600\n")
    ingest(sandbox.lake, "d", EVENTS, InputFile(file, "CSV", CsvOptions(timestamp_format="epoch")), "b")
    assert times(sandbox, "a") == ["2026-01-01T00:00:00+00:00"]


def test_where_epochs_may_be_declared() -> None:
    nullable: Any = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/at"}]}
    schema: Any = {"properties": {"a": nullable, "b": {"type": "string", "format": "epoch"}}, "$defs": {"at": MILLIS}}
    read = declared(schema)
    assert {name: str(type_) for name, type_ in read.fields.fields.items()} == {"a": "timestamp", "b": "timestamp"}
    assert {path: epoch.format for path, epoch in read.epochs.items()} == {("a",): "epoch_ms", ("b",): "epoch"}


@pytest.mark.parametrize("rule", [{"enum": [1767225600, "1767225601"]}, {"const": 1767225600}])
@pytest.mark.parametrize("format", ["CSV", "NDJSON"])
def test_listed_values_count_as_the_column_does(sandbox: Sandbox, format: str, rule: JsonObject) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": {**SECONDS, **rule}}})
    done = load(sandbox, format, [1767225600, 1767225602])
    assert (stored(sandbox), [row.row for row in done.rejected]) == ([NEW_YEAR], [2])
    assert "2026-01-01T00:00:00Z" in done.rejected[0].message
    again = dataset_schema(sandbox.lake, "p")
    declare(sandbox.lake, "p", PEOPLE, again)
    assert dataset_schema(sandbox.lake, "p") == again


@pytest.mark.parametrize(
    ("schema", "values", "is_odd"),
    [
        (MILLIS, [1767225600, None, 1767312000], True),
        (MILLIS, [1767225600, 1767225600000], False),
        (MILLIS, [], False),
        (SECONDS, [0, 86400], False),
    ],
)
def test_seconds_that_are_read_as_milliseconds_are_reported(
    sandbox: Sandbox, schema: JsonObject, values: list[Any], is_odd: bool
) -> None:
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"a": schema}})
    warnings = load(sandbox, "NDJSON", [*values, None]).warnings
    assert ['of the column "a" are in the first weeks of 1970' in text for text in warnings] == [True] * is_odd


@pytest.mark.parametrize("is_declared", [False, True])
def test_the_time_of_events_in_1970_is_reported(sandbox: Sandbox, is_declared: bool) -> None:
    if is_declared:
        declare(sandbox.lake, "d", EVENTS, {"properties": {"timestamp": MILLIS}})
    file = sandbox.folder / "seconds"
    file.write_text("id,timestamp\na,1767225600\n")
    csv = CsvOptions() if is_declared else CsvOptions(timestamp_format="epoch_ms")
    (warning,) = ingest(sandbox.lake, "d", EVENTS, InputFile(file, "CSV", csv), "b").warnings
    assert warning.startswith('all times of the column "timestamp" are in the first weeks of 1970')
