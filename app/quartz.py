"""Quartz cron, read into a calendar that names its times and itself in words; knows no schedule and no clock.

The calendar and the words are our own. croniter knows neither `LW` nor `L-3` and has other weekdays; cron-descriptor
calls `*/2` in the days "every 2 days" (after the 31st comes the 1st), reads `L,15` as "day L" and refuses `L` as a day
of the week. What is left to do, one time of day on days that follow from their month, is the smaller part.
"""

import calendar
import hashlib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from itertools import groupby, pairwise
from typing import NoReturn, Protocol

from app.errors import Diagnostic, DiagnosticKind, ExpressionRefused

LONGEST = 500
FIRST_YEAR, LAST_YEAR = 1970, 2099

_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


class DayRule(Protocol):
    """Days of a month that one item of a day field means."""

    def days(self, year: int, month: int) -> Collection[int]: ...

    def words(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Cron:
    """One time of day, in UTC, on the days that any of the rules names in these months and years.

    With one time of day, two fires lie whole days apart: more than one in 24 hours cannot be said.
    """

    at: time
    rules: tuple[DayRule, ...]
    months: frozenset[int]
    years: frozenset[int]

    def fires(self, after: datetime) -> Iterator[datetime]:
        """Every fire time later than `after`, in order; it ends with the year 2099."""
        for year in sorted(self.years):
            for month in sorted(self.months) if year >= after.year else ():
                for day in sorted({day for rule in self.rules for day in rule.days(year, month)}):
                    fire = datetime.combine(date(year, month, day), self.at, UTC)
                    if fire > after:
                        yield fire

    def next_after(self, instant: datetime) -> datetime | None:
        return next(self.fires(instant), None)

    def words(self) -> str:
        """
        >>> parse("0 0 2 L,15 JAN-MAR ?").words()
        'At 02:00 UTC, on day 15 of the month and on the last day of the month, in January to March'
        """
        at = self.at.isoformat("seconds" if self.at.second else "minutes")
        said = [f"At {at} UTC", " and ".join(rule.words() for rule in self.rules)]
        if len(self.months) < len(_MONTHS):
            said.append("in " + _listed(sorted(self.months), lambda month: _MONTHS[month - 1]))
        if len(self.years) <= LAST_YEAR - FIRST_YEAR:
            said.append("in " + _listed(sorted(self.years), str))
        return ", ".join(said)


def parse(text: str) -> Cron:
    """The calendar of an expression of 6 or 7 fields: seconds, minutes, hours, day of the month, month, day of the
    week (1 is Sunday), year. Raises `ExpressionRefused` with the place for bad syntax, for what fires more than once
    in 24 hours, and for what never fires.

    >>> parse("0 30 2 ? * 6#3").next_after(datetime(2026, 1, 1, tzinfo=UTC)).isoformat()
    '2026-01-16T02:30:00+00:00'
    """
    parts = _split(text)
    seconds, minutes, hours = (sorted(_values(kind, part)) for kind, part in zip(_TIMES, parts, strict=False))
    monthly, weekly = _items(_DAY, parts[3]), _items(_WEEKDAY, parts[5])
    months = frozenset(_values(_MONTH, parts[4]))
    years = frozenset(_values(_YEAR, parts[6]) if len(parts) > 6 else range(FIRST_YEAR, LAST_YEAR + 1))
    _refuse_both_days(parts, monthly, weekly)
    _refuse_dense(parts, (hours, minutes, seconds))
    rules = _month_rules(monthly) if monthly else _week_rules(weekly)
    cron = Cron(time(hours[0], minutes[0], seconds[0]), rules, months, years)
    if cron.next_after(datetime.min.replace(tzinfo=UTC)) is None:
        message = "no date fits these days, months and years, so it would never fire: change one of them"
        refuse(message, parts[3].start, parts[-1].end)
    return cron


def upcoming(text: str, now: datetime) -> Cron:
    """As `parse`; also refuses what has fired for the last time before `now`."""
    cron = parse(text)
    if cron.next_after(now) is None:
        years = _split(text)[6]
        message = f"its last year is {max(cron.years)}, so it would never fire any more: name a later year, or none"
        refuse(message, years.start, years.end)
    return cron


def daily(seed: str) -> str:
    """An expression that fires once a day, at a minute that follows from the seed: many seeds spread over the day.

    >>> daily("orders"), daily("visits")
    ('0 28 22 * * ?', '0 10 7 * * ?')
    """
    hour, minute = divmod(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]) % (24 * 60), 60)
    return f"0 {minute} {hour} * * ?"


# ---------------------------------------------------------------- days of a month


@dataclass(frozen=True, slots=True)
class MonthDays:
    """`15`, `1-5`, `*/2`: those of them that the month has."""

    values: tuple[int, ...]

    def days(self, year: int, month: int) -> Collection[int]:
        return [day for day in self.values if day <= _length(year, month)]

    def words(self) -> str:
        if len(self.values) == _DAY.high:
            return "every day"
        return f"on day{'s' * (len(self.values) > 1)} {_listed(self.values, str)} of the month"


@dataclass(frozen=True, slots=True)
class LastDay:
    """`L`; `L-3` is three days before it, where the month is that long."""

    before: int

    def days(self, year: int, month: int) -> Collection[int]:
        day = _length(year, month) - self.before
        return [day] if day > 0 else []

    def words(self) -> str:
        before = f"{self.before} day{'s' * (self.before > 1)} before " if self.before else "on "
        return f"{before}the last day of the month"


@dataclass(frozen=True, slots=True)
class NearestWorkday:
    """`15W`: the day from Monday to Friday that is nearest to another day, and in the same month."""

    near: MonthDays | LastDay

    def days(self, year: int, month: int) -> Collection[int]:
        return [_workday(year, month, day) for day in self.near.days(year, month)]

    def words(self) -> str:
        if self.near == LastDay(0):
            return "on the last weekday (Monday to Friday) of the month"
        return f"on the weekday (Monday to Friday) nearest to {self.near.words().removeprefix('on ')}"


@dataclass(frozen=True, slots=True)
class Weekdays:
    """`MON-FRI`: every such day of the week, as 1 for Sunday to 7."""

    values: tuple[int, ...]

    def days(self, year: int, month: int) -> Collection[int]:
        return [day for weekday in self.values for day in _days_of(year, month, weekday)]

    def words(self) -> str:
        if len(self.values) == len(_WEEKDAYS):
            return "every day"
        from_monday = sorted((weekday - 2) % 7 for weekday in self.values)
        return "on " + _listed(from_monday, lambda day: _WEEKDAYS[(day + 1) % 7])


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """`6#3`: the third Friday, where the month has one; `6L`, with -1: the last one."""

    weekday: int
    number: int

    def days(self, year: int, month: int) -> Collection[int]:
        days = _days_of(year, month, self.weekday)
        if self.number < 0:
            return days[-1:]
        return days[self.number - 1 : self.number]

    def words(self) -> str:
        which = "last" if self.number < 0 else _ORDINALS[self.number - 1]
        return f"on the {which} {_WEEKDAYS[self.weekday - 1]} of the month"


def _length(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


def _days_of(year: int, month: int, weekday: int) -> range:
    """The days of the month that are this day of the week (1 is Sunday)."""
    first, length = calendar.monthrange(year, month)  # 0 is Monday
    return range(1 + (weekday - 2 - first) % 7, length + 1, 7)


def _workday(year: int, month: int, day: int) -> int:
    match date(year, month, day).isoweekday():
        case 6:
            return day - 1 if day > 1 else day + 2
        case 7:
            return day + 1 if day < _length(year, month) else day - 2
        case _:
            return day


# ---------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the expression, in capitals, with its offset."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def cut(self, separator: str) -> "list[_Part]":
        parts, start = [], self.start
        for text in self.text.split(separator):
            parts.append(_Part(text, start))
            start += len(text) + 1
        return parts


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    special: str = ""
    """What else an item may be, for people."""

    def about(self) -> str:
        names = f", or {next(iter(self.names))} to {list(self.names)[-1]}" if self.names else ""
        return f"{self.name} are {self.low} to {self.high}{names}"


_SECOND, _MINUTE, _HOUR = _Field("seconds", 0, 59), _Field("minutes", 0, 59), _Field("hours", 0, 23)
_TIMES = (_SECOND, _MINUTE, _HOUR)
_DAY = _Field("days of the month", 1, 31, special="L, L-3, 15W, LW or L-3W")
_MONTH = _Field("months", 1, 12, {name[:3].upper(): at for at, name in enumerate(_MONTHS, 1)})
_WEEKDAY = _Field("days of the week", 1, 7, {name[:3].upper(): at for at, name in enumerate(_WEEKDAYS, 1)}, "6L or 6#3")
_YEAR = _Field("years", FIRST_YEAR, LAST_YEAR)

_WORD = re.compile(r"\S+")
_LAST_DAY = re.compile(r"L(?:-([0-9]{1,2}))?(W)?")
_NEAR_DAY = re.compile(r"([0-9]{1,2})W")
_NTH = re.compile(r"([0-9A-Z]+)(?:#([0-9]+)|L)")


def refuse(message: str, start: int, end: int, kind: DiagnosticKind = DiagnosticKind.SYNTAX) -> NoReturn:
    """An expression is one line: the column is the offset from 1."""
    raise ExpressionRefused([_finding(message, start, end, kind)], ("cron_expression",))


def _finding(message: str, start: int, end: int, kind: DiagnosticKind) -> Diagnostic:
    return Diagnostic(kind, message, 1, start + 1, max(0, end - start))


def _split(text: str) -> list[_Part]:
    if len(text) > LONGEST:
        message = f"the expression has {len(text)} characters, and at most {LONGEST} are read: shorten it"
        refuse(message, LONGEST, len(text), DiagnosticKind.LIMIT)
    parts = [_Part(word[0].upper() if word[0].isascii() else word[0], word.start()) for word in _WORD.finditer(text)]
    fields_in_order = "seconds, minutes, hours, day of the month, month, day of the week and, if you like, year"
    if len(parts) < 6:
        unix = ': five fields have no seconds, so put "0" before them' if len(parts) == 5 else f": {fields_in_order}"
        refuse(f"the expression has {len(parts)} fields, and needs 6 or 7{unix}", len(text), len(text))
    if len(parts) > 7:
        refuse(
            f"the expression has {len(parts)} fields, and at most 7 are read: {fields_in_order}",
            parts[7].start,
            parts[-1].end,
        )
    return parts


def _items(kind: _Field, part: _Part) -> list[_Part]:
    """What a day field lists; nothing for `?`."""
    return [] if part.text == "?" else part.cut(",")


def _month_rules(items: list[_Part]) -> tuple[DayRule, ...]:
    plain: set[int] = set()
    rules: list[DayRule] = []
    for item in items:
        if match := _LAST_DAY.fullmatch(item.text):
            last = LastDay(
                _within(_Part(match[1], item.start + 2), "days before the last one", 0, 30) if match[1] else 0
            )
            rules.append(NearestWorkday(last) if match[2] else last)
        elif match := _NEAR_DAY.fullmatch(item.text):
            rules.append(NearestWorkday(MonthDays((_number(_DAY, _Part(match[1], item.start)),))))
        else:
            plain |= _range(_DAY, item)
    return (*([MonthDays(tuple(sorted(plain)))] if plain else []), *dict.fromkeys(rules))


def _week_rules(items: list[_Part]) -> tuple[DayRule, ...]:
    plain: set[int] = set()
    rules: list[DayRule] = []
    for item in items:
        if item.text == "L":
            plain.add(_WEEKDAY.high)
        elif (match := _NTH.fullmatch(item.text)) and not match[1].startswith("L"):
            weekday = _number(_WEEKDAY, _Part(match[1], item.start))
            if match[2]:
                place = _Part(match[2], item.start + match.start(2))
                rules.append(NthWeekday(weekday, _within(place, "weeks after #", 1, 5)))
            else:
                rules.append(NthWeekday(weekday, -1))
        else:
            plain |= _range(_WEEKDAY, item)
    return (*([Weekdays(tuple(sorted(plain)))] if plain else []), *dict.fromkeys(rules))


def _values(kind: _Field, part: _Part) -> set[int]:
    """The values of a field that has no special items."""
    return set().union(*(_range(kind, item) for item in part.cut(",")))


def _range(kind: _Field, item: _Part) -> set[int]:
    """`*`, `5`, `1-5`, each also with a step; a range may run over the end, as FRI-MON does."""
    base, *steps = item.cut("/")
    if len(steps) > 1:
        refuse(f"{item.text!r} has two steps: write one, as in 0/5", item.start, item.end)
    if not item.text:
        refuse(f"a value is missing here: {kind.about()}", item.start, item.end)
    size = kind.high - kind.low + 1
    step = (
        _within(steps[0], f"steps in {kind.name}", 1, size if kind is not _YEAR else LAST_YEAR - FIRST_YEAR)
        if steps
        else 1
    )
    if base.text in ("*", ""):
        return set(range(kind.low, kind.high + 1, step))
    bounds = base.cut("-")
    if len(bounds) > 2:
        refuse(f"{base.text!r} is no range: write its first and its last value, as in 1-5", base.start, base.end)
    first, *lasts = (_number(kind, bound) for bound in bounds)
    last = lasts[0] if lasts else (kind.high if steps else first)
    if last < first:
        if kind is _YEAR:
            refuse(f"the range {base.text} ends before it begins: turn it round", base.start, base.end)
        last += size
    return {(value - kind.low) % size + kind.low for value in range(first, last + 1, step)}


def _number(kind: _Field, part: _Part) -> int:
    if part.text in kind.names:
        return kind.names[part.text]
    if re.fullmatch("[0-9]{1,9}", part.text):
        return _within(part, kind.name, kind.low, kind.high)
    if part.text == "?":
        refuse("? stands alone in one of the two day fields, and nowhere else: write *", part.start, part.end)
    special = f"; {kind.special}" if kind.special else ""
    what = f"{part.text!r} cannot be read here" if part.text else "a value is missing here"
    refuse(f"{what}: {kind.about()}{special}", part.start, part.end)


def _within(part: _Part, what: str, low: int, high: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", part.text) or not low <= int(part.text) <= high:
        problem = f"{part.text} is not possible" if part.text else "a number is missing"
        refuse(f"{problem} here: {what} are {low} to {high}", part.start, part.end)
    return int(part.text)


def _refuse_both_days(parts: list[_Part], monthly: list[_Part], weekly: list[_Part]) -> None:
    if bool(monthly) != bool(weekly):
        return
    if monthly:
        # The one that says less gives way.
        instead = parts[3] if parts[3].text == "*" and parts[5].text != "*" else parts[5]
        what = f"are both given: write ? for the one that does not count, here for {instead.text}"
    else:
        instead, what = parts[5], "are both ?: write the days in one of them, * for every day"
    refuse(f"the day of the month and the day of the week {what}", instead.start, instead.end)


def _refuse_dense(parts: list[_Part], values: tuple[list[int], list[int], list[int]]) -> None:
    """Every day that fires at all fires at each combination of hours, minutes and seconds: there may be only one."""
    findings = []
    for at, (kind, part, numbers) in enumerate(zip(reversed(_TIMES), reversed(parts[:3]), values, strict=True)):
        if len(numbers) > 1:
            first, other = [each[0] for each in values], [each[0] for each in values]
            other[at] = numbers[1]
            once, again = (time(hour, minute, second) for hour, minute, second in (first, other))
            message = (
                f"it would fire at {once} and again at {again} of the same day, and a schedule fires at most once in "
                f"24 hours: give one value for the {kind.name}, such as {numbers[0]}"
            )
            findings.append(_finding(message, part.start, part.end, DiagnosticKind.LIMIT))
    if findings:
        raise ExpressionRefused(findings[::-1], ("cron_expression",))


# ---------------------------------------------------------------- words


def _listed(values: Sequence[int], name: Callable[[int], str]) -> str:
    """Values in order: neighbours as a range, even steps with dots.

    >>> _listed([1, 2, 3, 15], str), _listed([1, 3, 5, 7, 9], str)
    ('1 to 3 and 15', '1, 3, 5, … 9')
    """
    steps = {after - before for before, after in pairwise(values)}
    if len(values) > 4 and len(steps) == 1 and steps != {1}:
        return ", ".join(map(name, values[:3])) + f", … {name(values[-1])}"
    said: list[str] = []
    for _, run in groupby(enumerate(values), lambda pair: pair[1] - pair[0]):
        names = [name(value) for _, value in run]
        said += [f"{names[0]} to {names[-1]}"] if len(names) > 2 else names
    return " and ".join(filter(None, (", ".join(said[:-1]), said[-1])))
