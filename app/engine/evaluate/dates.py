"""Kernels of dates and times on values of one scope. The rules are those of PQL, fine print 8-10.

Every test of a time is one or more half-open windows `lower <= t < upper`, which a sequence can search. Windows are
monotonic: their bounds never decrease when the reference time increases.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.engine.evaluate.calendars import (
    BEGINNING,
    END,
    Micros,
    days_in_month,
    days_of,
    first_days,
    midnights,
    months_of,
    shifted,
    unit_number,
    unit_start,
)
from app.engine.evaluate.columns import Bools, Column, Interval, Value, Values, condition, numbers
from app.engine.evaluate.exact import doubles
from app.engine.evaluate.memo import Call, RowKernel
from app.pql.schema import Scalar

Window = tuple[Micros, Micros]


def micros(value: Column) -> Micros:
    """Dates as their midnight."""
    return midnights(value.values) if value.kind is Scalar.DATE else value.values


def start_of(value: Value) -> Micros:
    """The start of a reference: of an interval, of a date's day, or the instant itself."""
    return value.start if isinstance(value, Interval) else micros(_time(value))


def end_of(value: Value) -> Micros:
    """The first microsecond after a reference."""
    if isinstance(value, Interval):
        return value.end
    time = _time(value)
    return midnights(time.values.astype(np.int64) + 1) if time.kind is Scalar.DATE else time.values + 1


def distance_windows(n: NDArray[np.float64], r: Value, op: str, unit: str, direction: str) -> list[Window]:
    """The windows of `t` in `t occurs <op> n <unit> <direction> r`.

    Distances are measured from the midnight of a date; for an interval, from its start if before it and from its end if
    after it.
    """
    first = start_of(r)
    last = r.end if isinstance(r, Interval) else first
    if op in ("=", "!="):
        inside = _unit_windows(n, first, r.end - 1 if isinstance(r, Interval) else first, unit, direction)
        return inside if op == "=" else _outside(inside)
    strict = 1 if op in ("<", ">") else 0
    far = op in (">", ">=")
    windows = []
    below = shifted(first, -n, unit) if direction != "after" else first
    above = shifted(last, n, unit) if direction != "before" else last
    if direction == "from" and not far:
        return [(below + strict, above + (1 - strict))]
    if direction != "after":
        windows.append((_constant(BEGINNING), below + (1 - strict)) if far else (below + strict, first + 1))
    if direction != "before":
        windows.append((above + strict, _constant(END)) if far else (last, above + (1 - strict)))
    return windows


def reference_windows(op: str, r: Value, t_is_date: bool) -> list[Window]:
    """The windows of `t` that occurs before, after or on `r`."""
    if op == "occurs_before":
        start = start_of(r)
        return [(_constant(BEGINNING), start)]
    if op == "occurs_after":
        end = end_of(r)
        return [(end, _constant(END))]
    if t_is_date and not isinstance(r, Interval):
        days = days_of(start_of(r))
        return [(midnights(days), midnights(days + 1))]
    return [(start_of(r), end_of(r))]


def between_windows(a: Value, b: Value) -> list[Window]:
    return [(start_of(a), end_of(b))]


def inside(t: Column, windows: Iterable[Window]) -> Bools:
    """Whether times are in any of the windows."""
    at = micros(t)
    in_interval: Any = np.zeros(1, np.bool_)
    for lower, upper in windows:
        within = np.ones(1, np.bool_)
        if not (len(lower) == 1 and lower[0] <= BEGINNING):
            within = within & (at >= lower)
        if not (len(upper) == 1 and upper[0] >= END):
            within = within & (at < upper)
        in_interval = in_interval | within
    return np.broadcast_to(in_interval, np.broadcast_shapes(in_interval.shape, at.shape))


def occurs(call: Call, t: Value, n: Value, r: Value) -> Value:
    op, unit, direction = call.node.payload
    amount = _time(n)
    return _held(_time(t), distance_windows(doubles(amount.values), r, op, unit, direction), amount.valid, _valid(r))


def occurs_at(call: Call, t: Value, r: Value) -> Value:
    time = _time(t)
    return _held(time, reference_windows(call.node.op, r, time.kind is Scalar.DATE), _valid(r))


def occurs_between(call: Call, t: Value, a: Value, b: Value) -> Value:
    return _held(_time(t), between_windows(a, b), _valid(a), _valid(b))


def now(call: Call) -> Value:
    return Column(Scalar.TIMESTAMP, np.array([call.instant.micros], np.int64))


def day(call: Call) -> Value:
    return Column(Scalar.DATE, np.array([call.instant.day + call.node.payload[0]], np.int32))


def period(call: Call) -> Value:
    shift, unit = call.node.payload
    number = unit_number(np.array([call.instant.micros], np.int64), unit) + shift
    return Interval(unit_start(number, unit), unit_start(number + 1, unit))


def month_of(call: Call, t: Value) -> Value:
    return numbers(months_of(_days(t)) % 12 + 1, _valid(t))


def year_of(call: Call, t: Value) -> Value:
    return numbers(months_of(_days(t)) // 12, _valid(t))


def day_of_month_of(call: Call, t: Value) -> Value:
    return numbers(days_in_month(_days(t)), _valid(t))


def date(call: Call, y: Value, m: Value, d: Value) -> Value:
    """Null if there is no such day or a part is not a whole number."""
    parts = [Column(Scalar.NUMBER, doubles(_time(part).values), part.valid) for part in (y, m, d)]
    valid = np.ones(1, np.bool_)
    for part, low, high in zip(parts, (1, 1, 1), (9999, 12, 31), strict=True):
        sound = (part.values >= low) & (part.values <= high) & (part.values == np.trunc(part.values))
        valid = valid & sound if part.valid is None else valid & sound & part.valid
    year, month, dom = (np.where(valid, part.values, 1).astype(np.int64) for part in parts)
    months = year * 12 + month - 1
    days = first_days(months) + dom - 1
    return Column(Scalar.DATE, days.astype(np.int32), valid & (months_of(days) == months))


def _unit_windows(n: NDArray[np.float64], first: Micros, last: Micros, unit: str, direction: str) -> list[Window]:
    """The units `n` before that of `first` and `n` after that of `last`, in time order. 0 `from` them is all from the
    first unit to the last."""
    steps = np.clip(np.trunc(n), -(2.0**40), 2.0**40).astype(np.int64)
    if direction == "from":
        steps = np.abs(steps)
    windows = []
    if direction in ("before", "from"):
        number = unit_number(first, unit) - steps
        windows.append((unit_start(number, unit), unit_start(number + 1, unit)))
    if direction in ("after", "from"):
        number = unit_number(last, unit) + steps
        windows.append((unit_start(number, unit), unit_start(number + 1, unit)))
    if direction == "from":
        (lower, upper), other = windows
        windows[0] = (lower, np.where(steps == 0, np.maximum(upper, other[0]), upper))
    return windows


def _outside(windows: list[Window]) -> list[Window]:
    """The complement of ordered windows."""
    bounds = [_constant(BEGINNING)]
    for lower, upper in windows:
        bounds += [lower, upper]
    bounds.append(_constant(END))
    return [(bounds[at], bounds[at + 1]) for at in range(0, len(bounds), 2)]


def _held(t: Column, windows: list[Window], *valid: Bools | None) -> Value:
    result = inside(t, windows)
    for validity in (t.valid, *valid):
        result = result if validity is None else result & validity
    return condition(result)


def _constant(value: int) -> Micros:
    return np.full(1, value, np.int64)


def _days(value: Value) -> Values:
    time = _time(value)
    return time.values if time.kind is Scalar.DATE else days_of(time.values)


def _time(value: Value) -> Column:
    if not isinstance(value, Column):
        raise TypeError(f"a time or number was expected, not {type(value).__name__}")
    return value


def _valid(value: Value) -> Bools | None:
    return value.valid if isinstance(value, Column | Interval) else None


KERNELS: dict[str, RowKernel] = {
    "now": now,
    "day": day,
    "period": period,
    "occurs": occurs,
    "occurs_before": occurs_at,
    "occurs_after": occurs_at,
    "occurs_on": occurs_at,
    "occurs_between": occurs_between,
    "month_of": month_of,
    "year_of": year_of,
    "day_of_month_of": day_of_month_of,
    "date": date,
}
