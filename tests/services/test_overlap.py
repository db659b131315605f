"""The overlap of audiences and expressions: every cell against plain sets."""

from itertools import product

import pytest

from app.engine.insight.cells import Cells, count_cells, scaled
from app.errors import ExpressionRefused, Refusal
from app.services.audiences import reads as audiences
from app.services.insight.overlap import Overlap, People, measure
from app.services.insight.population import open_population
from app.storage.tables.audiences import AudienceRow
from tests.services.conftest import SCOPE, Gateway

NUMBERS = range(200)
RULES = {"n % 2 = 0": 2, "n % 3 = 0": 3, "n % 5 = 0": 5, "n % 7 = 0": 7, "n % 11 = 0": 11, "n % 13 = 0": 13}


async def audience(gateway: Gateway, id: str) -> AudienceRow:
    async with gateway.database.session() as session:
        return await audiences.required(session, SCOPE, id)


async def loaded(gateway: Gateway) -> dict[str, str]:
    """200 profiles numbered from 0; the ids of an evaluated audience for each rule."""
    await gateway.people([{"id": str(number), "n": number} for number in NUMBERS])
    ids = {rule: await gateway.define(rule, rule, method="BATCH") for rule in RULES}
    await gateway.job()
    return ids


def plain(divisors: list[int]) -> dict[tuple[bool, ...], int]:
    cells = dict.fromkeys(product((False, True), repeat=len(divisors)), 0)
    for number in NUMBERS:
        cells[tuple(number % divisor == 0 for divisor in divisors)] += 1
    del cells[(False,) * len(divisors)]
    return cells


def check(found: Overlap, divisors: list[int]) -> None:
    expected = plain(divisors)
    assert dict(found.cells) == expected
    assert len(found.cells) == 2 ** len(divisors) - 1
    assert found.sizes == [sum(number % divisor == 0 for number in NUMBERS) for divisor in divisors]
    assert (found.union, found.exact) == (sum(expected.values()), True)


async def test_cells_of_audiences_and_expressions_are_exact(gateway: Gateway) -> None:
    ids = await loaded(gateway)
    stored = [People(audience=await audience(gateway, id)) for id in ids.values()]
    unsaved = [People(expression="n % 4 = 0"), People(expression=f'inSegment("{ids["n % 2 = 0"]}") and n % 17 = 0')]
    check(await measure(gateway.reader(), stored[:2], None, 1), [2, 3])
    check(await measure(gateway.reader(), [*stored, *unsaved], None, 2), [2, 3, 5, 7, 11, 13, 4, 34])
    check(await measure(gateway.reader(), [unsaved[0], stored[1], unsaved[0]], None, 2), [4, 3, 4])


async def test_profiles_that_are_gone_or_opted_out_are_in_no_cell(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1, "optInOut": {"globalOptout": False}}])
    await gateway.people([{"id": "2", "n": 1, "optInOut": {"globalOptout": True}}])
    found = await measure(gateway.reader(), [People(expression="n = 1"), People(expression="true")], None, 1)
    assert (found.sizes, found.union) == ([1, 1], 1)


async def test_streamed_members_count(gateway: Gateway) -> None:
    ids = await loaded(gateway)
    live = await gateway.define("Live", "n = 1000")
    await gateway.people([{"id": "new", "n": 1000}])
    await gateway.stream()
    people = [People(audience=await audience(gateway, id)) for id in (live, ids["n % 2 = 0"])]
    found = await measure(gateway.reader(), people, None, 1)
    assert found.sizes == [1, 100]


async def test_a_sample_is_scaled_and_says_so(gateway: Gateway) -> None:
    await loaded(gateway)
    people = [People(expression="n % 2 = 0"), People(expression="n >= 0")]
    found = await measure(gateway.reader(), people, None, 1, enough=lambda: True)
    assert not found.exact
    population = await open_population(gateway.reader())
    scan = population.scan({"0": population.condition("n % 2 = 0", ()), "1": population.condition("n >= 0", ())})
    cells = count_cells(scan, ["0", "1"], threads=1, stopped=lambda: False, enough=lambda: True)
    assert 0 < cells.profiles < 200
    assert found.union == round(cells.profiles * 200 / cells.profiles) == 200
    assert found.sizes[0] == round(int(cells.counts[3]) * 200 / cells.profiles)


def test_scaled_cells_of_everybody_are_the_counts() -> None:
    cells = Cells(1)
    cells.counts[:] = [3, 7]
    cells.profiles = 10
    assert scaled(cells, 10) == {1: 7}
    assert scaled(cells, 20) == {1: 14}


async def test_what_cannot_be_answered_is_refused(gateway: Gateway) -> None:
    ids = await loaded(gateway)
    never = People(audience=await audience(gateway, await gateway.define("Never", "n = 2", method="BATCH")))
    one = People(audience=await audience(gateway, next(iter(ids.values()))))
    reader = gateway.reader()
    with pytest.raises(Refusal, match="give 2 to 8 audiences or expressions, not 1"):
        await measure(reader, [one], None, 1)
    with pytest.raises(Refusal, match="give 2 to 8 audiences or expressions, not 9"):
        await measure(reader, [one] * 9, None, 1)
    with pytest.raises(Refusal, match="'Never' has never been evaluated") as refused:
        await measure(reader, [one, never], None, 1)
    assert refused.value.path == ("people", "1", "audience_id")
    with pytest.raises(ExpressionRefused) as wrong:
        await measure(reader, [one, People(expression="m = 1")], None, 1)
    assert wrong.value.path == ("people", "1", "expression")
    with pytest.raises(Refusal, match="there is no merge policy 'ghost'"):
        await measure(reader, [one, one], "ghost", 1)
