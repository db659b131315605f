"""PQL by its rules, one person at a time, in plain Python: the judge of the engine, with which it shares no code.

It evaluates the trees of `tests.support.expressions` on plain values: text, floats, booleans, None, lists, dicts for
objects and maps, days since 1970 for dates and microseconds for times (the tree's types tell them apart).
"""

import hashlib
import re
from collections.abc import Callable
from fractions import Fraction
from math import fmod, isfinite
from typing import Any

from tests.support.expressions import PROFILE, E, leaf, step

SECOND = 1_000_000
DAY = 86_400 * SECOND
FIXED = {
    "millisecond": 1_000,
    "second": SECOND,
    "minute": 60 * SECOND,
    "hour": 3_600 * SECOND,
    "day": DAY,
    "week": 7 * DAY,
}
YEARS = {"year": 1, "decade": 10, "century": 100, "millennium": 1000}

# ------------------------------------------------------------ the calendar (Python's own ends at years 1 and 9999)


def day_number(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar."""
    year -= month <= 2
    era = year // 400
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    of_era = (year - era * 400) * 365 + (year - era * 400) // 4 - (year - era * 400) // 100 + of_year
    return era * 146_097 + of_era - 719_468


def civil(days: int) -> tuple[int, int, int]:
    """Year, month, day."""
    days += 719_468
    era = days // 146_097
    of_era = days - era * 146_097
    years = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    part = (5 * of_year + 2) // 153
    month = part + (3 if part < 10 else -9)
    return years + era * 400 + (month <= 2), month, of_year - (153 * part + 2) // 5 + 1


def month_days(year: int, month: int) -> int:
    following = (year + 1, 1) if month == 12 else (year, month + 1)
    return day_number(*following, 1) - day_number(year, month, 1)


def shift(at: int, count: int, unit: str) -> int:
    """An instant so many units later; months and longer clamp to the end of the month."""
    if unit in FIXED:
        return at + count * FIXED[unit]
    year, month, day = civil(at // DAY)
    months = year * 12 + month - 1 + count * (1 if unit == "month" else 12 * YEARS[unit])
    year, month = months // 12, months % 12 + 1
    return day_number(year, month, min(day, month_days(year, month))) * DAY + at % DAY


def unit_around(at: int, unit: str, offset: int) -> tuple[int, int]:
    """Beginning and end (exclusive) of the calendar unit `offset` units after the one that holds an instant."""
    if unit in FIXED:
        length = FIXED[unit]
        monday = 4 * DAY if unit == "week" else 0  # 1970-01-05 was a Monday
        number = (at - monday) // length + offset
        return number * length + monday, (number + 1) * length + monday
    year, month, _ = civil(at // DAY)
    if unit == "month":
        months = year * 12 + month - 1 + offset
        return _month_start(months), _month_start(months + 1)
    first = (year // YEARS[unit] + offset) * YEARS[unit]
    return day_number(first, 1, 1) * DAY, day_number(first + YEARS[unit], 1, 1) * DAY


def _month_start(months: int) -> int:
    return day_number(months // 12, months % 12 + 1, 1) * DAY


# ------------------------------------------------------------ evaluation

Env = Any
"""Frames from the innermost: (frame, rest). A frame is ("level", type, value) or ("variable", name, value)."""


class Oracle:
    """Judges people at one instant; `members` are the ids in each stored segment."""

    def __init__(self, now: int, members: dict[str, set[str]]) -> None:
        self.now = now
        self.members = members
        self.person: dict[str, Any] = {}

    def matches(self, tree: E, person: dict[str, Any]) -> bool:
        self.person = person
        env: Env = (("level", PROFILE, person), None)
        if tree.op == "query":
            env = (("variable", tree.data[0], person), env)
            tree = tree.args[0]
        return self.holds(tree, env)

    def holds(self, e: E, env: Env) -> bool:
        """A condition: null is false, an array holds when it is not empty."""
        value = self.value(e, env)
        if e.type[0] == "array":
            return bool(value)
        return value is True

    def value(self, e: E, env: Env) -> Any:
        return OPERATIONS[e.op](self, e, env)

    def elements(self, e: E, env: Env) -> list[Any]:
        """A missing array is empty for whatever goes over its elements."""
        return self.value(e, env) or []

    # -------------------------------------------------------- names and literals

    def literal(self, e: E, env: Env) -> Any:
        return settled(e.data[0]) if e.type == "number" else e.data[0]

    def name(self, e: E, env: Env) -> Any:
        name, up = e.data
        for _ in range(up):
            while env[0][0] != "level":
                env = env[1]
            env = env[1]
        while True:
            (kind, known, value), env = env
            if kind == "variable" and known == name:
                return value
            if kind == "level" and step(known, name) is not None:
                return path(value, known, name)

    def root(self, e: E, env: Env) -> Any:
        return self.person

    def field(self, e: E, env: Env) -> Any:
        return path(self.value(e.args[0], env), e.args[0].type, e.data[0])

    def array(self, e: E, env: Env) -> Any:
        return [as_type(self.value(arg, env), arg.type, e.type[1]) for arg in e.args]

    def word(self, e: E, env: Env) -> int:
        today = self.now // DAY
        return {"now": self.now, "today": today, "yesterday": today - 1, "tomorrow": today + 1}[e.data[0]]

    def label(self, e: E, env: Env) -> int:
        while env[0][0] != "labels":
            env = env[1]
        position: int = env[0][2][e.data[0]]
        return position

    # -------------------------------------------------------- logic and comparison

    def logic_and(self, e: E, env: Env) -> bool:
        return all(self.holds(arg, env) for arg in e.args)

    def logic_or(self, e: E, env: Env) -> bool:
        return any(self.holds(arg, env) for arg in e.args)

    def negation(self, e: E, env: Env) -> bool:
        return not self.holds(e.args[0], env)

    def comparison(self, e: E, env: Env) -> bool:
        left, right = e.args
        a, b = self.value(left, env), self.value(right, env)
        if a is None or b is None:
            return False
        if left.type[0] == "array" and right.type[0] == "array":
            return (plain_set(a, left) == plain_set(b, right)) == (e.op == "=")
        return any(
            COMPARISONS[e.op](x, y) for x in plain(a, left) for y in plain(b, right) if x is not None and y is not None
        )

    def membership(self, e: E, env: Env) -> bool:
        x, among = e.args
        return self.is_in(x, among, env, e.op == "in")

    def is_in(self, x: E, among: E, env: Env, wanted: bool) -> bool:
        value, array = self.value(x, env), self.value(among, env)
        if value is None or array is None:
            return False
        known = plain(array, among)
        return any((one in known) == wanted for one in plain(value, x) if one is not None)

    def like(self, e: E, env: Env) -> bool:
        subject, pattern = (self.value(arg, env) for arg in e.args)
        if subject is None or pattern is None:
            return False
        regex = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in pattern)
        return any(re.fullmatch(regex, one, re.DOTALL) is not None for one in several(subject) if one is not None)

    # -------------------------------------------------------- numbers and choice

    def arithmetic(self, e: E, env: Env) -> Any:
        a, b = (self.value(arg, env) for arg in e.args)
        return None if a is None or b is None or (e.op in "/%" and b == 0) else calculated(e.op, a, b)

    def negate(self, e: E, env: Env) -> Any:
        value = self.value(e.args[0], env)
        return None if value is None else -value

    def let(self, e: E, env: Env) -> Any:
        return self.value(e.args[1], (("variable", e.data[0], self.value(e.args[0], env)), env))

    # -------------------------------------------------------- binders

    def index(self, e: E, env: Env) -> list[Any]:
        array, condition = e.args
        level = array.type[1]
        return [x for x in self.elements(array, env) if self.holds(condition, (("level", level, x), env))]

    def select(self, e: E, env: Env) -> list[Any]:
        name = e.data[0][0]
        return [x for x in self.elements(e.args[0], env) if self.holds(e.args[1], (("variable", name, x), env))]

    def quantifier(self, e: E, env: Env) -> bool:
        """Every combination of elements is tried; `exists` needs one where all hold, `forall` all."""
        outcomes = self.combinations(e, 0, env)
        return any(outcomes) if e.op == "exists_from" else all(outcomes)

    def combinations(self, e: E, at: int, env: Env) -> Any:
        if at == len(e.data[0]):
            yield True
            return
        for x in self.elements(e.args[2 * at], env):
            inner = (("variable", e.data[0][at], x), env)
            here = self.holds(e.args[2 * at + 1], inner)
            for rest in self.combinations(e, at + 1, inner):
                yield here and rest

    def over(self, e: E, env: Env) -> Any:
        name, kind = e.data
        frames = [(("variable", name, x), env) for x in self.elements(e.args[0], env)]
        frames = [frame for frame in frames if self.holds(e.args[1], frame)]
        if kind == "count":
            return sum(variable[2] is not None for variable, _ in frames)
        return aggregate(kind, flat([self.value(e.args[2], frame) for frame in frames]))

    # -------------------------------------------------------- times

    def reference(self, e: E, env: Env) -> tuple[int, int] | None:
        """Where a reference begins, and the first instant after it."""
        if e.type == "interval":
            return unit_around(self.now, e.data[1], {"last": -1, "this": 0, "next": 1}[e.data[0]])
        value = self.value(e, env)
        if value is None:
            return None
        return (value * DAY, value * DAY + DAY) if e.type == "date" else (value, value + 1)

    def times(self, e: E, env: Env) -> list[int]:
        """The left side, as instants; in a WHEN it is the time of the step."""
        if e.op == "step":
            while env[0][0] != "step":
                env = env[1]
            value = env[0][2]
        else:
            value = self.value(e, env)
        return [] if value is None else [x for x in plain(value, e) if x is not None]

    def within(self, e: E, env: Env) -> bool:
        op, unit, direction = e.data
        count, span = self.value(e.args[1], env), self.reference(e.args[2], env)
        if count is None or span is None:
            return False
        n = int(count)
        before = span[0]
        after = span[1] if e.args[2].type == "interval" else span[0]
        return any(self.near(t, op, n, unit, direction, before, after, e) for t in self.times(e.args[0], env))

    def near(self, t: int, op: str, n: int, unit: str, direction: str, before: int, after: int, e: E) -> bool:
        if op in ("=", "!="):
            last = after - 1 if e.args[2].type == "interval" else after
            units = []
            if direction in ("before", "from"):
                units.append(unit_around(before, unit, -n))
            if direction in ("after", "from"):
                units.append(unit_around(last, unit, n))
            return any(start <= t < end for start, end in units) == (op == "=")
        edge_before, edge_after = shift(before, -n, unit), shift(after, n, unit)
        earlier = {
            "<": edge_before < t <= before,
            "<=": edge_before <= t <= before,
            ">": t < edge_before,
            ">=": t <= edge_before,
        }[op]
        later = {
            "<": after <= t < edge_after,
            "<=": after <= t <= edge_after,
            ">": t > edge_after,
            ">=": t >= edge_after,
        }[op]
        return (direction != "after" and earlier) or (direction != "before" and later)

    def at(self, e: E, env: Env) -> bool:
        time, other = e.args
        span = self.reference(other, env)
        if span is None:
            return False
        start, end = span
        if e.data[0] == "before":
            return any(t < start for t in self.times(time, env))
        if e.data[0] == "after":
            return any(t >= end for t in self.times(time, env))
        if leaf(time.type) == "date" and other.type == "time":
            start, end = start // DAY * DAY, start // DAY * DAY + DAY
        return any(start <= t < end for t in self.times(time, env))

    def between(self, e: E, env: Env) -> bool:
        a, b = self.reference(e.args[1], env), self.reference(e.args[2], env)
        return a is not None and b is not None and any(a[0] <= t < b[1] for t in self.times(e.args[0], env))

    # -------------------------------------------------------- sequences

    def chain(self, e: E, env: Env) -> bool:
        array, time = e.args[:2]
        level = array.type[1]
        events = []
        for x in self.elements(array, env):
            inner = (("level", level, x), env)
            events.append((self.value(time, inner), inner))
        count, needed = len(e.data[0]), e.data[1]
        whats = [[self.holds(e.args[2 + 2 * n], inner) for _, inner in events] for n in range(count)]

        def found(n: int, chosen: tuple[int | None, ...]) -> bool:
            if n == count:
                return True
            fitting: list[int | None] = []
            for which, (at, inner) in enumerate(events):
                instant = as_type(at, time.type, "time")
                if not whats[n][which] or (chosen and not later(chosen[-1], instant)):
                    continue
                when = e.args[3 + 2 * n]
                scope = (("labels", None, chosen), (("step", None, at), inner))
                if when.op == "none" or self.holds(when, scope):
                    fitting.append(instant)
            if count == 1:  # a time is needed only to be earlier or later than another one
                enough: bool = len(fitting) >= needed[n]
                return enough
            known = [one for one in fitting if one is not None]
            return any(
                sum(other <= last for other in known) >= needed[n] and found(n + 1, (*chosen, last)) for last in known
            )

        return found(0, ())

    # -------------------------------------------------------- functions

    def call(self, e: E, env: Env) -> Any:
        name, a = e.data[0], e.args
        if name == "if":
            return self.value(a[1] if self.holds(a[0], env) else a[2], env)
        if name == "inSegment":
            return self.person["_id"] in self.members[a[0].data[0]]
        if name == "sample":
            salt, percent = (self.value(arg, env) for arg in a)
            digest = hashlib.sha256(salt.encode() + bytes(1) + self.person["_id"].encode()).hexdigest()
            return int(digest[:16], 16) < int(percent * 2**64 / 100)
        if name == "date":
            parts = [self.value(arg, env) for arg in a]
            if any(part is None or part != int(part) for part in parts):
                return None
            year, month, day = map(int, parts)
            if not (1 <= year <= 9999 and 1 <= month <= 12 and 1 <= day <= month_days(year, month)):
                return None
            return day_number(year, month, day)
        if name == "stringCompare":
            return self.string_compare(a, env)
        return int(civil(self.now // DAY)[("currentYear", "currentMonth", "currentDayOfMonth").index(name)])

    def string_compare(self, a: tuple[E, ...], env: Env) -> bool:
        test, subject, texts = a[0].data[0], self.value(a[1], env), self.value(a[2], env)
        case = self.value(a[3], env) if len(a) > 3 else True
        if subject is None or texts is None:
            return False
        known = [one for one in texts if one is not None]
        combine = all if test.startswith(("does", "not")) else any
        return any(combine(text_test(test, x, one, case) for one in known) for x in several(subject) if x is not None)

    def method(self, e: E, env: Env) -> Any:
        return METHODS[e.data[0]](self, e, env)

    def text_method(self, e: E, env: Env) -> bool:
        subject, *others = (self.value(arg, env) for arg in e.args)
        flag = others.pop() if e.args[-1].type == "bool" else True
        known = [other for other in others if other is not None]
        if subject is None or (len(others) == 1 and not known):
            return False
        combine = all if e.data[0].startswith(("does", "not")) else any
        return any(
            combine(text_test(e.data[0], x, other, flag) for other in known) for x in several(subject) if x is not None
        )

    def matching(self, e: E, env: Env) -> bool:
        subject, pattern = (self.value(arg, env) for arg in e.args)
        regex = compiled(pattern)
        if subject is None or regex is None:
            return False
        return any(regex.search(x) is not None for x in several(subject) if x is not None)

    def regex_group(self, e: E, env: Env) -> Any:
        subject, pattern, group = (self.value(arg, env) for arg in e.args)
        regex = compiled(pattern)

        def read(x: str | None) -> str | None:
            if x is None or regex is None or group is None or group > regex.groups:
                return None
            match = regex.search(x)
            return match.group(int(group)) if match else None

        return mapped(subject, e.args[0].type, read)

    def part(self, e: E, env: Env) -> Any:
        """`getYear` and the like."""
        source = e.args[0]
        which = ("getYear", "getMonth", "getDayOfMonth").index(e.data[0])
        size = 1 if leaf(source.type) == "date" else DAY
        return mapped(self.value(source, env), source.type, lambda x: None if x is None else civil(x // size)[which])

    def includes(self, e: E, env: Env) -> bool:
        return self.is_in(e.args[1], e.args[0], env, True)

    def set_test(self, e: E, env: Env) -> bool:
        a, b = (self.value(arg, env) for arg in e.args)
        if a is None or b is None:
            return False
        left, right = plain_set(a, e.args[0]), plain_set(b, e.args[1])
        return {"intersects": bool(left & right), "subsetOf": left <= right, "supersetOf": left >= right}[e.data[0]]

    def intersection(self, e: E, env: Env) -> Any:
        a, b = (self.value(arg, env) for arg in e.args)
        return None if a is None or b is None else unique([x for x in a if x in b])

    def distinct(self, e: E, env: Env) -> Any:
        a = self.value(e.args[0], env)
        return None if a is None else unique(a)

    def head(self, e: E, env: Env) -> Any:
        a = self.elements(e.args[0], env)
        return a[0] if a else None

    def count(self, e: E, env: Env) -> int:
        return sum(x is not None for x in self.elements(e.args[0], env))

    def bodies(self, e: E, env: Env) -> list[Any]:
        """The argument for each element; the element itself without one."""
        array = e.args[0]
        found = self.elements(array, env)
        if len(e.args) == 1:
            return found
        level = array.type[1]
        return [self.value(e.args[1], (("level", level, x), env)) for x in found]

    def reduction(self, e: E, env: Env) -> Any:
        return aggregate(e.data[0], flat(self.bodies(e, env)))

    def map(self, e: E, env: Env) -> Any:
        return None if self.value(e.args[0], env) is None else flat(self.bodies(e, env))

    def exists(self, e: E, env: Env) -> bool:
        level = e.args[0].type[1]
        return any(self.holds(e.args[1], (("level", level, x), env)) for x in self.elements(e.args[0], env))

    def forall(self, e: E, env: Env) -> bool:
        level = e.args[0].type[1]
        return all(self.holds(e.args[1], (("level", level, x), env)) for x in self.elements(e.args[0], env))

    def ranked(self, e: E, env: Env) -> Any:
        array = self.value(e.args[0], env)
        if array is None:
            return None
        n = int(self.value(e.args[2], env))
        keyed = [(key, x) for key, x in zip(self.bodies(e, env), array, strict=True) if key is not None]
        order = sorted(keyed, key=lambda pair: pair[0], reverse=e.data[0] == "topN")
        return [x for _, x in order][: max(n, 0)]

    def group_by(self, e: E, env: Env) -> Any:
        array = self.value(e.args[0], env)
        if array is None:
            return None
        groups: dict[Any, list[Any]] = {}
        for key, x in zip(self.bodies(e, env), array, strict=True):
            groups.setdefault(key, []).append(x)
        return [{"key": key, "values": xs} for key, xs in groups.items()]

    def to_map(self, e: E, env: Env) -> Any:
        array, key, value = e.args
        source = self.value(array, env)
        if source is None:
            return None
        entries: dict[str, Any] = {}
        for x in source:
            inner = (("level", array.type[1], x), env)
            for name, bound in zip(e.data[0], (x,) if len(e.data[0]) == 1 else (x["key"], x["values"]), strict=True):
                inner = (("variable", name, bound), inner)
            entry = self.value(key, inner)
            if entry is not None and entry not in entries:
                entries[entry] = self.value(value, inner)
        return entries

    def get(self, e: E, env: Env) -> Any:
        entries, key = (self.value(arg, env) for arg in e.args)
        return None if entries is None or key is None else entries.get(key)

    def keys(self, e: E, env: Env) -> Any:
        return self.entries(e, env, list)

    def values(self, e: E, env: Env) -> Any:
        return self.entries(e, env, lambda entries: list(entries.values()))

    def entries(self, e: E, env: Env, read: Callable[[Any], Any]) -> Any:
        return mapped(self.value(e.args[0], env), e.args[0].type, lambda x: None if x is None else read(x))

    def is_null(self, e: E, env: Env) -> bool:
        return self.value(e.args[0], env) is None

    def is_not_null(self, e: E, env: Env) -> bool:
        return self.value(e.args[0], env) is not None


# ------------------------------------------------------------ numbers
#
# Whole numbers are `int`s, so that none is rounded; others are doubles that stand for the decimals they print as.

SCALES = (100, 10_000, 1_000_000)
_EXACT = 2**53


def settled(value: Any) -> Any:
    """A whole double is an `int`; what is past the range is null."""
    if isinstance(value, float):
        return None if not isfinite(value) else int(value) if value.is_integer() and abs(value) < _EXACT else value
    return value


def parts(value: float, scale: int) -> int | None:
    """The number in hundredths or the like, when it is written with so many places and has no more than 15 digits."""
    exact = Fraction(value if isinstance(value, int) else repr(value)) * scale
    return int(exact) if exact.denominator == 1 and abs(exact) < _EXACT else None


def quotient(a: int, b: int) -> Any:
    """Whole where `b` divides `a`, else the double next to it."""
    try:
        return settled(float(Fraction(a, b))) if a % b else a // b
    except OverflowError:
        return None


def calculated(op: str, a: Any, b: Any) -> Any:
    if isinstance(a, int) and isinstance(b, int) and op != "/":
        return {"+": a + b, "-": a - b, "*": a * b, "%": a and abs(a) % abs(b or 1) * (1 if a > 0 else -1)}[op]
    if isinstance(a, int) and isinstance(b, int):
        return quotient(a, b or 1)
    pairs = [(scale, scale) for scale in SCALES]
    if op == "*":
        pairs = [(one, other) for one in (1, *SCALES) for other in (1, *SCALES) if one * other > 1]
    for scale, other in pairs:
        x, y = parts(a, scale), parts(b, other)
        if x is None or y is None:
            continue
        if op == "/":
            return settled(float(Fraction(x, y)))
        result = {"+": x + y, "-": x - y, "*": x * y, "%": int(fmod(x, y or 1))}[op]
        if abs(result) < _EXACT:
            return settled(float(Fraction(result, scale * other if op == "*" else scale)))
    try:
        p, q = float(a), float(b)
        return settled({"+": p + q, "-": p - q, "*": p * q, "/": p / (q or 1), "%": fmod(p, q or 1)}[op])
    except OverflowError:
        return None


def added(values: list[Any], divisor: int) -> Any:
    """The sum, divided."""
    if all(isinstance(value, int) for value in values):
        total = sum(values)
        return total if divisor == 1 else quotient(total, divisor)
    for scale in SCALES:
        known = [parts(value, scale) for value in values]
        if None not in known:
            return settled(float(Fraction(sum(part for part in known if part is not None), scale * divisor)))
    plain = 0.0
    for value in values:
        plain += value
    return settled(plain / divisor)


# ------------------------------------------------------------ values


def later(first: int | None, second: int | None) -> bool:
    """A comparison with null is false: what has no time can only be the single event of a chain."""
    return first is not None and second is not None and first < second


def path(value: Any, type_: Any, name: str) -> Any:
    """A field of an object; through arrays a flat array of what is not null."""
    if value is None:
        return None
    if type_[0] == "array":
        return flat([path(one, type_[1], name) for one in value])
    return value.get(name)


def flat(values: list[Any]) -> list[Any]:
    """Nested arrays in one, without nulls."""
    found: list[Any] = []
    for value in values:
        if isinstance(value, list):
            found += flat(value)
        elif value is not None:
            found.append(value)
    return found


def mapped(value: Any, type_: Any, read: Callable[[Any], Any]) -> Any:
    if type_[0] != "array":
        return read(value)
    return None if value is None else flat([mapped(one, type_[1], read) for one in value])


def several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def as_type(value: Any, type_: Any, wanted: Any) -> Any:
    return value * DAY if value is not None and type_ == "date" and wanted == "time" else value


def plain(value: Any, e: E) -> list[Any]:
    """The scalars of a value, dates as their midnight."""
    kind = leaf(e.type)
    return [as_type(one, kind, "time") for one in several(value)]


def plain_set(value: Any, e: E) -> set[Any]:
    return {one for one in plain(value, e) if one is not None}


def unique(values: list[Any]) -> list[Any]:
    return list(dict.fromkeys(value for value in values if value is not None))


def aggregate(kind: str, values: list[Any]) -> Any:
    if kind == "sum":
        return added(values, 1)
    if not values:
        return None
    if kind == "average":
        return added(values, len(values))
    return min(values) if kind == "min" else max(values)


def text_test(name: str, x: str, other: str, case: bool) -> bool:
    if not case:
        x, other = x.lower(), other.lower()
    return {
        "equals": lambda: x == other,
        "notEqualTo": lambda: x != other,
        "startsWith": lambda: x.startswith(other),
        "doesNotStartWith": lambda: not x.startswith(other),
        "endsWith": lambda: x.endswith(other),
        "doesNotEndWith": lambda: not x.endswith(other),
        "contains": lambda: other in x,
        "doesNotContain": lambda: other not in x,
    }[name]()


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        return re.compile(pattern)
    except re.error:
        return None


COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}

OPERATIONS: dict[str, Callable[[Oracle, E, Env], Any]] = {
    "literal": Oracle.literal,
    "name": Oracle.name,
    "root": Oracle.root,
    "field": Oracle.field,
    "array": Oracle.array,
    "word": Oracle.word,
    "label": Oracle.label,
    "and": Oracle.logic_and,
    "or": Oracle.logic_or,
    "not": Oracle.negation,
    **dict.fromkeys(COMPARISONS, Oracle.comparison),
    **dict.fromkeys(("in", "notIn"), Oracle.membership),
    "like": Oracle.like,
    **dict.fromkeys("+-*/%", Oracle.arithmetic),
    "negate": Oracle.negate,
    "let": Oracle.let,
    "index": Oracle.index,
    "select": Oracle.select,
    "exists_from": Oracle.quantifier,
    "forall_from": Oracle.quantifier,
    "over": Oracle.over,
    "within": Oracle.within,
    "at": Oracle.at,
    "between": Oracle.between,
    "to_map": Oracle.to_map,
    "chain": Oracle.chain,
    "call": Oracle.call,
    "method": Oracle.method,
}

METHODS: dict[str, Callable[[Oracle, E, Env], Any]] = {
    **dict.fromkeys(
        ("equals", "notEqualTo", "startsWith", "doesNotStartWith", "endsWith", "doesNotEndWith"), Oracle.text_method
    ),
    **dict.fromkeys(("contains", "doesNotContain"), Oracle.text_method),
    "matches": Oracle.matching,
    "regexGroup": Oracle.regex_group,
    **dict.fromkeys(("getYear", "getMonth", "getDayOfMonth"), Oracle.part),
    "includes": Oracle.includes,
    **dict.fromkeys(("intersects", "subsetOf", "supersetOf"), Oracle.set_test),
    "intersection": Oracle.intersection,
    "distinct": Oracle.distinct,
    "head": Oracle.head,
    "count": Oracle.count,
    **dict.fromkeys(("sum", "average", "min", "max"), Oracle.reduction),
    "filter": Oracle.index,
    "map": Oracle.map,
    "groupBy": Oracle.group_by,
    "exists": Oracle.exists,
    "forall": Oracle.forall,
    **dict.fromkeys(("topN", "bottomN"), Oracle.ranked),
    "get": Oracle.get,
    "keys": Oracle.keys,
    "values": Oracle.values,
    "isNull": Oracle.is_null,
    "isNotNull": Oracle.is_not_null,
}
