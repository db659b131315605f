"""How far a job says it is, and how long it says it takes."""

from datetime import timedelta

import pytest

from app.clock import FixedClock
from app.engine.limits.pool import Cancelled
from app.services.evaluation.progress import Progress
from app.services.jobs.segment import requests as segment_jobs
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.tables.jobs import JobKind
from tests.services.conftest import SCOPE, Define


@pytest.fixture
async def run(database: Database, clock: FixedClock, define: Define) -> Attempt:
    await segment_jobs.create(database, clock, SCOPE, [(await define("Big")).id])
    claim = await claim_next(database, clock, owner="test", lease=timedelta(minutes=1), kind=JobKind.SEGMENT)
    assert claim is not None
    return Attempt(database, clock, claim)


def told(run: Attempt) -> tuple[str, float, int, int, float | None]:
    """What would be written next."""
    noted = run._progress or {}
    names = ("phase", "fraction", "profiles_read", "total_profiles", "seconds_left")
    phase, fraction, read, total, left = (noted[name] for name in names)
    return phase, round(fraction, 3), read, total, None if left is None else round(left, 3)


async def test_building_views_is_part_of_the_work(run: Attempt, clock: FixedClock) -> None:
    """Four buckets, of which two have to be built first: six pieces of work."""
    progress = Progress(run, threads=1)
    assert told(run) == ("READING", 0, 0, 0, None)
    progress.view(0, 2, 4)
    assert told(run) == ("READING", 0, 0, 0, None)
    for built, expected in ((1, ("READING", 0.167, 0, 0, 15.0)), (2, ("READING", 0.333, 0, 0, 12.0))):
        clock.advance(timedelta(seconds=3))
        progress.view(built, 2, 4)
        assert told(run) == expected
    progress.begin(40, 0)
    assert told(run) == ("EVALUATING", 0.333, 0, 40, None)
    clock.advance(timedelta(seconds=1))
    progress.add(10)
    assert told(run) == ("EVALUATING", 0.5, 10, 40, 3.0)
    progress.add(30)
    assert told(run) == ("EVALUATING", 1.0, 40, 40, 0.0)
    progress.end()
    assert told(run) == ("WRITING", 1.0, 40, 40, None)


async def test_what_other_threads_are_at_counts_by_half(run: Attempt, clock: FixedClock) -> None:
    """Of 80 people 20 are done in 5 seconds, 10 at a time, while another thread is half through 10 more."""
    progress = Progress(run, threads=2)
    progress.view(0, 0, 8)
    progress.begin(80, 0)
    clock.advance(timedelta(seconds=5))
    progress.add(10)
    progress.add(10)
    assert told(run) == ("EVALUATING", 0.25, 20, 80, 11.0)


async def test_a_later_attempt_judges_by_its_own_pace(run: Attempt, clock: FixedClock) -> None:
    progress = Progress(run, threads=1)
    progress.begin(100, 50)
    assert told(run) == ("EVALUATING", 0.5, 50, 100, None)
    clock.advance(timedelta(seconds=4))
    progress.add(10)
    assert told(run) == ("EVALUATING", 0.6, 60, 100, 16.0)


async def test_an_attempt_that_is_to_end_does_so_between_buckets_of_a_view(run: Attempt, clock: FixedClock) -> None:
    progress = Progress(run, threads=1)
    progress.view(0, 10, 10)
    clock.advance(timedelta(seconds=1))
    progress.view(1, 10, 10)
    run.stop()
    clock.advance(timedelta(seconds=1))
    with pytest.raises(Cancelled):
        progress.view(2, 10, 10)


async def test_an_attempt_that_is_to_end_ends_a_view_that_is_there_in_a_moment(run: Attempt, clock: FixedClock) -> None:
    progress = Progress(run, threads=1)
    progress.view(0, 10, 10)
    clock.advance(timedelta(seconds=5))
    for built in range(1, 9):
        progress.view(built, 10, 10)
    run.stop()
    progress.view(9, 10, 10)
    assert told(run) == ("READING", 0.45, 0, 0, 6.111)
