"""Explanations of stored audiences: they agree with membership, follow segments, and respect opt-outs."""

import pytest

from app.errors import ExpressionRefused, Refusal
from app.services.audiences import reads as audiences
from app.services.insight.explanation import Explanation, Identity, explain
from app.services.insight.overlap import People
from app.services.lists.paging import PageRequest
from tests.services.conftest import SCOPE, Gateway

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""A person is read from files."""


async def why(gateway: Gateway, person: str, audience: str | None = None, expression: str | None = None) -> Explanation:
    people = People(expression=expression)
    if audience is not None:
        async with gateway.database.session() as session:
            people = People(audience=await audiences.required(session, SCOPE, audience))
    return await explain(gateway.database, SCOPE, gateway.reader(), Identity("crm", person), people, None)


async def members(gateway: Gateway, audience: str) -> set[str]:
    reader = gateway.reader()
    page = (await reader.members_many([audience], PageRequest(500)))[audience]
    persons = await reader.people([member.key for member in page.items])
    return {person.profile_id.removeprefix("crm:") for person in persons.values()}


async def test_an_explanation_agrees_with_the_members_of_a_job(gateway: Gateway) -> None:
    ids = [f"{number:02}" for number in range(24)]
    await gateway.people(
        [{"id": id, "n": number, "optInOut": {"globalOptout": number % 5 == 0}} for number, id in enumerate(ids)]
    )
    await gateway.events([{"id": id, "timestamp": "2026-06-01T00:00:00Z", "kind": "buy"} for id in ids[::3]])
    even = await gateway.define("Even", "n % 2 = 0", method="BATCH")
    both = await gateway.define("Both", f'inSegment("{even}") and xEvent[kind = "buy"]', method="BATCH")
    await gateway.job()
    for audience in (even, both):
        inside = await members(gateway, audience)
        assert 0 < len(inside) < len(ids)
        for id in ids:
            found = await why(gateway, id, audience)
            assert (found.member, found.root.holds) == (id in inside, id in inside), (audience, id)
            assert found.evaluated_at == gateway.clock()


async def test_segment_membership_is_what_a_job_reads(gateway: Gateway) -> None:
    """Also where only a followed segment reads it, and beside what the data say of segments."""
    own = {"segmentMembership": {"ups": {"elsewhere": {"status": "realized"}}}}
    await gateway.people([{"id": "a", "n": 1}, {"id": "b", "n": 0}, {"id": "c", "n": 1, **own}])
    ones = await gateway.define("Ones", "n = 1", method="BATCH")
    await gateway.job()
    status = f'segmentMembership.get("ups").get("{ones}").status'
    read = await gateway.define("Read", f'{status} = "realized" or {status} = "existing"', method="BATCH")
    both = await gateway.define("Both", f'inSegment("{read}") and n >= 0', method="BATCH")
    data = await gateway.define(
        "Data", 'segmentMembership.get("ups").get("elsewhere").status = "realized"', method="BATCH"
    )
    await gateway.job()
    for audience, expected in ((read, {"a", "c"}), (both, {"a", "c"}), (data, {"c"})):
        assert await members(gateway, audience) == expected
        for id in "abc":
            assert (await why(gateway, id, audience)).member == (id in expected), (audience, id)
    (realized, existing) = (await why(gateway, "a", read)).root.children
    assert (realized.holds, existing.holds, existing.children[0].value) == (False, True, "existing")


async def test_a_profile_that_opted_out_is_told_so(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1, "optInOut": {"globalOptout": True}}])
    audience = await gateway.define("All", "n = 1", method="BATCH")
    found = await why(gateway, "1", audience)
    assert not found.member
    expression, consent = found.root.children
    assert (found.root.text, found.root.holds, expression.text, expression.holds) == ("n = 1", False, "n = 1", True)
    assert (consent.text, consent.holds) == ("not opted out", False)
    assert not (await why(gateway, "1", expression="n = 1")).member
    await gateway.set(audience, exclude_opt_out=False)
    found = await why(gateway, "1", audience)
    assert (found.member, found.root.text, found.root.children[0].text) == (True, "n = 1", "n")


async def test_segments_are_followed_with_their_stored_members(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1}])
    first = await gateway.define("First", "n = 1", method="BATCH")
    await gateway.job()
    await gateway.people([{"id": "1", "n": 2}])
    found = await why(gateway, "1", expression=f'inSegment("{first}")')
    # The stored members are those of the job; the expression below shows the data as they are now.
    assert (found.member, found.root.holds) == (True, True)
    (now,) = found.root.children
    assert (now.text, now.holds, [child.value for child in now.children]) == ("n = 1", False, [2, 1])


async def test_an_audience_that_was_never_evaluated_is_explained_but_not_referred_to(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1}])
    never = await gateway.define("Never", "n = 1", method="BATCH")
    with pytest.raises(Refusal, match=r"'Never' .* has never been evaluated") as refused:
        await why(gateway, "1", expression=f'inSegment("{never}")')
    assert refused.value.path == ("people", "expression")
    assert (await why(gateway, "1", never)).member


async def test_what_cannot_be_explained_is_refused(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1}])
    with pytest.raises(
        Refusal, match="no profile of this sandbox has the identity 'ghost' in 'crm': check the "
    ) as unknown:
        await why(gateway, "ghost", expression="n = 1")
    assert unknown.value.path == ("profile",)
    with pytest.raises(ExpressionRefused) as wrong:
        await why(gateway, "1", expression="m = 1")
    assert wrong.value.path == ("people", "expression")
    broken = await gateway.define("Broken", "n = 1", method="BATCH")
    await gateway.break_expression(broken)
    with pytest.raises(ExpressionRefused) as lost:
        await why(gateway, "1", broken)
    assert lost.value.path == ("people", "audience_id")
