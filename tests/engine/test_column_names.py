"""Columns whose names are no identifiers of PQL land and can be selected by; one that would hide the events cannot."""

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.errors import Refusal
from app.pql.syntax.lexer import written_name
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import selected


def test_odd_names_can_be_used(sandbox: Sandbox) -> None:
    sandbox.csv("p", PEOPLE, "id,Order Date,a.b,and\n1,2026-01-02,x,7\n2,2026-01-01,y,8\n")
    sandbox.rows("e", EVENTS, [{"id": "2", "timestamp": "2026-01-01", "o": {"utm-source": "ad", "$1": 2}}])
    assert selected(sandbox, "`Order Date` = date(2026, 1, 2)") == ["1"]
    assert selected(sandbox, '`a.b` = "y" and `and` = 8') == ["2"]
    assert selected(sandbox, 'xEvent.o.`utm-source` = "ad" and xEvent.o.`$1` = 2') == ["2"]


def test_a_column_that_hides_the_events_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(Refusal) as refused:
        sandbox.rows("p", PEOPLE, [{"id": "1", "xEvent": "x"}])
    assert (
        refused.value.message
        == 'none of the rows can be used; row 1: the column "xEvent" is named like a part of the profile: rename it'
    )


@pytest.mark.parametrize(
    "name", ["xEvent", r"x\u0045vent", r"\u0078\u0045\u0076\u0065\u006E\u0074", "__a", r"_\u005fa"]
)
def test_a_reserved_name_only_costs_its_row(sandbox: Sandbox, name: str) -> None:
    """Also one that is written with escapes."""
    lines = f'{{"id": "1", "{name}": 1}}\n{{"id": "2", "x": 5}}\n{{"id": "3", "x": 5, "\\u0065": 1}}\n'
    batch = sandbox.take("p", PEOPLE, lines.encode(), "NDJSON")
    assert (batch.row_count, [row.row for row in batch.rejected]) == (2, [1])
    assert (selected(sandbox, "x = 5"), selected(sandbox, "e = 1")) == (["2", "3"], ["3"])


ODD = [
    '12" pan',
    "a*b",
    "*",
    "back\\slash",
    "ends with\\",
    '\\"',
    '"',
    "a[*]",
    "$.x",
    "/",
    "~1",
    "new\nline",
    "'",
    " ",
    "ä\U0001f600",
]


@pytest.mark.parametrize("name", ODD)
def test_names_of_json_land_at_every_depth(sandbox: Sandbox, name: str) -> None:
    """Also those that mean something in the paths by which values are read."""
    good: list[dict[str, Any]] = [
        {"id": "1", name: 2**53 + 1, "o": {name: "2026-01-01"}, "l": [{name: 1}, {name: 5}], name + "s": ["x"]},
        {"id": "2", name: 7, "o": {name: "2026-01-02"}, "l": [{name: 2}], name + "s": []},
    ]
    assert sandbox.rows("p", PEOPLE, good).rejected_rows == 0
    bad: list[dict[str, Any]] = [
        {"id": "6"},
        {"id": "3", name: "x"},
        {"id": "4", "l": [{name: 1}, {name: "y"}]},
        {"id": "5", "o": {name: "z"}},
    ]
    assert [(row.row, row.message) for row in sandbox.rows("p", PEOPLE, bad).rejected] == [
        (2, f'{name}: "x" is not a whole number of 64 bits'),
        (3, f'l.{name}: "y" is not a whole number of 64 bits'),
        (4, f'o.{name}: "z" is not a date (YYYY-MM-DD)'),
    ]
    quoted = written_name(name)
    assert selected(sandbox, f"{quoted} = {2**53 + 1}") == ["1"]
    assert selected(sandbox, f"o.{quoted} = date(2026, 1, 2)") == ["2"]
    assert selected(sandbox, f"l.exists({quoted} = 5)") == ["1"]
    assert selected(sandbox, f'"x" in {written_name(name + "s")}') == ["1"]


def test_a_name_without_characters_costs_its_rows(sandbox: Sandbox) -> None:
    rows: list[dict[str, Any]] = [{"id": "1", "": 1}, {"id": "2", "o": [{"": {}}]}, {"id": "3", "o": [{"b": '"":'}]}]
    done = sandbox.rows("p", PEOPLE, rows)
    assert [(row.row, row.message) for row in done.rejected] == [
        (1, "the name of a field is empty"),
        (2, "the name of a field is empty"),
    ]
    assert done.row_count == 1


@pytest.mark.parametrize("name", ["file_row_number", "File_Row_Number"])
def test_a_column_named_like_the_row_number_of_parquet(sandbox: Sandbox, name: str) -> None:
    raw = io.BytesIO()
    pq.write_table(pa.table({"id": ["1", "", "2"], name: [7, 8, 9]}), raw)
    batch = sandbox.take("p", PEOPLE, raw.getvalue(), "PARQUET")
    assert (batch.row_count, [row.row for row in batch.rejected]) == (2, [2])
    assert (selected(sandbox, f"{name} = 7"), selected(sandbox, f"{name} = 9")) == (["1"], ["2"])
