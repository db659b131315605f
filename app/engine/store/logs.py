"""The location of Delta tables' logs, on a disk or on object storage, and their commits."""

import math
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from app.engine.store.objects import ObjectPath
from app.errors import LakeAway, outage

_LOG = "_delta_log"
_COMMIT = re.compile(r"(\d{20})\.json")
_newest: OrderedDict[ObjectPath, int] = OrderedDict()
"""The newest commits seen on object storage, so that a listing need not start at the first."""
_MOST = 1 << 12


@dataclass(frozen=True, slots=True)
class Commit:
    """A commit's file; `inode` and `written` differ for another file in the same place."""

    version: int
    inode: int
    written: int


def delta_table(folder: Path, version: int | None = None) -> DeltaTable:
    where, options = _location(folder)
    return DeltaTable(where, version=version, storage_options=options)


def is_delta_table(folder: Path) -> bool:
    if isinstance(folder, ObjectPath):  # The library would keep all other threads waiting for the network.
        return newest_commit(folder) is not None
    return DeltaTable.is_deltatable(str(folder))


def create_delta_table(folder: Path, schema: pa.Schema, partition_by: list[str] | None = None) -> None:
    """Creates the table; does nothing if another process was faster."""
    folder.mkdir(parents=True, exist_ok=True)
    where, options = _location(folder)
    try:
        DeltaTable.create(where, schema, partition_by=partition_by, storage_options=options)
    except DeltaError as error:
        if problem := outage(error):
            raise LakeAway(problem) from error


def checkpoint(folder: Path, version: int, files: int) -> None:
    """Sums up the log of a table with this many files, if enough commits have followed since the last time: whoever
    opens the table reads these one by one. The library does so every 100 commits, which is right for the largest.

    Without it readers are only slower, so an error is no error of the commit.
    """
    every = next(every for most, every in _CHECKPOINTS if files < most)
    if version % every == 0:
        with suppress(DeltaError, OSError, LakeAway):
            delta_table(folder, version).create_checkpoint()


_CHECKPOINTS = ((2_500, 10), (15_000, 25), (60_000, 50), (math.inf, 100))
"""Numbers of files, and of commits between checkpoints: about a fifth of the square root, where the cost of writing
checkpoints, which list all files, is that of reading commits."""


def _location(folder: Path) -> tuple[str | Path, dict[str, str] | None]:
    if not isinstance(folder, ObjectPath):
        return folder, None
    return folder.url, dict(folder.place[0].options)


def newest_commit(folder: Path) -> Commit | None:
    """The newest commit, from a listing of the log; None if there is no log. A commit's file appears atomically, under
    a unique number."""
    if isinstance(folder, ObjectPath):
        return _newest_object(folder)
    try:
        names = os.listdir(folder / _LOG)
    except (FileNotFoundError, NotADirectoryError):
        return None
    commits = (_COMMIT.fullmatch(name) for name in names)
    newest = max((int(commit[1]) for commit in commits if commit), default=None)
    # If it has no file, it was deleted just now with its folder.
    return None if newest is None else commit_of(folder, newest) or Commit(newest, 0, 0)


def commit_of(folder: Path, version: int) -> Commit | None:
    """The commit of a version; None if it has no file, because it is unknown or only part of a checkpoint."""
    try:
        state = (folder / _LOG / f"{version:020}.json").stat()
    except FileNotFoundError:
        return None
    # Without the time of an object, which is less precise here than in a listing.
    return Commit(version, state.st_ino, 0 if isinstance(folder, ObjectPath) else state.st_mtime_ns)


def commit_sizes(folder: Path) -> Iterator[tuple[str, int]]:
    """The names of the commits' files, and their sizes."""
    sizes: list[tuple[str, int]] = []
    if isinstance(folder, ObjectPath):
        sizes = [(path.name, entry.size) for path, entry in (folder / _LOG).files()]
    else:
        with suppress(FileNotFoundError), os.scandir(folder / _LOG) as entries:  # It may be deleted at this moment.
            sizes = [(entry.name, entry.stat().st_size) for entry in entries]
    yield from ((name, size) for name, size in sizes if _COMMIT.fullmatch(name))


def _newest_object(folder: ObjectPath) -> Commit | None:
    previous = _newest.get(folder)
    commits = list(_commits(folder, previous)) or (list(_commits(folder, None)) if previous is not None else [])
    if not commits:
        _newest.pop(folder, None)
        return None
    newest = max(commits, key=lambda commit: commit.version)
    _newest[folder] = newest.version
    while len(_newest) > _MOST:
        with suppress(KeyError):
            _newest.popitem(last=False)
    return newest


def _commits(folder: ObjectPath, since: int | None) -> Iterator[Commit]:
    # This name sorts right before that of the commit `since`.
    for path, entry in (folder / _LOG).files(None if since is None else f"{since:020}."):
        if commit := _COMMIT.fullmatch(path.name):
            yield Commit(int(commit[1]), entry.number, 0)
