"""The evaluation of one bucket: computes each (scope, node) once and drops it after its last user; knows no operations.

A node is evaluated in the scope of its deepest free level, regardless of its position, so anything independent of an
inner element is computed outside it. Expansions with too many rows are evaluated in slices of their scope.
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
"""Expanding an array for each element of another is split into slices of about this many rows."""
ROWS_AT_MOST = 1 << 26
"""Expansions above this size for a single profile are rejected (256 GB of pairs)."""

_PATHS = frozenset({"element", "field"})
_SEES_NULL = frozenset({"is_null", "is_not_null", "if", "truth", "array", "typed"})


@dataclass(slots=True, frozen=True)
class Call:
    """The context of a row kernel: `n` is the number of requested rows."""

    node: Node
    n: int
    instant: Instant


RowKernel = Callable[..., Value]
BinderKernel = Callable[["Evaluation", Node, RowSpace], Value]


@dataclass(slots=True, frozen=True)
class Kernels:
    """The implementations of operations: on values of one scope, or with a scope of their own."""

    rows: Mapping[str, RowKernel]
    binders: Mapping[str, BinderKernel]


@dataclass(slots=True, frozen=True)
class Environment:
    """What an evaluation needs besides its columns: `member(id)` returns the members of another segment, one boolean
    per row of the bucket; `cancelled` tells whether to stop."""

    instant: Instant
    member: Callable[[str], Bools]
    cancelled: Callable[[], bool]


class Evaluation:
    """Values of nodes over `n` profiles, each computed once. `users` is the number of nodes that use a node."""

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
        """The node's value in the scope of its deepest level, as seen from `scope`.

        Uses a loop instead of recursion, since sums and conjunctions may have thousands of operands.
        """
        home = scope.at(node.level)
        if home.known(node) is None:
            self._compute(node, home)
        return _narrow_enough(home.memo[node])

    def operand(self, node: Node, scope: RowSpace) -> Value:
        """The node's value, broadcast to the rows of `scope` (or a constant)."""
        home = scope.at(node.level)
        value = self.value(node, scope)
        return value if home is scope or home.level < 0 else self._laid_out(value, home, scope)

    def mask(self, node: Node, scope: RowSpace) -> Bools:
        """A condition as one boolean per row of `scope`."""
        value = self.operand(node, scope)
        if not isinstance(value, Column):
            raise TypeError(f"{node.op} is not a condition")
        values = value.values if value.valid is None else value.values & value.valid
        return values if len(values) == scope.n else np.broadcast_to(values, scope.n)

    def array(self, node: Node, scope: RowSpace) -> Array:
        """An array with one entry per row of `scope`; the literal null is a missing array."""
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
        """Drops nodes from all scopes."""
        for scope in [self.root.at(-1), *self.root.all_below()]:
            for node in filter(scope.holds, nodes):
                value = scope.drop(node)
                if node.op not in _PATHS:
                    self.spending.release(value)

    def _compute(self, node: Node, home: RowSpace) -> None:
        """Computes a node and what it needs, each in its own scope."""
        stack = [(node, home)]
        while stack:
            current, scope = stack[-1]
            if current in scope.memo:
                stack.pop()
                continue
            missing = [(o, of) for o in current.outside if (of := scope.at(o.level)).known(o) is None]
            if missing:
                stack.extend(missing)
                continue
            stack.pop()
            self.check_cancelled()
            value = self._computed(current, scope)
            scope.memo[current] = value
            if current.op not in _PATHS:
                self.spending.hold(value)
            self._release(current, scope)

    def _computed(self, node: Node, home: RowSpace) -> Value | TooWide:
        try:
            return spread(self._kernel(node, home), home.n)
        except TooWide as wide:
            wide.with_traceback(None)  # its frames would keep the expanded values alive
            if not isinstance(node.type, Scalar) or node.type is Scalar.INTERVAL:
                return wide  # the operation that reduces it to one value per row will use slices
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
        """Broadcasts an outer value to the rows of an inner scope."""
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
        """Decrements each operand's reference count and drops values that are no longer needed, except paths (views of
        stored columns)."""
        if self._keeps_all:
            return
        inner = None
        if node.op in BINDERS:
            inner = home.children.get(node.operands[0], {}).get(node.payload[0])
        for operand in node.operands if len(node.operands) == 1 else set(node.operands):
            scope = home if operand in node.outside else inner
            if operand.op in _PATHS or scope is None:
                continue
            at = scope.at(operand.level)
            if home.is_slice and not at.is_slice:
                continue  # the next slice needs it too
            remaining = at.left.get(operand, self._users.get(operand, 0)) - 1
            at.left[operand] = remaining
            if remaining <= 0:
                self.spending.release(at.drop(operand))


def _narrow_enough(value: Value | TooWide) -> Value:
    if isinstance(value, TooWide):
        raise value
    return value
