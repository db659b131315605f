"""Reads the rows of a CSV file one by one, so that a malformed row only affects itself; knows no types and no
datasets."""

import csv
import re
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from io import BufferedReader, FileIO
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from app.engine.ingest.formats.columns import Unreadable
from app.engine.ingest.formats.csv_dialect import Dialect

LONGEST_ROW = 2 * 1024 * 1024
REPORTED = 20
TOO_LONG = f"the row is longer than {LONGEST_ROW // 1024 // 1024} MB"
TOO_FEW = "the row has fewer values than the header"
TOO_MANY = "the row has more values than the header"
NOT_UTF8 = "the row is not UTF-8 (if the file has another encoding, such as windows-1252, name it)"
ZERO_BYTE = "the row has a zero byte"
OPEN_QUOTE = "a quotation mark is not closed"
STRAY_QUOTE = (
    "a quotation mark inside a quoted value is not doubled (if the file escapes it with a backslash, name that escape)"
)
_CHUNK = 8 * 1024 * 1024
_BATCH_CELLS = 1 << 18
_BATCH_ROWS = 1 << 14
_MOST_LINES = 1_000
_BUFFER = 1024 * 1024
_BLANK = re.compile(rb"(\r?\n)+")


def count_rows(file: Path, dialect: Dialect) -> int | None:
    """The number of rows of a well-quoted file, without the header; None if quoting may be invalid.

    Line ends inside an odd number of quotes belong to a value. Blank lines are not rows.
    """
    quote, quotes, rows, last, position = ord(dialect.quote), 0, 0, -1, 0
    with file.open("rb") as raw:
        raw.seek(dialect.start)
        while chunk := raw.read(_CHUNK):
            if b"\0" in chunk:
                return None
            buffer = np.frombuffer(chunk, np.uint8)
            ends = np.flatnonzero(buffer == 10)
            marks = np.flatnonzero(buffer == quote)
            if len(marks):
                ends = ends[(np.searchsorted(marks, ends) + quotes) % 2 == 0]
            quotes += len(marks)
            edges = np.concatenate(([last], ends + position))
            lengths = np.diff(edges) - 1
            if len(lengths) and lengths.max() > LONGEST_ROW:
                return None
            rows += int(np.count_nonzero(lengths > 1))
            # A row of one byte is blank if that byte is a carriage return.
            short = edges[1:][lengths == 1] - 1 - position
            inside = short[short >= 0]
            rows += int(np.count_nonzero(buffer[inside] != 13)) + (len(short) - len(inside))
            last = int(edges[-1])
            position += len(chunk)
    rest = position - last - 1
    if quotes % 2 or rest > LONGEST_ROW:
        return None
    return rows + (rest > 0) - dialect.header_rows


class RowReader:
    """Splits a file into rows; unreadable rows are in `unreadable` after all batches were taken.

    A malformed row ends at its own closing quote, unless that would swallow a line that is a valid row; then it ends
    with its first line.
    """

    def __init__(self, file: Path, dialect: Dialect, null_values: frozenset[str] = frozenset()) -> None:
        self.dialect = dialect
        self.null_values = null_values | {""}
        self.width = len(dialect.names)
        self._file = file
        self._parser = RowParser(dialect)
        self._lines: deque[bytes] = deque()
        self._rows = array("q")
        self._first: list[tuple[int, str]] = []

    @property
    def unreadable(self) -> Unreadable:
        return Unreadable(np.array(self._rows, np.int64), tuple(self._first))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The valid rows in order, as text: columns `c0`, `c1`, …."""
        size = max(1, min(_BATCH_ROWS, _BATCH_CELLS // self.width))
        with BufferedReader(FileIO(self._file), _BUFFER) as raw:
            raw.seek(self.dialect.start)
            rows = self._good_rows(raw)
            while batch := list(islice(rows, size)):
                yield self._batch(batch)

    def _batch(self, rows: list[list[str]]) -> pa.RecordBatch:
        nulls = self.null_values
        columns = [
            pa.array([None if text in nulls else text for text in column], pa.string())
            for column in zip(*rows, strict=True)
        ]
        return pa.record_batch(columns, names=[f"c{n}" for n in range(self.width)])

    def _good_rows(self, raw: "BufferedReader[Any]") -> Iterator[list[str]]:
        number = -self.dialect.header_rows
        while (line := self._next(raw)) is not None:
            if not line.rstrip(b"\r"):
                self._pass_blank_lines(raw)
                continue
            row = self._row(line, raw)
            number += 1
            if number < 1:
                continue
            if isinstance(row, list):
                yield row
                continue
            self._rows.append(number)
            if len(self._first) < REPORTED:
                self._first.append((number, row))

    def _row(self, line: bytes, raw: BinaryIO) -> list[str] | str:
        """The values of the row that starts with this line, or its error; consumes the row's lines."""
        looked_at: list[bytes] = []

        def following() -> bytes | None:
            below = self._next(raw)
            if below is not None:
                looked_at.append(below)
            return below

        row = self._parser.parse(line, following)
        if isinstance(row, str) and looked_at:
            taken = self._parser.extent(row, line, looked_at)
            self._lines.extendleft(reversed(looked_at[taken:]))
        return row

    def _pass_blank_lines(self, raw: "BufferedReader[Any]") -> None:
        """Many at once, since a small compressed file may contain millions of them."""
        while not self._lines and (blank := _BLANK.match(raw.peek())) is not None:
            raw.read(blank.end())

    def _next(self, raw: BinaryIO) -> bytes | None:
        """The next line; None after the last one. The rest of a line that is too long for a row is skipped."""
        if self._lines:
            return self._lines.popleft()
        line = rest = raw.readline(LONGEST_ROW + 2)
        while len(rest) == LONGEST_ROW + 2 and not rest.endswith(b"\n"):
            rest = raw.readline(LONGEST_ROW + 2)
        return line.removesuffix(b"\n") if line else None


class RowParser:
    """Parses one row strictly: quotes inside quoted values must be escaped, and a closing quote ends the value."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.width = len(dialect.names)
        self._delimiter = dialect.delimiter.encode()
        self._quote = dialect.quote.encode()
        quote, escape = re.escape(self._quote), re.escape(dialect.escape.encode())
        self._mark = re.compile(escape + b"(" + (quote if dialect.escape == dialect.quote else b".") + b")|" + quote)
        delimiter = re.escape(self._delimiter)
        self._lenient_close = re.compile(quote + b"(?=" + delimiter + b"|\r?\\Z)")

    def parse(self, line: bytes, following: Callable[[], bytes | None]) -> list[str] | str:
        """The values, or an error. `following` returns the next line if a value continues on it."""
        if len(line) > LONGEST_ROW:
            return TOO_LONG
        if self._quote not in line:
            return self._checked(line.removesuffix(b"\r").split(self._delimiter))
        row = self._parse_line(line)
        if row is not None:
            return row
        values = self._cut(line, following)
        return values if isinstance(values, str) else self._checked(values)

    def extent(self, problem: str, line: bytes, below: Sequence[bytes]) -> int:
        """How many of the lines examined below a malformed row belong to it."""
        ended = problem in (TOO_FEW, TOO_MANY, NOT_UTF8, ZERO_BYTE)
        count = len(below) if ended else self._lenient_end(line, below[:_MOST_LINES])
        return 0 if any(self._is_row(below[n]) for n in range(count)) else count

    def _parse_line(self, line: bytes) -> list[str] | None:
        """The values of a row on one line; None if it is malformed. Most rows end here."""
        if self.dialect.escape != self.dialect.quote:
            return None
        try:
            text = line.removesuffix(b"\r").decode()
            values = next(
                csv.reader([text], delimiter=self.dialect.delimiter, quotechar=self.dialect.quote, strict=True)
            )
        except (UnicodeDecodeError, csv.Error):
            return None
        return values if len(values) == self.width and "\0" not in text else None

    def _cut(self, line: bytes, following: Callable[[], bytes | None], bare_marks: bool = True) -> list[bytes] | str:
        """The values, in any number. `bare_marks`: unquoted values may contain quotes."""
        values: list[bytes] = []
        place, size, lines = 0, len(line), 1
        while True:
            if not line.startswith(self._quote, place):
                end = line.find(self._delimiter, place)
                values.append(line[place:].removesuffix(b"\r") if end < 0 else line[place:end])
                if not bare_marks and self._quote in values[-1]:
                    return STRAY_QUOTE
                if end < 0:
                    return values
                place = end + 1
                continue
            parts, place = [], place + 1
            while (mark := self._mark.search(line, place)) is None or mark[1] is not None:
                if mark is not None:
                    parts += [line[place : mark.start()], mark[1]]
                    place = mark.end()
                    continue
                parts += [line[place:], b"\n"]
                below = following()
                size += len(below or b"") + 1
                if below is None or size > LONGEST_ROW:
                    return OPEN_QUOTE
                line, place, lines = below, 0, lines + 1
            parts.append(line[place : mark.start()])
            values.append(b"".join(parts))
            place = mark.end()
            if line[place:] in (b"", b"\r"):
                return values
            if not line.startswith(self._delimiter, place):
                return STRAY_QUOTE if lines == 1 else OPEN_QUOTE
            place += 1

    def _checked(self, values: Sequence[bytes]) -> list[str] | str:
        if len(values) != self.width:
            return TOO_FEW if len(values) < self.width else TOO_MANY
        try:
            row = [value.decode() for value in values]
        except UnicodeDecodeError:
            return NOT_UTF8
        return ZERO_BYTE if any("\0" in text for text in row) else row

    def _lenient_end(self, line: bytes, below: Sequence[bytes]) -> int:
        """The number of lines of a row if a value is closed only by a quote before a delimiter or line end; 0 if none
        fits."""
        values = place = taken = 0
        while True:
            values += 1
            if line.startswith(self._quote, place):
                place += 1
                while (close := self._lenient_close.search(line, place)) is None:
                    if taken == len(below):
                        return 0
                    line, place, taken = below[taken], 0, taken + 1
                place = close.end()
            else:
                end = line.find(self._delimiter, place)
                place = len(line) if end < 0 else end
            if line[place:] in (b"", b"\r"):
                return taken if values == self.width else 0
            place += 1

    def _is_row(self, line: bytes) -> bool:
        """Whether the line looks like a complete row, possibly with one value too few or too many."""
        values = self._cut(line, lambda: None, bare_marks=False)
        return isinstance(values, list) and abs(len(values) - self.width) <= 1 and len(values) > 1
