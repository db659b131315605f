"""The worker: takes jobs up, keeps them alive, lets them go, and never leaves one stuck."""

import asyncio
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import FixedClock, utc_now
from app.engine.store.lake import Lake
from app.errors import DatabaseAway, ErrorCode, Refusal, Refusals
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.claims import request_cancel
from app.storage.tables.jobs import JobKind, JobPhase, JobStatus
from app.storage.topics import job_topic
from app.storage.wakeups import Changes
from app.worker.handlers import Tools
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources
from tests.support.jobs import ACME, history, job, queue, queue_export

Do = Callable[[Attempt], Awaitable[None]]
Working = Callable[..., AbstractAsyncContextManager[asyncio.Event]]

NEVER = 3000.0
"""A lease so long that whatever happens is not due to one that ran out, nor to the look at the queue in between."""


@pytest.fixture
def working(database: Database, changes: Changes, clock: FixedClock, tmp_path: Path) -> Working:
    """A worker that does every job with the given function, until the block ends."""

    @asynccontextmanager
    async def run(do: Do, **options: Any) -> AsyncIterator[asyncio.Event]:
        async def handle(run: Attempt, _tools: Tools) -> None:
            await do(run)

        time = options.pop("clock", clock)
        settings = WorkerOptions(**{"lease_seconds": NEVER, **options})
        worker = Worker(Resources(database, changes, Lake(tmp_path), time), settings, {JobKind.SEGMENT: handle})
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield stop
        finally:
            stop.set()
            await task

    return run


async def reached(database: Database, changes: Changes, id: str, condition: Callable[[Any], bool]) -> Any:
    """The job, as soon as the condition holds of it."""
    async with changes.subscribe(job_topic(ACME, id)) as wakeups:
        while not condition(row := await job(database, id)):
            await wakeups.wait()
    return row


async def status(database: Database, changes: Changes, id: str, *wanted: str) -> Any:
    return await reached(database, changes, id, lambda row: row.status in wanted)


async def succeed(run: Attempt) -> None:
    await run.finish(JobStatus.SUCCEEDED)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what no event tells."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def wait_for_interruption(run: Attempt) -> None:
    await until(run.interrupted)


async def test_a_waiting_job_is_done(database: Database, changes: Changes, clock: FixedClock, working: Working) -> None:
    await queue(database, clock(), "j1")
    async with working(succeed):
        row = await status(database, changes, "j1", "SUCCEEDED")
    assert (row.attempts, row.fraction, row.lease_owner) == (1, 1.0, None)
    assert [name for _, name in await history(database, "j1", "status")] == ["QUEUED", "PROCESSING", "SUCCEEDED"]


async def test_long_jobs_of_one_kind_hold_up_none_of_another(
    database: Database, changes: Changes, clock: FixedClock, tmp_path: Path
) -> None:
    done: list[str] = []

    async def long(run: Attempt, _tools: Tools) -> None:
        await until(lambda: "e2" in done)
        await run.finish(JobStatus.SUCCEEDED)

    async def short(run: Attempt, _tools: Tools) -> None:
        await run.finish(JobStatus.SUCCEEDED)
        done.append(run.job.id)

    await queue(database, clock(), "j1", "j2")
    handlers = {JobKind.SEGMENT: long, JobKind.EXPORT: short}
    worker = Worker(
        Resources(database, changes, Lake(tmp_path), clock), WorkerOptions(concurrency=1, lease_seconds=NEVER), handlers
    )
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    await status(database, changes, "j1", "PROCESSING")
    await queue_export(database, clock(), "e1")
    await queue_export(database, clock(), "e2")
    await status(database, changes, "j2", "SUCCEEDED")
    stop.set()
    await task
    assert done == ["e1", "e2"]


async def test_a_new_job_wakes_an_idle_worker(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    async with working(succeed):
        for name in ("j1", "j2", "j3"):
            await queue(database, clock(), name)
            await status(database, changes, name, "SUCCEEDED")


async def test_no_more_jobs_run_side_by_side_than_allowed_and_all_are_done(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    names = [f"j{number}" for number in range(6)]
    running = most = 0
    two = asyncio.Barrier(2)

    async def do(run: Attempt) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await two.wait()
        running -= 1
        await run.finish(JobStatus.SUCCEEDED)

    await queue(database, clock(), *names)
    async with working(do, concurrency=2):
        for name in names:
            await status(database, changes, name, "SUCCEEDED")
    assert most == 2


# ---------------------------------------------------------------- ends that are no success


async def test_an_unexpected_error_fails_the_job_with_a_number_that_the_log_has(
    database: Database, changes: Changes, clock: FixedClock, working: Working, caplog: pytest.LogCaptureFixture
) -> None:
    async def do(_run: Attempt) -> None:
        raise LookupError("/secret/place")

    await queue(database, clock(), "j1")
    async with working(do):
        row = await status(database, changes, "j1", "FAILED")
    (error,) = row.errors
    assert error["code"] == "INTERNAL_ERROR"
    assert "secret" not in error["message"]
    number = error["message"].split(" logged as ")[1].split(":")[0]
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert number in record.getMessage()
    assert "/secret/place" in str(record.exc_info)


@pytest.mark.parametrize("several", [False, True])
async def test_a_refusal_fails_the_job_with_its_own_words(
    database: Database, changes: Changes, clock: FixedClock, working: Working, several: bool
) -> None:
    async def do(_run: Attempt) -> None:
        refusal = Refusal(ErrorCode.NOT_FOUND, "there is no such dataset")
        raise Refusals([refusal, refusal]) if several else refusal

    await queue(database, clock(), "j1")
    async with working(do):
        row = await status(database, changes, "j1", "FAILED")
    assert row.errors == [{"code": "NOT_FOUND", "message": "there is no such dataset"}] * (2 if several else 1)


async def test_a_handler_that_returns_without_a_result_fails_the_job(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    async def do(_run: Attempt) -> None:
        return

    await queue(database, clock(), "j1")
    async with working(do):
        row = await status(database, changes, "j1", "FAILED", "SUCCEEDED")
    assert [error["code"] for error in row.errors] == ["INTERNAL_ERROR"]


async def test_a_running_job_is_cancelled(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    await queue(database, clock(), "j1")
    async with working(wait_for_interruption):
        await status(database, changes, "j1", "PROCESSING")
        async with database.write() as session:
            await request_cancel(session, ACME, "j1", clock(), JobKind.SEGMENT)
        await status(database, changes, "j1", "CANCELLED")
    names = [name for _, name in await history(database, "j1", "status")]
    assert names == ["QUEUED", "PROCESSING", "CANCELLING", "CANCELLED"]


# ---------------------------------------------------------------- stopping


async def test_a_stopping_worker_hands_its_job_back_for_another_to_finish(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    async def record_and_wait(run: Attempt) -> None:
        await run.record_bucket(0, "zero", 1, {})
        await wait_for_interruption(run)

    async def resume(run: Attempt) -> None:
        assert list(await run.done_buckets()) == [0]
        await run.finish(JobStatus.SUCCEEDED)

    await queue(database, clock(), "j1")
    async with working(record_and_wait) as stop:
        await reached(database, changes, "j1", lambda row: row.status == "PROCESSING")
        stop.set()
    row = await job(database, "j1")
    assert (row.status, row.attempts, row.lease_owner, row.lease_until) == ("PROCESSING", 1, None, None)
    async with working(resume):
        row = await status(database, changes, "j1", "SUCCEEDED", "FAILED")
    assert (row.status, row.attempts, row.lost_leases) == ("SUCCEEDED", 2, 0)


async def test_a_job_that_does_not_stop_in_time_is_handed_back_without_its_bucket(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    ended: list[type[BaseException]] = []

    async def do(_run: Attempt) -> None:
        try:
            await asyncio.Event().wait()
        except BaseException as error:
            ended.append(type(error))
            raise

    await queue(database, clock(), "j1")
    async with working(do, grace_seconds=0.05) as stop:
        await status(database, changes, "j1", "PROCESSING")
        stop.set()
    row = await job(database, "j1")
    assert (row.status, row.lease_until, ended) == ("PROCESSING", None, [asyncio.CancelledError])


# ---------------------------------------------------------------- leases


async def test_the_lease_is_renewed_while_a_thread_is_busy(
    database: Database, changes: Changes, working: Working
) -> None:
    release = asyncio.Event()

    async def do(run: Attempt) -> None:
        await release.wait()
        await run.finish(JobStatus.SUCCEEDED)

    await queue(database, utc_now(), "j1")
    async with working(do, lease_seconds=1.0, clock=utc_now):
        first = (await status(database, changes, "j1", "PROCESSING")).lease_until
        await until(lambda: utc_now() > first + timedelta(seconds=1))
        assert (await job(database, "j1")).lease_until > first + timedelta(seconds=1)
        release.set()
        row = await status(database, changes, "j1", "SUCCEEDED")
    assert row.attempts == 1


async def test_progress_is_written_while_a_thread_is_busy(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    async def do(run: Attempt) -> None:
        await asyncio.to_thread(run.progress, JobPhase.EVALUATING, 0.25, 5, 20)
        await wait_for_interruption(run)

    await queue(database, clock(), "j1")
    async with working(do):
        row = await reached(database, changes, "j1", lambda row: row.fraction > 0)
    assert (row.phase, row.fraction, row.profiles_read, row.total_profiles) == ("EVALUATING", 0.25, 5, 20)


async def test_an_overtaken_worker_stops_and_changes_nothing(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    interrupted = asyncio.Event()

    async def do(run: Attempt) -> None:
        await wait_for_interruption(run)
        assert (run.stopping(), run.cancelled()) == (True, False)
        interrupted.set()

    await queue(database, clock(), "j1")
    async with working(do):
        await status(database, changes, "j1", "PROCESSING")
        async with database.write() as session:
            await session.execute(text("UPDATE segment_job SET attempts = 2, lease_owner = 'another'"))
        await interrupted.wait()
    row = await job(database, "j1")
    assert (row.status, row.attempts, row.lease_owner) == ("PROCESSING", 2, "another")


# ---------------------------------------------------------------- the database away


async def test_a_worker_outlives_a_database_that_is_away(
    database: Database,
    changes: Changes,
    clock: FixedClock,
    working: Working,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    real, calls = database.session, 0

    @asynccontextmanager
    async def session() -> AsyncIterator[AsyncSession]:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise DatabaseAway("PostgreSQL does not answer")
        async with real() as opened:
            yield opened

    await queue(database, clock(), "j1")
    monkeypatch.setattr(database, "session", session)
    async with working(succeed):
        await until(lambda: "retrying in 1.0 s" in caplog.text)
        await status(database, changes, "j1", "SUCCEEDED")
    assert caplog.text.count("database unavailable") == 2


async def test_a_job_cut_off_from_the_database_is_begun_again_and_not_failed(
    database: Database, changes: Changes, clock: FixedClock, working: Working
) -> None:
    async def do(run: Attempt) -> None:
        if run.token == 1:
            raise DatabaseAway("PostgreSQL does not answer")
        await run.finish(JobStatus.SUCCEEDED)

    await queue(database, clock(), "j1")
    async with working(do):
        row = await status(database, changes, "j1", "SUCCEEDED", "FAILED")
    assert (row.status, row.attempts, row.errors) == ("SUCCEEDED", 2, [])


# ---------------------------------------------------------------- processes that die or freeze

_WORKER = """
import asyncio, sys
import tests.support.few_buckets
from pathlib import Path
from app.clock import utc_now
from app.engine.store.lake import Lake
from app.storage.wakeups import Changes
from app.storage.database import Database
from app.storage.queue.leases import LeaseLost
from app.storage.tables.jobs import JobKind
from app.worker.jobs import Worker, WorkerOptions
from app.worker.service import Resources

async def handle(run, tools):
    for bucket in range(2):
        await run.record_bucket(bucket, f"first-{bucket}", 10, {})
    print("half", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    try:
        await run.record_bucket(2, "late", 10, {})
        print("written", flush=True)
    except LeaseLost:
        print("refused", flush=True)
        raise

async def main():
    database, lake = Database(sys.argv[1]), Lake(Path(sys.argv[2]))
    async with Changes.open(database) as changes:
        resources = Resources(database, changes, lake, utc_now)
        worker = Worker(resources, WorkerOptions(lease_seconds=3), {JobKind.SEGMENT: handle})
        await worker.run(asyncio.Event())

asyncio.run(main())
"""


@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_a_job_whose_process_dies_or_freezes_is_finished_once_by_another(
    database: Database, database_url: str, changes: Changes, working: Working, tmp_path: Path, fate: signal.Signals
) -> None:
    async def finish(run: Attempt) -> None:
        done = await run.done_buckets()
        for bucket in range(4):
            if bucket not in done:
                await run.record_bucket(bucket, f"second-{bucket}", 10, {})
        await run.finish(JobStatus.SUCCEEDED)

    await queue(database, utc_now(), "j1")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _WORKER, database_url, str(tmp_path)),
        cwd=Path(__file__).parents[2],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"half\n"
        process.send_signal(fate)
        lapses = (await job(database, "j1")).lease_until
        await until(lambda: utc_now() > lapses)
        async with working(finish, lease_seconds=15.0, clock=utc_now):
            row = await status(database, changes, "j1", "SUCCEEDED", "FAILED")
        if fate == signal.SIGSTOP:
            process.send_signal(signal.SIGCONT)
            process.stdin.write(b"go on\n")
            assert await process.stdout.readline() == b"refused\n"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    assert (row.status, row.attempts) == ("SUCCEEDED", 2)
    assert await job(database, "j1") == row
    async with database.session() as session:
        buckets = await session.execute(text("SELECT bucket, attempt, file FROM job_bucket ORDER BY bucket"))
        assert [tuple(one) for one in buckets] == [
            (0, 1, "first-0"),
            (1, 1, "first-1"),
            (2, 2, "second-2"),
            (3, 2, "second-3"),
        ]
