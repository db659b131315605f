"""Every expression of the corpus gives its people, alone and all of them over one memo."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.plan.plan import Plan
from app.engine.run.adhoc import Trial, evaluate_trial, load_trial
from app.pql.check.checker import check
from app.pql.core import Builder

DATA = Path(__file__).parent.parent / "data" / "pql"
NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
CASES = [line.split("\t")[:2] for line in (DATA / "corpus.tsv").read_text("utf-8").splitlines()[1:]]


@pytest.fixture(scope="module")
def trial() -> Trial:
    return load_trial(DATA / "profiles.ndjson", DATA / "events.ndjson", membership=DATA / "membership.ndjson")


def test_the_corpus_is_whole(trial: Trial) -> None:
    assert (len(CASES), len(trial.ids)) == (426, 40)


@pytest.mark.parametrize(("expression", "expected"), CASES, ids=[case[0][:60] for case in CASES])
def test_it_gives_its_people(trial: Trial, expression: str, expected: str) -> None:
    assert " ".join(evaluate_trial(trial, expression, NOW)) == expected


def test_all_together_give_the_same(trial: Trial) -> None:
    builder = Builder()
    conditions = {}
    for at, (expression, _) in enumerate(CASES):
        condition = check(expression, trial.schema, segments=trial.members, builder=builder).condition
        assert condition is not None, expression
        conditions[str(at)] = condition
    found = evaluate(Plan(conditions), trial.bucket, now=NOW, member=trial.member, cancelled=lambda: False)
    for at, (expression, expected) in enumerate(CASES):
        rows = found[str(at)]
        assert not isinstance(rows, EvaluationError), expression
        assert " ".join(trial.matching(rows)) == expected, expression
