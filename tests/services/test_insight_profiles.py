"""Profiles that an expression holds for, in the order of another: every page against plain Python."""

from typing import Any

import pytest

from app.errors import ExpressionRefused, Refusal
from app.services.insight import profiles
from app.services.insight.population import Population, open_population
from app.services.insight.profiles import Among, ProfileOrder
from app.services.lists.paging import PageRequest, Slice, encode_cursor
from app.services.people.members import Member
from tests.services.conftest import Gateway
from tests.support.both_ways import both_ways

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Profiles and their order come from files."""

PEOPLE: list[dict[str, Any]] = [
    {
        "id": f"{number:03}",
        **({} if number % 7 == 0 else {"age": number % 10}),
        **({} if number % 5 == 0 else {"city": ["Rome", "Oslo", "Ärzen", "a", "Z"][number % 5 - 1]}),
        "joined": f"2026-01-{number % 28 + 1:02}",
        "vip": number % 3 == 0,
    }
    for number in range(90)
]


async def population(gateway: Gateway) -> Population:
    return await open_population(gateway.reader())


async def ids_of(gateway: Gateway, page: Any) -> list[str]:
    persons = await gateway.reader().people(page.items)
    return [persons[who].profile_id.removeprefix("crm:") for who in page.items]


async def walk(gateway: Gateway, where: str | None, order: ProfileOrder | None, *, backward: bool = False) -> list[str]:
    """All profiles, by pages of 7, in the order of the list."""
    opened, found, cursor = await population(gateway), list[str](), None
    while True:
        page = await profiles.page(opened, PageRequest(7, backward, cursor), where, order, 2)
        ids = await ids_of(gateway, page)
        found = ids + found if backward else found + ids
        assert (page.has_previous if not backward else page.has_next) == (cursor is not None)
        if not (page.has_previous if backward else page.has_next):
            return found
        cursor = page.cursors[0 if backward else -1]


def expected(field: str, *, descending: bool) -> tuple[list[Any], int]:
    """The values in order, and how many profiles have none."""
    values = [person[field] for person in PEOPLE if field in person]
    return sorted(values, reverse=descending), len(PEOPLE) - len(values)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("field", ["age", "city", "joined", "vip"])
async def test_profiles_come_in_the_order_of_a_value_and_those_without_one_last(
    gateway: Gateway, field: str, descending: bool
) -> None:
    await gateway.people(PEOPLE)
    by_id = {person["id"]: person for person in PEOPLE}
    order = ProfileOrder(field, descending)
    forward = await walk(gateway, None, order)
    values, missing = expected(field, descending=descending)
    assert [by_id[id].get(field) for id in forward] == [*values, *[None] * missing]
    assert len(set(forward)) == len(PEOPLE)
    assert await walk(gateway, None, order, backward=True) == forward


async def test_where_filters_profiles_with_and_without_an_order(gateway: Gateway) -> None:
    await gateway.people(PEOPLE)
    wanted = {person["id"] for person in PEOPLE if person.get("age", 0) > 6}
    for order in (None, ProfileOrder("city"), ProfileOrder("age * 2 - 1", descending=True)):
        found = await walk(gateway, "age > 6", order)
        assert (len(found), set(found)) == (len(wanted), wanted)
        assert await walk(gateway, "age > 6", order, backward=True) == found
    assert await profiles.count(await population(gateway), "age > 6") == len(wanted)
    assert await profiles.count(await population(gateway), None) == len(PEOPLE)
    assert await walk(gateway, "age > 100", None) == []
    everybody = await walk(gateway, None, None)
    assert sorted(everybody) == [person["id"] for person in PEOPLE]


async def test_a_page_goes_on_after_a_profile_that_has_changed(gateway: Gateway) -> None:
    await gateway.people(PEOPLE)
    order = ProfileOrder("age")
    first = await profiles.page(await population(gateway), PageRequest(10), None, order, 1)
    await gateway.people([{**PEOPLE[0], "id": "new", "age": -1}, {**PEOPLE[0], "id": "later", "age": 99}])
    rest = await profiles.page(await population(gateway), PageRequest(500, False, first.cursors[-1]), None, order, 1)
    ids = await ids_of(gateway, rest)
    assert len(ids) == len(PEOPLE) - 10 + 1
    assert "later" in ids
    assert "new" not in ids


async def test_values_count_events_and_segments_are_followed(gateway: Gateway) -> None:
    await gateway.people(PEOPLE[:3])
    await gateway.events([{"id": "001", "timestamp": "2026-01-01T00:00:00Z", "n": n} for n in (1, 2, 3)])
    segment = await gateway.define("Third", "age = 2", method="BATCH")
    await gateway.job()
    assert await walk(gateway, None, ProfileOrder("xEvent.sum(n)", descending=True)) == [
        "001",
        *await walk(gateway, "xEvent.count() = 0", None),
    ]
    assert await walk(gateway, f'inSegment("{segment}")', None) == ["002"]


async def test_what_cannot_be_answered_is_refused(gateway: Gateway) -> None:
    await gateway.people(PEOPLE[:3])
    never = await gateway.define("Never", "age = 2", method="BATCH")
    opened = await population(gateway)
    request = PageRequest(5)
    with pytest.raises(ExpressionRefused) as unknown:
        await profiles.page(opened, request, "aeg > 1", None, 1)
    assert (unknown.value.path, unknown.value.diagnostics[0].suggestions) == (("where",), ("age",))
    with pytest.raises(ExpressionRefused, match="expected a single value, not array<object>") as array:
        await profiles.page(opened, request, None, ProfileOrder("xEvent"), 1)
    assert array.value.path == ("order_by", "expression")
    with pytest.raises(Refusal, match=r"'Never' .* has never been evaluated"):
        await profiles.page(opened, request, f'inSegment("{never}")', None, 1)
    order = ProfileOrder("age")
    for place in (("text", 0, 0), (1.0, -1, 0), (1.0, 0), (True, 0, 0), (1.0, 0, 1 << 40)):
        with pytest.raises(Refusal, match="is not a cursor"):
            await profiles.page(opened, PageRequest(5, False, encode_cursor(order.name, place)), None, order, 1)
    other = encode_cursor(ProfileOrder("city").name, (None, 0, 0))
    with pytest.raises(Refusal, match="belongs to a list in the order"):
        await profiles.page(opened, PageRequest(5, False, other), None, order, 1)


@pytest.mark.parametrize("statuses", [("REALIZED", "EXISTING"), ("REALIZED",), ("EXITED",)])
@pytest.mark.parametrize("where", [None, "age > 3"])
@pytest.mark.parametrize("order", [None, ProfileOrder("age"), ProfileOrder("age", descending=True)])
async def test_members_are_filtered_ordered_and_paged(
    gateway: Gateway, statuses: tuple[str, ...], where: str | None, order: ProfileOrder | None
) -> None:
    """Of two runs: some stay, some enter, some leave; every page against plain Python."""
    before = [{"id": f"{n:03}", "city": ["Rome", "Oslo"][n % 2], "age": n % 7} for n in range(40)]
    await gateway.people(before)
    audience = await gateway.define("Romans", 'city = "Rome"', "BATCH")
    await gateway.define("Others", 'city = "Oslo"', "BATCH")
    await gateway.job()
    now = {f"{n:03}": ["Rome", "Oslo"][n % 3 == 0] for n in range(40)}
    await gateway.people([{**person, "city": now[str(person["id"])]} for person in before])
    await gateway.job()
    status_of = {
        (True, True): "EXISTING",
        (False, True): "REALIZED",
        (True, False): "EXITED",
    }
    expected = {
        str(person["id"]): status
        for person in before
        if (status := status_of.get((person["city"] == "Rome", now[str(person["id"])] == "Rome"))) in statuses
        and (where is None or int(str(person["age"])) > 3)
    }

    async def read(request: PageRequest) -> Slice[Member]:
        opened = await population(gateway)
        page = await profiles.page(opened, request, where, order, 2, Among(audience, statuses))
        return await profiles.members_of(opened, page, Among(audience, statuses))

    members = await both_ways(read, 4)
    persons = await gateway.reader().people([member.key for member in members])
    ids = [persons[member.key].profile_id.removeprefix("crm:") for member in members]
    assert {id: member.status for id, member in zip(ids, members, strict=True)} == expected
    assert await profiles.count(await population(gateway), where, Among(audience, statuses)) == len(expected) > 0
    if order is not None:
        ages = [int(id) % 7 for id in ids]
        assert ages == sorted(ages, reverse=order.descending)
