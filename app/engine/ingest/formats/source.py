"""One file opened as a source of rows, whatever its format; knows no datasets."""

import bz2
import gzip
import lzma
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import duckdb

from app.engine.ingest.formats import csv_file, ndjson_file, parquet_file
from app.engine.ingest.formats.columns import KnownTypes, Source, refuse
from app.engine.ingest.formats.csv_options import DETECTED, CsvOptions
from app.engine.ingest.formats.encodings import as_utf8
from app.engine.ingest.progress import UNPACKING, Progress

FileFormat = Literal["CSV", "NDJSON", "PARQUET"]


_PACKED: dict[bytes, tuple[str, Callable[[Any], IO[bytes] | Any]]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
"""How a compressed file begins, what it is called, and what opens it."""
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
_NO_ROWS = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd, which is not read: unpack it, or compress it by gzip",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV",
}
_LONGEST_MARK = 6
_READERS = {"NDJSON": ndjson_file.read, "PARQUET": parquet_file.read}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file with rows, perhaps compressed, and how they are written."""

    path: Path
    format: FileFormat
    csv: CsvOptions = DETECTED


def first_bytes(file: Path, size: int) -> bytes:
    """How a file begins, unpacked; nothing of one that cannot be."""
    with file.open("rb") as raw:
        start = raw.read(size)
    packing = _packing(start)
    if packing is None:
        return start
    with suppress(*_BROKEN), packing[1](file) as packed:
        return bytes(packed.read(size))
    return b""


def _packing(start: bytes) -> tuple[str, Callable[[Any], IO[bytes] | Any]] | None:
    return next((packing for mark, packing in _PACKED.items() if start.startswith(mark)), None)


def utf8_file(file: Path, scratch: Path, csv: CsvOptions, check: Callable[[], None] = lambda: None) -> Path:
    """An unpacked text file as UTF-8. Raises `Refusal` when it has not the encoding, and whatever `check` raises."""
    try:
        return as_utf8(file, scratch / "utf-8", csv.encoding, check)
    except UnicodeError:
        raise refuse(f"the file is not {csv.encoding or 'UTF-16'}, or cut off: name its encoding") from None


def plain_file(
    file: Path, scratch: Path, check: Callable[[], None] = lambda: None, progress: Progress | None = None
) -> Path:
    """The file itself, or what is in it when it is compressed. Raises `Refusal` for an empty or damaged one and one of
    another program, and whatever `check` raises, which is called between chunks."""
    with file.open("rb") as raw:
        start = raw.read(_LONGEST_MARK)
    if other := next((words for mark, words in _NO_ROWS.items() if start.startswith(mark)), None):
        raise refuse(f"the file is {other}")
    if packing := _packing(start):
        name, open_packed = packing
        unpacked, size, progress = scratch / "unpacked", file.stat().st_size, progress or Progress()
        progress.begin(UNPACKING)
        try:
            with file.open("rb") as raw, open_packed(raw) as packed, unpacked.open("wb") as plain:
                while chunk := packed.read(1 << 20):
                    check()
                    plain.write(chunk)
                    progress.reached(raw.tell() / size)
        except _BROKEN:
            raise refuse(
                f"the file begins like a {name} file but cannot be unpacked: it is damaged or cut off"
            ) from None
        file = unpacked
    if file.stat().st_size == 0:
        raise refuse("the file is empty")
    return file


def open_source(
    database: duckdb.DuckDBPyConnection,
    file: InputFile,
    scratch: Path,
    known: KnownTypes,
    as_text: frozenset[str],
) -> Source:
    """The rows of an unpacked file.

    `known` are the types of fields that the dataset has already; others are found from the whole file;
    the columns of `as_text` stay text as written. Raises `Refusal` when the file is not of that format.
    """
    if file.format == "CSV":
        return csv_file.read(database, file.path, known, as_text, file.csv)
    return _READERS[file.format](database, file.path, scratch, known, as_text)
