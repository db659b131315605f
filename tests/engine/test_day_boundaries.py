"""Where a span of whole days begins and ends: exactly one day after, and on the day itself."""

import pytest

from tests.support.sandbox import EVENTS, PEOPLE, Sandbox
from tests.support.selected import selected

CHAIN = 'CHAIN(xEvent, timestamp, [A: WHAT(kind = "a"), B: WHAT(kind = "b") WHEN({when} after A)])'


@pytest.mark.parametrize(
    ("when", "found"),
    [(">= 1 day", ["at", "late"]), ("> 1 day", ["late"]), ("<= 1 day", ["at", "early"]), ("< 1 day", ["early"])],
)
@pytest.mark.parametrize("third", ["", "C: "], ids=["last step", "before another"])
def test_a_step_exactly_one_day_after_another(sandbox: Sandbox, when: str, found: list[str], third: str) -> None:
    """Alike for the last step and for one that another follows, which are looked for from different ends."""
    gaps = {"early": "02T11:59:59.999999", "at": "02T12:00:00", "late": "02T12:00:00.000001"}
    sandbox.rows(
        "e",
        EVENTS,
        [
            {"id": id, "kind": kind, "timestamp": f"2026-06-{time}Z"}
            for id, gap in gaps.items()
            for kind, time in (("a", "01T12:00:00"), ("b", gap), ("c", "09T00:00:00"))
        ],
    )
    text = CHAIN.format(when=when)
    if third:
        text = text.replace("])", '), C: WHAT(kind = "c") WHEN(> 1 hour after B)])').replace(" after A))", " after A)")
    assert selected(sandbox, text) == found


@pytest.mark.parametrize(
    ("when", "found"),
    [
        (">= 1 day", ["at", "late"]),
        ("> 1 day", ["late"]),
        ("<= 1 day", ["at", "early"]),
        ("< 1 day", ["early"]),
    ],
)
@pytest.mark.parametrize("fourth", ["", ', D: WHAT(kind = "d") WHEN(>= 1 hour after B)'], ids=["one pin", "two pins"])
def test_a_step_exactly_one_day_after_the_one_before_the_last(
    sandbox: Sandbox, when: str, found: list[str], fourth: str
) -> None:
    """Steps that refer to an earlier one than the last are looked for from that one on, each candidate by itself."""
    gaps = {"early": "02T11:59:59", "at": "02T12:00:00", "late": "02T12:00:01"}
    sandbox.rows(
        "e",
        EVENTS,
        [
            {"id": id, "kind": kind, "timestamp": f"2026-06-{time}Z"}
            for id, gap in gaps.items()
            for kind, time in (("a", "01T12:00:00"), ("b", "01T13:00:00"), ("c", gap), ("d", "09T00:00:00"))
        ],
    )
    steps = f'A: WHAT(kind = "a"), B: WHAT(kind = "b"), C: WHAT(kind = "c") WHEN({when} after A){fourth}'
    assert selected(sandbox, f"CHAIN(xEvent, timestamp, [{steps}])") == found


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("born occurs on visited", ["same"]),
        ("visited occurs != -1 days from date(2026, 6, 14)", ["before"]),
        ("visited occurs = -1 days from date(2026, 6, 14)", ["same"]),
    ],
)
def test_a_date_and_a_time_of_that_day(sandbox: Sandbox, expression: str, found: list[str]) -> None:
    sandbox.rows(
        "p",
        PEOPLE,
        [
            {"id": "same", "born": "2026-06-13", "visited": "2026-06-13T23:00:00Z"},
            {"id": "before", "born": "2026-06-13", "visited": "2026-06-12T23:59:59Z"},
        ],
    )
    assert selected(sandbox, expression) == found
