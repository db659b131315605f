"""Files that say in their name what they hold, so that damage is noticed; knows no formats."""

import hashlib
import re
from functools import lru_cache
from pathlib import Path

from app.errors import ErrorCode, Refusal

_SIZE = 16
"""Bytes of a checksum."""
_SEALED = re.compile(rf"\.([0-9a-f]{{{2 * _SIZE}}})\.parquet$")


class Damaged(ValueError):
    """A file does not hold what was written; the message has no folders."""


class FileLost(Refusal):
    """A file of the lake that is missing or damaged, and that nothing can be made anew from."""

    def __init__(self, path: Path | None = None) -> None:
        name = "a file" if path is None else f"the file {'/'.join(path.parts[-3:])}"
        super().__init__(
            ErrorCode.INVALID_STATE,
            f"{name} of the lake is missing or damaged: restore it from a copy; "
            "`segmentation doctor --checksums` names all such files and what to do",
        )


def sealed_name(stem: str, content: bytes) -> str:
    """The name of a Parquet file that holds this.

    >>> sealed_name("7-2", b"")
    '7-2.cae66941d9efbd404e4d88758ea67670.parquet'
    """
    return f"{stem}.{hashlib.blake2b(content, digest_size=_SIZE).hexdigest()}.parquet"


def seal(path: Path, stem: str) -> str:
    """The name that a file, written whole, is to get."""
    return f"{stem}.{_checksum(path)}.parquet"


def verified(path: Path) -> bytes:
    """The content of a file. Raises `Damaged` when it is not what was written, as far as its name says, and
    `OSError`."""
    content = path.read_bytes()
    noted = _SEALED.search(path.name)
    if noted is not None and hashlib.blake2b(content, digest_size=_SIZE).hexdigest() != noted[1]:
        raise Damaged(f"the file {path.name} is not as it was written")
    return content


def intact(path: Path) -> bool:
    """Whether a file is there and what was written, as far as its name says; one that has not been touched since it
    was last asked about is not read again."""
    noted = _SEALED.search(path.name)
    try:
        state = path.stat()
        return noted is None or _remembered(path, state.st_ino, state.st_size, state.st_mtime_ns) == noted[1]
    except OSError:
        return False


def whole(path: Path) -> Path:
    """The path of a file that holds what was written, as far as its name says. Raises `FileLost`."""
    if not path.exists() or not intact(path):
        raise FileLost(path)
    return path


def checksum_noted(name: str) -> bool:
    """Whether a file's name has a checksum: those of earlier versions of the program have none."""
    return _SEALED.search(name) is not None


@lru_cache(maxsize=1 << 16)
def _remembered(path: Path, _inode: int, _size: int, _written: int) -> str:
    return _checksum(path)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_SIZE)).hexdigest()
