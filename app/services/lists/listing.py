"""Lists in the database, read page by page: one list, or that of each of many parents in one statement.

Making a statement costs more than running it. So a `Listing` makes each of its statements once, with parameters for
whatever differs from call to call (the tenant, the parents, the size of the page, the place of a cursor); those that
do not depend on a filter are made once in a process.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

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
from app.storage.tenancy import AnyRow, AnySelect, parameters

T = TypeVar("T")

_LIMIT = bindparam("page_limit", type_=Integer)
"""The rows of a page and one more, which tells whether the list goes on."""
_PARENTS = bindparam("page_parents", type_=ARRAY(String))
_PARENTS_AS_JSON = bindparam("page_parents", type_=String)
_ANY_PARENT = bindparam("page_parents", type_=String, expanding=True)


@dataclass(frozen=True, slots=True)
class Key:
    """One sort key. Its column is never null, and the keys of an order together are unique."""

    column: ColumnElement[Any]
    descending: bool = False

    def sorted(self, backward: bool) -> ColumnElement[Any]:
        return self.column.desc() if self.descending != backward else self.column.asc()


@dataclass(frozen=True, slots=True)
class Order:
    """The keys of a list; `name` is written into cursors, so that one of another order is refused."""

    name: str
    keys: tuple[Key, ...]


class Listing(Generic[T]):
    """A list: its rows by `statement` (which has no order and no limit, and limits itself to the tenant by
    `within_any`), what `make` makes of each, and for lists of many parents the column `parent`."""

    def __init__(
        self,
        statement: AnySelect,
        order: Order,
        make: Callable[[AnyRow], T],
        parent: ColumnElement[Any] | None = None,
    ) -> None:
        self.statement: Final = statement
        self.order: Final = order
        self.make: Final = make
        self.parent: Final = parent
        self._pages: dict[tuple[bool, bool], tuple[AnySelect, AnySelect | None]] = {}
        self._pages_of_parents: dict[tuple[bool, bool, str], AnySelect] = {}

    async def page(self, session: AsyncSession, tenant: Tenant, request: PageRequest) -> Slice[T]:
        """One page: one SQL statement, one more with a cursor. Raises `Refusal` for a cursor of something else."""
        place = self._place(request)
        values = self._values(tenant, request, place)
        shape = place is not None, request.backward
        if shape not in self._pages:
            self._pages[shape] = self._statement(*shape)
        page, others = self._pages[shape]
        rows = list(await session.execute(page, values))
        behind = others is not None and (await session.execute(others, values)).first() is not None
        return self._slice(request, rows, behind)

    async def pages(
        self, session: AsyncSession, tenant: Tenant, request: PageRequest, parents: Sequence[str]
    ) -> dict[str, Slice[T]]:
        """The same page for each of many parents, in one SQL statement. Raises as `page`."""
        place = self._place(request)
        shape = place is not None, request.backward, session.get_bind().dialect.name
        if shape not in self._pages_of_parents:
            self._pages_of_parents[shape] = self._statement_of_parents(*shape)
        values = self._values(tenant, request, place)
        as_json = place is None and shape[-1] == "sqlite"
        values["page_parents"] = orjson.dumps(list(parents)).decode() if as_json else list(parents)
        rows_of: dict[str, list[AnyRow]] = {parent_id: [] for parent_id in parents}
        for row in await session.execute(self._pages_of_parents[shape], values):
            rows_of[row.page_parent].append(row)
        if place is None:
            return {parent_id: self._slice(request, rows, False) for parent_id, rows in rows_of.items()}
        return {parent_id: self._slice_beyond(request, rows) for parent_id, rows in rows_of.items()}

    # ---------------------------------------------------------------- statements

    def _statement(self, placed: bool, backward: bool) -> tuple[AnySelect, AnySelect | None]:
        """A page, and with a place whether anything lies on the other side of it."""
        keyed = self.statement.add_columns(*self._key_columns())
        asked = keyed.where(self._beyond(backward)) if placed else keyed
        page = asked.order_by(*self._sorting(backward)).limit(_LIMIT)
        if not placed:
            return page, None
        return page, keyed.where(or_(self._beyond(not backward), self._at_place())).limit(1)

    def _statement_of_parents(self, placed: bool, backward: bool, dialect: str) -> AnySelect:
        """A first page reads no more rows of a parent than it gives. A page after a cursor must know whether something
        lies before it: there the rows are numbered within their parent."""
        if self.parent is None:
            raise RuntimeError(f"the list {self.order.name} has no parents")
        if not placed:
            first_pages = self._lateral if dialect == "postgresql" else self._correlated
            return first_pages(self.parent, backward)
        number = func.row_number().over(partition_by=self.parent, order_by=self._sorting(backward))
        # Numbered over all rows too: when the very first is not beyond the place, something lies behind the page.
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

    def _lateral(self, parent: ColumnElement[Any], backward: bool) -> AnySelect:
        ids = func.unnest(_PARENTS).table_valued("id").render_derived("parents")
        keyed = self.statement.where(parent == ids.c.id).add_columns(*self._key_columns())
        rows = keyed.order_by(*self._sorting(backward)).limit(_LIMIT).lateral("page")
        keys = [
            Key(rows.c[f"page_key_{at}"], key.descending).sorted(backward) for at, key in enumerate(self.order.keys)
        ]
        joined = select(rows, ids.c.id.label("page_parent")).select_from(ids.join(rows, true()))
        return joined.order_by(ids.c.id, *keys)

    def _correlated(self, parent: ColumnElement[Any], backward: bool) -> AnySelect:
        """For SQLite, which has no lateral joins: the rows whose keys are among the first of their parent."""
        ids = func.json_each(_PARENTS_AS_JSON).table_valued(column("value", String)).alias("parents")
        keys = [key.column for key in self.order.keys]
        mine = self.statement.where(parent == ids.c.value)
        first = mine.with_only_columns(*keys).order_by(*self._sorting(backward)).limit(_LIMIT).correlate(ids)
        rows = mine.where(tuple_(*keys).in_(first))
        keyed = rows.add_columns(*self._key_columns(), ids.c.value.label("page_parent"))
        return keyed.order_by(ids.c.value, *self._sorting(backward))

    def _key_columns(self) -> list[ColumnElement[Any]]:
        return [key.column.label(f"page_key_{at}") for at, key in enumerate(self.order.keys)]

    def _sorting(self, backward: bool) -> list[ColumnElement[Any]]:
        return [key.sorted(backward) for key in self.order.keys]

    @cached_property
    def _bound_place(self) -> list[BindParameter[Any]]:
        return [bindparam(f"page_place_{at}", type_=key.column.type) for at, key in enumerate(self.order.keys)]

    def _at_place(self) -> ColumnElement[bool]:
        return and_(*(key.column == value for key, value in zip(self.order.keys, self._bound_place, strict=True)))

    def _beyond(self, backward: bool) -> ColumnElement[bool]:
        """Rows after the place in the order (before it when `backward`): lexicographic, each key in its direction."""
        alternatives, place = [], self._bound_place
        for at, (key, value) in enumerate(zip(self.order.keys, place, strict=True)):
            further = key.column < value if key.descending != backward else key.column > value
            equal = [earlier.column == place[i] for i, earlier in enumerate(self.order.keys[:at])]
            alternatives.append(and_(*equal, further))
        return or_(*alternatives)

    # ---------------------------------------------------------------- values and rows

    def _values(self, tenant: Tenant, request: PageRequest, place: Cursor | None) -> StoredValues:
        """The parameters of a statement; of those that it does not have none is sent."""
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

    def _slice_beyond(self, request: PageRequest, rows: list[AnyRow]) -> Slice[T]:
        behind = bool(rows) and not rows[0].page_beyond
        return self._slice(request, rows[1:] if behind else rows, behind)

    def _slice(self, request: PageRequest, rows: list[AnyRow], behind: bool) -> Slice[T]:
        page = rows[: request.limit]
        more = len(rows) > request.limit
        if request.backward:
            page.reverse()
        has_next, has_previous = (behind, more) if request.backward else (more, behind)
        return Slice([self.make(row) for row in page], Cursors(self._cursor, page), has_next, has_previous)

    def _cursor(self, row: AnyRow) -> str:
        return encode_cursor(self.order.name, [getattr(row, f"page_key_{at}") for at in range(len(self.order.keys))])


def _type_of(key: Key) -> type:
    """What the key's values are. Columns of SQLModel's own text type say that they hold any object."""
    type_: type = key.column.type.python_type
    return str if type_ is object else type_
