"""Backup and restore of the database and the lake, as of one moment, while other processes continue."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import bindparam, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.maintenance.copying import (
    CopiedFile,
    arrival,
    arrived,
    check_tables,
    copy_back,
    copy_files,
    copy_logs,
    remove,
)
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.storage import dump
from app.storage.columns import StoredValues, UtcDateTime
from app.storage.database import Database

FORMAT = 1
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
SUMMARY, FILES, ROWS, LAKE = "backup.json", "files.ndjson.gz", "rows.ndjson.gz", "lake"


@dataclass(frozen=True, slots=True)
class Summary:
    """The contents of a backup. It is written last: a backup without it is incomplete. `revision` is the schema
    version."""

    format: int
    at: str
    revision: str
    rows: int
    files: int
    bytes: int


async def back_up(database: Database, lake: Lake, clock: Clock, target: Path) -> Summary:
    """Writes a backup into a folder that is empty or does not exist yet. Raises `Refusal`.

    Writers wait while the logs of the lake are copied; the other files are copied concurrently. A batch in progress is
    backed up as such. After a restore it is settled by its rows: either all of them are in it or none.
    """
    await asyncio.to_thread(_begin, target, lake.root)
    lake.check()
    async with database.session() as session:
        async with dump.frozen(database):
            await dump.pin(session)
            at = clock()
            copied, listed = await asyncio.to_thread(copy_logs, lake.root, target / LAKE)
        revision = await dump.revision(session)
        rows = await _write_rows(session, target / ROWS)
    copied += await asyncio.to_thread(copy_files, lake.root, target / LAKE, listed)
    await asyncio.to_thread(check_tables, target / LAKE)
    summary = Summary(FORMAT, at.isoformat(), revision, rows, len(copied), sum(file.size for file in copied))
    await asyncio.to_thread(_end, target, copied, summary)
    return summary


async def restore(database: Database, lake: Lake, source: Path) -> Summary:
    """Restores a backup into an empty database and an empty lake. Other processes resume the work that was in progress.

    The schema becomes that of this program, even for a backup of an earlier version. Raises `Refusal`, and
    `CopyDamaged` if the backup differs from what was written; the target is then empty.
    """
    summary, files = await asyncio.to_thread(_read_summary, source)
    if lake.root.exists() and any(lake.root.iterdir()):
        raise _refused(f"the lake {lake.place} is not empty: restore into another data folder")
    await _need_empty(database)
    await database.migrate(summary.revision)
    coming = arrival(lake.root)
    try:
        await asyncio.to_thread(remove, coming)
        await asyncio.to_thread(copy_back, source / LAKE, coming, files)
        async with database.write() as session:
            await _read_rows(session, source / ROWS)
            await _let_go(session)
            await asyncio.to_thread(arrived, coming, lake.root)
    except BaseException:
        await asyncio.to_thread(remove, coming)
        raise
    await database.migrate()
    return summary


async def _need_empty(database: Database) -> None:
    """Raises `Refusal` if the database contains any rows."""
    if await database.misfit() is None:
        async with database.session() as session:
            if not await dump.is_empty(session):
                raise _refused("the database is not empty: restore into another one")
    elif await database.has_tables():
        raise _refused("the database has tables of another version or program: restore into an empty one")


async def _let_go(session: AsyncSession) -> None:
    """Releases all leases: their holders worked on the original. Unfinished work is resumed."""
    for name, table in (await dump.tables_of(session)).items():
        if "lease_owner" in table.columns and name != "batch":
            await session.execute(update(table).values(lease_owner=None, lease_until=None))
    over = text("UPDATE batch SET lease_until = :over WHERE status IN ('LOADING', 'DELETING')")
    await session.execute(over.bindparams(bindparam("over", _LONG_AGO, UtcDateTime())))


async def _write_rows(session: AsyncSession, path: Path) -> int:
    number = 0
    batch: list[str] = []
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4) as file:
        async for table, row in dump.rows(session):
            batch.append(json.dumps([table, row]))
            number += 1
            if len(batch) == dump.ROWS_AT_ONCE:
                await asyncio.to_thread(file.write, "\n".join(batch) + "\n")
                batch.clear()
        if batch:
            file.write("\n".join(batch) + "\n")
    return number


async def _read_rows(session: AsyncSession, path: Path) -> None:
    tables = await dump.tables_of(session)
    async for table, rows in _batches(path):
        await dump.read_in(session, tables[table], rows)


async def _batches(path: Path) -> AsyncIterator[tuple[str, list[StoredValues]]]:
    """Rows of one table at a time, in chunks of a few hundred."""
    present, rows = "", list[StoredValues]()
    for table, row in _lines(path):
        if rows and (table != present or len(rows) == dump.ROWS_AT_ONCE):
            yield present, rows
            rows = []
        present = table
        rows.append(row)
    if rows:
        yield present, rows


def _lines(path: Path) -> Iterator[Any]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _begin(target: Path, lake: Path) -> None:
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise _refused(f"{target} is not an empty folder: name one that is, or a new one")
    if target.resolve().is_relative_to(lake):
        raise _refused(f"{target} lies in the lake that is to be backed up: name a folder elsewhere")
    (target / LAKE).mkdir(parents=True, exist_ok=True)


def _end(target: Path, files: list[CopiedFile], summary: Summary) -> None:
    with gzip.open(target / FILES, "wt", encoding="utf-8") as list_of_files:
        list_of_files.writelines(f"{json.dumps(asdict(file))}\n" for file in files)
    (target / SUMMARY).write_text(json.dumps(asdict(summary), indent=2) + "\n")


def _read_summary(source: Path) -> tuple[Summary, list[CopiedFile]]:
    try:
        values = json.loads((source / SUMMARY).read_text())
    except FileNotFoundError:
        raise _refused(f"{source} is no backup, or one that was never finished: it has no {SUMMARY}") from None
    if values.get("format") != FORMAT:
        raise _refused(f"{source} has the format {values.get('format')}, and this version reads {FORMAT} only")
    summary = Summary(**values)
    return summary, [CopiedFile(**line) for line in _lines(source / FILES)]


def _refused(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_STATE, message)


def as_words(summary: Summary) -> str:
    moment = f"{datetime.fromisoformat(summary.at):%Y-%m-%d %H:%M:%S}Z"
    return f"{summary.rows:,} rows and {summary.files:,} files ({summary.bytes:,} bytes) as of {moment}"
