"""Converts text files of any encoding to UTF-8 with line feeds; knows no format."""

import codecs
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1024 * 1024
_LITTLE, _BIG = (False, True, False, True), (True, False, True, False)
_BY_ZEROS: dict[tuple[bool, ...], str] = {_LITTLE: "utf-16-le", _BIG: "utf-16-be"}
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def as_utf8(file: Path, target: Path, encoding: str | None, check: Callable[[], None] = lambda: None) -> Path:
    """The file itself if it is already UTF-8 with line feeds, otherwise a copy.

    Bytes that are invalid in the encoding stay unchanged and are invalid UTF-8, so their rows will be rejected.
    """
    with file.open("rb") as raw:
        start = raw.read(_CHUNK)
    chosen = encoding or detected(start)
    returns_only = b"\r" in start and b"\n" not in start and codecs.lookup(chosen).name.startswith("utf-8")
    if codecs.lookup(chosen).name in ("utf-8", "utf-8-sig") and not returns_only:
        return file
    decoder = codecs.getincrementaldecoder(chosen)("surrogateescape")
    with file.open("rb") as raw, target.open("wb") as plain:
        while chunk := raw.read(_CHUNK):
            check()
            text = decoder.decode(chunk)
            plain.write((text.replace("\r", "\n") if returns_only else text).encode("utf-8", "surrogateescape"))
        plain.write(decoder.decode(b"", final=True).encode("utf-8", "surrogateescape"))
    return target


def detected(start: bytes) -> str:
    """The encoding by the first bytes of a text: its mark, or how its first two characters are written if they are
    ASCII, as in a header or JSON.

    >>> detected("id".encode("utf-16-be")), detected(b"id")
    ('utf-16-be', 'utf-8')
    """
    for mark, name in _MARKS.items():
        if start.startswith(mark):
            return name
    return _BY_ZEROS.get(tuple(byte == 0 for byte in start[:4]), "utf-8")
