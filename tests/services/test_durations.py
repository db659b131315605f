"""Where the time of a segment job went."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.clock import FixedClock
from app.engine.run.buckets import BucketSeconds
from app.engine.store.lake import Lake
from app.services.jobs.segment import requests as segment_jobs
from app.services.jobs.segment.durations import Durations, as_stored
from app.services.lists.paging import PageRequest
from app.storage.database import Database
from app.storage.tables.jobs import JobBucketRow
from tests.services.conftest import SCOPE
from tests.services.test_people import World
from tests.services.test_segment_jobs import job_of, run_next


def bucket(number: int, counts: dict[str, Any]) -> JobBucketRow:
    now = datetime(2026, 6, 15, tzinfo=UTC)
    return JobBucketRow(
        organisation="o", sandbox="s", job_id="j", bucket=number, attempt=1, file="f", profiles=100 + number,
        counts=counts, at=now,
    )  # fmt: skip


def test_the_slowest_buckets_are_kept_and_all_are_added_up() -> None:
    rows = [
        bucket(number, {"seconds": as_stored(BucketSeconds(number / 4, 0.125, {"a": number / 16, "b": 0.0625}))})
        for number in range(1, 13)
    ]
    durations = Durations.of([*rows, bucket(13, {})])
    assert durations.definitions == {"a": 4.875, "b": 0.75}
    assert durations.buckets is not None
    slowest = durations.buckets.pop("slowest")
    assert durations.buckets == {"buckets": 12, "total_ms": 19_500, "reading_ms": 1_500, "evaluating_ms": 5_625}
    assert [each["bucket"] for each in slowest] == [12, 11, 10, 9, 8, 7, 6, 5, 4, 3]
    assert slowest[0] == {
        "bucket": 12, "profiles": 112, "total_ms": 3_000, "reading_ms": 125, "evaluating_ms": 812.5,
    }  # fmt: skip


def test_buckets_of_earlier_releases_have_none() -> None:
    assert Durations.of([bucket(1, {"counts": {}, "errors": {}})]) == Durations(None, {})


async def test_a_job_of_three_passes_has_the_seconds_of_all(
    database: Database, lake: Lake, clock: FixedClock, tmp_path: Path
) -> None:
    world = World(database, lake, clock, tmp_path)
    apart, linked = await world.policy("apart"), await world.policy("linked", "PDG")
    await world.people(*((f"p{n}", [f"m{n // 2}"], {"gold": n % 2 == 0}) for n in range(40)))
    gold = await world.define("gold", "gold = true", apart)
    whole = await world.define("whole", f'inSegment("{gold}")', linked)
    back = await world.define("back", f'inSegment("{whole}")', apart)
    job = await segment_jobs.create(database, clock, SCOPE, [gold, whole, back])
    await run_next(database, lake, clock)
    time = (await job_of(database, job.id)).metrics["bucket_time"]
    async with database.session() as session:
        page = (await segment_jobs.segments_by_job(session, SCOPE, [job.id], PageRequest(50)))[job.id]
    seconds = {row.definition_id: row.seconds or 0.0 for row in page.items}
    assert seconds.keys() == {gold, whole, back}
    assert min(seconds.values()) > 0
    assert 1000 * sum(seconds.values()) == pytest.approx(time["evaluating_ms"], abs=0.01)
    assert time["total_ms"] > time["reading_ms"] + time["evaluating_ms"]
    assert len(time["slowest"]) == min(10, time["buckets"])
