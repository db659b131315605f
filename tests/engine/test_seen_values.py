"""The values of text fields that completion offers."""

from pathlib import Path
from typing import Any

import pytest

from app.engine.people.seen_values import MOST, seen_values
from app.engine.people.sources import Dataset
from tests.support.sandbox import EVENTS, PEOPLE, Sandbox

DATASETS = [Dataset("people", "PROFILE"), Dataset("events", "EVENT"), Dataset("empty", "EVENT")]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path)
    people: list[dict[str, Any]] = [
        {"id": "1", "home": {"country": "US"}, "tags": ["a", "b"], "income": 5, "xs": [{"sku": "x"}, {"sku": None}]},
        {"id": "2", "home": {"country": "CA"}, "tags": ["b"], "income": 6, "xs": []},
        {"id": "3", "home": None, "tags": None, "income": 7, "xs": None},
        {"id": "4", "home": {"country": "US"}, "name": "only here"},
    ]
    made.rows("people", PEOPLE, people)
    made.rows("people", PEOPLE, [{"id": "5", "home": {"country": "US"}, "many": "n"}])
    made.rows("people", PEOPLE, [{"id": f"m{n}", "many": f"value {n}"} for n in range(MOST + 1)])
    made.rows("events", EVENTS, [{"id": "1", "timestamp": "2026-01-01", "home": {"country": "event"}}])
    return made


@pytest.mark.parametrize(
    ("path", "values"),
    [
        (("home", "country"), ["US", "CA"]),
        (("tags",), ["b", "a"]),
        (("xs", "sku"), ["x"]),
        (("name",), ["only here"]),
        (("xEvent", "home", "country"), ["event"]),
        (("many",), []),
        (("income",), []),
        (("home",), []),
        (("home", "nothing"), []),
        (("tags", "nothing"), []),
        (("nothing",), []),
        (("xEvent",), []),
        ((), []),
    ],
)
def test_values_of_text_fields_the_most_frequent_first(
    sandbox: Sandbox, path: tuple[str, ...], values: list[str]
) -> None:
    assert seen_values(sandbox.lake, DATASETS, path) == values
