"""Row spaces of an evaluation: the people, their events, the items of those events; knows no operations.

A scope is the place where the nodes of one level are evaluated. Its rows are the elements of an array; `outer` is the
scope that the array was laid out in (for the profile: one constant row), `parent` the row there. What is known of a
scope stands in its memo.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from app.engine.evaluate.columns import Array, Index, Object, Rows, Value
from app.pql.core import Node

Derived = TypeVar("Derived")


class TooWide(Exception):
    """Laying out arrays for each row of `scope` would take more rows than are held at a time."""

    def __init__(self, scope: "RowSpace", sizes: Index) -> None:
        super().__init__(f"{int(sizes.sum())} rows")
        self.scope = scope
        self.sizes = sizes


class RowSpace:
    """`element` has one entry for each row. A slice is a part of a scope, evaluated on its own and then forgotten.

    `across` is a scope of the same level whose rows include these, and where they are in it: what is known there need
    only be picked. `picked` holds, for the filters of arrays that are laid out here, which elements they let through.
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
        self._derived: dict[tuple[str, Node], Any] = {}
        self._from: dict[int, Index] = {}

    def at(self, level: int) -> "RowSpace":
        """This scope or the one around it that has the level, or else the next lower one."""
        scope = self
        while scope.level > level and scope.outer is not None:
            scope = scope.outer
        return scope

    def index_into(self, above: "RowSpace") -> Index:
        """For each row here the row of a scope around it."""
        index = self._from.get(above.level)
        if index is None:
            if self.rows is None or self.outer is None:
                raise LookupError(f"level {above.level} is not around level {self.level}")
            parent = self.rows.parent
            index = parent if self.outer is above else self.outer.index_into(above)[parent]
            self._from[above.level] = index
        return index

    def child(self, node: Node, level: int, array: Array) -> "RowSpace":
        """The scope of the elements of an array that is laid out here."""
        by_level = self.children.setdefault(node, {})
        scope = by_level.get(level)
        if scope is None:
            scope = RowSpace(level, len(array.rows.parent), self, array.rows, array.element)
            by_level[level] = scope
        return scope

    def known(self, node: Node) -> "Value | TooWide | None":
        """What is known of a node of this level, here or in the scope that this one was picked from."""
        value = self.memo.get(node)
        if value is None and self.across is not None and node.op != "element":
            scope, index = self.across
            value = scope.known(node)
            return None if value is None or isinstance(value, TooWide) else value.take(index)
        return value

    def derived(self, name: tuple[str, Node], make: Callable[[], Derived]) -> Derived:
        """What operations find out about a node's values here, once for all of them."""
        if name not in self._derived:
            self._derived[name] = make()
        known: Derived = self._derived[name]
        return known

    def sliced(self, start: int, stop: int) -> "RowSpace":
        """The rows from `start` to before `stop`, as a scope of its own."""
        index = np.arange(start, stop)
        rows = None if self.rows is None else self.rows.narrowed(index)
        element = None if self.element is None else self.element.take(index)
        part = RowSpace(self.level, stop - start, self.outer, rows, element)
        part.is_slice = True
        part.unlimited = self.unlimited or stop - start == 1
        return part

    def forget(self) -> None:
        """Lets go of all that is known here and below: scopes refer to one another in circles, which the garbage
        collector would find late."""
        for scope in list(self.all_below()):
            scope.memo.clear()
            scope.children.clear()
            scope._derived.clear()
            scope.across = None

    def person_rows(self) -> Index | None:
        """For the profiles' scope: which of the bucket's rows these are (all of them: None)."""
        return self.element.index if isinstance(self.element, Object) else None

    def all_below(self) -> "Iterator[RowSpace]":
        yield self
        for by_level in list(self.children.values()):
            for scope in list(by_level.values()):
                yield from scope.all_below()


def cuts(sizes: Index, limit: int) -> list[int]:
    """Boundaries of slices of rows whose sizes add up to about `limit` at most; a row that is larger stands alone.

    >>> cuts(np.array([3, 3, 3, 9, 1]), 6)
    [0, 2, 3, 4, 5]
    """
    total = np.cumsum(sizes)
    bounds = [0]
    while bounds[-1] < len(sizes):
        start = bounds[-1]
        before = int(total[start - 1]) if start else 0
        bounds.append(max(start + 1, int(np.searchsorted(total, before + limit, side="right"))))
    return bounds
