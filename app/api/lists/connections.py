"""Relay connections over the pages of services; knows no resource."""

from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Any, Generic, TypeVar, cast

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.execution.direct import names_below
from app.api.scalars import BigInt, given
from app.services.lists.paging import Slice, page_request
from app.storage.columns import StoredValues

T = TypeVar("T")
Item = TypeVar("Item")

_PAGE_ARGUMENTS = {
    "first": Annotated[
        int | None,
        strawberry.argument(description="Page size when paging forward; default 50, at most 500."),
    ],
    "after": Annotated[str | None, strawberry.argument(description="Returns items after this cursor.")],
    "last": Annotated[
        int | None,
        strawberry.argument(
            description="Page size when paging backward with `before`; cannot be combined with `first`."
        ),
    ],
    "before": Annotated[str | None, strawberry.argument(description="Returns items before this cursor.")],
}

Resolver = TypeVar("Resolver", bound=Callable[..., Awaitable[object]])


def connection(description: str) -> Callable[[Resolver], Resolver]:
    """A field that is a page of a list.

    The method takes `page: PageRequest`; clients see `first`, `after`, `last` and `before` in its place. The field
    fails with a `Refusal` when these contradict each other.
    """

    def declare(method: Resolver) -> Resolver:
        @wraps(method)
        async def resolve(*positional: object, **arguments: object) -> object:
            asked: StoredValues = {name: given(arguments.pop(name, None)) for name in _PAGE_ARGUMENTS}
            return await method(*positional, page=page_request(**asked), **arguments)

        resolve.__signature__ = _with_page_arguments(signature(method))  # type: ignore[attr-defined]
        return cast(Resolver, resolver(description)(resolve))

    return declare


def _with_page_arguments(method: Signature) -> Signature:
    """The signature of a method with the arguments of a page in place of `page`."""
    parameters: list[Parameter] = []
    for parameter in method.parameters.values():
        if parameter.name == "page":
            parameters += [
                parameter.replace(name=name, annotation=type_, default=strawberry.UNSET)
                for name, type_ in _PAGE_ARGUMENTS.items()
            ]
        else:
            parameters.append(parameter)
    return method.replace(parameters=parameters)


Count = Callable[[], Awaitable[int]]


@strawberry.type(description="Position of a page in its list.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="Whether there are items after this page.")
    has_previous_page: bool = strawberry.field(description="Whether there are items before this page.")
    start_cursor: str | None = strawberry.field(description="Cursor of the first item; null if the page is empty.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last item; null if the page is empty.")


@strawberry.type(description="An item of a page, with its cursor.")
class Edge(Generic[T]):
    node: T = strawberry.field(description="The item.")
    cursor: str = strawberry.field(description="Opaque position of the item, for `after` or `before`.")


@strawberry.type(description="A page of a list.")
class Connection(Generic[T]):
    edges: list[Edge[T]] = strawberry.field(description="Items of the page with their cursors.")
    nodes: list[T] = strawberry.field(description="Items of the page.")
    page_info: PageInfo = strawberry.field(description="Position of the page in the list.")
    count: strawberry.Private[Count]

    @resolver(description="Number of items in the whole list. Counted only when requested.")
    async def total_count(self) -> int:
        return await self.count()


@strawberry.type(name="Connection", description="A page of a list.")
class LongConnection(Generic[T]):
    """A list that may be longer than 2^31: of people or of what they did."""

    edges: list[Edge[T]] = strawberry.field(description="Items of the page with their cursors.")
    nodes: list[T] = strawberry.field(description="Items of the page.")
    page_info: PageInfo = strawberry.field(description="Position of the page in the list.")
    count: strawberry.Private[Count]

    @resolver(description="Number of items in the whole list. Counted only when requested.")
    async def total_count(self) -> BigInt:
        return BigInt(await self.count())


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


async def _page(info: Info, load: Callable[[], Awaitable[Slice[Any]]], make: Callable[[Any], object]) -> StoredValues:
    selected = names_below(info)
    page = await load() if selected is None or selected - {"totalCount", "__typename"} else _EMPTY
    nodes = [make(item) for item in page.items]
    edges = selected is None or "edges" in selected
    cursors = page.cursors if selected is None or "pageInfo" in selected else ()
    return {
        "nodes": nodes,
        "edges": [Edge(node=node, cursor=at) for node, at in zip(nodes, page.cursors, strict=True)] if edges else [],
        "page_info": PageInfo(
            has_next_page=page.has_next,
            has_previous_page=page.has_previous,
            start_cursor=cursors[0] if cursors else None,
            end_cursor=cursors[-1] if cursors else None,
        ),
    }
