"""The syntax tree of PQL as written; knows no types, no schema and no meaning of names.

Every node has a `span` (start and end offsets), including parentheses around it. `at` is the offset of the name or
operator that errors point at. Comparisons of trees ignore both.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Span: TypeAlias = tuple[int, int]
NOWHERE: Span = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    span: Span = field(default=NOWHERE, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointed(Located):
    at: int = field(default=0, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Literal(Located):
    """Numbers are never negative (`-5` is a `Negate`). They are floats, or `int` if no float has the same value."""

    value: str | float | int | bool | None


@dataclass(frozen=True, slots=True)
class Name(Pointed):
    """A bare name; `up` is the number of preceding `^`."""

    name: str
    up: int = 0


@dataclass(frozen=True, slots=True)
class Parameter(Located):
    """`$1`, `$2`, …"""

    position: int


@dataclass(frozen=True, slots=True)
class Field(Pointed):
    object: "Expr"
    name: str


@dataclass(frozen=True, slots=True)
class Call(Pointed):
    """A method call if it has a receiver, else a free function; includes `if`."""

    receiver: "Expr | None"
    name: str
    arguments: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Index(Pointed):
    """`array[condition]`; `at` is the offset of the bracket."""

    array: "Expr"
    condition: "Expr"


@dataclass(frozen=True, slots=True)
class ArrayLiteral(Located):
    items: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Not(Located):
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Negate(Located):
    operand: "Expr"


@dataclass(frozen=True, slots=True)
class Logic(Located):
    """`and` or `or` with two or more operands, none of which is a `Logic` of the same operator."""

    operator: str
    operands: tuple["Expr", ...]


@dataclass(frozen=True, slots=True)
class Binary(Pointed):
    """`operator` is one of = != < <= > >= in notIn like + - * / %."""

    operator: str
    left: "Expr"
    right: "Expr"


@dataclass(frozen=True, slots=True)
class Moment(Located):
    """`now`, `today`, `yesterday`, `tomorrow`."""

    word: str


@dataclass(frozen=True, slots=True)
class Period(Located):
    """`this`, `last` or `next` and a unit in the singular."""

    which: str
    unit: str


@dataclass(frozen=True, slots=True)
class OccursWithin(Pointed):
    """`time occurs <operator> count unit direction reference`; without `time` inside a WHEN."""

    time: "Expr | None"
    operator: str
    count: "Expr"
    unit: str
    direction: str
    reference: "Expr"


@dataclass(frozen=True, slots=True)
class OccursAt(Pointed):
    """`time occurs before|after|on reference`; without `time` inside a WHEN."""

    time: "Expr | None"
    relation: str
    reference: "Expr"


@dataclass(frozen=True, slots=True)
class OccursBetween(Pointed):
    time: "Expr | None"
    start: "Expr"
    end: "Expr"


@dataclass(frozen=True, slots=True)
class Let(Located):
    name: str
    value: "Expr"
    body: "Expr"


@dataclass(frozen=True, slots=True)
class Clause(Located):
    """`variable from array where condition`."""

    variable: str
    array: "Expr"
    condition: "Expr"


@dataclass(frozen=True, slots=True)
class Quantifier(Located):
    """`exists` or `forall` over one or more clauses."""

    kind: str
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Select(Located):
    clause: Clause


@dataclass(frozen=True, slots=True)
class Aggregate(Located):
    """`kind body over clause`; `count` has no body. Kinds: sum, count, average, min, max."""

    kind: str
    body: "Expr | None"
    clause: Clause


@dataclass(frozen=True, slots=True)
class Step(Located):
    """`label: WHAT(what) WHERE(where) WHEN(when) COUNT(count)`; all but WHAT may be missing."""

    label: str
    what: "Expr"
    when: "Occurs | None" = None
    where: "Expr | None" = None
    count: "Expr | None" = None


@dataclass(frozen=True, slots=True)
class Chain(Located):
    array: "Expr"
    time: "Expr"
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Variable(Located):
    """A parameter's name in `(P) => …`."""

    name: str


@dataclass(frozen=True, slots=True)
class Lambda(Located):
    """`(E) => body`, or `(K, G) => body` over groups, as the argument of a method."""

    parameters: tuple[Variable, ...]
    body: "Expr"


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole text. `parameters` is empty if the text is only a body."""

    body: "Expr"
    parameters: tuple[Variable, ...] = ()


Occurs: TypeAlias = OccursWithin | OccursAt | OccursBetween
Expr: TypeAlias = (
    Literal
    | Name
    | Parameter
    | Field
    | Call
    | Index
    | ArrayLiteral
    | Not
    | Negate
    | Logic
    | Binary
    | Moment
    | Period
    | Occurs
    | Let
    | Quantifier
    | Select
    | Aggregate
    | Chain
    | Lambda
)

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
"""Singular → plural."""

SINGULAR = {written: unit for unit, plural in UNITS.items() for written in (unit, plural)}
"""Singular or plural → singular; `centurys` and `millenniums` do not exist."""


def joined(operator: str, operands: list[Expr], span: Span = NOWHERE) -> Logic:
    """`and` or `or` of all operands; operands with the same operator are merged in."""
    flat: list[Expr] = []
    for operand in operands:
        if isinstance(operand, Logic) and operand.operator == operator:
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    return Logic(operator, tuple(flat), span=span)


PARTS: Final[Mapping[type[Located], tuple[str, ...]]] = {
    Field: ("object",),
    Call: ("receiver", "arguments"),
    Index: ("array", "condition"),
    ArrayLiteral: ("items",),
    Not: ("operand",),
    Negate: ("operand",),
    Logic: ("operands",),
    Binary: ("left", "right"),
    OccursWithin: ("time", "count", "reference"),
    OccursAt: ("time", "reference"),
    OccursBetween: ("time", "start", "end"),
    Let: ("value", "body"),
    Clause: ("array", "condition"),
    Quantifier: ("clauses",),
    Select: ("clause",),
    Aggregate: ("body", "clause"),
    Step: ("what", "where", "when", "count"),
    Chain: ("array", "time", "steps"),
    Lambda: ("body",),
}
"""The fields of a node that hold nodes, in written order; nodes not listed have none."""


def children(node: Expr | Clause | Step) -> Iterator[Expr | Clause | Step]:
    """The direct child nodes, in written order."""
    for name in PARTS.get(type(node), ()):
        part = getattr(node, name)
        if isinstance(part, tuple):
            yield from part
        elif part is not None:
            yield part
