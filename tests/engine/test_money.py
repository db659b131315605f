"""Amounts of money from files of every kind add up and compare as Python's decimals do."""

import json
import random
from collections.abc import Callable
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.support.sandbox import EVENTS, Sandbox
from tests.support.sandbox import PEOPLE as SHAPE
from tests.support.selected import selected

Amounts = list[tuple[str, Decimal]]
"""Whose, and how much."""
PEOPLE = 40


def amounts(seed: int, places: int, largest: int) -> Amounts:
    """Some for each person, also negative ones, with so many decimals and up to so many units."""
    rng = random.Random(seed)
    unit = Decimal(1).scaleb(-places)
    return [
        (str(person), rng.randint(-largest * 10**places // 3, largest * 10**places) * unit)
        for person in range(PEOPLE)
        for _ in range(rng.randint(1, 40))
    ]


def take(sandbox: Sandbox, format: str, rows: Amounts) -> None:
    if format == "CSV":
        text = "".join(f"{who},2026-01-01,{amount}\n" for who, amount in rows)
        done = sandbox.csv("e", EVENTS, "id,timestamp,amount\n" + text)
    elif format == "NDJSON":
        lines = (f'{{"id": {json.dumps(who)}, "timestamp": "2026-01-01", "amount": {amount}}}' for who, amount in rows)
        done = sandbox.take("e", EVENTS, "\n".join(lines).encode(), "NDJSON")
    else:
        column = pa.array([amount for _, amount in rows], pa.decimal128(24, 6))
        if format == "PARQUET of doubles":
            column = pa.array([float(amount) for _, amount in rows])
        columns = {"id": [who for who, _ in rows], "timestamp": ["2026-01-01"] * len(rows), "amount": column}
        pq.write_table(pa.table(columns), sandbox.folder / "money.parquet")
        done = sandbox.take("e", EVENTS, (sandbox.folder / "money.parquet").read_bytes(), "PARQUET")
    assert (done.row_count, done.rejected_rows) == (len(rows), 0)


SIZES = {"small": [(2, 500), (6, 500)], "six first": [(6, 9), (2, 100_000)], "past 2^53 cents": [(2, 9 * 10**12)]}
"""The decimals and largest amounts of one batch after the other."""


@pytest.mark.parametrize("format", ["CSV", "NDJSON", "PARQUET", "PARQUET of doubles"])
@pytest.mark.parametrize("size", SIZES)
def test_amounts_are_computed_with_as_decimals(sandbox: Sandbox, format: str, size: str) -> None:
    of: dict[str, list[Decimal]] = {str(person): [] for person in range(PEOPLE)}
    for number, (places, largest) in enumerate(SIZES[size]):
        batch = amounts(number + len(size), places, largest)
        take(sandbox, format, batch)
        for person, amount in batch:
            of[person].append(amount)

    def who(holds: Callable[[list[Decimal]], bool]) -> list[str]:
        return sorted(person for person, values in of.items() if holds(values))

    rng = random.Random(size)
    for person in rng.sample(sorted(of), 3):
        some = rng.choice(of[person])
        for expression, holds in cases(of[person], some):
            assert selected(sandbox, expression) == who(holds), expression


def cases(values: list[Decimal], some: Decimal) -> list[tuple[str, Callable[[list[Decimal]], bool]]]:
    """Expressions about one person's amounts, and what they mean. A result is the double next to the exact one."""
    total, smallest, largest, distinct = sum(values, Decimal()), min(values), max(values), len(set(values))
    lost = sum((-value for value in values if value < 0), Decimal())
    return [
        (f"xEvent.sum(amount) = {total}", lambda v: float(sum(v)) == float(total)),
        (f"xEvent.sum(amount) >= {total}", lambda v: float(sum(v)) >= float(total)),
        (f"xEvent.sum(amount) < {total}", lambda v: float(sum(v)) < float(total)),
        (f"xEvent.min(amount) = {smallest}", lambda v: min(v) == smallest),
        (f"xEvent.max(amount) <= {largest}", lambda v: max(v) <= largest),
        (f"xEvent.exists(amount = {some})", lambda v: some in v),
        (f"xEvent.exists(amount > {some})", lambda v: max(v) > some),
        (f"xEvent.average(amount) > {some}", lambda v: sum(v) / len(v) > some),
        (f"xEvent.groupBy(amount).count() = {distinct}", lambda v: len(set(v)) == distinct),
        (f"xEvent.amount.distinct().count() = {distinct}", lambda v: len(set(v)) == distinct),
        (
            f"xEvent.sum(if(amount < 0, -amount, 0)) = {lost}",
            lambda v: float(-sum(one for one in v if one < 0)) == float(lost),
        ),
    ]


@pytest.mark.parametrize(("precision", "scale"), [(24, 6), (38, 18), (18, 2), (20, 2)])
def test_decimals_land_unless_a_double_would_round_them(sandbox: Sandbox, precision: int, scale: int) -> None:
    texts = ["8739005113992.47", "-2185384892041.2", "0.1", "0", "5270732614668", "123456789012345.67", "0.99"]
    wrong = "1234567890123456.78"
    column = pa.array([Decimal(text) for text in [*texts, wrong]], pa.decimal128(precision, scale))
    pq.write_table(pa.table({"id": [str(at) for at in range(8)], "n": column}), sandbox.folder / "n.parquet")
    done = sandbox.take("p", SHAPE, (sandbox.folder / "n.parquet").read_bytes(), "PARQUET")
    assert [(row.row, row.message.partition(" has ")[2]) for row in done.rejected] == [
        (8, "more digits than a column with fractions holds: it would be rounded")
    ]
    for at, text in enumerate(texts):
        assert selected(sandbox, f"n = {text}") == [str(at)]


def test_binary_sums_would_not_do() -> None:
    """The amounts above are such that adding doubles up gives other answers, so that the test can fail."""
    values: dict[str, list[Decimal]] = {}
    for who, amount in amounts(len("small"), 2, 500):
        values.setdefault(who, []).append(amount)
    wrong = [who for who, some in values.items() if sum(map(float, some)) != float(sum(some))]
    assert len(wrong) > 10
