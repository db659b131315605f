"""Jobs for tests of the queue."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select

from app.scope import Tenant
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.job_log import append_update
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import JobKind, JobUpdateRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.tenancy import within

ACME = Tenant("acme", "prod")
GLOBEX = Tenant("globex", "prod")
_JOBS = columns(SegmentJobRow)
_UPDATES = columns(JobUpdateRow)


async def queue(database: Database, now: datetime, *ids: str, tenant: Tenant = ACME) -> None:
    """Queues jobs with these ids, as `createSegmentJob` does."""
    async with database.write() as session:
        for name in ids:
            job = SegmentJobRow(
                organisation=tenant.organisation,
                sandbox=tenant.sandbox,
                id=name,
                created_by="ada",
                created_at=now,
                updated_at=now,
            )
            session.add(job)
            await append_update(session, job, JobKind.SEGMENT)


async def queue_export(
    database: Database, now: datetime, id: str, waits_for: str | None = None, tenant: Tenant = ACME
) -> None:
    """Queues an export job, with a dataset of its own."""
    key: dict[str, Any] = {"organisation": tenant.organisation, "sandbox": tenant.sandbox}
    made: dict[str, Any] = {"created_by": "ada", "created_at": now, "updated_at": now}
    async with database.write() as session:
        session.add(DatasetRow(**key, **made, id=f"to {id}", name=f"to {id}", kind=DatasetKind.EXPORT))
        await session.flush()
        row = ExportJobRow(
            **key,
            **made,
            id=id,
            merge_policy_id="p",
            merge_policy={"id": "p"},
            schema_name="_xdm.context.profile",
            destination_id=f"to {id}",
            waits_for=waits_for,
        )
        session.add(row)
        await append_update(session, row, JobKind.EXPORT)


async def job(database: Database, id: str, tenant: Tenant = ACME) -> Any:
    async with database.session() as session:
        return (await session.execute(within(select(*_JOBS), SegmentJobRow, tenant).where(_JOBS.id == id))).one()


async def history(database: Database, id: str, *names: str, tenant: Tenant = ACME) -> Sequence[tuple[Any, ...]]:
    """The update log of a job: of each row the sequence and the named parts of its state."""
    mine = within(select(_UPDATES.sequence, _UPDATES.state), JobUpdateRow, tenant).where(_UPDATES.job_id == id)
    async with database.session() as session:
        rows = list(await session.execute(mine.order_by(_UPDATES.sequence)))
    return [(sequence, *(state[name] for name in names)) for sequence, state in rows]
