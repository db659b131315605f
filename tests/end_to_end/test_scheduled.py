"""Several processes with a scheduler each, on both databases: a due time starts one job, also when nobody was there."""

import asyncio
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from app.clock import Clock, FixedClock, utc_now
from app.engine.ingest.formats import InputFile
from app.services.audiences import computed as definitions
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs import shared as jobs
from app.services.jobs.schedules import reads as schedule_reads
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules.requests import NewSchedule
from app.services.lists.paging import PageRequest
from app.settings import Settings
from app.storage.database import Database
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.schedules import ScheduleState
from app.wiring import open_services
from tests.end_to_end.test_killed import PATIENCE, SCOPE, worker_process


async def plan(services: Any, clock: Clock, name: str, audience: str, due: datetime) -> str:
    """An active schedule that fires once a day, at this time of the day."""
    cron = f"{due.second} {due.minute} {due.hour} * * ?"
    new = NewSchedule(name, cron_expression=cron, state=ScheduleState.ACTIVE, audience_ids=[audience])
    return (await schedules.create(services.database, services.lake, clock, SCOPE, new)).id


async def started(database: Database, id: str) -> list[Any]:
    async with database.session() as session:
        return [state.row for state in (await jobs.page_by_schedule(session, SCOPE, [id], PageRequest(50)))[id].items]


async def test_of_several_processes_one_starts_the_job(database_url: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url)
    file = tmp_path / "people.csv"
    file.write_text("customer,age\n1,20\n2,60\n")
    async with open_services(settings) as services:
        database, lake = services.database, services.lake
        await ingest_file(
            database,
            lake,
            utc_now,
            SCOPE,
            NewDataset("people", DatasetKind.PROFILE, "customer", "crm", None),
            InputFile(file, "CSV"),
        )
        new = NewDefinition(name="Old", expression="age > 50")
        audience = (await definitions.create(database, lake, utc_now, SCOPE, new)).id

        # Made an hour ago and due since a minute, as if every process had been down.
        now = utc_now().replace(microsecond=0)
        missed = await plan(
            services, FixedClock(now - timedelta(hours=1)), "Missed", audience, now - timedelta(minutes=1)
        )
        with worker_process(database_url, tmp_path), worker_process(database_url, tmp_path):
            for _ in range(PATIENCE * 10):
                if [job.status for job in await started(database, missed)] == ["SUCCEEDED"]:
                    break
                await asyncio.sleep(0.1)
            # Both processes are up now, and learn of a schedule that is due in a moment.
            due = utc_now().replace(microsecond=0) + timedelta(seconds=3)
            soon = await plan(services, utc_now, "Soon", audience, due)
            for _ in range(PATIENCE * 10):
                if [job.status for job in await started(database, soon)] == ["SUCCEEDED"]:
                    break
                await asyncio.sleep(0.1)
            await asyncio.sleep(0.5)
        for id_ in (missed, soon):
            (job,) = await started(database, id_)
            assert (job.status, job.source, job.attempts) == ("SUCCEEDED", "SCHEDULER", 1)
        (job,) = await started(database, soon)
        assert job.created_at >= due
        async with database.session() as session:
            runs = await schedule_reads.last_runs(session, SCOPE, [missed, soon])
        assert {id_: (run.due_at, run.outcome) for id_, run in runs.items()} == {
            missed: (now - timedelta(minutes=1), "STARTED"),
            soon: (due, "STARTED"),
        }
