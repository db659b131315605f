"""Text files in any encoding as UTF-8 with ordinary line ends; knows no format."""

import codecs
from collections.abc import Callable
from pathlib import Path

_CHUNK = 1024 * 1024
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def as_utf8(file: Path, target: Path, encoding: str | None, check: Callable[[], None] = lambda: None) -> Path:
    """The file itself where it is UTF-8 with line feeds already, else a copy.

    Bytes that the encoding does not have stay as they are, and are no UTF-8: their rows will be rejected.
    """
    with file.open("rb") as raw:
        start = raw.read(_CHUNK)
    chosen = encoding or next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
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
