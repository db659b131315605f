"""Database texts that name a person: messages about jobs and batches, from which the name is removed, and texts written
by users, which are reported."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import String, cast, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.erasure.search import mentions
from app.engine.erasure.subject import Subject
from app.scope import Tenant
from app.storage.columns import TenantRow, columns, table
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.tables.datasets import BatchRow
from app.storage.tables.jobs import JobUpdateRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.schedules import ScheduleRunRow
from app.storage.tenancy import within

MARK = "(erased)"
_MESSAGES: tuple[tuple[type[TenantRow], str], ...] = (
    *((row, "errors") for row in KINDS.values()),
    (JobUpdateRow, "state"),
    (BatchRow, "error"),
    (ScheduleRunRow, "message"),
)
"""Columns with messages generated about data; without the name they keep their meaning."""
_KEYED: tuple[type[TenantRow], ...] = (*KINDS.values(), BatchRow)
"""Rows with an `idempotency_key`, which clients may derive from ids. Without the key the same content would be loaded
or run again, and a batch then rejects the person."""


def without_names(subject: Subject, value: object) -> object:
    """A JSON value with the person's names removed from its strings."""
    if isinstance(value, str):
        return subject.words.sub(MARK, value)
    if isinstance(value, dict):
        return {name: without_names(subject, part) for name, part in value.items()}
    return [without_names(subject, part) for part in value] if isinstance(value, list) else value


async def count_messages(session: AsyncSession, tenant: Tenant, subject: Subject) -> int:
    messages = sum([len(await _naming(session, tenant, subject, row, name)) for row, name in _MESSAGES])
    return messages + sum([len(await _keyed(session, tenant, subject, row)) for row in _KEYED])


async def clean_messages(session: AsyncSession, tenant: Tenant, subject: Subject) -> None:
    for row in _KEYED:
        if named := await _keyed(session, tenant, subject, row):
            forget = within(update(row), row, tenant).where(columns(row).id.in_(named))
            await session.execute(forget.values(idempotency_key=None))
    for row, name in _MESSAGES:
        for match in await _naming(session, tenant, subject, row, name):
            key = [column == getattr(match, column.name) for column in table(row).primary_key.columns]
            values = {name: without_names(subject, getattr(match, name))}
            await session.execute(within(update(table(row)), row, tenant).where(*key).values(values))


async def naming_previews(session: AsyncSession, tenant: Tenant, subject: Subject) -> list[str]:
    """The previews whose expression, or whose limit's expression, names the person."""
    named = [await _naming(session, tenant, subject, PreviewRow, column) for column in ("expression", "kept")]
    return sorted({row.id for rows in named for row in rows})


async def named_in(database: Database, tenant: Tenant, subject: Subject) -> dict[str, int]:
    """The number of rows that name the person, for each table of the sandbox."""
    named = {}
    async with database.session() as session:
        for row in _tables():
            names = [column.name for column in table(row).columns if _is_text(column) and column.name not in _KEY]
            rows = {}
            for name in names:
                for one in await _naming(session, tenant, subject, row, name):
                    rows[tuple(getattr(one, column.name) for column in table(row).primary_key.columns)] = one
            if rows:
                named[f"Database: {table(row).name.replace('_', ' ')}"] = len(rows)
    return named


_KEY = frozenset({"organisation", "sandbox"})


def _tables() -> Iterator[type[TenantRow]]:
    waiting = [TenantRow]
    while waiting:
        row = waiting.pop()
        if hasattr(row, "__table__"):
            yield row
        waiting += row.__subclasses__()


def _is_text(column: Any) -> bool:
    return column.type.python_type not in (int, float, bool, datetime)


async def _naming(
    session: AsyncSession, tenant: Tenant, subject: Subject, row: type[TenantRow], name: str
) -> list[Any]:
    """The rows of a table that name the person in a column: the database preselects, then words are compared."""
    of = columns(row)
    text = cast(of[name], String)
    likely = or_(*(text.contains(form, autoescape=True) for word in subject.searched for form in _written(word)))
    rows = await session.execute(within(select(*of), row, tenant).where(likely))
    return [candidate for candidate in rows if mentions(subject, getattr(candidate, name))]


async def _keyed(session: AsyncSession, tenant: Tenant, subject: Subject, row: type[TenantRow]) -> list[str]:
    """The ids of rows whose idempotency key contains a name or id of the person, in any context."""
    of = columns(row)
    likely = or_(*(of.idempotency_key.contains(word, autoescape=True) for word in subject.searched))
    keys = await session.execute(within(select(of.id, of.idempotency_key), row, tenant).where(likely))
    return [key.id for key in keys if subject.parts.search(key.idempotency_key)]


def _written(word: str) -> set[str]:
    """A word as it appears in text, and in JSON."""
    return {word, word.replace("\\", "\\\\").replace('"', '\\"')}
