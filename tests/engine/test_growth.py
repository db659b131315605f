"""A sandbox that outgrows its buckets: new people get new ones, nobody moves, and everything reads as if it had not."""

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from pyroaring import BitMap

from app.engine.ingest import identities
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.identities import find
from app.engine.ingest.rows import DatasetShape
from app.engine.maintenance.inspection import layout_problem
from app.engine.people.identity_graph import graph_of
from app.engine.people.persons import persons_of
from app.engine.people.profiles import find_person, open_snapshot, reopen
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake, TenantLake
from app.engine.store.layout import Layout, LayoutLost, slot_of
from app.engine.store.leases import LeaseLost
from app.engine.store.objects import ObjectStore, mount
from app.scope import Tenant
from tests.engine.test_stitching import APART, PEOPLE, STITCHED, VISITS, A, E, everybody, person, visit
from tests.engine.test_survival import events, start
from tests.support.sandbox import EVENTS, Sandbox


@pytest.fixture
def small(tmp_path: Path) -> Sandbox:
    """Four buckets of three people."""
    return Sandbox(tmp_path, people_in_a_bucket=3)


def numbered(first: int, last: int, **fields: Any) -> list[dict[str, Any]]:
    return [person(str(number), **fields) for number in range(first, last)]


def places(sandbox: Sandbox, last: int) -> list[tuple[int, int]]:
    found = [find(sandbox.lake, "CRM", str(number)) for number in range(last)]
    return [place for place in found if place is not None]


def test_new_people_get_new_buckets_and_nobody_moves(small: Sandbox) -> None:
    assert small.rows("a", PEOPLE, numbered(0, 12)).new_profiles == 12
    assert small.lake.layout() == Layout((2,))
    first, early = places(small, 12), open_snapshot(small.lake, APART, [A])
    read = everybody(early)
    # Known people need no room, and only the new ones of a batch are counted.
    assert small.rows("a", PEOPLE, numbered(0, 12, tier="gold")).new_profiles == 0
    assert small.lake.layout() == Layout((2,))
    assert small.rows("a", PEOPLE, numbered(6, 14)).new_profiles == 2
    assert small.lake.layout() == Layout((2, 2))
    assert small.rows("a", PEOPLE, numbered(0, 24)).new_profiles == 10
    assert small.lake.layout() == Layout((2, 2)), "twelve people find room in the second generation"
    assert small.rows("a", PEOPLE, numbered(20, 25)).new_profiles == 1
    assert small.lake.layout() == Layout((2, 2, 3))
    assert small.rows("a", PEOPLE, numbered(0, 200)).new_profiles == 175
    layout = small.lake.layout()
    assert layout == Layout((2, 2, 3, 6))
    everyone = places(small, 200)
    assert everyone[:12] == first
    assert len(set(everyone)) == 200
    born = {0: range(12), 1: range(12, 24), 2: range(24, 25), 3: range(25, 200)}
    for number, generation in enumerate(layout.generations):
        assert all(everyone[one][0] in generation for one in born[number])
    # Ordinals are dense in each bucket.
    for bucket, people in Counter(bucket for bucket, _ in everyone).items():
        assert {ordinal for place, ordinal in everyone if place == bucket} == set(range(people))
    assert {slot_of(bucket) for bucket, _ in everyone} <= set(range(4))
    snapshot = open_snapshot(small.lake, APART, [A])
    assert snapshot.total_profiles == 200
    assert set(snapshot.buckets) == {bucket for bucket, _ in everyone}
    for old in (early, reopen(small.lake, APART, [A], early.pinned)):
        assert everybody(old) == read
    assert layout_problem(small.lake) is None


def test_old_and_new_people_get_their_events(small: Sandbox) -> None:
    """Events that were sent before are known in every generation."""
    shape = DatasetShape("EVENT", "id", "CRM", "timestamp")
    events = [{**visit(str(number % 20), number % 28 + 1), "_id": f"e{number}"} for number in range(100)]
    assert small.rows("e", shape, events[:10]).row_count == 10
    assert small.rows("e", shape, events).duplicate_rows == 10
    assert small.rows("e", shape, events).row_count == 0
    assert small.lake.layout() == Layout((2, 2))
    counted = {names: len(times) for names, (_, times) in everybody(open_snapshot(small.lake, APART, [E])).items()}
    assert counted == {frozenset({f"CRM:{number}"}): 5 for number in range(20)}


def test_persons_are_the_same_in_any_buckets(tmp_path: Path) -> None:
    """Links within a generation, between them, and to identities that become people of their own later."""
    grown, constant = Sandbox(tmp_path / "grown", people_in_a_bucket=1), Sandbox(tmp_path / "constant")
    for sandbox in (grown, constant):
        sandbox.folder.mkdir()
    chance = Random(5)
    for turn in range(3):
        ids = [str(chance.randrange(20 * (turn + 1))) for _ in range(15)]
        people = [
            {
                **person(id, [f"m{chance.randrange(40)}"] if chance.random() < 0.5 else (), turn + 1, n=turn),
                **({"identityMap": {"ECID": [{"id": str(chance.randrange(60))}]}} if chance.random() < 0.3 else {}),
            }
            for id in ids
        ]
        visits = [visit(str(chance.randrange(60)), turn + 1, [f"m{chance.randrange(40)}"]) for _ in range(10)]
        for sandbox in (grown, constant):
            sandbox.rows("a", PEOPLE, people)
            sandbox.rows("e", VISITS, visits)
        stitched = [open_snapshot(sandbox.lake, STITCHED, [A, E]) for sandbox in (grown, constant)]
        assert everybody(stitched[0]) == everybody(stitched[1])
        apart = [open_snapshot(sandbox.lake, APART, [A, E]) for sandbox in (grown, constant)]
        assert everybody(apart[0]) == everybody(apart[1])
    largest = max(everybody(stitched[0]), key=len)
    (key,) = {find_person(grown.lake, stitched[0], [A, E], *name.split(":")) for name in largest}
    assert key is not None
    layout = grown.lake.layout()
    assert layout is not None
    assert len(layout.bits) >= 3
    graph = graph_of(grown.lake, ["a", "e"])
    for id in range(60):
        fragment, home = find(grown.lake, "CRM", str(id)), graph.find("CRM", str(id))
        if fragment is not None and home is not None:
            assert persons_of(graph, [(fragment[0], BitMap([fragment[1]]))]) == {home[0]: BitMap([home[1]])}
    used = {file.bucket for file in graph.members}
    assert all(any(bucket in generation for bucket in used) for generation in layout.generations)
    assert {file.bucket for file in graph.nodes} <= set(range(1 << layout.bits[0])), "by slot"


@pytest.mark.parametrize("killed", ["before the layout", "after the layout", "before the data"])
def test_a_batch_killed_while_the_sandbox_grows_can_be_sent_again(
    small: Sandbox, monkeypatch: pytest.MonkeyPatch, killed: str
) -> None:
    small.rows("a", PEOPLE, numbered(0, 12))

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if killed == "before the layout":
            patched.setattr(TenantLake, "change_layout", die)
        elif killed == "after the layout":
            patched.setattr(identities, "_append", die)
        else:
            patched.setattr("app.engine.ingest.storing.Storing._commit", die)
        with pytest.raises(Killed):
            small.rows("a", PEOPLE, numbered(5, 20))
    assert small.lake.layout() == (Layout((2,)) if killed == "before the layout" else Layout((2, 2)))
    assert layout_problem(small.lake) is None
    assert open_snapshot(small.lake, APART, [A]).total_profiles == 12
    assert small.rows("a", PEOPLE, numbered(5, 20)).row_count == 15
    assert small.lake.layout() == Layout((2, 2))
    assert len(set(places(small, 20))) == 20
    assert len(everybody(open_snapshot(small.lake, APART, [A]))) == 20


_GROWING = "sandbox = lake.Lake(Path(sys.argv[1]), people_in_a_bucket=3).tenant(Tenant('org', 'prod'))\n"


@pytest.mark.parametrize(
    ("patch", "grown"),
    [
        ("lake.TenantLake.change_layout = die", False),
        ("lake.TenantLake.change_layout = after(lake.TenantLake.change_layout)", True),
        ("identities.commit = after(identities.commit)", True),
        ("storing.commit = die", True),
    ],
)
def test_a_process_killed_while_the_sandbox_grows_leaves_nothing(small: Sandbox, patch: str, grown: bool) -> None:
    small.csv("e", EVENTS, "id,timestamp,n\n" + "".join(f"{n},2026-01-01,{n}\n" for n in range(12)))
    file = small.folder / "next.csv"
    file.write_text("id,timestamp,n\n" + "".join(f"{n},2026-01-02,{n}\n" for n in range(6, 20)))
    process = start(small, "e", "killed", _GROWING + patch, file)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -9, errors
    assert small.lake.layout() == (Layout((2, 2)) if grown else Layout((2,)))
    assert layout_problem(small.lake) is None
    assert events(small, "e") == (12, [*range(12)])
    assert ingest(small.lake, "e", EVENTS, InputFile(file, "CSV"), "killed0").row_count == 14
    assert small.lake.layout() == Layout((2, 2))
    assert events(small, "e") == (20, sorted([*range(12), *range(6, 20)]))
    assert len(set(places(small, 20))) == 20
    table = open_table(small.lake.dataset("e"))
    assert table is not None
    assert sorted(small.lake.dataset("e").rglob("*.parquet")) == sorted(table.paths())


def test_people_who_are_known_need_no_room(small: Sandbox) -> None:
    small.rows("a", PEOPLE, numbered(0, 12))
    smaller = Sandbox(small.folder, people_in_a_bucket=1)
    smaller.batches = small.batches
    smaller.rows("a", PEOPLE, numbered(0, 12))
    assert smaller.lake.layout() == Layout((2,))
    smaller.rows("a", PEOPLE, numbered(12, 13))
    assert smaller.lake.layout() == Layout((2, 2))


def test_an_old_layout_beside_new_people_is_refused(small: Sandbox) -> None:
    """As after a restored file: people who are not found would be created again."""
    small.rows("a", PEOPLE, numbered(0, 12))
    layout = small.lake.folder / "layout.json"
    old = layout.read_bytes()
    small.rows("a", PEOPLE, numbered(0, 20))
    table = open_table(small.lake.identities)
    assert table is not None
    layout.write_bytes(old)
    beyond = min(file.bucket for file in table.files if file.bucket > 3)
    problem = f"layout.json says 4 buckets, but there are profiles in bucket {beyond}"
    assert layout_problem(small.lake) == problem
    with pytest.raises(LayoutLost, match=problem):
        small.rows("a", PEOPLE, numbered(0, 20))


def test_a_lake_on_object_storage_grows(small: Sandbox, object_url: str, tmp_path: Path) -> None:
    small.lake = Lake(mount(object_url, tmp_path / "cache"), people_in_a_bucket=3).tenant(Tenant("org", "prod"))
    small.rows("a", PEOPLE, numbered(0, 12))
    assert small.rows("a", PEOPLE, numbered(6, 20)).new_profiles == 8
    assert small.lake.layout() == Layout((2, 2))
    assert len(set(places(small, 20))) == 20
    assert open_snapshot(small.lake, APART, [A]).total_profiles == 20


def test_hosts_that_lost_the_lock_do_not_undo_what_others_added(
    object_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake(mount(object_url, tmp_path / "cache")).tenant(Tenant("org", "prod"))
    first, second, third = Layout((4,)), Layout((4, 4)), Layout((4, 5))
    lake.change_layout(None, first)
    with pytest.raises(LeaseLost):
        lake.change_layout(None, third)
    lake.change_layout(first, second)
    with pytest.raises(LeaseLost):
        lake.change_layout(first, third)
    assert lake.layout() == second
    get = ObjectStore.get

    def overtaken(store: ObjectStore, key: str) -> tuple[bytes, str]:
        """Another host adds buckets between the look at the layout and its change."""
        content, version = get(store, key)
        if content == second.as_json():
            store.put_if(key, Layout((4, 4, 4)).as_json(), version)
        return content, version

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "get", overtaken)
        with pytest.raises(LeaseLost):
            lake.change_layout(second, Layout((4, 4, 5)))
    assert lake.layout() == Layout((4, 4, 4))
