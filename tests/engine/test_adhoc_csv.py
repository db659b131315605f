"""`pql eval` reads CSV as `ingest` does: what has a leading zero or plus sign, or an exponent, is text."""

from datetime import UTC, datetime
from pathlib import Path

from app.engine.run.adhoc import evaluate_trial, load_trial

NOW = datetime(2026, 6, 15, tzinfo=UTC)


def test_names_of_things_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text("_id,zip,phone,sku,n\n1,01234,+14155550100,1E5,9007199254740993\n2,90210,,2E5,2\n")
    trial = load_trial(file)
    for expression in ('zip = "01234"', 'phone.startsWith("+1")', 'sku = "1E5"', "n = 9007199254740993"):
        assert evaluate_trial(trial, expression, NOW) == ["1"]
    assert evaluate_trial(trial, "n = 9007199254740992", NOW) == []
