"""Checks whether a sandbox's files match its tables; changes nothing, and knows no jobs."""

import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq

from app.engine.store.checksums import checksum_noted, intact
from app.engine.store.delta import LogLost, open_table
from app.engine.store.lake import TenantLake, file_name, on_disk
from app.engine.store.layout import LayoutLost
from app.engine.store.logs import delta_table
from app.engine.store.objects import ObjectPath
from app.errors import LakeAway


@dataclass(frozen=True, slots=True)
class TableState:
    """A Delta table: its rows, and its missing, unreadable and unreferenced files."""

    rows: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    stray: tuple[str, ...]


class LogDamaged(Exception):
    """The log of a table is unreadable; the message says why."""


def table_state(folder: Path, before: datetime, *, checksums: bool = False) -> TableState | None:
    """None if there is no table. Files younger than `before` may not be committed yet, and do not count as
    unreferenced.

    With `checksums` all files are read. Raises `LogDamaged`.
    """
    try:
        table = open_table(folder)
        replaced = [] if table is None else delta_table(folder).vacuum(0, True, enforce_retention_duration=False)
    except LakeAway:
        raise
    except LogLost as lost:
        raise LogDamaged(f"the log (_delta_log) cannot be read: {lost.reason}") from lost
    except Exception as error:
        raise LogDamaged(f"the log (_delta_log) cannot be read: {str(error).splitlines()[0][:200]}") from error
    if table is None:
        return None
    present = [file.name for file in table.files if (folder / file.name).exists()]
    missing = sorted({file.name for file in table.files} - set(present))
    referenced = {file.name for file in table.files}
    # Files that a later version replaced still belong to readers of earlier versions.
    referenced.update(replaced)
    stray = [
        name
        for path in folder.rglob("*.parquet")
        if (name := path.relative_to(folder).as_posix()) not in referenced
        and not name.startswith("_delta_log/")
        and datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
    ]
    damaged = unreadable(folder, present, checksums=checksums)
    return TableState(sum(file.rows for file in table.files), tuple(missing), tuple(damaged), tuple(sorted(stray)))


def unreadable(folder: Path, names: Iterable[str], *, checksums: bool = False) -> list[str]:
    """The files that are missing or are not complete Parquet files; with `checksums` also those that do not match their
    checksum (older files have none, and are read completely instead)."""
    return [name for name in names if not _readable(folder / name, checksums)]


def _readable(path: Path, checksums: bool) -> bool:
    try:
        if checksums and checksum_noted(path.name):
            return intact(path)
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups if checksums else 0):
            file.read_row_group(group)
    except LakeAway:
        raise
    except Exception:  # For damaged files Arrow raises many types of errors.
        return False
    return True


def layout_problem(lake: TenantLake) -> str | None:
    """The problem with the number of buckets; None if there is none, or no readable table of identities."""
    try:
        identities = open_table(lake.identities)
    except LakeAway:
        raise
    except Exception:  # The check of identities reports it.
        return None
    if identities is None:
        return None
    try:
        layout = lake.layout()
        if layout is not None:
            layout.require(file.bucket for file in identities.files)
    except LayoutLost as lost:
        return lost.problem
    return None


def unknown_folders(root: Path, known: Collection[tuple[str, str]]) -> list[str]:
    """Folders of sandboxes other than these (organisation, sandbox), as paths relative to the lake."""
    expected = {f"{file_name(organisation)}/{file_name(sandbox)}" for organisation, sandbox in known}
    folders = [f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir()]
    return sorted(name for name in folders if name not in expected)


@dataclass(frozen=True, slots=True)
class Usage:
    """The disk space used by the lake, and the free space of its disk, in bytes."""

    bytes: int
    files: int
    free: int


def usage(root: Path) -> Usage:
    """Counts the files below `root`; files deleted meanwhile are ignored."""
    total = files = 0
    if isinstance(root, ObjectPath):
        for _, entry in root.files():
            total, files = total + entry.size, files + 1
        return Usage(total, files, shutil.disk_usage(on_disk(root)).free)
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_size
                files += 1
    return Usage(total, files, shutil.disk_usage(root).free if root.exists() else 0)
