"""Copies a lake while others write to it; knows no database."""

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.engine.maintenance.inspection import LogDamaged, table_state

WRITTEN_ONCE = frozenset({".parquet", ".arrow"})
"""Endings of files that are large and never change: they are copied later than they are listed."""
_LEFT_OUT = frozenset({"locks", "scratch", "compacted"})
"""What processes share, and copies that are made anew."""
_DERIVED_FIRST = ("membership", "profiles", "graph", "exports", "datasets", "identities")
"""What a copy takes first, so that nothing in it is newer than what it is derived from."""
_CHUNK = 1 << 20
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class CopiedFile:
    """`path` is below the lake."""

    path: str
    size: int
    sha256: str


class CopyDamaged(Exception):
    """A copy of a lake that is not what it should be; the message names the file."""


def copy_logs(lake: Path, target: Path) -> tuple[list[CopiedFile], list[str]]:
    """Copies what says which data there is, and gives the data files there are by then, for `copy_files`.

    The tables are as of some moment of the call, those that others are derived from as of a later one.
    """
    copied: list[CopiedFile] = []
    listed: dict[str, None] = {}
    for folder, skipped in _parts(lake):
        # What the log of a table names was there before it, so the log is copied first.
        for kind in (_is_log, _is_note):
            for path in filter(kind, _files(folder, skipped)):
                with suppress(FileNotFoundError):
                    copied.append(copy_file(lake, target, path.relative_to(lake).as_posix()))
        data = filter(_is_data, _files(folder, skipped))
        listed |= dict.fromkeys(path.relative_to(lake).as_posix() for path in data)
    return copied, list(listed)


def copy_files(lake: Path, target: Path, names: Sequence[str]) -> list[CopiedFile]:
    """Copies data files. One that is gone by now was replaced long ago: `check_tables` tells should it be needed."""
    copied = []
    for name in names:
        with suppress(FileNotFoundError):
            copied.append(copy_file(lake, target, name))
    return copied


def copy_file(source: Path, target: Path, name: str) -> CopiedFile:
    digest, size, place = hashlib.sha256(), 0, target / name
    with (source / name).open("rb") as original:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("wb") as copy:
            while chunk := original.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    return CopiedFile(name, size, digest.hexdigest())


def copy_back(backup: Path, lake: Path, files: Sequence[CopiedFile]) -> None:
    """Copies the files of a backup. Raises `CopyDamaged` for one that is not what was written."""
    lake.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            same = copy_file(backup, lake, file.path) == file
        except FileNotFoundError:
            same = False
        if not same:
            raise CopyDamaged(f"the backup is damaged: {file.path} is not what was written to it")


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
    shutil.rmtree(folder, ignore_errors=True)


def _is_log(path: Path) -> bool:
    return "_delta_log" in path.parts


def _is_data(path: Path) -> bool:
    return path.suffix in WRITTEN_ONCE and not _is_log(path)


def _is_note(path: Path) -> bool:
    return not _is_data(path) and not _is_log(path)


def _parts(lake: Path) -> Iterator[tuple[Path, frozenset[str]]]:
    """The parts of all sandboxes, what is derived from others before those; with folders of each that are left out."""
    sandboxes = [path for path in sorted(lake.glob("*/*")) if path.is_dir()]
    for name in _DERIVED_FIRST:
        for sandbox in sandboxes:
            yield sandbox / name, frozenset()
    # Whatever else lies in a sandbox, such as its layout.
    for sandbox in sandboxes:
        yield sandbox, _LEFT_OUT | frozenset(_DERIVED_FIRST)


def _files(folder: Path, skipped: frozenset[str]) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        if Path(place) == folder:
            folders[:] = [name for name in folders if name not in skipped]
        yield from (Path(place) / name for name in names if not name.startswith("."))
