"""Strawberry's decorators with a mandatory description, and with types that mypy understands."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import strawberry

F = TypeVar("F", bound=Callable[..., Any])


def resolver(description: str) -> Callable[[F], F]:
    """A field with a resolver method."""
    return cast(Callable[[F], F], strawberry.field(description=description))


def mutation(description: str) -> Callable[[F], F]:
    return cast(Callable[[F], F], strawberry.mutation(description=description))


def subscription(description: str) -> Callable[[F], F]:
    return cast(Callable[[F], F], strawberry.subscription(description=description))


def enum_value(value: str, description: str) -> str:
    """An enum member; its value is the text used in services and tables."""
    return cast(str, strawberry.enum_value(value, description=description))
