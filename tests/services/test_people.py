"""Jobs over several merge policies and kinds of people: memberships follow from one to the other, and late links."""

import json
from collections.abc import Collection, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.members.membership import Membership, MembershipFiles
from app.engine.people.profiles import Event
from app.engine.store.lake import Lake
from app.errors import Refusal
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.audiences import reads as audiences
from app.services.audiences import writes as audience_writes
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets, uploads
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.insight import overlap as overlaps
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview.run import run_preview
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest, Slice, encode_cursor
from app.services.people.members import Member
from app.services.people.profiles import ProfileReader
from app.services.streaming.turn import run_turn
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.turns import claim_turn
from app.storage.tables.audiences import AudienceType
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.jobs import JobKind
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from tests.services.conftest import SCOPE
from tests.services.test_export_jobs import ask, export, written
from tests.services.test_export_jobs import members as of_members
from tests.services.test_segment_jobs import job_of, results, run_next
from tests.support.both_ways import both_ways


class World:
    """A sandbox with people of CRM ids, linked by e-mail addresses, under policies of both kinds."""

    def __init__(self, database: Database, lake: Lake, clock: FixedClock, folder: Path) -> None:
        self.database, self.lake, self.clock, self.folder = database, lake, clock, folder
        self.batches = 0

    async def people(self, *rows: tuple[str, Sequence[str], dict[str, Any]], dataset: str = "people") -> None:
        """(id, e-mail addresses, fields): later batches are newer."""
        self.batches += 1
        path = self.folder / f"batch-{self.batches}.ndjson"
        lines = [
            {"id": id_, "identityMap": {"Email": [{"id": email} for email in emails]}, **fields}
            for id_, emails, fields in rows
        ]
        path.write_text("\n".join(json.dumps(line) for line in lines))
        found = await ingest_file(
            self.database,
            self.lake,
            self.clock,
            SCOPE,
            NewDataset(dataset, DatasetKind.PROFILE, "id", "CRM", None),
            InputFile(path, "NDJSON"),
        )
        assert found.batch.rejected_rows == 0

    async def policy(self, name: str, graph: str = "NONE") -> str:
        new = merge_policies.NewPolicy(name, MergeMethod.TIMESTAMP_ORDERED, IdentityGraph(graph))
        return (await merge_policies.create(self.database, self.clock, SCOPE, new)).id

    async def define(self, name: str, expression: str, policy: str | None = None, *methods: str) -> str:
        new = NewDefinition(
            name=name, expression=expression, merge_policy_id=policy, evaluation_methods=methods or None
        )
        return (await definitions.create(self.database, self.lake, self.clock, SCOPE, new)).id

    async def run(self, *ids: str) -> dict[str, tuple[int | None, tuple[int, ...]]]:
        """Count, and (realized, existing, exited), by definition, of a job that must succeed."""
        job = await segment_jobs.create(self.database, self.clock, SCOPE, list(ids))
        await run_next(self.database, self.lake, self.clock)
        ended = await job_of(self.database, job.id)
        assert (ended.status, ended.errors) == ("SUCCEEDED", [])
        assert ended.profiles_read == ended.total_profiles
        found = await results(self.database, job.id)
        order = ("REALIZED", "EXISTING", "EXITED")
        return {id_: (count, tuple(statuses[name] for name in order)) for id_, (_, count, statuses, _) in found.items()}

    def reader(self) -> ProfileReader:
        return ProfileReader(self.database, self.lake, self.clock, SCOPE)

    async def members(self, id_: str, status: Collection[str] | None = None) -> dict[str, tuple[str, int]]:
        """Of each member the status and on which day of June it entered, read page by page."""
        reader, cursor, found = self.reader(), None, dict[str, tuple[str, int]]()
        while True:
            page = (await reader.members_many([id_], PageRequest(2, cursor=cursor), status))[id_]
            people = await reader.people([member.key for member in page.items])
            for member in page.items:
                name = people[member.key].profile_id
                assert name not in found
                found[name] = member.status, member.last_qualification_time.day
            if not page.has_next:
                break
            cursor = page.cursors[-1]
        assert await reader.member_counts([id_], status) == {id_: len(found)}
        return found

    async def memberships(self, id_: str) -> dict[str, tuple[str, int]]:
        """Of the profile with this CRM id, under the default policy."""
        reader = self.reader()
        key = await reader.find_identity("CRM", id_)
        assert key is not None
        page = (await reader.memberships([key], PageRequest(50)))[key]
        assert await reader.membership_counts([key]) == {key: len(page.items)}
        return {one.definition_id: (one.status, one.last_qualification_time.day) for one in page.items}


@pytest.fixture
def world(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> World:
    return World(database, lake, clock, tmp_path)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("default_joins", [False, True])
async def test_an_overlap_of_several_policies_counts_persons(world: World, default_joins: bool) -> None:
    """a, b: one person by x; c alone. In whichever order, and whichever policy the expression would have alone."""
    await world.people(("a", ["x"], {"gold": True}), ("b", ["x"], {"tall": True}), ("c", [], {"tall": True}))
    apart, other = await world.policy("apart"), await world.policy("other")
    linked, also = await world.policy("linked", "PDG"), await world.policy("also", "PDG")
    if default_joins:
        await merge_policies.update(world.database, world.clock, SCOPE, also, None, {"is_default": True})
    gold = await world.define("gold", "gold = true", linked)
    tall, rich = await world.define("tall", "tall = true", apart), await world.define("rich", "gold = true", other)
    await world.run(gold, tall, rich)
    async with world.database.session() as session:
        rows = {id: await audiences.required(session, SCOPE, id) for id in (gold, tall, rich)}

    async def overlap(*people: str, policy: str | None = None) -> tuple[list[int], int, str]:
        groups = [overlaps.People(rows[one]) if one in rows else overlaps.People(None, one) for one in people]
        found = await overlaps.measure(world.reader(), groups, policy, 1)
        return list(found.sizes), found.union, found.policy

    joining = also if default_joins else linked
    assert await overlap(gold, tall) == ([1, 2], 2, joining)
    assert await overlap(tall, gold) == ([2, 1], 2, joining)
    assert await overlap("tall = true", tall, gold) == ([2, 2, 1], 2, joining)
    assert await overlap(gold, tall, policy=apart) == ([2, 2], 3, apart)
    assert await overlap(gold, "tall = true") == ([1, 2], 2, linked)
    assert await overlap(tall, "tall = true") == ([2, 2], 2, apart)
    assert await overlap(tall, rich) == (([2, 1], 2, also) if default_joins else ([2, 1], 3, "default"))


async def test_definitions_of_several_policies_in_one_job_refer_to_one_another(world: World) -> None:
    """a, b: one person by x; c alone. The gold one is a, the tall one b."""
    await world.people(("a", ["x"], {"gold": True}), ("b", ["x"], {"tall": True}), ("c", [], {"tall": True}))
    apart, other, linked = (
        await world.policy("apart"),
        await world.policy("other"),
        await world.policy("linked", "PDG"),
    )
    gold = await world.define("gold", "gold = true", apart)
    both = await world.define("both", f'tall = true and inSegment("{gold}")', linked)
    back = await world.define("back", f'inSegment("{both}")', apart)
    same = await world.define("same", f'inSegment("{back}") and not inSegment("{gold}")', other)
    tall = await world.define("tall", "tall = true", linked)
    found = await world.run(gold, both, back, same, tall)
    assert found == {
        gold: (1, (1, 0, 0)),
        both: (1, (1, 0, 0)),
        back: (2, (2, 0, 0)),
        same: (1, (1, 0, 0)),
        tall: (2, (2, 0, 0)),
    }
    async with world.database.session() as session:
        (job,) = (await segment_jobs.page(session, SCOPE, PageRequest(5))).items
    assert job.metrics is not None
    assert job.metrics["total_profiles_by_merge_policy"] == {apart: 3, other: 3, linked: 2}
    assert job.metrics["total_profiles"] == 8
    folders = {path.name for path in (world.lake.tenant(SCOPE.tenant).folder / "membership").iterdir()}
    assert len(folders) == 1
    # Another job finds what it does not evaluate in what the first has stored, under whatever policy.
    assert await world.run(same) == {same: (1, (0, 1, 0))}
    assert await world.run(both) == {both: (1, (0, 1, 0))}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_late_link_joins_the_memberships_of_two_people(world: World) -> None:
    linked = await world.policy("linked", "PDG")
    await world.people(("a", ["x"], {"name": "A"}), ("b", ["y"], {"gold": True}), ("c", [], {"name": "C"}))
    known = await world.define("known", "name.isNotNull()", linked)
    gold = await world.define("gold", "gold = true", linked)
    assert await world.run(known, gold) == {known: (2, (2, 0, 0)), gold: (1, (1, 0, 0))}
    world.clock.advance(timedelta(days=1))
    await world.people(("b", ["y"], {"name": "B", "gold": True}))
    assert await world.run(known) == {known: (3, (1, 2, 0))}
    world.clock.advance(timedelta(days=1))
    before = await world.members(known)
    assert before == {"CRM:a": ("EXISTING", 15), "CRM:b": ("REALIZED", 16), "CRM:c": ("EXISTING", 15)}
    await world.people(("d", ["x", "y"], {}))
    first, second = sorted((await world.members(known)).items())[:2]
    assert first[0] in {"CRM:a", "CRM:b"}
    survivor = first[0]
    assert (first, second) == ((survivor, ("EXISTING", 15)), ("CRM:c", ("EXISTING", 15)))
    assert await world.members(gold) == {survivor: ("REALIZED", 15)}
    for fragment in "abd":
        assert await world.memberships(fragment) == {known: ("EXISTING", 15), gold: ("REALIZED", 15)}
    assert await world.run(known, gold) == {known: (2, (0, 2, 0)), gold: (1, (0, 1, 0))}
    assert await world.members(known) == {survivor: ("EXISTING", 15), "CRM:c": ("EXISTING", 15)}
    assert await world.members(gold) == {survivor: ("EXISTING", 15)}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_policy_may_change_whose_records_are_one_persons(world: World) -> None:
    policy = await world.policy("people")
    await world.people(("a", ["x"], {"name": "A"}), ("b", ["x"], {}), ("c", [], {"name": "C"}))
    known = await world.define("known", "name.isNotNull()", policy)
    assert await world.run(known) == {known: (2, (2, 0, 0))}

    async def change(graph: str) -> None:
        changes: merge_policies.PolicyChanges = {"identity_graph": IdentityGraph(graph)}
        await merge_policies.update(world.database, world.clock, SCOPE, policy, None, changes)

    await change("PDG")
    assert {status for status, _ in (await world.members(known)).values()} == {"REALIZED"}
    assert await world.memberships("b") == {}
    assert await world.run(known) == {known: (2, (0, 2, 0))}
    assert await world.memberships("b") == {known: ("EXISTING", 15)}
    await change("NONE")
    assert len(await world.members(known)) == 3
    assert await world.run(known) == {known: (2, (0, 2, 1))}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_fragments_are_evaluated_now_by_what_their_persons_are_in(world: World) -> None:
    linked = await world.policy("linked", "PDG")
    both = {"gold": True, "new": True}
    await world.people(("a", ["x"], both), ("b", ["x"], {"new": True}), ("c", [], {"new": True}))
    gold = await world.define("gold", "gold = true", linked)
    edge = await world.define("edge", f'new = true and inSegment("{gold}")', None, "BATCH", "EDGE")
    await world.run(gold)
    for fragment in "ab":
        assert await world.memberships(fragment) == {gold: ("REALIZED", 15), edge: ("REALIZED", 15)}
    assert await world.memberships("c") == {}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_batch_is_streamed_by_what_persons_are_in(world: World) -> None:
    linked = await world.policy("linked", "PDG")
    await world.people(("a", ["x"], {"gold": True}), ("b", ["x"], {"new": False}), ("c", [], {"new": False}))
    gold = await world.define("gold", "gold = true", linked)
    live = await world.define("live", f'new = true and inSegment("{gold}")', None, "BATCH", "STREAMING")
    await world.run(gold)
    await world.run(live)
    await world.people(("a", ["x"], {"new": True}), ("b", ["x"], {"new": True}), ("c", [], {"new": True}))
    turn = await claim_turn(world.database, world.clock, owner="test", lease=timedelta(minutes=1))
    assert turn is not None
    await run_turn(world.database, world.lake, world.clock, turn, 1, lambda: False)
    assert await world.members(live) == {"CRM:a": ("REALIZED", 15), "CRM:b": ("REALIZED", 15)}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_preview_counts_by_what_others_of_a_person_are_in(world: World) -> None:
    """Fragments by what their persons are in, and persons by what a fragment of theirs is in."""
    linked = await world.policy("linked", "PDG")
    await world.people(("a", ["x"], {"gold": True}), ("b", ["x"], {"new": True}), ("c", [], {"new": True}))
    of_persons = await world.define("gold persons", "gold = true", linked)
    of_fragments = await world.define("new fragments", "new = true")
    await world.run(of_persons, of_fragments)
    found = {}
    for id_, graph in ((of_persons, "NONE"), (of_persons, "PDG"), (of_fragments, "NONE"), (of_fragments, "PDG")):
        new = previews.NewPreview(f'inSegment("{id_}")', graph_type=IdentityGraph(graph))
        made = await previews.create(world.database, world.lake, world.clock, SCOPE, new)
        claim = await claim_next(
            world.database, world.clock, owner="test", lease=timedelta(minutes=1), kind=JobKind.PREVIEW
        )
        assert claim is not None
        await run_preview(Attempt(world.database, world.clock, claim), world.lake, 1)
        async with world.database.session() as session:
            row = (await previews.get_many(session, SCOPE, [made.id]))[made.id]
        assert row.status == "SUCCEEDED"
        found[id_, graph] = row.profiles_matched
    assert found == {
        (of_persons, "NONE"): 2,
        (of_persons, "PDG"): 1,
        (of_fragments, "NONE"): 2,
        (of_fragments, "PDG"): 2,
    }


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_person_whom_a_late_link_joins_is_exported_with_what_each_fragment_was_in(world: World) -> None:
    linked = await world.policy("linked", "PDG")
    await world.people(("a", ["x"], {"gold": True}), ("b", ["y"], {"tall": True}), ("c", [], {"gold": False}))
    both = [await world.define("gold", "gold = true", linked), await world.define("tall", "tall = true", linked)]
    await world.run(*both)
    made = await datasets.create(world.database, world.clock, SCOPE, datasets.NewDataset("exports", DatasetKind.EXPORT))
    await world.people(("d", ["x", "y"], {"gold": False}))
    new = ask(made.id, filter=of_members(*both), merge_policy_id=linked)
    job = await export(world.database, world.lake, world.clock, new)
    assert (job.status, (job.metrics or {})["total_exported_profiles"]) == ("SUCCEEDED", 1)
    (row,) = written(world.lake, made.id, "profileId, to_json(segmentMembership)")
    assert row[0] in {"CRM:a", "CRM:b"}
    found = {id_: one["status"] for id_, one in json.loads(row[1])["AEPSegments"].items()}
    assert found == dict.fromkeys(both, "REALIZED")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_external_members_are_in_for_the_persons_whose_fragments_they_are(world: World) -> None:
    """b is tall and one person with a, who is a partner; `new` is a partner of whom nothing else is known."""
    linked = await world.policy("linked", "PDG")
    await world.people(("a", ["x"], {"tall": False}), ("b", ["x"], {"tall": True}), ("c", [], {"tall": True}))
    new = datasets.NewDataset("partners", DatasetKind.AUDIENCE, "id", "CRM")
    dataset = await datasets.create(world.database, world.clock, SCOPE, new)
    values: audience_writes.AudienceFields = {
        "name": "Partners",
        "audience_id": "partners",
        "dataset_id": dataset.id,
        "ttl_in_days": 30,
    }
    made = await audience_writes.create(
        world.database, world.lake, world.clock, SCOPE, AudienceType.EXTERNAL_SEGMENT, values
    )
    partners = made.id
    file = world.folder / "partners.csv"
    file.write_text("id,level\na,gold\nnew,silver\n")
    await uploads.upload_batch(world.database, world.lake, world.clock, SCOPE, dataset.id, InputFile(file, "CSV"))

    expression = 'inSegment("partners")'
    apart = await world.define("apart", expression)
    together = await world.define("together", expression, linked)
    tall = await world.define("tall", f"{expression} and tall = true", linked)
    assert await world.run(apart, together, tall) == {
        apart: (2, (2, 0, 0)),
        together: (2, (2, 0, 0)),
        tall: (1, (1, 0, 0)),
    }
    of_b = await world.memberships("b")
    assert of_b.keys() == {together, tall}
    assert (await world.memberships("a")).keys() == {partners, apart, together, tall}
    await world.people(("d", ["x"], {}), ("new", ["x"], {}))
    assert await world.run(apart, together, tall) == {
        apart: (2, (0, 2, 0)),
        together: (1, (0, 1, 0)),
        tall: (1, (0, 1, 0)),
    }
    world.clock.advance(timedelta(days=31))
    assert await world.run(apart, together, tall) == {
        id_: (0, (0, 0, n)) for id_, n in ((apart, 2), (together, 1), (tall, 1))
    }


@pytest.mark.usefixtures("real_buckets")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_members_of_many_segments_come_from_each_file_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.people(*((f"p{n}", [], {"points": n}) for n in range(40)))
    ids = [await world.define(f"over {least}", f"points >= {least}") for least in (0, 10, 38, 40)]
    await world.run(*ids)
    read: list[str] = []

    def counted(files: MembershipFiles, run_id: str, bucket: int, name: str, *rest: Any) -> dict[str, Membership]:
        read.append(name)
        return original(files, run_id, bucket, name, *rest)

    original = MembershipFiles.read
    monkeypatch.setattr(MembershipFiles, "read", counted)
    reader = world.reader()
    assert list((await reader.member_counts(ids)).values()) == [40, 30, 2, 0]
    assert len(read) == len(set(read)) == 16
    found: dict[str, list[Any]] = {id_: [] for id_ in ids}
    cursors: dict[str, str | None] = dict.fromkeys(ids)
    while cursors:
        for cursor in set(cursors.values()):
            these = [id_ for id_ in cursors if cursors[id_] == cursor]
            for id_, page in (await reader.members_many(these, PageRequest(7, cursor=cursor))).items():
                found[id_] += [member.key for member in page.items]
                cursors[id_] = page.cursors[-1] if page.has_next else None
                if not page.has_next:
                    del cursors[id_]
    assert [len(found[id_]) for id_ in ids] == [40, 30, 2, 0]
    assert all(members == sorted(set(members)) for members in found.values())
    read.clear()
    first = await reader.members_many(ids[:2], PageRequest(1))
    assert all((len(page.items), page.has_next) == (1, True) for page in first.values())
    assert len(read) <= 3, "nothing is read beyond the page"


async def test_members_memberships_and_events_are_read_from_both_ends(world: World) -> None:
    await world.people(*((f"{n:02}", [], {"points": n}) for n in range(40)))
    path = world.folder / "events.ndjson"
    visits = [
        {"_id": f"v{n:02}", "id": "07" if n % 4 else "08", "timestamp": f"2026-06-01T00:00:{n // 3:02}Z"}
        for n in range(24)
    ]
    path.write_text("\n".join(map(json.dumps, visits)))
    events = NewDataset("visits", DatasetKind.EVENT, "id", "CRM", "timestamp")
    await ingest_file(world.database, world.lake, world.clock, SCOPE, events, InputFile(path, "NDJSON"))
    ids = [await world.define(f"over {least}", f"points >= {least}") for least in (0, 1, 5, 6, 10, 38, 40)]
    await world.run(*ids)
    reader = world.reader()
    key = await reader.find_identity("CRM", "07")
    assert key is not None

    async def members(request: PageRequest) -> Slice[Member]:
        return (await world.reader().members_many(ids, request))[ids[4]]

    async def memberships(request: PageRequest) -> Slice[Member]:
        return (await reader.memberships([key], request))[key]

    async def of_one(request: PageRequest) -> Slice[Event]:
        return (await reader.events([key], request))[key]

    for size in (1, 7, 30):
        assert len(await both_ways(members, size)) == 30
        assert [each.definition_id for each in await both_ways(memberships, size)] == sorted(ids[:4])
        found = [(event.timestamp, event.event_id) for event in await both_ways(of_one, size)]
        assert len(found) == 18
        assert found == sorted(found, reverse=True)


@pytest.mark.parametrize("place", [(-1, 0), (0, -5), (0, 1 << 32), (1 << 62, 0), ("a", 0), (0,)])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_forged_cursor_of_members_is_refused(world: World, place: tuple[Any, ...]) -> None:
    for backward in (False, True):
        with pytest.raises(Refusal, match="is not a cursor") as refused:
            await world.reader().members_many(["x"], PageRequest(5, backward, encode_cursor("MEMBER", place)))
        assert refused.value.path == ("before" if backward else "after",)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_exports_hold_members_of_other_kinds_of_people(world: World) -> None:
    """Fragments by what their persons are in, and persons by what a fragment of theirs is in."""
    linked, apart = await world.policy("linked", "PDG"), await world.policy("apart")
    await world.people(("a", ["x"], {"gold": True}), ("b", ["x"], {"new": True}), ("c", [], {"new": True}))
    of_persons = await world.define("gold persons", "gold = true", linked)
    of_fragments = await world.define("new fragments", "new = true", apart)
    await world.run(of_persons, of_fragments)

    async def exported(name: str, policy: str, *ids: str) -> dict[str, set[str]]:
        new = datasets.NewDataset(name, DatasetKind.EXPORT)
        target = (await datasets.create(world.database, world.clock, SCOPE, new)).id
        asked = ask(target, filter=of_members(*ids) if ids else None, merge_policy_id=policy)
        job = await export(world.database, world.lake, world.clock, asked)
        assert (job.status, job.errors) == ("SUCCEEDED", [])
        rows = written(world.lake, target, "profileId, to_json(segmentMembership)")
        return {who: set(json.loads(memberships or "{}").get("AEPSegments", {})) for who, memberships in rows}

    assert await exported("1", apart, of_persons) == {"CRM:a": {of_persons}, "CRM:b": {of_persons}}
    ((survivor, _),) = (await world.members(of_persons)).items()
    assert await exported("2", linked, of_fragments) == {survivor: {of_fragments}, "CRM:c": {of_fragments}}
    assert await exported("3", linked, of_fragments, of_persons) == {
        survivor: {of_fragments, of_persons},
        "CRM:c": {of_fragments},
    }
    assert await exported("4", apart) == {
        "CRM:a": {of_persons},
        "CRM:b": {of_persons, of_fragments},
        "CRM:c": {of_fragments},
    }
