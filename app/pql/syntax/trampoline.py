"""Runs recursive functions without using Python's stack; knows nothing about what they walk."""

from collections.abc import Generator
from typing import Any, TypeAlias, TypeVar

Result = TypeVar("Result")

Walking: TypeAlias = Generator[Any, Any, Result]
"""A walk in steps: it yields other walks, receives their results, and returns its own result."""


def run(walk: Walking[Result]) -> Result:
    """Runs a generator that yields generators of its own kind and receives their results.

    A walk over a tree reads like recursion (`left = yield walk(tree.left)`), but no text within the limits, such as
    10,000 terms joined by `+`, can overflow the stack.

    >>> def height(tree):
    ...     tallest = 0
    ...     for branch in tree:
    ...         tallest = max(tallest, (yield height(branch)))
    ...     return 1 + tallest
    >>> run(height([[], [[]]]))
    3
    """
    stack: list[Walking[Any]] = [walk]
    value: Any = None
    while True:
        try:
            deeper = stack[-1].send(value)
        except StopIteration as done:
            stack.pop()
            value = done.value
            if not stack:
                result: Result = value
                return result
        else:
            stack.append(deeper)
            value = None
