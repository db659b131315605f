"""Strawberry's decorators with a description that cannot be left out, and with types that mypy can follow."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry

F = TypeVar("F", bound=Callable[..., Any])


def resolver(description: str) -> Callable[[F], F]:
    """A field that is a method."""
    return cast(Callable[[F], F], strawberry.field(description=description))


def mutation(description: str) -> Callable[[F], F]:
    return cast(Callable[[F], F], strawberry.mutation(description=description))


def subscription(description: str) -> Callable[[F], F]:
    return cast(Callable[[F], F], strawberry.subscription(description=description))


def enum_value(value: str, description: str) -> str:
    """A member of an enum: its value is the text that services and tables use."""
    return cast(str, strawberry.enum_value(value, description=description))
