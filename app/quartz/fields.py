"""The fields of a Quartz cron expression: parsed into numbers and day rules, or rejected with their position."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from typing import NoReturn

from app.errors import Diagnostic, DiagnosticKind, ExpressionRefused
from app.quartz.days import (
    LONGEST_MONTH,
    MONTHS,
    WEEKDAYS,
    DayRule,
    LastDay,
    MonthDays,
    NearestWorkday,
    NthWeekday,
    Weekdays,
)

LONGEST = 500
FIRST_YEAR, LAST_YEAR = 1970, 2099


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the expression, in upper case, with its offset."""

    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    def cut(self, separator: str) -> "list[Part]":
        parts, start = [], self.start
        for text in self.text.split(separator):
            parts.append(Part(text, start))
            start += len(text) + 1
        return parts


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    low: int
    high: int
    names: Mapping[str, int] = field(default_factory=dict)
    special: str = ""
    """The other forms that an item may have, for messages."""

    def about(self) -> str:
        names = f", or {next(iter(self.names))} to {list(self.names)[-1]}" if self.names else ""
        return f"{self.name} are {self.low} to {self.high}{names}"


_SECOND, _MINUTE, _HOUR = Field("seconds", 0, 59), Field("minutes", 0, 59), Field("hours", 0, 23)
TIMES = (_SECOND, _MINUTE, _HOUR)
DAY = Field("days of the month", 1, LONGEST_MONTH, special="L, L-3, 15W, LW or L-3W")
MONTH = Field("months", 1, 12, {name[:3].upper(): at for at, name in enumerate(MONTHS, 1)})
WEEKDAY = Field("days of the week", 1, 7, {name[:3].upper(): at for at, name in enumerate(WEEKDAYS, 1)}, "6L or 6#3")
YEAR = Field("years", FIRST_YEAR, LAST_YEAR)

_WORD = re.compile(r"\S+")
_LAST_DAY = re.compile(r"L(?:-([0-9]{1,2}))?(W)?")
_NEAR_DAY = re.compile(r"([0-9]{1,2})W")
_NTH = re.compile(r"([0-9A-Z]+)(?:#([0-9]+)|L)")


def refuse(message: str, start: int, end: int, kind: DiagnosticKind = DiagnosticKind.SYNTAX) -> NoReturn:
    """Raises an error. An expression is one line: the column is the 1-based offset."""
    raise ExpressionRefused([_finding(message, start, end, kind)], ("cron_expression",))


def _finding(message: str, start: int, end: int, kind: DiagnosticKind) -> Diagnostic:
    return Diagnostic(kind, message, 1, start + 1, max(0, end - start))


def split(text: str) -> list[Part]:
    if len(text) > LONGEST:
        message = f"the expression has {len(text)} characters, and at most {LONGEST} are read: shorten it"
        refuse(message, LONGEST, len(text), DiagnosticKind.LIMIT)
    parts = [Part(word[0].upper() if word[0].isascii() else word[0], word.start()) for word in _WORD.finditer(text)]
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


def items_of(kind: Field, part: Part) -> list[Part]:
    """The items of a day field; empty for `?`."""
    return [] if part.text == "?" else part.cut(",")


def month_rules(items: list[Part]) -> tuple[DayRule, ...]:
    plain: set[int] = set()
    rules: list[DayRule] = []
    for item in items:
        if match := _LAST_DAY.fullmatch(item.text):
            last = LastDay(
                _within(Part(match[1], item.start + 2), "days before the last one", 0, 30) if match[1] else 0
            )
            rules.append(NearestWorkday(last) if match[2] else last)
        elif match := _NEAR_DAY.fullmatch(item.text):
            rules.append(NearestWorkday(MonthDays((_number(DAY, Part(match[1], item.start)),))))
        else:
            plain |= _range(DAY, item)
    return (*([MonthDays(tuple(sorted(plain)))] if plain else []), *dict.fromkeys(rules))


def week_rules(items: list[Part]) -> tuple[DayRule, ...]:
    plain: set[int] = set()
    rules: list[DayRule] = []
    for item in items:
        if item.text == "L":
            plain.add(WEEKDAY.high)
        elif (match := _NTH.fullmatch(item.text)) and not match[1].startswith("L"):
            weekday = _number(WEEKDAY, Part(match[1], item.start))
            if match[2]:
                place = Part(match[2], item.start + match.start(2))
                rules.append(NthWeekday(weekday, _within(place, "weeks after #", 1, 5)))
            else:
                rules.append(NthWeekday(weekday, -1))
        else:
            plain |= _range(WEEKDAY, item)
    return (*([Weekdays(tuple(sorted(plain)))] if plain else []), *dict.fromkeys(rules))


def values_of(kind: Field, part: Part) -> set[int]:
    """The values of a field without special items."""
    return set().union(*(_range(kind, item) for item in part.cut(",")))


def _range(kind: Field, item: Part) -> set[int]:
    """`*`, `5`, `1-5`, each optionally with a step; a range may wrap around, such as FRI-MON."""
    base, *steps = item.cut("/")
    if len(steps) > 1:
        refuse(f"{item.text!r} has two steps: write one, as in 0/5", item.start, item.end)
    if not item.text:
        refuse(f"a value is missing here: {kind.about()}", item.start, item.end)
    size = kind.high - kind.low + 1
    step = (
        _within(steps[0], f"steps in {kind.name}", 1, size if kind is not YEAR else LAST_YEAR - FIRST_YEAR)
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
        if kind is YEAR:
            refuse(f"the range {base.text} ends before it begins: turn it round", base.start, base.end)
        last += size
    return {(value - kind.low) % size + kind.low for value in range(first, last + 1, step)}


def _number(kind: Field, part: Part) -> int:
    if part.text in kind.names:
        return kind.names[part.text]
    if re.fullmatch("[0-9]{1,9}", part.text):
        return _within(part, kind.name, kind.low, kind.high)
    if part.text == "?":
        refuse("? stands alone in one of the two day fields, and nowhere else: write *", part.start, part.end)
    special = f"; {kind.special}" if kind.special else ""
    what = f"{part.text!r} cannot be read here" if part.text else "a value is missing here"
    refuse(f"{what}: {kind.about()}{special}", part.start, part.end)


def _within(part: Part, what: str, low: int, high: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", part.text) or not low <= int(part.text) <= high:
        problem = f"{part.text} is not possible" if part.text else "a number is missing"
        refuse(f"{problem} here: {what} are {low} to {high}", part.start, part.end)
    return int(part.text)


def refuse_both_days(parts: list[Part], monthly: list[Part], weekly: list[Part]) -> None:
    if bool(monthly) != bool(weekly):
        return
    if monthly:
        # The less specific of the two gives way.
        instead = parts[3] if parts[3].text == "*" and parts[5].text != "*" else parts[5]
        what = f"are both given: write ? for the one that does not count, here for {instead.text}"
    else:
        instead, what = parts[5], "are both ?: write the days in one of them, * for every day"
    refuse(f"the day of the month and the day of the week {what}", instead.start, instead.end)


def refuse_dense(parts: list[Part], values: tuple[list[int], list[int], list[int]]) -> None:
    """A day fires at each combination of hours, minutes and seconds, so there may be only one combination."""
    findings = []
    for at, (kind, part, numbers) in enumerate(zip(reversed(TIMES), reversed(parts[:3]), values, strict=True)):
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
