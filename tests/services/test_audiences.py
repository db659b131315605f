"""Members of external audiences: batches side by side, and what becomes of one whose process died."""

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.clock import FixedClock
from app.engine.ingest.batch import ingest
from app.engine.ingest.formats import InputFile
from app.engine.ingest.rows import DatasetShape
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals
from app.services.audiences import external as external_audiences
from app.services.audiences import external_members as uploaded_members
from app.services.audiences import reads as audiences
from app.services.audiences import writes as audience_writes
from app.services.datasets import batches as batch_life
from app.services.datasets import datasets, uploads
from app.services.datasets.datasets import NewDataset
from app.services.lists.paging import PageRequest
from app.services.maintenance.retention import Keep
from app.services.people.profiles import ProfileReader
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.wakeups import Changes
from app.worker.maintenance import Maintenance
from tests.services.conftest import SCOPE

SHAPE = DatasetShape("AUDIENCE", "customer", "crm")


class Members:
    """An external audience with a dataset of its own."""

    def __init__(self, database: Database, lake: Lake, clock: FixedClock, folder: Path) -> None:
        self.database, self.lake, self.clock, self.folder = database, lake, clock, folder
        self.dataset: DatasetRow
        self.audience: AudienceRow
        self.files = 0

    async def make(self, **fields: Any) -> "Members":
        new = NewDataset("members", DatasetKind.AUDIENCE, "customer", "crm")
        self.dataset = await datasets.create(self.database, self.clock, SCOPE, new)
        self.audience = await self.audience_of(name="Partners", **fields)
        return self

    async def audience_of(self, **fields: Any) -> AudienceRow:
        values: Any = {"dataset_id": self.dataset.id, **fields}
        return await audience_writes.create(
            self.database, self.lake, self.clock, SCOPE, AudienceType.EXTERNAL_SEGMENT, values
        )

    def file(self, *customers: str) -> Path:
        self.files += 1
        path = self.folder / f"members-{self.files}.csv"
        path.write_text("customer,score\n" + "".join(f"{customer},{self.files}\n" for customer in customers))
        return path

    async def load(self, *customers: str) -> uploads.Uploaded:
        path = self.file(*customers)
        return await uploads.upload_batch(
            self.database, self.lake, self.clock, SCOPE, self.dataset.id, InputFile(path, "CSV")
        )

    async def row(self) -> AudienceRow:
        async with self.database.session() as session:
            return (await audiences.get_many(session, SCOPE, [self.audience.id]))[self.audience.id]

    async def found(self) -> list[str]:
        """The members as a reader sees them, with their number as it is shown checked against them."""
        reader = ProfileReader(self.database, self.lake, self.clock, SCOPE)
        page = (await reader.members_many([self.audience.id], PageRequest(100)))[self.audience.id]
        people = await reader.people([member.key for member in page.items])
        assert ((await self.row()).total_profiles or 0) == len(page.items)
        return sorted(people[member.key].profile_id for member in page.items)


@pytest.fixture
def members(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> Members:
    return Members(database, lake, clock, tmp_path)


async def test_batches_side_by_side_all_join(members: Members) -> None:
    await members.make()
    await asyncio.gather(*(members.load(f"{n}", f"{n + 1}") for n in range(5)))
    assert await members.found() == [f"crm:{n}" for n in range(6)]


async def test_an_audience_made_while_batches_land_misses_nobody(members: Members) -> None:
    await members.make()
    loads = asyncio.gather(*(members.load(f"{n}") for n in range(4)))
    members.audience = await members.audience_of(name="Later")
    await loads
    assert await members.found() == [f"crm:{n}" for n in range(4)]


async def test_a_batch_that_died_before_its_rows_landed_leaves_no_member(members: Members) -> None:
    await members.make()
    await batch_life.begin(members.database, members.clock, SCOPE, members.dataset)
    members.clock.advance(timedelta(seconds=61))
    await batch_life.reconcile(members.database, members.lake, members.clock)
    assert await members.found() == []
    assert (await members.row()).membership_run_id is None


async def test_a_batch_that_died_before_its_members_were_told_is_brought_to_its_end(members: Members) -> None:
    await members.make()
    await members.load("1")
    members.clock.advance(timedelta(seconds=1))
    lost = (await batch_life.begin(members.database, members.clock, SCOPE, members.dataset))[0]
    path, tenant = members.file("2"), members.lake.tenant(SCOPE.tenant)
    await asyncio.to_thread(ingest, tenant, members.dataset.id, SHAPE, InputFile(path, "CSV"), lost.id)
    # It had also written files of members, which nobody must take for theirs.
    arrival = uploaded_members.Arrival(members.dataset.id, [lost.id])
    await uploaded_members.write(members.database, members.lake, members.clock, SCOPE, lost.id, arrival)
    assert await members.found() == ["crm:1"]
    members.clock.advance(timedelta(seconds=61))
    await asyncio.gather(*(batch_life.reconcile(members.database, members.lake, members.clock) for _ in range(3)))
    assert await members.found() == ["crm:1", "crm:2"]
    assert (await members.row()).membership_run_id == lost.id


async def test_members_go_at_the_very_instant_and_the_row_follows(members: Members) -> None:
    await members.make(ttl_in_days=7)
    await members.load("1")
    members.clock.advance(timedelta(days=7) - timedelta(microseconds=1))
    await external_audiences.expire(members.database, members.clock)
    assert await members.found() == ["crm:1"]
    members.clock.advance(timedelta(microseconds=1))
    reader = ProfileReader(members.database, members.lake, members.clock, SCOPE)
    assert (await reader.member_counts([members.audience.id])) == {members.audience.id: 0}
    assert (await members.row()).total_profiles == 1, "nobody has kept house yet"
    for _ in range(2):
        await external_audiences.expire(members.database, members.clock)
        row = await members.row()
        assert (row.total_profiles, row.by_namespace, row.membership_run_id) == (0, {}, None)
        assert row.metrics_updated_at == row.expires_at == members.clock()
    assert await members.found() == []
    await members.load("2")
    assert await members.found() == ["crm:2"], "who had gone does not come back with others"
    assert (await members.row()).expires_at == members.clock() + timedelta(days=7)


async def test_who_had_gone_does_not_come_back_before_the_row_says_so_either(members: Members) -> None:
    await members.make(ttl_in_days=7)
    await members.load("1")
    members.clock.advance(timedelta(days=7))
    longer: Any = {"ttl_in_days": 14}
    id_ = members.audience.id
    row = await audience_writes.update(members.database, members.lake, members.clock, SCOPE, id_, None, longer)
    assert (row.total_profiles, row.ttl_in_days) == (0, 14)
    await members.load("2")
    assert await members.found() == ["crm:2"]
    row = await audience_writes.update(
        members.database, members.lake, members.clock, SCOPE, id_, None, {"ttl_in_days": 1}
    )
    assert (row.total_profiles, row.expires_at) == (1, members.clock() + timedelta(days=1))


async def test_an_audience_is_watched_from_another_process(members: Members, database_url: str) -> None:
    await members.make()
    id_, other = members.audience.id, Database(database_url)

    async def edit() -> None:
        fields: Any = {"description": "new"}
        await audience_writes.update(members.database, members.lake, members.clock, SCOPE, id_, None, fields)

    async def expire() -> None:
        members.clock.advance(timedelta(days=30))
        await external_audiences.expire(members.database, members.clock)

    async with Changes.open(other) as changes:
        stream = audiences.watch(other, changes, members.clock, SCOPE, id_)
        seen = [await anext(stream)]
        for change in (edit, lambda: members.load("1"), expire):
            following = asyncio.ensure_future(anext(stream))
            await change()
            seen.append(await asyncio.wait_for(following, audiences.PATIENCE_SECONDS * 0.8))
        rows = [reading.row for reading in seen]
        assert [(row.revision, row.total_profiles) for row in rows] == [
            (1, None),
            (2, None),
            (2, 1),
            (2, 0),
        ]
        ending = asyncio.ensure_future(anext(stream))
        await audience_writes.delete(members.database, members.clock, SCOPE, id_)
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(ending, audiences.PATIENCE_SECONDS * 0.8)
        with pytest.raises(Refusal) as caught:
            await anext(audiences.watch(other, changes, members.clock, SCOPE, id_))
        assert caught.value.code == ErrorCode.NOT_FOUND
    await other.dispose()


LOADER = """
import asyncio, importlib, sys, time
import tests.support.few_buckets
from datetime import UTC, datetime
from pathlib import Path
from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.scope import Scope
from app.engine.ingest.formats import InputFile
from app.services.datasets.uploads import upload_batch
from app.storage.database import Database

def stall(*arguments, **named):
    print("here", flush=True)
    time.sleep(60)

url, lake, dataset, file, module, name = sys.argv[1:]
setattr(importlib.import_module(module), name, stall)
clock = FixedClock(datetime(2026, 6, 15, 12, 0, 1, tzinfo=UTC))
scope = Scope("acme", "prod", "ann")
asyncio.run(upload_batch(Database(url), Lake(lake), clock, scope, dataset, InputFile(Path(file), "CSV")))
"""


@pytest.mark.parametrize(
    ("module", "name", "left", "status"),
    [
        ("app.engine.ingest.storing", "commit", ["crm:1"], "FAILED"),
        ("app.services.audiences.external_members", "_write", ["crm:1", "crm:2"], "ACTIVE"),
    ],
    ids=["before its rows landed", "before its members were written"],
)
async def test_a_killed_upload_leaves_all_of_its_members_or_none(
    members: Members, database_url: str, module: str, name: str, left: list[str], status: str
) -> None:
    await members.make()
    await members.load("1")
    path, root = members.file("2"), members.lake.root
    arguments = (database_url, str(root), members.dataset.id, str(path), module, name)
    loader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", LOADER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert loader.stdout is not None
    assert await asyncio.wait_for(loader.stdout.readline(), 60) == b"here\n"
    loader.kill()
    await loader.wait()
    assert await members.found() == ["crm:1"], "nobody sees half an upload"
    members.clock.advance(timedelta(seconds=62))
    await batch_life.reconcile(members.database, members.lake, members.clock)
    assert await members.found() == left
    async with members.database.session() as session:
        batches = await datasets.batches_by_dataset(session, SCOPE, [members.dataset.id], PageRequest(5))
    assert [batch.status for batch in batches[members.dataset.id].items] == [status, "ACTIVE"]
    await members.load("2", "3")
    assert await members.found() == ["crm:1", "crm:2", "crm:3"]


@pytest.mark.parametrize(
    ("field", "value"), [("ttl_in_days", 91), ("ttl_in_days", 0), ("audience_meta", {"a": [{"b": float("inf")}]})]
)
async def test_what_an_external_audience_cannot_have_is_refused(members: Members, field: str, value: object) -> None:
    await members.make()
    with pytest.raises(Refusals) as refused:
        await members.audience_of(name="Others", **{field: value})
    assert [refusal.path for refusal in refused.value.refusals] == [(field,)]
    await members.audience_of(name="Others", ttl_in_days=90, audience_meta={"a": 1e308})


@pytest.mark.parametrize("joins", ["created", "moved"])
async def test_a_batch_that_lands_while_an_audience_takes_its_dataset_is_in_it(
    members: Members, monkeypatch: pytest.MonkeyPatch, joins: str
) -> None:
    """It lands after the people of the dataset were read, and before the audience is there for it to know of."""
    await members.make()
    await members.load("1")
    if joins == "moved":
        other = NewDataset("others", DatasetKind.AUDIENCE, "customer", "crm")
        elsewhere = (await datasets.create(members.database, members.clock, SCOPE, other)).id
        members.audience = await members.audience_of(name="Later", dataset_id=elsewhere)
    read, reads = external_audiences._everybody, 0

    async def everybody(*arguments: Any) -> Any:
        nonlocal reads
        people = await read(*arguments)
        reads += 1
        if reads == 1:
            await members.load("2")
        return people

    monkeypatch.setattr(external_audiences, "_everybody", everybody)
    if joins == "moved":
        await audience_writes.update(
            members.database, members.lake, members.clock, SCOPE, members.audience.id, None,
            {"dataset_id": members.dataset.id},
        )  # fmt: skip
    else:
        members.audience = await members.audience_of(name="Later")
    assert await members.found() == ["crm:1", "crm:2"]
    assert reads == 2


async def test_members_whose_days_are_over_are_settled_in_the_background(members: Members) -> None:
    await members.make(ttl_in_days=1)
    await members.load("1")
    members.clock.advance(timedelta(days=1))
    assert (await members.row()).membership_run_id is not None
    keep = Keep(timedelta(days=7), timedelta(days=30), timedelta(hours=24))
    await Maintenance(members.database, members.lake, members.clock, keep).settle()
    row = await members.row()
    assert (row.membership_run_id, row.total_profiles) == (None, 0)
