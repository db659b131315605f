"""The days of a month selected by items of the two day fields, and their description."""

import calendar
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby, pairwise
from typing import Protocol

MONTHS = (
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
LONGEST_MONTH = 31
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
_ORDINALS = ("first", "second", "third", "fourth", "fifth")


class DayRule(Protocol):
    """Selects days of a month, for one item of a day field."""

    def days(self, year: int, month: int) -> Collection[int]: ...

    def words(self) -> str: ...


@dataclass(frozen=True, slots=True)
class MonthDays:
    """`15`, `1-5`, `*/2`: those of the days that the month has."""

    values: tuple[int, ...]

    def days(self, year: int, month: int) -> Collection[int]:
        return [day for day in self.values if day <= _length(year, month)]

    def words(self) -> str:
        if len(self.values) == LONGEST_MONTH:
            return "every day"
        return f"on day{'s' * (len(self.values) > 1)} {listed(self.values, str)} of the month"


@dataclass(frozen=True, slots=True)
class LastDay:
    """`L`: the last day; `L-3` is three days earlier, if the month is long enough."""

    before: int

    def days(self, year: int, month: int) -> Collection[int]:
        day = _length(year, month) - self.before
        return [day] if day > 0 else []

    def words(self) -> str:
        before = f"{self.before} day{'s' * (self.before > 1)} before " if self.before else "on "
        return f"{before}the last day of the month"


@dataclass(frozen=True, slots=True)
class NearestWorkday:
    """`15W`: the weekday (Monday to Friday) nearest to the given day within the same month."""

    near: MonthDays | LastDay

    def days(self, year: int, month: int) -> Collection[int]:
        return [_workday(year, month, day) for day in self.near.days(year, month)]

    def words(self) -> str:
        if self.near == LastDay(0):
            return "on the last weekday (Monday to Friday) of the month"
        return f"on the weekday (Monday to Friday) nearest to {self.near.words().removeprefix('on ')}"


@dataclass(frozen=True, slots=True)
class Weekdays:
    """`MON-FRI`: all days with these days of the week, 1 for Sunday to 7."""

    values: tuple[int, ...]

    def days(self, year: int, month: int) -> Collection[int]:
        return [day for weekday in self.values for day in _days_of(year, month, weekday)]

    def words(self) -> str:
        if len(self.values) == len(WEEKDAYS):
            return "every day"
        from_monday = sorted((weekday - 2) % 7 for weekday in self.values)
        return "on " + listed(from_monday, lambda day: WEEKDAYS[(day + 1) % 7])


@dataclass(frozen=True, slots=True)
class NthWeekday:
    """`6#3`: the third Friday, if the month has one; `6L`, stored as -1: the last one."""

    weekday: int
    number: int

    def days(self, year: int, month: int) -> Collection[int]:
        days = _days_of(year, month, self.weekday)
        if self.number < 0:
            return days[-1:]
        return days[self.number - 1 : self.number]

    def words(self) -> str:
        which = "last" if self.number < 0 else _ORDINALS[self.number - 1]
        return f"on the {which} {WEEKDAYS[self.weekday - 1]} of the month"


def _length(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


def _days_of(year: int, month: int, weekday: int) -> range:
    """The days of the month with this day of the week (1 is Sunday)."""
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


def listed(values: Sequence[int], name: Callable[[int], str]) -> str:
    """Values in order: consecutive ones as a range, even steps with dots.

    >>> listed([1, 2, 3, 15], str), listed([1, 3, 5, 7, 9], str)
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
