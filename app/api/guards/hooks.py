"""Runs the hooks of Strawberry's extensions directly: Strawberry looks them up for every operation, turns each into a
context manager, and enters it through a stack."""

from collections.abc import AsyncGenerator, Callable, Generator
from functools import cache
from types import TracebackType
from typing import Any, NoReturn, TypeAlias

from strawberry.extensions import SchemaExtension
from strawberry.extensions import context as managers
from strawberry.extensions.runner import SchemaExtensionsRunner

_Running: TypeAlias = Generator[None, None, None] | AsyncGenerator[None, None]


@cache
def _hooks(classes: tuple[type[SchemaExtension], ...], name: str) -> list[tuple[int, Callable[[Any], _Running]]]:
    """The hooks of these classes, outermost first, each with the position of its class. All our hooks are generators
    that yield once."""
    default = getattr(SchemaExtension, name)
    return [(at, hook) for at, class_ in enumerate(classes) if (hook := getattr(class_, name)) is not default]


class _Hooks(managers.ExtensionContextManagerBase):
    __slots__ = ("_extensions", "_running")

    def __init__(self, extensions: list[SchemaExtension]) -> None:
        self._extensions = extensions
        self._running: list[_Running] = []

    def __enter__(self) -> NoReturn:
        raise RuntimeError("this schema executes only asynchronously")

    async def __aenter__(self) -> None:
        extensions = self._extensions
        try:
            for at, hook in _hooks(tuple(map(type, extensions)), self.HOOK_NAME):
                running = hook(extensions[at])
                if isinstance(running, AsyncGenerator):
                    await anext(running)
                else:
                    next(running)
                self._running.append(running)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Continues the hooks after their `yield`, innermost first, with the exception, if any. Raises the exception of
        a hook, after the hooks around it have got it, too."""
        error = exc_val
        while self._running:
            try:
                await _end(self._running.pop(), error)
            except BaseException as raised:
                error = raised
        if error is not None and error is not exc_val:
            raise error


async def _end(running: _Running, error: BaseException | None) -> None:
    try:
        if isinstance(running, AsyncGenerator):
            await (anext(running) if error is None else running.athrow(error))
        elif error is None:
            next(running)
        else:
            running.throw(error)
    except (StopIteration, StopAsyncIteration):
        return
    raise RuntimeError("a hook yields twice")


class _Operation(_Hooks, managers.OperationContextManager):
    pass


class _Validation(_Hooks, managers.ValidationContextManager):
    pass


class _Parsing(_Hooks, managers.ParsingContextManager):
    pass


class _Executing(_Hooks, managers.ExecutingContextManager):
    pass


class Runner(SchemaExtensionsRunner):
    def operation(self) -> managers.OperationContextManager:
        return _Operation(self.extensions)

    def validation(self) -> managers.ValidationContextManager:
        return _Validation(self.extensions)

    def parsing(self) -> managers.ParsingContextManager:
        return _Parsing(self.extensions)

    def executing(self) -> managers.ExecutingContextManager:
        return _Executing(self.extensions)
