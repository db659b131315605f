"""Detects the dialect of a CSV file (delimiter, quotes, header) from its first lines; knows no rows."""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.engine.ingest.formats.columns import INDEX, UNNAMED, check_names, refuse
from app.engine.ingest.formats.csv_options import DETECTED, NO_QUOTE, CsvOptions

_START = 1024 * 1024
_SAMPLE_ROWS = 50
_DELIMITERS = ",;\t|"
_SEPARATOR_LINE = re.compile(r'\A("?)sep=(.)\1\r?\n', re.IGNORECASE)
"""The line that Excel writes and reads before the header; tools that quote every value quote it as well."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """`escape` is the quote itself if quotes are doubled inside values.

    The rows start at byte `start`, with `header_rows` (0 or 1) header rows.
    """

    names: tuple[str, ...]
    delimiter: str
    quote: str = '"'
    escape: str = '"'
    header_rows: int = 1
    start: int = 0


def find_dialect(file: Path, options: CsvOptions = DETECTED) -> Dialect:
    """The dialect of an unpacked UTF-8 file. Raises `Refusal` if it has no usable header or is not CSV."""
    with file.open("rb") as raw:
        start = raw.read(_START)
    if start.startswith(b"PAR1"):
        raise refuse("the file is Parquet, not CSV")
    if start.count(b"\0") > len(start) // 8:
        raise refuse("the file is not CSV in UTF-8: it has zero bytes; if it is UTF-16, name its encoding utf-16-le")
    offset = 3 if start.startswith(b"\xef\xbb\xbf") else 0
    text = start[offset:].decode("utf-8", errors="replace")
    blank = len(text) - len(text.lstrip("\r\n"))
    offset, text = offset + blank, text[blank:]
    named = _SEPARATOR_LINE.match(text)
    if named is not None:
        offset, text = offset + len(named[0].encode()), text[named.end() :]
    if text.startswith("{"):
        raise refuse("the file begins with { as NDJSON does, not with a CSV header")
    quote = '"' if options.quote is None else options.quote or NO_QUOTE
    delimiter = options.delimiter or (named[2] if named is not None else _delimiter(text, quote))
    names = [name.strip() for name in next(_rows(text, delimiter, quote), [])]
    if options.header is False:
        names = [f"column{position}" for position in range(1, len(names) + 1)]
    elif len(names) > 1 and not names[0]:
        names[0] = INDEX  # The name that pandas gives to an unnamed index.
    if len(names) > 2 and not names[-1]:
        names[-1] = UNNAMED
    _check_header(names)
    escape = options.escape or (quote if options.quote is not None else _escape(text, delimiter))
    return Dialect(tuple(names), delimiter, quote, escape, 0 if options.header is False else 1, offset)


def _escape(text: str, delimiter: str) -> str:
    """A backslash if several rows are valid with it but not with doubled quotes, otherwise the quote itself."""
    mark = re.escape(delimiter)
    doubled, escaped = (
        re.compile(f"(?:{value})(?:{mark}(?:{value}))*\\r?")
        for value in (rf'"(?:[^"]|"")*"|[^"{mark}][^{mark}]*|', rf'"(?:[^"\\]|\\.)*"|[^"{mark}][^{mark}]*|')
    )
    lines = [line for line in text.split("\n")[1:-1] if '\\"' in line][:_SAMPLE_ROWS]
    only_escaped = sum(bool(escaped.fullmatch(line)) and not doubled.fullmatch(line) for line in lines)
    return "\\" if only_escaped > max(1, len(lines) // 2) else '"'


def _delimiter(text: str, quote: str) -> str:
    """The delimiter that splits the most rows into as many values as the header, and then into the most values."""

    def score(mark: str) -> tuple[bool, int, int]:
        widths = [len(row) for row, _ in zip(_rows(text, mark, quote), range(_SAMPLE_ROWS), strict=False) if row]
        width = widths[0] if widths else 0
        return width > 1, sum(other == width for other in widths), width

    return max(_DELIMITERS, key=score)


def _rows(text: str, delimiter: str, quote: str) -> Iterator[list[str]]:
    """The first rows, as far as they can be split without knowing about malformed ones."""
    with suppress(csv.Error):
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quotechar=quote)


def _check_header(names: Sequence[str]) -> None:
    if not any(names):
        raise refuse("the file has no header line")
    check_names(names)
    seen: set[str] = set()
    for position, name in enumerate(names, 1):
        if not name:
            raise refuse(f"column {position} of the header has no name")
        if name in seen:
            raise refuse(f'the header names the column "{name}" twice')
        seen.add(name)
