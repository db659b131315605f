"""Streaming with an identity graph: after each batch the members are those of a job, however persons join and split."""

from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from app.engine.members.membership import MembershipFiles
from app.services import merge_policies
from app.services.datasets.deletion import delete_batch
from app.services.evaluation.heads import read_heads
from app.services.jobs.segment.run import run_segment_job
from app.storage.columns import columns
from app.storage.tables.membership_changes import MembershipChangeRow
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from tests.support.gateway import LEASE, SCOPE, Gateway


async def linked_policy(gateway: Gateway, graph: IdentityGraph = IdentityGraph.PDG) -> str:
    new = merge_policies.NewPolicy(f"Of {graph}", MergeMethod.TIMESTAMP_ORDERED, graph, [], False)
    return (await merge_policies.create(gateway.database, gateway.clock, SCOPE, new)).id


def emails(*ids: str) -> dict[str, Any]:
    return {"identityMap": {"email": [{"id": id_} for id_ in ids]}}


class Twins:
    """Streamed definitions, and the same ones evaluated by jobs."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.ids: dict[str, tuple[str, str]] = {}

    async def define(self, name: str, expression: str, policy: str | None = None) -> None:
        """`expression` names others in braces."""
        texts = [expression.format(**{other: ids[at] for other, ids in self.ids.items()}) for at in (0, 1)]
        streamed = await self.gateway.define(name, texts[0], "STREAMING", policy)
        job = await self.gateway.define(f"{name} by a job", texts[1], "BATCH", policy)
        self.ids[name] = streamed, job

    async def job(self) -> None:
        await self.gateway.job(*(job for _, job in self.ids.values()))

    async def agree(self) -> dict[str, int]:
        """Runs the jobs; members, times of entry and counts are the same. Returns the numbers of members."""
        await self.job()
        for name, ids in self.ids.items():
            streamed, job = [present(await self.gateway.members(id_)) for id_ in ids]
            assert streamed == job, name
            streamed_numbers, numbers = [await self.gateway.numbers(id_) for id_ in ids]
            assert streamed_numbers == numbers, name
            assert numbers[0] == len(job), name
        return {name: len(present(await self.gateway.members(job))) for name, (_, job) in self.ids.items()}


def present(members: Mapping[tuple[int, int], tuple[str, Any]]) -> dict[tuple[int, int], Any]:
    return {key: at for key, (status, at) in members.items() if status != "EXITED"}


async def test_after_each_of_random_batches_members_are_those_of_a_job(gateway: Gateway) -> None:
    random, clock = Random(18), gateway.clock
    await gateway.people([{"id": f"{n:02}", "tier": "tin", "points": 0, **emails(f"e{n}")} for n in range(24)])
    await gateway.events([{"id": "00", "timestamp": clock().isoformat(), "amount": 9, **emails("e0")}])
    linked, twins = await linked_policy(gateway), Twins(gateway)
    await twins.define("gold", 'tier = "gold"', linked)
    await twins.define("rich", 'points > 5 or inSegment("{gold}")', linked)
    await twins.define("recent", "xEvent[timestamp occurs <= 24 hours before now and amount > 5]", linked)
    await twins.define("apart", 'inSegment("{gold}") and not(inSegment("{recent}"))')
    await twins.define("back", 'inSegment("{apart}") or inSegment("{recent}")', linked)
    await gateway.job()
    batches: list[str] = []
    numbers = []
    for kind in ("people", "events", "people", "delete", "events", "people", "delete"):
        clock.advance(timedelta(minutes=5))
        rows = []
        for n in random.sample(range(30), 6):
            links = emails(*(f"e{random.randrange(30)}" for _ in range(random.choice([0, 0, 1, 2]))))
            rows.append({"id": f"{n:02}", **links})
        if kind == "delete":
            await delete_batch(
                gateway.database, gateway.lake, clock, SCOPE, batches.pop(random.randrange(len(batches)))
            )
        elif kind == "events":
            hours = (clock() - timedelta(hours=random.choice([1, 30])) for _ in rows)
            events = [
                {**row, "timestamp": at.isoformat(), "amount": random.randrange(12)}
                for row, at in zip(rows, hours, strict=True)
            ]
            batches.append(await gateway.events(events))
        else:
            people = [{**row, "tier": random.choice(["gold", "tin"]), "points": random.randrange(10)} for row in rows]
            batches.append(await gateway.people(people))
        await gateway.stream()
        numbers.append(await twins.agree())
    assert all(len({each[name] for each in numbers}) > 1 for name in twins.ids), numbers


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_two_members_that_become_one_leave_one_behind(gateway: Gateway) -> None:
    """Nobody enters: the younger person's key is retired."""
    await gateway.people([{"id": id_, "tier": "gold", **emails(id_)} for id_ in ("1", "2", "3")])
    gold = await gateway.define("Gold", 'tier = "gold"', policy=await linked_policy(gateway))
    await gateway.job()
    began = gateway.clock()
    gateway.clock.advance(timedelta(hours=1))
    await gateway.people([{"id": "2", "tier": "gold", **emails("1")}])
    await gateway.stream()
    assert await gateway.numbers(gold) == (2, {"crm": 2, "email": 2})
    assert sorted((await gateway.members(gold)).values()) == [("EXISTING", began), ("REALIZED", began)]
    async with gateway.database.session() as session:
        assert (await read_heads(session, SCOPE)).graphs == {gold: 2}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_link_alone_makes_a_person_enter_or_leave(gateway: Gateway) -> None:
    """Conditions over what two fragments have together, with the link in a third batch, of events."""
    await gateway.people([{"id": "1", "tier": "gold", **emails("a")}, {"id": "2", "points": 7, **emails("b")}])
    policy = await linked_policy(gateway)
    both = await gateway.define("Both", 'tier = "gold" and points > 5', policy=policy)
    lone = await gateway.define("Lone", 'tier = "gold" and points.isNull()', policy=policy)
    await gateway.job()
    assert [await gateway.numbers(id_) for id_ in (both, lone)] == [(0, {}), (1, {"crm": 1, "email": 1})]
    batch = await gateway.events([{"id": "3", "timestamp": gateway.clock().isoformat(), **emails("a", "b")}])
    await gateway.stream()
    assert [await gateway.numbers(id_) for id_ in (both, lone)] == [(1, {"crm": 1, "email": 1}), (0, {})]
    await delete_batch(gateway.database, gateway.lake, gateway.clock, SCOPE, batch)
    await gateway.stream()
    assert [await gateway.numbers(id_) for id_ in (both, lone)] == [(0, {}), (1, {"crm": 1, "email": 1})]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_after_a_switch_of_the_identity_graph_everyone_is_evaluated_once(gateway: Gateway) -> None:
    """The members were fragments, then persons, then fragments again; the batches touch one of them."""
    await gateway.people([{"id": id_, "tier": tier, **emails("x")} for id_, tier in (("1", "gold"), ("2", "gold"))])
    await gateway.people([{"id": "3", "tier": "tin"}])
    policy = await linked_policy(gateway, IdentityGraph.NONE)
    gold = await gateway.define("Gold", 'tier = "gold"', policy=policy)
    await gateway.job()
    assert await gateway.numbers(gold) == (2, {"crm": 2, "email": 2})
    for graph, number in ((IdentityGraph.PDG, 2), (IdentityGraph.NONE, 3)):
        changes: merge_policies.PolicyChanges = {"identity_graph": graph}
        await merge_policies.update(gateway.database, gateway.clock, SCOPE, policy, None, changes)
        await gateway.people([{"id": "3", "tier": "gold"}])
        await gateway.stream()
        assert await gateway.numbers(gold) == (number, {"crm": number, "email": number - 1})
        assert len(present(await gateway.members(gold))) == number


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_job_that_has_not_seen_a_link_counts_persons_as_it_knows_them(gateway: Gateway) -> None:
    """1 and 2 are joined, and 3 enters, while the job runs; its result lacks both until the next turn."""
    await gateway.people([{"id": id_, "tier": "gold", **emails(id_)} for id_ in ("1", "2")])
    gold = await gateway.define("Gold", 'tier = "gold"', policy=await linked_policy(gateway))
    await gateway.job()
    run = await gateway.start_job()
    read = run.done_buckets

    async def late() -> Any:
        rows = await read()
        if rows:
            await gateway.people([{"id": "2", "tier": "gold", **emails("1")}, {"id": "3", "tier": "gold"}])
            await gateway.stream()
        return rows

    run.done_buckets = late  # type: ignore[method-assign]
    await run_segment_job(run, gateway.lake, 1)
    assert (await gateway.numbers(gold))[0] == 2
    await gateway.stream()
    assert (await gateway.numbers(gold))[0] == len(present(await gateway.members(gold))) == 2
    changes = columns(MembershipChangeRow)
    async with gateway.database.session() as session:
        rows = await session.execute(select(changes.entered, changes.exited).order_by(changes.sequence))
    assert list(map(tuple, rows)) == [(2, 0), (1, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("written", [1, 6])
async def test_a_turn_that_ends_between_its_passes_is_done_by_the_next(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    """Persons of one pass have fragments in the buckets of the next; the worker dies after some files."""
    await gateway.people([{"id": f"{n}", "tier": "tin", **emails(f"{n}")} for n in range(12)])
    linked, twins = await linked_policy(gateway), Twins(gateway)
    await twins.define("gold", 'tier = "gold"', linked)
    await twins.define("apart", 'inSegment("{gold}")')
    await twins.define("back", 'not(inSegment("{apart}"))', linked)
    await gateway.job()
    await gateway.people([{"id": f"{n}", "tier": "gold", **emails(f"{n + 1}")} for n in range(0, 12, 3)])
    files = 0

    def write(*arguments: Any, of: Any = MembershipFiles.write) -> str:
        nonlocal files
        files += 1
        if files > written:
            raise OSError("killed")
        return str(of(*arguments))

    with monkeypatch.context() as patched:
        patched.setattr(MembershipFiles, "write", write)
        with pytest.raises(OSError, match="killed"):
            await gateway.stream()
    before = [await gateway.numbers(streamed) for streamed, _ in twins.ids.values()]
    assert [number for number, _ in before] == [0, 0, 12]
    gateway.clock.advance(LEASE + timedelta(seconds=1))
    await gateway.stream()
    assert await twins.agree() == {"gold": 4, "apart": 8, "back": 4}


async def test_a_sweep_follows_the_clock_over_persons_and_fragments(gateway: Gateway) -> None:
    now = gateway.clock()
    await gateway.people([{"id": f"{n:02}", "tier": "tin", **emails(f"e{n // 2}")} for n in range(40)])
    seen = {n: (now - timedelta(hours=1 if n % 4 else 20)).isoformat() for n in range(0, 40, 2)}
    await gateway.events([{"id": f"{n:02}", "timestamp": at} for n, at in seen.items()])
    linked, twins = await linked_policy(gateway), Twins(gateway)
    await twins.define("recent", "xEvent[timestamp occurs <= 24 hours before now]", linked)
    await twins.define("apart", 'inSegment("{recent}")')
    await twins.define("back", 'not(inSegment("{apart}"))', linked)
    await gateway.job()
    for hours, numbers in ((5, {"recent": 10, "apart": 20, "back": 10}), (20, {"recent": 0, "apart": 0, "back": 20})):
        gateway.clock.advance(timedelta(hours=hours))
        assert await gateway.stream(timedelta(minutes=10)) == 0
        assert await twins.agree() == numbers
        assert await gateway.nothing_waits(timedelta(minutes=10))
