"""A segment job on many workers leaves what it leaves on one, whoever of them is killed, frozen or comes too late."""

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import OperationalError

from app.engine.limits.pool import Cancelled, Stopped
from app.engine.run.engine import Done, LocalEngine, Work, timed
from app.engine.store.lake import Lake
from app.engine.store.objects import mount
from app.services.jobs.segment import sharing
from app.services.jobs.segment.run import run_segment_job
from app.services.jobs.shared import cancel
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import claim_next
from app.storage.queue.leases import LeaseLost
from app.storage.queue.shares import Share, SharedWork, ShareLost, claim_shares, find_shared, record_share
from app.storage.queue.workers import note_alive
from app.storage.tables.audiences import AudienceRow, AudienceType
from app.storage.tables.jobs import JobBucketRow, JobKind, JobShareRow
from app.storage.wakeups import Changes
from app.worker.helping import Helping
from app.worker.jobs import WorkerOptions
from app.worker.service import Resources
from tests.services.conftest import SCOPE, Gateway
from tests.services.test_engines import FIRST, counts, sandbox
from tests.support.gateway import LEASE

pytestmark = pytest.mark.usefixtures("real_buckets", "shared_soon")

SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
PATIENCE = 100


@pytest.fixture
async def shared_soon(database: Database, gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers live, and whatever can be shared is worth it."""
    for name in ("ALONE_SECONDS", "WORTH_SECONDS", "SHARE_SECONDS", "PATIENCE_SECONDS"):
        monkeypatch.setattr(sharing, name, 0.0)
    for name in ("holder", "helper"):
        await note_alive(database, name, gateway.clock(), gateway.clock(), timedelta(hours=20))


class Shy(LocalEngine):
    """Does a bucket of each pass, so that the pass is shared, and then what `then` says: it is called before each
    other bucket, with the pass."""

    def __init__(self, then: Callable[[Any], object]) -> None:
        super().__init__(1)
        object.__setattr__(self, "then", then)

    def run(self, work: Work, buckets: Iterable[int], finished: Callable[[Done], None], cancelled: Stopped) -> None:
        for at, bucket in enumerate(buckets):
            if at:
                self.then(work)  # type: ignore[attr-defined]
            if cancelled():
                raise Cancelled
            finished(timed(work, bucket, cancelled))


class Helped:
    """How much helpers have recorded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.buckets = 0
        self._changed = threading.Condition()

        async def record(*arguments: Any) -> None:
            await record_share(*arguments)
            with self._changed:
                self.buckets += 1
                self._changed.notify_all()

        monkeypatch.setattr(sharing, "record_share", record)

    def until(self, buckets: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.buckets >= buckets, PATIENCE)


@pytest.fixture
def helped(monkeypatch: pytest.MonkeyPatch) -> Helped:
    return Helped(monkeypatch)


@asynccontextmanager
async def helper(gateway: Gateway, changes: Changes, lake: Lake | None = None) -> AsyncIterator[None]:
    stop = asyncio.Event()
    helping = Helping(
        Resources(gateway.database, changes, lake or gateway.lake, gateway.clock),
        WorkerOptions(lease_seconds=60.0, threads=1),
        idle=lambda: True,
    )
    task = asyncio.create_task(helping.run(stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def forget_members(gateway: Gateway) -> None:
    async with gateway.database.write() as session:
        computed = AudienceRow.type == AudienceType.SEGMENT_DEFINITION
        await session.execute(update(AudienceRow).where(computed).values(membership_run_id=None))  # type: ignore[arg-type]


async def files(gateway: Gateway, job_id: str) -> dict[int, str]:
    """The checksum of each bucket's memberships, and by whom they were written."""
    async with gateway.database.session() as session:
        rows = await session.execute(
            select(JobBucketRow.bucket, JobBucketRow.file).where(JobBucketRow.job_id == job_id)  # type: ignore[call-overload]
        )
        return {row.bucket: row.file for row in rows}


def checksums(of_buckets: dict[int, str]) -> dict[int, str]:
    return {bucket: name.split(".")[1] for bucket, name in of_buckets.items()}


def by_helpers(of_buckets: dict[int, str]) -> set[int]:
    return {bucket for bucket, name in of_buckets.items() if name.split(".")[0].count("-") == 2}


async def shares(gateway: Gateway) -> int:
    async with gateway.database.session() as session:
        return int((await session.execute(select(func.count()).select_from(JobShareRow))).scalar_one())


@SQLITE
async def test_all_passes_of_a_job_are_the_same_with_help(gateway: Gateway, changes: Changes, helped: Helped) -> None:
    """Two merge policies, references in both directions, limits and uploaded members: three passes."""
    ids = await sandbox(gateway)
    of_passes: dict[int, int] = {}

    def wait(work: Any) -> None:
        if (number := len(work.passes)) not in of_passes:
            before = sum(of_passes.values())
            helped.until(before + 3)
            of_passes[number] = helped.buckets - before

    async with helper(gateway, changes):
        run = await gateway.start_job()
        await run_segment_job(run, gateway.lake, 1, Shy(wait))
    assert run.ended_as == "SUCCEEDED"
    assert await counts(gateway, ids) == FIRST
    assert (sorted(of_passes), await shares(gateway)) == ([1, 2, 3], 0)
    with_help = await files(gateway, run.job.id)
    assert by_helpers(with_help)

    await forget_members(gateway)
    alone = await gateway.start_job()
    await run_segment_job(alone, gateway.lake, 1)
    assert await counts(gateway, ids) == FIRST
    undisturbed = await files(gateway, alone.job.id)
    assert checksums(with_help) == checksums(undisturbed)
    assert by_helpers(undisturbed) == set()


async def people(gateway: Gateway) -> str:
    """The definition of an audience of 30 of 60 people in 16 buckets."""
    await gateway.people([{"id": f"{n:03}", "score": n} for n in range(60)])
    return await gateway.define("high", "score >= 30", "BATCH")


async def test_progress_and_results_are_those_of_one_worker(gateway: Gateway, changes: Changes, helped: Helped) -> None:
    high = await people(gateway)
    async with helper(gateway, changes):
        run = await gateway.start_job(high)
        # All that was shared but the one that the holder has claimed.
        await run_segment_job(run, gateway.lake, 1, Shy(lambda _work: helped.until(14)))
    assert (run.ended_as, await gateway.numbers(high)) == ("SUCCEEDED", (30, {"crm": 30}))
    async with gateway.database.session() as session:
        row = (await session.execute(select(*(JobBucketRow.__table__.c)))).all()
    assert sorted(one.bucket for one in row) == list(range(16))
    assert sum(one.profiles for one in row) == 60
    assert {one.attempt for one in row} == {1}
    assert len(by_helpers(await files(gateway, run.job.id))) == 14
    assert (run._progress or {})["profiles_read"] == 60
    assert await shares(gateway) == 0


@SQLITE
async def test_a_helper_on_another_host_shares_object_storage(
    gateway: Gateway, changes: Changes, helped: Helped, object_url: str, tmp_path: Path
) -> None:
    lakes = [Lake(mount(object_url, tmp_path / host), must_exist=True) for host in "ab"]
    shared = Gateway(gateway.database, lakes[0], gateway.clock, tmp_path)
    high = await people(shared)
    async with helper(shared, changes, lakes[1]):
        run = await shared.start_job(high)
        await run_segment_job(run, lakes[0], 1, Shy(lambda _work: helped.until(14)))
    assert (run.ended_as, await shared.numbers(high)) == ("SUCCEEDED", (30, {"crm": 30}))
    assert len(by_helpers(await files(shared, run.job.id))) == 14
    assert len(await shared.members(high)) == 30
    assert list((lakes[0].tenant(SCOPE.tenant).folder / "scratch").iterdir()) == [], "nothing is left of the order"


async def test_a_helper_that_hangs_costs_what_it_holds_and_wakes_too_late(gateway: Gateway) -> None:
    """It claims five buckets, and its leases never run out: the holder does them itself."""
    high = await people(gateway)
    run = await gateway.start_job(high)
    loop = asyncio.get_running_loop()
    taken: list[tuple[SharedWork, Share]] = []

    async def claim() -> None:
        async with gateway.database.session() as session:
            work = await find_shared(session, gateway.clock(), ())
        assert work is not None
        claimed = await claim_shares(gateway.database, gateway.clock, work, "frozen", timedelta(hours=11), 5)
        taken.extend((work, share) for share in claimed)

    def once(_work: Any) -> None:
        if not taken:
            asyncio.run_coroutine_threadsafe(claim(), loop).result()

    await run_segment_job(run, gateway.lake, 1, Shy(once))
    assert (run.ended_as, await gateway.numbers(high)) == ("SUCCEEDED", (30, {"crm": 30}))
    recorded = await files(gateway, run.job.id)
    assert (len(recorded), len(taken)) == (16, 5)
    for work, share in taken:
        row = {"organisation": "acme", "sandbox": "prod", "job_id": run.job.id, "bucket": share.bucket, "attempt": 1}
        row |= {"file": "late", "profiles": 1, "counts": {}}
        with pytest.raises((LeaseLost, ShareLost)):
            await record_share(gateway.database, gateway.clock(), work, share, {"profiles": 1}, row)
    assert await files(gateway, run.job.id) == recorded


@SQLITE
@pytest.mark.parametrize("fatal", [1, 3], ids=["in the first pass", "in the last one"])
async def test_what_helpers_did_for_a_holder_that_died_is_kept(
    gateway: Gateway, changes: Changes, helped: Helped, fatal: int
) -> None:
    """The holder is gone without a word; whoever takes the job over finds all that was recorded, by whomever."""
    ids = await sandbox(gateway)

    class Killed(BaseException):
        pass

    before: list[int] = []

    def die(work: Any) -> None:
        if len(work.passes) == fatal:
            before.append(helped.buckets)
            helped.until(before[0] + 2)
            raise Killed

    run = await gateway.start_job()
    async with helper(gateway, changes):
        with pytest.raises(Killed):
            await run_segment_job(run, gateway.lake, 1, Shy(die))
    assert await shares(gateway) > 0
    recorded = await files(gateway, run.job.id)
    assert bool(recorded) == (fatal == 3)
    gateway.clock.advance(LEASE * 2)
    claim = await claim_next(gateway.database, gateway.clock, owner="next", lease=LEASE, kind=JobKind.SEGMENT)
    assert claim is not None
    successor = Attempt(gateway.database, gateway.clock, claim)
    evaluated: Counter[int] = Counter()
    await run_segment_job(successor, gateway.lake, 1, Shy(lambda work: evaluated.update([len(work.passes)])))
    if fatal == 1:  # Its holder did one bucket, and this engine tells nothing of the first of a pass.
        assert evaluated[1] + 1 == 16 - (1 + helped.buckets)
    assert (claim.token, successor.ended_as, await counts(gateway, ids)) == (2, "SUCCEEDED", FIRST)
    after = await files(gateway, run.job.id)
    assert len(after) == 16
    assert {bucket: after[bucket] for bucket in recorded} == recorded
    assert await shares(gateway) == 0


async def test_a_cancelled_job_has_no_shares_left(gateway: Gateway, changes: Changes, helped: Helped) -> None:
    high = await people(gateway)
    run = await gateway.start_job(high)
    loop = asyncio.get_running_loop()

    async def ask() -> None:
        async with gateway.database.write() as session:
            await cancel(session, gateway.clock, SCOPE, JobKind.SEGMENT, run.job.id)

    def stop(_work: Any) -> None:
        helped.until(1)
        asyncio.run_coroutine_threadsafe(ask(), loop).result()
        run.note_status(run.job.status.CANCELLING)

    async with helper(gateway, changes):
        await run_segment_job(run, gateway.lake, 1, Shy(stop))
    assert (run.ended_as, await shares(gateway)) == ("CANCELLED", 0)
    assert 1 <= len(await files(gateway, run.job.id)) < 16


@SQLITE
async def test_a_holder_waits_for_a_database_that_is_away(
    gateway: Gateway, changes: Changes, helped: Helped, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the holder asks about shares is asked again."""
    asked: Counter[str] = Counter()

    def interrupted(name: str) -> None:
        act = getattr(sharing, name)

        async def once_away(*arguments: Any, **options: Any) -> Any:
            asked[name] += 1
            if asked[name] == 1:
                raise OperationalError("SELECT", {}, sqlite3.OperationalError("database is locked"))
            return await act(*arguments, **options)

        monkeypatch.setattr(sharing, name, once_away)

    high = await people(gateway)
    run = await gateway.start_job(high)
    names = ("live_workers", "publish_shares", "claim_shares", "done_shares", "results_of_shares", "withdraw_shares")
    async with helper(gateway, changes):
        for name in names:
            interrupted(name)
        await run_segment_job(run, gateway.lake, 1, Shy(lambda _work: helped.until(1)))
    assert (run.ended_as, await gateway.numbers(high)) == ("SUCCEEDED", (30, {"crm": 30}))
    assert all(asked[name] >= 2 for name in names)


async def test_a_worker_that_is_alone_shares_nothing(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    high = await people(gateway)
    gateway.clock.advance(timedelta(hours=21))  # the others have not said for long that they live
    monkeypatch.setattr(sharing, "publish_shares", None)
    await gateway.job(high)
    assert await gateway.numbers(high) == (30, {"crm": 30})
