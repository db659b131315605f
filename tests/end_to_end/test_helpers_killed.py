"""kill -9 and SIGSTOP of workers that do one job together, in the middle of it: the result is that of one worker."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs.segment import requests as segment_jobs
from app.settings import Settings
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind
from app.wiring import open_services
from tests.end_to_end.test_killed import (
    PURCHASES,
    SCOPE,
    buckets_of,
    expressions,
    results_of,
    until_final,
    worker_process,
)
from tests.support import processes

# The statements are tested on both databases.
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


# However fast the machine is, a job is shared from its start, and lasts long enough to be disturbed. A worker for which
# there is a file `freeze.PID` stops in the middle of a transaction.
SLOW = """
import os, pathlib, signal, time
from app.services.jobs.segment import passes, sharing
from app.storage.queue import attempts, shares
from app.storage.sessions import writing

evaluate = passes.SegmentPass.bucket

def bucket(self, *arguments):
    time.sleep(0.2)
    return evaluate(self, *arguments)

settle = shares.settle_share

async def settle_share(session, *arguments):
    await settle(session, *arguments)
    try:
        pathlib.Path(f"freeze.{os.getpid()}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGSTOP)

passes.SegmentPass.bucket = bucket
shares.settle_share = attempts.settle_share = settle_share
writing.ABANDONED_SECONDS = 5.0
sharing.ALONE_SECONDS = sharing.WORTH_SECONDS = 0.0
"""


def by_helpers(rows: list[Any]) -> set[int]:
    return {row.bucket for row in rows if row.file.split(".")[0].count("-") == 2}


async def shared_job(database: Database) -> tuple[str, set[int]]:
    """A running job over all people of which a helper has recorded something, and the buckets that it has.

    One that ends before this is seen, since the other worker had not yet started or the machine is busy, is repeated.
    """
    while True:
        async with database.write() as session:
            await session.execute(update(AudienceRow).values(membership_run_id=None))
        job = await segment_jobs.create(database, utc_now, SCOPE, all_definitions=True)
        rows: list[Any] = []
        while len(rows) < 16:
            if by_helpers(rows):
                return job.id, by_helpers(rows)
            await asyncio.sleep(0.01)
            rows = await buckets_of(database, job.id)
        await until_final(database, job.id)


def not_frozen(folder: Path) -> list[Path]:
    return list(folder.glob("freeze.*"))


async def holder(database: Database, job_id: str) -> int:
    async with database.session() as session:
        owner = (await segment_jobs.get_many(session, SCOPE, [job_id]))[job_id].lease_owner
    assert owner is not None
    return int(owner.split(":")[1])


@pytest.mark.timeout(400)
async def test_a_job_of_two_workers_survives_either(database_url: str, tmp_path: Path) -> None:
    async with open_services(Settings(data_dir=tmp_path, database_url=database_url)) as services:
        database = services.database
        new = NewDataset("purchases", DatasetKind.EVENT, "customer_id", "customer", "date")
        await ingest_file(database, services.lake, utc_now, SCOPE, new, InputFile(PURCHASES, "CSV"))
        for at, expression in enumerate(expressions()):
            definition = NewDefinition(name=f"{at:03d}", expression=expression)
            await definitions.create(database, services.lake, utc_now, SCOPE, definition)
        results, attempts, files = [], [], {}
        with ExitStack() as stack:
            workers = [stack.enter_context(worker_process(database_url, tmp_path, SLOW)) for _ in range(2)]

            async def disturbed(
                victim: Callable[[int], processes.Command], act: Callable[[processes.Command], None]
            ) -> None:
                job_id, helped = await shared_job(database)
                process = victim(await holder(database, job_id))
                act(process)
                job = await until_final(database, job_id)
                assert (job.status, job.profiles_read) == ("SUCCEEDED", 23_570), job.errors
                attempts.append(job.attempts)
                results.append(await results_of(database, job_id))
                rows = await buckets_of(database, job_id)
                files[job_id] = {row.bucket: row.file for row in rows}
                assert sorted(files[job_id]) == list(range(16))
                assert helped <= by_helpers(rows)
                assert not_frozen(tmp_path) == [], "it did not stop in its transaction"
                if act is kill:
                    process.wait()
                    workers.remove(process)
                    workers.append(stack.enter_context(worker_process(database_url, tmp_path, SLOW)))
                else:
                    process.send_signal(signal.SIGCONT)

            def helper_of(pid: int) -> processes.Command:
                return next(worker for worker in workers if worker.pid != pid)

            def holder_of(pid: int) -> processes.Command:
                return next(worker for worker in workers if worker.pid == pid)

            def freeze(process: processes.Command) -> None:
                process.send_signal(signal.SIGSTOP)

            def freeze_in_transaction(process: processes.Command) -> None:
                (tmp_path / f"freeze.{process.pid}").touch()

            def kill(process: processes.Command) -> None:
                process.send_signal(signal.SIGKILL)

            for act in (freeze, freeze_in_transaction, kill):
                await disturbed(helper_of, act)
            for act in (freeze, freeze_in_transaction, kill):
                await disturbed(holder_of, act)
        for job_id, recorded in files.items():
            assert {row.bucket: row.file for row in await buckets_of(database, job_id)} == recorded, "woke too late"
        assert attempts == [1, 1, 1, 2, 2, 2]
        assert len(results[0]) == len(expressions())
        assert sum(count for count, *_ in results[0].values()) > 0
        assert all(result == results[0] for result in results)
