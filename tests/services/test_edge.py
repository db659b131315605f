"""EDGE: the memberships of a person are those of the moment at which they are read."""

from datetime import timedelta

import pytest

from app.services import merge_policies
from app.services.lists.paging import PageRequest
from app.services.people.profiles import ProfileReader
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod
from app.storage.tables.streaming import MembershipPatchRow
from tests.support.databases import count_statements
from tests.support.gateway import SCOPE, Gateway

ALL = ("REALIZED", "EXISTING", "EXITED")
RECENT = "xEvent[timestamp occurs <= 24 hours before now]"


async def statuses(reader: ProfileReader, *people: str) -> dict[str, dict[str, tuple[str, object]]]:
    """Of each person (by id) the status and time in each audience."""
    keys = {id_: key for id_ in people if (key := await reader.find_identity("crm", id_)) is not None}
    pages = await reader.memberships(list(keys.values()), PageRequest(50), ALL)
    counts = await reader.membership_counts(list(keys.values()), ALL)
    found: dict[str, dict[str, tuple[str, object]]] = {
        id_: {member.definition_id: (member.status, member.last_qualification_time) for member in pages[key].items}
        for id_, key in keys.items()
    }
    assert {id_: counts[key] for id_, key in keys.items()} == {id_: len(of) for id_, of in found.items()}
    return found


async def test_time_that_passes_shows_when_memberships_are_read_and_changes_nothing(gateway: Gateway) -> None:
    start = gateway.clock()
    await gateway.events([{"id": "1", "timestamp": (start - timedelta(hours=2)).isoformat(), "amount": 1}])
    await gateway.events([{"id": "2", "timestamp": (start - timedelta(hours=30)).isoformat(), "amount": 1}])
    edge = await gateway.define("Edge", RECENT, method="EDGE")
    stored = await gateway.define("Stored", RECENT, method="STREAMING")
    assert await statuses(gateway.reader(), "1", "2") == {"1": {edge: ("REALIZED", start)}, "2": {}}
    await gateway.job()
    within = {edge: ("REALIZED", start), stored: ("REALIZED", start)}
    assert await statuses(gateway.reader(), "1", "2") == {"1": within, "2": {}}
    gateway.clock.advance(timedelta(hours=22))
    assert await statuses(gateway.reader(), "1", "2") == {"1": within, "2": {}}
    gateway.clock.advance(timedelta(microseconds=1))
    left = {edge: ("EXITED", start), stored: ("REALIZED", start)}
    assert await statuses(gateway.reader(), "1", "2") == {"1": left, "2": {}}
    assert (await gateway.statuses(edge), await gateway.numbers(edge)) == (["REALIZED"], (1, {"crm": 1}))
    assert await gateway.count(MembershipPatchRow) == 0


async def test_new_data_shows_at_once_and_entering_is_now(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"', method="EDGE")
    child = await gateway.define("Child", f'inSegment("{gold}")', method="EDGE")
    await gateway.job()
    start = gateway.clock()
    gateway.clock.advance(timedelta(hours=1))
    await gateway.people([{"id": "1", "tier": "tin"}, {"id": "2", "tier": "gold"}])
    now = gateway.clock()
    assert await statuses(gateway.reader(), "1", "2") == {
        "1": {gold: ("EXITED", start), child: ("EXITED", start)},
        "2": {gold: ("REALIZED", now), child: ("REALIZED", now)},
    }
    await gateway.stream()
    gateway.clock.advance(timedelta(hours=1))
    assert await statuses(gateway.reader(), "1", "2") == {
        "1": {gold: ("EXITED", start), child: ("EXITED", start)},
        "2": {gold: ("REALIZED", now), child: ("REALIZED", now)},
    }


async def test_one_that_cannot_be_evaluated_shows_what_is_stored(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}])
    gold = await gateway.define("Gold", 'tier = "gold"', method="EDGE")
    await gateway.job()
    await gateway.break_expression(gold)
    assert await statuses(gateway.reader(), "1") == {"1": {gold: ("REALIZED", gateway.clock())}}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("default", ["NONE", "PDG"])
async def test_persons_and_fragments_are_evaluated_whichever_of_them_is_read(gateway: Gateway, default: str) -> None:
    """1 and 2 are one person, whose only event is that of 1."""
    start = gateway.clock()
    await gateway.people([{"id": id_, "identityMap": {"email": [{"id": "a"}]}} for id_ in ("1", "2")])
    await gateway.events([{"id": "1", "timestamp": (start - timedelta(hours=2)).isoformat()}])
    policies = {}
    for graph in IdentityGraph:
        new = merge_policies.NewPolicy(f"{graph}", MergeMethod.TIMESTAMP_ORDERED, graph, [], graph == default)
        policies[graph] = (await merge_policies.create(gateway.database, gateway.clock, SCOPE, new)).id
    person = await gateway.define("Person", RECENT, method="EDGE", policy=policies[IdentityGraph.PDG])
    fragment = await gateway.define("Fragment", RECENT, method="EDGE", policy=policies[IdentityGraph.NONE])
    both = {person: ("REALIZED", start), fragment: ("REALIZED", start)}
    alone = both if default == "PDG" else {person: ("REALIZED", start)}
    assert await statuses(gateway.reader(), "1", "2") == {"1": both, "2": alone}
    await gateway.job()
    assert await statuses(gateway.reader(), "1", "2") == {"1": both, "2": alone}
    gateway.clock.advance(timedelta(hours=23))
    left = {id_: dict.fromkeys(of, ("EXITED", start)) for id_, of in (("1", both), ("2", alone))}
    assert await statuses(gateway.reader(), "1", "2") == left


async def test_a_page_of_people_costs_the_statements_of_one(gateway: Gateway) -> None:
    await gateway.people([{"id": f"{n}", "tier": "gold"} for n in range(30)])
    await gateway.define("Gold", 'tier = "gold"', method="EDGE")
    await gateway.define("Tin", 'tier = "tin"', method="EDGE")
    costs = []
    for number in (1, 30):
        reader = gateway.reader()
        keys = [key for n in range(number) if (key := await reader.find_identity("crm", f"{n}")) is not None]
        with count_statements(gateway.database) as statements:
            pages = await reader.memberships(keys, PageRequest(50))
            await reader.membership_counts(keys)
        costs.append(len(statements))
        assert [len(pages[key].items) for key in keys] == [1] * number
    # Heads, files, patches; definitions, names of segments, the time zone. Policies and datasets were read then.
    assert costs == [6, 6]
