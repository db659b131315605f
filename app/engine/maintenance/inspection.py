"""Looks whether the files of a sandbox are what its tables say; changes nothing, and knows no jobs."""

import os
import shutil
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable

from app.engine.store.checksums import checksum_noted, intact
from app.engine.store.delta import LogLost, open_table
from app.engine.store.lake import LayoutLost, TenantLake, file_name


@dataclass(frozen=True, slots=True)
class TableState:
    """A Delta table: its rows, and its files that are not there, cannot be read, or that nothing refers to."""

    rows: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    stray: tuple[str, ...]


class LogDamaged(Exception):
    """The log of a table cannot be read; the message says why."""


def table_state(folder: Path, before: datetime, *, checksums: bool = False) -> TableState | None:
    """None when there is no table. Younger files than `before` may still be on their way into it, and are no strays.

    With `checksums` all files are read. Raises `LogDamaged`.
    """
    try:
        table = open_table(folder)
        replaced = [] if table is None else DeltaTable(folder).vacuum(0, True, enforce_retention_duration=False)
    except LogLost as lost:
        raise LogDamaged(f"the log (_delta_log) cannot be read: {lost.reason}") from lost
    except Exception as error:
        raise LogDamaged(f"the log (_delta_log) cannot be read: {str(error).splitlines()[0][:200]}") from error
    if table is None:
        return None
    present = [file.name for file in table.files if (folder / file.name).exists()]
    missing = sorted({file.name for file in table.files} - set(present))
    referenced = {file.name for file in table.files}
    # What a later version replaced is still the readers' of the earlier ones.
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
    """Those of the files that are not there or are no Parquet files with their end; with `checksums` also those that
    do not hold what was written (older files have no checksum, and are read to their end instead)."""
    return [name for name in names if not _readable(folder / name, checksums)]


def _readable(path: Path, checksums: bool) -> bool:
    try:
        if checksums and checksum_noted(path.name):
            return intact(path)
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups if checksums else 0):
            file.read_row_group(group)
    except Exception:  # Damage makes Arrow raise what not.
        return False
    return True


def layout_problem(lake: TenantLake) -> str | None:
    """What is wrong with the number of buckets."""
    try:
        identities = open_table(lake.identities)
    except Exception:  # The check of identities names it.
        return None
    if identities is None:
        return None
    try:
        bits = lake.bucket_bits()
    except LayoutLost as lost:
        return lost.problem
    largest = max((file.bucket for file in identities.files), default=0)
    if bits is not None and largest >= 1 << bits:
        return f"layout.json says {1 << bits} buckets, but there are profiles in bucket {largest}"
    return None


def unknown_folders(root: Path, known: Collection[tuple[str, str]]) -> list[str]:
    """Folders of sandboxes that are none of (organisation, sandbox), as paths below the lake."""
    expected = {f"{file_name(organisation)}/{file_name(sandbox)}" for organisation, sandbox in known}
    folders = [f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir()]
    return sorted(name for name in folders if name not in expected)


@dataclass(frozen=True, slots=True)
class Usage:
    """What the lake takes of its disk, and what the disk has left, in bytes."""

    bytes: int
    files: int
    free: int


def usage(root: Path) -> Usage:
    """Counts the files below `root`; those that go meanwhile are left out."""
    total = files = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(folder, name)).st_size
                files += 1
    return Usage(total, files, shutil.disk_usage(root).free if root.exists() else 0)
