"""Persons of the identity graph: stitched alike in any order of batches, late links, and only what they touch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroaring import BitMap

from app.engine.ingest.batch import delete_dataset
from app.engine.ingest.rows import DatasetShape
from app.engine.people.identity_graph import components, graph_of
from app.engine.people.merged_view import refresh
from app.engine.people.profiles import Dataset, MergeRule, Snapshot, find, find_person, open_snapshot, reopen
from app.engine.people.stitching import stitched
from app.engine.store.bucket import Needs
from tests.support.sandbox import Sandbox

STITCHED = MergeRule("stitched", "TIMESTAMP_ORDERED", identity_graph="PDG")
APART = MergeRule("apart", "TIMESTAMP_ORDERED")
A, E = Dataset("a", "PROFILE"), Dataset("e", "EVENT")
PEOPLE = DatasetShape("PROFILE", "id", "CRM", "changed")
VISITS = DatasetShape("EVENT", "id", "ECID", "timestamp")


def person(id: str, emails: Iterable[str] = (), at: int = 1, **fields: Any) -> dict[str, Any]:
    named = {"identityMap": {"Email": [{"id": email} for email in emails]}} if emails else {}
    return {"id": id, "changed": f"2026-01-{at:02d}T00:00:00Z", **named, **fields}


def visit(id: str, at: int, emails: Iterable[str] = (), **fields: Any) -> dict[str, Any]:
    named = {"identityMap": {"Email": [{"id": email} for email in emails]}} if emails else {}
    return {"id": id, "timestamp": f"2026-02-{at:02d}T00:00:00Z", **named, **fields}


def everybody(snapshot: Snapshot) -> dict[frozenset[str], tuple[dict[str, Any], list[int]]]:
    """By the identities of each person: attributes, and the times of the events, oldest first."""
    found = {}
    for bucket in snapshot.buckets:
        read = snapshot.read(bucket, Needs(frozenset({("identityMap",)}), frozenset({("timestamp",)}), True))
        keys = [(bucket, int(ordinal)) for ordinal in read.ordinals]
        attributes = snapshot.attributes(keys, None)
        for row, (key, known) in enumerate(zip(keys, snapshot.people(keys), strict=True)):
            assert known is not None
            names = frozenset(f"{one.namespace}:{one.id}" for one in known.identities)
            assert known.profile_id in names
            times = [read.events["timestamp"][int(at)].as_py().day for at in np.flatnonzero(read.event_rows == row)]
            assert [event.timestamp.day for event in snapshot.events([key], limit=99, place=None)[0].items] == times[
                ::-1
            ]
            rest = {
                name: value for name, value in attributes[row].items() if name not in ("identityMap", "id", "changed")
            }
            found[names] = rest, times
    return found


def names(snapshot: Snapshot) -> set[frozenset[str]]:
    return set(everybody(snapshot))


def test_fragments_that_share_an_identity_are_one_person(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [person("1", ["x"], tier="gold"), person("2", ["x"], 2, city="Ulm"), person("3", ["y"])])
    sandbox.rows("e", VISITS, [visit("v", 3, ["x"]), visit("w", 4), visit("v", 1)])
    assert everybody(open_snapshot(sandbox.lake, STITCHED, [A, E])) == {
        frozenset({"CRM:1", "CRM:2", "ECID:v", "Email:x"}): ({"tier": "gold", "city": "Ulm"}, [1, 3]),
        frozenset({"CRM:3", "Email:y"}): ({}, []),
        frozenset({"ECID:w"}): ({}, [4]),
    }
    assert names(open_snapshot(sandbox.lake, APART, [A, E])) == {
        frozenset({"CRM:1", "Email:x"}),
        frozenset({"CRM:2", "Email:x"}),
        frozenset({"CRM:3", "Email:y"}),
        frozenset({"ECID:v"}),
        frozenset({"ECID:w"}),
    }


def test_a_late_link_joins_two_old_people_and_the_oldest_stays(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [person("1", ["x"], tier="gold")])
    first = open_snapshot(sandbox.lake, STITCHED, [A, E])
    sandbox.rows("a", PEOPLE, [person("2", ["y"], 2, city="Ulm")])
    sandbox.rows("e", VISITS, [visit("v", 3, ["y"]), visit("w", 4, ["x"])])
    second = open_snapshot(sandbox.lake, STITCHED, [A, E])
    keys = [key for id in "12" if (key := find_person(sandbox.lake, second, [A, E], "CRM", id)) is not None]
    assert keys[0] == find_person(sandbox.lake, first, [A, E], "CRM", "1")
    assert keys[0] != keys[1]
    assert second.total_profiles == 2
    sandbox.rows("a", PEOPLE, [person("3", ["x", "y"], 3)])
    third = open_snapshot(sandbox.lake, STITCHED, [A, E])
    everyone = frozenset({"CRM:1", "CRM:2", "CRM:3", "ECID:v", "ECID:w", "Email:x", "Email:y"})
    assert everybody(third) == {everyone: ({"tier": "gold", "city": "Ulm"}, [3, 4])}
    for name in everyone:
        assert find_person(sandbox.lake, third, [A, E], *name.split(":")) == keys[0]
    assert third.people([keys[0], keys[1]])[1] is None
    known = third.people([keys[0]])[0]
    assert known is not None
    assert known.profile_id == "CRM:1"
    assert {one.namespace + ":" + one.id for one in known.identities if one.primary} == everyone - {
        "Email:x",
        "Email:y",
    }
    # What was read before is as it was, also when it is opened again.
    for old in (second, reopen(sandbox.lake, STITCHED, [A, E], second.pinned)):
        assert everybody(old) == {
            frozenset({"CRM:1", "ECID:w", "Email:x"}): ({"tier": "gold"}, [4]),
            frozenset({"CRM:2", "ECID:v", "Email:y"}): ({"city": "Ulm"}, [3]),
        }


OURS = (
    *("bucket", "ordinal", "home", "person", "place", "label", "namespace", "old"),
    *("moved", "belongs", "given", "known", "row", "retired", "since"),
)
"""What columns and tables are called in queries about the graph."""


def test_fields_may_be_called_as_columns_of_the_graph(sandbox: Sandbox) -> None:
    """In records and events, when they are copied first and when a late link moves them."""
    values: dict[str, Any] = {name: {"name": name} if number % 2 else number for number, name in enumerate(OURS)}
    sandbox.rows("a", PEOPLE, [person("1", ["x"], **values)])
    sandbox.rows("e", VISITS, [visit("v", 3, ["y"], **values), visit("w", 4, ["x"], **values)])
    first = everybody(open_snapshot(sandbox.lake, STITCHED, [A, E]))
    assert first[frozenset({"CRM:1", "ECID:w", "Email:x"})] == (values, [4])
    sandbox.rows("a", PEOPLE, [person("3", ["x", "y"], 3, person={"name": "new"})])
    snapshot = open_snapshot(sandbox.lake, STITCHED, [A, E])
    everyone = frozenset({"CRM:1", "CRM:3", "ECID:v", "ECID:w", "Email:x", "Email:y"})
    assert everybody(snapshot) == {everyone: ({**values, "person": {"name": "new"}}, [3, 4])}


def test_nobody_stands_in_for_somebody_who_was_not_read(sandbox: Sandbox) -> None:
    """Before, between and behind those who were, in a bucket without any, and in one that was not read."""
    sandbox.rows("a", PEOPLE, [person(str(number)) for number in range(40)])
    snapshot = open_snapshot(sandbox.lake, APART, [A])
    bucket = max(snapshot.buckets, key=lambda one: len(snapshot.present(one)))
    ordinals = list(snapshot.present(bucket))
    everybody_there = snapshot.people([(bucket, ordinal) for ordinal in ordinals])
    assert len(ordinals) >= 5
    people = snapshot.people_in({bucket: BitMap(ordinals[1:4:2])}, threads=1)
    expected = [one if at in (1, 3) else None for at, one in enumerate(everybody_there)]
    assert people.at(bucket, [*ordinals, ordinals[-1] + 1]) == [*expected, None]
    assert people.at(bucket, ordinals[::-1]) == expected[::-1]
    nobody = snapshot.people_in({bucket: BitMap([ordinals[-1] + 7])}, threads=1)
    assert nobody.at(bucket, ordinals[:2]) == nobody.at(1 << 20, ordinals[:2]) == [None, None]


def test_an_identity_that_becomes_a_fragment_later(sandbox: Sandbox) -> None:
    emails = DatasetShape("PROFILE", "id", "Email", "changed")
    sandbox.rows("a", PEOPLE, [person("1", ["x"], tier="gold")])
    before = open_snapshot(sandbox.lake, STITCHED, [A, E, Dataset("m", "PROFILE")])
    sandbox.rows("m", emails, [person("x", (), 2, opened=True)])
    after = open_snapshot(sandbox.lake, STITCHED, [A, E, Dataset("m", "PROFILE")])
    assert everybody(before) == {frozenset({"CRM:1", "Email:x"}): ({"tier": "gold"}, [])}
    assert everybody(after) == {frozenset({"CRM:1", "Email:x"}): ({"tier": "gold", "opened": True}, [])}


def test_links_outlive_the_record_that_brought_them_and_go_with_their_dataset(sandbox: Sandbox) -> None:
    b = Dataset("b", "PROFILE")
    sandbox.rows("a", PEOPLE, [person("1", ["x"]), person("2", ["y"])])
    sandbox.rows("b", PEOPLE, [person("1", ["y"], 1, tier="gold")])
    sandbox.rows("b", PEOPLE, [person("1", (), 2, tier="red")])
    assert everybody(open_snapshot(sandbox.lake, STITCHED, [A, b])) == {
        frozenset({"CRM:1", "CRM:2", "Email:x", "Email:y"}): ({"tier": "red"}, [])
    }
    delete_dataset(sandbox.lake, "b")
    assert everybody(open_snapshot(sandbox.lake, STITCHED, [A])) == {
        frozenset({"CRM:1", "Email:x"}): ({}, []),
        frozenset({"CRM:2", "Email:y"}): ({}, []),
    }


@pytest.mark.usefixtures("real_buckets")
def test_only_touched_buckets_are_written(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [person(str(n), [f"m{n}"], tier="gold") for n in range(400)])
    sandbox.rows("e", VISITS, [visit(f"v{n}", 1 + n % 28, [f"m{n}"]) for n in range(400)])
    _, before = refresh(sandbox.lake, STITCHED, [A, E])
    graph = graph_of(sandbox.lake, ["a", "e"])
    copies = stitched(sandbox.lake, graph)
    first, second = (graph.find("CRM", id) for id in ("7", "300"))
    assert first is not None
    assert second is not None
    assert first[0] != second[0]
    sandbox.rows("e", VISITS, [visit("late", 28, ["m7", "m300"])])
    _, after = refresh(sandbox.lake, STITCHED, [A, E])
    later = graph_of(sandbox.lake, ["a", "e"])
    assert (later.version, later.born) == (graph.version + 1, graph.born)
    homes = {first[0], second[0]}

    def changed(old: Any, new: Any) -> set[int]:
        return {file.bucket for file in {*old} ^ {*new}}

    assert before.table is not None
    assert after.table is not None
    assert changed(before.table.files, after.table.files) == homes
    assert changed(graph.members, later.members) == homes
    survivor = later.find("CRM", "7")
    assert survivor == later.find("CRM", "300") == min(first, second)
    lost = max(first, second)
    places = {row["place"] for row in graph.members_of(lost[0]).to_pylist() if row["person"] == lost[1]}
    new = find(sandbox.lake, "ECID", "late")
    assert new is not None
    assert changed(graph.nodes, later.nodes) == places | {new[0]}
    tables = stitched(sandbox.lake, later).tables
    for dataset, table in copies.tables.items():
        assert changed(table.files, tables[dataset].files) <= homes
    assert refresh(sandbox.lake, STITCHED, [A, E])[1].table == after.table
    assert everybody(reopen(sandbox.lake, STITCHED, [A, E], open_snapshot(sandbox.lake, STITCHED, [A, E]).pinned))[
        frozenset({"CRM:7", "CRM:300", "ECID:v7", "ECID:v300", "ECID:late", "Email:m7", "Email:m300"})
    ] == ({"tier": "gold"}, sorted([8, 300 % 28 + 1, 28]))


def test_many_small_batches_do_not_leave_many_files(sandbox: Sandbox) -> None:
    for n in range(1, 25):
        sandbox.rows("e", VISITS, [visit("v", n)])
        stitched(sandbox.lake, graph_of(sandbox.lake, ["e"]))
    table = stitched(sandbox.lake, graph_of(sandbox.lake, ["e"])).tables["e"]
    assert len(table.files) == 8
    assert everybody(open_snapshot(sandbox.lake, STITCHED, [E])) == {frozenset({"ECID:v"}): ({}, list(range(1, 25)))}


def test_rows_of_a_retired_person_stay_in_their_files_and_are_read_once(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update writes what has changed: other rows of the same buckets stay where they are."""
    monkeypatch.setattr("app.engine.people.stitching._MOST_RETIRED", 1)
    sandbox.rows("a", PEOPLE, [person(str(n), [f"m{n}"], tier=f"t{n}") for n in range(40)])
    sandbox.rows("e", VISITS, [visit(f"v{n}", 1 + n % 20, [f"m{n}"]) for n in range(40)])
    before = open_snapshot(sandbox.lake, STITCHED, [A, E])
    earlier = stitched(sandbox.lake, graph_of(sandbox.lake, ["a", "e"]))
    sandbox.rows("e", VISITS, [visit("x", 28, ["m7", "m30"]), visit("y", 27, ["m8", "m31"])])
    snapshot = open_snapshot(sandbox.lake, STITCHED, [A, E])
    later = stitched(sandbox.lake, graph_of(sandbox.lake, ["a", "e"]))
    for dataset, rows in (("a", 2), ("e", 4)):
        old, new = earlier.tables[dataset], later.tables[dataset]
        assert set(old.files) <= set(new.files)
        assert sum(file.rows for file in set(new.files) - set(old.files)) == rows
        assert sum(map(len, new.retired.values())) == 2
    people = everybody(snapshot)
    for one, other, late, time in ((7, 30, "x", 28), (8, 31, "y", 27)):
        names = [f"{kind}{n}" for kind in ("CRM:", "ECID:v", "Email:m") for n in (one, other)]
        attributes, times = people.pop(frozenset({*names, f"ECID:{late}"}))
        assert attributes["tier"] in {f"t{one}", f"t{other}"}
        assert times == [one + 1, other % 20 + 1, time]
    assert people == {
        frozenset({f"CRM:{n}", f"ECID:v{n}", f"Email:m{n}"}): ({"tier": f"t{n}"}, [n % 20 + 1])
        for n in range(40)
        if n not in {7, 8, 30, 31}
    }
    gone = [(bucket, ordinal) for bucket, persons in later.tables["e"].retired.items() for ordinal in persons]
    assert snapshot.people(gone) == [None, None]
    assert snapshot.event_counts(gone) == [0, 0]
    assert [page.items for page in snapshot.events(gone, limit=9, place=None)] == [(), ()]
    for bucket, ordinal in gone:
        alone = snapshot.read(bucket, Needs(frozenset(), frozenset({("timestamp",)}), True), BitMap([ordinal]))
        assert (len(alone.ordinals), len(alone.event_rows)) == (0, 0)
    assert before.event_counts(gone) == [1, 1]


@pytest.mark.parametrize(("most_retired", "left"), [(0, (3, 0)), (9, (8, 4))])
def test_copies_stay_few_and_exact_however_many_persons_are_joined(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, most_retired: int, left: tuple[int, int]
) -> None:
    """One person joins everybody, one after the other: the bucket with most retired persons is rewritten if these are
    many, and small files are merged."""
    monkeypatch.setattr("app.engine.people.stitching._MOST_RETIRED", most_retired)
    sandbox.rows("e", VISITS, [visit(f"v{n}", 1 + n, [f"m{n}"]) for n in range(10)])
    most = 0
    for n in range(9):
        sandbox.rows("e", VISITS, [visit("late", 11 + n, ["m0", f"m{n + 1}"])])
        table = stitched(sandbox.lake, graph_of(sandbox.lake, ["e"])).tables["e"]
        most = max(most, *Counter(file.bucket for file in table.files).values())
    people = everybody(open_snapshot(sandbox.lake, STITCHED, [E]))
    assert [times for _, times in people.values()] == [[*range(1, 20)]]
    assert (most, sum(map(len, table.retired.values()))) == left


def test_any_identity_finds_a_profile_also_without_a_graph(sandbox: Sandbox) -> None:
    sandbox.rows("a", PEOPLE, [person("1", ["x"]), person("2", ["x", "y"]), person("x", ["1"])])
    snapshot = open_snapshot(sandbox.lake, APART, [A])

    def profile(namespace: str, id: str) -> str | None:
        key = find_person(sandbox.lake, snapshot, [A], namespace, id)
        known = snapshot.people([key])[0] if key is not None else None
        return known.profile_id if known is not None else None

    assert [profile("CRM", id) for id in ("1", "2", "x", "y")] == ["CRM:1", "CRM:2", "CRM:x", None]
    assert profile("Email", "y") == "CRM:2"
    lowest = min((find(sandbox.lake, "CRM", id), f"CRM:{id}") for id in "12")
    assert profile("Email", "x") == lowest[1]
    assert profile("Email", "1") == "CRM:x"
    assert profile("Email", "nobody") is None
    # A link that its record no longer names finds nobody.
    sandbox.rows("a", PEOPLE, [person("2", ["x"], 2)])
    snapshot = open_snapshot(sandbox.lake, APART, [A])
    assert profile("Email", "y") is None


@given(st.integers(1, 30), st.data())
def test_components_are_those_of_a_plain_union_find(count: int, data: st.DataObject) -> None:
    node = st.integers(0, count - 1)
    edges = data.draw(st.lists(st.tuples(node, node), max_size=40))
    found = components(count, *(np.array([edge[side] for edge in edges], np.int64) for side in (0, 1)))
    assert found.tolist() == [
        min(group) for one in range(count) for group in union_find(range(count), edges) if one in group
    ]


def union_find(nodes: Iterable[Any], edges: Iterable[tuple[Any, Any]]) -> list[set[Any]]:
    """The definition: groups that grow together at each edge."""
    group = {node: {node} for node in nodes}
    for a, b in edges:
        if group[a] is not group[b]:
            group[a] |= group[b]
            for node in group[b]:
                group[node] = group[a]
    return [one for n, one in enumerate(group.values()) if not any(one is other for other in list(group.values())[:n])]


ROWS = st.lists(
    st.tuples(st.sampled_from("ae"), st.sampled_from("123456"), st.sets(st.sampled_from("uvwxyz"), max_size=2)),
    min_size=1,
    max_size=12,
)


def expected(rows: Sequence[tuple[str, str, set[str]]]) -> dict[frozenset[str], tuple[dict[str, Any], list[int]]]:
    """In plain Python: rows in their order of time, each with a field of its own and a number that the newest gives."""
    links: list[tuple[str, str]] = []
    nodes: dict[str, None] = {}
    for kind, id, emails in rows:
        fragment = f"{'CRM' if kind == 'a' else 'ECID'}:{id}"
        nodes[fragment] = None
        for email in sorted(emails):
            nodes[f"Email:{email}"] = None
            links.append((fragment, f"Email:{email}"))
    found = {}
    for group in union_find(nodes, links):
        records = {id: n for n, (kind, id, _) in enumerate(rows) if kind == "a" and f"CRM:{id}" in group}
        fields: dict[str, Any] = {"newest": max(records.values()), "o": {}} if records else {}
        for n in records.values():
            fields["o"][f"f{n}"] = n
        times = [n + 1 for n, (kind, id, _) in enumerate(rows) if kind == "e" and f"ECID:{id}" in group]
        found[frozenset(group)] = fields, times
    return found


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS, st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_any_cut_into_batches_gives_what_one_batch_gives(
    rows: Sequence[tuple[str, str, set[str]]], cuts: Sequence[int]
) -> None:
    """Of a fragment's records in one file only the last lands, of those in several the last batch's counts."""
    with TemporaryDirectory() as folder:
        sandbox = Sandbox(Path(folder))
        files = [[n for n in range(len(rows)) if cuts[n] == number] for number in range(4)]
        batches = [
            [n for n in file if rows[n][0] == "e" or not any(m > n and rows[m][:2] == rows[n][:2] for m in file)]
            for file in files
        ]
        order = [n for batch in batches for n in batch]
        inside = [rows[n] for n in order]
        place = {n: at for at, n in enumerate(order)}
        for batch in batches:
            for kind, shape in (("a", PEOPLE), ("e", VISITS)):
                these = [n for n in batch if rows[n][0] == kind]
                if kind == "a" and these:
                    sandbox.rows(
                        "a",
                        shape,
                        [
                            person(
                                rows[n][1],
                                sorted(rows[n][2]),
                                place[n] + 1,
                                newest=place[n],
                                o={f"f{place[n]}": place[n]},
                            )
                            for n in these
                        ],
                    )
                elif these:
                    sandbox.rows("e", shape, [visit(rows[n][1], place[n] + 1, sorted(rows[n][2])) for n in these])
            if batch:
                open_snapshot(sandbox.lake, STITCHED, [A, E])
        snapshot = open_snapshot(sandbox.lake, STITCHED, [A, E])
        assert everybody(snapshot) == expected(inside)
        again = MergeRule("again", "TIMESTAMP_ORDERED", identity_graph="PDG")
        assert everybody(open_snapshot(sandbox.lake, again, [A, E])) == expected(inside)
        if snapshot.buckets:
            assert snapshot.total_profiles == len(expected(inside))


def test_blank_identities_link_nobody(sandbox: Sandbox) -> None:
    people = [person("1", [""]), person("2", ["", "x"]), person("3", [" "]), person("4", [" "])]
    sandbox.rows("a", PEOPLE, people)
    assert open_snapshot(sandbox.lake, STITCHED, [A]).total_profiles == 4
