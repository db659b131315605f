"""Extensions are entered and left in order, also when one fails."""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from strawberry.extensions import SchemaExtension

from app.api.guards.hooks import Runner

EVENTS: list[str] = []


class Outer(SchemaExtension):
    async def on_operation(self) -> AsyncIterator[None]:
        EVENTS.append("outer")
        try:
            yield
        except Exception as error:
            EVENTS.append(f"outer: {error}")
            raise
        finally:
            EVENTS.append("outer ends")


class Unconcerned(SchemaExtension):
    pass


class Inner(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        EVENTS.append("inner")
        yield
        EVENTS.append("inner ends")


class FailsAtOnce(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        raise RuntimeError("at once")
        yield


class FailsLater(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        yield
        raise RuntimeError("later")


class Twice(SchemaExtension):
    def on_operation(self) -> Iterator[None]:
        yield
        yield


async def run(*classes: type[SchemaExtension], fail: bool = False) -> None:
    EVENTS.clear()
    context: Any = None
    async with Runner(context, [class_() for class_ in classes]).operation():
        EVENTS.append("runs")
        if fail:
            raise RuntimeError("inside")


async def test_in_order() -> None:
    await run(Outer, Unconcerned, Inner)
    assert EVENTS == ["outer", "inner", "runs", "inner ends", "outer ends"]


@pytest.mark.parametrize(
    ("classes", "fail", "events"),
    [
        ((Outer, Inner), True, ["outer", "inner", "runs", "outer: inside", "outer ends"]),
        ((Outer, FailsAtOnce, Inner), False, ["outer", "outer: at once", "outer ends"]),
        ((Outer, FailsLater, Inner), False, ["outer", "inner", "runs", "inner ends", "outer: later", "outer ends"]),
        ((Outer, Twice), False, ["outer", "runs", "outer: a hook yields twice", "outer ends"]),
    ],
)
async def test_who_is_around_learns_of_a_failure(
    classes: tuple[type[SchemaExtension], ...], fail: bool, events: list[str]
) -> None:
    with pytest.raises(RuntimeError, match=events[-2].removeprefix("outer: ")):
        await run(*classes, fail=fail)
    assert events == EVENTS


def test_execution_without_the_hooks_is_refused() -> None:
    context: Any = None
    with pytest.raises(RuntimeError, match="asynchronously"), Runner(context, [Inner()]).operation():
        pass
