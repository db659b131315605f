"""How long an operation may take: what takes longer is refused, and really stops."""

import asyncio
import threading
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from app.api.context import ApiServices, Limits, Operation
from app.engine.limits.pool import Stopped
from app.errors import Refusal
from app.scope import Scope
from app.services.insight.population import in_thread
from tests.api.conftest import Api

SAYS = "the operation took more than 0.2 seconds (max_seconds): ask for less, or in parts"
ENDLESS = text("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")


@pytest.fixture
def limits() -> Limits:
    return Limits(max_seconds=0.2)


async def test_work_in_threads_stops(api: Api, services: ApiServices, monkeypatch: pytest.MonkeyPatch) -> None:
    began, ended = threading.Event(), threading.Event()

    async def endless(*_arguments: Any) -> int:
        def work(stopped: Stopped) -> int:
            began.set()
            while not stopped():
                pass
            ended.set()
            return 1

        return await in_thread(work)

    monkeypatch.setattr("app.services.insight.profiles.count", endless)
    answer: dict[str, Any] = {}
    while not began.is_set():  # on a busy machine the time may be over before the thread begins
        answer = await api.answer('{ viewer { sandbox } profiles(where: "true") { totalCount } }')
    assert "data" not in answer
    (error,) = answer["errors"]
    assert error["message"] == SAYS
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "path": [], "name": "max_seconds", "limit": 0.2}
    assert await asyncio.to_thread(ended.wait, 30)
    assert services.metrics.refusals.labels("max_seconds")._value.get() >= 1
    assert (await api.query("{ viewer { sandbox } }"))["viewer"] == {"sandbox": "prod"}


async def test_statements_stop(services: ApiServices) -> None:
    operation = Operation(services, Scope("default", "prod", "ann"), "r")

    async def ask(session: Any) -> Any:
        return (await session.execute(ENDLESS)).scalar_one()

    async with asyncio.timeout(30):
        with pytest.raises(Refusal, match=r"more than 0\.2 seconds"):
            await operation.within_time(operation.read(ask))
        await operation.close()
    async with services.database.session() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_writes_are_not_cut_short(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.services.search import folders

    create = folders.create

    async def slow(*arguments: Any, **more: Any) -> Any:
        await asyncio.sleep(0.3)
        return await create(*arguments, **more)

    monkeypatch.setattr(folders, "create", slow)
    payload = await api.query(
        'mutation { createFolder(input: { name: "f", namespace: "AEPSegments" }) { folder { name } errors { code } } }'
    )
    assert payload["createFolder"] == {"folder": {"name": "f"}, "errors": []}


async def test_each_item_of_a_subscription_has_its_own_time(
    services: ApiServices, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = Operation(replace(services, limits=Limits(max_seconds=3_600)), Scope("default", "prod", "ann"), "r")
    loop = asyncio.get_running_loop()
    real, passed = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: real() + passed)

    async def one(seconds: float) -> int:
        nonlocal passed
        passed += seconds
        await asyncio.sleep(0.001)  # for a deadline that is over to show
        return 1

    assert [await operation.within_time(one(2_000)) for _ in range(3)] == [1, 1, 1]
    with pytest.raises(Refusal, match="more than 3600 seconds"):
        await operation.within_time(one(4_000))
