"""What a checked expression becomes: small, typed, hash-consed nodes that the engine evaluates; knows no text.

All names are resolved and all implicit steps are explicit here, so that an evaluator needs no rule of the language but
the meaning of each operation below.

**Levels.** Level 0 is the profile. Every operation that runs over the elements of an array *binds* a level, one more
than
the depth of the place where it was written; `element(level)` is its current element. `let` and variables do not exist
any more: their
uses are the same node. A node may therefore stand deeper than it was written, with levels between that it does not
mention; it is to be evaluated once for each row of its deepest *free* level (`Node.free`), not where it stands.

**Nulls.** Two-valued logic: operations marked `cond` give true or false, never null, and take only `cond` operands
where a condition is asked for. All else may be null. Tests with a null operand are false.

Operations (operands; payload) → type
    const          (; value)           value is str, float, bool, datetime.date, datetime.datetime (UTC) or None
    element        (; level)           the profile (level 0) or the current element of the binder of that level
    field          (object; name)      a field of an object; null when the object is missing
    now            ()                  TIMESTAMP, the instant of the job
    day            (; offset)          DATE: today + offset days: yesterday -1, today 0, tomorrow 1
    period         (; shift, unit)     INTERVAL: last -1, this 0, next 1; unit singular, e.g. "month"
    in_segment     (; id)              cond, at level 0
  conditions
    truth          (boolean)           cond: a null boolean is false
    and, or        (cond, …)           cond, n-ary, at least two operands;   not (cond)
    eq ne lt le gt ge (a, b)           cond; scalars of one kind; DATE and TIMESTAMP mix (a date is its midnight)
    is_null, is_not_null (x)           cond; any type; a missing array or object is null, an empty array is not
    not_empty      (array)             cond
    exists, forall (array, cond; level) cond; binds; a missing array is empty
    in, not_in     (x, array)          cond; false when x is null or the array is missing; scalar x. Null elements
    never match
    intersects, subset_of, superset_of, set_eq, set_ne (a, b)   cond; as sets without nulls; false when either is
    missing
  text (all conds false on null)
    like, not_like (text, pattern, case)    % and _;   case is a BOOLEAN operand, true = case-sensitive
    starts_with, ends_with, contains, equals and not_starts_with, not_ends_with, not_contains, not_equals (text,
    other, case)
    matches        (text, regex)       found anywhere (RE2)
    regex_group    (text, regex, n)    STRING; null without a match or with an invalid regex or n
    compare        (text, array, case; test)   test is one of the eight names above: any element, all for a `not_`
    one; nulls of
                                       the array are skipped
  numbers
    add subtract multiply divide remainder (a, b), negate (a)     NUMBER; null on null, overflow, division by zero;
                                       remainder has the sign of the dividend
    if             (cond, a, b)        type of a and b
    typed          (x)                 x with its literal nulls of the node's type; a DATE as a TIMESTAMP
    month_of, year_of, day_of_month_of (t)   NUMBER from DATE or TIMESTAMP
    date           (y, m, d)           DATE, null when invalid
  time (pql.md, "Dates and times" and fine print 8-10); t and r are DATE or TIMESTAMP, r also INTERVAL or `label`
    occurs         (t, n, r; op, unit, direction)   op is one of < <= > >= = !=; direction before, after, from; unit
    singular
    occurs_before, occurs_after, occurs_on (t, r);   occurs_between (t, a, b)       all cond
    label          (; step)            TIMESTAMP: time of that earlier step; only inside a `when` of its chain
  arrays
    array          (item, …)           literal
    map            (array, body; level)   binds; an array body is flattened; nulls are dropped
    filter         (array, cond; level)   binds
    top, bottom    (array, key, n; level)   binds in key only; null keys skipped; ties keep order
    group_by       (array, key; level)    binds in key; ArrayType of ObjectType{key, values: array}; null keys are one
    group
    distinct       (array), intersection (a, b)
    head           (array)             first element
    count          (array)             NUMBER
    sum, average, min, max (array, body; level)   binds; skip nulls; sum of nothing is 0, the others null;
                                       min and max also of DATE, TIMESTAMP, STRING
    get (map, key), keys (map), values (map)
    chain          (array, time, what…, when…; level, steps)   cond; binds; `steps` whats (conds), then as many whens
    (conds over
                                       `element(level)` and `label`); a step without one has `const true`
"""

from collections.abc import Iterator
from typing import Any, Final

from app.pql.schema import Scalar, Type

BINDERS: Final = frozenset(
    {"exists", "forall", "map", "filter", "top", "bottom", "group_by", "sum", "average", "min", "max", "chain"}
)
"""Operations whose payload starts with the level that they bind."""

CONDITIONS: Final = frozenset(
    {
        "in_segment",
        "truth",
        "and",
        "or",
        "not",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "is_null",
        "is_not_null",
        "not_empty",
    }
    | {
        "exists",
        "forall",
        "in",
        "not_in",
        "intersects",
        "subset_of",
        "superset_of",
        "set_eq",
        "set_ne",
        "like",
        "not_like",
    }
    | {"starts_with", "ends_with", "contains", "equals", "matches", "compare", "chain"}
    | {"not_starts_with", "not_ends_with", "not_contains", "not_equals"}
    | {"occurs", "occurs_before", "occurs_after", "occurs_on", "occurs_between"}
)
"""Operations marked `cond`; a `const` of true or false is one too."""

UNBOUND_OPERANDS: Final = {"top": (0, 2), "bottom": (0, 2)}
"""Operands that a binder evaluates outside of the level that it binds; for all other binders only the first (the
array)."""


class Node:
    """One operation on other nodes; immutable; equal nodes made by one `Builder` are one object.

    `free` holds the levels that it reads and does not bind itself; `has_binder` says whether it or anything below it
    runs over an array.
    """

    __slots__ = ("free", "has_binder", "hash", "op", "operands", "payload", "type")

    def __init__(self, op: str, type_: Type, operands: tuple["Node", ...] = (), payload: tuple[Any, ...] = ()) -> None:
        self.op: Final = op
        self.type: Final = type_
        self.operands: Final = operands
        self.payload: Final = payload
        self.free: Final = _free_levels(self)
        self.has_binder: Final[bool] = op in BINDERS or any(operand.has_binder for operand in operands)
        self.hash: Final = hash((op, operands, tuple(map(_typed, payload)), type_))

    def __hash__(self) -> int:
        return self.hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return (
            isinstance(other, Node)
            and self.hash == other.hash
            and self.op == other.op
            and tuple(map(_typed, self.payload)) == tuple(map(_typed, other.payload))
            and self.type == other.type
            and self.operands == other.operands
        )

    def __repr__(self) -> str:
        inner = ", ".join([*map(repr, self.operands), *map(repr, self.payload)])
        return f"{self.op}({inner})"

    def unbound(self) -> tuple[int, ...]:
        """Positions of the operands that are evaluated outside of the level that this node binds."""
        return UNBOUND_OPERANDS.get(self.op, (0,)) if self.op in BINDERS else tuple(range(len(self.operands)))


class Builder:
    """Makes nodes, one object for equal ones; share one among all definitions of a job."""

    def __init__(self) -> None:
        self._nodes: dict[Node, Node] = {}

    def node(self, op: str, type_: Type, *operands: Node, payload: tuple[Any, ...] = ()) -> Node:
        made = Node(op, type_, operands, payload)
        return self._nodes.setdefault(made, made)

    def condition(self, op: str, *operands: Node, payload: tuple[Any, ...] = ()) -> Node:
        return self.node(op, Scalar.BOOLEAN, *operands, payload=payload)

    def constant(self, value: Any, type_: Type) -> Node:
        return self.node("const", type_, payload=(value,))


def walk(node: Node) -> Iterator[Node]:
    """Every distinct node of the graph below and including `node`, operands before their users."""
    seen: set[Node] = set()
    stack = [(node, False)]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            yield current
        elif current not in seen:
            seen.add(current)
            stack.append((current, True))
            stack.extend((operand, False) for operand in reversed(current.operands))


def _typed(value: Any) -> tuple[type, Any]:
    """Tells 1.0 from True and a date from a datetime, which Python's equality may not."""
    return type(value), value


def _free_levels(node: Node) -> frozenset[int]:
    if node.op == "element":
        return frozenset(node.payload)
    if node.op == "in_segment":
        return frozenset({0})
    if node.op not in BINDERS:
        return frozenset().union(*(operand.free for operand in node.operands))
    outside = node.unbound()
    bound = {node.payload[0]}
    return frozenset().union(
        *(operand.free if at in outside else operand.free - bound for at, operand in enumerate(node.operands))
    )
