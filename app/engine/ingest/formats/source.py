"""Opens a file of any format as a source of rows; knows no datasets."""

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
"""The magic bytes of compressed files, their names, and their openers."""
_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError)
_NO_ROWS = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd, which is not read: unpack it, or compress it by gzip",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: save the sheet as CSV",
    b"%PDF-": "a PDF document: save its table as CSV",
}
_MARKUP = {
    b"<!doctype html": "a web page, perhaps of a login or an error: download the data themselves",
    b"<html": "a web page, perhaps of a login or an error: download the data themselves",
    b"<?xml": "an XML document: convert it to NDJSON or CSV",
}
"""How texts without rows begin, after white space, in lower case."""
_LOOKED_AT = 256
_READERS = {"NDJSON": ndjson_file.read, "PARQUET": parquet_file.read}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file with rows, possibly compressed, and its format."""

    path: Path
    format: FileFormat
    csv: CsvOptions = DETECTED


def first_bytes(file: Path, size: int) -> bytes:
    """The first unpacked bytes of a file; empty if it cannot be unpacked."""
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
    """An unpacked text file as UTF-8. Raises `Refusal` for a wrong encoding, and whatever `check` raises."""
    try:
        return as_utf8(file, scratch / "utf-8", csv.encoding, check)
    except UnicodeError:
        raise refuse(f"the file is not {csv.encoding or 'UTF-16'}, or cut off: name its encoding") from None


def plain_file(
    file: Path, scratch: Path, check: Callable[[], None] = lambda: None, progress: Progress | None = None
) -> Path:
    """The file itself, or its unpacked content. Raises `Refusal` for an empty, damaged or unsupported file, and
    whatever `check` raises, which is called between chunks."""
    start = _refuse_other(file)
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
        _refuse_other(file)
    if file.stat().st_size == 0:
        raise refuse("the file is empty")
    return file


def _refuse_other(file: Path) -> bytes:
    """The first bytes of a file. Raises `Refusal` if they are those of a file without rows."""
    with file.open("rb") as raw:
        start = raw.read(_LOOKED_AT)
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for begins, marks in ((start, _NO_ROWS), (text, _MARKUP)):
        for mark, words in marks.items():
            if begins.startswith(mark):
                raise refuse(f"the file is {words}")
    return start


def open_source(
    database: duckdb.DuckDBPyConnection,
    file: InputFile,
    scratch: Path,
    known: KnownTypes,
    as_text: frozenset[str],
) -> Source:
    """The rows of an unpacked file.

    `known` are the types of the dataset's existing fields; others are inferred from the whole file. The columns of
    `as_text` stay text as written. Raises `Refusal` if the file does not have this format.
    """
    if file.format == "CSV":
        return csv_file.read(database, file.path, scratch, known, as_text, file.csv)
    return _READERS[file.format](database, file.path, scratch, known, as_text)
