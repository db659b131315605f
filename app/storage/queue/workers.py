"""Live workers: each renews its row regularly, and readers count the rows that have not expired."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.tables.workers import WorkerRow

FORGOTTEN = timedelta(days=1)
"""How long the row of a dead worker is kept."""

_WORKERS = columns(WorkerRow)


async def note_alive(database: Database, name: str, started_at: datetime, now: datetime, lease: timedelta) -> None:
    """Records that the worker is alive for another `lease`."""
    dialect = postgresql if database.dialect == "postgresql" else sqlite
    alive = dialect.insert(table(WorkerRow)).values(name=name, started_at=started_at, alive_until=now + lease)
    async with database.write() as session:
        await session.execute(alive.on_conflict_do_update(index_elements=["name"], set_={"alive_until": now + lease}))
        await session.execute(delete(table(WorkerRow)).where(_WORKERS.alive_until < now - FORGOTTEN))


async def note_end(database: Database, name: str) -> None:
    """Removes the worker's row at an orderly shutdown."""
    async with database.write() as session:
        await session.execute(delete(table(WorkerRow)).where(_WORKERS.name == name))


async def live_workers(session: AsyncSession, now: datetime) -> int:
    # A later time was stored while a clock was ahead.
    alive = select(func.count()).select_from(WorkerRow).where(_WORKERS.alive_until.between(now, now + FORGOTTEN))
    return int((await session.execute(alive)).scalar_one())
