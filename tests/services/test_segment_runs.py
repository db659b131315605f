"""Runs of segment jobs beside one another, cut short, and over what is not to be evaluated."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.clock import FixedClock
from app.engine.store.lake import Lake
from app.errors import Refusals
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.run import run_segment_job
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.jobs import JobKind, JobPhase, JobStatus
from app.storage.tenancy import within
from tests.services.conftest import SCOPE
from tests.services.test_people import World
from tests.services.test_segment_jobs import job_of, results, run_next


@pytest.fixture
def world(database: Database, lake: Lake, clock: FixedClock, tmp_path: Path) -> World:
    return World(database, lake, clock, tmp_path)


LEASE = timedelta(days=1)


async def claimed(world: World) -> Attempt:
    claim = await claim_next(world.database, world.clock, owner="test", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    return Attempt(world.database, world.clock, claim)


async def state(world: World, id_: str, lifecycle: str) -> None:
    async with world.database.write() as session:
        change = within(update(AudienceRow), AudienceRow, SCOPE.tenant).where(AudienceRow.id == id_)  # type: ignore[arg-type]
        await session.execute(change.values(lifecycle_state=lifecycle))


class _Overtaken(Attempt):
    """Before it ends for the first time, something else happens."""

    meanwhile: Any = None

    async def finish(self, *arguments: Any, **others: Any) -> str:
        act, self.meanwhile = self.meanwhile, None
        if act is not None:
            await act()
        return await super().finish(*arguments, **others)


@pytest.mark.parametrize("graph", ["NONE", "PDG"])
async def test_of_two_jobs_at_once_the_later_counts_against_the_other(world: World, graph: str) -> None:
    """Both begin on no members; a, b are in by the first job, and when the second began, c besides."""
    policy = await world.policy("people", graph)
    await world.people(("a", [], {"gold": True}), ("b", [], {"gold": True}), ("c", [], {"gold": False}))
    gold = await world.define("gold", "gold = true", policy)
    first = await segment_jobs.create(world.database, world.clock, SCOPE, [gold])
    world.clock.advance(timedelta(seconds=1))
    second = await segment_jobs.create(world.database, world.clock, SCOPE, [gold])
    early = await claimed(world)
    early.stop()
    await run_segment_job(early, world.lake, 1)  # has fixed what it reads, and no bucket
    await early.hand_back()
    world.clock.advance(timedelta(days=1))
    await world.people(("b", [], {"gold": False}), ("c", [], {"gold": True}))
    runs = {run.job.id: run for run in (await claimed(world), await claimed(world))}
    overtaken = _Overtaken(world.database, world.clock, runs[second.id].claim)

    async def meanwhile() -> None:
        await run_segment_job(runs[first.id], world.lake, 1)

    overtaken.meanwhile = meanwhile
    await run_segment_job(overtaken, world.lake, 1)
    assert (await results(world.database, first.id))[gold][1:3] == (2, {"REALIZED": 2, "EXISTING": 0, "EXITED": 0})
    assert (await results(world.database, second.id))[gold][1:3] == (2, {"REALIZED": 1, "EXISTING": 1, "EXITED": 1})
    everyone = ("REALIZED", "EXISTING", "EXITED")
    assert await world.members(gold, everyone) == {
        "CRM:a": ("EXISTING", 15),
        "CRM:b": ("EXITED", 15),
        "CRM:c": ("REALIZED", 16),
    }


async def test_a_job_that_began_earlier_does_not_replace_what_a_newer_one_found(world: World) -> None:
    policy = await world.policy("people")
    await world.people(("a", [], {"gold": True}))
    gold = await world.define("gold", "gold = true", policy)
    first = await segment_jobs.create(world.database, world.clock, SCOPE, [gold])
    early = await claimed(world)
    early.stop()
    await run_segment_job(early, world.lake, 1)
    world.clock.advance(timedelta(days=1))
    await world.people(("b", [], {"gold": True}))
    assert await world.run(gold) == {gold: (2, (2, 0, 0))}
    await run_segment_job(await _again(world, early), world.lake, 1)
    assert (await job_of(world.database, first.id)).status == "SUCCEEDED"
    assert (await results(world.database, first.id))[gold][1:3] == (1, {"REALIZED": 1, "EXISTING": 0, "EXITED": 0})
    assert await world.members(gold) == {"CRM:a": ("REALIZED", 16), "CRM:b": ("REALIZED", 16)}


async def _again(world: World, run: Attempt) -> Attempt:
    await run.hand_back()
    return await claimed(world)


async def test_a_job_cut_short_in_its_first_pass_goes_on_from_its_buckets(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fragments first, then persons: what the first attempt has found is read again, not evaluated again."""
    apart, linked = await world.policy("apart"), await world.policy("linked", "PDG")
    await world.people(*((f"p{n}", [f"m{n // 2}"], {"gold": n % 2 == 0}) for n in range(40)))
    gold = await world.define("gold", "gold = true", apart)
    whole = await world.define("whole", f'inSegment("{gold}")', linked)
    back = await world.define("back", f'inSegment("{whole}")', apart)
    job = await segment_jobs.create(world.database, world.clock, SCOPE, [gold, whole, back])
    first = await claimed(world)
    told: list[int] = []
    noted = first.progress

    def stop_soon(phase: JobPhase, fraction: float, read: int, total: int, left: float | None = None) -> None:
        noted(phase, fraction, read, total, left)
        told.append(read)
        if read > 5:
            first.stop()

    monkeypatch.setattr(first, "progress", stop_soon)
    await run_segment_job(first, world.lake, 1)
    assert 5 < told[-1] < 40
    second = await _again(world, first)
    began: list[int] = []
    monkeypatch.setattr(second, "progress", lambda phase, fraction, read, total, left=None: began.append(read))
    await run_segment_job(second, world.lake, 1)
    assert (began[1], max(began)) == (told[-1], 100)
    found = {id_: row[1] for id_, row in (await results(world.database, job.id)).items()}
    assert found == {gold: 20, whole: 20, back: 40}


async def test_a_job_cancelled_in_its_first_pass_leaves_no_files_of_that_pass(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    apart, linked = await world.policy("apart"), await world.policy("linked", "PDG")
    await world.people(*((f"p{n}", [f"m{n // 2}"], {"gold": n % 2 == 0}) for n in range(40)))
    gold = await world.define("gold", "gold = true", apart)
    whole = await world.define("whole", f'inSegment("{gold}")', linked)
    job = await segment_jobs.create(world.database, world.clock, SCOPE, [gold, whole])
    attempt, loop = await claimed(world), asyncio.get_running_loop()
    folder = world.lake.tenant(SCOPE.tenant).membership(f"{job.id}-pass-1")
    noted, files = attempt.progress, 0

    def cancelled_soon(phase: JobPhase, fraction: float, read: int, total: int, left: float | None = None) -> None:
        nonlocal files
        noted(phase, fraction, read, total, left)
        if read > 5:
            files = len(list(folder.glob("*.json")))
            # It is called in the thread that evaluates.
            cancel = segment_jobs.cancel(world.database, world.clock, SCOPE, job.id)
            attempt.note_status(asyncio.run_coroutine_threadsafe(cancel, loop).result().status)

    monkeypatch.setattr(attempt, "progress", cancelled_soon)
    await run_segment_job(attempt, world.lake, 1)
    assert attempt.ended_as == JobStatus.CANCELLED
    assert (files > 0, folder.exists()) == (True, False)
    assert {row[1] for row in (await results(world.database, job.id)).values()} == {None}


async def test_drafts_run_when_named_and_inactive_ones_are_told_of(world: World) -> None:
    await world.people(("a", [], {"gold": True}))
    published, draft, idle = [await world.define(name, "gold = true") for name in ("published", "draft", "idle")]
    child = await world.define("child", f'inSegment("{idle}")')
    await world.run(idle)
    await state(world, draft, "DRAFT")
    await state(world, idle, "INACTIVE")
    every = await segment_jobs.create(world.database, world.clock, SCOPE, all_definitions=True)
    await run_next(world.database, world.lake, world.clock)
    assert (await results(world.database, every.id)).keys() == {published, child}
    job = await segment_jobs.create(world.database, world.clock, SCOPE, [draft, idle, child])
    await run_next(world.database, world.lake, world.clock)
    found = await results(world.database, job.id)
    assert (found[draft][1], found[child][1], found[idle][1]) == (1, 1, None)
    ended = await job_of(world.database, job.id)
    assert (ended.status, [(error["definition_id"], error["code"]) for error in ended.errors]) == (
        "SUCCEEDED",
        [(idle, "INACTIVE")],
    )
    for id_ in (published, child):
        await state(world, id_, "INACTIVE")
    with pytest.raises(Exception, match="no published definitions") as refused:
        await segment_jobs.create(world.database, world.clock, SCOPE, all_definitions=True)
    assert not isinstance(refused.value, Refusals)


async def test_what_nobody_has_evaluated_is_not_taken_for_empty(world: World) -> None:
    await world.people(("a", [], {"gold": True}))
    gold = await world.define("gold", "gold = true")
    rest = await world.define("rest", f'not inSegment("{gold}")')
    job = await segment_jobs.create(world.database, world.clock, SCOPE, [rest])
    await run_next(world.database, world.lake, world.clock)
    ended = await job_of(world.database, job.id)
    message = f"it refers to 'gold' ({gold}), which has never been evaluated; run it first, or both in one job"
    assert ended.status == "FAILED"
    assert ended.errors == [{"code": "DEPENDENCY_NOT_EVALUATED", "message": message, "definition_id": rest}]
    assert await world.run(gold, rest) == {gold: (1, (1, 0, 0)), rest: (0, (0, 0, 0))}


CONSENT: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"optInOut": {"globalOptout": True}}, False),
    ({"optInOut": {"globalOptout": False}}, True),
    ({"optInOut": {"globalOptout": None}}, True),
    ({"consents": {"marketing": {"any": {"val": "n"}}}}, False),
    ({"consents": {"marketing": {"any": {"val": "dn"}}}}, False),
    ({"consents": {"marketing": {"any": {"val": "y"}}}}, True),
    ({"consents": {"marketing": {"any": {"val": "N"}}}}, True),
    ({"consents": {"marketing": {"any": {"val": "y"}}}, "optInOut": {"globalOptout": True}}, False),
    ({"consents": {"marketing": {"any": {"val": "dn"}}}, "optInOut": {"globalOptout": False}}, False),
]


async def test_who_has_opted_out_is_no_member_unless_the_audience_says_so(world: World) -> None:
    rows: list[Any] = [(f"p{n}", [], {**fields, "known": True}) for n, (fields, _) in enumerate(CONSENT)]
    await world.people(*rows)
    kept = await world.define("kept", "known = true")
    everybody = await world.define("everybody", "known = true")
    async with world.database.write() as session:
        change = within(update(AudienceRow), AudienceRow, SCOPE.tenant).where(AudienceRow.id == everybody)  # type: ignore[arg-type]
        await session.execute(change.values(exclude_opt_out=False))
    await world.run(kept, everybody)
    assert (await world.members(kept)).keys() == {f"CRM:p{n}" for n, (_, member) in enumerate(CONSENT) if member}
    assert (await world.members(everybody)).keys() == {f"CRM:p{n}" for n in range(len(CONSENT))}
