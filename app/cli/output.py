"""Output for scripts: tab-separated lines, or one JSON object per line."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from app.services.lists.paging import PageRequest, Slice

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON objects, one a line, with more about each.")]
Limit = Annotated[int | None, typer.Option(help="Print at most so many; all by default.", min=1)]


@dataclass(frozen=True, slots=True)
class Listing:
    """How much of a list is printed, and in which format."""

    limit: Limit = None
    as_json: Json = False


def print_object(values: Mapping[str, object], as_json: bool, columns: tuple[str, ...]) -> None:
    """All values as JSON, or only those of the columns."""
    if as_json:
        print(json.dumps({name: _plain(value) for name, value in values.items()}, ensure_ascii=False, default=str))
    else:
        print("\t".join(_cell(_plain(values[name])) for name in columns))


async def every(fetch: "Callable[[PageRequest], Awaitable[Slice[T]]]", limit: int | None) -> AsyncIterator[T]:
    """The items of all pages, or the first `limit`."""
    from app.services.lists.paging import LARGEST_PAGE, PageRequest

    cursor, rows_left = None, limit
    while rows_left is None or rows_left > 0:
        page = await fetch(
            PageRequest(LARGEST_PAGE if rows_left is None else min(rows_left, LARGEST_PAGE), cursor=cursor)
        )
        for item in page.items:
            yield item
        if not page.has_next:
            return
        cursor = page.cursors[-1]
        rows_left = None if rows_left is None else rows_left - len(page.items)


def _plain(value: object) -> Any:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def _cell(value: object) -> str:
    """One value in its column; it cannot contain tabs or line breaks."""
    text = "-" if value is None else ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return " ".join(text.split()) or "-"
