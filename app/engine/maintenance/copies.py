"""Removes a host's unused copies of files on object storage; knows no tables."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.engine.store.objects import ObjectPath

_IN_USE_SECONDS = 600.0
"""A copy used within this period may be about to be opened."""
_OWN = frozenset({"scratch", "locks"})
"""Local folders of a sandbox that contain no copies."""


def trim(root: Path, most_bytes: int) -> None:
    """Removes, least recently used first, the copies of deleted files, and all copies as long as they exceed
    `most_bytes` together. Copies used within the last 10 minutes stay. Does nothing for a lake on disk."""
    if not isinstance(root, ObjectPath):
        return
    copies = sorted(_copies(root.copied))
    # Listed after the copies: a copied file that is missing in the listing was deleted.
    existing = {str(path) for path, _ in root.files()}
    total = sum(size for _, size, _ in copies)
    for used, size, path in copies:
        if (total > most_bytes or str(path) not in existing) and used < time.time() - _IN_USE_SECONDS:
            path.unlink(missing_ok=True)
            total -= size


def _copies(root: Path) -> Iterator[tuple[float, int, Path]]:
    """The last use, size and path of each copy, and of the partial downloads of killed processes."""
    for place, folders, names in os.walk(root):
        if len(Path(place).relative_to(root).parts) == 2:
            folders[:] = [name for name in folders if name not in _OWN]
        for name in names:
            with suppress(FileNotFoundError):
                state = (path := Path(place) / name).stat()
                yield state.st_atime, state.st_size, path
