"""Random well-typed PQL from one source of randomness; knows nothing of the engine.

A tree is of `E`s: operation, type, operands, data. It prints itself as PQL, and `tests.support.oracle` evaluates it.
Types are words (`number text bool date time interval null`) or `("array", T)`, `("map", T)`, `("object",
((name, T), …))`. Dates
are days and times microseconds since 1970. Randomness is a `random.Random`, so that Hypothesis can steer and shrink
(`expressions()`), and a long run needs no Hypothesis.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

from hypothesis import strategies as st

Type = Any


def arr(of: Type) -> Type:
    return ("array", of)


def map_(of: Type) -> Type:
    return ("map", of)


def obj(**fields: Type) -> Type:
    return ("object", tuple(fields.items()))


# ------------------------------------------------------------ the schema

PLACE = obj(country="text", state="text", since="date", spot=obj(lat="number", near="bool"))
LINE = obj(code="text", amount="number", notes=arr("text"))
ORDER = obj(price="number", quantity="number", sku="text", day="date", at="time", gift="bool", lines=arr(LINE))
ITEM = obj(sku="text", cost="number", amount="number", labels=arr("text"), due="date")
EVENT = obj(
    _id="text",
    timestamp="time",
    kind="text",
    income="number",
    serial="number",
    value="number",
    ok="bool",
    until="date",
    shop=obj(place=PLACE, total="number"),
    items=arr(ITEM),
    codes=arr("text"),
)
IDENTITIES = map_(arr(obj(id="text", primary="bool")))
MEMBERSHIPS = map_(map_(obj(status="text", lastQualificationTime="time")))
PROFILE = obj(
    identityMap=IDENTITIES,
    segmentMembership=MEMBERSHIPS,
    _id="text",
    name="text",
    other="text",
    born="date",
    joined="date",
    seen="time",
    left="time",
    income="number",
    serial="number",
    points="number",
    active="bool",
    home=PLACE,
    work=PLACE,
    tags=arr("text"),
    words=arr("text"),
    scores=arr("number"),
    grid=arr(arr("number")),
    days=arr("date"),
    instants=arr("time"),
    flags=arr("bool"),
    orders=arr(ORDER),
    limits=map_("number"),
    choices=map_(obj(val="text", count="number")),
    xEvent=arr(EVENT),
)
SEGMENTS = ("s1", "s2", "s3")

TEXTS = (
    "a",
    "b",
    "A",
    "ab",
    "Ab",
    "vip",
    "VIP",
    "é",
    "É",
    "a%b",
    "x_y",
    "李",
    "",
    '"q"',
    "b\\c",
    "(",
    "a1",
    "realized",
)
NUMBERS = (0.0, 1.0, 2.0, -1.0, 4.0, 0.5, -2.5, 3.0, 10.0, 100.0, 0.1, 0.3, 19.99, -0.07, 1.005)
WHOLE = ("serial",)
"""Fields of whole numbers, which are stored as such."""
WHOLES = (0, 1, 3, 10, -2, 2**53, 2**53 + 1, 2**53 + 2, -(2**53) - 1)
KEYS = ("ECID", "Email", "k", "s1", "s2")
UNITS = {
    "millisecond": "milliseconds",
    "second": "seconds",
    "minute": "minutes",
    "hour": "hours",
    "day": "days",
    "week": "weeks",
    "month": "months",
    "year": "years",
    "decade": "decades",
    "century": "centuries",
    "millennium": "millennia",
}
PATTERNS = {"a": 0, "^a": 0, "b$": 0, "(?i)VIP": 0, "(a)(b)?": 2, "[a-b]+": 0, "^.$": 0, "^$": 0, "^(.)(.*)$": 2}
PATTERNS |= {"\\d": 0, "[(]": 0, "é|x": 0}
"""With their numbers of groups."""
LIKES = ("a%", "%b", "_", "%", "", "a_", "%i%", "A%", "x__", "__", "é")
TEXT_TESTS = (
    "equals", "notEqualTo", "startsWith", "doesNotStartWith", "endsWith", "doesNotEndWith", "contains",
    "doesNotContain",
)  # fmt: skip
SCALARS = ("number", "text", "bool", "date", "time")
ORDERED = ("number", "text", "date", "time")
WRITTEN = ((2000, 1, 1), (1999, 12, 31), (2024, 2, 29), (2026, 6, 15), (2025, 3, 31), (1970, 1, 1), (2008, 2, 29))


@dataclass(frozen=True, slots=True)
class E:
    """One operation."""

    op: str
    type: Type
    args: tuple["E", ...] = ()
    data: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return text(self)


def nodes(tree: E) -> Iterator[E]:
    yield tree
    for arg in tree.args:
        yield from nodes(arg)


def leaf(type_: Type) -> Type:
    while type_[0] == "array":
        type_ = type_[1]
    return type_


def step(type_: Type, name: str) -> Type | None:
    """The type of a field, through arrays too."""
    inner = leaf(type_)
    if inner[0] != "object":
        return None
    for field, of in inner[1]:
        if field == name:
            if type_[0] != "array":
                return of
            return of if of[0] == "array" else arr(of)
    return None


# ------------------------------------------------------------ printing

_LOOSE, _OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _UNARY, _POSTFIX = range(9)
_INFIX = {"or": _OR, "and": _AND, **dict.fromkeys(("+", "-"), _SUM), **dict.fromkeys(("*", "/", "%"), _PRODUCT)}
_INFIX |= dict.fromkeys(("=", "!=", "<", "<=", ">", ">=", "in", "notIn", "like"), _COMPARE)
_REACHING = ("let", "exists_from", "forall_from", "select", "over")


def _level(e: E) -> int:
    if e.op in _INFIX:
        return _INFIX[e.op]
    if e.op in _REACHING:
        return _LOOSE
    if e.op in ("within", "at", "between"):
        return _COMPARE
    if e.op == "negate" or (e.op == "literal" and e.type == "number" and e.data[0] < 0):
        return _UNARY
    return _NOT if e.op == "not" else _POSTFIX


def quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def text(e: E, least: int = _LOOSE) -> str:
    """PQL; parentheses only where the precedence of the language needs them."""
    inner = _bare(e)
    return f"({inner})" if _level(e) < least else inner


def _bare(e: E) -> str:
    a = e.args
    if e.op in _INFIX:
        level = _INFIX[e.op]
        if e.op in ("and", "or"):
            return f" {e.op} ".join(text(x, level + 1) for x in a)
        return f"{text(a[0], level + (level == _COMPARE))} {e.op} {text(a[1], level + 1)}"
    return _PRINTS[e.op](e, a)


def _print_literal(e: E, a: tuple[E, ...]) -> str:
    value = e.data[0]
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    return str(int(value)) if value == int(value) and (isinstance(value, int) or abs(value) < 1e15) else repr(value)


def _call(e: E, a: tuple[E, ...]) -> str:
    return f"{e.data[0]}({', '.join(map(text, a))})"


def _method(e: E, a: tuple[E, ...]) -> str:
    return f"{text(a[0], _POSTFIX)}.{e.data[0]}({', '.join(map(text, a[1:]))})"


def _print_clauses(e: E, a: tuple[E, ...]) -> str:
    names, colon = e.data
    clauses = []
    for at, name in enumerate(names):
        last = at == len(names) - 1
        condition = text(a[2 * at + 1], _LOOSE if last else _OR)
        clauses.append(f"{name} from {text(a[2 * at], _SUM)} {':' if colon and last else 'where'} {condition}")
    return f"{e.op.removesuffix('_from')} {', '.join(clauses)}"


def _print_over(e: E, a: tuple[E, ...]) -> str:
    name, kind = e.data
    body = f" ({text(a[2])}) over" if len(a) == 3 else ""
    return f"{kind}{body} {name} from {text(a[0], _SUM)} where {text(a[1])}"


def _print_test(e: E, a: tuple[E, ...]) -> str:
    """What stands after `occurs` or in WHEN."""
    if e.op == "within":
        unit = e.data[1] if a[1].data == (1.0,) else UNITS[e.data[1]]
        return f"{e.data[0]} {text(a[1], _SUM)} {unit} {e.data[2]} {text(a[2], _SUM)}"
    if e.op == "at":
        reference = text(a[1], _SUM)
        # After `on` a bracket would be the filter of a field of that name.
        return f"{e.data[0]}{' ' if e.data[0] else ''}{f'({reference})' if reference[0] == '[' else reference}"
    return f"between {text(a[1], _SUM)} and {text(a[2], _SUM)}"


def _print_occurs(e: E, a: tuple[E, ...]) -> str:
    return f"{text(a[0], _SUM)} occurs {_print_test(e, a)}"


def _print_chain(e: E, a: tuple[E, ...]) -> str:
    steps = []
    for at, (label, count) in enumerate(zip(*e.data, strict=True)):
        what, when = a[2 + 2 * at], a[3 + 2 * at]
        tail = "" if when.op == "none" else f" WHEN({_print_test(when, when.args)})"
        if what.op == "and" and len(what.args) == 2 and at % 2:
            what, where = what.args
            tail = f" WHERE({text(where)}){tail}"
        steps.append(f"{label}: WHAT({text(what)}){tail}{f' COUNT({count})' if count > 1 else ''}")
    return f"CHAIN({text(a[0])}, {text(a[1])}, [{', '.join(steps)}])"


def _print_negate(e: E, a: tuple[E, ...]) -> str:
    inner = text(a[0], _UNARY)
    return f"- {inner}" if inner.startswith("-") else f"-{inner}"


_PRINTS: dict[str, Callable[[E, tuple[E, ...]], str]] = {
    "literal": _print_literal,
    "name": lambda e, a: "^" * e.data[1] + str(e.data[0]),
    "root": lambda e, a: "$1",
    "field": lambda e, a: f"{text(a[0], _POSTFIX)}.{e.data[0]}",
    "array": lambda e, a: f"[{', '.join(map(text, a))}]",
    "word": lambda e, a: str(e.data[0]),
    "period": lambda e, a: f"{e.data[0]} {e.data[1]}",
    "label": lambda e, a: str(e.data[1]),
    "step": lambda e, a: "timestamp",  # not written in a WHEN, but in parts of one
    "call": _call,
    "method": _method,
    "index": lambda e, a: f"{text(a[0], _POSTFIX)}[{text(a[1])}]",
    "not": lambda e, a: f"{'!' if e.data else 'not '}{text(a[0], _NOT)}",
    "negate": _print_negate,
    "let": lambda e, a: f"let {e.data[0]} = {text(a[0], _SUM)} in {text(a[1])}",
    "exists_from": _print_clauses,
    "forall_from": _print_clauses,
    "select": _print_clauses,
    "over": _print_over,
    "within": _print_occurs,
    "at": _print_occurs,
    "between": _print_occurs,
    "chain": _print_chain,
    "to_map": lambda e, a: (
        f"{text(a[0], _POSTFIX)}.map(({', '.join(e.data[0])}) => mapEntry({text(a[1])}, {text(a[2])}))"
    ),
    "query": lambda e, a: f"({e.data[0]}) => {text(a[0])}",
}


# ------------------------------------------------------------ names

Frame = tuple[str, Any, Any]
"""`("level", None, type)` or `("variable", name, type)`."""
ROOT: tuple[Frame, ...] = (("level", None, PROFILE),)


def resolve(env: tuple[Frame, ...], name: str, up: int) -> int | None:
    """The place in `env` of the frame that a name means."""
    frames = list(env)
    for _ in range(up):
        while frames and frames[-1][0] != "level":
            frames.pop()
        if len(frames) < 2:
            return None
        frames.pop()
    for at in range(len(frames) - 1, -1, -1):
        kind, known, type_ = frames[at]
        if (kind == "variable" and known == name) or (kind == "level" and step(type_, name) is not None):
            return at
    return None


@lru_cache(maxsize=4096)
def references(env: tuple[Frame, ...]) -> dict[Type, tuple[E, ...]]:
    """All paths that can be written at a place, by type."""
    found: dict[Type, list[E]] = {}

    def add(e: E, depth: int) -> None:
        found.setdefault(e.type, []).append(e)
        if depth:
            for name, _ in fields(e.type):
                add(E("field", step(e.type, name), (e,), (name,)), depth - 1)

    levels = sum(frame[0] == "level" for frame in env)
    for at, (kind, known, type_) in enumerate(env):
        for name in [known] if kind == "variable" else [name for name, _ in fields(type_)]:
            for up in range(levels):
                if resolve(env, name, up) == at:
                    add(E("name", type_ if kind == "variable" else step(type_, name), (), (name, up)), 3)
    if len(env) > 1:
        for name, type_ in PROFILE[1]:
            add(E("field", type_, (E("root", PROFILE),), (name,)), 1)
    return {type_: tuple(es) for type_, es in found.items()}


def fields(type_: Type) -> tuple[tuple[str, Type], ...]:
    inner = leaf(type_)
    return inner[1] if inner[0] == "object" else ()


def _is_far(e: E) -> bool:
    while e.op == "field":
        e = e.args[0]
    return e.op == "root" or (e.op == "name" and e.data[1] > 0)


# ------------------------------------------------------------ expressions


def _is_two_sided(when: E) -> bool:
    """Whether a WHEN holds on both sides of an earlier step, which COUNT may not follow."""
    has_label = any(node.op == "label" for node in nodes(when))
    return when.op == "within" and has_label and (when.data[0] == "!=" or when.data[2] == "from")


def literal(value: Any) -> E:
    if value is None:
        return E("literal", "null", (), (None,))
    kind = "bool" if isinstance(value, bool) else "text" if isinstance(value, str) else "number"
    return E("literal", kind, (), (value,))


def call(name: str, type_: Type, *args: E) -> E:
    return E("call", type_, args, (name,))


def method(name: str, type_: Type, *args: E) -> E:
    return E("method", type_, args, (name,))


class Writer:
    """Writes expressions of a wanted type at a place `env`, at most `d` deep.

    `exact` keeps what is summed free of rounding, so that the order of a sum cannot matter.
    """

    def __init__(self, random: Random) -> None:
        self.r = random
        self.exact = 0
        self.named = 0
        self.constant = self.maybe(0.04)
        """Whether scalars and their arrays are written out everywhere, so that nothing depends on a person."""
        self.odd = self.one((0.0, 0.05, 0.3))
        """How often nulls, empty arrays and arrays of nulls are written out."""

    def maybe(self, part: float) -> bool:
        return self.r.random() < part

    def one(self, items: Any) -> Any:
        return items[self.r.randrange(len(items))]

    def segment(self, depth: int = 3) -> E:
        env, name = ROOT, ""
        if self.maybe(0.1):
            name = self.one(("P", "income", "Who"))
            env = (*ROOT, ("variable", name, PROFILE))
        body = self.condition(env, depth) if self.maybe(0.93) else self.array(env, depth)
        return E("query", body.type, (body,), (name,)) if name else body

    # -------------------------------------------------------- conditions

    def condition(self, env: Any, d: int) -> E:
        """What may stand where a boolean is needed: now and then an array or null."""
        if d > 0 and self.maybe(0.05):
            return self.array(env, d - 1)
        if self.maybe(0.01):
            return literal(None)
        return self.boolean(env, d)

    def boolean(self, env: Any, d: int) -> E:
        if d <= 0:
            made: E = self.one((self.flag, self.compare, self.text_test, self.is_null, self.member, self.occurs))(
                env, 0
            )
        else:
            made = self.one(self.BOOLEANS)(self, env, d - 1)
        return made

    def flag(self, env: Any, d: int) -> E:
        return self.reference(env, "bool") if self.maybe(0.7) else literal(self.maybe(0.5))

    def logic(self, env: Any, d: int) -> E:
        count = 2 + self.maybe(0.2)
        op = self.one(("and", "or"))
        return E(op, "bool", tuple(self.condition(env, d) for _ in range(count)))

    def negation(self, env: Any, d: int) -> E:
        return E("not", "bool", (self.condition(env, d),), (1,) if self.maybe(0.3) else ())

    def similar(self, kind: str) -> str:
        return self.one(("date", "time")) if kind in ("date", "time") else kind

    def compare(self, env: Any, d: int) -> E:
        kind = self.one(SCALARS)
        ops = ("=", "!=") if kind == "bool" else ("=", "!=", "<", "<=", ">", ">=")
        left, right = self.scalar(env, d, kind), self.scalar(env, d, self.similar(kind))
        shape = self.r.randrange(10)
        if shape < 3:
            left = self.array_of(env, d, kind)
        elif shape == 3:
            right = self.array_of(env, d, self.similar(kind))
        elif shape == 4:
            ops = ("=", "!=")
            left, right = self.array_of(env, d, kind), self.array_of(env, d, self.similar(kind))
        return E(self.one(ops), "bool", (left, right))

    def member(self, env: Any, d: int) -> E:
        kind = self.one(SCALARS)
        x = self.array_of(env, d, kind) if self.maybe(0.2) else self.scalar(env, d, kind)
        among = self.array_of(env, d, self.similar(kind))
        if self.maybe(0.3):
            return method("includes", "bool", among, self.scalar(env, d, kind))
        return E(self.one(("in", "notIn")), "bool", (x, among))

    def sets(self, env: Any, d: int) -> E:
        kind = self.one(SCALARS)
        a, b = self.array_of(env, d, kind), self.array_of(env, d, kind)
        return method(self.one(("intersects", "subsetOf", "supersetOf")), "bool", a, b)

    def text_test(self, env: Any, d: int) -> E:
        case = () if self.maybe(0.4) else (literal(self.maybe(0.4)),)
        shape = self.r.randrange(10)
        subject = self.array_of(env, d, "text") if self.maybe(0.25) else self.scalar(env, d, "text")
        if shape < 4:
            return method(self.one(TEXT_TESTS), "bool", subject, self.scalar(env, d, "text"), *case)
        if shape == 4:
            texts = [literal(self.one(TEXTS)) for _ in range(2 + self.r.randrange(2))]
            return method(self.one(TEXT_TESTS), "bool", subject, self.scalar(env, d, "text"), *texts, *case)
        if shape == 5:
            pattern = literal(self.one(LIKES)) if self.maybe(0.8) else self.scalar(env, 0, "text")
            return E("like", "bool", (subject, pattern))
        if shape < 8:
            return method("matches", "bool", subject, self.pattern(env))
        test = literal(self.one(TEXT_TESTS))
        return call("stringCompare", "bool", test, subject, self.array_of(env, d, "text"), *case)

    def pattern(self, env: Any) -> E:
        return literal(self.one(tuple(PATTERNS))) if self.maybe(0.85) else self.reference(env, "text")

    def is_null(self, env: Any, d: int) -> E:
        if self.maybe(0.5):
            value = self.one([e for type_, es in references(env).items() if type_ not in SCALARS for e in es])
        else:
            value = self.scalar(env, d, self.one(SCALARS))
        return method(self.one(("isNull", "isNotNull")), "bool", value)

    def quantified(self, env: Any, d: int) -> E:
        kind, count = self.one(("exists", "forall")), 1 + self.maybe(0.3)
        args: list[E] = []
        names: tuple[str, ...] = ()
        for _ in range(count):
            array = self.array(env, d)
            names += (self.name(),)
            env = (*env, ("variable", names[-1], array.type[1]))
            args += [array, self.condition(env, d)]
        return E(f"{kind}_from", "bool", tuple(args), (names, self.maybe(0.3)))

    def method_quantified(self, env: Any, d: int) -> E:
        array = self.array(env, d)
        return method(self.one(("exists", "forall")), "bool", array, self.condition(self.inside(env, array), d))

    def in_segment(self, env: Any, d: int) -> E:
        if self.maybe(0.3):
            return call("sample", "bool", literal(self.one(TEXTS) or "salt"), literal(self.one((0, 12.5, 50, 100))))
        return call("inSegment", "bool", literal(self.one(SEGMENTS)))

    def chosen(self, env: Any, d: int) -> E:
        return call("if", "bool", self.condition(env, d), self.boolean(env, d), self.boolean(env, d))

    def named_boolean(self, env: Any, d: int) -> E:
        return self.let(env, d, self.boolean)

    def let(self, env: Any, d: int, body: Callable[[Any, int], E]) -> E:
        shape = self.r.randrange(4)
        if shape == 0:
            value = self.array(env, d)
        elif shape == 1:
            value = self.one([e for type_, es in references(env).items() if type_[0] in ("object", "map") for e in es])
        else:
            value = self.scalar(env, d, self.one(SCALARS))
        if value.type == "null":
            value = literal(1.0)
        name = self.name()
        inside = body((*env, ("variable", name, value.type)), d)
        return E("let", inside.type, (value, inside), (name,))

    def name(self) -> str:
        if self.maybe(0.15):
            return str(self.one(("income", "tags", "sku", "total", "last", "amount", "S")))
        self.named += 1
        return f"{self.one('VXT')}{self.named}"

    def inside(self, env: Any, array: E) -> Any:
        return (*env, ("level", None, array.type[1]))

    # -------------------------------------------------------- time

    def relative(self, env: Any, d: int, labels: tuple[str, ...] = ()) -> E:
        """What a time is held against."""
        if labels and self.maybe(0.7):
            at = self.r.randrange(len(labels))
            return E("label", "time", (), (at, labels[at]))
        if self.maybe(0.3):
            return E("period", "interval", (), (self.one(("this", "last", "next")), self.one(tuple(UNITS))))
        if self.maybe(0.4):
            word = self.one(("now", "now", "today", "yesterday", "tomorrow"))
            return E("word", "time" if word == "now" else "date", (), (word,))
        return self.scalar(env, d, self.one(("date", "time")))

    def occurs(self, env: Any, d: int) -> E:
        kind = self.one(("date", "time", "time"))
        time = self.array_of(env, d, kind) if self.maybe(0.3) else self.scalar(env, d, kind)
        return self.occurring(env, d, time)

    def occurring(self, env: Any, d: int, time: E, labels: tuple[str, ...] = ()) -> E:
        shape = self.r.randrange(10)
        if shape < 6:
            return self.within(env, d, time, labels)
        if shape < 9:
            reference = self.relative(env, d, labels)
            relations = ("before", "after", "on") + (("",) if reference.op in ("word", "period") else ())
            return E("at", "bool", (time, reference), (self.one(relations),))
        return E("between", "bool", (time, self.relative(env, d, labels), self.relative(env, d, labels)))

    def within(self, env: Any, d: int, time: E, labels: tuple[str, ...]) -> E:
        op = self.one(("<", "<=", ">", ">=", "=", "!="))
        unit, direction = self.one(tuple(UNITS)), self.one(("before", "after", "from"))
        many = (1, 2) if unit in ("century", "millennium") else (1, 1, 2, 3, 7, 12, 24, 30, 0)
        count = literal(float(self.one(many)))
        arrays = references(env).get(arr("number"), ())
        if arrays and self.maybe(0.08):
            count = method("count", "number", self.one(arrays))
        elif self.maybe(0.02):
            count = literal(None)
        reference = self.relative(env, d, labels)
        if direction == "from" and (reference.type == "interval" or count.op != "literal"):
            direction = "before"
        return E("within", "bool", (time, count, reference), (op, unit, direction))

    def chain(self, env: Any, d: int) -> E:
        known = references(env)
        sources = known.get(arr(EVENT), ()) if self.maybe(0.8) else known.get(arr(ORDER), ())
        if not sources:
            return self.compare(env, d)
        array = self.one(sources)
        if self.maybe(0.2):
            array = E("index", array.type, (array, self.condition(self.inside(env, array), d - 1)))
        inner = self.inside(env, array)
        times = ("timestamp", "timestamp", "timestamp", "until") if array.type == arr(EVENT) else ("at", "day")
        name = self.one(times)
        time = E("name", step(array.type[1], name), (), (name, 0))
        labels: tuple[str, ...] = ()
        args = [array, time]
        for at in range(1 + self.r.randrange(3)):
            args.append(literal(True) if self.maybe(0.3) else self.condition(inner, d - 1))
            if self.maybe(0.5):
                args.append(self.occurring(inner, 0, E("step", time.type), labels))
            else:
                args.append(E("none", "null"))
            labels += (f"C{at}",)
        counts = tuple(self.one((1, 1, 2, 3)) if not _is_two_sided(when) else 1 for when in args[3::2])
        return E("chain", "bool", tuple(args), (labels, counts))

    # -------------------------------------------------------- scalars

    def scalar(self, env: Any, d: int, kind: str) -> E:
        if kind == "bool":
            return self.boolean(env, d - 1) if d > 0 else self.flag(env, 0)
        if d <= 0:
            return self.simple(env, kind)
        d -= 1
        shape = self.r.randrange(14)
        if shape < 5:
            return self.simple(env, kind)
        if shape == 5:
            branches = [self.scalar(env, d, kind), self.scalar(env, d, kind)]
            if self.maybe(0.1):
                branches[self.r.randrange(2)] = literal(None)
            kinds = {branch.type for branch in branches} - {"null"}
            return call("if", kinds.pop() if kinds else "null", self.condition(env, d), *branches)
        if shape == 6:
            return self.let(env, d, lambda inner, deep: self.scalar(inner, deep, kind))
        if shape == 7:
            return method("head", kind, self.array_of(env, d, kind))
        if shape == 8:
            return self.through_object(env, d, kind)
        if shape < 11:
            return self.aggregate(env, d, kind)
        return {"number": self.number, "text": self.group, "date": self.day, "time": self.instant}[kind](env, d)

    def simple(self, env: Any, kind: str) -> E:
        if self.maybe(0.02 + self.odd / 2):
            return literal(None)
        if kind == "bool" and self.constant:
            return literal(self.maybe(0.5))
        if not self.constant and (self.maybe(0.75) or kind == "bool"):
            return self.reference(env, kind)
        if kind == "number":
            return literal(self.one(WHOLES if self.maybe(0.15) else NUMBERS))
        if kind == "text":
            return literal(self.one(TEXTS))
        if kind == "time":
            return E("word", "time", (), ("now",))
        return self.written_day() if self.maybe(0.5) else E("word", "date", (), ("today",))

    def reference(self, env: Any, type_: Type) -> E:
        """A path of the type; mostly one without `^` and `$1`."""
        known = references(env)[type_]
        near = [e for e in known if not _is_far(e)]
        chosen: E = self.one(near) if near and self.maybe(0.6) else self.one(known)
        return chosen

    def through_object(self, env: Any, d: int, kind: str) -> E:
        """A field of what `get`, `head` or `if` gives."""
        known = references(env)
        shape = self.r.randrange(3)
        if shape == 0 and kind in ("text", "time") and MEMBERSHIPS in known:
            inner = method("get", MEMBERSHIPS[1], self.one(known[MEMBERSHIPS]), self.key(env))
            value = method("get", MEMBERSHIPS[1][1], inner, self.key(env))
            return E("field", kind, (value,), ("status" if kind == "text" else "lastQualificationTime",))
        if shape == 2 and kind in ("number", "text"):
            return self.indexed(env, d, kind)
        if shape == 0 and kind == "number" and map_("number") in known:
            return method("get", "number", self.one(known[map_("number")]), self.key(env))
        if shape == 1:
            source = self.array(env, d)
            names = [name for name, type_ in fields(source.type[1]) if type_ == kind]
            if names and source.type[1][0] == "object":
                return E("field", kind, (method("head", source.type[1], source),), (self.one(names),))
        names = [name for name, type_ in fields(PLACE) if type_ == kind]
        if not names:
            return self.simple(env, kind)
        value = call("if", PLACE, self.condition(env, d), self.reference(env, PLACE), self.reference(env, PLACE))
        return E("field", kind, (value,), (self.one(names),))

    def indexed(self, env: Any, d: int, kind: str) -> E:
        """An entry of a map that is made of an array, or of groups by name."""
        if self.maybe(0.5):
            source = self.array(env, d)
            key = self.scalar(self.inside(env, source), d, "text")
            if key.type == "null":
                return self.simple(env, kind)
            source = method("groupBy", arr(obj(key="text", values=source.type)), source, key)
            element = source.type[1]
            names: tuple[str, ...] = (self.name(), self.name() + "G")
            variables = zip(names, ("text", element[1][1][1]), strict=True)
            inner = (*self.inside(env, source), *(("variable", name, of) for name, of in variables))
            key = E("name", "text", (), (names[0], 0))
        else:
            source, names = self.array(env, d), (self.name(),)
            inner = (*self.inside(env, source), ("variable", names[0], source.type[1]))
            key = self.scalar(inner, d, "text")
        value = self.scalar(inner, d, kind)
        if "null" in (key.type, value.type):
            return self.simple(env, kind)
        made = E("to_map", map_(kind), (source, key, value), (names,))
        return method("get", kind, made, literal(self.one(TEXTS)))

    def key(self, env: Any) -> E:
        return literal(self.one(KEYS)) if self.maybe(0.85) else self.simple(env, "text")

    def aggregate(self, env: Any, d: int, kind: str) -> E:
        name = self.one(("min", "max", "sum", "average", "count") if kind == "number" else ("min", "max"))
        array, over, variable = self.array(env, d), self.maybe(0.4), self.name()
        inner = (*env, ("variable", variable, array.type[1])) if over else self.inside(env, array)
        if name == "count":
            if over:
                return E("over", "number", (array, self.condition(inner, d)), (variable, "count"))
            return method("count", "number", array)
        self.exact += 1
        known = [t for t in (kind, arr(kind)) if t in references(inner)]
        body = self.reference(inner, self.one(known)) if self.maybe(0.6) else self.scalar(inner, d, kind)
        self.exact -= 1
        if body.type == "null":
            body = self.reference(inner, kind)
        if over:
            return E("over", kind, (array, self.condition(inner, d), body), (variable, name))
        if array.type[1] == kind and self.maybe(0.5):
            return method(name, kind, array)
        return method(name, kind, array, body)

    def number(self, env: Any, d: int) -> E:
        shape = self.r.randrange(8)
        if shape < 4:
            op = self.one(("+", "-", "*", "%") if self.exact else ("+", "-", "*", "/", "%"))
            return E(op, "number", (self.scalar(env, d, "number"), self.scalar(env, d, "number")))
        if shape == 4:
            return E("negate", "number", (self.scalar(env, d, "number"),))
        if shape == 5:
            return call(self.one(("currentMonth", "currentYear", "currentDayOfMonth")), "number")
        if shape == 6 and not self.exact and self.maybe(0.2):
            huge = E("*", "number", (self.simple(env, "number"), literal(1e308)))
            return E(self.one(("+", "-", "*", "/")), "number", (huge, huge if self.maybe(0.5) else literal(0.5)))
        part = self.one(("getMonth", "getYear", "getDayOfMonth"))
        return method(part, "number", self.scalar(env, d, self.one(("date", "time"))))

    def group(self, env: Any, d: int) -> E:
        regex = self.pattern(env)
        most = PATTERNS.get(regex.data[0], 0) if regex.op == "literal" else 2
        return method(
            "regexGroup", "text", self.scalar(env, d, "text"), regex, literal(float(self.r.randrange(most + 1)))
        )

    def written_day(self) -> E:
        return call("date", "date", *(literal(float(part)) for part in self.one(WRITTEN)))

    def day(self, env: Any, d: int) -> E:
        if self.maybe(0.4):
            parts = [self.reference(env, "number") for _ in range(2)]
            return call("date", "date", literal(self.one((2000.0, 2024.0, 2026.0))), *parts)
        return self.written_day() if self.maybe(0.5) else E("word", "date", (), (self.one(("yesterday", "tomorrow")),))

    def instant(self, env: Any, d: int) -> E:
        return self.simple(env, "time")

    # -------------------------------------------------------- arrays

    def array(self, env: Any, d: int) -> E:
        """Of any elements, mostly objects."""
        known = references(env)
        arrays = [type_ for type_ in known if type_[0] == "array"]
        objects = [type_ for type_ in arrays if type_[1][0] == "object"]
        type_ = self.one(objects) if objects and self.maybe(0.65) else self.one(arrays)
        shape = self.r.randrange(10)
        if shape == 0 and d > 0:
            source = self.array_of(env, d - 1, type_[1])
            key = self.scalar(self.inside(env, source), d - 1, self.one(SCALARS))
            if key.type != "null":
                groups = arr(obj(key=key.type, values=source.type))
                return method("groupBy", groups, source, key)
        maps = [t for t in known if t[0] == "map"]
        if shape == 1 and maps:
            source = self.one(known[self.one(maps)])
            return method("values", arr(source.type[1]), source)
        return self.array_of(env, d, type_[1])

    def array_of(self, env: Any, d: int, of: Type) -> E:
        if self.maybe(self.odd) and (of in SCALARS or of in references(env)):
            return self.degenerate(env, of)
        known = () if self.constant and of in SCALARS else references(env).get(arr(of), ())
        if d <= 0 or (known and self.maybe(0.4)):
            return self.reference(env, arr(of)) if known else self.listed(env, of)
        d -= 1
        shape = self.r.randrange(12)
        if shape < 3:
            source = self.array_of(env, d, of)
            condition = self.condition(self.inside(env, source), d)
            if self.maybe(0.3):
                return method("filter", arr(of), source, condition)
            return E("index", arr(of), (source, condition))
        if shape == 3:
            source, name = self.array_of(env, d, of), self.name()
            condition = self.condition((*env, ("variable", name, of)), d)
            return E("select", arr(of), (source, condition), ((name,), self.maybe(0.3)))
        if shape == 4:
            source = self.array_of(env, d, of)
            key = self.scalar(self.inside(env, source), d, self.one(ORDERED))
            if key.type != "null":
                count = literal(float(self.one((0, 1, 1, 2, 3, 100))))
                return method(self.one(("topN", "bottomN")), arr(of), source, key, count)
        if shape == 5:
            return call("if", arr(of), self.condition(env, d), self.array_of(env, d, of), self.array_of(env, d, of))
        if shape == 6:
            return self.let(env, d, lambda inner, deep: self.array_of(inner, deep, of))
        if of in SCALARS:
            return self.array_of_scalars(env, d, of, shape)
        return self.reference(env, arr(of)) if known else self.array_of(env, d, of)

    def array_of_scalars(self, env: Any, d: int, of: str, shape: int) -> E:
        if shape == 7:
            return method("distinct", arr(of), self.array_of(env, d, of))
        if shape == 8:
            return method("intersection", arr(of), self.array_of(env, d, of), self.array_of(env, d, of))
        if shape == 10:
            source = self.array(env, d)
            wanted = self.scalar(self.inside(env, source), d, of)
            if wanted.type == of:
                return method("map", arr(of), source, wanted)
        if shape == 11 and of == "text":
            maps = [e for type_, es in references(env).items() if type_[0] == "map" for e in es]
            if maps and self.maybe(0.6):
                return method("keys", arr("text"), self.one(maps))
            texts = self.array_of(env, d, "text")
            return method("regexGroup", arr("text"), texts, literal("^(.)(.*)$"), literal(1.0))
        if shape == 11 and of == "number":
            part = self.one(("getMonth", "getYear", "getDayOfMonth"))
            return method(part, arr("number"), self.array_of(env, d, self.one(("date", "time"))))
        return self.listed(env, of)

    def listed(self, env: Any, of: Type) -> E:
        if of not in SCALARS:
            return E("array", arr(of), (self.reference(env, of),))
        return E("array", arr(of), tuple(self.simple(env, of) for _ in range(1 + self.r.randrange(3))))

    def degenerate(self, env: Any, of: Type) -> E:
        """Arrays without elements or with nulls alone, written out or made by functions."""
        if of not in SCALARS:
            return E("array", arr(of), (self.reference(env, of), *(literal(None),) * self.r.randrange(2)))
        nothing = literal(None)
        empty, nulls = E("array", arr(of)), E("array", arr(of), (nothing,) * (1 + self.r.randrange(2)))
        shape = self.r.randrange(8)
        if shape == 0:
            return method("map", arr(of), self.array(env, 0), empty)
        if shape == 1:
            return method("distinct", arr(of), nulls)
        if shape == 2:
            return call("if", arr(of), self.condition(env, 0), empty, self.one((nulls, nothing)))
        if shape == 3:
            return method("intersection", arr(of), empty, nulls)
        if shape == 4:
            return method("topN", arr(of), nulls, nothing, literal(1.0))
        chosen: E = self.one((empty, nulls))
        return chosen

    BOOLEANS = (
        (flag,)
        + (logic,) * 3
        + (negation,) * 2
        + (compare,) * 4
        + (member, member, sets, text_test, text_test, text_test, is_null, is_null)
        + (quantified,) * 3
        + (method_quantified,) * 2
        + (in_segment, chosen, named_boolean)
        + (occurs,) * 4
        + (chain,) * 3
    )


def expressions(depth: int = 3) -> st.SearchStrategy[E]:
    """Segments' expressions, for Hypothesis."""
    return st.randoms(use_true_random=False).map(lambda random: Writer(random).segment(depth))
