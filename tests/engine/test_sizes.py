"""Big and contrived expressions stay within bounds: work in proportion to events, memory to slices."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.engine.evaluate import chain, chain_solver, chain_steps
from app.errors import DiagnosticKind
from app.pql.check.checker import check
from tests.support.heavy import CHAINS, MANY, NESTED, PAIRS, PATHOLOGICAL, SCHEMA, busy, matches

MEGABYTE = 1 << 20


@pytest.mark.parametrize(("expression", "expected"), CHAINS.values(), ids=CHAINS)
def test_a_chain_of_ten_steps_looks_up_in_proportion_to_events(
    monkeypatch: pytest.MonkeyPatch, expression: str, expected: bool
) -> None:
    looked_up = []
    placed, preceding = chain_steps.placed, chain_steps.preceding

    def counted(tracks: Any, values: Any, track: Any, targets: Any, low: Any, high: Any, *, right: bool) -> Any:
        looked_up.append(len(low))
        return placed(tracks, values, track, targets, low, high, right=right)

    def counted_too(before: chain_steps.Step, step: chain_steps.Step, tracks: int) -> NDArray[np.intp]:
        looked_up.append(len(step))
        return preceding(before, step, tracks)

    for module in (chain, chain_solver, chain_steps):
        monkeypatch.setattr(module, "placed", counted)
    monkeypatch.setattr(chain_solver, "preceding", counted_too)
    work = []
    for events in (4_000, 8_000):
        looked_up.clear()
        assert matches(busy(events), expression) is expected
        work.append(sum(looked_up))
    assert 4_000 < work[0] < 60 * 4_000
    assert work[1] < 2.1 * work[0]


@pytest.mark.parametrize(
    ("expression", "expected", "megabytes"),
    [*((*case, 100) for case in CHAINS.values()), *((*case, 300) for case in PAIRS.values())],
    ids=[*CHAINS, *PAIRS],
)
def test_very_many_events_of_one_person_in_bounded_memory(expression: str, expected: bool, megabytes: int) -> None:
    bucket = busy(100_000 if "CHAIN" in expression else 40_000)  # of them 412 are paired with all
    tracemalloc.start()
    try:
        assert matches(bucket, expression) is expected
        assert tracemalloc.get_traced_memory()[1] < megabytes * MEGABYTE
    finally:
        tracemalloc.stop()


def test_five_hundred_conditions_a_hundred_lets_and_a_regular_expression_made_to_hang() -> None:
    bucket = busy(1_000)
    assert matches(bucket, NESTED)
    assert matches(bucket, MANY)
    assert not matches(bucket, PATHOLOGICAL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("income = 1" + " " * (64 * 1024 - 9), "65536"),
        ("(" * 201 + "income = 1" + ")" * 201, "200"),
        ("not " * 201 + "income = 1", "200"),
    ],
    ids=["long", "parentheses", "not"],
)
def test_too_long_and_too_deep_is_refused(text: str, message: str) -> None:
    (found,) = check(text, SCHEMA, segments=()).diagnostics
    assert found.kind is DiagnosticKind.LIMIT
    assert message in found.message


def test_the_most_that_is_allowed_is() -> None:
    assert check("income = 1" + " " * (64 * 1024 - 10), SCHEMA, segments=()).ok
    assert check("(" * 200 + "income = 1" + ")" * 200, SCHEMA, segments=()).ok
    assert check("not " * 200 + "income = 1", SCHEMA, segments=()).ok
    assert check(" or ".join(["income = 1"] * 3_000), SCHEMA, segments=()).ok
