"""Streams that give the same event share its answer, and only these."""

import asyncio
from typing import Any

import pytest
from gql.transport.exceptions import TransportQueryError

from app.api.execution.plan import OperationPlan, Selection
from app.api.execution.shared import sharing_key
from app.clock import Clock, utc_now
from app.scope import EVERYTHING, Scope
from tests.api.conftest import Api
from tests.api.test_subscriptions import by_sse, by_websocket
from tests.support.databases import count_statements

WATCH = """subscription ($id: ID!, $after: Int, $named: Boolean!) {
  segmentJobUpdated(id: $id, after: $after) {
    status progress { sequence } segments { nodes { definition { id name @include(if: $named) } } } } }"""


@pytest.fixture
def clock() -> Clock:
    """The real one: what has changed lately is asked by the database's time."""
    return utc_now


async def test_an_update_is_executed_once_for_all_streams_that_show_the_same(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    streams: list[Any] = [
        way(port, WATCH, id=job, named=named) for named in (True, False) for way in (by_sse, by_websocket) * 5
    ]
    first = await asyncio.gather(*(anext(stream) for stream in streams))
    assert [item["segmentJobUpdated"]["status"] for item in first] == ["QUEUED"] * 20
    following = [asyncio.ensure_future(anext(stream)) for stream in streams]
    with count_statements(api.services.database) as statements:
        await api.query("mutation ($id: ID!) { cancelSegmentJob(id: $id) { errors { message } } }", id=job)
        items = [item["segmentJobUpdated"] for item in await asyncio.gather(*following)]
    assert [item["status"] for item in items] == ["CANCELLED"] * 20
    definitions = [item["segments"]["nodes"][0]["definition"] for item in items]
    assert [definition.get("name") for definition in definitions] == ["A"] * 10 + [None] * 10
    reads = [one for one in statements if one.startswith("SELECT") and "FROM definition " in one]
    assert len(reads) == 4, "one for each of the two selections, in either spelling: gql prints documents anew"
    for stream in streams:
        await stream.aclose()


async def test_who_comes_later_sees_what_has_changed_about_the_same_event(api: Api, port: int) -> None:
    await api.loaded()
    definition = await api.define("A")
    job = await api.start()

    async def name() -> Any:
        stream = by_sse(port, WATCH, id=job, named=True)
        item = await anext(stream)
        await stream.aclose()
        return item["segmentJobUpdated"]["segments"]["nodes"][0]["definition"]["name"]

    assert await name() == "A"
    renamed = """mutation ($id: ID!) { updateSegmentDefinition(input: {id: $id, name: "B"}) { errors { message } } }"""
    assert await api.query(renamed, id=definition) == {"updateSegmentDefinition": {"errors": []}}
    assert await name() == "B"


async def test_an_error_is_each_streams_own(api: Api, port: int) -> None:
    await api.loaded()
    await api.define("A")
    job = await api.start()
    document = "subscription ($id: ID!) { segmentJobUpdated(id: $id) { jobId segments(first: -1) { totalCount } } }"
    for way in (by_sse, by_websocket) * 2:
        with pytest.raises(TransportQueryError) as failed:
            await anext(way(port, document, id=job))
        (error,) = failed.value.errors or []
        assert (error["path"], error["extensions"]["code"]) == (["segmentJobUpdated", "segments"], "INVALID_INPUT")


def test_tenants_and_permissions_share_nothing() -> None:
    plan = OperationPlan(Selection(None, []), ("named",))  # type: ignore[arg-type]

    class Stream:
        def __init__(self, *scope: Any, event: Any = ("SEGMENT", "j", 1)) -> None:
            self.scope, self.event = Scope(*scope), event

    def key(stream: Stream, **variables: Any) -> Any:
        return sharing_key(plan, variables, stream)  # type: ignore[arg-type]

    same = key(Stream("o", "prod", "ann"), id="j", named=True)
    assert key(Stream("o", "prod", "bob"), id="j", after=3, named=True) == same
    others = [
        key(Stream("p", "prod", "ann"), named=True),
        key(Stream("o", "dev", "ann"), named=True),
        key(Stream("o", "prod", "ann", EVERYTHING - {"admin"}), named=True),
        key(Stream("o", "prod", "ann"), named=False),
        key(Stream("o", "prod", "ann", event=("SEGMENT", "j", 2)), named=True),
    ]
    assert len({same, *others}) == 6
