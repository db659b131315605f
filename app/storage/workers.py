"""Which workers live: each says so again and again, and whoever asks counts those whose word still holds."""

from datetime import datetime, timedelta

from sqlalchemy import delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.tables.workers import WorkerRow

FORGOTTEN = timedelta(days=1)
"""How long the row of a worker stays that died without taking it along."""

_WORKERS = columns(WorkerRow)


async def note_alive(database: Database, name: str, started_at: datetime, now: datetime, lease: timedelta) -> None:
    """The worker lives, and will have said so again before the lease is over."""
    dialect = postgresql if database.dialect == "postgresql" else sqlite
    alive = dialect.insert(table(WorkerRow)).values(name=name, started_at=started_at, alive_until=now + lease)
    async with database.write() as session:
        await session.execute(alive.on_conflict_do_update(index_elements=["name"], set_={"alive_until": now + lease}))
        await session.execute(delete(table(WorkerRow)).where(_WORKERS.alive_until < now - FORGOTTEN))


async def note_end(database: Database, name: str) -> None:
    """The worker stops in good order."""
    async with database.write() as session:
        await session.execute(delete(table(WorkerRow)).where(_WORKERS.name == name))


async def live_workers(session: AsyncSession, now: datetime) -> int:
    # One that reaches further was said while a clock was ahead.
    alive = select(func.count()).select_from(WorkerRow).where(_WORKERS.alive_until.between(now, now + FORGOTTEN))
    return int((await session.execute(alive)).scalar_one())
