"""Inputs shared by several lists: string and time filters, and sort directions."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum, StrEnum
from typing import Any, TypeVar

import strawberry

from app.api.described import enum_value
from app.api.global_ids import need_id
from app.api.scalars import given
from app.services.lists import filters

Text = TypeVar("Text", bound=StrEnum)


@strawberry.enum(description="Sort direction.")
class OrderDirection(Enum):
    ASC = enum_value("ASC", description="Ascending: smallest, oldest or alphabetically first.")
    DESC = enum_value("DESC", description="Descending: largest, newest or alphabetically last.")


@strawberry.input(description="Conditions on a text; all given conditions must match.")
class StringFilter:
    eq: str | None = strawberry.field(default=strawberry.UNSET, description="Equals this text.")
    ne: str | None = strawberry.field(default=strawberry.UNSET, description="Differs from this text.")
    in_: list[str] | None = strawberry.field(default=strawberry.UNSET, name="in", description="Equals one of these.")
    contains: str | None = strawberry.field(default=strawberry.UNSET, description="Contains this text, ignoring case.")
    starts_with: str | None = strawberry.field(
        default=strawberry.UNSET, description="Starts with this text, ignoring case."
    )


@strawberry.input(description="Conditions on a time; all given conditions must match.")
class DateTimeFilter:
    eq: datetime | None = strawberry.field(default=strawberry.UNSET, description="Equals this time.")
    lt: datetime | None = strawberry.field(default=strawberry.UNSET, description="Before this time.")
    lte: datetime | None = strawberry.field(default=strawberry.UNSET, description="At or before this time.")
    gt: datetime | None = strawberry.field(default=strawberry.UNSET, description="After this time.")
    gte: datetime | None = strawberry.field(default=strawberry.UNSET, description="At or after this time.")


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
    """Enum values of the API as services take them; None if nothing was chosen."""
    return None if given(values) is None else tuple(value.value for value in values or ())


def one_name(value: Enum | None) -> str | None:
    member = given(value)
    return None if member is None else str(member.value)


def one_of(members: type[Text], value: Enum | None) -> Text | None:
    """The member of the stored enum for a value of the schema's enum."""
    name = one_name(value)
    return None if name is None else members(name)


def one_id(type_name: str, value: strawberry.ID | None, *path: str) -> str | None:
    return None if given(value) is None or value is None else need_id(type_name, value, *path)


def many_ids(type_name: str, values: Sequence[strawberry.ID] | None, *path: str) -> tuple[str, ...] | None:
    """Raw ids, each with its list index as its error path."""
    if given(values) is None:
        return None
    return tuple(need_id(type_name, value, *path, str(at)) for at, value in enumerate(values or ()))


def ordered(order: Any) -> filters.OrderBy | None:
    """Any input with `field` and `direction`; None means the list's default order."""
    if not given(order):
        return None
    return filters.OrderBy(order.field.value, order.direction is OrderDirection.DESC)
