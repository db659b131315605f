"""The merged view, snapshots and pages."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from app.engine.ingest.batch import delete_dataset, ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.notes import withdraw_batch
from app.engine.ingest.rows import DatasetShape
from app.engine.limits.pool import Cancelled
from app.engine.people import merged_view
from app.engine.people.merged_view import refresh
from app.engine.people.profiles import (
    Dataset,
    Identity,
    Key,
    MergeRule,
    Snapshot,
    find,
    open_snapshot,
    reopen,
    schema_of,
)
from app.engine.store.bucket import Needs
from app.engine.store.delta import TableVersion, open_table
from app.json_values import JsonValue
from app.pql.syntax.paths import leaf_paths
from tests.support.sandbox import CDNOW, EVENTS, PEOPLE, PURCHASES, Sandbox

NEWEST = MergeRule("newest", "TIMESTAMP_ORDERED")
A, B, E = Dataset("a", "PROFILE"), Dataset("b", "PROFILE"), Dataset("e", "EVENT")


def key(sandbox: Sandbox, person: str, namespace: str = "CRM") -> Key:
    found = find(sandbox.lake, namespace, person)
    assert found is not None
    return found


def merged(sandbox: Sandbox, rule: MergeRule, person: str) -> dict[str, Any]:
    found = open_snapshot(sandbox.lake, rule, [A, B, E]).attributes([key(sandbox, person)], None)[0]
    return {name: value for name, value in found.items() if name != "identityMap"}


FIRST = {"id": "1", "name": {"first": "Ann", "last": "Old"}, "tags": ["a"], "tier": "gold", "only": {"a": 1}}
SECOND = {"id": "1", "name": {"first": None, "last": "New"}, "tags": ["b"], "tier": None, "points": 5}


@pytest.mark.parametrize(
    ("rule", "order", "expected"),
    [
        (
            NEWEST,
            "ab",
            {"name": {"first": "Ann", "last": "New"}, "tags": ["b"], "tier": "gold", "points": 5, "only": {"a": 1}},
        ),
        (
            NEWEST,
            "ba",
            {"name": {"first": "Ann", "last": "Old"}, "tags": ["a"], "tier": "gold", "points": 5, "only": {"a": 1}},
        ),
        (
            MergeRule("p", "DATA_SET_PRECEDENCE", ("b", "a")),
            "ba",
            {"name": {"first": "Ann", "last": "New"}, "tags": ["b"], "tier": "gold", "points": 5, "only": {"a": 1}},
        ),
        (
            MergeRule("p", "DATA_SET_PRECEDENCE", ("a", "b")),
            "ab",
            {"name": {"first": "Ann", "last": "Old"}, "tags": ["a"], "tier": "gold", "points": 5, "only": {"a": 1}},
        ),
        (MergeRule("p", "DATA_SET_PRECEDENCE", ("b",)), "ab", {"name": {"last": "New"}, "tags": ["b"], "points": 5}),
    ],
)
def test_who_wins(sandbox: Sandbox, rule: MergeRule, order: str, expected: dict[str, Any]) -> None:
    for dataset in order:
        sandbox.rows(dataset, PEOPLE, [FIRST if dataset == "a" else SECOND])
    assert merged(sandbox, rule, "1") == {"id": "1", **expected}


def test_a_record_with_a_time_of_its_own_is_as_new_as_it_says(sandbox: Sandbox) -> None:
    timed = DatasetShape("PROFILE", "id", "CRM", "changed")
    sandbox.csv("a", timed, "id,changed,tier\n1,2099-01-01,gold\n2,2020-01-01,gold\n")
    sandbox.csv("b", PEOPLE, "id,tier\n1,silver\n2,silver\n")
    assert merged(sandbox, NEWEST, "1")["tier"] == "gold"
    assert merged(sandbox, NEWEST, "2")["tier"] == "silver"


def test_where_datasets_disagree_on_a_type_the_first_one_wins(sandbox: Sandbox) -> None:
    sandbox.csv("a", PEOPLE, "id,v\n1,5\n")
    sandbox.csv("b", PEOPLE, "id,v\n1,x\n2,y\n")
    assert dict(leaf_paths(schema_of(sandbox.lake, [A, B])))["v"] == "number"
    assert merged(sandbox, NEWEST, "1") == {"id": "1", "v": 5}
    assert merged(sandbox, NEWEST, "2") == {"id": "2"}


def test_identities_come_from_the_column_and_from_the_records(sandbox: Sandbox) -> None:
    email = {"id": "a@x", "primary": True}
    sandbox.rows("a", PEOPLE, [{"id": "1", "identityMap": {"Email": [email, {"id": "b@x"}], "CRM": [{"id": "1"}]}}])
    sandbox.rows("b", PEOPLE, [{"id": "1", "identityMap": {"Email": [email], "ECID": [{"id": "e"}]}}, {"id": "2"}])
    sandbox.csv("e", EVENTS, "id,timestamp\n3,2026-01-01\n")
    snapshot = open_snapshot(sandbox.lake, NEWEST, [A, B, E])
    keys = [key(sandbox, person) for person in "123"]
    people = snapshot.people([*keys, (keys[0][0], 99), (3_000, 0)])
    assert [person.profile_id if person else None for person in people] == ["CRM:1", "CRM:2", "CRM:3", None, None]
    assert [person.identities if person else () for person in people[:3]] == [
        (
            Identity("CRM", "1", True),
            Identity("Email", "a@x", True),
            Identity("Email", "b@x", False),
            Identity("ECID", "e", False),
        ),
        (Identity("CRM", "2", True),),
        (Identity("CRM", "3", True),),
    ]
    bucket, ordinal = keys[0]
    assert {name for name, members in snapshot.namespaces(bucket).items() if ordinal in members} == {
        "CRM",
        "Email",
        "ECID",
    }
    assert sum(len(snapshot.namespaces(bucket)["CRM"]) for bucket in snapshot.buckets) == 3
    assert sum(len(snapshot.namespaces(bucket).get("Email", ())) for bucket in snapshot.buckets) == 1


@pytest.mark.usefixtures("real_buckets")
def test_only_touched_buckets_are_rebuilt(sandbox: Sandbox) -> None:
    purchases = Dataset("purchases", "EVENT")
    ingest(sandbox.lake, "purchases", PURCHASES, InputFile(CDNOW, "CSV"), "b")
    _, before = refresh(sandbox.lake, NEWEST, [purchases, A])
    sandbox.csv("a", PEOPLE, "id,v\n00001,5\n")
    _, after = refresh(sandbox.lake, NEWEST, [purchases, A])
    assert before.table is not None
    assert after.table is not None
    changed = {file.bucket for file in {*after.table.files} - {*before.table.files}}
    assert changed == {key(sandbox, "00001")[0]}
    assert len(after.table.files) == 16
    assert refresh(sandbox.lake, NEWEST, [purchases, A])[1].table == after.table


def test_events_of_people_who_are_there_leave_the_view_as_it_is(sandbox: Sandbox) -> None:
    sandbox.csv("a", PEOPLE, "id,v\n" + "".join(f"{person},5\n" for person in range(50)))
    sandbox.csv("e", EVENTS, "id,timestamp\n1,2026-01-01\n")
    before = _view(sandbox)
    sandbox.csv("e", EVENTS, "id,timestamp\n" + "".join(f"{person},2026-01-02\n" for person in range(50)))
    assert _view(sandbox) == before
    sandbox.csv("e", EVENTS, "id,timestamp\n" + "".join(f"{person},2026-01-03\n" for person in range(51)))
    after = _view(sandbox)
    assert (_people(before), _people(after)) == (50, 51)
    assert {file.bucket for file in {*after.files} - {*before.files}} == {key(sandbox, "50")[0]}
    assert _view(sandbox) == after


def test_who_is_there_by_events_alone_goes_with_them(sandbox: Sandbox) -> None:
    sandbox.csv("a", PEOPLE, "id,v\n" + "".join(f"{person},5\n" for person in range(50)))
    sandbox.csv("e", EVENTS, "id,timestamp\n50,2026-01-01\n")
    sandbox.csv("e", EVENTS, "id,timestamp\n50,2026-01-02\n")
    assert _people(_view(sandbox)) == 51
    sandbox.csv("e", EVENTS, "id,timestamp\n50,2026-01-03\n")
    for batch, people in (("batch-002", 51), ("batch-003", 51), ("batch-004", 50)):
        withdraw_batch(sandbox.lake, "e", batch)
        assert _people(_view(sandbox)) == people


def test_a_view_beside_which_many_files_of_events_came_is_built_anew(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merged_view, "_MOST_BESIDE", 2)
    sandbox.csv("a", PEOPLE, "id,v\n1,5\n")
    versions = []
    for day in range(1, 8):
        sandbox.csv("e", EVENTS, f"id,timestamp\n1,2026-01-0{day}\n")
        versions.append(_view(sandbox).version)
    first = versions[0]
    assert versions == [first, first, first, first + 1, first + 1, first + 1, first + 2]


def _view(sandbox: Sandbox) -> TableVersion:
    table = refresh(sandbox.lake, NEWEST, [A, E])[1].table
    assert table is not None
    return table


def _people(view: TableVersion) -> int:
    return sum(file.rows for file in view.files)


def contents(snapshot: Snapshot) -> list[tuple[int, list[dict[str, Any]], list[int], list[dict[str, Any]]]]:
    needs = Needs(frozenset({("v",)}), frozenset({("n",), ("timestamp",)}), True)
    read = [snapshot.read(bucket, needs) for bucket in snapshot.buckets]
    return [(b.number, b.profiles.to_pylist(), b.event_rows.tolist(), b.events.to_pylist()) for b in read]


def test_a_snapshot_stays_as_it_was_also_when_opened_again(sandbox: Sandbox) -> None:
    sandbox.csv("a", PEOPLE, "id,v\n1,5\n")
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-01,1\n2,2026-01-01,2\n")
    old = open_snapshot(sandbox.lake, NEWEST, [A, B, E])
    before = contents(old)
    sandbox.csv("a", PEOPLE, "id,v\n1,6\n9,9\n")
    sandbox.csv("b", PEOPLE, "id,v\n1,7\n")
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-02,3\n")
    new = open_snapshot(sandbox.lake, NEWEST, [A, B, E])
    again = reopen(sandbox.lake, NEWEST, [A, B, E], old.pinned)
    assert contents(old) == contents(again) == before
    assert (old.total_profiles, again.total_profiles, new.total_profiles) == (2, 2, 3)
    assert again.schema == old.schema
    assert contents(new) != before


def test_events_of_several_files_and_datasets_come_in_order(sandbox: Sandbox) -> None:
    other = Dataset("other", "EVENT")
    row = {"id": "1", "timestamp": "2026-01-02T00:00:00Z"}
    sandbox.rows("e", EVENTS, [{**row, "_id": "d", "n": 4}, {**row, "_id": "b", "n": 2, "o": {"x": "p"}}])
    sandbox.rows("e", EVENTS, [{**row, "_id": "a", "n": 1}, {**row, "timestamp": "2026-01-01", "_id": "z", "n": 0}])
    sandbox.rows(
        "other", EVENTS, [{**row, "_id": "c", "n": 3, "o": {"y": "q"}}, {**row, "id": "2", "_id": "q", "n": 9}]
    )
    snapshot = open_snapshot(sandbox.lake, NEWEST, [E, other])
    bucket, ordinal = key(sandbox, "1")
    read = snapshot.read(bucket, Needs(frozenset(), frozenset({("n",), ("o", "y"), ("o", "x")}), True))
    mine = np.flatnonzero(read.ordinals[read.event_rows] == ordinal)
    assert read.events["n"].to_numpy()[mine].tolist() == [0, 1, 2, 3, 4]
    assert [read.events["o"][int(i)].as_py() for i in mine] == [
        None,
        None,
        {"y": None, "x": "p"},
        {"y": "q", "x": None},
        None,
    ]
    assert (np.diff(read.event_rows) >= 0).all()


def test_only_what_is_needed_is_read(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [{"id": "1", "o": {"x": 1, "y": {"z": "t", "w": 2}}, "l": [{"p": 1, "q": "u"}], "v": 5}])
    snapshot = open_snapshot(sandbox.lake, NEWEST, [A, E])
    bucket, _ = key(sandbox, "1")
    read = snapshot.read(bucket, Needs(frozenset({("o", "y", "z"), ("l", "q"), ("identityMap",), ("xEvent", "n")})))
    assert read.profiles.select(["o", "l"]).to_pylist() == [{"o": {"y": {"z": "t"}}, "l": [{"q": "u"}]}]
    assert set(read.profiles.column_names) == {"o", "l", "identityMap"}
    nothing = snapshot.read(bucket, Needs(events=True))
    assert (nothing.profiles.num_rows, nothing.profiles.num_columns, len(nothing.event_rows)) == (1, 0, 0)
    assert snapshot.attributes([key(sandbox, "1")], [("o", "y", "w"), ("v",), ("absent",)]) == [
        {"o": {"y": {"w": 2}}, "v": 5}
    ]


def test_pages_of_events_meet_without_gap_or_repetition(sandbox: Sandbox) -> None:
    days = [f"2026-01-{1 + n // 3:02d}" for n in range(20)]
    sandbox.csv(
        "e", EVENTS, "id,timestamp,n\n" + "".join(f"1,{day},{n}\n" for n, day in enumerate(days)) + "2,2026-01-01,99\n"
    )
    sandbox.csv("e", EVENTS, "id,timestamp,n\n1,2026-01-03,20\n")
    snapshot = open_snapshot(sandbox.lake, NEWEST, [E])
    one, two = key(sandbox, "1"), key(sandbox, "2")
    seen: list[tuple[datetime, JsonValue]] = []
    after, more = None, True
    while more:
        (page,) = snapshot.events([one], limit=4, place=after, paths=[("n",)])
        seen += [(event.timestamp, event.attributes["n"]) for event in page.items]
        after, more = (page.items[-1].timestamp, page.items[-1].event_id), page.more
    assert sorted(str(n) for _, n in seen) == sorted(map(str, range(21)))
    assert [at for at, _ in seen] == sorted((at for at, _ in seen), reverse=True)
    assert seen[0] == (datetime(2026, 1, 7, tzinfo=UTC), 19)
    assert snapshot.event_counts([two, one, (two[0], 10_000)]) == [1, 21, 0]
    pages = snapshot.events([two, one], limit=1, place=None)
    assert [page.more for page in pages] == [False, True]


def test_a_type_that_left_with_its_dataset_leaves_the_view_too(sandbox: Sandbox) -> None:
    sandbox.csv("a", PEOPLE, "id,v\n1,5\n")
    sandbox.csv("b", PEOPLE, "id,v\n1,x\n2,y\n")
    old = open_snapshot(sandbox.lake, NEWEST, [A, B])
    delete_dataset(sandbox.lake, "a")
    assert merged(sandbox, NEWEST, "1") == {"id": "1", "v": "x"}
    assert old.attributes([key(sandbox, "1")], [("v",)]) == [{"v": 5}]


def test_an_empty_sandbox_has_nobody(sandbox: Sandbox) -> None:
    snapshot = open_snapshot(sandbox.lake, NEWEST, [A, E])
    assert (snapshot.buckets, snapshot.total_profiles) == ((), 0)
    assert dict(leaf_paths(snapshot.schema)).keys() == {"identityMap", "segmentMembership", "xEvent.timestamp"}
    assert find(sandbox.lake, "CRM", "1") is None
    assert snapshot.people([(0, 0)]) == [None]
    assert snapshot.attributes([(0, 0)], None) == [{}]
    assert snapshot.read(0, Needs(events=True)).profiles.num_rows == 0
    assert reopen(sandbox.lake, NEWEST, [A, E], snapshot.pinned).total_profiles == 0
    assert open_table(sandbox.lake.views("newest") / "1") is None


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("real_buckets")
def test_a_view_that_is_given_up_goes_on_where_it_was(sandbox: Sandbox, threads: int) -> None:
    sandbox.take("e", PURCHASES, CDNOW.read_bytes(), "CSV")
    told: list[tuple[int, ...]] = []

    def tell(*figures: int) -> None:
        told.append(figures)
        if len(told) == 6 and figures[0] == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        refresh(sandbox.lake, NEWEST, [E], told=tell, threads=threads)
    assert told == [(built, 16, 16) for built in range(6)]
    told.clear()
    found, view = refresh(sandbox.lake, NEWEST, [E], told=lambda *figures: told.append(figures), threads=threads)
    assert told == [(built, 11, 16) for built in range(12)]
    assert Snapshot(found, view).total_profiles == 23_570
    told.clear()
    refresh(sandbox.lake, NEWEST, [E], told=lambda *figures: told.append(figures))
    assert told == [(0, 0, 16)]


def test_a_damaged_view_is_made_anew(sandbox: Sandbox) -> None:
    """Each file of the view with a bit flipped anywhere, or cut, or gone, or its log: the next reader gets the same."""
    sandbox.rows("a", PEOPLE, [{"id": "1", "city": "Berlin"}])
    rule, datasets = MergeRule("plain", "TIMESTAMP_ORDERED"), [Dataset("a", "PROFILE")]

    def shown() -> list[tuple[str, str]]:
        _, view = refresh(sandbox.lake, rule, datasets)
        assert view.table is not None
        return [
            (row["__profile"], row["city"])
            for path in view.table.paths()
            for row in pq.ParquetFile(path).read().to_pylist()
        ]

    def damaged(content: bytes, place: int) -> bytes:
        return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]

    assert shown() == [("CRM:1", "Berlin")]
    size = len(_view_file(sandbox).read_bytes())
    for place in range(0, size, size // 25):
        file = _view_file(sandbox)
        file.write_bytes(damaged(file.read_bytes(), place))
        assert shown() == [("CRM:1", "Berlin")]
    file = _view_file(sandbox)
    file.write_bytes(file.read_bytes()[:-9])
    assert shown() == [("CRM:1", "Berlin")]
    _view_file(sandbox).unlink()
    assert shown() == [("CRM:1", "Berlin")]
    for log in sandbox.lake.views("plain").glob("1/_delta_log/*.json"):
        log.write_text("garbled")
    assert shown() == [("CRM:1", "Berlin")]


def _view_file(sandbox: Sandbox) -> Path:
    """The file in use."""
    table = open_table(sandbox.lake.views("plain") / "1")
    assert table is not None
    (path,) = table.paths()
    return path
