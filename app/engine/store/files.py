"""Operations on files of the lake, on a disk or on object storage; knows no tables and no formats."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from app.engine.store.fences import require_leases
from app.engine.store.objects import ObjectPath

T = TypeVar("T")
R = TypeVar("R")

_AT_ONCE = 8
"""Number of files that are uploaded or downloaded concurrently."""


def publish(moves: Sequence[tuple[Path, Path]]) -> None:
    """Moves finished files from this host's scratch space to their places in the lake, each atomically."""
    require_leases()
    sent = [(place, written) for written, place in moves if isinstance(place, ObjectPath)]
    if sent:
        _side_by_side(lambda move: move[0].take(move[1]), sent)
        return
    for written, place in moves:
        place.parent.mkdir(parents=True, exist_ok=True)
        written.replace(place)


def readable(paths: Sequence[Path]) -> list[str]:
    """The paths for libraries that read files themselves; for object storage, local copies, downloaded concurrently."""
    if any(isinstance(path, ObjectPath) for path in paths):
        return _side_by_side(os.fspath, paths)
    return [str(path) for path in paths]


def remove_tree(folder: Path) -> None:
    """Removes a folder with its contents; one that no longer exists is not an error."""
    if isinstance(folder, ObjectPath):
        folder.remove_tree()
        folder = folder.copied
    shutil.rmtree(folder, ignore_errors=True)


def discard(folder: Path, scratch: Path) -> None:
    """Removes a folder so that readers never see a partial table: moves it away, or deletes its log first."""
    if isinstance(folder, ObjectPath):
        remove_tree(folder / "_delta_log")
        remove_tree(folder)
    elif folder.exists():
        folder.rename(scratch)


def listed(folder: Path) -> Iterator[Path]:
    """All files in the folder and its subfolders."""
    if isinstance(folder, ObjectPath):
        yield from (path for path, _ in folder.files())
        return
    for place, _, names in os.walk(folder):
        yield from (Path(place) / name for name in names)


def _side_by_side(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """Runs the work on the items concurrently in threads. After an error no more items are started; it is raised once
    the running ones have ended."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(work, items))
