"""Inputs that several lists share: tests on texts and times, and directions of an order."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any

import strawberry

from app.api.described import enum_value
from app.api.global_ids import need_id
from app.api.scalars import given
from app.services.lists import filters


@strawberry.enum(description="Direction of an order.")
class OrderDirection(Enum):
    ASC = enum_value("ASC", description="Smallest, oldest or first in the alphabet first.")
    DESC = enum_value("DESC", description="Largest, newest or last in the alphabet first.")


@strawberry.input(description="Tests on a text. All that are given must hold.")
class StringFilter:
    eq: str | None = strawberry.field(default=strawberry.UNSET, description="Is exactly this.")
    ne: str | None = strawberry.field(default=strawberry.UNSET, description="Is anything but this.")
    in_: list[str] | None = strawberry.field(default=strawberry.UNSET, name="in", description="Is one of these.")
    contains: str | None = strawberry.field(
        default=strawberry.UNSET, description="Contains this, in upper or lower case."
    )
    starts_with: str | None = strawberry.field(
        default=strawberry.UNSET, description="Begins with this, in upper or lower case."
    )


@strawberry.input(description="Tests on an instant. All that are given must hold.")
class DateTimeFilter:
    eq: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is this instant.")
    lt: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is before it.")
    lte: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is before it, or it.")
    gt: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is after it.")
    gte: datetime | None = strawberry.field(default=strawberry.UNSET, description="Is after it, or it.")


def text_filter(value: StringFilter | None) -> filters.StringFilter:
    if value is None or value is strawberry.UNSET:
        return filters.StringFilter()
    one_of = given(value.in_)
    return filters.StringFilter(
        eq=given(value.eq),
        ne=given(value.ne),
        in_=None if one_of is None else tuple(one_of),
        contains=given(value.contains),
        starts_with=given(value.starts_with),
    )


def time_filter(value: DateTimeFilter | None) -> filters.DateTimeFilter:
    if value is None or value is strawberry.UNSET:
        return filters.DateTimeFilter()
    return filters.DateTimeFilter(
        eq=given(value.eq), lt=given(value.lt), lte=given(value.lte), gt=given(value.gt), gte=given(value.gte)
    )


def names(values: Sequence[Enum] | None) -> tuple[str, ...] | None:
    """Members of an enum of the API as services take them; None for no choice."""
    return None if given(values) is None else tuple(value.value for value in values or ())


def one_name(value: Enum | None) -> str | None:
    chosen = given(value)
    return None if chosen is None else str(chosen.value)


def one_id(type_name: str, value: strawberry.ID | None, *path: str) -> str | None:
    return None if given(value) is None or value is None else need_id(type_name, value, *path)


def many_ids(type_name: str, values: Sequence[strawberry.ID] | None, *path: str) -> tuple[str, ...] | None:
    """Raw ids, each with its place in the list as its path."""
    if given(values) is None:
        return None
    return tuple(need_id(type_name, value, *path, str(at)) for at, value in enumerate(values or ()))


def ordered(order: Any) -> filters.OrderBy | None:
    """Any input with `field` and `direction`; None for the order that the list has by itself."""
    if not given(order):
        return None
    return filters.OrderBy(order.field.value, order.direction is OrderDirection.DESC)
