"""The audit log: who did what to which object, and the outcome. It contains ids and no personal data."""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.errors import Refusal, Refusals, outage
from app.logs import event
from app.scope import Scope
from app.services.lists.filters import DateTimeFilter
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, rows_of_any
from app.storage.columns import columns
from app.storage.database import WITNESS, Database, is_unavailable
from app.storage.ids import new_id
from app.storage.sessions.writing import WriteSession, insert_rows
from app.storage.tables.access import AuditEventRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

DONE = "OK"
LONGEST_ID = 128

_EVENTS = columns(AuditEventRow)
_ORDER = Order("ID", (Key(_EVENTS.id, descending=True),))


@dataclass(slots=True)
class Entry:
    """An operation in progress. Its row is written in the first transaction that the operation commits.

    If the operation fails later, a second row follows: the last row of a request and action has the outcome.
    """

    scope: Scope
    clock: Clock
    action: str
    request_id: str
    resource_id: str | None = None
    """Id of the object; if not given, that of the object the operation creates."""
    outcome: str = DONE
    recorded: bool = False
    closed: bool = False

    async def before_commit(self, session: WriteSession) -> None:
        if self.recorded or self.closed:
            return
        if self.resource_id is None:
            # Ids are in creation order, and the requested object is created first.
            self.resource_id = min(session.added_ids, default=None)
        await self.write(session, DONE)

    def committed(self) -> None:
        self.recorded = True

    async def write(self, session: AsyncSession, outcome: str) -> None:
        now = self.clock()
        row = AuditEventRow(
            organisation=self.scope.organisation,
            sandbox=self.scope.sandbox,
            id=new_id(now),
            at=now,
            subject=self.scope.user,
            action=self.action,
            resource_id=None if self.resource_id is None else self.resource_id[:LONGEST_ID],
            outcome=outcome,
            request_id=self.request_id,
        )
        await insert_rows(session, row)

    def note(self, seconds: float) -> None:
        """Writes a log line; only the audit log records who did it."""
        event(
            log,
            "action",
            action=self.action,
            outcome=self.outcome,
            resource_id=None if self.resource_id is None else self.resource_id[:LONGEST_ID],
            request_id=self.request_id,
            organisation=self.scope.organisation,
            sandbox=self.scope.sandbox,
            duration_ms=seconds * 1000,
        )


@asynccontextmanager
async def audited(database: Database, entry: Entry) -> AsyncIterator[Entry]:
    """Records the block's operation, whatever its outcome. An exception is recorded by its code, or as INTERNAL."""
    token, began = WITNESS.set(entry), time.perf_counter()
    try:
        yield entry
    except (Refusal, Refusals) as refusal:
        first = refusal if isinstance(refusal, Refusal) else refusal.refusals[0]
        entry.outcome = first.code.value
        raise
    except Exception as error:
        entry.outcome = "UNAVAILABLE" if outage(error) or is_unavailable(error) else "INTERNAL"
        raise
    finally:
        WITNESS.reset(token)
        entry.closed = True
        if not entry.recorded or entry.outcome != DONE:
            try:
                async with database.write() as session:
                    await entry.write(session, entry.outcome)
            except Exception:
                # All changes have been recorded, and the caller already has the result.
                log.exception("request %s: could not write its %s to the audit log", entry.request_id, entry.action)
        entry.note(time.perf_counter() - began)


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """All given conditions must match."""

    subject: str | None = None
    action: str | None = None
    resource_id: str | None = None
    at: DateTimeFilter = field(default_factory=DateTimeFilter)

    def on(self) -> list[Any]:
        values = {"subject": self.subject, "action": self.action, "resource_id": self.resource_id}
        equal = [_EVENTS[name] == value for name, value in values.items() if value is not None]
        return [*equal, *self.at.on(_EVENTS.at)]


async def page(session: AsyncSession, scope: Scope, request: PageRequest, filter: AuditFilter) -> Slice[AuditEventRow]:
    """The events of the sandbox, newest first."""
    listing = Listing(rows_of_any(AuditEventRow).where(*filter.on()), _ORDER, lambda row: as_row(AuditEventRow, row))
    return await listing.page(session, scope.tenant, request)


async def count(session: AsyncSession, scope: Scope, filter: AuditFilter) -> int:
    statement = within(select(func.count()), AuditEventRow, scope.tenant).where(*filter.on())
    return int((await session.execute(statement)).scalar_one())
