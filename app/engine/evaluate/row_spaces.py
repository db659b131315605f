"""Row spaces of an evaluation: profiles, their events, the items of those events; knows no operations.

A scope is where the nodes of one level are evaluated. Its rows are the elements of an array; `outer` is the scope in
which the array was expanded (for the profile: one constant row), and `parent` maps to its rows. The memo of a scope
holds its computed values.
"""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import numpy as np

from app.engine.evaluate.columns import Array, Index, Object, Rows, Value
from app.pql.core import Node

Derived = TypeVar("Derived")


class TooWide(Exception):
    """Expanding arrays for each row of `scope` would exceed the number of rows held at a time."""

    def __init__(self, scope: "RowSpace", sizes: Index) -> None:
        super().__init__(f"{int(sizes.sum())} rows")
        self.scope = scope
        self.sizes = sizes


class RowSpace:
    """`element` has one entry per row. A slice is a part of a scope that is evaluated separately and then dropped.

    `across` is a scope of the same level whose rows include these, with their positions in it: values known there only
    need to be gathered. `picked` holds, for filters of arrays expanded here, the elements they keep.
    """

    def __init__(self, level: int, n: int, outer: "RowSpace | None", rows: Rows | None, element: Value | None) -> None:
        self.level = level
        self.n = n
        self.outer = outer
        self.rows = rows
        self.element = element
        self.across: tuple[RowSpace, Index] | None = None
        self.is_slice: bool = outer is not None and outer.is_slice
        self.unlimited: bool = outer is not None and outer.unlimited
        self.memo: dict[Node, Value | TooWide] = {}
        self.left: dict[Node, int] = {}
        self.children: dict[Node, dict[int, RowSpace]] = {}
        self.picked: dict[Node, Index] = {}
        self._derived: dict[Node, dict[Hashable, Any]] = {}
        self._from: dict[int, Index] = {}

    def at(self, level: int) -> "RowSpace":
        """This or an enclosing scope with the given level, or else with the next lower one."""
        scope = self
        while scope.level > level and scope.outer is not None:
            scope = scope.outer
        return scope

    def index_into(self, above: "RowSpace") -> Index:
        """For each row, the row of an enclosing scope."""
        index = self._from.get(above.level)
        if index is None:
            if self.rows is None or self.outer is None:
                raise LookupError(f"level {above.level} is not around level {self.level}")
            parent = self.rows.parent
            index = parent if self.outer is above else self.outer.index_into(above)[parent]
            self._from[above.level] = index
        return index

    def child(self, node: Node, level: int, array: Array) -> "RowSpace":
        """The scope of the elements of an array that is expanded here."""
        by_level = self.children.setdefault(node, {})
        scope = by_level.get(level)
        if scope is None:
            scope = RowSpace(level, len(array.rows.parent), self, array.rows, array.element)
            by_level[level] = scope
        return scope

    def known(self, node: Node) -> "Value | TooWide | None":
        """The value of a node of this level, if known here or in the scope that this one was picked from."""
        value = self.memo.get(node)
        if value is None and self.across is not None and node.op != "element":
            scope, index = self.across
            value = scope.known(node)
            if value is None or isinstance(value, TooWide):
                return None
            self.memo[node] = value = value.take(index)
        return value

    def derived(self, node: Node, name: Hashable, make: Callable[[], Derived]) -> Derived:
        """Cached results that operations derive from a node's value here, kept as long as that value."""
        of_node = self._derived.setdefault(node, {})
        if name not in of_node:
            of_node[name] = make()
        result: Derived = of_node[name]
        return result

    def holds(self, node: Node) -> bool:
        """Whether there is anything for `drop` to forget."""
        return node in self.memo or bool(self.children and node in self.children) or node in self._derived

    def drop(self, node: Node) -> "Value | TooWide | None":
        """Forgets the value of a node, with all that was derived from it, and returns it (None if unknown)."""
        self.children.pop(node, None)
        self.picked.pop(node, None)
        self._derived.pop(node, None)
        return self.memo.pop(node, None)

    def sliced(self, start: int, stop: int) -> "RowSpace":
        """The rows from `start` to `stop` (exclusive), as a separate scope."""
        index = np.arange(start, stop)
        rows = None if self.rows is None else self.rows.narrowed(index)
        element = None if self.element is None else self.element.take(index)
        part = RowSpace(self.level, stop - start, self.outer, rows, element)
        part.is_slice = True
        part.unlimited = self.unlimited or stop - start == 1
        return part

    def forget(self) -> None:
        """Drops everything known here and below. Scopes reference each other in cycles, which the garbage collector
        would free late."""
        for scope in list(self.all_below()):
            scope.memo.clear()
            scope.children.clear()
            scope._derived.clear()
            scope.across = None

    def person_rows(self) -> Index | None:
        """For the profiles' scope: its rows of the bucket (None: all)."""
        return self.element.index if isinstance(self.element, Object) else None

    def all_below(self) -> "Iterator[RowSpace]":
        yield self
        for by_level in list(self.children.values()):
            for scope in list(by_level.values()):
                yield from scope.all_below()


def cuts(sizes: Index, limit: int) -> list[int]:
    """Boundaries of slices of rows whose sizes add up to at most `limit`; a larger row forms its own slice.

    >>> cuts(np.array([3, 3, 3, 9, 1]), 6), cuts(np.array([1, 5, 1, 1, 5]), 6)
    ([0, 2, 3, 4, 5], [0, 2, 4, 5])
    """
    total = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        before = int(total[start - 1]) if start else 0
        bounds.append(max(start + 1, int(np.searchsorted(total, before + limit, side="right"))))
    return bounds
