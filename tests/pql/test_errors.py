"""Every mistake of the table is refused with its kind, at its place."""

from pathlib import Path

import pytest

from app.engine.run.adhoc import Trial, load_trial
from app.pql.check.checker import check

DATA = Path(__file__).parent.parent / "data" / "pql"
CASES = [line.split("\t")[:4] for line in (DATA / "errors.tsv").read_text("utf-8").splitlines()[1:]]


@pytest.fixture(scope="module")
def trial() -> Trial:
    return load_trial(DATA / "profiles.ndjson", DATA / "events.ndjson", membership=DATA / "membership.ndjson")


def written_out(expression: str) -> str:
    if expression.startswith("@repeat:"):
        _, opening, times, core, closing = expression.split(":", 4)
        expression = opening * int(times) + core + closing * int(times)
    return expression.replace("⏎", "\n")


def test_the_table_is_whole() -> None:
    assert len(CASES) == 82


@pytest.mark.parametrize(("expression", "line", "column", "kind"), CASES, ids=[case[0][:60] for case in CASES])
def test_it_is_refused_at_its_place(trial: Trial, expression: str, line: str, column: str, kind: str) -> None:
    found = check(written_out(expression), trial.schema, segments=trial.members).diagnostics[0]
    place = tuple(
        "*" if expected == "*" else str(actual) for expected, actual in ((line, found.line), (column, found.column))
    )
    assert (*place, found.kind.lower()) == (line, column, kind)
    assert found.message
    rest = written_out(expression).split("\n")[found.line - 1][found.column - 1 :]
    assert found.length <= len(rest), "it covers the text and no more"
