"""Types, layouts and names of Parquet: each is loaded as it is, or refused by name."""

from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import dataset_fields
from app.engine.ingest.declared import declare
from app.engine.ingest.identities import find
from app.engine.store.delta import open_table
from app.engine.store.lake import text_literal
from app.errors import Refusal
from app.pql.schema import ArrayType, Scalar, Type
from tests.engine.test_odd_values import parquet
from tests.support.sandbox import PEOPLE, Sandbox

TEXT = pa.string()
LISTS: dict[str, Any] = {
    "list": pa.list_,
    "large": pa.large_list,
    "view": pa.list_view,
    "fixed": lambda t: pa.list_(t, 1),
}


@pytest.mark.parametrize(
    ("odd", "good", "type_"),
    [
        ({"a": "x\0y"}, {"a": "z"}, pa.struct({"a": TEXT})),
        (["x\0y"], ["z"], pa.list_(TEXT)),
        ([("k", "\0")], [("k", "z")], pa.map_(TEXT, TEXT)),
        ([("k\0", "z")], [("k", "z")], pa.map_(TEXT, TEXT)),
        ([{"m": [("k", "x\0")]}], [{"m": [("k", "z")]}], pa.list_(pa.struct({"m": pa.map_(TEXT, TEXT)}))),
    ],
)
def test_texts_inside_of_parquet_values_have_no_zero_bytes(
    sandbox: Sandbox, odd: object, good: object, type_: pa.DataType
) -> None:
    table = pa.table({"id": ["a", "b"], "v": pa.array([odd, good], type_)})
    done = sandbox.take("p", PEOPLE, parquet(table), "PARQUET")
    assert (done.row_count, [(row.row, row.message) for row in done.rejected]) == (
        1,
        [(1, "v: a text has a zero byte")],
    )


@pytest.mark.parametrize("key", [pa.string(), pa.int64(), pa.date32()])
def test_a_key_twice_in_a_map_costs_its_row(sandbox: Sandbox, key: pa.DataType) -> None:
    one, other = (
        pa.array([1, 2], pa.int32()).cast(pa.int64() if key == pa.int64() else pa.int32()).cast(key).to_pylist()
    )
    maps = pa.array([[(one, 1), (one, 2)], [(one, 1), (other, 2)]], pa.map_(key, pa.int64()))
    done = sandbox.take("p", PEOPLE, parquet(pa.table({"id": ["a", "b"], "v": maps})), "PARQUET")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [1])
    assert "or a map has a key twice" in done.rejected[0].message


@pytest.mark.parametrize("inside", [False, True])
def test_a_time_of_day_is_no_declared_day(sandbox: Sandbox, inside: bool) -> None:
    day: Any = {"type": "string", "format": "date"}
    declare(sandbox.lake, "p", PEOPLE, {"properties": {"v": {"properties": {"d": day}} if inside else day}})
    times = pa.array([1767277800, 1767312000]).cast(pa.timestamp("s"))
    column = pa.StructArray.from_arrays([times], ["d"]) if inside else times
    done = sandbox.take("p", PEOPLE, parquet(pa.table({"id": ["a", "b"], "v": column})), "PARQUET")
    assert (done.row_count, [row.row for row in done.rejected]) == (1, [1])
    assert "2026-01-01 14:30:00" in done.rejected[0].message


@pytest.mark.parametrize(
    ("array", "type_", "text"),
    [
        (pa.array([time(1, 2, 3)], pa.time32("s")), Scalar.STRING, "01:02:03"),
        (pa.array([time(1, 2, 3, 4)], pa.time64("us")), Scalar.STRING, "01:02:03.000004"),
        (
            pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(15) + b"\5"], pa.binary(16))),
            Scalar.STRING,
            "00000000-0000-0000-0000-000000000005",
        ),
        (pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])), Scalar.STRING, '{"a": 1}'),
        (pa.array([Decimal("1.25")], pa.decimal256(30, 2)), Scalar.NUMBER, "1.25"),
        (pa.array(["u"]).dictionary_encode(), Scalar.STRING, "u"),
        *((pa.array([[1]], make(pa.int64())), ArrayType(Scalar.INTEGER), "[1]") for make in LISTS.values()),
    ],
)
def test_types_of_parquet(sandbox: Sandbox, array: pa.Array, type_: Type, text: str) -> None:
    sandbox.take("p", PEOPLE, parquet(pa.table({"id": ["a"], "v": array})), "PARQUET")
    assert dataset_fields(sandbox.lake, "p").fields["v"] == type_
    table = open_table(sandbox.lake.dataset("p"))
    assert table is not None
    query = f"SELECT CAST(v AS VARCHAR) FROM read_parquet({text_literal(str(table.folder / table.files[0].name))})"
    assert duckdb.execute(query).fetchall() == [(text,)]


def test_a_uuid_is_an_identity(sandbox: Sandbox) -> None:
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([bytes(15) + b"\5"], pa.binary(16)))
    sandbox.take("p", PEOPLE, parquet(pa.table({"id": ids})), "PARQUET")
    assert find(sandbox.lake, "CRM", "00000000-0000-0000-0000-000000000005") is not None


@pytest.mark.parametrize("make", [*LISTS.values(), pa.large_list_view])
@pytest.mark.parametrize("place", ["column", "list", "map", "object"])
def test_names_that_differ_in_case_in_lists_of_every_layout(sandbox: Sandbox, make: Any, place: str) -> None:
    moment = pa.timestamp("ns")
    lists = make(pa.struct({"a": pa.int64(), "A": TEXT, "at": moment}))
    one: list[Any] = [{"a": 1, "A": "x", "at": 1_500}]
    other: list[Any] = [{"a": None, "A": "y", "at": None}]
    if make is LISTS["list"]:
        one = [*one, None, *other]
    within: dict[str, tuple[pa.DataType, Any]] = {
        "column": (lists, lambda value: value),
        "list": (pa.list_(lists), lambda value: [value, None, other]),
        "map": (pa.map_(TEXT, lists), lambda value: [("k", value), ("l", None)]),
        "object": (pa.struct({"o": lists, "O": TEXT}), lambda value: {"o": value, "O": "z"}),
    }
    type_, wrap = within[place]
    values = [wrap(one), None, wrap(None), wrap(other)]
    done = sandbox.take("p", PEOPLE, parquet(pa.table({"id": list("0123"), "v": pa.array(values, type_)})), "PARQUET")
    assert (done.row_count, done.rejected) == (4, ())
    table = open_table(sandbox.lake.dataset("p"))
    assert table is not None
    rows = [row for file in table.files for row in pq.read_table(table.folder / file.name).to_pylist()]
    assert [row["v"] for row in sorted(rows, key=lambda row: str(row["id"]))] == [_stored(value) for value in values]


def _stored(value: Any) -> Any:
    """The value with names as in files, and times in whole microseconds."""
    match value:
        case list():
            return [_stored(inner) for inner in value]
        case tuple():
            return tuple(map(_stored, value))
        case {"a": a, "A": text, "at": at}:
            time = None if at is None else datetime(1970, 1, 1, 0, 0, 0, at // 1_000, tzinfo=UTC)
            return {"a": a, "A~case1": text, "at": time}
        case {"o": inner, "O": text}:
            return {"o": _stored(inner), "O~case1": text}
    return value


ONE, TWO = pa.array([1]), pa.array([2])


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"": ONE}, "the file has a column without a name"),
        ({"v": pa.StructArray.from_arrays([ONE], [""])}, 'the column "v" has a field without a name'),
        ({"v": pa.StructArray.from_arrays([ONE, TWO], ["a", "a"])}, 'the column "v" has the field "a" twice'),
        ({"x\0y": ONE}, r"the name of the column 'x\x00y' has a zero byte"),
        ({"v": pa.StructArray.from_arrays([ONE], ["a\0b"])}, r"the name of the field 'a\x00b' has a zero byte"),
        ({"v": pa.array([Decimal(1)], pa.decimal256(50, 2))}, 'the column "v" is of type decimal256(50, 2)'),
    ],
)
def test_columns_of_parquet_that_cannot_be_loaded_are_named(
    sandbox: Sandbox, columns: dict[str, pa.Array], message: str
) -> None:
    with pytest.raises(Refusal) as refused:
        sandbox.take("p", PEOPLE, parquet(pa.table({"id": ["a"], **columns})), "PARQUET")
    assert message in refused.value.message


@pytest.mark.parametrize("shape", ["plain", "list", "object", "object in list", "list in object"])
@pytest.mark.parametrize(
    ("values", "rejected"),
    [
        (pa.array([1.5, float("nan"), float("inf"), None, float("-inf")]), [2, 3, 5]),
        (pa.array([0, -(1 << 60), None, 1 << 60, 5], pa.timestamp("us", tz="UTC")), [2, 4]),
        (pa.array([0, None, -800_000, 3_000_000, 5], pa.date32()), [3, 4]),
        (pa.array(["a", None, "b\0c", "", "\0"]), [3, 5]),
        (pa.array([1, None, -(1 << 63), (1 << 63) - 1, 5]), []),
        (pa.array([True, None, False, True, True]), []),
    ],
)
def test_values_that_are_stored_as_they_are_written_are_checked(
    sandbox: Sandbox, values: pa.Array, rejected: list[int], shape: str
) -> None:
    nested = {
        "plain": lambda: values,
        "list": lambda: pa.ListArray.from_arrays(range(6), values),
        "object": lambda: pa.StructArray.from_arrays([values, values], ["a", "b"]),
        "object in list": lambda: pa.ListArray.from_arrays(
            range(6), pa.StructArray.from_arrays([pa.array(range(5)), values], ["n", "v"])
        ),
        "list in object": lambda: pa.StructArray.from_arrays([pa.ListArray.from_arrays(range(6), values)], ["l"]),
    }[shape]()
    table = pa.table({"id": [str(n) for n in range(5)], "v": nested})
    done = sandbox.take("p", PEOPLE, parquet(table), "PARQUET")
    assert [row.row for row in done.rejected] == rejected
    current = open_table(sandbox.lake.dataset("p"))
    assert current is not None
    stored = pa.concat_tables([pq.ParquetFile(path).read(["id", "v"]) for path in current.paths()]).sort_by("id")
    good = [row for row in range(5) if row + 1 not in rejected]
    assert stored.to_pylist() == table.take(good).to_pylist()
