"""Definitions that ask how people stand in audiences: `segmentMembership`, as it was when the run began."""

from datetime import timedelta
from pathlib import Path

import pytest

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview.run import run_preview
from app.services.streaming.turn import run_turn
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.turns import claim_turn
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE
from tests.services.test_people import World

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def world(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> World:
    return World(database, lake, clock, tmp_path)


def standing(id_: str, rest: str, namespace: str = "ups") -> str:
    return f'segmentMembership.get("{namespace}").get("{id_}").{rest}'


async def entered_and_left(world: World, *policy: str) -> str:
    """a entered on day 15 and is in, b entered then and left on day 20, c entered on day 20."""
    await world.people(("a", [], {"gold": True}), ("b", [], {"gold": True}), ("c", [], {"gold": False}))
    gold = await world.define("gold", "gold = true", *policy)
    await world.run(gold)
    world.clock.advance(timedelta(days=5))
    await world.people(("b", [], {"gold": False}), ("c", [], {"gold": True}))
    assert await world.run(gold) == {gold: (2, (1, 1, 1))}
    return gold


@pytest.mark.parametrize("graph", ["NONE", "PDG"])
async def test_a_job_asks_for_what_jobs_have_stored(world: World, graph: str) -> None:
    policy = await world.policy("people", graph)
    gold = await entered_and_left(world, policy)
    asked = {
        "recent": standing(gold, "lastQualificationTime occurs <= 3 days before now"),
        "week": standing(gold, "lastQualificationTime occurs <= 7 days before now", "AEPSegments"),
        "gone": standing(gold, 'status = "exited"') + " and gold = false",
        "stays": standing(gold, 'status = "existing"'),
        "new": standing(gold, 'status = "realized"'),
        "any": 'segmentMembership.keys().includes("AEPSegments")',
        "nobody": standing("elsewhere", "isNotNull()"),
    }
    ids = {name: await world.define(name, expression, policy) for name, expression in asked.items()}
    await world.run(*ids.values())
    members = {name: "".join(id_[-1] for id_ in sorted(await world.members(ids[name]))) for name in asked}
    assert members == {"recent": "c", "week": "abc", "gone": "b", "stays": "a", "new": "c", "any": "abc", "nobody": ""}


async def test_a_run_sees_what_was_stored_before_it(world: World) -> None:
    """Also of a definition that it evaluates itself, and whoever left two runs ago has left."""
    policy = await world.policy("people")
    gold = await entered_and_left(world, policy)
    gone = await world.define("gone", standing(gold, 'status = "exited"'), policy)
    await world.people(("a", [], {"gold": False}))
    assert await world.run(gold, gone) == {gold: (1, (0, 1, 1)), gone: (1, (1, 0, 0))}
    assert await world.members(gone) == {"CRM:b": ("REALIZED", 20)}
    world.clock.advance(timedelta(days=1))
    assert await world.run(gone) == {gone: (2, (1, 1, 0))}


async def test_a_definition_may_ask_for_itself(world: World) -> None:
    """Whoever was in once never comes back."""
    policy = await world.policy("people")
    gold = await entered_and_left(world, policy)
    again = "gold = true and not (" + standing(gold, 'status = "exited"') + ")"
    once = await world.define("once", again, policy)
    await world.people(("b", [], {"gold": True}))
    assert await world.run(once) == {once: (2, (2, 0, 0))}
    assert set(await world.members(once)) == {"CRM:a", "CRM:c"}


async def test_previews_and_streaming_see_it_too(world: World) -> None:
    policy = await world.policy("people")
    gold = await entered_and_left(world, policy)
    expression = standing(gold, 'status = "exited"') + " and gold = true"
    back = await world.define("back", expression, policy, "STREAMING")
    await world.run(back)
    await world.people(("b", [], {"gold": True}), ("c", [], {"gold": True}))
    turn = await claim_turn(world.database, world.clock, owner="test", lease=timedelta(minutes=5))
    assert turn is not None
    await run_turn(world.database, world.lake, world.clock, turn, 1, lambda: False)
    assert await world.members(back) == {"CRM:b": ("REALIZED", 20)}
    preview = await previews.create(
        world.database, world.lake, world.clock, SCOPE, previews.NewPreview(expression=expression)
    )
    claim = await claim_next(
        world.database, world.clock, owner="test", lease=timedelta(minutes=5), kind=JobKind.PREVIEW
    )
    assert claim is not None
    await run_preview(Attempt(world.database, world.clock, claim), world.lake, 1)
    async with world.database.session() as session:
        (ended,) = (await previews.get_many(session, SCOPE, [preview.id])).values()
    assert (ended.status, ended.profiles_matched) == ("SUCCEEDED", 1)
