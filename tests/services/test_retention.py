"""What is cleared away, and above all what is not: nothing that an audience shows or that a job reads."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from app.clock import FixedClock
from app.engine.ingest.formats import InputFile
from app.engine.members.membership import MembershipFiles
from app.engine.people.profiles import MergeRule, open_snapshot, reopen
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.services.datasets import batches, datasets, deletion
from app.services.datasets.uploads import Uploaded, upload_batch
from app.services.evaluation.expressions import data_sources
from app.services.evaluation.heads import read_heads
from app.services.jobs.segment import requests as segment_jobs
from app.services.maintenance.retention import Keep, clean
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import append_update
from app.storage.tables.jobs import JobBucketRow, JobKind
from app.worker.maintenance import Maintenance
from tests.services.conftest import SCOPE, Define
from tests.services.test_segment_jobs import run_next
from tests.support.gateway import Gateway
from tests.support.jobs import history

KEEP = Keep(timedelta(days=7), timedelta(days=30), timedelta(hours=24))
AT_ONCE = Keep(timedelta(0), timedelta(0), timedelta(0))


async def ran(database: Database, lake: Lake, clock: FixedClock, *definitions: str) -> str:
    job = await segment_jobs.create(database, clock, SCOPE, definitions)
    await run_next(database, lake, clock)
    return job.id


async def runs_kept(database: Database, lake: Lake) -> tuple[set[str], set[str]]:
    """Those whose buckets the database knows, and those whose files the lake has."""
    folders = {path.name for path in (lake.tenant(SCOPE.tenant).folder / "membership").iterdir()}
    async with database.session() as session:
        return set(await session.scalars(select(columns(JobBucketRow).job_id))), folders


async def members(database: Database, lake: Lake, audience: str) -> int:
    async with database.session() as session:
        heads = await read_heads(session, SCOPE)
    files = MembershipFiles(lake.tenant(SCOPE.tenant))
    return sum(len(membership.members) for _, membership in heads.of(files, audience))


async def test_states_of_ended_jobs_go_after_a_while_but_the_last_stays(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = (await define("A")).id
    ended = await ran(database, lake, clock, a)
    waiting = (await segment_jobs.create(database, clock, SCOPE, [a])).id
    before = await history(database, ended, "status", tenant=SCOPE.tenant)
    assert len(before) > 2
    clock.advance(timedelta(days=7))
    await clean(database, lake, clock, KEEP)
    assert await history(database, ended, "status", tenant=SCOPE.tenant) == before
    clock.advance(timedelta(seconds=1))
    await clean(database, lake, clock, KEEP)
    assert await history(database, ended, "status", tenant=SCOPE.tenant) == [(before[-1][0], "SUCCEEDED")]
    assert await history(database, waiting, "status", tenant=SCOPE.tenant) == [(1, "QUEUED")]


async def test_memberships_go_so_long_after_the_last_audience_let_go_of_them(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a, b = (await define("A")).id, (await define("B", "xEvent.sum(dollars) > 650")).id
    shared = await ran(database, lake, clock, a, b)
    other = await ran(database, lake, clock, a)
    for _ in range(2):
        clock.advance(timedelta(days=300))
        await clean(database, lake, clock, KEEP)
    assert await runs_kept(database, lake) == ({shared, other}, {shared, other})
    newest = await ran(database, lake, clock, a, b)
    await clean(database, lake, clock, KEEP)  # sees for the first time that nobody refers to the two
    clock.advance(timedelta(days=30) - timedelta(seconds=1))
    await clean(database, lake, clock, KEEP)
    assert await runs_kept(database, lake) == ({shared, other, newest},) * 2
    clock.advance(timedelta(seconds=1))
    await clean(database, lake, clock, KEEP)
    assert await runs_kept(database, lake) == ({newest}, {newest})
    assert [await members(database, lake, audience) for audience in (a, b)] == [2, 1]


async def test_what_a_job_reads_stays_as_long_as_the_job(
    database: Database, lake: Lake, clock: FixedClock, define: Define, purchases: Uploaded, tmp_path: Path
) -> None:
    a = (await define("A")).id
    first = await ran(database, lake, clock, a)
    second = await ran(database, lake, clock, a)
    pinning = (await segment_jobs.create(database, clock, SCOPE, [a])).id
    async with database.write() as session:  # as it is while a worker is at it
        await session.execute(
            text("UPDATE segment_job SET snapshot = (SELECT snapshot FROM segment_job WHERE id = :a) WHERE id = :b"),
            {"a": second, "b": pinning},
        )
    dataset = purchases.batch.dataset_id
    await upload_batch(database, lake, clock, SCOPE, dataset, InputFile(tmp_path / "purchases.csv", "CSV"))
    # Another job moves the head and the view on; the pinning one is not its turn yet.
    async with database.write() as session:
        await session.execute(text("UPDATE segment_job SET status = 'CANCELLED' WHERE id = :b"), {"b": pinning})
    third = await ran(database, lake, clock, a)
    async with database.write() as session:
        await session.execute(text("UPDATE segment_job SET status = 'QUEUED' WHERE id = :b"), {"b": pinning})
    for _ in range(3):
        clock.advance(timedelta(days=1))
        await clean(database, lake, clock, AT_ONCE)
    assert await runs_kept(database, lake) == ({first, third},) * 2, "the second counts its changes against the first"
    run = await run_next(database, lake, clock)
    assert (run.job.id, run.ended_as) == (pinning, "SUCCEEDED")
    for _ in range(3):
        clock.advance(timedelta(days=1))
        await clean(database, lake, clock, AT_ONCE)
    assert first not in (await runs_kept(database, lake))[1]


async def test_a_run_killed_at_its_removal_is_removed_later(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = (await define("A")).id
    old, new = await ran(database, lake, clock, a), await ran(database, lake, clock, a)
    async with database.write() as session:
        await session.execute(text("DELETE FROM job_bucket WHERE job_id = :old"), {"old": old})
    for _ in range(2):
        await clean(database, lake, clock, AT_ONCE)
    assert await runs_kept(database, lake) == ({new}, {new})


async def test_processes_with_a_worker_keep_house(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    a = (await define("A")).id
    old, new = await ran(database, lake, clock, a), await ran(database, lake, clock, a)
    stop = asyncio.Event()
    houses = [Maintenance(database, lake, clock, AT_ONCE) for _ in range(3)]
    keeping = [asyncio.create_task(house.keep(stop, clean_every=0.01)) for house in houses]
    folder = lake.tenant(SCOPE.tenant).membership(old)
    while folder.exists():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*keeping)
    assert await runs_kept(database, lake) == ({new}, {new})


async def test_a_deleted_dataset_goes_when_nobody_reads_it_any_more(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    dataset, tenant = purchases.batch.dataset_id, lake.tenant(SCOPE.tenant)
    async with database.session() as session:
        sources = await data_sources(session, SCOPE)
    rule = MergeRule("default", "TIMESTAMP_ORDERED")
    snapshot = await asyncio.to_thread(open_snapshot, tenant, rule, sources)
    await deletion.delete_dataset(database, lake, clock, SCOPE, dataset)
    await clean(database, lake, clock, KEEP)
    again = await asyncio.to_thread(reopen, tenant, rule, [], json.loads(json.dumps(snapshot.pinned)))
    keys = [(bucket, int(ordinal)) for bucket in again.buckets for ordinal in again.present(bucket)]
    assert sum(again.event_counts(keys)) == 3, "who began before goes on with what there was"
    assert (await asyncio.to_thread(open_snapshot, tenant, rule, [])).total_profiles == 0
    clock.advance(timedelta(hours=24))
    await clean(database, lake, clock, KEEP)
    assert not tenant.dataset(dataset).exists()


async def test_a_dataset_is_not_deleted_while_a_batch_is_being_loaded(
    database: Database, lake: Lake, clock: FixedClock, purchases: Uploaded
) -> None:
    async with database.session() as session:
        row = (await datasets.get_many(session, SCOPE, [purchases.batch.dataset_id]))[purchases.batch.dataset_id]
    await batches.begin(database, clock, SCOPE, row)
    with pytest.raises(Refusal) as caught:
        await deletion.delete_dataset(database, lake, clock, SCOPE, row.id)
    assert (caught.value.code, caught.value.path) == (ErrorCode.INVALID_STATE, ("id",))
    clock.advance(timedelta(seconds=61))
    await batches.reconcile(database, lake, clock)
    await deletion.delete_dataset(database, lake, clock, SCOPE, row.id)
    with pytest.raises(Refusal) as caught:
        await batches.begin(database, clock, SCOPE, row)
    assert caught.value.code == ErrorCode.NOT_FOUND


async def test_what_was_streamed_stays_as_long_as_audiences_show_it(gateway: Gateway) -> None:
    await gateway.people([{"id": "1", "tier": "gold"}, {"id": "2", "tier": "tin"}])
    gold = await gateway.define("Gold", 'tier = "gold"')
    await gateway.job()
    await gateway.people([{"id": "2", "tier": "gold"}])
    assert await gateway.stream() == 1
    for _ in range(2):
        gateway.clock.advance(timedelta(days=1))
        await clean(gateway.database, gateway.lake, gateway.clock, AT_ONCE)
    assert await gateway.statuses(gold) == ["REALIZED", "REALIZED"]


async def test_a_live_job_keeps_all_its_states(
    database: Database, lake: Lake, clock: FixedClock, define: Define
) -> None:
    waiting = await segment_jobs.create(database, clock, SCOPE, [(await define("A")).id])
    for _ in range(2):
        async with database.write() as session:
            await append_update(session, waiting, JobKind.SEGMENT)
    clock.advance(timedelta(days=30))
    await clean(database, lake, clock, KEEP)
    states = await history(database, waiting.id, "status", tenant=SCOPE.tenant)
    assert states == [(number, "QUEUED") for number in (1, 2, 3)]
