"""Batches and datasets that go: what they brought goes with them, and those who rely on them are named."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from app.clock import FixedClock, utc_now
from app.engine.ingest.formats import InputFile
from app.engine.people.profiles import MergeRule, open_snapshot
from app.errors import ErrorCode, HasDependents, Refusal
from app.services.audiences import external
from app.services.datasets import batches, datasets, deletion
from app.services.datasets.uploads import rows_as_file, upload_batch
from app.services.evaluation.expressions import data_sources
from app.services.maintenance.doctor import examine
from app.storage.columns import columns
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import BatchRow, DatasetKind, DatasetRow
from tests.services.conftest import SCOPE, Gateway


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(utc_now())


async def remove(gateway: Gateway, batch_id: str) -> None:
    await deletion.delete_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, batch_id)


async def people(gateway: Gateway) -> dict[str, dict[str, Any]]:
    async with gateway.database.session() as session:
        sources = await data_sources(session, SCOPE)
    snapshot = open_snapshot(gateway.lake.tenant(SCOPE.tenant), MergeRule("p", "TIMESTAMP_ORDERED"), sources)
    keys = [(bucket, ordinal) for bucket in snapshot.buckets for ordinal in snapshot.present(bucket)]
    persons = snapshot.people(keys)
    names = [person.profile_id for person in persons if person is not None]
    told = dict(zip(names, snapshot.attributes(keys, None), strict=True))
    return {
        name: {key: value for key, value in values.items() if key != "identityMap"} for name, values in told.items()
    }


async def counts(gateway: Gateway) -> tuple[list[tuple[str, int]], list[int], list[str]]:
    """Batches, rows of the datasets, and what the doctor says."""
    async with gateway.database.session() as session:
        rows = list(await session.scalars(select(BatchRow).order_by(BatchRow.id)))
        sizes = list(await session.scalars(select(columns(DatasetRow).row_count).order_by(columns(DatasetRow).name)))
    findings = await examine(gateway.database, gateway.lake, gateway.clock)
    return [(row.status, row.row_count) for row in rows], sizes, [finding.problem for finding in findings]


def later(gateway: Gateway) -> None:
    gateway.clock.advance(timedelta(seconds=1))


async def test_records_that_it_replaced_come_back(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "silver"}])
    later(gateway)
    second = await gateway.people([{"id": "1", "tier": "bronze"}, {"id": "3", "tier": "none"}])
    assert await people(gateway) == {
        "crm:1": {"id": "1", "tier": "bronze"},
        "crm:2": {"id": "2", "tier": "silver"},
        "crm:3": {"id": "3", "tier": "none"},
    }
    await remove(gateway, second)
    assert await people(gateway) == {"crm:1": {"id": "1", "tier": "gold"}, "crm:2": {"id": "2", "tier": "silver"}}
    assert await counts(gateway) == ([("ACTIVE", 2)], [2], [])
    with pytest.raises(Refusal) as caught:
        await remove(gateway, second)
    assert caught.value.code == ErrorCode.NOT_FOUND


async def test_its_events_go_and_may_be_sent_again(gateway: Gateway) -> None:
    event = {"id": "1", "timestamp": "2026-06-01T00:00:00Z", "_id": "a"}
    first = await gateway.events([event])
    later(gateway)
    await gateway.events([event, {**event, "_id": "b"}])
    await remove(gateway, first)
    assert await counts(gateway) == ([("ACTIVE", 1)], [1], [])
    later(gateway)
    await gateway.events([event])
    assert await counts(gateway) == ([("ACTIVE", 1), ("ACTIVE", 1)], [2], [])


async def test_streamed_definitions_follow(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "gold"}])
    gold = await gateway.define("gold", 'tier = "gold"')
    later(gateway)
    lost = await gateway.people([{"id": "1", "tier": "bronze"}, {"id": "3", "tier": "gold"}])
    later(gateway)
    await gateway.stream()
    before = await gateway.numbers(gold)
    await remove(gateway, lost)
    later(gateway)
    await gateway.stream()
    assert (before[0], (await gateway.numbers(gold))[0]) == (1, 1)
    assert sorted(await gateway.statuses(gold)) == ["EXITED", "REALIZED"]


class Members:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.dataset, self.audience = gateway, "", ""

    async def create(self) -> None:
        gateway = self.gateway
        new = datasets.NewDataset("list", DatasetKind.AUDIENCE, "id", "crm")
        self.dataset = (await datasets.create(gateway.database, gateway.clock, SCOPE, new)).id
        audience = external.NewExternal("uploaded", dataset_id=self.dataset)
        created = await external.create(gateway.database, gateway.lake, gateway.clock, SCOPE, audience)
        self.audience = created.id

    async def send(self, *ids: str) -> str:
        gateway = self.gateway
        later(gateway)
        file = gateway.folder / "members.csv"
        file.write_text("\n".join(["id", *ids]))
        sent = await upload_batch(
            gateway.database, gateway.lake, gateway.clock, SCOPE, self.dataset, InputFile(file, "CSV")
        )
        return sent.batch.id

    async def state(self) -> tuple[int | None, list[str], Any]:
        async with self.gateway.database.session() as session:
            row = (await session.scalars(select(AudienceRow).where(AudienceRow.id == self.audience))).one()  # type: ignore[arg-type]
        return row.total_profiles, await self.gateway.statuses(self.audience), row.expires_at


async def test_members_that_only_it_brought_leave(gateway: Gateway) -> None:
    members = Members(gateway)
    await members.create()
    first = await members.send("1", "2")
    second = await members.send("2", "3")
    expires = (await members.state())[2]
    later(gateway)
    await remove(gateway, second)
    assert await members.state() == (2, ["EXISTING", "EXISTING", "EXITED"], expires)
    later(gateway)
    await remove(gateway, first)
    total, statuses, _ = await members.state()
    assert (total, set(statuses)) == (0, {"EXITED"})
    assert await counts(gateway) == ([], [0], [])


@pytest.mark.parametrize("place", ["before the lake", "after the lake"])
async def test_a_deletion_whose_process_died_is_finished(
    gateway: Gateway, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = Members(gateway)
    await members.create()
    await members.send("1", "2")
    lost = await members.send("3")

    class Died(Exception):
        pass

    def die(*_args: Any, **_options: Any) -> None:
        raise Died

    name = "withdraw_batch" if place == "before the lake" else "new_id"
    with monkeypatch.context() as patch:
        patch.setattr(batches, name, die)
        with pytest.raises(Died):
            await remove(gateway, lost)
    assert (await counts(gateway))[0] == [("ACTIVE", 2), ("DELETING", 1)]
    assert (await counts(gateway))[2] == [], "an unfinished deletion is known"
    await batches.reconcile(gateway.database, gateway.lake, gateway.clock)
    assert (await counts(gateway))[0] == [("ACTIVE", 2), ("DELETING", 1)], "its process may still live"
    gateway.clock.advance(batches.LEASE + timedelta(seconds=1))
    await asyncio.gather(*(batches.reconcile(gateway.database, gateway.lake, gateway.clock) for _ in range(3)))
    assert await counts(gateway) == ([("ACTIVE", 2)], [2], [])
    assert (await members.state())[0] == 2


async def test_one_that_is_being_loaded_is_not_deleted(gateway: Gateway) -> None:
    await gateway.people([{"id": "1"}])
    async with gateway.database.session() as session:
        dataset = (await session.scalars(select(DatasetRow))).one()
    later(gateway)
    batch, _ = await batches.begin(gateway.database, gateway.clock, SCOPE, dataset)
    with pytest.raises(Refusal) as caught:
        await remove(gateway, batch.id)
    assert caught.value.code == ErrorCode.INVALID_STATE
    with pytest.raises(Refusal) as caught:
        await deletion.delete_dataset(gateway.database, gateway.lake, gateway.clock, SCOPE, dataset.id)
    assert caught.value.code == ErrorCode.INVALID_STATE
    await batches.fail(gateway.database, SCOPE.tenant, batch.id, "for the test")
    await remove(gateway, batch.id)
    assert await counts(gateway) == ([("ACTIVE", 1)], [1], [])


# ---------------------------------------------------------------- datasets


async def test_a_dataset_whose_fields_definitions_use_is_not_deleted(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    await gateway.people([{"id": "1", "shoe": 42, "tier": "silver"}], "more")
    await gateway.events([{"id": "1", "timestamp": "2026-06-01T00:00:00Z", "price": 1}])
    using = [await gateway.define("B shoes", "shoe > 40"), await gateway.define("A both", 'shoe < 3 or tier = "x"')]
    await gateway.define("tiers", 'tier = "gold"')
    bought = await gateway.define("events", "xEvent.sum(price) > 3", method="BATCH")
    async with gateway.database.session() as session:
        ids = {row.name: row.id for row in await session.scalars(select(DatasetRow))}

    async def refusal(name: str) -> HasDependents:
        with pytest.raises(HasDependents) as caught:
            await deletion.delete_dataset(gateway.database, gateway.lake, gateway.clock, SCOPE, ids[name])
        return caught.value

    refused = await refusal("more")
    assert refused.dependents == (("SegmentDefinition", using[1]), ("SegmentDefinition", using[0]))
    assert refused.message.startswith("'A both', 'B shoes' use its fields: ")
    assert (await refusal("visits")).dependents == (("SegmentDefinition", bought),)
    assert (await counts(gateway))[1] == [1, 1, 1], "nothing has changed"
    # What the other dataset has too, it may keep for both.
    await deletion.delete_dataset(gateway.database, gateway.lake, gateway.clock, SCOPE, ids["people"])
    assert (await counts(gateway))[1] == [1, 1]


async def test_an_upload_and_the_deletion_of_its_dataset_exclude_each_other(gateway: Gateway) -> None:
    await gateway.people([{"id": "1"}])
    async with gateway.database.session() as session:
        dataset = (await session.scalars(select(DatasetRow))).one()
    later(gateway)

    async def delete() -> str:
        try:
            await deletion.delete_dataset(gateway.database, gateway.lake, gateway.clock, SCOPE, dataset.id)
        except Refusal as refusal:
            return refusal.code
        return "deleted"

    async def send() -> str:
        try:
            async with rows_as_file([{"id": "2"}], gateway.folder) as file:
                sent = await upload_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, dataset.id, file)
            return sent.batch.status
        except Refusal as refusal:
            return refusal.code

    outcomes = set()
    for _ in range(3):
        outcomes.add(tuple(await asyncio.gather(delete(), send())))
    assert outcomes <= {("deleted", "NOT_FOUND"), ("INVALID_STATE", "ACTIVE"), ("NOT_FOUND", "NOT_FOUND")}
    assert (await counts(gateway))[2] == []
