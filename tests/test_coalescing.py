"""Work for many that is done once."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.coalescing import Coalesced


class Works:
    """Works that end when the test lets them; each gives its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.doors: list[asyncio.Event] = []

    def work(self) -> Coroutine[Any, Any, int]:
        self.begun += 1
        self.doors.append(asyncio.Event())
        return self._wait(self.begun)

    async def _wait(self, number: int) -> int:
        await self.doors[number - 1].wait()
        return number


async def settled() -> None:
    """All that can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_all_who_ask_before_it_begins_share_one_work() -> None:
    works, coalesced, asked = Works(), Coalesced[int](), time.monotonic()
    asking = [asyncio.create_task(coalesced.get("a", asked, works.work)) for _ in range(100)]
    await settled()
    works.doors[0].set()
    assert await asyncio.gather(*asking) == [1] * 100
    assert await coalesced.get("a", asked, works.work) == 1


async def test_who_asks_for_news_while_one_runs_gets_the_next_one_together_with_the_others() -> None:
    works, coalesced = Works(), Coalesced[int]()
    first = asyncio.create_task(coalesced.get("a", time.monotonic(), works.work))
    await settled()
    later = [asyncio.create_task(coalesced.get("a", time.monotonic(), works.work)) for _ in range(50)]
    await settled()
    assert works.begun == 1, "one at a time"
    works.doors[0].set()
    await settled()
    works.doors[1].set()
    assert (await first, await asyncio.gather(*later)) == (1, [2] * 50)


async def test_who_leaves_takes_the_work_from_nobody() -> None:
    works, coalesced, asked = Works(), Coalesced[int](), time.monotonic()
    leaving, staying = (asyncio.create_task(coalesced.get("a", asked, works.work)) for _ in range(2))
    await settled()
    leaving.cancel()
    await settled()
    works.doors[0].set()
    assert await staying == 1
    assert leaving.cancelled()


async def test_an_error_is_everybodys_and_the_next_who_asks_begins_anew() -> None:
    coalesced, begun = Coalesced[int](), 0

    async def fail() -> int:
        nonlocal begun
        begun += 1
        raise ValueError(f"failure {begun}")

    asked = time.monotonic()
    outcomes = await asyncio.gather(*(coalesced.get("a", asked, fail) for _ in range(3)), return_exceptions=True)
    assert list(map(str, outcomes)) == ["failure 1"] * 3
    with pytest.raises(ValueError, match="failure 2"):
        await coalesced.get("a", time.monotonic(), fail)


async def test_keys_do_not_share_and_only_so_many_outcomes_are_kept() -> None:
    coalesced, asked = Coalesced[int](kept=2), time.monotonic()

    def giving(number: int) -> Callable[[], Coroutine[Any, Any, int]]:
        async def give() -> int:
            return number

        return give

    assert [await coalesced.get(key, asked, giving(key)) for key in (1, 2, 3)] == [1, 2, 3]
    assert [await coalesced.get(key, asked, giving(-key)) for key in (3, 2, 1)] == [3, 2, -1]
