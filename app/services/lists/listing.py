"""Reads lists from the database page by page: one list, or the lists of many parents in one statement.

Building a statement costs more than running it. A `Listing` therefore builds each statement once, with parameters for
everything that varies between calls (tenant, parents, page size, cursor position). Listings without filters are built
once per process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Generic, TypeVar, cast

import orjson
from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Integer,
    String,
    and_,
    bindparam,
    column,
    func,
    or_,
    select,
    true,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.scope import Tenant
from app.services.lists.paging import Cursor, Cursors, PageRequest, Slice, decode_cursor, encode_cursor, not_a_cursor
from app.storage.columns import StoredValues
from app.storage.sessions.reading import Prepared, dialect_of, read
from app.storage.tenancy import AnyRow, AnySelect, parameters

T = TypeVar("T")

_LIMIT = bindparam("page_limit", type_=Integer)
"""The page size plus one: the extra row shows whether the list continues."""
_PARENTS = bindparam("page_parents", type_=ARRAY(String))
_PARENTS_AS_JSON = bindparam("page_parents", type_=String)
_ANY_PARENT = bindparam("page_parents", type_=String, expanding=True)


_NARROWER_KEPT: Final = 64
"""Maximum number of column selections whose statements a list keeps. One more, and all are dropped."""


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key. Its column is never NULL, and the keys of an order are unique together."""

    column: ColumnElement[Any]
    descending: bool = False

    def sorted(self, backward: bool) -> ColumnElement[Any]:
        return self.column.desc() if self.descending != backward else self.column.asc()


@dataclass(frozen=True, slots=True)
class Order:
    """The sort keys of a list. Cursors contain `name`, so that cursors of another order are rejected."""

    name: str
    keys: tuple[Key, ...]


class Listing(Generic[T]):
    """A list. `statement` selects its rows, without order or limit, and uses `within_any`. `make` converts a row to an
    item; None if the rows are the items. `parent` is the parent's column, for the lists of many parents."""

    def __init__(
        self,
        statement: AnySelect,
        order: Order,
        make: Callable[[AnyRow], T] | None,
        parent: ColumnElement[Any] | None = None,
    ) -> None:
        self.statement: Final = statement
        self.order: Final = order
        self.make: Final = make
        self.parent: Final = parent
        self._narrower: dict[frozenset[str], Listing[T]] = {}
        self._pages: dict[tuple[bool, bool, bool], tuple[Prepared, Prepared | None]] = {}
        self._pages_of_parents: dict[tuple[bool, bool, bool, str], Prepared] = {}

    async def page(self, session: AsyncSession, tenant: Tenant, request: PageRequest) -> Slice[T]:
        """One page, with one SQL statement, or two with a cursor. Raises `Refusal` for a cursor of another list."""
        if request.columns is not None:
            return await self._of(request.columns).page(session, tenant, replace(request, columns=None))
        place = self._place(request)
        values = self._values(tenant, request, place)
        shape = place is not None, request.backward, request.cursors
        if shape not in self._pages:
            self._pages[shape] = self._statement(*shape)
        page, others = self._pages[shape]
        rows = await read(session, page, values, alone=request.alone and others is None)
        behind = others is not None and bool(await read(session, others, values))
        return self._slice(request, rows, behind)

    async def pages(
        self, session: AsyncSession, tenant: Tenant, request: PageRequest, parents: Sequence[str]
    ) -> dict[str, Slice[T]]:
        """The same page for each of many parents, in one SQL statement. Raises like `page`."""
        if request.columns is not None:
            return await self._of(request.columns).pages(session, tenant, replace(request, columns=None), parents)
        place = self._place(request)
        shape = place is not None, request.backward, request.cursors, dialect_of(session)
        if shape not in self._pages_of_parents:
            self._pages_of_parents[shape] = Prepared(self._statement_of_parents(*shape))
        values = self._values(tenant, request, place)
        as_json = place is None and shape[-1] == "sqlite"
        values["page_parents"] = orjson.dumps(list(parents)).decode() if as_json else list(parents)
        rows_of: dict[str, list[AnyRow]] = {parent_id: [] for parent_id in parents}
        for row in await read(session, self._pages_of_parents[shape], values):
            rows_of[row.page_parent].append(row)
        if place is None:
            return {parent_id: self._slice(request, rows, False) for parent_id, rows in rows_of.items()}
        return {parent_id: self._slice_beyond(request, rows) for parent_id, rows in rows_of.items()}

    # ---------------------------------------------------------------- statements

    def _of(self, columns: frozenset[str]) -> "Listing[T]":
        """The same list, restricted to these columns."""
        listing = self._narrower.get(columns)
        if listing is None:
            if len(self._narrower) == _NARROWER_KEPT:
                self._narrower.clear()
            selected = [each for each in self.statement.selected_columns if each.name in columns]
            statement = self.statement.with_only_columns(*selected, maintain_column_froms=True)
            listing = self._narrower[columns] = Listing(statement, self.order, self.make, self.parent)
        return listing

    def _statement(self, placed: bool, backward: bool, cursors: bool) -> tuple[Prepared, Prepared | None]:
        """The statement of a page and, if there is a cursor, one that checks for rows on its other side."""
        keyed = self.statement.add_columns(*self._key_columns(cursors))
        asked = keyed.where(self._beyond(backward)) if placed else keyed
        page = asked.order_by(*self._sorting(backward)).limit(_LIMIT)
        if not placed:
            return Prepared(page), None
        behind = keyed.where(or_(self._beyond(not backward), self._at_place())).limit(1)
        return Prepared(page), Prepared(behind)

    def _statement_of_parents(self, placed: bool, backward: bool, cursors: bool, dialect: str) -> AnySelect:
        """A first page reads only the rows that it returns. A page after a cursor must also know whether rows precede
        the cursor, so the rows of each parent are numbered."""
        if self.parent is None:
            raise RuntimeError(f"the list {self.order.name} has no parents")
        if not placed:
            first_pages = self._lateral if dialect == "postgresql" else self._correlated
            return first_pages(self.parent, backward, cursors)
        number = func.row_number().over(partition_by=self.parent, order_by=self._sorting(backward))
        # All rows are numbered: if the first one is not beyond the cursor, there is a previous page.
        everything = (
            self.statement.where(self.parent.in_(_ANY_PARENT))
            .add_columns(*self._key_columns(), self.parent.label("page_parent"), number.label("page_number"))
            .add_columns(self._beyond(backward).label("page_beyond"))
            .subquery()
        )
        again = func.row_number().over(
            partition_by=(everything.c.page_parent, everything.c.page_beyond), order_by=everything.c.page_number
        )
        numbered = select(everything, again.label("page_place")).subquery()
        in_page = and_(numbered.c.page_beyond, numbered.c.page_place <= _LIMIT)
        outer = select(numbered).where(or_(in_page, numbered.c.page_number == 1))
        return outer.order_by(numbered.c.page_parent, numbered.c.page_number)

    def _lateral(self, parent: ColumnElement[Any], backward: bool, cursors: bool) -> AnySelect:
        ids = func.unnest(_PARENTS).table_valued("id").render_derived("parents")
        keyed = self.statement.where(parent == ids.c.id).add_columns(*self._key_columns())
        rows = keyed.order_by(*self._sorting(backward)).limit(_LIMIT).lateral("page")
        keys = [
            Key(rows.c[f"page_key_{at}"], key.descending).sorted(backward) for at, key in enumerate(self.order.keys)
        ]
        selected = list(rows.c) if cursors else list(rows.c)[: -len(keys)]
        joined = select(*selected, ids.c.id.label("page_parent")).select_from(ids.join(rows, true()))
        return joined.order_by(ids.c.id, *keys)

    def _correlated(self, parent: ColumnElement[Any], backward: bool, cursors: bool) -> AnySelect:
        """For SQLite, which has no lateral joins: selects the rows whose keys are among the first of their parent."""
        ids = func.json_each(_PARENTS_AS_JSON).table_valued(column("value", String)).alias("parents")
        keys = [key.column for key in self.order.keys]
        mine = self.statement.where(parent == ids.c.value)
        first = mine.with_only_columns(*keys).order_by(*self._sorting(backward)).limit(_LIMIT).correlate(ids)
        rows = mine.where(tuple_(*keys).in_(first))
        keyed = rows.add_columns(*self._key_columns(cursors), ids.c.value.label("page_parent"))
        return keyed.order_by(ids.c.value, *self._sorting(backward))

    def _key_columns(self, cursors: bool = True) -> list[ColumnElement[Any]]:
        return [key.column.label(f"page_key_{at}") for at, key in enumerate(self.order.keys)] if cursors else []

    def _sorting(self, backward: bool) -> list[ColumnElement[Any]]:
        return [key.sorted(backward) for key in self.order.keys]

    @cached_property
    def _bound_place(self) -> list[BindParameter[Any]]:
        return [bindparam(f"page_place_{at}", type_=key.column.type) for at, key in enumerate(self.order.keys)]

    def _at_place(self) -> ColumnElement[bool]:
        return and_(*(key.column == value for key, value in zip(self.order.keys, self._bound_place, strict=True)))

    def _beyond(self, backward: bool) -> ColumnElement[bool]:
        """Rows after the cursor (before it if `backward`): a lexicographic comparison, each key in its direction."""
        alternatives, place = [], self._bound_place
        for at, (key, value) in enumerate(zip(self.order.keys, place, strict=True)):
            further = key.column < value if key.descending != backward else key.column > value
            equal = [earlier.column == place[i] for i, earlier in enumerate(self.order.keys[:at])]
            alternatives.append(and_(*equal, further))
        return or_(*alternatives)

    # ---------------------------------------------------------------- values and rows

    def _values(self, tenant: Tenant, request: PageRequest, place: Cursor | None) -> StoredValues:
        """The parameters of a statement, without those of absent cursor keys."""
        values = parameters(tenant) | {"page_limit": request.limit + 1}
        return values | {f"page_place_{at}": value for at, value in enumerate(place or ())}

    def _place(self, request: PageRequest) -> Cursor | None:
        if request.cursor is None:
            return None
        keys = self.order.keys
        place = decode_cursor(self.order.name, request.cursor, request.argument)
        fits = len(place) == len(keys) and all(
            isinstance(value, _type_of(key)) for key, value in zip(keys, place, strict=True)
        )
        if not fits:
            raise not_a_cursor(request)
        return place

    def _slice_beyond(self, request: PageRequest, rows: Sequence[AnyRow]) -> Slice[T]:
        behind = bool(rows) and not rows[0].page_beyond
        return self._slice(request, rows[1:] if behind else rows, behind)

    def _slice(self, request: PageRequest, rows: Sequence[AnyRow], behind: bool) -> Slice[T]:
        page = list(rows[: request.limit])
        more = len(rows) > request.limit
        if request.backward:
            page.reverse()
        has_next, has_previous = (behind, more) if request.backward else (more, behind)
        items = cast("list[T]", page) if self.make is None else [self.make(row) for row in page]
        return Slice(items, Cursors(self._cursor, page), has_next, has_previous)

    def _cursor(self, row: AnyRow) -> str:
        return encode_cursor(self.order.name, [getattr(row, f"page_key_{at}") for at in range(len(self.order.keys))])


def _type_of(key: Key) -> type:
    """The Python type of a key's values. SQLModel's text type reports `object`."""
    type_: type = key.column.type.python_type
    return str if type_ is object else type_
