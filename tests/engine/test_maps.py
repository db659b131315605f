"""Objects whose keys are data become maps, in one file and across batches, and maps and objects are read alike."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.test_ingest import record, types
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import selected


def people(count: int, start: int = 0) -> list[dict[str, object]]:
    return [{"id": str(n), "prefs": {f"k{n}": f"v{n}"}} for n in range(start, start + count)]


def test_more_than_200_keys_of_one_type_are_a_map(sandbox: Sandbox) -> None:
    assert sandbox.rows("p", PEOPLE, people(1_500)).row_count == 1_500
    assert types(sandbox, "p") == {"id": "string", "prefs": "map<string>"}
    assert selected(sandbox, 'prefs.get("k7") = "v7"') == ["7"]
    assert selected(sandbox, 'prefs.keys().includes("k1499")') == ["1499"]
    assert selected(sandbox, 'prefs.values() = "v12"') == ["12"]
    assert record(sandbox, "3")["prefs"] == {"k3": "v3"}


def test_200_keys_and_keys_of_several_types_stay_an_object(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, people(200))
    assert types(sandbox, "p")["prefs.k199"] == "string"
    mixed = [{"id": str(n), "o": {f"k{n}": n if n % 2 else "x"}} for n in range(300)]
    sandbox.rows("m", PEOPLE, mixed)
    assert types(sandbox, "m")["o.k1"] == "integer"


@pytest.mark.parametrize("expression", ['prefs.get("k7") = "v7"', 'prefs.keys() = ["k7"]', 'prefs.values() = ["v7"]'])
def test_an_object_that_outgrows_becomes_a_map(sandbox: Sandbox, expression: str) -> None:
    sandbox.rows("p", PEOPLE, people(150))
    assert selected(sandbox, expression) == ["7"]
    assert sandbox.rows("p", PEOPLE, people(150, 150)).rejected_rows == 0
    assert types(sandbox, "p")["prefs"] == "map<string>"
    assert selected(sandbox, expression) == ["7"]
    assert selected(sandbox, 'prefs.get("k222") = "v222"') == ["222"]
    assert record(sandbox, "7")["prefs"] == {"k7": "v7"}


def test_maps_of_numbers_and_of_objects_inside_events(sandbox: Sandbox) -> None:
    rows = [
        {"id": str(n), "timestamp": "2026-01-01", "o": {"stock": {f"s{n}": n, f"t{n}": 0.5}}, "by": {f"b{n}": {"x": n}}}
        for n in range(300)
    ]
    sandbox.rows("e", EVENTS, rows)
    assert types(sandbox, "e")["o.stock"] == "map<number>"
    assert selected(sandbox, 'xEvent.exists(o.stock.get("s5") = 5)') == ["5"]
    assert selected(sandbox, 'xEvent.exists(by.get("b9").x = 9)') == ["9"]


def test_objects_are_read_as_maps(sandbox: Sandbox) -> None:
    rows: list[dict[str, Any]] = [
        {"id": "1", "o": {"a": 1, "b": 2}},
        {"id": "2", "o": {"a": 3}},
        {"id": "3", "key": "b", "o": {"b": 5}},
        {"id": "4"},
    ]
    sandbox.rows("p", PEOPLE, rows)
    assert selected(sandbox, 'o.get("a") = 3') == ["2"]
    assert selected(sandbox, 'o.get("nowhere").isNull()') == ["1", "2", "3", "4"]
    assert selected(sandbox, "o.get(key) = 5") == ["3"]
    assert selected(sandbox, "o.keys().count() = 2") == ["1"]
    assert selected(sandbox, "o.values().sum() = 3") == ["1", "2"]
    assert selected(sandbox, "o.keys().isNull()") == ["4"]


@pytest.mark.parametrize("deep", [False, True])
def test_a_parquet_struct_with_too_many_fields_of_one_type_is_a_map(sandbox: Sandbox, deep: bool) -> None:
    """As an object of NDJSON is, in one file or with what came before."""

    def load(person: int, keys: range) -> None:
        struct = {f"k{n}": n if n != person else None for n in keys}
        rows = [{"id": str(person), "prefs": {"inner": struct} if deep else struct, "few": {"a": 1, "b": 2}}]
        path = sandbox.folder / "prefs.parquet"
        pq.write_table(pa.Table.from_pylist(rows), path)
        assert sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET").rejected_rows == 0

    name = "prefs.inner" if deep else "prefs"
    load(1, range(150))
    assert types(sandbox, "p")[f"{name}.k0"] == "integer"
    load(2, range(150, 300))
    found = types(sandbox, "p")
    assert {path: type_ for path, type_ in found.items() if path != "id"} == {
        name: "map<integer>", "few.a": "integer", "few.b": "integer",
    }  # fmt: skip
    assert selected(sandbox, f'{name}.get("k5") = 5') == ["1"]
    assert selected(sandbox, f'{name}.get("k200") = 200') == ["2"]
    assert selected(sandbox, f"{name}.keys().count() = 149") == ["1"]
    load(3, range(300))
    assert selected(sandbox, f'{name}.get("k5") = 5') == ["1", "3"]
    assert selected(sandbox, f'{name}.get("k3").isNull()') == ["2", "3"]


def test_a_parquet_struct_with_fields_of_several_types_stays_an_object(sandbox: Sandbox) -> None:
    rows = [{"id": "1", "o": {f"k{n}": "x" if n == 7 else n for n in range(250)}}]
    path = sandbox.folder / "o.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert sandbox.take("p", PEOPLE, path.read_bytes(), "PARQUET").rejected_rows == 0
    assert selected(sandbox, 'o.k7 = "x" and o.k8 = 8') == ["1"]
