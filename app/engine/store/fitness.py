"""Checks whether a folder or object storage can hold a lake that several processes write to."""

import errno
import fcntl
import tempfile
import uuid
from pathlib import Path

from app.engine.store.objects import Conflict, ObjectPath
from app.errors import InvalidSettings


def refuse_unfit(folder: Path) -> None:
    """Raises `InvalidSettings` if the location lacks what tables and locks need.

    A file system needs hard links (Delta commits with one, which fails if another process took the version number) and
    locks that exclude each other; file systems mounted from object storage lack them. Object storage itself needs
    conditional writes, so that only one process gets a version number or a lock.
    """
    if isinstance(folder, ObjectPath):
        _refuse_unconditional(folder / f".probe-{uuid.uuid4().hex}")
        return
    with tempfile.TemporaryDirectory(dir=folder, prefix=".probe-") as probes:
        missing = _missing_in(Path(probes))
    if missing:
        raise InvalidSettings(
            f"SEGMENTATION_DATA_DIR={folder} is on a file system without {missing}, where data could be lost: use a "
            "local disk, or a shared file system that `app/docs/production.md` names"
        )


def _refuse_unconditional(probe: ObjectPath) -> None:
    store, key = probe.place
    try:
        first = store.put_if(key, b"1", None)
        store.put_if(key, b"2", first)
        for version in (None, first):
            try:
                store.put_if(key, b"3", version)
            except Conflict:
                continue
            raise InvalidSettings(
                f"{store.url} is on object storage without conditional writes (If-None-Match and If-Match of S3), "
                "where processes could overwrite each other's data: use storage that `app/docs/production.md` names"
            )
    finally:
        store.delete([key])


def _missing_in(folder: Path) -> str | None:
    file, lacks = folder / "file", "hard links"
    file.touch()
    try:
        (folder / "linked").hardlink_to(file)
        lacks = "locks"
        with file.open("rb") as first, file.open("rb") as other:
            fcntl.flock(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        if error.errno not in _NOT_POSSIBLE:
            raise
    return lacks


_NOT_POSSIBLE = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK})
