"""Names that differ only in case are different fields, whatever the format and however they are nested."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.engine.ingest.batch import dataset_fields
from app.engine.people.seen_values import seen_values
from app.engine.people.snapshot import open_snapshot
from app.engine.people.sources import Dataset
from app.engine.store.case_names import file_names, file_schema, our_name, our_schema
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import RULE, selected

ROWS: list[dict[str, Any]] = [
    {"id": "1", "email": "a", "Email": "b", "EMAIL": 3},
    {"id": "2", "email": "b", "Email": "a", "EMAIL": 4},
]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def content(rows: list[dict[str, Any]], format: str) -> bytes:
    if format == "PARQUET":
        return parquet(rows)
    if format == "NDJSON":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    return "\n".join(",".join(map(str, line)) for line in [rows[0], *(row.values() for row in rows)]).encode()


@pytest.mark.parametrize("format", ["CSV", "NDJSON", "PARQUET"])
def test_columns(sandbox: Sandbox, format: str) -> None:
    assert sandbox.take("p", PEOPLE, content(ROWS, format), format).row_count == 2
    assert [selected(sandbox, f'{name} = "a"') for name in ("email", "Email")] == [["1"], ["2"]]
    assert selected(sandbox, "EMAIL >= 4") == ["2"]
    sandbox.rows("p", PEOPLE, [{"id": "3", "eMail": "a"}])
    assert [selected(sandbox, f'{name} = "a"') for name in ("email", "Email", "eMail")] == [["1"], ["2"], ["3"]]
    assert [*dataset_fields(sandbox.lake, "p").fields] == ["id", "email", "Email", "EMAIL", "eMail"]


@pytest.mark.parametrize("format", ["NDJSON", "PARQUET"])
def test_nested(sandbox: Sandbox, format: str) -> None:
    rows = [
        {"id": "1", "o": {"x": 1, "X": {"y": [{"z": "p", "Z": "q"}]}}, "l": [{"k": 5, "K": 6}], "O": {"x": 2}},
        {"id": "2", "o": {"x": 2, "X": {"y": [{"z": "q", "Z": "p"}]}}, "l": [{"k": 6, "K": 5}], "O": {"x": 1}},
    ]
    assert sandbox.take("p", PEOPLE, content(rows, format), format).row_count == 2
    for expression, ids in {
        "o.x = 1": ["1"],
        "O.x = 1": ["2"],
        'o.X.y.z = "q"': ["2"],
        'o.X.y.Z = "q"': ["1"],
        "l.k = 5": ["1"],
        "l.K = 5": ["2"],
    }.items():
        assert selected(sandbox, expression) == ids, expression


def test_events_whose_columns_look_like_ours(sandbox: Sandbox) -> None:
    rows = [
        {"id": "1", "timestamp": "2026-01-01", "_id": "e1", "_ID": "x", "Timestamp": "late", "Id": 7},
        {"id": "1", "timestamp": "2026-01-01", "_id": "e1", "_ID": "y", "Timestamp": "late", "Id": 8},
    ]
    sandbox.rows("p", PEOPLE, [{"id": "1"}])
    assert (sandbox.rows("e", EVENTS, rows).row_count, sandbox.rows("e", EVENTS, rows).duplicate_rows) == (1, 2)
    assert selected(sandbox, 'xEvent[_ID = "x" and Timestamp = "late" and Id = 7 and timestamp < now].count() = 1') == [
        "1"
    ]


def test_batches_that_name_them_in_another_order(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "Name": "a", "o": {"B": 1}}])
    sandbox.rows("p", PEOPLE, [{"id": "2", "name": "a", "o": {"b": 1}}])
    sandbox.rows("p", PEOPLE, [{"id": "3", "name": "b", "Name": "a", "o": {"b": 2, "B": 1}}])
    assert (selected(sandbox, 'Name = "a"'), selected(sandbox, 'name = "a"')) == (["1", "3"], ["2"])
    assert (selected(sandbox, "o.B = 1"), selected(sandbox, "o.b = 1")) == (["1", "3"], ["2"])


def test_a_row_with_a_wrong_value_beside_them_is_rejected_alone(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "n": 1, "N": "a"}])
    taken = sandbox.rows("p", PEOPLE, [{"id": "2", "n": "x", "N": "b"}, {"id": "3", "n": 3, "N": "b"}])
    assert [row.message for row in taken.rejected] == ['n: "x" is not a whole number of 64 bits']
    assert selected(sandbox, 'N = "b"') == ["3"]


def test_seen_values(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, ROWS)
    assert sorted(seen_values(sandbox.lake, [Dataset("p", "PROFILE")], ("Email",))) == ["a", "b"]


def test_maps_keep_keys_that_differ_only_in_case(sandbox: Sandbox) -> None:
    rows = [{"id": "1", "m": {f"{letter}{n}": n for n in range(150) for letter in "kK"}, "a": 1, "A": 2}]
    sandbox.rows("p", PEOPLE, rows)
    assert selected(sandbox, 'm.get("k7") = 7 and m.get("K7") = 7 and m.get("k~case1").isNull()') == ["1"]


@pytest.mark.parametrize("format", ["NDJSON", "PARQUET"])
def test_names_that_look_like_names_in_files(sandbox: Sandbox, format: str) -> None:
    marked = {"a~case1": 1, "a": 2, "A": 3, "b~case7": 4}
    rows = [{"id": "1", **marked, "o": [marked]}, {"id": "2", **dict.fromkeys(marked, 0), "o": []}]
    assert sandbox.take("p", PEOPLE, content(rows, format), format).row_count == 2
    assert [*dataset_fields(sandbox.lake, "p").fields] == ["id", *marked, "o"]
    for name, value in marked.items():
        assert selected(sandbox, f"`{name}` = {value} and o.`{name}` = {value}") == ["1"], name


NAMES = st.text(alphabet="abAB_~case01", min_size=1, max_size=8)


@given(st.lists(NAMES, unique=True, max_size=12))
def test_names_in_files_differ_and_can_be_read_back(names: list[str]) -> None:
    stored = file_names(names)
    assert [our_name(name) for name in stored.values()] == names
    assert len({name.lower() for name in stored.values()}) == len(names)


@given(st.lists(NAMES, unique=True, max_size=8), st.lists(NAMES, unique=True, max_size=8))
def test_names_stay_as_they_were(before: list[str], new: list[str]) -> None:
    old = file_schema(pa.schema([(name, pa.int64()) for name in before]))
    wider = file_schema(pa.schema([(name, pa.int64()) for name in dict.fromkeys([*reversed(before), *new])]), old)
    assert {our_name(name): name for name in wider.names}.items() >= dict(zip(before, old.names, strict=True)).items()
    assert len({name.lower() for name in wider.names}) == len(wider)
    assert set(our_schema(wider).names) == {*before, *new}


VALUES = st.recursive(
    st.integers(0, 9),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "A", "b", "B"]), inner, min_size=1, max_size=4),
    ),
    max_leaves=8,
)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a", "A", "b", "B"]), VALUES, min_size=1))
def test_whatever_comes_is_given_back(tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]) -> None:
    sandbox = Sandbox(tmp_path_factory.mktemp("case"))
    for format in ("NDJSON", "PARQUET"):
        sandbox.take("p", PEOPLE, content([{"id": format, **row}], format), format)
    assert attributes_of(sandbox) == [{"id": "NDJSON", **row}, {"id": "PARQUET", **row}]


def attributes_of(sandbox: Sandbox) -> list[dict[str, Any]]:
    """The attributes of all people as pages show them, by id."""
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("p", "PROFILE")])
    assert snapshot.view.table is not None
    keys = [(number, ordinal) for number in snapshot.buckets for ordinal in range(4)]
    people = [one for one in snapshot.attributes(keys, None) if one]
    for one in people:
        del one["identityMap"]
    return sorted(people, key=lambda one: str(one["id"]))
