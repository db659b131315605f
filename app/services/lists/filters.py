"""Filters and orders shared by several lists, as conditions on a column."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func


@dataclass(frozen=True, slots=True)
class StringFilter:
    """All given conditions must match. `contains` and `starts_with` ignore case."""

    eq: str | None = None
    ne: str | None = None
    in_: Collection[str] | None = None
    contains: str | None = None
    starts_with: str | None = None

    def on(self, column: ColumnElement[Any]) -> Iterator[ColumnElement[bool]]:
        text = func.coalesce(column, "")
        if self.eq is not None:
            yield text == self.eq
        if self.ne is not None:
            yield text != self.ne
        if self.in_ is not None:
            yield text.in_(list(self.in_))
        if self.contains is not None:
            yield text.icontains(self.contains, autoescape=True)
        if self.starts_with is not None:
            yield text.istartswith(self.starts_with, autoescape=True)


@dataclass(frozen=True, slots=True)
class DateTimeFilter:
    """All given conditions must match; instants are timezone-aware."""

    eq: datetime | None = None
    lt: datetime | None = None
    lte: datetime | None = None
    gt: datetime | None = None
    gte: datetime | None = None

    def on(self, column: ColumnElement[Any]) -> Iterator[ColumnElement[bool]]:
        if self.eq is not None:
            yield column == self.eq
        if self.lt is not None:
            yield column < self.lt
        if self.lte is not None:
            yield column <= self.lte
        if self.gt is not None:
            yield column > self.gt
        if self.gte is not None:
            yield column >= self.gte


@dataclass(frozen=True, slots=True)
class OrderBy:
    """A field of the list's order enum, and a direction."""

    field: str
    descending: bool = False

    @property
    def name(self) -> str:
        """The name stored in cursors."""
        return f"{self.field} {'DESC' if self.descending else 'ASC'}"
