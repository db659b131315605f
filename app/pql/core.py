"""What a checked expression becomes: small, typed, hash-consed nodes that the engine evaluates; knows no text.

All names are resolved and all implicit steps are explicit here, so that an evaluator needs no rule of the language
but the meaning of each operation below. `outline` in `app/engine/plan` prints a graph of nodes in one line.

Levels
    The profile is level 0. An operation that runs over the elements of an array *binds* a level, one more than the
    depth of the place where it was written; `element(level)` is its current element. `let` and variables are resolved:
    their uses are the same node. So a node may stand deeper than it was written, with levels between that it does
    not mention. Evaluate it once for each row of its deepest *free* level (`Node.free`), not where it stands.

Nulls
    Logic has two values. Operations that give a condition (below: cond) give true or false, never null, and take
    only conditions where one is asked for. A comparison with a null operand is false. All else may be null.

Each line below: operation (operands; payload) type: meaning. Level in a payload means that the operation binds it.

Values
    const (; value)                     a str, float, bool, date, datetime (UTC) or None
    element (; level)                   the profile (level 0), or the current element of the binder of that level
    field (object; name)                a field of an object; null when the object is missing
    if (cond, a, b)                     a or b, of one type
    array (item, …)                     a literal
    typed (x)                           x with its nulls, and those in its arrays, of the node's type; a date as a
                                        timestamp

Numbers, all null on null
    add subtract multiply divide remainder (a, b) number    null on overflow and on division by zero; a remainder has
                                        the sign of the dividend
    negate (a) number
    month_of year_of day_of_month_of (t) number     of a date or timestamp

Conditions
    truth (boolean) cond                a null boolean is false
    and or (cond, cond, …) cond;  not (cond) cond
    eq ne lt le gt ge (a, b) cond       scalars of one kind; a date meets a timestamp as its midnight
    is_null is_not_null (x) cond        of any type; a missing array or object is null, an empty array is not
    in_segment (; id) cond              at level 0
    sample (id; salt, percent) cond     of the profile's id: in a share of all profiles that is fixed by a hash
    in not_in (x, array) cond           of a scalar x; false when x is null or the array is missing; null elements
                                        never match
    not_empty (array) cond
    exists forall (array, cond; level) cond         a missing array is empty
    intersects subset_of superset_of set_eq set_ne (a, b) cond      as sets without nulls; false when one is missing

Text, each a cond that is false on null unless another type is given
    like not_like (text, pattern, case)             `%` and `_`; `case` is a boolean operand, true: case-sensitive
    starts_with ends_with contains equals (text, other, case), and not_starts_with not_ends_with not_contains
    not_equals
    matches (text, regex)               anywhere in the text (RE2)
    regex_group (text, regex, n) string             null without a match, or with an invalid regex or n
    compare (text, array, case; test)   test is one of the eight names above: any element of the array, or all
                                        elements for a `not_` test; nulls of the array are skipped

Time (pql.md, "Dates and times", fine print 8 to 10); t is a date or timestamp, r also an interval or a `label`
    now () timestamp                    the instant of the job
    day (; offset) date                 today + offset days: yesterday -1, today 0, tomorrow 1
    period (; shift, unit) interval     last -1, this 0, next 1; the unit is singular, such as "month"
    date (y, m, d) date                 null when there is no such day
    occurs (t, n, r; op, unit, direction) cond      op is < <= > >= = or !=; direction is before, after or from
    occurs_before occurs_after occurs_on (t, r) cond;  occurs_between (t, a, b) cond
    label (; step) timestamp            the time of that earlier step; only inside a `when` of its chain

Arrays
    filter (array, cond; level)         the elements for which it holds
    map (array, body; level)            an array body is flattened; nulls are dropped
    top bottom (array, key, n; level)   binds in the key only; null keys are skipped, ties keep their order
    group_by (array, key; level)        objects {key, values: array}; binds in the key only; null keys are one group
    distinct (array);  intersection (a, b);  head (array), the first element
    count (array) number
    sum average min max (array, body; level)        skip nulls; the sum of nothing is 0, the others are null; min and
                                        max also take dates, timestamps and text
    chain (array, time, what, …, when, …; level, steps) cond        `steps` conds over the element, then as many
                                        over `element(level)` and `label`; a step without `when` has `const true`
    join (array, f, …, h, g, …, k, …; level, equations, ops) cond       whether an element has f = g for each of the
                                        equations, and h op k for each of the ops (< <= > >=); binds in f and h. Only
                                        made from `exists`, by a plan

Maps
    get (map, key), keys (map), values (map)
"""

from collections.abc import Iterator
from typing import Any, Final

from app.pql.schema import Scalar, Type

PROFILE_ID: Final = "__profile"
"""The profile field that holds the id, `namespace:id`; expressions cannot name it."""

BINDERS: Final = frozenset(
    {"exists", "forall", "map", "filter", "top", "bottom", "group_by", "to_map", "sum", "average"}
    | {"min", "max", "chain", "join"}
)
"""Operations whose payload starts with the level they bind."""

CONDITIONS: Final = frozenset(
    [
        *("truth", "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "is_null", "is_not_null", "in_segment"),
        "sample",
        *("in", "not_in", "not_empty", "exists", "forall", "chain", "join"),
        *("intersects", "subset_of", "superset_of", "set_eq", "set_ne"),
        *("like", "not_like", "starts_with", "ends_with", "contains", "equals", "matches", "compare"),
        *("not_starts_with", "not_ends_with", "not_contains", "not_equals"),
        *("occurs", "occurs_before", "occurs_after", "occurs_on", "occurs_between"),
    ]
)
"""Operations that return a condition, in addition to `const` of true or false."""

UNBOUND_OPERANDS: Final = {"top": (0, 2), "bottom": (0, 2)}
"""Operands that a binder evaluates outside the level it binds; for binders not listed, only the first (the array)."""


class Node:
    """One operation on other nodes; immutable. Equal nodes from one `Builder` are the same object.

    `free` holds the levels that it reads but does not bind, and `level` is the deepest of them (-1 without any).
    `outside` are the operands that are evaluated outside the level it binds. `has_binder` is true if it or any node
    below it iterates over an array.
    """

    __slots__ = ("free", "has_binder", "hash", "level", "op", "operands", "outside", "payload", "type")

    def __init__(self, op: str, type_: Type, operands: tuple["Node", ...] = (), payload: tuple[Any, ...] = ()) -> None:
        self.op: Final = op
        self.type: Final = type_
        self.operands: Final = operands
        self.payload: Final = payload
        self.outside: Final = tuple(operands[at] for at in self.unbound()) if op in BINDERS else operands
        self.free: Final = _free_levels(self)
        self.level: Final[int] = max(self.free, default=-1)
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
        """Indexes of the operands that are evaluated outside the level this node binds."""
        if self.op == "join":
            return (0, *range(2 + self.payload[1], len(self.operands)))
        return UNBOUND_OPERANDS.get(self.op, (0,)) if self.op in BINDERS else tuple(range(len(self.operands)))


class Builder:
    """Creates nodes, one object per distinct node. Share one builder among all definitions of a job."""

    def __init__(self) -> None:
        self._nodes: dict[Node, Node] = {}

    def node(self, op: str, type_: Type, *operands: Node, payload: tuple[Any, ...] = ()) -> Node:
        created = Node(op, type_, operands, payload)
        return self._nodes.setdefault(created, created)

    def condition(self, op: str, *operands: Node, payload: tuple[Any, ...] = ()) -> Node:
        return self.node(op, Scalar.BOOLEAN, *operands, payload=payload)

    def constant(self, value: object, type_: Type) -> Node:
        return self.node("const", type_, payload=(value,))


def walk(node: Node) -> Iterator[Node]:
    """Every distinct node reachable from `node`, including itself; operands come before their users."""
    visited: set[Node] = set()
    stack = [(node, False)]
    while stack:
        current, expanded = stack.pop()
        if expanded:
            yield current
        elif current not in visited:
            visited.add(current)
            stack.append((current, True))
            stack.extend((operand, False) for operand in reversed(current.operands))


def _typed(value: object) -> tuple[type, object]:
    """Distinguishes 1.0 from True and a date from a datetime, which Python may treat as equal."""
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
