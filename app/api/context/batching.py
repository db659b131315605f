"""Data loaders that batch concurrent requests into one; do not know what they load."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Hashable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar, cast

from aiodataloader import DataLoader

from app.errors import Refusal

Found = TypeVar("Found")
Key = TypeVar("Key", bound=Hashable)

Page = tuple[Hashable, ...]
"""The parent, followed by the arguments of its page or count."""


class Later(Generic[Found]):
    """A loader's pending result for one key.

    An executor that runs coroutines itself (see `advance`) receives this object instead of awaiting it, and loads it
    together with all others.
    """

    __slots__ = ("key", "loader")

    def __init__(self, loader: "Loader[Any, Found]", key: Any) -> None:
        self.loader: Final = loader
        self.key: Final = key

    def __await__(self) -> Generator[Any, Any, Found]:
        if _ADVANCING:
            answer: Found = yield self
            return answer
        return (yield from self.loader.future(self.key).__await__())


_ADVANCING: list[bool] = []
"""Not empty while `advance` runs a coroutine."""


def advance(coroutine: Coroutine[object, object, object], sent: object) -> tuple[bool, object]:
    """Runs a coroutine until it waits, after sending it the awaited result (an exception is raised in it). Returns
    whether it has ended, and its result (or the exception it raised), else what it waits for."""
    _ADVANCING.append(True)
    try:
        waited = coroutine.throw(sent) if isinstance(sent, Exception) else coroutine.send(sent)
    except StopIteration as end:
        return True, end.value
    except Exception as error:
        return True, error
    finally:
        _ADVANCING.pop()
    return False, waited


class Resumed:
    """A waiting coroutine that was started by `advance`; from here on it is awaited normally."""

    __slots__ = ("_coroutine", "_waited")

    def __init__(self, coroutine: Coroutine[object, object, object], waited: object) -> None:
        self._coroutine = coroutine
        self._waited = waited

    def __await__(self) -> Generator[Any, Any, object]:
        coroutine, waited = self._coroutine, self._waited
        try:
            while True:
                try:
                    sent = (yield from waited.__await__()) if isinstance(waited, Later) else (yield waited)
                except BaseException as error:
                    waited = coroutine.throw(error)
                else:
                    waited = coroutine.send(sent)
        except StopIteration as end:
            return end.value


class Loader(DataLoader[Key, Found]):
    """Batches all keys requested at the same time into one load.

    When a field fails, its siblings and their awaited futures are cancelled. The load itself is not, since other fields
    may be waiting for it.
    """

    def __init__(self, load: Callable[[list[Key]], Coroutine[None, None, list[Found]]]) -> None:
        super().__init__(self._batch)
        self._load = load
        self._answers: dict[Key, Found | Exception] = {}
        """What `all_of` has loaded, without futures."""

    async def _batch(self, keys: list[Key]) -> list[Found]:
        """The results for futures; loads those that are not known yet."""
        unknown = [key for key in keys if key not in self._answers]
        loaded = dict(zip(unknown, await self._load(unknown), strict=True)) if unknown else {}
        # The library raises an exception in the list, which its types do not express.
        return [loaded[key] if key in loaded else cast("Found", self._answers[key]) for key in keys]

    def load(self, key: Key) -> Later[Found]:  # type: ignore[override]
        return Later(self, key)

    def future(self, key: Key) -> "asyncio.Future[Found]":
        answer = super().load(key)
        shielded = asyncio.shield(answer)
        # If all waiting fields were cancelled, nothing retrieves an error; it is not a fault to log.
        for future in (answer, shielded):
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
        return shielded

    async def all_of(self, keys: Iterable[Key]) -> Mapping[Key, Found | Exception]:
        """The results of these keys (and of all before), loaded together; an exception is a result too."""
        unasked = list(dict.fromkeys(keys))
        if self._cache:
            futures = map(self.future, unasked)
            loaded = await asyncio.gather(*futures, return_exceptions=True)
            return {key: cast("Found | Exception", answer) for key, answer in zip(unasked, loaded, strict=True)}
        unasked = [key for key in unasked if key not in self._answers]
        if not unasked:
            return self._answers
        try:
            answers = await self._load(unasked)
        except Exception as error:
            return {**self._answers, **dict.fromkeys(unasked, error)}
        self._answers.update(zip(unasked, answers, strict=True))
        return self._answers


class PageLoader(Loader[Page, Found]):
    """By (parent, *arguments): one `fetch(parents, *arguments)` for all parents with the same arguments; it may return
    a `Refusal` for some parents."""

    def __init__(self, fetch: Callable[..., Awaitable[Mapping[Any, Found | Refusal]]]) -> None:
        # The library raises an exception in the list to the waiting caller, which its types do not express.
        super().__init__(cast("Callable[[list[Page]], Coroutine[None, None, list[Found]]]", self._by_arguments))
        self._fetch = fetch
        self._of_arguments: defaultdict[Page, dict[Hashable, Found | Refusal]] = defaultdict(dict)

    async def of_parents(self, parents: Iterable[Hashable], arguments: Page) -> Mapping[Hashable, Found | Exception]:
        """The results of these parents (and of all before) for the same arguments, by parent."""
        known = self._of_arguments[arguments]
        unasked = [parent for parent in dict.fromkeys(parents) if parent not in known]
        if unasked:
            try:
                known.update(await self._fetch(unasked, *arguments))
            except Refusal as refusal:
                # For example of a cursor: it concerns these parents, and none with other arguments.
                known.update(dict.fromkeys(unasked, refusal))
            except Exception as error:
                return {**known, **dict.fromkeys(unasked, error)}
        return known

    async def _by_arguments(self, keys: list[Page]) -> list[Found | Exception]:
        parents: dict[Page, list[Hashable]] = defaultdict(list)
        for parent, *arguments in keys:
            parents[tuple(arguments)].append(parent)
        answers = {arguments: await self.of_parents(group, arguments) for arguments, group in parents.items()}
        return [answers[tuple(arguments)][parent] for parent, *arguments in keys]
