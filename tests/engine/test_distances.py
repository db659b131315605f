"""Distances to an interval: a time inside it is at distance 0 `from` it, and neither before nor after it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.engine.run.adhoc import evaluate_trial, load_trial

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
TIMES = {
    "b": "2026-05-31T23:59:59Z",  # a second before June
    "first": "2026-06-01T00:00:00Z",
    "in": "2026-06-20T00:00:00Z",
    "last": "2026-06-30T23:59:59Z",
    "after": "2026-07-01T00:00:00Z",
    "day": "2026-07-02T00:00:00Z",
}


@pytest.mark.parametrize(
    ("expression", "ids"),
    [
        ("t occurs <= 0 days from this month", ["after", "first", "in", "last"]),
        ("t occurs < 1 day from this month", ["after", "b", "first", "in", "last"]),
        ("t occurs <= 1 day from this month", ["after", "b", "day", "first", "in", "last"]),
        ("t occurs > 0 days from this month", ["b", "day"]),
        ("t occurs >= 1 day from this month", ["day"]),
        ("t occurs = 0 days from this month", ["first", "in", "last"]),
        ("t occurs != 0 days from this month", ["after", "b", "day"]),
        ("t occurs = 0 weeks from this month", ["after", "day", "first", "in", "last"]),
        ("t occurs = 0 years from this month", ["after", "b", "day", "first", "in", "last"]),
        ("t occurs = 1 day from this month", ["after", "b"]),
        ("t occurs != 1 day from this month", ["day", "first", "in", "last"]),
        ("t occurs <= 1 day before this month", ["b", "first"]),
        ("t occurs <= 1 day after this month", ["after", "day"]),
    ],
)
def test_inside_an_interval_is_no_distance_from_it(tmp_path: Path, expression: str, ids: list[str]) -> None:
    path = tmp_path / "people.ndjson"
    path.write_text("\n".join(json.dumps({"_id": id, "t": time}) for id, time in TIMES.items()))
    assert evaluate_trial(load_trial(path), expression, NOW) == ids
