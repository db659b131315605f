"""Looks whether the files of a sandbox are what its tables say; changes nothing, and knows no jobs."""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from app.engine.store.delta import open_table
from app.engine.store.lake import TenantLake, file_name


@dataclass(frozen=True, slots=True)
class TableState:
    """A Delta table: its rows, and its files that are not there, cannot be read, or that nothing refers to."""

    rows: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]
    stray: tuple[str, ...]


def table_state(folder: Path, before: datetime) -> TableState | None:
    """None when there is no table. Younger files than `before` may still be on their way into it, and are no strays."""
    table = open_table(folder)
    if table is None:
        return None
    present = [file.name for file in table.files if (folder / file.name).exists()]
    missing = sorted({file.name for file in table.files} - set(present))
    known = {file.name for file in table.files}
    # What a later version replaced is still the readers' of the earlier ones.
    known.update(DeltaTable(folder).vacuum(0, dry_run=True, enforce_retention_duration=False))
    stray = [
        name
        for path in folder.rglob("*.parquet")
        if (name := path.relative_to(folder).as_posix()) not in known
        and not name.startswith("_delta_log/")
        and datetime.fromtimestamp(path.stat().st_mtime, UTC) < before
    ]
    damaged = unreadable(folder, present)
    return TableState(sum(file.rows for file in table.files), tuple(missing), tuple(damaged), tuple(sorted(stray)))


def unreadable(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the files that are not there or are no Parquet files with their end."""
    return [name for name in names if not _readable(folder / name)]


def _readable(path: Path) -> bool:
    try:
        pq.read_metadata(path)
    except (OSError, pa.ArrowInvalid):
        return False
    return True


def layout_problem(lake: TenantLake) -> str | None:
    """What is wrong with the number of buckets."""
    identities = open_table(lake.identities)
    if identities is None:
        return None
    try:
        bits = lake.bucket_bits()
    except (ValueError, KeyError, json.JSONDecodeError):
        return "layout.json cannot be read"
    if bits is None:
        return "layout.json is missing, though there are people"
    largest = max((file.bucket for file in identities.files), default=0)
    if largest >= 1 << bits:
        return f"layout.json says {1 << bits} buckets, but there are people in bucket {largest}"
    return None


def unknown_folders(root: Path, known: Collection[tuple[str, str]]) -> list[str]:
    """Folders of sandboxes that are none of (organisation, sandbox), as paths below the lake."""
    expected = {f"{file_name(organisation)}/{file_name(sandbox)}" for organisation, sandbox in known}
    found = [f"{path.parent.name}/{path.name}" for path in root.glob("*/*") if path.is_dir()]
    return sorted(name for name in found if name not in expected)
