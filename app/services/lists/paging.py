"""Keyset pagination: pages that stay right while rows come and go; knows no resource.

A cursor holds the sort keys of a row, so a page starts after a *place* in the order, whether or not that row still
exists.
"""

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar, overload

from sqlalchemy import ARRAY, ColumnElement, String, and_, func, literal, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from app.errors import ErrorCode, Refusal
from app.services.lists.validation import is_text
from app.storage.tenancy import AnyRow, AnySelect

DEFAULT_PAGE = 50
LARGEST_PAGE = 500

_NOT_A_CURSOR = "{!r} is not a cursor: send back one that a page of this list gave"
_LARGEST_ORDINAL = 1 << 32

T = TypeVar("T")

Cursor = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class PageRequest:
    """A page asked for: `limit` items after `cursor`, or before it when `backward`; without one from that end."""

    limit: int = DEFAULT_PAGE
    backward: bool = False
    cursor: str | None = None

    @property
    def argument(self) -> str:
        """The argument that the cursor came in."""
        return "before" if self.backward else "after"


@dataclass(frozen=True, slots=True)
class Slice(Generic[T]):
    """A page: items in the order of the list, with the cursor of each."""

    items: list[T]
    cursors: Sequence[str]
    has_next: bool
    has_previous: bool


PageReader: TypeAlias = Callable[[AsyncSession, PageRequest], Awaitable[Slice[T]]]
"""Reads one page of a list in an open session."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key. Its column is never null, and the keys of an order together are unique."""

    column: ColumnElement[Any]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of a list; `name` is written into cursors, so that one of another order is refused."""

    name: str
    keys: tuple[Key, ...]


def page_request(
    first: int | None = None,
    after: str | None = None,
    last: int | None = None,
    before: str | None = None,
    default: int = DEFAULT_PAGE,
    maximum: int = LARGEST_PAGE,
) -> PageRequest:
    """Relay's arguments as one request. Raises `Refusal` for combinations that mean nothing."""
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
    packed = json.dumps([order, *plain], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(packed.encode()).decode().rstrip("=")


def decode_cursor(order: str, cursor: str, argument: str) -> Cursor:
    """The sort keys in a cursor. Raises `Refusal` for text that is not a cursor of this list in this order."""
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
    """For a cursor of the right order whose values no item of the list can have."""
    return Refusal(ErrorCode.INVALID_INPUT, _NOT_A_CURSOR.format(request.cursor), (request.argument,))


def decode_person(order: str, request: PageRequest) -> tuple[int, int] | None:
    """The bucket, or the place of one, and the ordinal in a request's cursor; None without a cursor.

    Raises `Refusal` as `decode_cursor`.
    """
    if request.cursor is None:
        return None
    place = decode_cursor(order, request.cursor, request.argument)
    if not is_person(place):
        raise not_a_cursor(request)
    return int(place[0]), int(place[1])


def is_person(place: Sequence[object]) -> bool:
    """Whether it is a bucket and an ordinal.

    >>> is_person((3, 17)), is_person((3, -1)), is_person((3,)), is_person((True, 1))
    (True, False, False, False)
    """
    return len(place) == 2 and all(type(value) is int and 0 <= value < _LARGEST_ORDINAL for value in place)


def _may_be_compared(value: object) -> bool:
    """Whether a database takes it: text that it keeps, numbers of 64 bits, times with a zone. Each list knows which of
    them it has, or what else."""
    match value:
        case str():
            return is_text(value)
        case int():
            return -(2**63) <= value < 2**63
        case datetime():
            return value.tzinfo is not None
        case _:
            return True


async def fetch_page(
    session: AsyncSession, statement: AnySelect, order: Order, request: PageRequest, make: Callable[[AnyRow], T]
) -> Slice[T]:
    """One page of `statement` (which has no order and no limit of its own): one SQL statement, one more with a
    cursor."""
    place = _place(order, request)
    keyed = statement.add_columns(*_key_columns(order))
    asked = keyed if place is None else keyed.where(_beyond(order, place, request.backward))
    sorting = [_sorted(key, request.backward) for key in order.keys]
    rows = list(await session.execute(asked.order_by(*sorting).limit(request.limit + 1)))
    behind = False
    if place is not None:
        others = keyed.where(or_(_beyond(order, place, not request.backward), _at(order, place)))
        behind = (await session.execute(others.limit(1))).first() is not None
    return _slice(order, request, rows, behind, make)


async def fetch_pages(
    session: AsyncSession,
    statement: AnySelect,
    parent: ColumnElement[Any],
    order: Order,
    request: PageRequest,
    parents: Sequence[str],
    make: Callable[[AnyRow], T],
) -> dict[str, Slice[T]]:
    """The same page for each of many parents, in one SQL statement.

    First pages on PostgreSQL are a lateral join, which reads no more rows than it gives. SQLite has none, and a page
    after a cursor must know whether something lies before it: there rows are numbered within their parent.
    """
    place = _place(order, request)
    if place is None and session.get_bind().dialect.name == "postgresql":
        return await _first_pages(session, statement, parent, order, request, parents, make)
    forward = [_sorted(key, request.backward) for key in order.keys]
    number = func.row_number().over(partition_by=parent, order_by=forward)
    inner = statement.where(parent.in_(parents)).add_columns(
        *_key_columns(order), parent.label("page_parent"), number.label("page_number")
    )
    if place is None:
        numbered = inner.add_columns(true().label("page_beyond")).subquery()
        outer = select(numbered).where(numbered.c.page_number <= request.limit + 1)
    else:
        # Numbered over all rows too: when the very first one is not beyond the place, something lies behind the page.
        everything = inner.add_columns(_beyond(order, place, request.backward).label("page_beyond")).subquery()
        again = func.row_number().over(
            partition_by=(everything.c.page_parent, everything.c.page_beyond), order_by=everything.c.page_number
        )
        numbered = select(everything, again.label("page_place")).subquery()
        in_page = and_(numbered.c.page_beyond, numbered.c.page_place <= request.limit + 1)
        outer = select(numbered).where(or_(in_page, numbered.c.page_number == 1))
    rows_of: dict[str, list[AnyRow]] = {parent_id: [] for parent_id in parents}
    for row in await session.execute(outer.order_by(numbered.c.page_parent, numbered.c.page_number)):
        rows_of[row.page_parent].append(row)
    return {parent_id: _slice_beyond(order, request, rows, make) for parent_id, rows in rows_of.items()}


async def _first_pages(
    session: AsyncSession,
    statement: AnySelect,
    parent: ColumnElement[Any],
    order: Order,
    request: PageRequest,
    parents: Sequence[str],
    make: Callable[[AnyRow], T],
) -> dict[str, Slice[T]]:
    ids = func.unnest(literal(list(parents), ARRAY(String))).table_valued("id").render_derived("parents")
    sorting = [_sorted(key, request.backward) for key in order.keys]
    page = statement.where(parent == ids.c.id).add_columns(*_key_columns(order)).order_by(*sorting)
    rows = page.limit(request.limit + 1).lateral("page")
    keys = [
        _sorted(Key(rows.c[f"page_key_{at}"], key.descending), request.backward) for at, key in enumerate(order.keys)
    ]
    joined = select(rows, ids.c.id.label("page_parent")).select_from(ids.join(rows, true()))
    rows_of: dict[str, list[AnyRow]] = {parent_id: [] for parent_id in parents}
    for row in await session.execute(joined.order_by(ids.c.id, *keys)):
        rows_of[row.page_parent].append(row)
    return {parent_id: _slice(order, request, rows, False, make) for parent_id, rows in rows_of.items()}


def _slice_beyond(order: Order, request: PageRequest, rows: list[AnyRow], make: Callable[[AnyRow], T]) -> Slice[T]:
    behind = bool(rows) and not rows[0].page_beyond
    return _slice(order, request, rows[1:] if behind else rows, behind, make)


def slice_of(items: Mapping[str, T], request: PageRequest, has_next: bool, behind: bool) -> Slice[T]:
    """A page of items that were found otherwise than by SQL, by cursor, in the direction of the request."""
    cursors, values = list(items), list(items.values())
    if request.backward:
        return Slice(values[::-1], cursors[::-1], has_next=behind, has_previous=has_next)
    return Slice(values, cursors, has_next=has_next, has_previous=behind)


def _slice(
    order: Order, request: PageRequest, rows: list[AnyRow], behind: bool, make: Callable[[AnyRow], T]
) -> Slice[T]:
    page = rows[: request.limit]
    more = len(rows) > request.limit
    if request.backward:
        page.reverse()
    has_next, has_previous = (behind, more) if request.backward else (more, behind)
    return Slice([make(row) for row in page], Cursors(order, page), has_next, has_previous)


class Cursors(Sequence[str]):
    """The cursors of a page's rows, each encoded when it is asked for: most clients read the last one alone."""

    def __init__(self, order: Order, rows: Sequence[object]) -> None:
        self._order = order
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...

    @overload
    def __getitem__(self, at: slice) -> Sequence[str]: ...

    def __getitem__(self, at: int | slice) -> str | Sequence[str]:
        if isinstance(at, slice):
            return Cursors(self._order, self._rows[at])
        row = self._rows[at]
        return encode_cursor(
            self._order.name, [getattr(row, f"page_key_{number}") for number in range(len(self._order.keys))]
        )


def _key_columns(order: Order) -> list[ColumnElement[Any]]:
    return [key.column.label(f"page_key_{at}") for at, key in enumerate(order.keys)]


def _place(order: Order, request: PageRequest) -> Cursor | None:
    if request.cursor is None:
        return None
    place = decode_cursor(order.name, request.cursor, request.argument)
    fits = len(place) == len(order.keys) and all(
        isinstance(value, _type_of(key)) for key, value in zip(order.keys, place, strict=True)
    )
    if not fits:
        raise not_a_cursor(request)
    return place


def _type_of(key: Key) -> type:
    """What the key's values are. Columns of SQLModel's own text type say that they hold any object."""
    type_: type = key.column.type.python_type
    return str if type_ is object else type_


def _sorted(key: Key, backward: bool) -> ColumnElement[Any]:
    return key.column.desc() if key.descending != backward else key.column.asc()


def _at(order: Order, place: Cursor) -> ColumnElement[bool]:
    return and_(*(key.column == value for key, value in zip(order.keys, place, strict=True)))


def _beyond(order: Order, place: Cursor, backward: bool) -> ColumnElement[bool]:
    """Rows after the place in the order (before it when `backward`): lexicographic, each key in its own direction."""
    alternatives = []
    for at, (key, value) in enumerate(zip(order.keys, place, strict=True)):
        further = key.column < value if key.descending != backward else key.column > value
        equal = [earlier.column == place[i] for i, earlier in enumerate(order.keys[:at])]
        alternatives.append(and_(*equal, further))
    return or_(*alternatives)
