"""Files whose names contain a checksum of their content, so that damage is detected; knows no formats."""

import hashlib
import os
import re
from functools import lru_cache
from pathlib import Path

from app.errors import ErrorCode, LakeAway, Refusal

_SIZE = 16
"""Length of a checksum in bytes."""
_SEALED = re.compile(rf"\.([0-9a-f]{{{2 * _SIZE}}})\.parquet$")


class Damaged(ValueError):
    """The content of a file differs from what was written; the message contains no folders."""


class FileLost(Refusal):
    """A file of the lake is missing or damaged and cannot be rebuilt."""

    def __init__(self, path: Path | None = None) -> None:
        name = "a file" if path is None else f"the file {'/'.join(path.parts[-3:])}"
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"{name} of the lake is missing or damaged: restore it from a copy; "
            "`segmentation doctor --checksums` names all such files and what to do",
        )


def sealed_name(stem: str, content: bytes) -> str:
    """The name of a Parquet file with this content.

    >>> sealed_name("7-2", b"")
    '7-2.cae66941d9efbd404e4d88758ea67670.parquet'
    """
    return f"{stem}.{hashlib.blake2b(content, digest_size=_SIZE).hexdigest()}.parquet"


def seal(path: Path, stem: str) -> str:
    """The final name of a completely written file."""
    return f"{stem}.{_checksum(path)}.parquet"


def verified(path: Path) -> bytes:
    """The content of a file. Raises `Damaged` if it does not match the checksum in its name (if there is one), and
    `OSError`."""
    content = path.read_bytes()
    noted = _SEALED.search(path.name)
    if noted is not None and hashlib.blake2b(content, digest_size=_SIZE).hexdigest() != noted[1]:
        raise Damaged(f"the file {path.name} is damaged: its content does not match its checksum")
    return content


def intact(path: Path) -> bool:
    """Whether a file exists and matches the checksum in its name, if any; a file unchanged since the last check is not
    read again."""
    noted = _SEALED.search(path.name)
    try:
        path = Path(os.fspath(path))
        state = path.stat()
        return noted is None or _remembered(path, state.st_ino, state.st_size, state.st_mtime_ns) == noted[1]
    except LakeAway:
        raise
    except OSError:
        return False


def whole(path: Path) -> Path:
    """The path of a file that matches the checksum in its name, if any. Raises `FileLost`."""
    if not intact(path):
        raise FileLost(path)
    return path


def checksum_noted(name: str) -> bool:
    """Whether a file's name has a checksum; those of earlier versions of the program have none."""
    return _SEALED.search(name) is not None


@lru_cache(maxsize=1 << 16)
def _remembered(path: Path, _inode: int, _size: int, _written: int) -> str:
    return _checksum(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_SIZE)).hexdigest()
