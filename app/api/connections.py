"""Relay connections over the pages of services; knows no resource."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, TypeVar

import strawberry
from graphql import FieldNode

from app.api.context import Info
from app.api.described import resolver
from app.api.scalars import BigInt, given
from app.services.lists.paging import PageRequest, Slice, page_request

T = TypeVar("T")
Item = TypeVar("Item")

First = Annotated[
    int | None,
    strawberry.argument(description="Length of the page, counted from its start; 50 unless given, at most 500."),
]
After = Annotated[str | None, strawberry.argument(description="Cursor that the page begins after.")]
Last = Annotated[
    int | None,
    strawberry.argument(description="Length of the page, counted from its end; goes with `before`, not with `first`."),
]
Before = Annotated[str | None, strawberry.argument(description="Cursor that the page ends before.")]

Count = Callable[[], Awaitable[int]]


@strawberry.type(description="Where a page lies in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether the list goes on after this page.")
    has_previous_page: bool = strawberry.field(description="Whether the list has something before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first item; null on an empty page.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last item; null on an empty page.")


@strawberry.type(description="An item of a page, with its place in the list.")
class Edge(Generic[T]):
    node: T = strawberry.field(description="The item.")
    cursor: str = strawberry.field(description="Opaque place of the item: give it to `after` or `before`.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    edges: list[Edge[T]] = strawberry.field(description="The items of the page with their cursors.")
    nodes: list[T] = strawberry.field(description="The items of the page.")
    page_info: PageInfo = strawberry.field(description="Where the page lies in the list.")
    count: strawberry.Private[Count]

    @resolver(description="Length of the whole list. Counted only when it is asked for.")
    async def total_count(self) -> int:
        return await self.count()


@strawberry.type(name="Connection", description="A page of a list.")
class LongConnection(Generic[T]):
    """A list that may be longer than 2^31: of people or of what they did."""

    edges: list[Edge[T]] = strawberry.field(description="The items of the page with their cursors.")
    nodes: list[T] = strawberry.field(description="The items of the page.")
    page_info: PageInfo = strawberry.field(description="Where the page lies in the list.")
    count: strawberry.Private[Count]

    @resolver(description="Length of the whole list. Counted only when it is asked for.")
    async def total_count(self) -> BigInt:
        return BigInt(await self.count())


def asked(first: Any = None, after: Any = None, last: Any = None, before: Any = None) -> PageRequest:
    """The page that the arguments ask for. Raises `Refusal`."""
    return page_request(given(first), given(after), given(last), given(before))


async def connect(
    info: Info, load: Callable[[], Awaitable[Slice[Item]]], make: Callable[[Item], T], count: Count
) -> Connection[T]:
    """A page as a connection; `load` is not called when nothing of the page is selected."""
    return Connection(**await _page(info, load, make), count=count)


async def connect_long(
    info: Info, load: Callable[[], Awaitable[Slice[Item]]], make: Callable[[Item], T], count: Count
) -> LongConnection[T]:
    return LongConnection(**await _page(info, load, make), count=count)


_EMPTY: Slice[Any] = Slice([], [], False, False)


async def _page(info: Info, load: Callable[[], Awaitable[Slice[Any]]], make: Callable[[Any], Any]) -> dict[str, Any]:
    wanted = _selected(info)
    page = await load() if wanted is None or wanted - {"totalCount", "__typename"} else _EMPTY
    nodes = [make(item) for item in page.items]
    edges = wanted is None or "edges" in wanted
    return {
        "nodes": nodes,
        "edges": [Edge(node=node, cursor=at) for node, at in zip(nodes, page.cursors, strict=True)] if edges else [],
        "page_info": PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=page.cursors[0] if page.cursors else None,
            end_cursor=page.cursors[-1] if page.cursors else None,
        ),
    }


def _selected(info: Info) -> set[str] | None:
    """Names of the fields selected right below; None when fragments make that a longer question."""
    names = set()
    for field_node in info._raw_info.field_nodes:
        for selection in field_node.selection_set.selections if field_node.selection_set else ():
            if not isinstance(selection, FieldNode):
                return None
            names.add(selection.name.value)
    return names
