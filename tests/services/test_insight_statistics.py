"""Waterfall and statistics of an audience against plain Python."""

import statistics as plain
from fractions import Fraction
from typing import Any

import pytest

from app.engine.insight import statistics as engine
from app.engine.insight.statistics import HistogramBucket, Statistics
from app.errors import Refusal
from app.services.audiences import definition_reads
from app.services.audiences import reads as audiences
from app.services.insight import statistics, waterfall
from tests.services.conftest import SCOPE, Gateway

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""Values come from files."""

PEOPLE: list[dict[str, Any]] = [
    {
        "id": f"{n:03}",
        "n": n,
        **({} if n % 4 == 0 else {"price": n % 7 + 0.1}),
        **({} if n % 5 == 0 else {"city": ["Rome", "Oslo", "Ärzen", "a"][n % 5 - 1]}),
        "joined": f"2026-01-{n % 28 + 1:02}",
        "seen": f"2026-01-01T00:00:{n % 60:02}Z",
        "vip": n % 3 == 0,
        "huge": 2**53 + n,
        "optInOut": {"globalOptout": n % 10 == 0},
    }
    for n in range(120)
]
MEMBERS: list[dict[str, Any]] = [one for one in PEOPLE if one["n"] < 90 and one["n"] % 10]


async def measured(gateway: Gateway, *expressions: str, buckets: int = 4, audience: str = "") -> list[Any]:
    async with gateway.database.session() as session:
        row = await audiences.required(session, SCOPE, audience)
    return await statistics.measure(gateway.reader(), row, expressions, buckets, 2)


async def loaded(gateway: Gateway) -> str:
    await gateway.people(PEOPLE)
    audience = await gateway.define("Below 90", "n < 90", method="BATCH")
    await gateway.job()
    return audience


def frequencies(values: list[Any]) -> list[HistogramBucket]:
    ranked = sorted(set(values), key=lambda value: (-values.count(value), value))
    return [HistogramBucket(value, None, values.count(value)) for value in ranked]


async def test_numbers_are_exact(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    n, price, huge, none = await measured(gateway, "n", "price", "huge", "n / 0", audience=audience)
    numbers = [one["n"] for one in MEMBERS]
    assert n == Statistics(
        81,
        81,
        float(sum(numbers)),
        sum(numbers) / 81,
        1,
        89,
        tuple(plain.quantiles(numbers, n=4, method="inclusive")),
        [
            HistogramBucket(low, low + 22, sum(low <= one < low + 22 for one in numbers) + (low == 67))
            for low in (1, 23, 45, 67)
        ],
    )
    prices = [one["price"] for one in MEMBERS if "price" in one]
    exact = sum(Fraction(str(one)) for one in prices)
    assert (price.count, price.distinct) == (len(prices), 7)
    assert (price.total, price.average) == (float(exact), float(exact / len(prices)))
    assert price.quartiles == tuple(plain.quantiles(prices, n=4, method="inclusive"))
    assert [price.minimum, price.maximum] == [0.1, 6.1]
    assert sum(bucket.count for bucket in price.histogram) == len(prices)
    assert huge.distinct == 81
    assert huge.total == float(sum(one["huge"] for one in MEMBERS))
    assert none == Statistics()


async def test_other_values_have_extremes_and_a_histogram(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    city, joined, seen, vip = await measured(gateway, "city", "joined", "seen", "vip", audience=audience)
    cities = [one["city"] for one in MEMBERS if "city" in one]
    assert city == Statistics(len(cities), 4, minimum="Oslo", maximum="Ärzen", histogram=frequencies(cities))
    days = [one["n"] % 28 + 1 for one in MEMBERS]
    assert (joined.count, joined.distinct, joined.minimum, joined.maximum) == (81, 28, "2026-01-01", "2026-01-28")
    assert joined.histogram == [
        HistogramBucket(
            f"2026-01-{low:02}", f"2026-01-{high:02}", sum(low <= day < high + (high == 28) for day in days)
        )
        for low, high in ((1, 7), (7, 14), (14, 21), (21, 28))
    ]
    assert (seen.minimum, seen.maximum, seen.total) == ("2026-01-01T00:00:01Z", "2026-01-01T00:00:59Z", None)
    assert [bucket.low for bucket in seen.histogram] == [
        "2026-01-01T00:00:01Z",
        "2026-01-01T00:00:15.500000Z",
        "2026-01-01T00:00:30Z",
        "2026-01-01T00:00:44.500000Z",
    ]
    assert sum(bucket.count for bucket in seen.histogram) == 81
    assert vip == Statistics(81, 2, minimum=False, maximum=True, histogram=frequencies([one["vip"] for one in MEMBERS]))
    (frequent,) = await measured(gateway, "city", buckets=1, audience=audience)
    assert frequent.histogram == frequencies(cities)[:1]
    (constant,) = await measured(gateway, "7", audience=audience)
    assert (constant.total, constant.histogram) == (7 * 81.0, [HistogramBucket(7, 7, 81)])


async def test_a_bad_expression_is_an_error_of_its_own(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    audience = await loaded(gateway)
    unknown, array, good = await measured(gateway, "cty", "xEvent", "n", audience=audience)
    assert (unknown.path, array.path) == (("expressions", "0"), ("expressions", "1"))
    assert good.count == 81
    monkeypatch.setattr(engine, "MOST_BYTES", 300)
    city, many = await measured(gateway, "city", "n", audience=audience)
    assert city.distinct == 4
    assert many.path == ("expressions", "1")
    assert "distinct values" in many.message
    for expressions, buckets, path in ((["n"], 0, "buckets"), (["n"] * 21, 1, "expressions")):
        with pytest.raises(Refusal) as refused:
            await measured(gateway, *expressions, buckets=buckets, audience=audience)
        assert refused.value.path == (path,)
    never = await gateway.define("Never", "n = 1", method="BATCH")
    with pytest.raises(Refusal, match="has never been evaluated"):
        await measured(gateway, "n", audience=never)


async def test_what_fails_while_it_is_evaluated_fails_alone(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "n": 1, "objs": [{"v": v} for v in range(3_000)]}])
    audience = await gateway.define("All", "n > 0", method="BATCH")
    await gateway.job()
    pairs = "objs.map(^objs.map(v)).distinct().count()"
    bomb, good = await measured(gateway, pairs, "objs.count()", audience=audience)
    assert (bomb.path, good.total) == (("expressions", "0"), 3_000)
    assert "pairs the elements of arrays 9,000,000 times" in bomb.message


async def test_the_waterfall_goes_from_everybody_to_who_can_be_reached(gateway: Gateway) -> None:
    audience = await loaded(gateway)
    await gateway.set(audience, exclude_opt_out=False)
    async with gateway.database.session() as session:
        row = await audiences.required(session, SCOPE, audience)
        definition = (await definition_reads.get_many(session, SCOPE, [audience]))[audience]
    steps = await waterfall.measure(gateway.reader(), row, definition, 2)
    assert steps == [("evaluated", 120), ("matched", 90), ("consented", 81), ("crm", 81)]
    stored = await waterfall.measure(gateway.reader(), row, None, 1)
    assert stored == [("evaluated", 120), ("matched", 81), ("consented", 81), ("crm", 81)]
