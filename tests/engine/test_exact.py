"""Sums, means and arithmetic of decimals give the double next to the exact result, by Python's fractions."""

import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from app.engine.evaluate.exact import averages, calculated, sums, whole
from app.engine.run.adhoc import evaluate_trial, load_trial


def written(random: Random, places: int) -> float:
    return round(random.choice((1, 10, 1_000, 100_000)) * random.uniform(-1, 1), random.randint(0, places))


def exact(value: Any) -> Fraction:
    return Fraction(value if isinstance(value, int) else repr(float(value)))


@pytest.mark.parametrize("seed", range(40))
def test_sums_and_means_of_decimals(seed: int) -> None:
    random = Random(seed)
    groups = [[written(random, 2 + seed % 5) for _ in range(random.randint(0, 200))] for _ in range(50)]
    parent = np.repeat(np.arange(50), [len(group) for group in groups])
    values = np.array([value for group in groups for value in group])
    counts = np.bincount(parent, minlength=50)
    totals = [sum(map(exact, group), Fraction(0)) for group in groups]
    assert sums(parent, values, counts).tolist() == [float(total) for total in totals]
    with np.errstate(all="ignore"):
        means = averages(parent, values, counts)
    for group, total, mean in zip(groups, totals, means, strict=True):
        assert not group or mean == float(total / len(group))


def test_one_number_of_many_places_costs_its_own_group_only() -> None:
    values = np.array([0.1, 0.2, 0.3, 0.1, 1 / 3])
    total = sums(np.array([0, 0, 0, 1, 1]), values, np.array([3, 2]))
    assert total.tolist() == [0.6, 0.1 + 1 / 3]
    assert 0.1 + 0.2 + 0.3 != 0.6


def test_sums_past_2_53_of_a_cent_are_exact() -> None:
    values = [9_000_000_000_000.01] * 3 + [0.07]
    total = sums(np.zeros(4, np.intp), np.array(values), np.array([4]))
    assert total.tolist() == [float(sum(map(exact, values)))]


@pytest.mark.parametrize("large", [2**53 - 1, 2**60, 2**63 - 1, -(2**63)])
def test_sums_of_whole_numbers_have_no_bound(large: int) -> None:
    values = np.array([large, 1, large, large], np.int64)
    total = sums(np.array([0, 0, 1, 1]), values, np.array([2, 2]))
    assert total.tolist() == [large + 1, 2 * large]


OPERATIONS = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "divide": lambda a, b: a / b,
    "remainder": lambda a, b: abs(a) % abs(b) * (1 if a > 0 else -1),
}


@pytest.mark.parametrize("op", OPERATIONS)
@pytest.mark.parametrize("seed", range(10))
def test_arithmetic_of_decimals(op: str, seed: int) -> None:
    random = Random(seed)
    left = [written(random, 4) for _ in range(300)]
    right = [written(random, 2) or 0.5 for _ in range(300)]
    results = calculated(op, np.array(left), np.array(right))
    assert results.tolist() == [float(OPERATIONS[op](exact(a), exact(b))) for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("op", ["add", "subtract", "multiply", "remainder"])
def test_arithmetic_of_whole_numbers(op: str) -> None:
    random = Random(7)
    left = [random.randint(-(2**62), 2**62) >> random.choice((0, 10, 40)) for _ in range(200)]
    right = [(random.randint(-(2**62), 2**62) >> random.choice((0, 20, 50))) or 3 for _ in range(200)]
    results = calculated(op, np.array(left), np.array(right))
    assert [int(one) for one in results] == [OPERATIONS[op](a, b) for a, b in zip(left, right, strict=True)]


def test_whole_constants_past_the_digits_of_a_double_are_computed_with_exactly() -> None:
    assert calculated("subtract", whole(9007199254740994.0), whole(9007199254740993)).tolist() == [1]
    assert calculated("add", whole(1e18), whole(9007199254740993)).tolist() == [1_009_007_199_254_740_993]


@pytest.mark.parametrize("large", [2**53 + 1, 2**62 + 1, 2**63 - 1, -(2**63), 10**17 + 5])
def test_quotients_and_means_of_long_whole_numbers(large: int) -> None:
    """Whole where the divisor divides, else the double next to the exact quotient."""
    divisors = np.array([1, -1, 3, 10, 7, 2**53 + 1, 5], np.int64)
    quotients = [Fraction(large, int(divisor)) for divisor in divisors]
    expected = [int(exact) if exact.denominator == 1 else float(exact) for exact in quotients]
    assert calculated("divide", np.full(len(divisors), large, np.int64), divisors).tolist() == expected
    means = averages(np.array([0, 1, 1, 2, 2]), np.array([large, large, large, large, 0]), np.array([1, 2, 2]))
    assert means.tolist() == [large, large, large // 2 if large % 2 == 0 else large / 2]


@pytest.mark.parametrize(
    ("squares", "condition", "members"),
    [
        (9, "X > 0", "abc"),  # 3 to the power of 512
        (9, "X * X * X * X > 0", "c"),
        (12, "X.isNull()", "ab"),
        (12, "X - X = 0", "cz"),
        (40, "X * n >= 0", "cz"),
        (60, "X = 1 or X = 0", "cz"),
    ],
)
def test_whole_numbers_past_the_range_of_doubles_are_null(
    tmp_path: Path, squares: int, condition: str, members: str
) -> None:
    """And do not grow: 3 squared 60 times would fill the memory."""
    path = tmp_path / "people.ndjson"
    path.write_text("\n".join(json.dumps({"_id": id, "n": n}) for id, n in {"a": 3, "b": -3, "c": 1, "z": 0}.items()))
    chain = "".join(f"let a{at + 1} = a{at} * a{at} in " for at in range(squares))
    expression = f"let a0 = n in {chain}{condition.replace('X', f'a{squares}')}"
    assert evaluate_trial(load_trial(path), expression, datetime(2026, 11, 30, tzinfo=UTC)) == list(members)
