"""Relay connections over the pages of services; knows no resource."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Annotated, Final, Generic, TypeVar, cast

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.execution.direct import WITH_PAGE, names_below
from app.api.execution.relation import EMPTY, AnySlice, Make, Values, needs_page
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
    """A connection field.

    The method takes `page: PageRequest`; clients see `first`, `after`, `last` and `before` instead. The field fails
    with a `Refusal` if these contradict each other.
    """

    def declare(method: Resolver) -> Resolver:
        @wraps(method)
        async def resolve(*positional: object, **arguments: object) -> object:
            return await method(*positional, **with_page(arguments))

        resolve.__signature__ = _with_page_arguments(signature(method))  # type: ignore[attr-defined]
        setattr(resolve, WITH_PAGE, with_page)
        return cast(Resolver, resolver(description)(resolve))

    return declare


def with_page(
    arguments: Mapping[str, object],
    *,
    columns: frozenset[str] | None = None,
    cursors: bool = True,
    alone: bool = False,
) -> StoredValues:
    """Converts a connection's arguments to those of its method. Raises `Refusal`."""
    others = {name: value for name, value in arguments.items() if name not in _PAGE_ARGUMENTS}
    asked: StoredValues = {name: given(arguments.get(name)) for name in _PAGE_ARGUMENTS}
    return {**others, "page": replace(page_request(**asked), columns=columns, cursors=cursors, alone=alone)}


def _with_page_arguments(method: Signature) -> Signature:
    """A method's signature with the paging arguments in place of `page`."""
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
    """A list that may have more than 2^31 items: profiles, or their events."""

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
    """A page as a connection; `load` is called only if the page's contents are selected."""
    return Connection(**await _page(info, load, make), count=count)


async def connect_long(
    info: Info, load: Callable[[], Awaitable[Slice[Item]]], make: Callable[[Item], T], count: Count
) -> LongConnection[T]:
    return LongConnection(**await _page(info, load, make), count=count)


async def _page(info: Info, load: Callable[[], Awaitable[AnySlice]], make: Make) -> StoredValues:
    selected = names_below(info)
    page = await load() if needs_page(selected) else EMPTY
    nodes = _nodes(page, make)
    return {
        "nodes": nodes,
        "edges": _edges(page, nodes) if selected is None or "edges" in selected else [],
        "page_info": _page_info(page) if selected is None or "pageInfo" in selected else _NO_PAGE_INFO,
    }


def _nodes(page: AnySlice, make: Make) -> list[object]:
    return [make(item) for item in page.items]


def _edges(page: AnySlice, nodes: Iterable[object]) -> list[Edge[object]]:
    return [Edge(node=node, cursor=at) for node, at in zip(nodes, page.cursors, strict=True)]


def _page_info(page: AnySlice) -> PageInfo:
    cursors = page.cursors
    return PageInfo(
        has_next_page=page.has_next,
        has_previous_page=page.has_previous,
        start_cursor=cursors[0] if cursors else None,
        end_cursor=cursors[-1] if cursors else None,
    )


_NO_PAGE_INFO = _page_info(EMPTY)
"""Placeholder if `pageInfo` is not selected."""

VALUES: Final[Values] = {
    "nodes": _nodes,
    "edges": lambda page, make: _edges(page, _nodes(page, make)),
    "pageInfo": lambda page, _make: _page_info(page),
}
"""The values of a connection's fields."""
