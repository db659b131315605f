"""Time zones of sandboxes: whose calendar a job, a preview and a turn of streaming follow."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.evaluation import sandboxes
from app.services.evaluation.pins import PreviewPins, SegmentPins
from app.services.jobs.preview import requests as previews
from app.services.jobs.preview.run import run_preview
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.services.streaming.turn import run_turn
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.turns import claim_turn
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE
from tests.services.test_people import World
from tests.services.test_segment_jobs import job_of

AT_NIGHT = datetime(2026, 6, 15, 2, tzinfo=UTC)
"""Still the 14th in New York."""
_FIRST = PageRequest(1)
OTHER = Scope(SCOPE.organisation, "other", "someone")


@pytest.fixture
def world(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> World:
    clock.instant = AT_NIGHT
    return World(database, lake, clock, tmp_path)


async def choose(world: World, zone: str, scope: Scope = SCOPE) -> sandboxes.Sandbox:
    return await sandboxes.update(world.database, world.lake, world.clock, scope, zone)


async def test_jobs_previews_and_streaming_follow_the_zone(world: World) -> None:
    await choose(world, "Asia/Tokyo")
    await choose(world, "America/New_York")
    policy = await world.policy("people")
    await world.people(("a", [], {"seen": "2026-06-14T05:00:00Z"}), ("b", [], {"seen": "2026-06-14T03:00:00Z"}))
    today = await world.define("today", "seen occurs today", policy, "STREAMING")
    assert await world.run(today) == {today: (1, (1, 0, 0))}
    assert await world.members(today) == {"CRM:a": ("REALIZED", 15)}
    await world.people(("c", [], {"seen": "2026-06-15T03:59:00Z"}), ("d", [], {"seen": "2026-06-15T04:00:00Z"}))
    turn = await claim_turn(world.database, world.clock, owner="test", lease=timedelta(minutes=5))
    assert turn is not None
    await run_turn(world.database, world.lake, world.clock, turn, 1, lambda: False)
    assert set(await world.members(today)) == {"CRM:a", "CRM:c"}
    new = previews.NewPreview(expression="seen occurs today")
    preview = await previews.create(world.database, world.lake, world.clock, SCOPE, new)
    claim = await claim_next(
        world.database, world.clock, owner="test", lease=timedelta(minutes=5), kind=JobKind.PREVIEW
    )
    assert claim is not None
    await run_preview(Attempt(world.database, world.clock, claim), world.lake, 1)
    async with world.database.session() as session:
        (ended,) = (await previews.get_many(session, SCOPE, [preview.id])).values()
    assert (ended.status, ended.profiles_matched) == ("SUCCEEDED", 2)
    assert PreviewPins.from_json(ended.snapshot or {}).time_zone == "America/New_York"


async def test_a_job_keeps_the_zone_of_its_first_attempt(world: World) -> None:
    await world.people(("a", [], {"n": 1}))
    everyone = await world.define("everyone", "n = 1", await world.policy("people"))
    await choose(world, "Asia/Tokyo")
    await world.run(everyone)
    async with world.database.session() as session:
        (job,) = (await segment_jobs.page(session, SCOPE, _FIRST)).items
    pins = SegmentPins.from_json((await job_of(world.database, job.id)).snapshot)
    assert (pins.evaluated_at, pins.now.tzinfo) == (AT_NIGHT, ZoneInfo("Asia/Tokyo"))
    old = {name: value for name, value in pins.as_json().items() if name != "time_zone"}
    assert SegmentPins.from_json(old).time_zone == "UTC"


async def test_a_sandbox_has_its_own_zone(world: World) -> None:
    made = await choose(world, "Europe/Berlin", OTHER)
    assert made == sandboxes.Sandbox("other", "Europe/Berlin", 0)
    await world.people(("a", [], {"n": 1}), ("b", [], {"n": 2}))
    assert await sandboxes.own_time_zone(world.database, world.lake, SCOPE) == "UTC"
    assert await sandboxes.sandboxes(world.database, world.lake, SCOPE) == [
        sandboxes.Sandbox("other", "Europe/Berlin", 0),
        sandboxes.Sandbox(SCOPE.sandbox, "UTC", 2),
    ]
    limited = Scope(SCOPE.organisation, SCOPE.sandbox, "someone", sandboxes=frozenset({"other"}))
    assert [one.name for one in await sandboxes.sandboxes(world.database, world.lake, limited)] == ["other"]
    elsewhere = Scope("another organisation", "other", "someone")
    assert await sandboxes.sandboxes(world.database, world.lake, elsewhere) == []
    tokyo = Lake(world.lake.root, time_zone="Asia/Tokyo")
    assert await sandboxes.own_time_zone(world.database, tokyo, SCOPE) == "Asia/Tokyo"
    assert await sandboxes.own_time_zone(world.database, tokyo, OTHER) == "Europe/Berlin"


async def test_a_zone_that_does_not_exist_changes_nothing(world: World) -> None:
    await choose(world, "Europe/Berlin")
    with pytest.raises(Refusal) as refused:
        await choose(world, "Europe/Berln")
    assert (refused.value.code, refused.value.path) == (ErrorCode.INVALID_INPUT, ("time_zone",))
    assert "did you mean `Europe/Berlin`" in refused.value.message
    assert await sandboxes.own_time_zone(world.database, world.lake, SCOPE) == "Europe/Berlin"
