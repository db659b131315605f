"""Who was in at a moment: before the first run, between runs, when history is gone; and how two moments differ."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import Refusal
from app.services.audiences import computed as definitions
from app.services.audiences import external, reads
from app.services.evaluation.heads import Heads
from app.services.insight import moments, profiles
from app.services.insight.population import open_population
from app.services.insight.profiles import Among, ProfileOrder
from app.services.lists.paging import PageRequest
from app.services.maintenance.retention import forget_changes
from app.services.merge_policies import ensure_default
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_changes import numbered
from tests.services.test_erasure import ANN, erase
from tests.services.test_erasure import members as uploaded
from tests.support.both_ways import both_ways

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def hour(gateway: Gateway) -> datetime:
    """The moment just now; an hour later it is another."""
    at = gateway.clock()
    gateway.clock.advance(timedelta(hours=1))
    return at


async def heads_of(session: AsyncSession, audience: str, moment: datetime, now: datetime) -> Heads:
    heads = (await moments.heads_at(session, SCOPE, [audience], moment, now))[audience]
    if isinstance(heads, Refusal):
        raise heads
    return heads


async def at(gateway: Gateway, audience: str, moment: datetime, *statuses: str, where: str | None = None) -> str:
    """The ids of the members, sorted."""
    async with gateway.database.session() as session:
        heads = await heads_of(session, audience, moment, gateway.clock())
    opened = await open_population(gateway.reader())
    among = Among(audience, statuses or ("REALIZED", "EXISTING"), heads)
    order = ProfileOrder("n") if where else None
    page = await profiles.page(opened, PageRequest(100), where, order, 1, among)
    assert await profiles.count(opened, where, among) == len(page.items)
    persons = await gateway.reader().people(page.items)
    members = await profiles.members_of(opened, page, among)
    assert {member.status for member in members.items} <= set(among.statuses)
    return " ".join(sorted(persons[who].profile_id.removeprefix("crm:") for who in page.items))


async def differ(
    gateway: Gateway, audience: str, earlier: datetime, later: datetime
) -> tuple[tuple[int, ...], str, str]:
    """Before, after, stay, enter and leave, and who enters and leaves."""
    async with gateway.database.session() as session:
        row = (await reads.get_many(session, SCOPE, [audience]))[audience]
        heads = [await heads_of(session, audience, one, gateway.clock()) for one in (earlier, later)]
    result = await moments.difference(gateway.reader(), row, *heads)
    counts = await result.counts(1)
    assert counts.exact
    sides = []
    for read, chosen in ((result.entering, result.enters), (result.leaving, result.leaves)):
        items = await both_ways(read, 2)
        persons = await gateway.reader().people(items)
        assert await result.size(chosen) == len(items)
        sides.append(" ".join(sorted(persons[who].profile_id.removeprefix("crm:") for who in items)))
    estimates = (counts.after, counts.stay, counts.enter, counts.leave)
    return (counts.before, *(one.size for one in estimates)), sides[0], sides[1]


async def test_members_of_runs_streams_and_definitions_that_changed(gateway: Gateway) -> None:
    await numbered(gateway, a=1, b=1, c=0, d=0, e=2)
    audience = await gateway.define("Ones", "n = 1", "BATCH")
    never = hour(gateway)
    await gateway.job()
    first = hour(gateway)
    await numbered(gateway, b=0, c=1)
    changed = hour(gateway)
    await gateway.job()
    second = hour(gateway)
    await gateway.job()  # the same members, who are not new any more
    third = hour(gateway)
    assert await at(gateway, audience, never) == ""
    assert await at(gateway, audience, first) == await at(gateway, audience, changed) == "a b"
    assert await at(gateway, audience, second) == await at(gateway, audience, third) == "a c"
    # Of runs with the same members the last one is kept, and with it its statuses.
    assert await at(gateway, audience, third, "EXISTING") == await at(gateway, audience, second, "EXISTING") == "a c"
    assert await at(gateway, audience, first, "REALIZED") == "a b"
    # Conditions and orders look at the data of now.
    assert await at(gateway, audience, first, where="n = 1") == "a"
    await definitions.update(
        gateway.database, gateway.lake, gateway.clock, SCOPE, audience, None, {"expression": "n = 2"}
    )
    assert await at(gateway, audience, hour(gateway)) == "a c"
    await gateway.job()
    assert await at(gateway, audience, hour(gateway)) == "e"
    assert await at(gateway, audience, second) == "a c"
    assert await differ(gateway, audience, first, second) == ((2, 2, 1, 1, 1), "c", "b")
    assert await differ(gateway, audience, never, first) == ((0, 2, 0, 2, 0), "a b", "")
    assert await differ(gateway, audience, second, third) == ((2, 2, 2, 0, 0), "", "")
    assert await differ(gateway, audience, first, gateway.clock()) == ((2, 1, 0, 1, 2), "e", "a b")
    with pytest.raises(Refusal, match="is still to come") as refused:
        await at(gateway, audience, gateway.clock() + timedelta(seconds=1))
    assert refused.value.path == ("as_of",)


async def test_streamed_members_and_those_who_were_erased(gateway: Gateway) -> None:
    await numbered(gateway, nobody=-1)
    audience = await gateway.define("Ones", "n = 1")
    await numbered(gateway, **{"a": 1, ANN: 1, "c": 0})
    before = hour(gateway)
    await gateway.stream()
    streamed = hour(gateway)
    await numbered(gateway, a=0, c=1)
    await gateway.stream()
    moved = hour(gateway)
    assert await at(gateway, audience, before) == ""
    assert await at(gateway, audience, streamed) == f"a {ANN}"
    assert await at(gateway, audience, moved) == f"c {ANN}"
    await gateway.job()
    assert await at(gateway, audience, streamed) == f"a {ANN}"
    assert (await erase(gateway, ANN)).verified
    assert await at(gateway, audience, streamed) == "a"
    assert await at(gateway, audience, hour(gateway)) == "c"
    assert await differ(gateway, audience, streamed, moved) == ((1, 1, 0, 1, 1), "c", "a")


async def test_what_is_no_longer_kept_is_refused_and_the_rest_stays(gateway: Gateway) -> None:
    await numbered(gateway, a=1, b=0)
    audience = await gateway.define("Ones", "n = 1", "BATCH")
    never = hour(gateway)
    await gateway.job()
    first = hour(gateway)
    await numbered(gateway, b=1)
    await gateway.job()
    second = hour(gateway)
    await numbered(gateway, a=0)
    await gateway.job()
    third = hour(gateway)
    await forget_changes(gateway.database, SCOPE.tenant, second + timedelta(minutes=1))
    for moment in (never, first):
        with pytest.raises(Refusal, match="no longer kept: history of this audience begins at 2026-"):
            await at(gateway, audience, moment)
    assert await at(gateway, audience, second) == "a b"
    assert await at(gateway, audience, third) == "b"


async def test_uploaded_members_until_they_expire(gateway: Gateway) -> None:
    await gateway.people([{"id": "other-3", "n": 1}])
    start = hour(gateway)
    audience = await uploaded(gateway)
    sent = hour(gateway)
    assert await at(gateway, audience, start) == ""
    assert await at(gateway, audience, sent) == f"{ANN} other-3"
    gateway.clock.advance(timedelta(days=31))
    # Also while nobody has noted yet that its time is over.
    for noted in (False, True):
        if noted:
            await external.expire(gateway.database, gateway.clock)
        assert await at(gateway, audience, gateway.clock()) == ""
        assert await at(gateway, audience, sent) == f"{ANN} other-3"
    assert await differ(gateway, audience, sent, gateway.clock()) == ((2, 0, 0, 0, 2), "", f"{ANN} other-3")


async def test_persons_of_an_identity_graph(gateway: Gateway) -> None:
    """Whoever a late link joins is one member of then."""
    policy = (await ensure_default(gateway.database, gateway.clock, SCOPE)).id
    await gateway.stitch(policy)
    await numbered(gateway, a=1, b=1, c=0)
    audience = await gateway.define("Ones", "n = 1", "BATCH", policy)
    await gateway.job()
    first = hour(gateway)
    await gateway.people([{"id": "a", "n": 1, "identityMap": {"crm": [{"id": "b"}]}}])
    await gateway.job()
    second = hour(gateway)
    assert len((await at(gateway, audience, first)).split()) == 1
    assert len((await at(gateway, audience, second)).split()) == 1
    assert (await differ(gateway, audience, first, second))[0] == (1, 1, 1, 0, 0)
