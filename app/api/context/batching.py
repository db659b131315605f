"""Loaders that ask once for all who ask in one moment; knows no question."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

from aiodataloader import DataLoader

from app.errors import Refusal

Found = TypeVar("Found")
Key = TypeVar("Key", bound=Hashable)

Page = tuple[Hashable, ...]
"""Parent first, then the arguments that its page or count was asked with."""


class Loader(DataLoader[Key, Found]):
    """A question asked once for all who ask it in one moment.

    When a field fails, those beside it are cancelled, and with them what they wait for: here that is not the answer,
    since fields elsewhere wait for the same one.
    """

    def load(self, key: Key) -> "asyncio.Future[Found]":
        answer = super().load(key)
        shielded = asyncio.shield(answer)
        # When all who asked were cancelled nobody hears of a refusal, which is no fault to log.
        for future in (answer, shielded):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return shielded


def by_arguments(fetch: Callable[..., Awaitable[Mapping[Any, Found | Refusal]]]) -> Loader[Page, Found]:
    """By (parent, *arguments): one `fetch(parents, *arguments)` for all parents with the same arguments; it may answer
    some parents with a refusal."""

    async def load(keys: list[Page]) -> list[Found | Refusal]:
        parents: dict[Page, list[Hashable]] = defaultdict(list)
        for parent, *arguments in keys:
            parents[tuple(arguments)].append(parent)
        results: dict[Page, Found | Refusal] = {}
        for arguments_, group in parents.items():
            results.update(await _of_all(fetch, group, arguments_))
        return [results[key] for key in keys]

    # An exception in the list is raised to those who wait for it, which the library's type does not say.
    return Loader(cast("Callable[[list[Page]], Coroutine[None, None, list[Found]]]", load))


async def _of_all(
    fetch: Callable[..., Awaitable[Mapping[Any, Found | Refusal]]], parents: Sequence[Hashable], arguments: Page
) -> Iterable[tuple[Page, Found | Refusal]]:
    """A refusal (of a cursor, say) is the answer for those parents, and spares the others of the batch."""
    try:
        answers = await fetch(parents, *arguments)
    except Refusal as refusal:
        return [((parent, *arguments), refusal) for parent in parents]
    return [((parent, *arguments), answers[parent]) for parent in parents]
