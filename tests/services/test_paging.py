"""Pages by key: whatever is inserted or deleted between them, each row that was there all the time is seen once."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from app.errors import Refusal
from app.scope import Tenant
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import (
    PageRequest,
    Slice,
    encode_cursor,
    page_request,
)
from app.storage.database import Database

ROWS = Table(
    "row",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("parent", String, nullable=False),
    Column("name", String, nullable=False),
    # Without it SQLite gives the id of a deleted last row to the next one.
    sqlite_autoincrement=True,
)
ORDERS = {
    "NAME": Order("NAME", (Key(ROWS.c.name), Key(ROWS.c.id))),
    "NAME DESC": Order("NAME DESC", (Key(ROWS.c.name, descending=True), Key(ROWS.c.id))),
}

NOBODY = Tenant("nobody", "none")
"""The tenant of rows that have none."""


@cache
def listing(order: Order) -> Listing[int]:
    """All rows; made once, as services do, so that its statements serve one call after another."""
    return Listing(select(ROWS), order, lambda row: row.id, ROWS.c.parent)


# A step between two pages: a row to insert (its id is new) or the place of a row to delete.
rows = st.lists(st.sampled_from("abc"), max_size=12)
steps = st.lists(
    st.one_of(st.tuples(st.just("insert"), st.sampled_from("abc")), st.tuples(st.just("delete"), st.integers(0, 30))),
    max_size=12,
)


async def pages(
    session: AsyncSession, order: Order, size: int, backward: bool, changes: Iterator[tuple[str, Any]]
) -> list[int]:
    """All ids, page by page, with one change before each page after the first."""
    seen: list[int] = []
    request = PageRequest(size, backward)
    while True:
        page = await listing(order).page(session, NOBODY, request)
        seen = [*page.items, *seen] if backward else [*seen, *page.items]
        more = page.has_previous if backward else page.has_next
        if not more:
            return seen
        await change(session, next(changes, None))
        request = PageRequest(size, backward, page.cursors[0 if backward else -1])


async def change(session: AsyncSession, step: tuple[str, Any] | None) -> None:
    match step:
        case ("insert", name):
            await session.execute(insert(ROWS).values(parent="p", name=name))
        case ("delete", place):
            present = list(await session.scalars(select(ROWS.c.id).order_by(ROWS.c.id)))
            if present:
                await session.execute(delete(ROWS).where(ROWS.c.id == present[place % len(present)]))


@settings(max_examples=60, deadline=None)
@given(names=rows, changes=steps, size=st.integers(1, 4), backward=st.booleans(), order=st.sampled_from(list(ORDERS)))
async def test_each_old_row_is_seen_exactly_once(
    names: list[str], changes: list[tuple[str, Any]], size: int, backward: bool, order: str
) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        await connection.run_sync(ROWS.metadata.create_all)
        async with AsyncSession(connection) as session:
            if names:
                await session.execute(insert(ROWS), [{"parent": "p", "name": name} for name in names])
            before = set(await session.scalars(select(ROWS.c.id)))
            seen = await pages(session, ORDERS[order], size, backward, iter(changes))
            after = set(await session.scalars(select(ROWS.c.id)))
    await engine.dispose()
    assert len(seen) == len(set(seen))
    assert before & after <= set(seen)


@pytest.fixture
async def session(database: Database) -> Any:
    """Two parents: `p` with the names a, b, c, d, e and ids 1-5, `q` with z and id 6; both kinds of database."""
    engine = database.engines[-1]
    async with engine.connect() as connection:
        await connection.run_sync(ROWS.metadata.create_all)
        async with AsyncSession(connection) as opened:
            await opened.execute(insert(ROWS), [{"id": at, "parent": "p", "name": "_abcde"[at]} for at in range(1, 6)])
            await opened.execute(insert(ROWS), [{"id": 6, "parent": "q", "name": "z"}])
            yield opened


def shown(page: Slice[int]) -> tuple[list[int], bool, bool]:
    return page.items, page.has_previous, page.has_next


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (PageRequest(2), ([1, 2], False, True)),
        (PageRequest(2, cursor=encode_cursor("NAME", ["b", 2])), ([3, 4], True, True)),
        (PageRequest(2, cursor=encode_cursor("NAME", ["a", 1])), ([2, 3], True, True)),  # only one lies before it
        (PageRequest(2, cursor=encode_cursor("NAME", ["_", 0])), ([1, 2], False, True)),
        (PageRequest(9, cursor=encode_cursor("NAME", ["d", 4])), ([5], True, False)),
        (PageRequest(2, cursor=encode_cursor("NAME", ["e", 5])), ([], True, False)),
        (PageRequest(2, backward=True), ([4, 5], True, False)),
        (PageRequest(2, backward=True, cursor=encode_cursor("NAME", ["c", 3])), ([1, 2], False, True)),
        (PageRequest(2, backward=True, cursor=encode_cursor("NAME", ["e", 5])), ([3, 4], True, True)),
        (PageRequest(2, cursor=encode_cursor("NAME", ["bb", 0])), ([3, 4], True, True)),  # of a row that is gone
        (PageRequest(0), ([], False, True)),
    ],
)
async def test_pages_know_what_lies_on_both_sides(session: AsyncSession, request_: PageRequest, expected: Any) -> None:
    mine = Listing(select(ROWS).where(ROWS.c.parent == "p"), ORDERS["NAME"], lambda row: row.id)
    page = await mine.page(session, NOBODY, request_)
    assert shown(page) == expected

    many = await listing(ORDERS["NAME"]).pages(session, NOBODY, request_, ["p"])
    assert shown(many["p"]) == expected


async def test_a_page_for_each_of_many_parents(session: AsyncSession) -> None:
    many = await listing(ORDERS["NAME"]).pages(session, NOBODY, PageRequest(2), ["p", "q", "nobody"])
    assert {parent: shown(page) for parent, page in many.items()} == {
        "p": ([1, 2], False, True),
        "q": ([6], False, False),
        "nobody": ([], False, False),
    }


@pytest.mark.parametrize(
    ("arguments", "path", "message"),
    [
        ({"first": -1}, ("first",), "`first` is -1, but a page has 0 items or more"),
        ({"last": 501}, ("last",), "`last` is 501, but a page has at most 500 items: ask for several pages"),
        (
            {"first": 1, "last": 1},
            ("last",),
            "`first` and `after` go forward, `last` and `before` go backward: use one of the pairs",
        ),
        (
            {"after": "x", "before": "y"},
            ("before",),
            "`first` and `after` go forward, `last` and `before` go backward: use one of the pairs",
        ),
    ],
)
def test_nonsense_is_refused(arguments: dict[str, Any], path: tuple[str, ...], message: str) -> None:
    with pytest.raises(Refusal) as caught:
        page_request(**arguments)
    assert (caught.value.path, caught.value.message) == (path, message)


@pytest.mark.parametrize(
    ("cursor", "message"),
    [
        ("no cursor", "'no cursor' is not a cursor: send back one that a page of this list gave"),
        (
            encode_cursor("DATE", ["b", 2]),
            "the cursor belongs to a list in the order DATE, and this one is in the order NAME",
        ),
        (
            encode_cursor("NAME", ["b", "2"]),
            f"{encode_cursor('NAME', ['b', '2'])!r} is not a cursor: send back one that a page of this list gave",
        ),
    ],
)
async def test_a_cursor_of_something_else_is_refused(session: AsyncSession, cursor: str, message: str) -> None:
    with pytest.raises(Refusal) as caught:
        await listing(ORDERS["NAME"]).page(session, NOBODY, PageRequest(2, cursor=cursor))
    assert (caught.value.path, caught.value.message) == (("after",), message)
