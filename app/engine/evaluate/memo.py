"""The evaluation of one bucket: each (scope, node) once, dropped after its last user; knows no meaning of an operation.

A node is evaluated in the scope of its deepest free level, wherever it stands, so whatever does not depend on an inner
element is computed outside of it. What would lay out too many rows at a time is evaluated in slices of its scope.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from app.engine.evaluate.calendars import Instant
from app.engine.evaluate.columns import (
    Array,
    Bools,
    Column,
    Map,
    Object,
    Rows,
    Source,
    Value,
    condition,
    nulls,
    spread,
    stacked,
)
from app.engine.evaluate.failure import EvaluationError
from app.engine.evaluate.row_spaces import RowSpace, TooWide, cuts
from app.engine.evaluate.spending import Spending
from app.engine.limits.budget import DEFAULT_BUDGET, Budget
from app.engine.limits.pool import Cancelled
from app.pql.core import BINDERS, Node
from app.pql.schema import Scalar

ROWS_AT_ONCE = 1 << 21
"""Laying out an array for each element of another goes in slices of about so many rows."""
ROWS_AT_MOST = 1 << 26
"""More than this for a single person is refused (256 GB of pairs are of no use to anybody)."""

_PATHS = frozenset({"element", "field"})
_SEES_NULL = frozenset({"is_null", "is_not_null", "if", "truth", "array", "typed"})


@dataclass(slots=True, frozen=True)
class Call:
    """What a row kernel is told beside its operands: `n` rows are asked for."""

    node: Node
    n: int
    instant: Instant


RowKernel = Callable[..., Value]
BinderKernel = Callable[["Evaluation", Node, RowSpace], Value]


@dataclass(slots=True, frozen=True)
class Kernels:
    """What the operations do: on values of one scope, or on a scope of their own."""

    rows: Mapping[str, RowKernel]
    binders: Mapping[str, BinderKernel]


@dataclass(slots=True, frozen=True)
class Environment:
    """What an evaluation asks besides its columns: `member(id)` tells who is in another segment, by row of the bucket,
    `cancelled` whether to stop."""

    instant: Instant
    member: Callable[[str], Bools]
    cancelled: Callable[[], bool]


class Evaluation:
    """Values of nodes over `n` profiles, each computed once. `users` says how many nodes use a node."""

    def __init__(
        self,
        kernels: Kernels,
        profiles: Source,
        n: int,
        environment: Environment,
        *,
        users: Mapping[Node, int] | None = None,
        rows_at_once: int = ROWS_AT_ONCE,
        budget: Budget = DEFAULT_BUDGET,
    ) -> None:
        self._kernels = kernels
        self._environment = environment
        self._users = Counter() if users is None else users
        self._keeps_all = users is None
        self._rows_at_once = rows_at_once
        self.spending = Spending(budget)
        unit = RowSpace(-1, 1, None, None, None)
        self.root = RowSpace(0, n, unit, Rows(1, np.zeros(n, np.intp)), Object(profiles, n))

    def value(self, node: Node, scope: RowSpace) -> Value:
        """The node's value in the scope of its deepest level, seen from `scope`.

        A loop, not a recursion: sums and conjunctions may have thousands of members.
        """
        stack = [node]
        while stack:
            current = stack[-1]
            home = home_of(current, scope)
            cached = home.known(current)
            if cached is not None:
                home.memo.setdefault(current, cached)
                stack.pop()
                continue
            missing = [o for o in _unbound(current) if home_of(o, home).known(o) is None]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self.check_cancelled()
            value = self._computed(current, home)
            home.memo[current] = value
            if current.op not in _PATHS:
                self.spending.hold(value)
            self._release(current, home)
        return _narrow_enough(home_of(node, scope).memo[node])

    def operand(self, node: Node, scope: RowSpace) -> Value:
        """The node's value with a row for each of `scope` (or a constant)."""
        value = self.value(node, scope)
        home = home_of(node, scope)
        return value if home is scope or home.level < 0 else self._laid_out(value, home, scope)

    def mask(self, node: Node, scope: RowSpace) -> Bools:
        """A condition as one boolean for each row of `scope`."""
        value = self.operand(node, scope)
        if not isinstance(value, Column):
            raise TypeError(f"{node.op} is not a condition")
        values = value.values if value.valid is None else value.values & value.valid
        return values if len(values) == scope.n else np.broadcast_to(values, scope.n)

    def array(self, node: Node, scope: RowSpace) -> Array:
        """An array with a row for each of `scope`; the literal null is a missing one."""
        value = self.operand(node, scope)
        if isinstance(value, Array):
            return value if len(value) == scope.n else value.take(np.zeros(scope.n, np.intp))
        return Array(Rows(scope.n, np.zeros(0, np.intp)), nulls(Scalar.NULL, 0), np.zeros(scope.n, np.bool_))

    def elements(self, node: Node, level: int, scope: RowSpace) -> tuple[Array, RowSpace]:
        """An array and the scope of its elements."""
        array = self.array(node, scope)
        child = scope.child(node, level, array)
        if child.across is None and node.op == "filter" and node.payload[0] == level:
            whole = scope.children.get(node.operands[0], {}).get(level)
            picked = scope.picked.get(node)
            if whole is not None and picked is not None:
                child.across = whole, picked
        return array, child

    def check_cancelled(self) -> None:
        if self._environment.cancelled():
            raise Cancelled("the evaluation was cancelled")
        self.spending.check()

    def drop(self, nodes: frozenset[Node]) -> None:
        """Forgets nodes wherever they are known."""
        for scope in [self.root.at(-1), *self.root.all_below()]:
            for node in nodes & scope.memo.keys():
                value = scope.memo.pop(node)
                if node.op not in _PATHS:
                    self.spending.release(value)
            for node in nodes & scope.children.keys():
                del scope.children[node]

    def _computed(self, node: Node, home: RowSpace) -> Value | TooWide:
        try:
            return spread(self._kernel(node, home), home.n)
        except TooWide as wide:
            wide.with_traceback(None)  # its frames would keep what was laid out so far
            if not isinstance(node.type, Scalar) or node.type is Scalar.INTERVAL:
                return wide  # whoever reduces it to one value for each row will go in slices
            return self._in_slices(node, home, wide)

    def _kernel(self, node: Node, home: RowSpace) -> Value:
        binder = self._kernels.binders.get(node.op)
        if binder is not None:
            return binder(self, node, home)
        if node.op == "element":
            if home.element is None:
                raise LookupError(f"level {node.payload[0]} is not bound")
            return home.element
        if node.op == "in_segment":
            members = self._environment.member(node.payload[0])
            rows = home.person_rows()
            return condition(members if rows is None else members[rows])
        kernel = self._kernels.rows.get(node.op)
        if kernel is None:
            raise EvaluationError("UNSUPPORTED", f"the engine does not implement the operation {node.op}")
        operands = [self.operand(operand, home) for operand in node.operands]
        if node.op not in _SEES_NULL and any(operand.type is Scalar.NULL for operand in node.operands):
            return condition(np.zeros(home.n, np.bool_)) if node.type is Scalar.BOOLEAN else nulls(node.type, home.n)
        return kernel(Call(node, home.n, self._environment.instant), *operands)

    def _laid_out(self, value: Value, home: RowSpace, scope: RowSpace) -> Value:
        """An outer value for each row of an inner scope."""
        index = scope.index_into(home)
        if isinstance(value, Array | Map):
            sizes = value.rows.counts[index]
            total = int(sizes.sum())
            if total > self._rows_at_once and scope.n > 1 and not scope.unlimited:
                raise TooWide(scope, sizes)
            self._refuse_beyond(total)
        return value.take(index)

    def _refuse_beyond(self, total: int) -> None:
        most = min(ROWS_AT_MOST, self.spending.budget.rows)
        if total > most:
            raise EvaluationError(
                "LIMIT_EXCEEDED",
                f"the expression pairs the elements of arrays {total:,} times for one person, more than {most:,}: "
                "filter the arrays before pairing them, or raise SEGMENTATION_DEFINITION_MEMORY",
            )

    def _in_slices(self, node: Node, home: RowSpace, wide: TooWide) -> Value:
        total = int(wide.sizes.sum())
        if home.n <= 1:
            self._refuse_beyond(total)
            bounds = [0, home.n]
        elif wide.scope is home:
            bounds = cuts(wide.sizes, self._rows_at_once)
        else:
            bounds = cuts(np.ones(home.n, np.intp), max(1, home.n * self._rows_at_once // (2 * total)))
        values = []
        for start, stop in pairwise(bounds):
            part, held = home.sliced(start, stop), self.spending.held
            values.append(self.value(node, part))
            part.forget()
            self.spending.held = held
        return stacked(values)

    def _release(self, node: Node, home: RowSpace) -> None:
        """One use less of each operand; what has no users left is forgotten, but for paths (views of stored
        columns)."""
        if self._keeps_all:
            return
        inner = None
        if node.op in BINDERS:
            inner = home.children.get(node.operands[0], {}).get(node.payload[0])
        unbound = set(_unbound(node))
        for operand in set(node.operands):
            scope = home if operand in unbound else inner
            if operand.op in _PATHS or scope is None:
                continue
            at = home_of(operand, scope)
            if home.is_slice and not at.is_slice:
                continue  # the next slice needs it too
            remaining = at.left.get(operand, self._users.get(operand, 0)) - 1
            at.left[operand] = remaining
            if remaining <= 0:
                self.spending.release(at.memo.pop(operand, None))
                at.children.pop(operand, None)
                at.picked.pop(operand, None)


def home_of(node: Node, scope: RowSpace) -> RowSpace:
    """Where a node that is seen from `scope` is evaluated."""
    return scope.at(max(node.free, default=-1))


def _unbound(node: Node) -> list[Node]:
    if node.op not in BINDERS:
        return list(node.operands)
    return [node.operands[at] for at in node.unbound()]


def _narrow_enough(value: Value | TooWide) -> Value:
    if isinstance(value, TooWide):
        raise value
    return value
