"""Fill rates and frequent values of fields, compared with plain Python over the same rows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.engine.ingest.rows import user_fields
from app.engine.insight import fields
from app.engine.insight.fields import FieldStatistics, ValueCount, field_statistics
from app.engine.limits.pool import Cancelled
from app.engine.store.delta import DataFile, TableVersion, open_table
from app.engine.store.parquet_columns import open_file
from app.json_values import JsonScalar
from app.pql.schema import leaves
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def table_of(sandbox: Sandbox, dataset: str = "people") -> TableVersion:
    table = open_table(sandbox.lake.dataset(dataset))
    assert table is not None
    return table


def measured(table: TableVersion) -> dict[str, FieldStatistics]:
    paths = [path for path, _ in leaves(user_fields(table.schema))]
    answers = field_statistics(table, paths, threads=2, stopped=lambda: False)
    return {".".join(path): answers[path] for path in paths}


def values_at(value: object, names: Sequence[str]) -> list[Any]:
    """The values at a path of one row, objects in arrays followed."""
    if value is None:
        return []
    if isinstance(value, list):
        return [inner for item in value for inner in values_at(item, names)]
    if names:
        return values_at(value.get(names[0]), names[1:]) if isinstance(value, Mapping) else []
    return [value]


def expected(rows: Sequence[Mapping[str, Any]], path: str) -> FieldStatistics:
    found = [values_at(row, path.split(".")) for row in rows]
    counts = Counter(value for values in found for value in values)
    frequent = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    filled = sum(1 for values in found if values)
    return FieldStatistics(
        len(rows), filled, len(counts), tuple(ValueCount(*each) for each in frequent[: fields.MOST_VALUES]), True
    )


def person(number: int, random: Random) -> dict[str, Any]:
    """Any field may be missing, null, or an empty array or object."""
    row: dict[str, Any] = {"id": f"p{number}"}

    def maybe(value: object) -> object:
        return value if random.random() < 0.7 else None

    row["city"] = maybe(random.choice(["Rome", "Oslo", "Łódź", ""]))
    row["points"] = maybe(random.randrange(200))
    row["share"] = maybe(random.randrange(8) / 4)
    row["member"] = maybe(random.random() < 0.5)
    row["born"] = maybe(f"19{random.randrange(70, 99)}-0{random.randrange(1, 9)}-11")
    row["home"] = maybe({"country": maybe(random.choice(["US", "CA"])), "zip": maybe(random.choice("abc"))})
    row["tags"] = maybe([maybe(random.choice("xyz")) for _ in range(random.randrange(3))])
    row["orders"] = maybe(
        [
            maybe({"sku": maybe(random.choice("pqr")), "codes": maybe([random.choice("mn") for _ in range(2)])})
            for _ in range(random.randrange(3))
        ]
    )
    return {name: value for name, value in row.items() if value is not None or random.random() < 0.5}


PATHS = ["city", "points", "share", "member", "born", "home.country", "home.zip", "tags", "orders.sku", "orders.codes"]


@pytest.mark.usefixtures("real_buckets")
def test_each_field_as_plain_python_counts_it(sandbox: Sandbox) -> None:
    random = Random(20)
    batches = [[person(number, random) for number in range(first, first + 150)] for first in (0, 150, 300)]
    # Whole numbers become fractions, and a field comes that the earlier files do not have.
    batches[2][0] |= {"points": 0.5, "late": "here"}
    for batch in batches:
        sandbox.rows("people", PEOPLE, batch)
    rows = [row for batch in batches for row in batch]
    answers = measured(table_of(sandbox))
    assert {path: answers[path] for path in [*PATHS, "late"]} == {
        path: expected(rows, path) for path in [*PATHS, "late"]
    }


def test_a_map_is_filled_where_it_has_entries(sandbox: Sandbox) -> None:
    wide = {f"k{number}": number for number in range(300)}
    sandbox.rows(
        "people", PEOPLE, [{"id": "1", "m": wide}, {"id": "2", "m": {"a": 1}}, {"id": "3", "m": {}}, {"id": "4"}]
    )
    assert measured(table_of(sandbox))["m"] == FieldStatistics(4, 2, None, (), True)


def test_times_are_written_as_the_api_writes_them(sandbox: Sandbox) -> None:
    times = ["2026-01-01T10:00:00Z", "2026-01-01T10:00:00Z", "2026-01-01T12:00:00.25+01:00"]
    for batch in (times[:1], times[1:]):
        sandbox.rows("events", EVENTS, [{"id": "1", "timestamp": time, "day": "2026-02-03"} for time in batch])
    answers = measured(table_of(sandbox, "events"))
    assert answers["timestamp"].values == (
        ValueCount("2026-01-01T10:00:00Z", 2),
        ValueCount("2026-01-01T11:00:00.250000Z", 1),
    )
    assert answers["day"].values == (ValueCount("2026-02-03", 3),)


@pytest.mark.parametrize(("most", "distinct"), [(5, 5), (4, None)])
def test_too_many_different_values_are_not_counted(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, most: int, distinct: int | None
) -> None:
    """In one file or in several together."""
    monkeypatch.setattr(fields, "MOST_DISTINCT", most)
    for first in (0, 3):
        sandbox.rows("people", PEOPLE, [{"id": f"p{n}", "n": n % 5} for n in range(first, first + 3)])
    answer = measured(table_of(sandbox))["n"]
    assert (answer.filled, answer.distinct, len(answer.values)) == (6, distinct, distinct or 0)


def test_long_texts_are_left_out(sandbox: Sandbox) -> None:
    long, just = "x" * (fields.LONGEST + 1), "y" * fields.LONGEST
    sandbox.rows("people", PEOPLE, [{"id": str(n), "text": text} for n, text in enumerate([long, long, just])])
    answer = measured(table_of(sandbox))["text"]
    assert (answer.filled, answer.distinct, answer.values) == (3, 2, (ValueCount(just, 1),))


@pytest.mark.usefixtures("real_buckets")
def test_of_a_large_table_a_part_is_read_and_said(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.rows("people", PEOPLE, [{"id": str(number), "n": 1} for number in range(400)])
    table = table_of(sandbox)
    monkeypatch.setattr(fields, "MOST_ROWS", 100)
    chosen = sorted(table.files, key=lambda file: file.bucket)
    rows = 0
    for file in chosen:
        rows += file.rows
        if rows >= 100:
            break
    assert measured(table)["n"] == FieldStatistics(rows, rows, 1, (ValueCount(1, rows),), False)
    assert 100 <= rows < 400


def test_what_is_known_of_a_version_is_not_read_again(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def noted(path: Path, wanted: Any) -> Any:
        read.append(",".join(wanted.fields))
        return open_file(path, wanted)

    monkeypatch.setattr("app.engine.insight.fields.open_file", noted)
    sandbox.rows("people", PEOPLE, [{"id": "1", "a": "x", "b": "y"}])
    table = table_of(sandbox)
    for paths in ([("a",)], [("a",)], [("b",), ("a",)]):
        field_statistics(table, paths, threads=1, stopped=lambda: False)
    assert read == ["a", "b"]
    sandbox.rows("people", PEOPLE, [{"id": "1", "a": "z"}])
    newer = field_statistics(table_of(sandbox), [("a",)], threads=1, stopped=lambda: False)
    assert [each.value for each in newer[("a",)].values] == ["x", "z"]


def test_the_least_recent_are_forgotten() -> None:
    def entry(value: JsonScalar) -> FieldStatistics:
        return FieldStatistics(1, 1, 1, (ValueCount(value, 1),), True)

    remembered = fields._Remembered(2 * fields._weight(entry("x")))
    table = TableVersion(Path("t"), 1, None, ())
    for name in ("a", "b"):
        remembered.put(table, (name,), entry(name))
    remembered.get(table, ("a",))
    remembered.put(table, ("c",), entry("c"))
    assert [remembered.get(table, (name,)) is not None for name in "abc"] == [True, False, True]


def test_it_stops_when_nobody_waits(sandbox: Sandbox) -> None:
    sandbox.rows("people", PEOPLE, [{"id": "1", "a": "x"}])
    with pytest.raises(Cancelled):
        field_statistics(table_of(sandbox), [("a",)], threads=1, stopped=lambda: True)


def test_a_part_of_a_dataset_is_of_whole_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """People of later generations are in the slots, too: without them the sample would be of old people."""
    monkeypatch.setattr(fields, "MOST_ROWS", 3)
    later = 1 << 14
    files = tuple(DataFile(str(bucket), bucket, 2) for bucket in (0, 1, 2, later, later + 1, later + 2))
    read = fields._files(TableVersion(Path("t"), 1, None, files))
    assert [file.bucket for file in read] == [0, later]
    monkeypatch.setattr(fields, "MOST_ROWS", 5)
    assert len(fields._files(TableVersion(Path("t"), 1, None, files))) == 4
