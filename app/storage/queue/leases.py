"""Leases: what one process holds for a while, and how the next one takes it over. Jobs, turns and batches use them.

A row is held until its `lease_until`, which its holder keeps moving on. The key by which the holder changes the row has
a *fencing token* in it, which the next holder has changed: a process that was frozen, cut off or slow can then change
nothing more.

Leases are compared with the clocks of the machines. Clocks that differ by less than two thirds of a lease cost nothing;
beyond that a living holder's row may be taken away, which repeats some work and never gives a wrong result.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Update, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.scope import Tenant
from app.storage.columns import Columns, TenantRow, columns, table
from app.storage.database import Database
from app.storage.tenancy import AnyRow, AnySelect, within

T = TypeVar("T")

LONGEST = timedelta(days=1)
"""A lease that goes further was given while a clock was ahead: its holder, if it lives, renews it within the true
time."""
NOT_HELD: Mapping[str, None] = {"lease_owner": None, "lease_until": None}


class LeaseLost(Exception):
    """Somebody else has taken over what was held, or ended it: whatever this holder still wants to write is refused."""


@dataclass(frozen=True, slots=True)
class Lease:
    """What one process holds of a table with `lease_until`: the row with these values, its fencing token among them."""

    holder: str
    table: type[TenantRow]
    tenant: Tenant
    key: Mapping[str, object]
    duration: timedelta

    def change(self) -> Update:
        """Changes the row, unless somebody else holds it."""
        of = columns(self.table)
        own = (of[name] == value for name, value in self.key.items())
        return within(update(table(self.table)), self.table, self.tenant).where(*own)

    async def fence(
        self, session: AsyncSession, now: datetime, *conditions: ColumnElement[bool], column: str = "lease_until"
    ) -> Any:
        """Makes sure that the lease counts until this transaction ends, and renews it; gives a column of the row.

        Raises `LeaseLost`.
        """
        renewal = self.change().where(*conditions).values(lease_until=now + self.duration)
        row = (await session.execute(renewal.returning(columns(self.table)[column]))).first()
        if row is None:
            raise LeaseLost(f"{self.holder} has lost its lease")
        return row[0]

    async def renew(self, database: Database, now: datetime) -> None:
        """Moves the lease on. Raises `LeaseLost`."""
        async with database.write() as session:
            await self.fence(session, now)


def is_free(of: Columns, now: datetime) -> ColumnElement[bool]:
    """Whether nobody holds a row: never null, so that it can be negated."""
    return or_(of.lease_until.is_(None), of.lease_until < now, of.lease_until > now + LONGEST)


async def take_next(
    database: Database,
    clock: Clock,
    row: type[TenantRow],
    due: Callable[[datetime], AnySelect],
    take: Callable[[AsyncSession, AnyRow, datetime], Awaitable[T | None]],
) -> T | None:
    """What `take` makes of the first row that is `due`, taken in one transaction; None when none is due.

    `take` gives None for a row that it has ended or put off, or that somebody else took: the next one is tried then. It
    is looked for without a write first: a worker that has nothing to do locks nothing.
    """
    while True:
        async with database.session() as session:
            if (await session.execute(due(clock()).limit(1))).first() is None:
                return None
        async with database.write() as session:
            now = clock()
            locked = due(now).limit(1).with_for_update(of=table(row), skip_locked=True)
            if (first := (await session.execute(locked)).first()) is None:
                return None
            if (taken_over := await take(session, first, now)) is not None:
                return taken_over
