"""Quartz cron: a table of next times and words, what is refused and where, and a calendar that looks at every day."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice, pairwise
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import DiagnosticKind, ErrorCode, ExpressionRefused
from app.quartz import daily, parse, upcoming

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[list[str]]:
    """Lines of a table: fields between tabs, \\t for a tab inside one."""
    lines = (DATA / name).read_text().splitlines()
    found = [line for line in lines if not line.startswith("# ")]
    return [[field.replace("\\t", "\t") for field in line.split("\t")] for line in found]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(("expression", "after", "times", "words"), rows("quartz.tsv"))
def test_next_times_and_words(expression: str, after: str, times: str, words: str) -> None:
    cron = parse(expression)
    assert [fire.strftime("%Y-%m-%dT%H:%M:%S") for fire in islice(cron.fires(instant(after)), 4)] == times.split()
    assert cron.words() == words


@pytest.mark.parametrize(("expression", "kind", "column", "length", "message"), rows("quartz_refused.tsv"))
def test_a_mistake_is_refused_with_its_place(
    expression: str, kind: str, column: str, length: str, message: str
) -> None:
    with pytest.raises(ExpressionRefused) as caught:
        upcoming(expression, instant("2026-06-15T12:00:00"))
    refusal = caught.value
    assert (refusal.code, refusal.path) == (ErrorCode.INVALID_EXPRESSION, ("cron_expression",))
    found = refusal.diagnostics[0]
    assert (found.kind, found.line, found.column, found.length, found.message) == (
        DiagnosticKind[kind], 1, int(column), int(length), message,
    )  # fmt: skip


def test_every_field_that_is_too_dense_is_named() -> None:
    with pytest.raises(ExpressionRefused) as caught:
        parse("0/30 0/20 2,14 * * ?")
    assert [(found.column, found.length, found.message[:64]) for found in caught.value.diagnostics] == [
        (1, 4, "it would fire at 02:00:00 and again at 02:00:30 of the same day,"),
        (6, 4, "it would fire at 02:00:00 and again at 02:20:00 of the same day,"),
        (11, 4, "it would fire at 02:00:00 and again at 14:00:00 of the same day,"),
    ]


def test_the_longest_expression() -> None:
    with pytest.raises(ExpressionRefused) as caught:
        parse("0 0 2 " + ",".join(["1"] * 300) + " * ?")
    found = caught.value.diagnostics[0]
    assert (found.kind, found.column, found.length) == (DiagnosticKind.LIMIT, 501, 109)


def test_a_past_year_is_still_read() -> None:
    """A schedule that has fired for the last time stays readable."""
    assert parse("0 0 2 1 1 ? 2020").next_after(instant("2020-01-01T02:00:00")) is None


def test_generated_expressions_are_once_a_day_and_spread() -> None:
    made = [daily(f"schedule {at}") for at in range(1_000)]
    assert all(parse(one).words().endswith(", every day") for one in made)
    assert len({one.split()[2] for one in made}) == 24
    assert max(made.count(one) for one in set(made)) < 10


# ---------------------------------------------------------------- a second calendar, a day at a time

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
NAMES = {name: at for names in (MONTHS, WEEKDAYS) for at, name in enumerate(names, 1)}


def number(text: str) -> int:
    return NAMES[text.upper()] if text.upper() in NAMES else int(text)


def in_range(item: str, value: int, low: int, high: int) -> bool:
    """Walks a range from its first value, one by one and over the end."""
    base, _, step = item.partition("/")
    first, dash, last = base.partition("-")
    if base == "*":
        at, end = low, high
    else:
        at = number(first)
        end = number(last) if dash else (high if step else at)
    walked = 0
    while True:
        if at == value and walked % int(step or 1) == 0:
            return True
        if at == end:
            return False
        at, walked = (low if at == high else at + 1), walked + 1


def nearest_workday(target: date) -> date:
    month = [target.replace(day=1) + timedelta(days) for days in range(31)]
    workdays = [day for day in month if day.month == target.month and day.weekday() < 5]
    return min(workdays, key=lambda day: abs(day - target))


def last_of(day: date) -> date:
    while (day + timedelta(1)).month == day.month:
        day += timedelta(1)
    return day


def is_day(item: str, day: date) -> bool:
    if found := re.fullmatch(r"L(?:-(\d+))?(W?)", item):
        target = last_of(day) - timedelta(int(found[1] or 0))
        return target.month == day.month and day == (nearest_workday(target) if found[2] else target)
    if found := re.fullmatch(r"(\d+)W", item):
        return int(found[1]) <= last_of(day).day and day == nearest_workday(day.replace(day=int(found[1])))
    return in_range(item, day.day, 1, 31)


def is_weekday(item: str, day: date) -> bool:
    weekday = day.isoweekday() % 7 + 1
    if item == "L":
        return weekday == 7
    if item.endswith("L"):
        return weekday == number(item[:-1]) and (day + timedelta(7)).month != day.month
    if "#" in item:
        name, place = item.split("#")
        earlier = [day - timedelta(7 * weeks) for weeks in range(6)]
        return weekday == number(name) and sum(one.month == day.month for one in earlier) == int(place)
    return in_range(item, weekday, 1, 7)


def by_day(expression: str, after: datetime, until: datetime) -> Iterator[datetime]:
    second, minute, hour, days, months, weekdays, *years = expression.split()
    day = after.date()
    while day < until.date():
        monthly = days == "?" or any(is_day(item, day) for item in days.split(","))
        weekly = weekdays == "?" or any(is_weekday(item, day) for item in weekdays.split(","))
        named = any(in_range(item, day.month, 1, 12) for item in months.split(","))
        in_year = all(any(in_range(item, day.year, 1970, 2099) for item in part.split(",")) for part in years)
        fire = datetime.combine(day, time(int(hour), int(minute), int(second)), UTC)
        if monthly and weekly and named and in_year and fire > after:
            yield fire
        day += timedelta(1)


def ranges(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    value = st.integers(low, high).map(str) | (st.sampled_from(names) if names else st.nothing())
    step = st.integers(1, min(high - low + 1, 40)).map(str)
    span = st.tuples(value, value).map("-".join)
    return value | span | st.just("*") | st.tuples(value | span | st.just("*"), step).map("/".join)


def listed(*items: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(st.one_of(items), min_size=1, max_size=3).map(",".join)


DAY_ITEMS = (
    ranges(1, 31),
    st.just("L") | st.just("LW") | st.integers(0, 30).map("L-{}".format) | st.integers(1, 30).map("L-{}W".format),
    st.integers(1, 31).map("{}W".format),
)
WEEKDAY_ITEMS = (
    ranges(1, 7, WEEKDAYS),
    st.just("L") | st.sampled_from([*"1234567", *WEEKDAYS]).map("{}L".format),
    st.tuples(st.sampled_from([*"1234567", *WEEKDAYS]), st.integers(1, 5)).map(lambda pair: "{}#{}".format(*pair)),
)
YEARS = st.integers(2024, 2032)
DAYS = listed(*DAY_ITEMS).map(lambda days: (days, "?")) | listed(*WEEKDAY_ITEMS).map(lambda days: ("?", days))
YEAR_FIELDS = (
    st.just("")
    | st.just("*")
    | YEARS.map(str)
    | st.tuples(YEARS, st.integers(0, 9)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}")
)


@settings(max_examples=100, deadline=None)
@given(
    time=st.tuples(st.integers(0, 59), st.integers(0, 59), st.integers(0, 23)).map(lambda at: "{} {} {}".format(*at)),
    days=DAYS,
    months=listed(ranges(1, 12, MONTHS)),
    year=YEAR_FIELDS,
    start=st.datetimes(datetime(2024, 1, 1), datetime(2031, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
@example(time="0 0 2", days=("LW,1W", "?"), months="*", year="", start=datetime(2027, 12, 1, tzinfo=UTC))
@example(time="0 0 2", days=("?", "6#5,SUNL"), months="NOV-FEB", year="", start=datetime(2028, 1, 1, tzinfo=UTC))
def test_fires_when_a_look_at_every_day_says_so(
    time: str, days: tuple[str, str], months: str, year: str, start: datetime
) -> None:
    expression = f"{time} {days[0]} {months} {days[1]} {year}"
    until = start + timedelta(800)
    expected = list(by_day(expression, start, until))
    try:
        cron = parse(expression)
    except ExpressionRefused as refusal:
        never = "never fire" in refusal.message
        assert never and expected == []  # noqa: PT018
        return
    found = [fire for fire in islice(cron.fires(start), len(expected) + 1) if fire.date() < until.date()]
    assert found == expected
    assert all(later - earlier >= timedelta(hours=24) for earlier, later in pairwise(found))


@given(st.text(alphabet="0123456789*?,-/#LW SUNMONJAN\t", max_size=40))
def test_any_text_is_read_or_refused_within_it(expression: str) -> None:
    try:
        parse(expression)
    except ExpressionRefused as refusal:
        for found in refusal.diagnostics:
            assert 1 <= found.column <= len(expression) + 1
            assert found.column - 1 + found.length <= len(expression)
