"""Copies a lake while other processes write to it; knows no database."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.engine.maintenance.inspection import LogDamaged, table_state
from app.engine.store.files import remove_tree
from app.engine.store.lake import on_disk
from app.engine.store.objects import ObjectPath

WRITTEN_ONCE = frozenset({".parquet", ".arrow"})
"""Suffixes of large files that never change: they are copied later than they are listed."""
_LEFT_OUT = frozenset({"locks", "scratch", "compacted"})
"""Files shared by processes, and copies that are rebuilt."""
_DERIVED_FIRST = ("membership", "profiles", "graph", "exports", "datasets", "identities")
"""The order of a copy: derived data before its sources, so that nothing in the copy is newer than its source."""
_CHUNK = 1 << 20
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """`path` is relative to the lake."""

    path: str
    size: int
    sha256: str


class CopyDamaged(Exception):
    """A copy of a lake is invalid; the message names the file."""


def copy_logs(lake: Path, target: Path) -> tuple[list[CopiedFile], list[str]]:
    """Copies the files that list the data, and returns the data files at that time, for `copy_files`.

    Each table is copied as of some moment during the call; source tables as of a later one than derived tables.
    """
    copied: list[CopiedFile] = []
    listed: dict[str, None] = {}
    for folder, skipped in _parts(lake):
        # The files named in a table's log existed before it, so the log is copied first.
        for kind in (_is_log, _is_note):
            for path in filter(kind, _files(folder, skipped)):
                with suppress(FileNotFoundError):
                    copied.append(copy_file(lake, target, path.relative_to(lake).as_posix()))
        data = filter(_is_data, _files(folder, skipped))
        listed |= dict.fromkeys(path.relative_to(lake).as_posix() for path in data)
    return copied, list(listed)


def copy_files(lake: Path, target: Path, names: Sequence[str]) -> list[CopiedFile]:
    """Copies data files. A file that no longer exists was replaced long ago; `check_tables` reports it if it is
    needed."""
    copied = []
    for name in names:
        with suppress(FileNotFoundError):
            copied.append(copy_file(lake, target, name))
    return copied


def copy_file(source: Path, target: Path, name: str) -> CopiedFile:
    digest, size, place = hashlib.sha256(), 0, target / name
    with (source / name).open("rb") as original:
        written = on_disk(place)
        written.parent.mkdir(parents=True, exist_ok=True)
        with written.open("wb") as copy:
            while chunk := original.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    if isinstance(place, ObjectPath):
        place.take(written)
    return CopiedFile(name, size, digest.hexdigest())


def copy_back(backup: Path, lake: Path, files: Sequence[CopiedFile]) -> None:
    """Copies the files of a backup. Raises `CopyDamaged` for a file that differs from what was written."""
    lake.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            same = copy_file(backup, lake, file.path) == file
        except FileNotFoundError:
            same = False
        if not same:
            raise CopyDamaged(f"the backup is damaged: {file.path} is not what was written to it")


def arrival(lake: Path) -> Path:
    """The folder that receives a backup's files first: beside the lake, if it can be moved atomically."""
    return lake if isinstance(lake, ObjectPath) else lake.with_name(f"{lake.name}.restoring")


def arrived(coming: Path, lake: Path) -> None:
    if coming != lake:
        coming.replace(lake)


def check_tables(lake: Path) -> None:
    """Raises `CopyDamaged` unless every table of the copy has all of its files."""
    for log in sorted(lake.rglob("_delta_log")):
        try:
            state = table_state(log.parent, _LONG_AGO)
        except LogDamaged as damage:
            raise CopyDamaged(f"{log.parent.relative_to(lake)}: {damage}") from damage
        if state is not None and (broken := (*state.missing, *state.damaged)):
            raise CopyDamaged(f"{log.parent.relative_to(lake)}: {broken[0]} is missing or cannot be read")


def remove(folder: Path) -> None:
    remove_tree(folder)


def _is_log(path: Path) -> bool:
    return "_delta_log" in path.parts


def _is_data(path: Path) -> bool:
    return path.suffix in WRITTEN_ONCE and not _is_log(path)


def _is_note(path: Path) -> bool:
    return not _is_data(path) and not _is_log(path)


def _parts(lake: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """The parts of all sandboxes, derived data before its sources, each with the names of folders to skip."""
    sandboxes = [path for path in sorted(lake.glob("*/*")) if path.is_dir()]
    for name in _DERIVED_FIRST:
        for sandbox in sandboxes:
            yield sandbox / name, frozenset()
    # All other files of a sandbox, such as its layout.
    for sandbox in sandboxes:
        yield sandbox, _LEFT_OUT | frozenset(_DERIVED_FIRST)


def _files(folder: Path, skipped: frozenset[str]) -> Iterator[Path]:
    if isinstance(folder, ObjectPath):
        for path, _ in folder.files():
            if path.relative_to(folder).parts[0] not in skipped and not path.name.startswith("."):
                yield path
        return
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in skipped]
        yield from (Path(place) / name for name in names if not name.startswith("."))
