"""Keyset pagination, which stays correct while rows are added and deleted; knows no resource.

A cursor contains the sort keys of a row, so a page starts at a *place* in the order even if that row no longer exists.
"""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, overload

from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import ErrorCode, Refusal
from app.services.lists.validation import is_text

DEFAULT_PAGE = 50
LARGEST_PAGE = 500

_NOT_A_CURSOR = "{!r} is not a cursor: send back one that a page of this list gave"
_LARGEST_ORDINAL = 1 << 32
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

T = TypeVar("T")

Cursor = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page request: `limit` items after `cursor`, or before it if `backward`. Without a cursor it starts at that end
    of the list."""

    limit: int = DEFAULT_PAGE
    backward: bool = False
    cursor: str | None = None
    columns: frozenset[str] | None = None
    """Those that are needed of the rows of a list in the database; None for all."""
    cursors: bool = True
    """Whether the cursors of a list in the database are needed; without them, its sort keys are not selected."""
    alone: bool = False
    """Whether nothing else is read together with the page, so that it may be read without a transaction."""

    @property
    def argument(self) -> str:
        """The argument that contained the cursor."""
        return "before" if self.backward else "after"


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """A page: items in list order, with the cursor of each."""

    items: list[T]
    cursors: Sequence[str]
    has_next: bool
    has_previous: bool


PageReader: TypeAlias = Callable[[AsyncSession, PageRequest], Awaitable[Slice[T]]]
"""Reads one page of a list in an open session."""


def page_request(
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
    default: int = DEFAULT_PAGE,
    maximum: int = LARGEST_PAGE,
) -> PageRequest:
    """Converts Relay's arguments to one request. Raises `Refusal` for invalid combinations."""
    for name, size in (("first", first), ("last", last)):
        if size is not None and size < 0:
            raise Refusal(ErrorCode.INVALID_INPUT, f"`{name}` is {size}, but a page has 0 items or more", (name,))
        if size is not None and size > maximum:
            message = f"`{name}` is {size}, but a page has at most {maximum} items: ask for several pages"
            raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, (name,))
    backward = last is not None or before is not None
    if backward and (first is not None or after is not None):
        message = "`first` and `after` go forward, `last` and `before` go backward: use one of the pairs"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("last" if last is not None else "before",))
    if backward:
        return PageRequest(default if last is None else last, True, before)
    return PageRequest(default if first is None else first, False, after)


def encode_cursor(order: str, values: Sequence[object]) -> str:
    """
    >>> decode_cursor("NAME", encode_cursor("NAME", ["Zoë", 3]), "after")
    ('Zoë', 3)
    """
    plain = [{"t": value.isoformat()} if isinstance(value, datetime) else value for value in values]
    return base64.urlsafe_b64encode(_JSON.encode([order, *plain]).encode()).decode().rstrip("=")


def decode_cursor(order: str, cursor: str, argument: str) -> Cursor:
    """The sort keys in a cursor. Raises `Refusal` if the text is not a cursor of this list and order."""
    try:
        packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        name, *plain = json.loads(packed)
        values = tuple(datetime.fromisoformat(value["t"]) if isinstance(value, dict) else value for value in plain)
        if not all(map(_may_be_compared, values)):
            raise ValueError
    except (ValueError, binascii.Error, TypeError, KeyError):
        raise Refusal(ErrorCode.INVALID_INPUT, _NOT_A_CURSOR.format(cursor), (argument,)) from None
    if name != order:
        message = f"the cursor belongs to a list in the order {name}, and this one is in the order {order}"
        raise Refusal(ErrorCode.INVALID_INPUT, message, (argument,))
    return values


def not_a_cursor(request: PageRequest) -> Refusal:
    """The error for a cursor of the right order whose values no item of the list can have."""
    return Refusal(ErrorCode.INVALID_INPUT, _NOT_A_CURSOR.format(request.cursor), (request.argument,))


def decode_person(order: str, request: PageRequest) -> tuple[int, int] | None:
    """The bucket (or its index) and the ordinal in a request's cursor; None without a cursor.

    Raises `Refusal` like `decode_cursor`.
    """
    if request.cursor is None:
        return None
    place = decode_cursor(order, request.cursor, request.argument)
    if not is_person(place):
        raise not_a_cursor(request)
    return int(place[0]), int(place[1])


def is_person(place: Sequence[object]) -> bool:
    """Whether the values are a bucket and an ordinal.

    >>> is_person((3, 17)), is_person((3, -1)), is_person((3,)), is_person((True, 1))
    (True, False, False, False)
    """
    return len(place) == 2 and all(type(value) is int and 0 <= value < _LARGEST_ORDINAL for value in place)


def _may_be_compared(value: object) -> bool:
    """Whether a database accepts the value as a parameter: storable text, 64-bit integers, times with a zone. Each list
    checks the expected types itself."""
    match value:
        case str():
            return is_text(value)
        case int():
            return -(2**63) <= value < 2**63
        case datetime():
            return value.tzinfo is not None
        case _:
            return True


def slice_of(items: Mapping[str, T], request: PageRequest, has_next: bool, behind: bool) -> Slice[T]:
    """A page of items that were read without SQL, keyed by cursor, in the direction of the request."""
    cursors, values = list(items), list(items.values())
    if request.backward:
        return Slice(values[::-1], cursors[::-1], has_next=behind, has_previous=has_next)
    return Slice(values, cursors, has_next=has_next, has_previous=behind)


class Cursors(Sequence[str]):
    """The cursors of a page's items. Each is encoded only when accessed, since most clients read just the last one."""

    def __init__(self, encode: Callable[[Any], str], items: Sequence[object]) -> None:
        self._encode = encode
        self._items = items

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return Cursors(self._encode, self._items[at])
        return self._encode(self._items[at])
