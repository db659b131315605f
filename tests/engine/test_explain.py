"""Explanations say what the evaluator says, for random expressions and profiles, and each construct in full."""

from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.engine.insight.explain import Explained, Follow, Source, explain
from app.engine.run.adhoc import Trial, load_trial
from app.engine.store.bucket import Bucket
from app.pql.check.checker import check
from app.pql.check.trace import Trace
from app.pql.core import Builder
from tests.support.expressions import Writer, text
from tests.support.people import crowd

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)
PAIRS, PEOPLE = 2_000, 40
"""10,000 take minutes, and all of them agreed."""


def alone(trial: Trial, row: int) -> Bucket:
    """The bucket with one of its profiles only."""
    bucket = trial.bucket
    events = np.flatnonzero(bucket.event_rows == row)
    return Bucket(
        bucket.number,
        bucket.ordinals[row : row + 1],
        bucket.profiles.slice(row, 1),
        bucket.events.take(pa.array(events)),
        np.zeros(len(events), np.int32),
    )


def source(trial: Trial, expression: str, builder: Builder | None = None) -> Source:
    trace = Trace()
    checked = check(expression, trial.schema, segments=trial.members, builder=builder, trace=trace)
    assert checked.tree is not None, checked.diagnostics
    assert checked.condition is not None, checked.diagnostics
    return Source(expression, checked.tree, trace, checked.condition)


def explained(
    trial: Trial, given: str | Source, row: int = 0, now: datetime = NOW, follow: Follow = lambda _segment: None
) -> tuple[bool, Explained]:
    def member(segment: str) -> Any:
        return trial.member(segment)[row : row + 1]

    found = source(trial, given) if isinstance(given, str) else given
    return explain(found, alone(trial, row), now=now, member=member, follow=follow, cancelled=lambda: False)


@pytest.mark.parametrize("seed", range(PAIRS // PEOPLE // 25))
def test_explanations_agree_with_membership(seed: int) -> None:
    """25 expressions for each of 40 profiles; the root holds exactly when the profile is a member."""
    random = Random(1_000 + seed)
    group = crowd(random, PEOPLE)
    texts = [text(Writer(random).segment()) for _ in range(25)]
    for expression, answer in zip(texts, group.answers(texts), strict=True):
        assert isinstance(answer, list), (expression, answer)
        checked = source(group.trial, expression)
        for row, id in enumerate(group.trial.ids):
            inside, root = explained(group.trial, checked, row, group.now)
            assert inside == (id in answer), (expression, id)
            assert root.holds == inside
            assert expression[root.start : root.end] == root.text


# ---------------------------------------------------------------- each construct


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """One person with five events, two of them purchases."""
    people, events, members = (tmp_path / f"{name}.ndjson" for name in ("people", "events", "members"))
    people.write_text(
        '{"_id": "ann", "age": 41, "tags": ["vip", "new"], "home": {"city": "Rome"}, "born": "1985-02-03"}'
    )
    rows = [
        ("e1", "view", "2026-06-01T10:00:00Z", 0),
        ("e2", "cart", "2026-06-02T10:00:00Z", 0),
        ("e3", "buy", "2026-06-02T11:00:00Z", 30),
        ("e4", "view", "2026-06-03T10:00:00Z", 0),
        ("e5", "buy", "2026-06-10T10:00:00Z", 12),
    ]
    events.write_text(
        "\n".join(
            f'{{"_id": "{id}", "profileId": "ann", "kind": "{kind}", "timestamp": "{at}", "total": {total}}}'
            for id, kind, at, total in rows
        )
    )
    members.write_text(
        '{"profileId": "ann", "segmentId": "in", "status": "realized"}\n'
        '{"profileId": "bob", "segmentId": "out", "status": "realized"}'
    )
    return load_trial(people, events, membership=members)


def shape(node: Explained) -> tuple[Any, ...]:
    return node.text, node.value, node.holds, node.elements, node.passed


def test_a_conjunction_shows_each_side_with_its_values(trial: Trial) -> None:
    inside, root = explained(trial, 'age > 40 and home.city = "Oslo"')
    assert not inside
    assert shape(root) == ('age > 40 and home.city = "Oslo"', False, False, None, None)
    older, city = root.children
    assert shape(older) == ("age > 40", True, True, None, None)
    assert [shape(child)[:2] for child in older.children] == [("age", 41), ("40", 40)]
    assert (city.start, city.end, city.holds) == (13, 31, False)
    assert [shape(child)[:2] for child in city.children] == [("home.city", "Rome"), ('"Oslo"', "Oslo")]
    assert [shape(child)[:2] for child in city.children[0].children] == [("home", {"city": "Rome"})]


def test_a_test_over_events_counts_them(trial: Trial) -> None:
    inside, root = explained(trial, 'xEvent[kind = "buy" and total > 20]')
    assert inside
    assert (root.holds, root.elements, root.passed) == (True, 5, 1)
    assert [event["_id"] for event in root.value] == ["e3"]
    events, condition = root.children
    assert (events.text, events.elements) == ("xEvent", None)
    assert [event["_id"] for event in events.value] == ["e1", "e2", "e3", "e4", "e5"]
    assert shape(condition) == ('kind = "buy" and total > 20', [False, False, True, False, False], None, 5, 1)
    kind, total = condition.children
    assert (kind.elements, kind.passed, total.elements, total.passed) == (5, 2, 5, 1)
    assert kind.children[0].value == ["view", "cart", "buy", "view", "buy"]


def test_values_are_written_as_json(trial: Trial) -> None:
    for expression, value in {
        "age / 2 = 1": 20.5,
        "age * 2 = 1": 82,
        "born = today": "1985-02-03",
        "xEvent.max(timestamp) = now": "2026-06-10T10:00:00Z",
        "tags.count() = 1": 2,
        "xEvent.sum(total) = 1": 42,
    }.items():
        _, root = explained(trial, expression)
        assert root.children[0].value == value, expression
    assert explained(trial, 'tags = "vip"')[1].children[0].value == ["vip", "new"]
    assert shape(explained(trial, 'tags = "vip"')[1])[1:] == (True, True, 2, 1)


def test_quantifiers_let_and_aggregates_show_their_parts(trial: Trial) -> None:
    inside, root = explained(trial, 'exists E from xEvent where E.kind = "buy" and E.total > age')
    assert (inside, root.elements, root.passed) == (False, 5, 0)
    assert [child.text for child in root.children] == ["xEvent", 'E.kind = "buy" and E.total > age']
    age = root.children[1].children[1].children[1]
    assert (age.text, age.value) == ("age", [41] * 5)
    inside, root = explained(trial, "let n = xEvent.count() in n >= 5")
    assert inside
    assert [(child.text, child.value) for child in root.children] == [("xEvent.count()", 5), ("n >= 5", True)]
    inside, root = explained(trial, "forall E from xEvent where E.total < 20")
    assert (inside, root.elements, root.passed) == (False, 5, 4)


def test_a_chain_names_the_event_of_each_step(trial: Trial) -> None:
    chain = """CHAIN(xEvent, timestamp, [A: WHAT(kind = "view"), B: WHAT(kind = "buy") WHEN(< 3 days after A),
      C: WHAT(kind = "buy") WHEN(> 1 days after B)])"""
    inside, root = explained(trial, chain)
    assert inside
    assert (root.holds, root.elements, root.passed) == (True, 5, 3)
    steps = root.children[2:]
    assert [step.text.split(":")[0] for step in steps] == ["A", "B", "C"]
    assert [step.value["_id"] for step in steps] == ["e1", "e3", "e5"]
    assert [(step.holds, step.elements, step.passed) for step in steps] == [(True, 5, 2), (True, 5, 2), (True, 5, 2)]
    assert [step.children[0].text for step in steps] == ['kind = "view"', 'kind = "buy"', 'kind = "buy"']


def test_a_chain_that_fails_shows_how_far_it_got(trial: Trial) -> None:
    chain = """CHAIN(xEvent, timestamp, [A: WHAT(kind = "cart"), B: WHAT(kind = "view") WHEN(< 2 days after A),
      C: WHAT(kind = "buy") WHEN(< 2 hours after B)])"""
    inside, root = explained(trial, chain)
    assert not inside
    assert (root.holds, root.elements, root.passed) == (False, 5, 0)
    assert [(step.holds, step.passed, step.value) for step in root.children[2:]] == [
        (True, 1, None),
        (True, 2, None),
        (False, 2, None),
    ]


def test_the_first_chain_is_shown_even_if_its_first_events_lead_nowhere(trial: Trial) -> None:
    chain = """CHAIN(xEvent, timestamp, [A: WHAT(kind = "view"), B: WHAT(kind = "buy") WHEN(> 5 days after A),
      C: WHAT(true) WHEN(= 0 days after A)])"""
    assert not explained(trial, chain)[0]
    chain = """CHAIN(xEvent, timestamp, [A: WHAT(true), B: WHAT(kind = "buy") WHEN(< 2 hours after A)])"""
    inside, root = explained(trial, chain)
    assert inside
    assert [step.value["_id"] for step in root.children[2:]] == ["e2", "e3"]


def test_segments_are_followed_into_their_expressions(trial: Trial) -> None:
    others = {"in": source(trial, "age > 40"), "out": source(trial, 'inSegment("in") and age > 90')}
    inside, root = explained(trial, 'inSegment("out") or not inSegment("in")', follow=others.get)
    assert not inside
    out, no = root.children
    assert (out.holds, out.value) == (False, False)
    (whole,) = out.children
    assert (whole.text, whole.holds) == ('inSegment("in") and age > 90', False)
    assert [child.holds for child in whole.children] == [True, False]
    assert [child.text for child in whole.children[0].children] == ["age > 40"]
    # A segment is followed where it is first met.
    (again,) = no.children
    assert (again.text, again.holds, again.children) == ('inSegment("in")', True, [])


def test_expressions_of_ten_thousand_terms_are_explained(trial: Trial) -> None:
    inside, root = explained(trial, " + ".join(["age"] * 2_000) + " > 0")
    assert inside
    assert root.children[0].value == 41 * 2_000


def test_more_than_one_profile_is_refused(trial: Trial) -> None:
    found = source(trial, "age > 1")
    bucket = alone(trial, 0)
    two = Bucket(
        0, np.arange(2, dtype=np.uint32), pa.concat_tables([bucket.profiles] * 2), bucket.events, bucket.event_rows
    )
    with pytest.raises(ValueError, match="about one profile, not 2"):
        explain(
            found, two, now=NOW, member=lambda _: np.ones(2, np.bool_), follow=lambda _: None, cancelled=lambda: False
        )
