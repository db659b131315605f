"""What would change with another expression: counts and people against plain sets."""

from typing import Any

import pytest

from app.engine.insight.scan import Remembering
from app.engine.run.sampling import estimate
from app.errors import ExpressionRefused, Refusal
from app.services.audiences import reads as audiences
from app.services.insight.comparison import Comparison, compare
from app.services.lists.paging import PageRequest
from tests.services.conftest import SCOPE, Gateway

NUMBERS = range(120)


async def comparison(gateway: Gateway, audience: str, expression: str) -> Comparison:
    async with gateway.database.session() as session:
        row = await audiences.required(session, SCOPE, audience)
    return await compare(gateway.reader(), row, None, expression, 1)


async def loaded(gateway: Gateway) -> str:
    """120 profiles numbered from 0, every tenth of which opted out; an audience of the even ones."""
    await gateway.people([{"id": str(n), "n": n, "optInOut": {"globalOptout": n % 10 == 0}} for n in NUMBERS])
    audience = await gateway.define("Even", "n % 2 = 0", method="BATCH")
    await gateway.job()
    return audience


async def ids(gateway: Gateway, read: Any, *, backward: bool = False) -> list[int]:
    """All of a side, by pages of 7."""
    found, cursor = list[int](), None
    while True:
        page = await read(PageRequest(7, backward, cursor))
        persons = await gateway.reader().people(page.items)
        part = [int(persons[who].profile_id.removeprefix("crm:")) for who in page.items]
        found = part + found if backward else found + part
        if not (page.has_previous if backward else page.has_next):
            return found
        cursor = page.cursors[0 if backward else -1]


async def test_who_enters_stays_and_leaves(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    old = {n for n in NUMBERS if n % 2 == 0 and n % 10}
    new = {n for n in NUMBERS if n % 3 == 0 and n % 10}
    found = await comparison(gateway, audience, "n % 3 = 0")
    counts = await found.counts(2)
    assert counts.exact
    assert [counts.before, counts.after.size, counts.stay.size, counts.enter.size, counts.leave.size] == [
        len(old),
        len(new),
        len(old & new),
        len(new - old),
        len(old - new),
    ]
    assert (counts.enter.low, counts.enter.high) == (len(new - old),) * 2
    entering, leaving = await ids(gateway, found.entering), await ids(gateway, found.leaving)
    assert (len(entering), set(entering)) == (len(new - old), new - old)
    assert (len(leaving), set(leaving)) == (len(old - new), old - new)
    assert await ids(gateway, found.entering, backward=True) == entering
    assert [await found.size(found.enters), await found.size(found.leaves)] == [len(new - old), len(old - new)]


async def test_without_consent_those_who_opted_out_enter(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    await gateway.set(audience, exclude_opt_out=False)
    counts = await (await comparison(gateway, audience, "n % 2 = 0")).counts(1)
    assert (counts.before, counts.after.size, counts.enter.size, counts.leave.size) == (48, 60, 12, 0)


async def test_what_is_not_read_is_estimated(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    found = await comparison(gateway, audience, "n >= 0")
    counts = await found.counts(1, enough=lambda: True)
    assert not counts.exact
    assert counts.before == 48
    assert isinstance(found.buckets, Remembering)
    read = found.buckets._known.values()
    assert 1 <= len(read) < len(found.buckets.buckets), "those that were under way when it was enough"
    present = sum(len(answers.present) for answers in read)
    matched = sum(len(answers.members["new"]) for answers in read)
    assert counts.after == estimate(len(NUMBERS), present, matched)
    assert counts.after.low < counts.after.high


async def test_what_cannot_be_compared_is_refused(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    with pytest.raises(ExpressionRefused) as wrong:
        await comparison(gateway, audience, "m = 1")
    assert wrong.value.path == ("expression",)
    never = await gateway.define("Never", "n = 2", method="BATCH")
    with pytest.raises(Refusal, match="'Never' has never been evaluated") as unknown:
        await comparison(gateway, never, "n = 1")
    assert unknown.value.path == ("audience_id",)
