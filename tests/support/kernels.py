"""Every operation of the engine: what it takes and gives, its definition in a line of Python, and cases by hand.

A new function needs its row here: `test_kernels` fails without it. Definitions take plain values (None is null) and
share nothing with the engine.
"""

# ruff: noqa: E501 (tables)

import hashlib
import itertools
import math
import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import Any

from app.pql.core import Builder, Node
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type
from tests.support.values import NOW, bound_element

N, S, B, D, T = Scalar.NUMBER, Scalar.STRING, Scalar.BOOLEAN, Scalar.DATE, Scalar.TIMESTAMP
NS, SS, TS = ArrayType(N), ArrayType(S), ArrayType(T)
PAIR = ObjectType({"k": S, "v": N})
PAIRS = ArrayType(PAIR)
EVENT = ObjectType({"t": T, "kind": S})
EVENTS = ArrayType(EVENT)
GROUPS = ArrayType(ObjectType({"key": S, "values": PAIRS}))

Make = Callable[[Builder, list[Node]], Node]


@dataclass(frozen=True, slots=True)
class Kernel:
    """`cases` are rows of operands with the result at the end. `make` builds the node, where that is not just the
    operation on its operands."""

    op: str
    takes: tuple[Type, ...]
    gives: Type
    definition: Callable[..., Any]
    cases: Sequence[tuple[Any, ...]]
    payload: tuple[Any, ...] = ()
    make: Make | None = None

    def node(self, builder: Builder, operands: list[Node]) -> Node:
        if self.make is not None:
            return self.make(builder, operands)
        return builder.node(self.op, self.gives, *operands, payload=self.payload)

    def __str__(self) -> str:
        parts = (self.op, *map(str, self.takes), *map(str, self.payload))
        return "-".join(parts).replace(" ", "")


def known(test: Callable[..., Any]) -> Callable[..., Any]:
    """False where anything is null."""
    return lambda *row: None not in row and bool(test(*row))


def strict(function: Callable[..., Any]) -> Callable[..., Any]:
    """Null where anything is null, and where the result is no number."""

    def applied(*row: Any) -> Any:
        try:
            found = None if None in row else function(*row)
        except (ZeroDivisionError, ValueError, OverflowError):
            return None
        return None if isinstance(found, float) and not math.isfinite(found) else found

    return applied


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def day(text: str) -> date:
    return date.fromisoformat(text)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def instant(value: date) -> datetime:
    """Dates as their midnight."""
    return value if isinstance(value, datetime) else datetime(value.year, value.month, value.day, tzinfo=UTC)


# ---------------------------------------------------------------- comparisons, logic, numbers

NUMBERS = [(1.0, 1.0), (1.0, 2.5), (2.5, 1.0), (None, 1.0), (1.0, None), (None, None), (0.0, -0.0), (1e308, -1e308)]
TEXTS = [("a", "a"), ("a", "b"), ("b", "a"), (None, "a"), ("a", None), (None, None), ("", "A"), ("Z", "a"), ("é", "z")]
DATES = [(day("2024-02-29"), day("2024-02-29")), (day("1969-12-31"), day("1970-01-01")), (None, day("2024-01-01"))]
TIMES = [
    (at("2026-06-15T12:00"), at("2026-06-15T12:00")),
    (at("1969-12-31T23:59:59.999999"), at("1970-01-01")),
    (NOW, None),
]
MIXED = [(day("2026-06-15"), at("2026-06-15")), (day("2026-06-15"), at("2026-06-15T00:00:00.000001")), (None, NOW)]
FLAGS = [(True, True), (True, False), (False, False), (None, False), (None, None)]

COMPARED: dict[str, tuple[Callable[[Any, Any], Any], str, str, str, str, str]] = {
    # op: definition, then results for NUMBERS, TEXTS, DATES, TIMES, MIXED
    "eq": (lambda a, b: a == b, "TFFFFFTF", "TFFFFFFFF", "TFF", "TFF", "TFF"),
    "ne": (lambda a, b: a != b, "FTTFFFFT", "FTTFFFTTT", "FTF", "FTF", "FTF"),
    "lt": (lambda a, b: a < b, "FTFFFFFF", "FTFFFFTTF", "FTF", "FTF", "FTF"),
    "le": (lambda a, b: a <= b, "TTFFFFTF", "TTFFFFTTF", "TTF", "TTF", "TTF"),
    "gt": (lambda a, b: a > b, "FFTFFFFT", "FFTFFFFFT", "FFF", "FFF", "FFF"),
    "ge": (lambda a, b: a >= b, "TFTFFFTT", "TFTFFFFFT", "TFF", "TFF", "TFF"),
}


def with_flags(rows: Sequence[tuple[Any, ...]], results: str) -> list[tuple[Any, ...]]:
    return [(*row, result == "T") for row, result in zip(rows, results, strict=True)]


def _leaf(op: str, type_: Type, payload: tuple[Any, ...], builder: Builder, _operands: Any) -> Node:
    return builder.node(op, type_, payload=payload)


def _compared(op: str) -> list[Kernel]:
    test, results = COMPARED[op][0], COMPARED[op][1:]
    cases: tuple[Sequence[tuple[Any, ...]], ...] = (NUMBERS, TEXTS, DATES, TIMES, MIXED)
    tables = zip(((N, N), (S, S), (D, D), (T, T), (D, T)), cases, results, strict=True)
    definition = known(lambda a, b: test(*map(instant, (a, b))) if isinstance(a, date) else test(a, b))
    made = [Kernel(op, types, B, definition, with_flags(rows, expected)) for types, rows, expected in tables]
    if op in ("eq", "ne"):
        made.append(Kernel(op, (B, B), B, definition, with_flags(FLAGS, {"eq": "TFTFF", "ne": "FTFFF"}[op])))
    return made


def _parent_field(builder: Builder, operands: list[Node]) -> Node:
    return operands[0]


LOGIC = [
    *itertools.chain.from_iterable(map(_compared, COMPARED)),
    Kernel("field", (S,), S, lambda a: a, [("a",), ("",), (None,)], make=_parent_field),
    Kernel("truth", (B,), B, known(bool), [(True, True), (False, False), (None, False)]),
    Kernel("and", (B, B, B), B, lambda *row: all(row), [(True, True, True, True), (True, None, True, False)]),
    Kernel("or", (B, B, B), B, lambda *row: any(row), [(False, None, True, True), (False, None, False, False)]),
    Kernel("not", (B,), B, lambda a: not a, [(True, False), (False, True), (None, True)]),
    *(
        Kernel(op, (type_,), B, lambda a, wanted=wanted: (a is None) is wanted, [(v, not wanted), (None, wanted)])
        for op, wanted in (("is_null", True), ("is_not_null", False))
        for type_, v in ((N, 0.0), (S, ""), (D, day("1970-01-01")), (T, NOW), (B, False), (NS, []), (MapType(N), {}))
    ),
    Kernel("is_null", (PAIR,), B, lambda a: a is None, [({"k": None, "v": None}, False), (None, True)]),
    *(
        Kernel("if", (B, type_, type_), type_, lambda test, a, b: a if test else b, cases)
        for type_, cases in (
            (N, [(True, 1.0, 2.0, 1.0), (False, 1.0, None, None), (None, 1.0, 2.0, 2.0), (True, None, 2.0, None)]),
            (S, [(True, "a", "b", "a"), (False, "a", "b", "b"), (None, "a", None, None)]),
            (T, [(True, NOW, None, NOW), (False, NOW, None, None)]),
            (NS, [(True, [1.0], [], [1.0]), (False, [1.0], [], []), (None, [1.0], None, None)]),
            (PAIR, [(True, {"k": "a", "v": 1.0}, None, {"k": "a", "v": 1.0}), (False, {"k": "a", "v": 1.0}, None, None)]),
        )
    ),
    *(
        Kernel(op, (N, N), N, strict(function), cases)
        for op, function, cases in (
            ("add", lambda a, b: a + b, [(1.0, 2.5, 3.5), (1e308, 1e308, None), (None, 1.0, None)]),
            ("subtract", lambda a, b: a - b, [(1.0, 2.5, -1.5), (-1e308, 1e308, None), (1.0, None, None)]),
            ("multiply", lambda a, b: a * b, [(3.0, 2.5, 7.5), (1e200, 1e200, None), (None, None, None)]),
            ("divide", lambda a, b: a / b, [(1.0, 4.0, 0.25), (1.0, 0.0, None), (0.0, 0.0, None), (1e308, 1e-10, None)]),
            ("remainder", math.fmod, [(7.0, 3.0, 1.0), (-7.0, 3.0, -1.0), (7.5, -2.0, 1.5), (1.0, 0.0, None)]),
        )
    ),
    Kernel("negate", (N,), N, strict(lambda a: -a), [(1.0, -1.0), (0.0, 0.0), (None, None)]),
]  # fmt: skip


def _const(value: Any, type_: Type) -> Kernel:
    def make(builder: Builder, operands: list[Node]) -> Node:
        return builder.constant(value, type_)

    return Kernel("const", (N,), type_, lambda a: value, [(1.0, value), (None, value)], (value,), make)


CONSTANTS = [
    _const(value, type_)
    for value, type_ in ((1.5, N), ("é", S), (True, B), (day("2024-02-29"), D), (NOW, T), (None, S))
]

# ---------------------------------------------------------------- text

TEXT_ROWS = [
    ("Nevada", "Nev", True), ("nevada", "Nev", False), ("nevada", "Nev", True), ("Nevada", "ada", True),
    ("Nevada", "Nevada", True), ("NEVADA", "nevada", False), (None, "Nev", True), ("Nevada", None, True), ("", "", True),
    ("a.c", "a_c", True), ("abc", "a%", True), ("Ärger", "ärger", False), ("a\nb", "a_b", True), ("abc", "b", None),
]  # fmt: skip
TEXT_TESTS: dict[str, tuple[Callable[[str, str], Any], str]] = {
    # op: definition, results for TEXT_ROWS
    "equals": (lambda a, b: a == b, "FFFFTTFFTFFTFF"),
    "starts_with": (lambda a, b: a.startswith(b), "TTFFTTFFTFFTFF"),
    "ends_with": (lambda a, b: a.endswith(b), "FFFTTTFFTFFTFF"),
    "contains": (lambda a, b: b in a, "TTFTTTFFTFFTFF"),
    "like": (lambda a, b: re.fullmatch(_like(b), a, re.DOTALL), "FFFFTTFFTTTTTF"),
}


def _like(pattern: str) -> str:
    return "".join({"%": ".*", "_": "."}.get(mark, re.escape(mark)) for mark in pattern)


def _cased(test: Callable[[str, str], Any], text: str, other: str, case: bool) -> bool:
    return bool(test(text, other) if case else test(text.lower(), other.lower()))


def _text_tests(op: str) -> list[Kernel]:
    test, results = TEXT_TESTS[op]
    opposite = [(*row, None not in row and result == "F") for row, result in zip(TEXT_ROWS, results, strict=True)]
    among: list[tuple[Any, ...]] = [
        ("Nevada", ["x", "Nevada"], True),
        ("nevada", ["NEVADA"], False),
        ("Nevada", [None, "q"], True),
    ]
    among += [("Nevada", [], True), ("Nevada", None, True), (None, ["x"], True), ("Nevada", ["q"], None)]
    return [
        Kernel(op, (S, S, B), B, known(partial(_cased, test)), with_flags(TEXT_ROWS, results)),
        Kernel(f"not_{op}", (S, S, B), B, known(lambda a, b, c: not _cased(test, a, b, c)), opposite),
        *(() if op == "like" else (
            Kernel("compare", (S, SS, B), B, known(lambda a, b, c: any(_cased(test, a, x, c) for x in b if x is not None)),
                   with_flags(among, "TTFFFFF"), (op,)),
            Kernel("compare", (S, SS, B), B, known(lambda a, b, c: not any(_cased(test, a, x, c) for x in b if x is not None)),
                   with_flags(among, "FFTTFFF"), (f"not_{op}",)),
        )),
    ]  # fmt: skip


def _group(text: str, regex: str, number: float) -> str | None:
    found = re.search(regex, text)
    return found[int(number)] if found and number == int(number) and 0 <= number <= (found.re.groups) else None


def _in_half(profile: str) -> bool:
    return int(hashlib.sha256(b"spring\0" + profile.encode()).hexdigest()[:16], 16) < 2**63


REGEXES = ("^p([0-9])", "(?i)A(b)?", "x|y", "", "(")
TEXT = [
    *itertools.chain.from_iterable(map(_text_tests, TEXT_TESTS)),
    Kernel("matches", (S, S), B, known(lambda a, r: r != "(" and re.search(r, a)),
           [("p1@x", "^p([0-9])", True), ("ap1", "^p([0-9])", False), ("cAb", "(?i)aB", True), ("a", "(", False),
            ("", "", True), (None, "a", False), ("a", None, False)]),
    Kernel("sample", (S,), B, known(_in_half),
           [("crm:0", True), ("crm:1", False), ("crm:2", True), ("crm:3", False), (None, False)], ("spring", 50.0)),
    Kernel("regex_group", (S, S, N), S, lambda a, r, n: None if None in (a, r, n) or r == "(" else _group(a, r, n),
           [("p1@x", "^p([0-9])", 1.0, "1"), ("p1@x", "^p([0-9])", 0.0, "p1"), ("q", "^p([0-9])", 1.0, None),
            ("ac", "(?i)A(b)?", 1.0, None), ("ab", "(?i)A(b)?", 1.0, "b"), ("p1", "^p([0-9])", 2.0, None),
            ("p1", "^p([0-9])", 0.5, None), ("p", "(", 0.0, None), (None, "a", 0.0, None), ("a", None, 0.0, None)]),
]  # fmt: skip

# ---------------------------------------------------------------- times

DAY = timedelta(days=1)


def moved(value: datetime, months: int) -> datetime:
    """Months later or earlier, on the same day or the month's last."""
    year, month = divmod(value.year * 12 + value.month - 1 + months, 12)
    return value.replace(year=year, month=month + 1, day=min(value.day, monthrange(year, month + 1)[1]))


def _occurs(op: str, unit: str, direction: str, definition: Callable[..., Any], *cases: tuple[Any, ...]) -> Kernel:
    return Kernel("occurs", (T, N, T), B, known(definition), cases, (op, unit, direction))


def _numbered(op: str, get: Callable[[date], int]) -> list[Kernel]:
    definition = strict(lambda t: float(get(t)))
    return [
        Kernel(op, (D,), N, definition, [(d, float(get(d))) for d in (day("2024-02-29"), day("1969-12-31"))] + [(None, None)]),
        Kernel(op, (T,), N, definition, [(t, float(get(t))) for t in (NOW, at("1969-12-31T23:59:59"))] + [(None, None)]),
    ]  # fmt: skip


JUNE, LEAP = at("2026-06-15T12:00"), at("2028-02-29T12:00")
TIMES_OF = [
    _occurs("<=", "day", "before", lambda t, n, r: t <= r and r - t <= n * DAY,
            (at("2026-06-12T12:00"), 3.0, JUNE, True), (at("2026-06-12T11:59"), 3.0, JUNE, False), (JUNE, 3.0, JUNE, True),
            (at("2026-06-15T12:01"), 3.0, JUNE, False), (None, 3.0, JUNE, False), (JUNE, None, JUNE, False), (JUNE, 3.0, None, False)),
    _occurs("<", "day", "before", lambda t, n, r: t <= r and r - t < n * DAY,
            (at("2026-06-12T12:00"), 3.0, JUNE, False), (at("2026-06-12T12:00:00.000001"), 3.0, JUNE, True)),
    _occurs(">", "hour", "before", lambda t, n, r: r - t > n * DAY / 24,
            (at("2026-06-15T11:00"), 1.0, JUNE, False), (at("2026-06-15T10:59"), 1.0, JUNE, True)),
    _occurs("<=", "minute", "after", lambda t, n, r: t >= r and t - r <= n * timedelta(minutes=1),
            (at("2026-06-15T12:05"), 5.0, JUNE, True), (at("2026-06-15T12:06"), 5.0, JUNE, False), (at("2026-06-15T11:59"), 5.0, JUNE, False)),
    _occurs(">=", "day", "after", lambda t, n, r: t - r >= n * DAY,
            (at("2026-06-16T12:00"), 1.0, JUNE, True), (JUNE, 1.0, JUNE, False)),
    _occurs("<=", "day", "from", lambda t, n, r: abs(t - r) <= n * DAY,
            (at("2026-06-14T12:00"), 1.0, JUNE, True), (at("2026-06-16T12:00"), 1.0, JUNE, True), (at("2026-06-17T12:00"), 1.0, JUNE, False)),
    _occurs(">=", "month", "before", lambda t, n, r: t <= moved(r, -int(n)),
            (at("2028-01-29T12:00"), 1.0, LEAP, True), (at("2028-01-29T12:01"), 1.0, LEAP, False),
            (at("2026-02-28T12:00"), 1.0, at("2026-03-31T12:00"), True), (at("2026-03-01T12:00"), 1.0, at("2026-03-31T12:00"), False)),
    _occurs("=", "day", "before", lambda t, n, r: t.date() == r.date() - int(n) * DAY,
            (at("2026-06-14T00:00"), 1.0, JUNE, True), (at("2026-06-14T23:59:59"), 1.0, JUNE, True), (JUNE, 1.0, JUNE, False), (JUNE, 0.0, JUNE, True)),
    _occurs("!=", "month", "after", lambda t, n, r: (t.year * 12 + t.month) != r.year * 12 + r.month + int(n),
            (at("2026-07-01T00:00"), 1.0, JUNE, False), (at("2026-06-30T00:00"), 1.0, JUNE, True), (None, 1.0, JUNE, False)),
    *(
        Kernel(op, (T, of), B, known(test), cases)
        for op, of, test, cases in (
            ("occurs_before", T, lambda t, r: t < r, [(at("2026-06-15T11:59"), JUNE, True), (JUNE, JUNE, False), (None, JUNE, False)]),
            ("occurs_before", D, lambda t, r: t < instant(r), [(at("2026-06-14T23:59"), day("2026-06-15"), True), (at("2026-06-15"), day("2026-06-15"), False)]),
            ("occurs_after", T, lambda t, r: t > r, [(at("2026-06-15T12:01"), JUNE, True), (JUNE, JUNE, False), (JUNE, None, False)]),
            ("occurs_after", D, lambda t, r: t >= instant(r) + DAY, [(at("2026-06-15T23:59"), day("2026-06-15"), False), (at("2026-06-16"), day("2026-06-15"), True)]),
            ("occurs_on", T, lambda t, r: t == r, [(JUNE, JUNE, True), (JUNE, at("2026-06-15T12:00:01"), False), (None, None, False)]),
            ("occurs_on", D, lambda t, r: t.date() == r, [(at("2026-06-15T23:59"), day("2026-06-15"), True), (at("2026-06-16"), day("2026-06-15"), False)]),
        )
    ),
    Kernel("occurs_between", (T, T, D), B, known(lambda t, a, b: a <= t < instant(b) + DAY),
           [(at("2026-06-16T23:59"), JUNE, day("2026-06-16"), True), (at("2026-06-17"), JUNE, day("2026-06-16"), False),
            (JUNE, JUNE, day("2026-06-15"), True), (at("2026-06-15"), JUNE, day("2026-06-16"), False), (JUNE, None, day("2026-06-16"), False)]),
    *_numbered("month_of", lambda t: t.month), *_numbered("year_of", lambda t: t.year),
    *_numbered("day_of_month_of", lambda t: t.day),
    Kernel("date", (N, N, N), D, strict(lambda y, m, d: date(int(y), int(m), int(d)) if all(x == int(x) for x in (y, m, d)) else None),
           [(2024.0, 2.0, 29.0, day("2024-02-29")), (2023.0, 2.0, 29.0, None), (2024.0, 13.0, 1.0, None), (2024.0, 1.5, 1.0, None),
            (0.0, 1.0, 1.0, None), (None, 1.0, 1.0, None), (9999.0, 12.0, 31.0, day("9999-12-31"))]),
    Kernel("now", (N,), T, lambda a: NOW, [(1.0, NOW)], make=lambda b, o: b.node("now", T)),
    *(
        Kernel("day", (N,), D, lambda a, n=n: NOW.date() + n * DAY, [(1.0, NOW.date() + n * DAY)], (n,),
               partial(_leaf, "day", D, (n,)))
        for n in (-1, 0, 1)
    ),
    *(
        Kernel("period", (N,), Scalar.INTERVAL, lambda a, ends=ends: ends, [(1.0, ends)], (shift, unit),
               partial(_leaf, "period", Scalar.INTERVAL, (shift, unit)))
        for shift, unit, ends in (
            (0, "month", (at("2026-06-01"), at("2026-07-01"))), (-1, "week", (at("2026-06-08"), at("2026-06-15"))),
            (1, "day", (at("2026-06-16"), at("2026-06-17"))), (0, "decade", (at("2020-01-01"), at("2030-01-01"))),
        )
    ),
]  # fmt: skip

# ---------------------------------------------------------------- arrays


def some(array: list[Any] | None) -> list[Any]:
    """Elements that are not null; a missing array has none."""
    return [item for item in array or [] if item is not None]


def over(op: str, gives: Type, array: Type, definition: Any, cases: Any, body: Any, extra: Any = lambda b, o: [], payload: Any = (),
         takes: tuple[Type, ...] = ()) -> Kernel:  # fmt: skip
    """An operation that binds level 1; `body` is about its element."""
    element = array.element if isinstance(array, ArrayType) else N

    def make(builder: Builder, operands: list[Node]) -> Node:
        item = bound_element(builder, 1, element)
        whole = [operands[0], *body(builder, item, operands), *extra(builder, operands)]
        return builder.node(op, gives, *whole, payload=(1, *payload))

    return Kernel(op, (array, *takes), gives, definition, cases, payload, make)


def _is_more(builder: Builder, item: Node, operands: list[Node]) -> list[Node]:
    return [builder.condition("gt", item, operands[1])]


def _itself(builder: Builder, item: Node, operands: list[Node]) -> list[Node]:
    return [item]


def _of(name: str, type_: Type) -> Callable[..., list[Node]]:
    return lambda builder, item, operands: [builder.node("field", type_, item, payload=(name,))]


def _grouped(pairs: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    return None if pairs is None else [
        {"key": key, "values": [pair for pair in pairs if pair["k"] == key]} for key in dict.fromkeys(pair["k"] for pair in pairs)
    ]  # fmt: skip


def _mapped(pairs: list[dict[str, Any]] | None) -> dict[str, Any] | None:
    """The first value of each key."""
    return None if pairs is None else {pair["k"]: pair["v"] for pair in reversed(pairs) if pair["k"] is not None}


def _chained(events: list[dict[str, Any]] | None) -> bool:
    return any(
        a["kind"] == "a" and b["kind"] == "b" and c["kind"] == "c" and a["t"] < b["t"] < c["t"] <= a["t"] + 2 * DAY
        for a, b, c in itertools.permutations([e for e in events or [] if None not in e.values()], 3)
    )


def _chain_of(builder: Builder, item: Node, operands: list[Node]) -> list[Node]:
    """a, then b, then c within two days of a."""
    kind, time = (builder.node("field", type_, item, payload=(name,)) for name, type_ in (("kind", S), ("t", T)))
    whats = [builder.condition("eq", kind, builder.constant(name, S)) for name in "abc"]
    always, label = builder.constant(True, B), builder.node("label", T, payload=(0,))
    when = builder.condition("occurs", time, builder.constant(2.0, N), label, payload=("<=", "day", "after"))
    return [time, *whats, always, always, when]


def pair(k: str | None, v: float | None) -> dict[str, Any]:
    return {"k": k, "v": v}


def happened(*events: tuple[str | None, str]) -> list[dict[str, Any]]:
    return [{"t": at(f"2026-06-{time}"), "kind": kind} for kind, time in events]


A1, B2, A3, N4 = pair("a", 1.0), pair("b", 2.0), pair("a", 3.0), pair(None, 4.0)
NUMBER_SETS = [
    ([], None), (None, None), ([5.0], None), ([3.0, 1.0, 2.5, 1.0], None),
]  # fmt: skip
BINDERS = [
    over("exists", B, NS, lambda a, n: any(n is not None and x > n for x in some(a)),
         [([1.0, 3.0], 2.0, True), ([1.0], 2.0, False), ([], 2.0, False), (None, 2.0, False), ([3.0], None, False), ([None, 3.0], 2.0, True)],
         _is_more, takes=(N,)),
    over("forall", B, NS, lambda a, n: all(n is not None and x is not None and x > n for x in a or []),
         [([3.0, 4.0], 2.0, True), ([1.0, 3.0], 2.0, False), ([], 2.0, True), (None, 2.0, True), ([3.0], None, False), ([], None, True)],
         _is_more, takes=(N,)),
    over("filter", NS, NS, lambda a, n: [x for x in some(a) if n is not None and x > n],
         [([3.0, 1.0, 4.0], 2.0, [3.0, 4.0]), ([], 2.0, []), (None, 2.0, []), ([3.0], None, [])], _is_more, takes=(N,)),
    over("map", NS, PAIRS, lambda a: None if a is None else [x["v"] for x in a if x["v"] is not None],
         [([A1, A3], [1.0, 3.0]), ([pair("a", None)], []), ([], []), (None, None)], _of("v", N)),
    over("sum", N, NS, lambda a: finite(float(sum(some(a)))),
         [([1.0, 2.5], 3.5), ([5.0], 5.0), ([], 0.0), (None, 0.0), ([None], 0.0)], _itself),
    over("average", N, NS, lambda a: finite(sum(some(a)) / len(some(a))) if some(a) else None,
         [([1.0, 2.0], 1.5), ([5.0], 5.0), ([], None), (None, None), ([None, 3.0], 3.0)], _itself),
    *(
        over(op, array.element, array, lambda a, best=best: best(some(a), default=None), cases, _itself)
        for op, best, array, cases in (
            ("min", min, NS, [([2.0, 1.0], 1.0), ([5.0], 5.0), ([], None), (None, None), ([None, 3.0], 3.0)]),
            ("max", max, NS, [([2.0, 1.0], 2.0), ([5.0], 5.0), ([], None), (None, None), ([-1.0, None], -1.0)]),
            ("min", min, SS, [(["b", "a"], "a"), (["é", "z"], "z"), ([], None), (None, None)]),
            ("max", max, SS, [(["b", "a"], "b"), (["Z", "a"], "a"), ([], None), (None, None)]),
            ("max", max, TS, [([JUNE, LEAP], LEAP), ([JUNE], JUNE), ([], None), (None, None)]),
        )
    ),
    over("top", PAIRS, PAIRS, lambda a, n: None if a is None else sorted((x for x in a if x["v"] is not None), key=lambda x: -x["v"])[: max(0, math.ceil(n or 0))],
         [([A1, A3, B2], 2.0, [A3, B2]), ([A1], 5.0, [A1]), ([pair("x", None), A1], 1.0, [A1]), ([], 1.0, []), (None, 1.0, None),
          ([A1, pair("z", 1.0)], 1.0, [A1]), ([A1], None, []), ([A1], 0.0, []), ([A1], -1.0, [])],
         _of("v", N), lambda b, o: [o[1]], takes=(N,)),
    over("bottom", PAIRS, PAIRS, lambda a, n: None if a is None else sorted((x for x in a if x["k"] is not None), key=lambda x: x["k"])[: max(0, math.ceil(n or 0))],
         [([B2, A1, A3], 2.0, [A1, A3]), ([N4], 1.0, []), ([], 1.0, []), (None, 1.0, None)],
         _of("k", S), lambda b, o: [o[1]], takes=(N,)),
    over("group_by", GROUPS, PAIRS, _grouped,
         [([A1, B2, A3], [{"key": "a", "values": [A1, A3]}, {"key": "b", "values": [B2]}]),
          ([N4, N4], [{"key": None, "values": [N4, N4]}]), ([], []), (None, None)], _of("k", S)),
    over("chain", B, EVENTS, _chained,
         [(happened(("a", "01"), ("b", "02"), ("c", "03")), True), (happened(("a", "01"), ("b", "02"), ("c", "04")), False),
          (happened(("a", "01"), ("b", "01"), ("c", "02")), False), (happened(("c", "01"), ("b", "02"), ("a", "03")), False),
          (happened(("a", "01"), ("a", "04"), ("b", "05"), ("c", "06")), True), (happened(("a", "01")), False),
          (happened(("a", "01"), ("b", "02"), (None, "03")), False), ([], False), (None, False)], _chain_of, payload=(3, (1, 1, 1))),
    over("join", B, PAIRS, lambda a, k, n: any(k is not None and x["k"] == k and None not in (x["v"], n) and x["v"] > n for x in a or []),
         [([A1, B2, A3], "a", 2.0, True), ([A1, B2, A3], "b", 2.0, False), ([A3], "b", 2.0, False), ([A3], "a", None, False),
          ([N4], None, 1.0, False), ([pair("a", None)], "a", 0.0, False), ([], "a", 0.0, False), (None, "a", 0.0, False)],
         lambda b, item, o: [*_of("k", S)(b, item, o), *_of("v", N)(b, item, o)], lambda b, o: o[1:], payload=(1, ("gt",)), takes=(S, N)),
]  # fmt: skip

M = MapType(N)
ARRAYS = [
    Kernel("head", (NS,), N, lambda a: (a or [None])[0], [([1.0, 2.0], 1.0), ([5.0], 5.0), ([], None), (None, None)]),
    over("to_map", MapType(N), PAIRS, _mapped,
         [([A1, B2], {"a": 1.0, "b": 2.0}), ([A1, A3], {"a": 1.0}), ([N4], {}), ([], {}), (None, None)],
         lambda b, item, o: [*_of("k", S)(b, item, o), *_of("v", N)(b, item, o)]),
    Kernel("typed", (D,), T, lambda one: one and at(one.isoformat()), [(day("2024-02-29"), at("2024-02-29")), (None, None)]),
    Kernel("typed", (ArrayType(D),), TS, lambda a: a and [at(one.isoformat()) for one in a],
           [([day("2024-02-29")], [at("2024-02-29")]), ([], []), (None, None)]),
    Kernel("head", (PAIRS,), PAIR, lambda a: (a or [None])[0], [([A1, B2], A1), ([], None), (None, None)]),
    Kernel("count", (NS,), N, lambda a: float(len(a or [])), [([1.0, 2.0], 2.0), ([5.0], 1.0), ([], 0.0), (None, 0.0)]),
    Kernel("not_empty", (NS,), B, bool, [([1.0], True), ([None], True), ([], False), (None, False)]),
    Kernel("array", (N, N), NS, lambda *row: list(row), [(1.0, 2.0, [1.0, 2.0]), (None, 1.0, [None, 1.0])]),
    Kernel("array", (S, S), SS, lambda *row: list(row), [("a", "b", ["a", "b"]), ("a", None, ["a", None])]),
    Kernel("get", (M, S), N, lambda m, k: (m or {}).get(k), [({"a": 1.0}, "a", 1.0), ({"a": 1.0}, "b", None), ({"a": None}, "a", None),
                                                              ({}, "a", None), (None, "a", None), ({"a": 1.0}, None, None)]),
    Kernel("keys", (M,), SS, lambda m: None if m is None else list(m), [({"a": 1.0, "b": None}, ["a", "b"]), ({}, []), (None, None)]),
    Kernel("values", (M,), NS, lambda m: None if m is None else list(m.values()), [({"a": 1.0, "b": 2.0}, [1.0, 2.0]), ({}, []), (None, None)]),
    *(
        Kernel(op, (type_, ArrayType(type_)), B, known(lambda x, a, has=has: (x in some(a)) is has),
               [(v, [v, w], op == "in"), (v, [w], op != "in"), (v, [], op != "in"), (v, None, False), (None, [v], False), (v, [None], op != "in")])
        for op, has in (("in", True), ("not_in", False))
        for type_, v, w in ((N, 1.0, 2.0), (S, "a", "b"), (T, JUNE, LEAP), (D, day("2024-02-29"), day("2024-03-01")))
    ),
    *(
        Kernel(op, (array, array), B, known(lambda a, b, test=test: test({*some(a)}, {*some(b)})),
               [([*one, *one], one, same), (both, one, left), (one, both, right), ([], [], none), (one, [], over_), ([], one, under),
                (None, one, False), (one, None, False)])
        for op, test, same, left, right, none, over_, under in (
            ("intersects", lambda a, b: bool(a & b), True, True, True, False, False, False),
            ("subset_of", lambda a, b: a <= b, True, False, True, True, False, True),
            ("superset_of", lambda a, b: a >= b, True, True, False, True, True, False),
            ("set_eq", lambda a, b: a == b, True, False, False, True, False, False),
            ("set_ne", lambda a, b: a != b, False, True, True, False, True, True),
        )
        for array, one, both in ((NS, [1.0], [1.0, 2.0]), (SS, ["a"], ["b", "a"]), (TS, [JUNE], [JUNE, LEAP]))
    ),
    Kernel("distinct", (SS,), SS, lambda a: None if a is None else list(dict.fromkeys(some(a))),
           [(["b", "a", "b"], ["b", "a"]), (["a"], ["a"]), ([], []), (None, None), ([None, "a"], ["a"])]),
    Kernel("distinct", (NS,), NS, lambda a: None if a is None else list(dict.fromkeys(some(a))), [([2.0, 1.0, 2.0], [2.0, 1.0]), ([], [])]),
    Kernel("intersection", (SS, SS), SS, lambda a, b: None if None in (a, b) else list(dict.fromkeys(x for x in some(a) if x in some(b))),
           [(["b", "a", "b"], ["a", "b"], ["b", "a"]), (["a"], ["b"], []), ([], ["a"], []), (None, ["a"], None), (["a"], None, None)]),
]  # fmt: skip

KERNELS: Sequence[Kernel] = [*LOGIC, *CONSTANTS, *TEXT, *TIMES_OF, *BINDERS, *ARRAYS]
