"""A field that fails takes those beside it along, and nobody else: what others wait for goes on."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import text

from app.api.context import ApiServices, Operation
from app.api.context.batching import Loader
from app.scope import Scope
from tests.api.conftest import Api


async def test_one_list_fails_and_the_other_is_answered(api: Api) -> None:
    await api.loaded()
    segment = await api.define("A")
    answer = await api.answer("""{ segmentDefinitions {
      edges { node { audience { name } dependencies(last: 501) { totalCount } } }
      nodes { segmentId audience { name } } } }""")
    wrong = [(error["extensions"]["code"], error["path"][:2]) for error in answer["errors"]]
    assert wrong == [("LIMIT_EXCEEDED", ["segmentDefinitions", "edges"])]
    assert answer["data"] is None
    # Beside one another, with a place for null between them.
    document = """query ($id: ID!) {
      a: segmentDefinition(id: $id) { audience { name } dependencies(last: 501) { totalCount } }
      b: segmentDefinition(id: $id) { audience { name } dependencies(last: 1) { totalCount } } }"""
    answer = await api.answer(document, id=segment)
    assert [error["path"] for error in answer["errors"]] == [["a", "dependencies"]]
    assert answer["data"] == {"a": None, "b": {"audience": {"name": "A"}, "dependencies": {"totalCount": 0}}}


async def test_who_waits_for_an_answer_gets_it_when_another_is_cancelled() -> None:
    going_on = asyncio.Event()

    async def load(keys: list[str]) -> list[str]:
        await going_on.wait()
        return [key.upper() for key in keys]

    loader: Loader[str, str] = Loader(load)

    async def ask() -> str:
        return await loader.load("a")

    one, other = asyncio.create_task(ask()), asyncio.create_task(ask())
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.sleep(0)
    going_on.set()
    assert await other == "A"
    with pytest.raises(asyncio.CancelledError):
        await one


async def test_a_read_whose_field_is_cancelled_leaves_the_session_to_others(services: ApiServices) -> None:
    operation = Operation(services, Scope("default", "prod", "test"), "request")
    began, ended = asyncio.Event(), asyncio.Event()

    async def slow(session: Any) -> None:
        await session.execute(text("SELECT 1"))
        began.set()
        await asyncio.sleep(0.05)
        await session.execute(text("SELECT 2"))
        ended.set()

    async def number(session: Any) -> Any:
        return (await session.execute(text("SELECT 3"))).scalar_one()

    field = asyncio.create_task(operation.read(slow))
    await began.wait()
    field.cancel()
    assert await operation.read(number) == 3
    assert ended.is_set()
    await operation.close()
    with pytest.raises(asyncio.CancelledError):
        await field
