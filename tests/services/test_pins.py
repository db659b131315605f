"""What a job has pinned lives through an upgrade: it is filled in, or the job says that it is to be run again."""

from datetime import UTC, datetime
from typing import Any

import pytest

from app.errors import ErrorCode, Refusal
from app.services.evaluation.pins import AudiencePin, BatchPin, ExportPins, HeadPins, PreviewPins, SegmentPins

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
LAKE = {"datasets": {"d": 3}, "graph": None, "view": {"generation": 1, "version": 2}}
HEADS = HeadPins({"a": "run"}, 4, {"a": 5})
PINS: list[Any] = [
    SegmentPins(NOW, {"p": {"id": "p"}}, {"p": LAKE}, HEADS, frozenset({"i"}), frozenset({"w"})),
    PreviewPins(NOW, LAKE, HEADS, [3, 1, 2], 60),
    ExportPins(NOW, {"id": "p"}, LAKE, HEADS, [AudiencePin("a", "ns", "A", ["REALIZED"])], [BatchPin("b", None)]),
]


@pytest.mark.parametrize("pins", PINS, ids=lambda pins: type(pins).__name__)
def test_pins_come_back_as_they_were(pins: Any) -> None:
    assert type(pins).from_json(pins.as_json()) == pins


@pytest.mark.parametrize("pins", PINS, ids=lambda pins: type(pins).__name__)
def test_heads_pinned_before_there_were_streams_and_graphs_have_none(pins: Any) -> None:
    older = {name: value for name, value in pins.as_json().items() if name not in {"turn", "graphs"}}
    assert type(pins).from_json(older).heads == HeadPins({"a": "run"}, 0, {})


@pytest.mark.parametrize(
    ("pins", "name"),
    [
        (pins, name)
        for pins in PINS
        for name in pins.as_json()
        if name not in {"turn", "graphs", "inactive", "time_zone", "evaluator"}
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_filled_in_is_named_and_the_job_is_to_be_run_again(pins: Any, name: str) -> None:
    older = {key: value for key, value in pins.as_json().items() if key != name}
    with pytest.raises(Refusal) as caught:
        type(pins).from_json(older)
    assert caught.value.code is ErrorCode.INVALID_STATE
    assert caught.value.message == (
        f"this version cannot finish the job: the version that started it did not record {name!r}; run it again"
    )


def test_data_that_were_pinned_otherwise_are_not_read() -> None:
    pins = SegmentPins.from_json(PINS[0].as_json() | {"lake": {"p": {"datasets": {}}}})
    with pytest.raises(Refusal, match="'view'"):
        pins.data_of("p")
    with pytest.raises(Refusal, match="'q'"):
        pins.data_of("q")
