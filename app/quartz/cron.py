"""Quartz cron: parses expressions into calendars that list fire times and describe themselves; knows no schedule and no
clock.

Calendar and descriptions are our own code. croniter supports neither `LW` nor `L-3` and numbers weekdays differently.
cron-descriptor describes `*/2` in the day field as "every 2 days" (although the 31st is followed by the 1st), reads
`L,15` as "day L" and rejects `L` as a day of the week. The remaining part, one time of day on days that follow from
their month, is small.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from app.quartz.days import MONTHS, DayRule, listed
from app.quartz.fields import (
    DAY,
    FIRST_YEAR,
    LAST_YEAR,
    MONTH,
    TIMES,
    WEEKDAY,
    YEAR,
    items_of,
    month_rules,
    refuse,
    refuse_both_days,
    refuse_dense,
    split,
    values_of,
    week_rules,
)


@dataclass(frozen=True, slots=True)
class Cron:
    """One time of day, in UTC, on the days that any rule selects in these months and years.

    Because there is one time of day, fires are whole days apart: more than one in 24 hours cannot be expressed.
    """

    at: time
    rules: tuple[DayRule, ...]
    months: frozenset[int]
    years: frozenset[int]

    def fires(self, after: datetime) -> Iterator[datetime]:
        """Every fire time after `after`, in order, up to the year 2099."""
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
        if len(self.months) < len(MONTHS):
            said.append("in " + listed(sorted(self.months), lambda month: MONTHS[month - 1]))
        if len(self.years) <= LAST_YEAR - FIRST_YEAR:
            said.append("in " + listed(sorted(self.years), str))
        return ", ".join(said)


def parse(text: str) -> Cron:
    """The calendar of an expression with 6 or 7 fields: seconds, minutes, hours, day of the month, month, day of the
    week (1 is Sunday), year. Raises `ExpressionRefused` with the position for invalid syntax, for an expression that
    fires more than once in 24 hours, and for one that never fires.

    >>> parse("0 30 2 ? * 6#3").next_after(datetime(2026, 1, 1, tzinfo=UTC)).isoformat()
    '2026-01-16T02:30:00+00:00'
    """
    parts = split(text)
    seconds, minutes, hours = (sorted(values_of(kind, part)) for kind, part in zip(TIMES, parts, strict=False))
    monthly, weekly = items_of(DAY, parts[3]), items_of(WEEKDAY, parts[5])
    months = frozenset(values_of(MONTH, parts[4]))
    years = frozenset(values_of(YEAR, parts[6]) if len(parts) > 6 else range(FIRST_YEAR, LAST_YEAR + 1))
    refuse_both_days(parts, monthly, weekly)
    refuse_dense(parts, (hours, minutes, seconds))
    rules = month_rules(monthly) if monthly else week_rules(weekly)
    cron = Cron(time(hours[0], minutes[0], seconds[0]), rules, months, years)
    if cron.next_after(datetime.min.replace(tzinfo=UTC)) is None:
        message = "no date fits these days, months and years, so it would never fire: change one of them"
        refuse(message, parts[3].start, parts[-1].end)
    return cron


def upcoming(text: str, now: datetime) -> Cron:
    """Like `parse`, but also rejects an expression whose last fire time is before `now`."""
    cron = parse(text)
    if cron.next_after(now) is None:
        years = split(text)[6]
        message = f"its last year is {max(cron.years)}, so it would never fire any more: name a later year, or none"
        refuse(message, years.start, years.end)
    return cron


def daily(seed: str) -> str:
    """An expression that fires once a day, at a minute derived from the seed, so that many seeds spread over the day.

    >>> daily("orders"), daily("visits")
    ('0 28 22 * * ?', '0 10 7 * * ?')
    """
    hour, minute = divmod(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]) % (24 * 60), 60)
    return f"0 {minute} {hour} * * ?"
