"""Lists read page by page from both ends: the same items, cursors and flags."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from app.services.lists.paging import PageRequest, Slice

T = TypeVar("T")


async def both_ways(read: Callable[[PageRequest], Awaitable[Slice[T]]], size: int) -> list[T]:
    """The items of a list that holds still, after each page of `size` was compared with the whole list."""
    everything = await read(PageRequest(500))
    assert (everything.has_next, everything.has_previous) == (False, False)
    items, cursors = everything.items, list(everything.cursors)
    assert len(set(cursors)) == len(items)
    same = await read(PageRequest(500, backward=True))
    assert (same.items, list(same.cursors)) == (items, cursors)
    assert (same.has_next, same.has_previous) == (False, False)
    cursor, start = None, 0
    while start < len(items):
        page = await read(PageRequest(size, cursor=cursor))
        end = min(start + size, len(items))
        assert (page.items, list(page.cursors)) == (items[start:end], cursors[start:end])
        assert (page.has_next, page.has_previous) == (end < len(items), start > 0)
        start, cursor = end, page.cursors[-1]
    cursor, end = None, len(items)
    while end > 0:
        page = await read(PageRequest(size, True, cursor))
        start = max(0, end - size)
        assert (page.items, list(page.cursors)) == (items[start:end], cursors[start:end])
        assert (page.has_next, page.has_previous) == (end < len(items), start > 0)
        end, cursor = start, page.cursors[0]
    if cursors:
        beyond = [await read(PageRequest(size, True, cursors[0])), await read(PageRequest(size, False, cursors[-1]))]
        assert [page.items for page in beyond] == [[], []]
    return items
