"""Calendar arithmetic on columns of microseconds (instants), in the current zone; knows no operations.

Weeks start on Monday; decades, centuries and millennia start at years divisible by 10, 100 and 1000.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.engine.evaluate.columns import Values
from app.engine.evaluate.zones import ZONE

Micros = NDArray[np.int64]

SECOND: Final = 1_000_000
DAY: Final = 86_400 * SECOND

LENGTHS: Final = {
    "millisecond": 1_000,
    "second": SECOND,
    "minute": 60 * SECOND,
    "hour": 3_600 * SECOND,
    "day": DAY,
    "week": 7 * DAY,
}
"""Units of fixed length in microseconds (days and weeks except at clock changes)."""
_DAYS: Final = frozenset({"day", "week"})

MONTHS: Final = {"month": 1, "year": 12, "decade": 120, "century": 1_200, "millennium": 12_000}
"""Calendar units, in months."""

BEGINNING: Final = -(1 << 62)
END: Final = 1 << 62
"""Before and after all times; sums of a time and a distance are clipped to this range."""

_MONDAY = -3 * DAY  # 1969-12-29
_MOST_MONTHS = 12 * 100_000
_EPOCH_MONTHS = 1970 * 12


@dataclass(frozen=True, slots=True)
class Instant:
    """The evaluation instant of a job."""

    micros: int

    @classmethod
    def of(cls, now: datetime) -> "Instant":
        return cls((now.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1))

    @property
    def day(self) -> int:
        """The day in the current zone, counted from 1970."""
        return int(days_of(np.array([self.micros], np.int64))[0])


def midnights(days: Values) -> Micros:
    """The starts of dates in the current zone."""
    return _instants(days.astype(np.int64) * DAY)


def days_of(micros: Micros) -> NDArray[np.int64]:
    """The days that contain the times, in the current zone."""
    return _local(micros) // DAY


def months_of(days: Values) -> NDArray[np.int64]:
    """Months since year 0 of dates."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64) + _EPOCH_MONTHS


def first_days(months: Values) -> NDArray[np.int64]:
    """First days of months since year 0."""
    return (months - _EPOCH_MONTHS).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def days_in_month(days: Values) -> NDArray[np.int64]:
    """Day of the month of dates, from 1."""
    return days.astype(np.int64) - first_days(months_of(days)) + 1


def unit_number(micros: Micros, unit: str) -> NDArray[np.int64]:
    """The number of the calendar unit that contains each time, counted from a fixed origin."""
    if unit in MONTHS:
        return months_of(days_of(micros)) // MONTHS[unit]
    if unit == "hour" and (zone := ZONE.get()) is not None:
        return zone.hours(micros)
    if unit in _DAYS:
        micros = _local(micros)
    return (micros - _offset(unit)) // LENGTHS[unit]


def unit_start(number: NDArray[np.int64], unit: str) -> Micros:
    """The starts of units; the inverse of `unit_number`."""
    if unit in MONTHS:
        most = _MOST_MONTHS // MONTHS[unit]
        return midnights(first_days(np.clip(number, -most, most) * MONTHS[unit]))
    length = LENGTHS[unit]
    most = (END - 2 * DAY * 7) // length
    number = np.clip(number, -most, most)
    if unit == "hour" and (zone := ZONE.get()) is not None:
        return zone.hour_starts(number)
    start: Micros = number * length + _offset(unit)
    return _instants(start) if unit in _DAYS else start


def shifted(micros: Micros, amount: NDArray[np.float64], unit: str) -> Micros:
    """Times shifted by an amount of units. Months and longer units keep the day of the month, or use the last one.

    Days and weeks keep the wall-clock time in the current zone; shorter units have a fixed length. Fractions of a month
    are ignored; other fractions are exact to the microsecond.
    """
    if unit in _DAYS and ZONE.get() is not None:
        whole = np.clip(np.trunc(amount), -(2.0**40), 2.0**40)
        same_clock = _instants(_local(micros) + whole.astype(np.int64) * LENGTHS[unit])
        rest = np.rint((amount - np.trunc(amount)) * LENGTHS[unit]).astype(np.int64)
        moved_days: Micros = np.clip(same_clock + rest, BEGINNING, END)
        return moved_days
    if unit in LENGTHS:
        distance = np.clip(np.rint(amount * LENGTHS[unit]), -(2.0**61), 2.0**61).astype(np.int64)
        moved: Micros = np.clip(micros + distance, BEGINNING, END)
        return moved
    step = np.clip(np.trunc(amount * MONTHS[unit]), -_MOST_MONTHS, _MOST_MONTHS).astype(np.int64)
    local = _local(micros)
    days = local // DAY
    month = months_of(days)
    start = first_days(month + step)
    last = first_days(month + step + 1) - start - 1
    on: Micros = start + np.minimum(days - first_days(month), last)
    return _instants(on * DAY + (local - days * DAY))


def _local(micros: Micros) -> Micros:
    zone = ZONE.get()
    return micros if zone is None else zone.local(micros)


def _instants(local: Micros) -> Micros:
    zone = ZONE.get()
    return local if zone is None else zone.instants(local)


def _offset(unit: str) -> int:
    return _MONDAY if unit == "week" else 0
