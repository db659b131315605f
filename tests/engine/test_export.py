"""Rows of an export: who of a bucket, what of each, and batches that land whole or not at all."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from deltalake import DeltaTable
from pyroaring import BitMap

from app.engine.export.batches import clear, land, refuse_contradictions, withdraw
from app.engine.export.request import Audience, Batch, Events, Exported, Interval, What, Who
from app.engine.export.rows import Export
from app.engine.members.membership import Membership
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, find, open_snapshot
from app.errors import Refusal
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

RULE = MergeRule("default", "TIMESTAMP_ORDERED")
DATASETS = [Dataset("p", "PROFILE"), Dataset("e", "EVENT")]
EARLY, LATE = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 6, 15, 12, tzinfo=UTC)
ANYBODY, ALL, EVERYBODY = Who(()), What(), [Batch("b1")]


@pytest.fixture
def people(sandbox: Sandbox) -> Sandbox:
    """01 and 02 have a record, 01 and 03 events; 01 lives in Oslo with two tags, 02 has nothing but a name."""
    sandbox.rows(
        "p",
        PEOPLE,
        [
            {"id": "01", "name": "Ann", "home": {"city": "Oslo", "zip": "0150"}, "tags": ["a", "b"], "age": 31},
            {"id": "02", "name": "Bob"},
        ],
    )
    sandbox.rows(
        "e",
        EVENTS,
        [
            {"id": "03", "timestamp": "2026-05-03T00:00:00Z", "item": {"sku": "x"}, "amount": 3},
            {"id": "01", "timestamp": "2026-05-02T00:00:00Z", "item": {"sku": "y"}, "amount": 2},
            {"id": "01", "timestamp": "2026-05-01T00:00:00Z", "amount": 1},
        ],
    )
    return sandbox


def exported(
    sandbox: Sandbox,
    who: Who = ANYBODY,
    what: What = ALL,
    batches: Sequence[Batch] = EVERYBODY,
    members: Mapping[str, Mapping[str, Mapping[str, datetime]]] | None = None,
) -> tuple[Export, list[Exported]]:
    """What comes of all buckets; `members` are audience → status → person → time."""
    snapshot = open_snapshot(sandbox.lake, RULE, DATASETS)
    export = Export(snapshot, who, what, batches)
    folder = sandbox.lake.export("job")
    return export, [
        export.bucket(number, _memberships(sandbox, number, members or {}), folder, 1) for number in snapshot.buckets
    ]


def _memberships(sandbox: Sandbox, bucket: int, members: Any) -> dict[str, Membership]:
    found = {}
    for audience, by_status in members.items():
        cohorts: dict[datetime, BitMap] = {}
        sets = {"REALIZED": BitMap(), "EXISTING": BitMap(), "EXITED": BitMap()}
        for status, people in by_status.items():
            for person, at in people.items():
                place = find(sandbox.lake, "CRM", person)
                assert place is not None
                if place[0] == bucket:
                    sets[status].add(place[1])
                    cohorts.setdefault(at, BitMap()).add(place[1])
        present = sets["REALIZED"] | sets["EXISTING"]
        found[audience] = Membership(audience, 1, present, sets["REALIZED"], sets["EXITED"], tuple(cohorts.items()))
    return found


def rows(sandbox: Sandbox, columns: str = "*", batch: str = "b1") -> list[tuple[Any, ...]]:
    """What DuckDB, with no help of Delta's, reads of a batch that has not landed, by profile id."""
    files = sorted(str(path) for path in (sandbox.lake.export("job") / batch).glob("*.parquet"))
    if not files:
        return []
    with duckdb.connect() as database:
        database.execute("SET TimeZone = 'UTC'")
        return database.execute(f"SELECT {columns} FROM read_parquet({files}) ORDER BY profileId").fetchall()


def test_everybody_with_every_attribute_nested_as_in_the_data(people: Sandbox) -> None:
    export, found = exported(people)
    assert export.schema.names == [
        "__batch", "profileId", "identityMap", "id", "name", "home", "tags", "age", "segmentMembership"
    ]  # fmt: skip
    identity = {"CRM": [{"id": "01", "primary": True}]}
    assert rows(people)[0] == (
        "b1", "CRM:01", identity, "01", "Ann", {"city": "Oslo", "zip": "0150"}, ["a", "b"], 31.0, {}
    )  # fmt: skip
    assert [row[1:] for row in rows(people, "'', profileId, name, home, tags, age")] == [
        ("CRM:01", "Ann", {"city": "Oslo", "zip": "0150"}, ["a", "b"], 31.0),
        ("CRM:02", "Bob", None, None, None),
        ("CRM:03", None, None, None, None),
    ]
    assert sum(one.people for one in found) == sum(one.looked_at for one in found) == 3
    assert sum(file.rows for one in found for file in one.files.values()) == 3
    assert sum(one.by_namespace.get("CRM", 0) for one in found) == 3


def test_only_the_fields_asked_for_and_their_parents(people: Sandbox) -> None:
    export, _ = exported(people, what=What(frozenset({("home", "city"), ("age",)})))
    assert [name for name in export.schema.names if name in {"name", "home", "tags", "age"}] == ["home", "age"]
    assert rows(people, "profileId, home, age") == [
        ("CRM:01", {"city": "Oslo"}, 31.0),
        ("CRM:02", None, None),
        ("CRM:03", None, None),
    ]


@pytest.mark.parametrize(
    ("who", "expected"),
    [
        (Who((), with_record=True), ["CRM:01", "CRM:02"]),
        (Who((), ingested_since=datetime(2100, 1, 1, tzinfo=UTC)), []),
        (Who((), ingested_since=EARLY), ["CRM:01", "CRM:02", "CRM:03"]),
        (Who((Audience("s", "n", "s"),), members_only=True), ["CRM:01", "CRM:02", "CRM:03"]),
        (Who((Audience("s", "n", "s", frozenset({"REALIZED", "EXISTING"})),), members_only=True), ["CRM:01", "CRM:02"]),
        (Who((Audience("s", "n", "s", frozenset({"EXITED"})),), members_only=True), ["CRM:03"]),
        (Who((Audience("s", "n", "s"),), True, Interval(start=LATE)), ["CRM:01"]),
        (Who((Audience("s", "n", "s"),), True, Interval(end=EARLY)), ["CRM:02", "CRM:03"]),
        (Who((Audience("s", "n", "s"),), True, with_record=True), ["CRM:01", "CRM:02"]),
        (Who((Audience("nobody's", "n", "t"),), True), []),
    ],
)
def test_who_is_written(people: Sandbox, who: Who, expected: list[str]) -> None:
    members = {"s": {"REALIZED": {"01": LATE}, "EXISTING": {"02": EARLY}, "EXITED": {"03": EARLY}}}
    _, found = exported(people, who, members=members)
    assert [row[0] for row in rows(people, "profileId")] == expected
    assert sum(one.people for one in found) == len(expected)


def test_memberships_are_maps_of_maps_and_hold_what_was_asked_for(people: Sandbox) -> None:
    audiences = (
        Audience("a2", "AEPSegments", "a2"),
        Audience("x1", "CRM list", "vip", frozenset({"REALIZED"})),
        Audience("a1", "AEPSegments", "a1", frozenset({"EXISTING", "REALIZED"})),
    )
    members = {
        "a1": {"REALIZED": {"01": LATE}, "EXITED": {"02": EARLY}},
        "a2": {"EXISTING": {"01": EARLY}, "EXITED": {"02": EARLY}},
        "x1": {"REALIZED": {"01": EARLY}},
        "other": {"REALIZED": {"03": EARLY}},
    }
    exported(people, Who(audiences), members=members)
    late, early = "2026-06-15 12:00:00+00", "2026-06-01 00:00:00+00"
    found = dict(rows(people, "profileId, segmentMembership::VARCHAR"))
    assert {person: text.replace(late, "LATE").replace(early, "EARLY") for person, text in found.items()} == {
        "CRM:01": "{AEPSegments={a1={'status': REALIZED, 'lastQualificationTime': 'LATE'},"
        " a2={'status': EXISTING, 'lastQualificationTime': 'EARLY'}},"
        " CRM list={vip={'status': REALIZED, 'lastQualificationTime': 'EARLY'}}}",
        "CRM:02": "{AEPSegments={a2={'status': EXITED, 'lastQualificationTime': 'EARLY'}}}",
        "CRM:03": "{}",
    }


def test_a_batch_for_each_audience_holds_its_people_and_memberships_only(people: Sandbox) -> None:
    who = Who((Audience("s", "n", "s"), Audience("t", "n", "t"), Audience("u", "n", "u")), members_only=True)
    batches = [Batch("bs", frozenset("s")), Batch("bt", frozenset("t")), Batch("bu", frozenset("u"))]
    members = {"s": {"REALIZED": {"01": LATE, "02": LATE}}, "t": {"REALIZED": {"01": LATE}}}
    _, found = exported(people, who, batches=batches, members=members)
    columns = "__batch, profileId, map_keys(segmentMembership['n'])"
    assert rows(people, columns, "bs") == [("bs", "CRM:01", ["s"]), ("bs", "CRM:02", ["s"])]
    assert rows(people, columns, "bt") == [("bt", "CRM:01", ["t"])]
    assert rows(people, columns, "bu") == []
    assert sum(one.people for one in found) == 2


def test_events_come_oldest_first_with_the_fields_asked_for(people: Sandbox) -> None:
    exported(people, what=What(frozenset(), Events(frozenset({("item", "sku")}))))
    may = [datetime(2026, 5, day, tzinfo=UTC) for day in range(4)[1:]]
    assert rows(people, "profileId, list_transform(xEvent, lambda e: epoch_ms(e.timestamp)), xEvent") == [
        (
            "CRM:01",
            [int(may[0].timestamp() * 1000), int(may[1].timestamp() * 1000)],
            [{"timestamp": may[0], "item": None}, {"timestamp": may[1], "item": {"sku": "y"}}],
        ),
        ("CRM:02", [], []),
        ("CRM:03", [int(may[2].timestamp() * 1000)], [{"timestamp": may[2], "item": {"sku": "x"}}]),
    ]


def test_events_are_chosen_by_the_time_they_were_ingested(people: Sandbox) -> None:
    between = datetime.now(UTC)
    people.rows("e", EVENTS, [{"id": "02", "timestamp": "2026-05-01T00:00:00Z", "amount": 9}])
    for interval, expected in [
        (Interval(), [2, 1, 1]),
        (Interval(start=between), [0, 1, 0]),
        (Interval(end=between), [2, 0, 1]),
        (Interval(start=datetime.now(UTC)), [0, 0, 0]),
    ]:
        clear(people.lake, "job")
        exported(people, what=What(frozenset(), Events(None, interval)))
        assert [row[0] for row in rows(people, "len(xEvent)")] == expected, interval


def test_attributes_that_differ_only_in_case_are_both_exported(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "01", "city": "Ulm", "City": "Rom", "o": {"x": 1, "X": 2}}])
    exported(sandbox)
    assert rows(sandbox, 'profileId, city, "City~case1", o') == [("CRM:01", "Ulm", "Rom", {"x": 1, "X~case1": 2})]


def test_an_attribute_with_the_name_of_one_of_our_columns_gets_an_underscore(sandbox: Sandbox) -> None:
    sandbox.rows("p", PEOPLE, [{"id": "01", "ProfileId": "mine", "profileid_": "theirs"}])
    exported(sandbox)
    assert rows(sandbox, "profileId, ProfileId__, profileid_") == [("CRM:01", "mine", "theirs")]


def test_rows_and_memberships_are_cut_into_row_groups(people: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {"s": {"REALIZED": {"01": LATE, "02": LATE, "03": EARLY}}}
    who, what = Who((Audience("s", "n", "s"),)), What(None, Events())
    exported(people, who, what, members=members)
    whole = rows(people)
    clear(people.lake, "job")
    monkeypatch.setattr("app.engine.export.rows._ROWS", 2)
    monkeypatch.setattr("app.engine.export.rows._PARTS", 2)
    exported(people, who, what, members=members)
    assert rows(people) == whole


def landed(sandbox: Sandbox, batch: str) -> int:
    """Lands what was written for a batch, and gives its rows."""
    export, found = exported(sandbox, batches=[Batch(batch)])
    files = [one.files[batch] for one in found]
    land(sandbox.lake, "target", "job", batch, export.schema, files)
    return sum(file.rows for file in files)


def visible(folder: Path) -> list[tuple[str, str]]:
    table = DeltaTable(folder).to_pyarrow_table(columns=["__batch", "profileId"])
    return sorted(zip(table["__batch"].to_pylist(), table["profileId"].to_pylist(), strict=True))


def test_a_batch_lands_in_one_commit_and_once(people: Sandbox) -> None:
    folder = people.lake.dataset("target")
    export, found = exported(people)
    files = [one.files["b1"] for one in found]
    for _ in range(2):
        land(people.lake, "target", "job", "b1", export.schema, files)
        assert visible(folder) == [("b1", "CRM:01"), ("b1", "CRM:02"), ("b1", "CRM:03")]
    assert DeltaTable(folder).version() == 1
    assert landed(people, "b2") == 3
    assert len(visible(folder)) == 6


def test_a_batch_that_was_half_moved_lands_whole(people: Sandbox) -> None:
    export, found = exported(people)
    files = [one.files["b1"] for one in found]
    target = people.lake.dataset("target") / files[0].name
    target.parent.mkdir(parents=True)
    (people.lake.export("job") / files[0].name).rename(target)
    land(people.lake, "target", "job", "b1", export.schema, files)
    assert len(visible(people.lake.dataset("target"))) == 3


def test_a_batch_without_rows_lands_too(people: Sandbox) -> None:
    export, _ = exported(people)
    land(people.lake, "target", "job", "empty", export.schema, [])
    assert visible(people.lake.dataset("target")) == []


def test_a_withdrawn_batch_leaves_nothing(people: Sandbox) -> None:
    landed(people, "b1")
    landed(people, "b2")
    withdraw(people.lake, "target", ["b1", "never landed"])
    folder = people.lake.dataset("target")
    assert visible(folder) == [("b2", "CRM:01"), ("b2", "CRM:02"), ("b2", "CRM:03")]
    assert sorted(path.name for path in folder.iterdir()) == ["_delta_log", "b2"]


def test_columns_widen_and_types_that_contradict_are_refused(people: Sandbox) -> None:
    export, found = exported(people, what=What(frozenset({("age",)})))
    land(people.lake, "target", "job", "b1", export.schema, [one.files["b1"] for one in found])
    landed(people, "b2")
    table = DeltaTable(people.lake.dataset("target")).to_pyarrow_table(columns=["__batch", "name"])
    assert sorted(zip(table["__batch"].to_pylist(), map(str, table["name"].to_pylist()), strict=True)) == [
        ("b1", "None"), ("b1", "None"), ("b1", "None"), ("b2", "Ann"), ("b2", "Bob"), ("b2", "None")
    ]  # fmt: skip
    other = Sandbox(people.folder / "other")
    (people.folder / "other").mkdir()
    other.rows("p", PEOPLE, [{"id": "01", "age": "old"}])
    contradicting = Export(open_snapshot(other.lake, RULE, DATASETS), Who(()), What(), EVERYBODY)
    with pytest.raises(Refusal) as caught:
        refuse_contradictions(people.lake, "target", contradicting.schema)
    assert caught.value.message.startswith("the column 'age' has another type in the dataset than in the data now")
    refuse_contradictions(people.lake, "target", export.schema)


def test_snapshot_of_nobody_has_nothing_to_write(sandbox: Sandbox) -> None:
    export, found = exported(sandbox)
    assert isinstance(export.snapshot, Snapshot)
    assert (found, export.schema.names) == ([], ["__batch", "profileId", "identityMap", "segmentMembership"])
