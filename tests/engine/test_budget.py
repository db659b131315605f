"""What one definition may use: bombs are refused when they are checked, and stopped when they run, alone."""

import itertools
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.limits.budget import Budget
from app.engine.plan.plan import Plan
from app.engine.run.adhoc import Trial, load_trial
from app.errors import DiagnosticKind
from app.pql.check.checker import check
from app.pql.core import Builder

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    """One person with 3,000 objects, another with two."""
    rows = [{"_id": "many", "name": "aaa", "tag": "a", "pattern": "%a", "objs": [{"v": n} for n in range(3_000)]}]
    wide = {"tag": "a" * 101, "pattern": "%a" * 101}
    rows.append({"_id": "few", "name": "b", **wide, "objs": [{"v": 1}, {"v": 2}]})
    path = tmp_path_factory.mktemp("people") / "people.ndjson"
    path.write_text("\n".join(map(json.dumps, rows)))
    return load_trial(path)


def results(trial: Trial, budget: Budget, *expressions: str) -> list[list[str] | EvaluationError]:
    builder, conditions = Builder(), {}
    for at, expression in enumerate(expressions):
        condition = check(expression, trial.schema, segments=(), builder=builder).condition
        assert condition is not None, expression
        conditions[str(at)] = condition
    found = evaluate(
        Plan(conditions), trial.bucket, now=NOW, member=trial.member, cancelled=lambda: False, budget=budget
    )
    rows = [found[str(at)] for at in range(len(expressions))]
    return [one if isinstance(one, EvaluationError) else trial.matching(one) for one in rows]


def doubled(times: int) -> str:
    lets = " in ".join(f"let a{n + 1} = [a{n}, a{n}]" for n in range(times))
    return f"let a0 = [1] in {lets} in a{times}.count() > 0"


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        (doubled(30), "more than 100,000 elements"),
        (
            "let a = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] in a.map(a.map(a.map(a.map(a.map(a)))))",
            "more than 100,000 elements",
        ),
        (f'name like "{"%a" * 8_000}"', "at most 100 `%`"),
    ],
)
def test_bombs_are_refused_when_they_are_checked(trial: Trial, expression: str, said: str) -> None:
    (found,) = check(expression, trial.schema, segments=()).diagnostics
    assert (found.kind, found.line, found.column) == (DiagnosticKind.LIMIT, 1, 1)
    assert said in found.message


def test_what_is_large_but_no_bomb_is_not_refused(trial: Trial) -> None:
    numbers = ", ".join(map(str, range(9_000)))
    assert check(f"objs.v.intersects([{numbers}])", trial.schema, segments=()).ok
    assert check(doubled(16), trial.schema, segments=()).ok
    assert check(f'name like "{"%a" * 100}"', trial.schema, segments=()).ok


def test_memory_fails_one_definition_alone(trial: Trial) -> None:
    pairs = "objs.map(^objs.map(v)).distinct().count() = 3000"
    few, many = "objs.count() = 2", "objs.count() > 2"
    answers = results(trial, Budget(memory=1 << 28), few, pairs, many)
    assert answers[0::2] == [["few"], ["many"]]
    assert isinstance(answers[1], EvaluationError)
    assert answers[1].code == "LIMIT_EXCEEDED"
    assert "pairs the elements of arrays 9,000,000 times for one person, more than 2,097,152" in answers[1].message
    assert "SEGMENTATION_DEFINITION_MEMORY" in answers[1].message
    assert results(trial, Budget(memory=1 << 31), pairs) == [["many"]]


def test_what_is_held_counts(trial: Trial) -> None:
    """Of each definition for itself: ten that need 100 kB each are within 200 kB."""
    one = [f"objs.map(v + {n}).max() > 0" for n in range(10)]
    assert results(trial, Budget(memory=200_000), *one) == [["few", "many"]] * 10
    together = " and ".join(f"objs.map(v + {n}).count() = objs.map(v - {n}).count()" for n in range(1, 10))
    (answer,) = results(trial, Budget(memory=50_000), together)
    assert isinstance(answer, EvaluationError)
    assert "needs more than 0 MB of memory for one bucket" in answer.message


def test_time_fails_one_definition_alone(trial: Trial) -> None:
    """A clock that goes on by a second whenever it is looked at."""
    ticks = itertools.count()
    budget = replace(Budget(seconds=12), clock=lambda: float(next(ticks)))
    long = " or ".join(f"objs.map(v * {n}).sum() < 0" for n in range(20))
    first, second, third = results(trial, budget, 'name = "b"', long, "objs.count() = 2")
    assert (first, third) == (["few"], ["few"])
    assert isinstance(second, EvaluationError)
    assert (second.code, "takes more than 12 seconds" in second.message) == ("LIMIT_EXCEEDED", True)


def test_a_pattern_out_of_the_data_is_bounded_too(trial: Trial) -> None:
    assert results(trial, Budget(), "tag like pattern", "tag like name") == [["many"], []]
