"""One file opened as a source of rows, whatever its format; knows no datasets."""

import gzip
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import duckdb

from app.engine.ingest.formats import csv_file, ndjson_file, parquet_file
from app.engine.ingest.formats.columns import KnownTypes, Source, refuse
from app.engine.ingest.formats.csv_options import DETECTED, CsvOptions
from app.engine.ingest.formats.encodings import as_utf8

FileFormat = Literal["CSV", "NDJSON", "PARQUET"]

_GZIP = b"\x1f\x8b"
_READERS = {"NDJSON": ndjson_file.read, "PARQUET": parquet_file.read}


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file with rows, perhaps gzipped, and how they are written."""

    path: Path
    format: FileFormat
    csv: CsvOptions = DETECTED


def first_bytes(file: Path, size: int) -> bytes:
    """How a file begins, unpacked; nothing of one that cannot be."""
    with file.open("rb") as raw:
        start = raw.read(size)
    if not start.startswith(_GZIP):
        return start
    with suppress(OSError, EOFError, zlib.error), gzip.open(file, "rb") as packed:
        return packed.read(size)
    return b""


def utf8_file(file: Path, scratch: Path, csv: CsvOptions, check: Callable[[], None] = lambda: None) -> Path:
    """An unpacked text file as UTF-8. Raises `Refusal` when it has not the encoding, and whatever `check` raises."""
    try:
        return as_utf8(file, scratch / "utf-8", csv.encoding, check)
    except UnicodeError:
        raise refuse(f"the file is not {csv.encoding or 'UTF-16'}, or cut off: name its encoding") from None


def plain_file(file: Path, scratch: Path, check: Callable[[], None] = lambda: None) -> Path:
    """The file itself, or what is in it when it is gzipped. Raises `Refusal` for an empty or damaged one, and whatever
    `check` raises, which is called between chunks."""
    with file.open("rb") as raw:
        start = raw.read(len(_GZIP))
    if start == _GZIP:
        unpacked = scratch / "unpacked"
        try:
            with gzip.open(file, "rb") as packed, unpacked.open("wb") as plain:
                while chunk := packed.read(1 << 20):
                    check()
                    plain.write(chunk)
        except (OSError, EOFError, zlib.error):
            raise refuse("the file begins like a gzip file but cannot be unpacked: it is damaged or cut off") from None
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
