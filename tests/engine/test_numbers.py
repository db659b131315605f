"""Numbers land, are compared and come out as they were written, in every format and whatever batch came first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from threading import Barrier, get_ident
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from app.engine.ingest import identities
from app.engine.ingest.declared import declare
from app.engine.ingest.rows import Ingested
from app.engine.people.snapshot import open_snapshot
from app.engine.people.sources import Dataset
from app.errors import Refusal
from app.json_values import JsonObject
from tests.engine.test_ingest import record, types
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import RULE, selected, selected_of

EXACT = 2**53
FORMATS = ("CSV", "NDJSON", "PARQUET")


def take(sandbox: Sandbox, format: str, values: list[Any], dataset: str = "e") -> Ingested:
    """An event for each value, of the people 0, 1, …; one of the column `n`."""
    if format == "CSV":
        text = "".join(f"{at},2026-01-01,{value}\n" for at, value in enumerate(values))
        return sandbox.csv(dataset, EVENTS, "id,timestamp,n\n" + text)
    rows = [{"id": str(at), "timestamp": "2026-01-01", "n": value} for at, value in enumerate(values)]
    if format == "NDJSON":
        return sandbox.rows(dataset, EVENTS, rows)
    path = sandbox.folder / "n.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return sandbox.take(dataset, EVENTS, path.read_bytes(), "PARQUET")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("first", [None, [1, 2]])
def test_whole_numbers_above_2_53_stay_apart(sandbox: Sandbox, format: str, first: list[int] | None) -> None:
    if first:
        take(sandbox, format, first)
    assert take(sandbox, format, [EXACT, EXACT + 1, EXACT + 2, EXACT + 1]).rejected_rows == 0
    assert types(sandbox, "e")["n"] == "integer"
    assert selected(sandbox, f"xEvent.exists(n = {EXACT + 1})") == ["1", "3"]
    assert selected(sandbox, f"xEvent.exists(n > {EXACT} and n < {EXACT + 2})") == ["1", "3"]
    assert selected(sandbox, f"xEvent.n.intersects([{EXACT + 2}, 5])") == ["2"]
    assert selected(sandbox, f"xEvent.exists(n in [{EXACT + 1}, {EXACT + 2}])") == ["1", "2", "3"]
    assert selected(sandbox, f"xEvent.max(n) - 1 = {EXACT}") == ["1", "3"]
    assert selected(sandbox, f"xEvent.sum(n * 3) = {3 * EXACT + 3}") == (["1", "3"] if not first else ["0", "3"])


@pytest.mark.parametrize("format", FORMATS)
def test_distinct_groups_and_sums_of_large_whole_numbers(sandbox: Sandbox, format: str) -> None:
    take(sandbox, format, [EXACT, EXACT])
    take(sandbox, format, [EXACT + 1, EXACT])
    assert selected(sandbox, "xEvent.n.distinct().count() = 2") == ["0"]
    assert selected(sandbox, "xEvent.groupBy(n).count() = 2") == ["0"]
    assert selected(sandbox, f"xEvent.sum(n) = {2 * EXACT + 1}") == ["0"]
    assert selected(sandbox, f"xEvent.sum(n * 1024) = {2048 * EXACT}") == ["1"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_neither_64_bits_nor_a_double_hold_is_rejected(sandbox: Sandbox, format: str) -> None:
    take(sandbox, format, [2**63 - 1, -(2**63)])
    done = take(sandbox, format, [2**63, 7]) if format != "PARQUET" else take_unsigned(sandbox, [2**63, 7])
    assert [(row.row, row.message) for row in done.rejected] == [
        (1, 'n: "9223372036854775808" is not a whole number of 64 bits')
    ]
    assert selected(sandbox, f"xEvent.exists(n = {2**63 - 1})") == ["0"]
    assert selected(sandbox, f"xEvent.exists(n = -{2**63})") == ["1"]


def take_unsigned(sandbox: Sandbox, values: list[int]) -> Ingested:
    path = sandbox.folder / "u.parquet"
    columns = {"id": [str(at) for at in range(len(values))], "timestamp": ["2026-01-01"] * len(values)}
    pq.write_table(pa.table({**columns, "n": pa.array(values, pa.uint64())}), path)
    return sandbox.take("e", EVENTS, path.read_bytes(), "PARQUET")


@pytest.mark.parametrize("format", FORMATS)
def test_fractions_widen_small_whole_numbers(sandbox: Sandbox, format: str) -> None:
    take(sandbox, format, [1, 2])
    assert take(sandbox, format, [0.5, 2]).rejected_rows == 0
    assert types(sandbox, "e")["n"] == "number"
    assert selected(sandbox, "xEvent.sum(n) = 1.5") == ["0"]
    assert selected(sandbox, "xEvent.sum(n) = 4") == ["1"]


@pytest.mark.parametrize("format", FORMATS)
def test_fractions_beside_large_whole_numbers_are_rejected(sandbox: Sandbox, format: str) -> None:
    take(sandbox, format, [EXACT + 1, 2])
    done = take(sandbox, format, [0.5, 3])
    assert [(row.row, row.message) for row in done.rejected] == [(1, 'n: "0.5" is not a whole number of 64 bits')]
    assert selected(sandbox, f"xEvent.exists(n = {EXACT + 1})") == ["0"]
    assert selected(sandbox, "xEvent.sum(n) = 5") == ["1"]


def test_pages_and_views_show_large_whole_numbers(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "order": EXACT + 1, "o": {"list": [EXACT + 3]}, "price": 2.5}])
    assert record(sandbox, "1") == {"id": "1", "order": EXACT + 1, "o": {"list": [EXACT + 3]}, "price": 2.5}
    table = DeltaTable(sandbox.lake.dataset("p"))
    assert pa.schema(table.schema().to_arrow()).field("order").type == pa.int64()


BESIDE_P = replace(EVENTS, beside=("p",))
BESIDE_E = replace(EVENTS, beside=("e",))


@pytest.mark.parametrize("first", ["whole", "fractions"])
@pytest.mark.parametrize("deep", [False, True])
def test_whole_numbers_stay_apart_beside_fractions_of_another_dataset(sandbox: Sandbox, first: str, deep: bool) -> None:
    """The view has one column of both: what would be rounded in it is rejected, whichever came first."""

    def events(values: list[Any]) -> list[dict[str, Any]]:
        return [
            {"id": str(at), "timestamp": "2026-01-01", "n": {"l": [value]} if deep else value}
            for at, value in enumerate(values)
        ]

    whole = ("e", BESIDE_P, events([EXACT, EXACT + 1, 7]))
    fractions = ("p", BESIDE_E, events([0.5, 7, 8.0]))
    loads = [whole, fractions] if first == "whole" else [fractions, whole]
    rejected = [row for load in loads for row in sandbox.rows(*load).rejected]
    label = "n.l" if deep else "n"
    if first == "whole":
        assert [row.message for row in rejected] == [f'{label}: "0.5" is not a whole number of 64 bits']
    else:
        assert [row.message for row in rejected] == [
            f'{label}: "{EXACT + 1}" has more digits than a column with fractions holds: it would be rounded'
        ]
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("p", "EVENT"), Dataset("e", "EVENT")])
    name = "xEvent.n.l" if deep else "xEvent.n"
    assert selected_of(snapshot, f"{EXACT + 1} in {name}") == (["1"] if first == "whole" else [])
    assert selected_of(snapshot, f"{EXACT} in {name}") == ["0"]
    assert selected_of(snapshot, f"8 in {name}") == ["2"]


def test_small_whole_numbers_and_fractions_of_two_datasets_meet(sandbox: Sandbox) -> None:
    assert sandbox.csv("e", BESIDE_P, "id,timestamp,n\n1,2026-01-01,5\n").rejected_rows == 0
    assert sandbox.csv("p", BESIDE_E, "id,timestamp,n\n1,2026-01-01,0.5\n").rejected_rows == 0
    assert sandbox.csv("e", BESIDE_P, "id,timestamp,n\n2,2026-01-01,6\n").rejected_rows == 0
    assert types(sandbox, "e")["n"] == "number"


def test_a_bad_value_does_not_keep_a_column_from_widening(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "1", "n": 1, "d": "2026-01-01", "l": ["2026-01-01"], "o": {"n": 1}}])
    rows: list[dict[str, Any]] = [
        {"id": "2", "n": 1.5},
        {"id": "3", "n": "x"},
        {"id": "4", "d": "2026-01-01T10:00:00Z"},
        {"id": "5", "d": "x"},
        {"id": "6", "l": ["2026-01-01T10:00:00Z"]},
        {"id": "7", "l": ["2026-01-01", "x"]},
        {"id": "8", "o": {"n": 0.5}},
        {"id": "9", "o": {"n": True}},
    ]
    done = sandbox.rows("p", PEOPLE, rows)
    assert [row.row for row in done.rejected] == [2, 4, 6, 8]
    assert done.row_count == 4
    assert types(sandbox, "p") == {
        "d": "timestamp", "id": "string", "l": "array<timestamp>", "n": "number", "o.n": "number",
    }  # fmt: skip


def test_sums_of_whole_numbers_and_fractions_are_compared_exactly(sandbox: Sandbox) -> None:
    """A sum past 2^53 is a double, and equals the whole number that it is, not the next one."""
    sandbox.rows("p", PEOPLE, [{"id": "1", "n": EXACT, "l": [EXACT + 1, 10]}, {"id": "2", "n": 5, "l": [5]}])
    assert selected(sandbox, f"n + 0.3 = {EXACT + 1}") == []
    assert selected(sandbox, f"n + 0.3 = {EXACT}") == ["1"]
    assert selected(sandbox, "n + 0.3 in l") == []
    assert selected(sandbox, f"n + 0.3 in [{EXACT}, 5.3]") == ["1", "2"]
    assert selected(sandbox, f"n + 0.3 < {EXACT + 1}") == ["1", "2"]


# ---------------------------------------------------------------- loads at the same instant

_FRACTIONS = "id,timestamp,n\n0,2026-01-01,0.5\n1,2026-01-01,7\n2,2026-01-01,8.0\n"
_WHOLE = f"id,timestamp,n\n0,2026-01-01,{EXACT}\n1,2026-01-01,{EXACT + 1}\n2,2026-01-01,7\n"


def _interrupted(monkeypatch: pytest.MonkeyPatch, other: Callable[[], object]) -> None:
    """Once, between the reading of a file and its commit, the other load happens from its beginning to its end."""
    assign, calls = identities.assign, count()

    def assigned(*arguments: Any) -> int:
        if next(calls) == 0:
            other()
        return assign(*arguments)

    monkeypatch.setattr(identities, "assign", assigned)


@pytest.mark.parametrize("known", [True, False], ids=["known before", "created meanwhile"])
@pytest.mark.parametrize("first", ["whole", "fractions"])
def test_the_load_that_commits_later_gives_way(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, first: str, known: bool
) -> None:
    """Both were read before the other was there: neither rounds the other's numbers in the view of both."""
    shape = BESIDE_P if known else EVENTS
    texts = [_WHOLE, _FRACTIONS] if first == "whole" else [_FRACTIONS, _WHOLE]
    _interrupted(monkeypatch, lambda: sandbox.csv("p", BESIDE_E, texts[0]))
    late = sandbox.csv("e", shape, texts[1])
    message = (
        'n: "0.5" is not a whole number of 64 bits'
        if first == "whole"
        else f'n: "{EXACT + 1}" has more digits than a column with fractions holds: it would be rounded'
    )
    assert [row.message for row in late.rejected] == [message]
    assert (late.row_count, late.rejected_rows, late.new_profiles) == (2, 1, 0)
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("p", "EVENT"), Dataset("e", "EVENT")])
    assert selected_of(snapshot, f"{EXACT + 1} in xEvent.n") == (["1"] if first == "whole" else [])
    assert selected_of(snapshot, f"{EXACT} in xEvent.n") == ["0"]
    assert selected_of(snapshot, "0.5 in xEvent.n") == ([] if first == "whole" else ["0"])


def test_profiles_of_a_file_that_was_read_again_count_once(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    _interrupted(monkeypatch, lambda: sandbox.csv("p", BESIDE_E, _WHOLE))
    assign = identities.assign
    calls: list[int] = []

    def assigned(*arguments: Any) -> int:
        calls.append(assign(*arguments))
        return calls[-1]

    monkeypatch.setattr(identities, "assign", assigned)
    late = sandbox.csv("e", BESIDE_P, "id,timestamp,n\nnew,2026-01-01,1\n0,2026-01-01,0.5\n")
    assert (late.new_profiles, late.row_count, calls[-2:]) == (1, 1, [1, 0])


def test_loads_in_two_threads_never_round(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have read their files before either commits."""
    assign, both = identities.assign, Barrier(2)
    waited: set[int] = set()

    def assigned(*arguments: Any) -> int:
        if get_ident() not in waited:
            waited.add(get_ident())
            both.wait(60)
        return assign(*arguments)

    monkeypatch.setattr(identities, "assign", assigned)
    with ThreadPoolExecutor(2) as threads:
        loads = [
            threads.submit(sandbox.csv, "e", BESIDE_P, _WHOLE),
            threads.submit(Sandbox.csv, _second(sandbox), "p", BESIDE_E, _FRACTIONS),
        ]
        rejected = [load.result().rejected_rows for load in loads]
    assert sorted(rejected) == [0, 1]
    snapshot = open_snapshot(sandbox.lake, RULE, [Dataset("p", "EVENT"), Dataset("e", "EVENT")])
    assert (selected_of(snapshot, f"{EXACT + 1} in xEvent.n") == []) is (rejected[0] == 1)
    assert selected_of(snapshot, f"{EXACT} in xEvent.n") == ["0"]


def _second(sandbox: Sandbox) -> Sandbox:
    """The same sandbox, with numbers of batches of its own."""
    second = Sandbox(sandbox.folder)
    second.batches = 500
    return second


def test_a_declared_whole_number_beside_fractions_is_never_rounded(sandbox: Sandbox) -> None:
    whole = {"type": "integer"}
    schema: JsonObject = {"type": "object", "properties": {"n": whole, "l": {"type": "array", "items": whole}}}
    declare(sandbox.lake, "e", BESIDE_P, schema)
    sandbox.rows("p", BESIDE_E, [{"id": "1", "timestamp": "2026-01-01", "n": 0.5, "l": [0.5]}])
    rows: list[dict[str, Any]] = [
        {"id": "2", "timestamp": "2026-01-01", "n": EXACT, "l": [EXACT]},
        {"id": "3", "timestamp": "2026-01-01", "n": -EXACT - 1},
        {"id": "4", "timestamp": "2026-01-01", "l": [1, EXACT + 1]},
    ]
    done = sandbox.rows("e", BESIDE_P, rows)
    rounded = "has more digits than a column with fractions holds (another dataset has some): it would be rounded"
    assert [(row.row, row.message) for row in done.rejected] == [
        (2, f'n: "{-EXACT - 1}" {rounded}'),
        (3, f'l: "{EXACT + 1}" {rounded}'),
    ]
    assert types(sandbox, "e")["n"] == "integer"


def test_a_declared_whole_number_is_looked_at_again_when_fractions_come_meanwhile(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(sandbox.lake, "e", BESIDE_P, {"type": "object", "properties": {"n": {"type": "integer"}}})
    _interrupted(monkeypatch, lambda: sandbox.csv("p", BESIDE_E, _FRACTIONS))
    assert sandbox.csv("e", BESIDE_P, _WHOLE).rejected_rows == 1
    assert types(sandbox, "e")["n"] == "integer"


def test_a_number_is_not_declared_beside_large_whole_numbers(sandbox: Sandbox) -> None:
    sandbox.csv("p", BESIDE_E, _WHOLE)
    with pytest.raises(Refusal, match="another dataset holds whole numbers past 2\\^53 in 'n'"):
        declare(sandbox.lake, "e", EVENTS, {"type": "object", "properties": {"n": {"type": "number"}}})
    declare(sandbox.lake, "e", EVENTS, {"type": "object", "properties": {"n": {"type": "integer"}}})


def test_profiles_and_events_do_not_meet(sandbox: Sandbox) -> None:
    """A field of a profile and one of an event are two columns of the view."""
    sandbox.csv("p", PEOPLE, f"id,n\n1,{EXACT + 1}\n")
    assert sandbox.csv("e", EVENTS, _FRACTIONS).rejected_rows == 0


def test_wide_rows_of_long_numbers_land_and_bad_ones_are_named(sandbox: Sandbox) -> None:
    """Each of 600 columns is looked at by row; the memory that this takes does not grow with their number."""
    wide: list[dict[str, Any]] = [
        {"id": str(row), **{f"c{at}": at + 0.12345678901234567 for at in range(600)}} for row in range(4)
    ]
    assert sandbox.rows("p", PEOPLE, wide).rejected_rows == 0
    wide[1] |= {"c120": "x", "c470": "y"}
    wide[2] |= {"c599": True}
    assert [(row.row, row.message) for row in sandbox.rows("p", PEOPLE, wide).rejected] == [
        (2, 'c120: "x" is not a number'),
        (3, 'c599: "true" is not a number'),
    ]
