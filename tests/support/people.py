"""Random people for `tests.support.expressions`, and what the engine says of them.

They have many nulls, empty arrays, equal times and boundary instants.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.evaluate import EvaluationError, evaluate
from app.engine.plan.plan import Plan
from app.engine.run.adhoc import Trial, load_trial
from app.pql.check.checker import check
from app.pql.core import Builder
from tests.support.expressions import EVENT, KEYS, NUMBERS, PROFILE, SEGMENTS, TEXTS, WHOLE, WHOLES, E, text
from tests.support.oracle import DAY, Oracle, civil, day_number, month_days, settled

PEOPLE = 40
_SCALARS = {
    "number": pa.float64(),
    "text": pa.string(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "time": pa.timestamp("us", tz="UTC"),
}
_NOWS = (
    datetime(2026, 6, 15, 12, tzinfo=UTC),
    datetime(2024, 2, 29, tzinfo=UTC),
    datetime(2025, 3, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2026, 1, 1, tzinfo=UTC),
    datetime(2000, 1, 3, 0, 0, 0, 1, tzinfo=UTC),
    datetime(2023, 12, 31, 23, tzinfo=UTC),
    datetime(2028, 2, 28, 12, 30, tzinfo=UTC),
)


@dataclass(frozen=True, slots=True)
class Crowd:
    """Forty people as plain values (their events in order under `xEvent`), and the same loaded into the engine."""

    now: datetime
    people: list[dict[str, Any]]
    members: dict[str, set[str]]
    trial: Trial

    def expected(self, tree: E) -> list[str]:
        oracle = Oracle(micros_of(self.now), self.members)
        return sorted(person["_id"] for person in self.people if oracle.matches(tree, person))

    def answers(self, texts: Iterable[str]) -> list[list[str] | str]:
        """The engine's ids for each text, all evaluated together; a refusal or failure as its message."""
        builder, conditions, refused = Builder(), {}, {}
        given = list(texts)
        for at, one in enumerate(given):
            checked = check(one, self.trial.schema, segments=self.members, builder=builder)
            if checked.condition is None:
                refused[str(at)] = "refused: " + "; ".join(finding.message for finding in checked.diagnostics)
            else:
                conditions[str(at)] = checked.condition
        found = evaluate(
            Plan(conditions), self.trial.bucket, now=self.now, member=self.trial.member, cancelled=lambda: False
        )
        results: list[list[str] | str] = []
        for at in range(len(given)):
            rows = found.get(str(at))
            if rows is None:
                results.append(refused[str(at)])
            elif isinstance(rows, EvaluationError):
                results.append(f"failed: {rows.message}")
            else:
                results.append(self.trial.matching(rows))
        return results


def micros_of(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def crowd(random: Random, size: int = PEOPLE) -> Crowd:
    now = random.choice(_NOWS)
    values = _Values(random, micros_of(now))
    people = []
    for number in range(size):
        person = {**values.object(PROFILE), "_id": f"p{number:02}"}
        person["segmentMembership"] = values.maybe(values.memberships)
        person["identityMap"] = values.maybe(values.identities)
        person["xEvent"] = values.events(number)
        people.append(person)
    members = {id: {person["_id"] for person in people if random.random() < 0.4} for id in SEGMENTS}
    return loaded(now, people, members, random)


def loaded(now: datetime, people: list[dict[str, Any]], members: dict[str, set[str]], random: Random) -> Crowd:
    """Through files, the events in any order, so that what sorts them is tried too."""
    with TemporaryDirectory() as folder:
        profiles, events, membership = (Path(folder) / f"{name}.parquet" for name in ("profiles", "events", "members"))
        fields = [field for field in PROFILE[1] if field[0] != "xEvent"]
        pq.write_table(_table(people, fields), profiles)
        happened = [{**event, "profileId": person["_id"]} for person in people for event in person["xEvent"]]
        random.shuffle(happened)
        pq.write_table(_table(happened, [*EVENT[1], ("profileId", "text")]), events)
        rows = [
            {"profileId": id, "segmentId": segment, "status": "realized"}
            for segment in SEGMENTS
            for id in [*sorted(members[segment]), "nobody"]
        ]
        pq.write_table(pa.Table.from_pylist(rows), membership)
        trial = load_trial(profiles, events, membership=membership)
    for person in people:
        person["xEvent"].sort(key=lambda event: (event["timestamp"], event["_id"]))
        person["segmentMembership"] = _with_stored(person, members)
    return Crowd(now, people, members, trial)


def _with_stored(person: dict[str, Any], members: dict[str, set[str]]) -> Any:
    """The map of a person with the stored segments in it, by name."""
    entry = {"status": "realized", "lastQualificationTime": None}
    stored = {segment: entry for segment in SEGMENTS if person["_id"] in members[segment]}
    loaded = person["segmentMembership"] or {}
    both = {**loaded, "AEPSegments": {**loaded.get("AEPSegments", {}), **stored}}
    return {name: dict(sorted(both[name].items())) for name in sorted(both) if both[name]} or None


def _table(rows: list[dict[str, Any]], fields: Iterable[tuple[str, Any]]) -> pa.Table:
    return pa.table(
        {name: pa.array([_stored(row.get(name), t) for row in rows], _arrow(t, name)) for name, t in fields}
    )


def _arrow(type_: Any, name: str = "") -> pa.DataType:
    if name in WHOLE:
        return pa.int64()
    if isinstance(type_, str):
        return _SCALARS[type_]
    if type_[0] == "array":
        return pa.list_(_arrow(type_[1]))
    if type_[0] == "map":
        return pa.map_(pa.string(), _arrow(type_[1]))
    return pa.struct([pa.field(name, _arrow(of, name)) for name, of in type_[1]])


def _stored(value: Any, type_: Any) -> Any:
    if value is None or isinstance(type_, str):
        return value
    if type_[0] == "array":
        return [_stored(one, type_[1]) for one in value]
    if type_[0] == "map":
        return [(key, _stored(one, type_[1])) for key, one in value.items()]
    return {name: _stored(value[name], of) for name, of in type_[1]}


class _Values:
    def __init__(self, random: Random, now: int) -> None:
        self.random = random
        self.now = now

    def maybe(self, make: Any, part: float = 0.75) -> Any:
        return make() if self.random.random() < part else None

    def of(self, type_: Any) -> Any:
        if isinstance(type_, str):
            return getattr(self, type_)()
        if type_[0] == "array":
            return [self.element(type_[1]) for _ in range(self.random.choice((0, 1, 1, 2, 2, 3, 4)))]
        if type_[0] == "map":
            keys = self.random.sample(KEYS, self.random.randrange(4))
            return {key: self.element(type_[1]) for key in keys}
        return self.object(type_)

    def element(self, type_: Any) -> Any:
        """What is in an array or a map is not null: what null elements mean, the language leaves open."""
        return self.of(type_)

    def object(self, type_: Any) -> dict[str, Any]:
        return {
            name: None if name == "xEvent" else self.maybe(lambda of=of, name=name: self.field(name, of))
            for name, of in type_[1]
        }

    def field(self, name: str, type_: Any) -> Any:
        return self.random.choice(WHOLES) if name in WHOLE else self.of(type_)

    def text(self) -> str:
        return self.random.choice(TEXTS)

    def number(self) -> float:
        number: float = settled(self.random.choice(NUMBERS))
        return number

    def bool(self) -> bool:
        return self.random.random() < 0.5

    def date(self) -> int:
        """Days around now, ends of months, leap days, the same day long ago."""
        shape, today = self.random.randrange(5), self.now // DAY
        year, month, day = civil(today)
        if shape == 0:
            return today + self.random.choice((-366, -365, -31, -30, -28, -7, -2, -1, 0, 0, 1, 2, 7, 30, 365))
        if shape == 1:
            at = year * 12 + month - 1 + self.random.choice((-24, -12, -2, -1, 0, 1, 12))
            return day_number(at // 12, at % 12 + 1, month_days(at // 12, at % 12 + 1))
        if shape == 2:
            return day_number(self.random.choice((2000, 2008, 2020, 2024)), 2, 29)
        if shape == 3:
            past = year - self.random.choice((1, 2, 3, 7, 10, 12, 20, 24, 100))
            return day_number(past, month, min(day, month_days(past, month))) + self.random.choice((-1, 0, 0, 1))
        return day_number(*self.random.choice(((1970, 1, 1), (1969, 12, 31), (2000, 1, 1), (1999, 12, 31), (1, 1, 1))))

    def time(self) -> int:
        shape = self.random.randrange(6)
        if shape == 0:
            return self.now + self.random.choice((-1, 0, 0, 0, 1, -1_000, 1_000, -1_000_000, -3_600_000_000))
        if shape == 1:
            return self.date() * DAY + self.random.choice((-1, 0, 0, 1))
        unit = self.random.choice((DAY, DAY, 3_600_000_000, 60_000_000, 7 * DAY))
        if shape < 4:
            count = self.random.choice((-30, -24, -12, -7, -3, -2, -1, 0, 1, 2, 3, 7))
            return self.now + count * unit + self.random.choice((-1, 0, 0, 0, 1))
        return self.date() * DAY + self.now % DAY

    def memberships(self) -> Any:
        def entry() -> Any:
            return {
                "status": self.maybe(lambda: self.random.choice(("realized", "exited"))),
                "lastQualificationTime": None,
            }

        return {key: {id: entry() for id in self.random.sample(KEYS, 2)} for key in self.random.sample(KEYS, 2)}

    def identities(self) -> Any:
        def entry() -> Any:
            return {"id": self.maybe(self.text), "primary": self.maybe(self.bool)}

        return {key: [entry() for _ in range(self.random.randrange(3))] for key in self.random.sample(KEYS, 2)}

    def events(self, number: int) -> list[dict[str, Any]]:
        times = [self.time() for _ in range(3)]
        count = self.random.choice((0, 0, 1, 2, 3, 4, 6))
        found = []
        for at in range(count):
            time = self.random.choice(times) if self.random.random() < 0.4 else self.time()
            found.append({**self.object(EVENT), "_id": f"e{number:02}{at}", "timestamp": time})
        return found


def problems(group: Crowd, trees: list[E]) -> list[tuple[E, list[str], list[str] | str]]:
    """Where the engine and the oracle differ: the expression, the oracle's ids, the engine's answer."""
    answers = group.answers(text(tree) for tree in trees)
    found = []
    for tree, answer in zip(trees, answers, strict=True):
        expected = group.expected(tree)
        if answer != expected:
            found.append((tree, expected, answer))
    return found
