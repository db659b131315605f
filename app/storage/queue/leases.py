"""Leases: a process holds a row for a limited time, after which another can take it over. Used for jobs, turns and
batches.

A row is held until `lease_until`, which its holder keeps renewing. The key by which the holder updates the row contains
a *fencing token*, which the next holder changes. A process that was frozen, disconnected or slow can then no longer
write.

Lease times are compared with each machine's clock. Clock differences below two thirds of a lease have no effect. Larger
ones can cost a live holder its row, which repeats some work but never produces a wrong result.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import BindParameter, ColumnElement, Update, bindparam, or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.scope import Tenant
from app.storage.columns import Columns, TenantRow, columns, table
from app.storage.database import Database
from app.storage.tenancy import AnyRow, AnySelect, within

T = TypeVar("T")

LONGEST = timedelta(days=1)
"""A lease that ends more than this after now was granted while a clock was ahead, and counts as free. A live holder
renews it with the correct time."""
NOT_HELD: Mapping[str, None] = {"lease_owner": None, "lease_until": None}


class LeaseLost(Exception):
    """Another process has taken over the row or ended the work: all further writes by this holder are rejected."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A row of a table with `lease_until` held by one process; `key` are its column values, including the fencing
    token."""

    holder: str
    table: type[TenantRow]
    tenant: Tenant
    key: Mapping[str, object]
    duration: timedelta

    def change(self) -> Update:
        """An UPDATE of the row that matches only while this holder has it."""
        of = columns(self.table)
        own = (of[name] == value for name, value in self.key.items())
        return within(update(table(self.table)), self.table, self.tenant).where(*own)

    async def fence(
        self, session: AsyncSession, now: datetime, *conditions: ColumnElement[bool], column: str = "lease_until"
    ) -> Any:
        """Verifies that the lease holds until this transaction ends, and renews it. Returns the value of `column`.

        Raises `LeaseLost`.
        """
        renewal = self.change().where(*conditions).values(lease_until=now + self.duration)
        row = (await session.execute(renewal.returning(columns(self.table)[column]))).first()
        if row is None:
            raise LeaseLost(f"{self.holder} has lost its lease")
        return row[0]

    async def renew(self, database: Database, now: datetime) -> None:
        """Renews the lease. Raises `LeaseLost`."""
        async with database.write() as session:
            await self.fence(session, now)


NOW: BindParameter[datetime] = bindparam("as_of")
"""The time that the statements of a `Due` compare with."""
_LATEST: BindParameter[datetime] = bindparam("latest_lease")


def is_free(of: Columns, now: datetime | None = None) -> ColumnElement[bool]:
    """Whether no process holds the row, now or (without it) at `NOW`. Never NULL, so that it can be negated."""
    at, latest = (NOW, _LATEST) if now is None else (now, now + LONGEST)
    return or_(of.lease_until.is_(None), of.lease_until < at, of.lease_until > latest)


@dataclass(frozen=True, slots=True)
class Due:
    """The rows of a table to take next. Make it once: workers ask often, and building statements costs more than
    running them.

    `before` are further times that the statements compare with, by parameter, as times before `NOW`.
    """

    first: AnySelect
    locked: AnySelect
    before: Mapping[str, timedelta]

    @classmethod
    def of(cls, rows: AnySelect, row: type[TenantRow], **before: timedelta) -> "Due":
        first = rows.limit(1)
        return cls(first, first.with_for_update(of=table(row), skip_locked=True), before)

    def values(self, now: datetime) -> dict[str, datetime]:
        times = {name: now - distance for name, distance in self.before.items()}
        return times | {NOW.key: now, _LATEST.key: now + LONGEST}


async def take_next(
    database: Database,
    clock: Clock,
    due: Due,
    take: Callable[[AsyncSession, AnyRow, datetime], Awaitable[T | None]],
) -> T | None:
    """Passes the first row that is `due` to `take`, in one transaction. Returns its result; None if no row is due.

    `take` returns None if it ended or postponed the row, or if another process took it; then the next row is tried. The
    first lookup is a plain read, so that an idle worker takes no locks.
    """
    while True:
        async with database.session() as session:
            if (await session.execute(due.first, due.values(clock()))).first() is None:
                return None
        async with database.write() as session:
            now = clock()
            if (first := (await session.execute(due.locked, due.values(now))).first()) is None:
                return None
            if (taken_over := await take(session, first, now)) is not None:
                return taken_over
