"""Deep, odd and damaged values: refused or rejected by row with a reason, never changed and never a crash."""

import io
import json
import random
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import dataset_fields, ingest, try_out
from app.engine.ingest.declared import declare
from app.engine.ingest.formats import CsvOptions, InputFile
from app.engine.ingest.formats.ndjson_lines import (
    HALF_PAIR,
    NO_OBJECT,
    NOT_FINITE,
    TOO_DEEP,
    TOO_LONG,
    TOO_WIDE,
    ZERO_BYTE,
    ZERO_IN_TEXT,
    problem_of,
)
from app.engine.people.snapshot import open_snapshot
from app.engine.people.sources import Dataset
from app.engine.store.delta import open_table
from app.errors import ErrorCode, Refusal, Refusals
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type
from app.pql.syntax.paths import leaf_paths
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import RULE


def nested(levels: int, container: str) -> str:
    opening, closing = {"object": ('{"a":', "}"), "list": ("[", "]")}[container]
    return opening * levels + "1" + closing * levels


def parquet(table: pa.Table) -> bytes:
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


@pytest.mark.parametrize(("container", "most"), [("object", 40), ("list", 10)])
@pytest.mark.parametrize("beyond", [1, 20, 1_000, 100_000])
def test_a_row_that_is_nested_too_deep_is_rejected(sandbox: Sandbox, container: str, most: int, beyond: int) -> None:
    rows = [f'{{"id": {n}, "v": {nested(levels, container)}}}' for n, levels in enumerate((1, most, most + beyond))]
    if container == "object":
        rows[0] = '{"id": 0}'  # A number is no object.
    if container == "list":
        rows[0] = '{"id": 0, "v": []}'
    done = sandbox.take("p", PEOPLE, "\n".join(rows).encode(), "NDJSON")
    assert (done.row_count, [(row.row, row.message) for row in done.rejected]) == (2, [(3, TOO_DEEP)])
    ((path, _),) = [item for item in leaf_paths(dataset_fields(sandbox.lake, "p")) if item[0] != "id"]
    assert path.count(".") == (most if container == "object" else 0)


def test_brackets_in_text_and_side_by_side_are_no_levels() -> None:
    assert problem_of(json.dumps({"a": "[" * 100, "b": '\\"' + "{" * 100})) is None
    assert problem_of(json.dumps({"a": [[{"x": [1]}] * 50] * 50})) is None
    assert problem_of(json.dumps({"a": [{"x": [1]}] * 5, "b": {"c": []}})) is None


@pytest.mark.parametrize("levels", [11, 16, 28])
def test_lists_in_lists_in_parquet_are_refused_before_they_are_read(sandbox: Sandbox, levels: int) -> None:
    type_, value = pa.int64(), 1
    values: Any = value
    for _ in range(levels):
        type_, values = pa.list_(type_), [values]
    table = pa.table({"id": ["1"], "v": pa.array([values], type_)})
    with pytest.raises(Refusal, match="at most 40 levels can be loaded, and 10 lists"):
        sandbox.take("p", PEOPLE, parquet(table), "PARQUET")


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("NaN", NOT_FINITE),
        ("-Infinity", NOT_FINITE),
        ("[1, nan]", NOT_FINITE),
        ('{"x": inf}', NOT_FINITE),
        ("1e400", NOT_FINITE),
        ("1" + "0" * 400, NOT_FINITE),
        ('{"a\\u0000b": 1}', ZERO_BYTE),
        ('"NaN, Infinity: 1e400 \\\\u0000 [1,] {,}"', None),
        ('"a\\u0000"', ZERO_IN_TEXT),
        ('["\\\\\\u0000"]', ZERO_IN_TEXT),
        ('"\\ud83d"', HALF_PAIR),
        ('{"a\\udc00": 1}', HALF_PAIR),
        ('"\\ud83d\\ude42"', None),
        ("[1, ]", "the line is not JSON: it goes wrong at character 20, `]}`"),
        ('{"x": 1,}', "the line is not JSON: it goes wrong at character 24, `}}`"),
        ('[{"x": [2 ,\t]}]', "the line is not JSON: it goes wrong at character 28, `]}]}`"),
        ("1e300", None),
    ],
)
def test_values_that_would_be_changed_are_rejected(sandbox: Sandbox, value: str, problem: str | None) -> None:
    done = sandbox.take("p", PEOPLE, f'{{"id": 1}}\n{{"id": 2, "v": {value}}}'.encode(), "NDJSON")
    assert [(row.row, row.message) for row in done.rejected] == ([(2, problem)] if problem else [])
    assert done.row_count == (1 if problem else 2)


def test_parquet_has_no_infinite_numbers_and_cuts_off_nanoseconds(sandbox: Sandbox) -> None:
    nan, infinite = float("nan"), float("inf")
    table = pa.table(
        {
            "id": ["1", "2", "3", "4", "5"],
            "v": [1.5, nan, None, -infinite, 2.0],
            "l": [[1.0], [1.0], [], [1.0], [1.0, infinite]],
            "at": pa.array([1767311999999999999, -1, 0, 0, 0], pa.timestamp("ns")),
        }
    )
    done = sandbox.take("p", PEOPLE, parquet(table), "PARQUET")
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, 'v: "nan" is not a number'),
        (4, 'v: "-inf" is not a number'),
        (5, 'l: a value inside does not fit the type of its field: "[1.0, inf]"'),
    ]
    file = open_table(sandbox.lake.dataset("p"))
    assert file is not None
    times = [time for path in file.paths() for time in pq.ParquetFile(path).read(["at"])["at"].to_pylist()]
    assert max(times).isoformat() == "2026-01-01T23:59:59.999999+00:00"


def test_texts_in_parquet_have_no_zero_bytes(sandbox: Sandbox) -> None:
    table = pa.table({"id": ["1", "2\0", "3"], "v": ["a", "b", "\0"]})
    done = sandbox.take("p", PEOPLE, parquet(table), "PARQUET")
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, "id: a text has a zero byte"),
        (3, "v: a text has a zero byte"),
    ]
    assert done.row_count == 1


def test_a_zero_byte_in_a_name_does_not_cut_it(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal, match="has a zero byte: rename it"):
        sandbox.csv("p", PEOPLE, "id,a\0b\nx,1\n")
    for name in ("", "a\0b"):
        field: Any = {"properties": {name: {"type": "string"}}}
        for schema in (field, {"properties": {"o": field}}):
            with pytest.raises(Refusals, match="a name needs characters, and none may be a zero byte"):
                declare(sandbox.lake, "p", PEOPLE, schema)


@pytest.mark.parametrize(
    ("good", "bad", "type_"),
    [
        ("9007199254740993", "1.5", Scalar.INTEGER),
        ("9007199254740993", "1e300", Scalar.INTEGER),
        ("9007199254740993", "99999999999999999999", Scalar.INTEGER),
        ("7", "-99999999999999999999", Scalar.INTEGER),
        ("[9007199254740993, 1]", "[1, 1.5]", ArrayType(Scalar.INTEGER)),
        ('{"x": 9007199254740993}', '{"x": 1.5}', ObjectType({"x": Scalar.INTEGER})),
        ("1.5", "9007199254740993", Scalar.NUMBER),
    ],
)
def test_a_number_that_does_not_fit_costs_itself(sandbox: Sandbox, good: str, bad: str, type_: Type) -> None:
    """Whole numbers that a fraction beside them would round are not lost to it, nor fractions to such a number."""
    rows = [f'{{"id": {row}, "v": {bad if row == 2 else good}}}' for row in range(1, 6)]
    done = sandbox.take("p", PEOPLE, "\n".join(rows).encode(), "NDJSON")
    assert ([row.row for row in done.rejected], done.row_count) == ([2], 4)
    assert dataset_fields(sandbox.lake, "p").fields["v"] == type_


@pytest.mark.parametrize("name", ["__row", "xEvent"])
def test_a_reserved_name_costs_its_row(sandbox: Sandbox, name: str) -> None:
    done = sandbox.take("p", PEOPLE, f'{{"id": 1, "o": {{"{name}": 2}}}}\n{{"id": 2, "{name}": 1}}'.encode(), "NDJSON")
    assert ([row.row for row in done.rejected], done.row_count) == ([2], 1)
    assert f'the column "{name}"' in done.rejected[0].message


@pytest.mark.parametrize("inside", [True, False])
def test_a_row_with_too_many_fields_costs_itself(sandbox: Sandbox, inside: bool) -> None:
    """Unless they are the keys of one kind of values, which become a map."""
    mixed = {f"k{at}": at if at % 2 else "x" for at in range(10_001)}
    numbers = dict.fromkeys(mixed, 1) | {"k0": None}
    rows = [{"id": "1"}, {"id": "2", "v": mixed} if inside else {"id": "2", **mixed}, {"id": "3", "prefs": numbers}]
    done = sandbox.take("p", PEOPLE, "\n".join(map(json.dumps, rows)).encode(), "NDJSON")
    assert [(row.row, row.message) for row in done.rejected] == [(2, TOO_WIDE)]
    assert done.row_count == 2
    assert dataset_fields(sandbox.lake, "p").fields["prefs"] == MapType(Scalar.INTEGER)


def test_values_of_several_kinds_are_said(sandbox: Sandbox) -> None:
    """Not of identities and times, which are stored in their own way, nor where the type is known."""
    rows = [
        {"id": at or "x", "timestamp": "2026-01-01" if at else 7, "v": at or "x", "o": {"w": [at]}} for at in range(4)
    ]
    rows.append({"id": 5, "timestamp": "2026-01-01", "o": {"w": [True]}})
    done = sandbox.take("e", EVENTS, "\n".join(map(json.dumps, rows)).encode(), "NDJSON")
    assert (done.row_count, [row.row for row in done.rejected]) == (4, [1])
    advice = "so all are loaded as text: declare its type to have the others rejected"
    assert done.warnings == (
        f'the values of "v" are of several kinds (3 numbers, 1 texts), {advice}',
        f'the values of "o.w" are of several kinds (4 numbers, 1 true or false), {advice}',
    )
    rows[0]["timestamp"] = "2026-01-01"
    assert sandbox.take("e", EVENTS, "\n".join(map(json.dumps, rows)).encode(), "NDJSON").warnings == ()


@pytest.mark.parametrize("place", ["{}", "[{}]", '{{"x": {}}}'])
@pytest.mark.parametrize(
    ("first", "later", "type_"),
    [
        ('"2026-01-02"', '"2026-01-03"', Scalar.DATE),
        ('"2026-01-02"', '"2026-01-02T03:04:05Z"', Scalar.TIMESTAMP),
        ('"2026-01-02"', '"soon"', Scalar.STRING),
        ('"soon"', '"2026-01-02"', Scalar.STRING),
        ("null", '"2026-01-02"', Scalar.DATE),
        ("null", '"soon"', Scalar.STRING),
    ],
)
def test_texts_after_the_first_thousand_rows_decide_as_well(
    sandbox: Sandbox, first: str, later: str, type_: Scalar, place: str
) -> None:
    rows = [f'{{"id": {row}, "v": {place.format(first)}}}' for row in range(1_000)]
    file = sandbox.folder / "rows.ndjson"
    file.write_text("\n".join([*rows, f'{{"id": "last", "v": {place.format(later)}}}']))
    tried = try_out(sandbox.lake, None, PEOPLE, InputFile(file, "NDJSON"))
    assert (tried.row_count, tried.rejected_rows) == (1_001, 0)
    assert tried.fields.fields["v"] == {"{}": type_, "[{}]": ArrayType(type_)}.get(place, ObjectType({"x": type_}))


def test_a_line_that_is_too_long_costs_itself(sandbox: Sandbox) -> None:
    rows = ['{"id": 1}', "", '{"id": 2, "v": "' + "x" * (34 << 20) + '"}', "no object", '{"id": 4}']
    done = sandbox.take("p", PEOPLE, "\n".join(rows).encode(), "NDJSON")
    assert [(row.row, row.message) for row in done.rejected] == [(2, TOO_LONG), (3, NO_OBJECT)]
    assert done.row_count == 2


def test_a_file_of_odd_rows_only_says_why(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal, match="none of the rows can be used; row 2: a number is NaN"):
        sandbox.take("p", PEOPLE, b'[1]\n{"id": NaN}', "NDJSON")
    with pytest.raises(Refusal, match="none of the rows can be used; row 1: the row is longer than 8 MB"):
        sandbox.take("p", PEOPLE, b'{"id": "' + b"x" * (9 << 20) + b'"}', "NDJSON")


def outcome(sandbox: Sandbox, content: bytes) -> object:
    try:
        sandbox.take("p", PEOPLE, content, "PARQUET")
    except Refusal as refusal:
        return refusal.code
    return "landed"


def test_damaged_parquet_is_refused(tmp_path: Path) -> None:
    table = pa.table(
        {"id": [str(n) for n in range(50)], "v": [n / 7 for n in range(50)], "l": [[{"x": str(n)}] for n in range(50)]}
    )
    content, chance = parquet(table), random.Random(20261129)
    outcomes: list[object] = []
    for number in range(100):
        damaged = bytearray(content)
        match number % 3:
            case 0:
                del damaged[chance.randrange(len(damaged)) :]
            case 1:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            case _:
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        sandbox = Sandbox(tmp_path / str(number))
        sandbox.folder.mkdir()
        outcomes.append(outcome(sandbox, bytes(damaged)))
    assert set(outcomes) == {"landed", ErrorCode.INVALID_INPUT}
    assert outcomes.count(ErrorCode.INVALID_INPUT) > 50


@pytest.mark.parametrize("column", ["n", "o", "l"])
def test_damage_is_noticed_in_columns_without_anything_to_check(sandbox: Sandbox, column: str) -> None:
    """All columns are read to the end before anything is stored, not only those that may have faulty values."""
    numbers = pa.array(range(1_000, 2_000))
    table = pa.table(
        {
            "id": numbers.cast(pa.string()),
            "n": numbers,
            "o": pa.StructArray.from_arrays([numbers.cast(pa.string()), numbers], ["t", "n"]),
            "l": pa.ListArray.from_arrays(range(1_001), pa.StructArray.from_arrays([numbers], ["n"])),
        }
    )
    written = io.BytesIO()
    pq.write_table(table, written, use_dictionary=False)
    content = bytearray(written.getvalue())
    group = pq.read_metadata(io.BytesIO(content)).row_group(0)
    chunks = [group.column(place) for place in range(group.num_columns)]
    (place,) = [each.data_page_offset for each in chunks if each.path_in_schema in (column, f"{column}.n")] or [
        each.data_page_offset for each in chunks if each.path_in_schema == f"{column}.list.element.n"
    ]
    assert outcome(sandbox, bytes(content)) == "landed"
    content[place : place + 60] = b"\xff" * 60
    assert outcome(sandbox, bytes(content)) == ErrorCode.INVALID_INPUT


@pytest.mark.parametrize("format", ["CSV", "NDJSON", "PARQUET"])
def test_wide_files(sandbox: Sandbox, format: str) -> None:
    rows = [{"id": f"u{row}", **{f"c{n}": row * n for n in range(600)}} for row in range(3)]
    content = {
        "CSV": lambda: "\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]).encode(),
        "NDJSON": lambda: "\n".join(map(json.dumps, rows)).encode(),
        "PARQUET": lambda: parquet(pa.Table.from_pylist(rows)),
    }[format]()
    assert sandbox.take("p", PEOPLE, content, format).row_count == 3
    assert len(dataset_fields(sandbox.lake, "p").fields) == 601


def test_many_columns_of_several_kinds(sandbox: Sandbox) -> None:
    """More than are read as one object, and more of several kinds than are looked at in one query."""
    names = [f"c{n}" for n in range(700)] + ["C3"]
    sandbox.rows("p", PEOPLE, [{"id": "old", **dict.fromkeys(names, 1)}])
    rows: list[dict[str, Any]] = [{"id": id, **{name: n for n, name in enumerate(names)}} for id in "abcd"]
    rows[1] |= {f"c{n}": "x" for n in range(400, 700)}
    rows[2] |= {"c20": True}
    rows[3] |= {"c698": 2.5}
    done = sandbox.rows("p", PEOPLE, rows)
    assert done.row_count == 2
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, 'c400: "x" is not a whole number of 64 bits'),
        (3, 'c20: "true" is not a whole number of 64 bits'),
    ]
    table = open_table(sandbox.lake.dataset("p"))
    assert table is not None
    files = [str(table.folder / file.name) for file in table.files]
    query = 'SELECT id, c499, c500, c698, c699, c3, "C3~case1" FROM read_parquet($1, union_by_name = true) ORDER BY id'
    assert duckdb.execute(query, [files]).fetchall() == [
        ("a", 499, 500, 698, 699, 3, 700),
        ("d", 499, 500, 2.5, 699, 3, 700),
        ("old", 1, 1, 1, 1, 1, 1),
    ]


@pytest.mark.parametrize("format", ["CSV", "NDJSON", "PARQUET"])
def test_too_many_columns_are_refused(sandbox: Sandbox, format: str) -> None:
    row = {"id": "1", **{f"c{n}": "1" for n in range(10_000)}}
    content = {
        "CSV": lambda: (",".join(row) + "\n" + ",".join(row.values())).encode(),
        "NDJSON": lambda: json.dumps(row).encode(),
        "PARQUET": lambda: parquet(pa.Table.from_pylist([row])),
    }[format]()
    with pytest.raises(Refusal, match="the file has 10,001 columns: at most 10,000 can be loaded"):
        sandbox.take("p", PEOPLE, content, format)


EDGES = [
    ("0000-01-01T10:00:00Z", False),
    ("0000-05-05", False),
    ("9999-12-31T23:59:59-05:00", False),
    ("0001-01-01T00:00:00+05:00", False),
    ("9999-12-31T23:59:59.999999Z", True),
    ("9999-12-31", True),
    ("0001-01-01T00:00:00+00:00", True),
]


@pytest.mark.parametrize("format", ["CSV", "NDJSON"])
@pytest.mark.parametrize(("text", "is_time"), EDGES)
def test_times_outside_the_years_1_to_9999_are_rejected_by_row(
    sandbox: Sandbox, format: str, text: str, is_time: bool
) -> None:
    """Python and JSON have no such times: a profile with one could not be shown."""
    rows = [{"id": "1", "timestamp": "2026-01-01"}, {"id": "2", "timestamp": text}]
    if format == "CSV":
        done = sandbox.csv("e", EVENTS, f"id,timestamp\n1,2026-01-01\n2,{text}\n")
    else:
        done = sandbox.rows("e", EVENTS, rows)
    assert (done.row_count, done.rejected_rows) == ((2, 0) if is_time else (1, 1))
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("e", "EVENT")])
    keys = [(bucket, ordinal) for bucket in snapshot.buckets for ordinal in snapshot.present(bucket)]
    assert len([event for page in snapshot.events(keys, limit=5, place=None) for event in page.items]) == done.row_count


@pytest.mark.parametrize(
    "array",
    [
        pa.array([0, 2_932_897], pa.date32()),
        pa.array([0, 253_402_300_800_000_000], pa.timestamp("us")),
        pa.array([0, -62_135_596_800_001], pa.timestamp("ms", "UTC")),
    ],
    ids=str,
)
def test_parquet_times_outside_the_years_1_to_9999_are_rejected_by_row(sandbox: Sandbox, array: pa.Array) -> None:
    path = sandbox.folder / "far.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "day": array, "list": pa.array([[array[0]], [array[0]]])}), path)
    done = sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [2])
    assert done.rejected[0].message.startswith('day: "')


def test_epochs_outside_the_years_1_to_9999_are_rejected_by_row(sandbox: Sandbox) -> None:
    file = sandbox.folder / "epochs"
    file.write_text("id,timestamp\n1,253402300799.5\n2,253402300800\n3,-62135596801\n")
    done = ingest(sandbox.lake, "e", EVENTS, InputFile(file, "CSV", CsvOptions(timestamp_format="epoch")), "b")
    assert [row.row for row in done.rejected] == [2, 3]


def test_equally_many_values_of_several_kinds_are_always_named_in_one_order(sandbox: Sandbox) -> None:
    for name in (f"v{n}" for n in range(12)):
        batch = sandbox.rows(name, PEOPLE, [{"id": "1", name: 1}, {"id": "2", name: "x"}])
        assert [warning.partition("(")[2].partition(")")[0] for warning in batch.warnings] == ["1 numbers, 1 texts"]
