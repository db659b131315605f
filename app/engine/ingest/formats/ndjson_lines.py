"""Loads the lines of an NDJSON file into a table and sets invalid ones aside with the reason; knows no types."""

import json
import math
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import duckdb
import numpy as np
import pyarrow as pa

from app.engine.ingest.formats.columns import MOST_COLUMNS, MOST_LEVELS, MOST_LISTS, Unreadable, check_names, refuse
from app.engine.store.lake import only_row, text_literal
from app.errors import Refusal

LONGEST_ROW = 8 * 1024 * 1024
REPORTED = 20
TOO_LONG = f"the row is longer than {LONGEST_ROW // 1024 // 1024} MB"
TOO_DEEP = f"values are nested in more than {MOST_LEVELS} levels, or more than {MOST_LISTS} of them lists"
NO_OBJECT = "the line is not a JSON object"
NOT_FINITE = "a number is NaN, infinite or too large"
ZERO_BYTE = "the name of a field has a zero byte"
NO_NAME = "the name of a field is empty"
ZERO_IN_TEXT = "a text has a zero byte"
TOO_WIDE = f"an object has more than {MOST_COLUMNS:,} fields with values of several kinds"
HALF_PAIR = "a text has half of a surrogate pair, which is no character"
_SHOWN = 20
_CHUNK = 8 * 1024 * 1024
_INNERMOST = re.compile(rb"\[\]|\{\}")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_ZERO = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SUSPECT = (
    r"(contains(json, '\u0000')"
    r" OR regexp_matches(json, '(?i)[:,\[]\s*[-+]?(nan|inf)|[0-9][eE]\+?[0-9]{3}|[0-9]{300}"
    r"|\x22\x22\s*:|,\s*[\]}]|\x22(__|xEvent\x22)|\\u00(5f|45|65|6e|7[468])')"
    f" OR length(json) - length(replace(json, ':', '')) > {MOST_COLUMNS}"
    f" OR length(json) - length(replace(json, '{{', '')) > {MOST_LEVELS}"
    f" OR length(json) - length(replace(json, '[', '')) > {MOST_LISTS})"
)
"""Patterns of the few lines that Python examines individually; a reserved name may be written with escapes."""


def load_lines(database: duckdb.DuckDBPyConnection, file: Path, scratch: Path) -> Unreadable:
    """Fills `lines(__row, json, problem)` with the nonblank lines; `json` is NULL if there is a problem."""
    long_lines = _LongLines()
    if _begins_with(file) != b"[" or not _load(database, file, "'array'"):
        if long_lines.has_any(file):
            file = long_lines.remove(file, scratch / "lines")
        if not _load(database, file, "'newline_delimited', ignore_errors = true"):
            raise refuse("the file cannot be read as NDJSON: it must be UTF-8 with one JSON object in each line")
        if _has_none(database) and not _load(database, file, "'unstructured'"):  # objects that span several lines
            _load(database, file, "'newline_delimited', ignore_errors = true")
        _explain(database, file)
    _set_aside(database, _SUSPECT, problem_of)
    if _has_none(database):
        raise refuse(_why_none(database, long_lines.unreadable))
    return long_lines.unreadable


def set_twice_named_aside(database: duckdb.DuckDBPyConnection, objects: Sequence[str]) -> None:
    """Marks lines with duplicate names in an object, since their meaning is undefined (RFC 8259). `objects` are the
    paths of all objects, with `[*]` for those in lists."""
    single = [path for path in objects if "[*]" not in path and ".*" not in path]
    twice = "len(names) <> list_unique(names)"
    found = [f"len(list_filter(json_keys(json, [{', '.join(map(text_literal, single))}]), lambda names: {twice})) > 0"]
    found += [
        f"len(list_filter(json_keys(json, {text_literal(path)}), lambda names: {twice})) > 0"
        for path in objects
        if path not in single
    ]
    _set_aside(database, f"({' OR '.join(found)})", _twice_named)


def _load(database: duckdb.DuckDBPyConnection, file: Path, layout: str) -> bool:
    """Fills `lines`; returns false if the file does not have this layout."""
    try:
        database.execute(
            "CREATE OR REPLACE TABLE lines AS SELECT __row, CASE WHEN json_type(json) = 'OBJECT' THEN json END AS json,"
            f" CASE WHEN json_type(json) = 'OBJECT' THEN NULL ELSE {text_literal(NO_OBJECT)} END AS problem"
            f" FROM (SELECT row_number() OVER () AS __row, json FROM read_json_objects({text_literal(str(file))},"
            f" format = {layout}, maximum_object_size = {LONGEST_ROW}, compression = 'none'))"
        )
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error:
        return False
    return True


def _has_none(database: duckdb.DuckDBPyConnection) -> bool:
    return only_row(database, "SELECT count(json) FROM lines") == (0,)


def _begins_with(file: Path) -> bytes:
    """The first byte other than white space."""
    with file.open("rb") as raw:
        while chunk := raw.read(_CHUNK):
            if rest := chunk.removeprefix(b"\xef\xbb\xbf").lstrip():
                return rest[:1]
    return b""


def _why_none(database: duckdb.DuckDBPyConnection, unreadable: Unreadable) -> str:
    """Why no line is usable: the first error other than that a line is not an object, if there is one."""
    odd = database.execute("SELECT __row, problem FROM lines WHERE problem <> ? ORDER BY __row LIMIT 1", [NO_OBJECT])
    if first := odd.fetchall():
        return f"none of the rows can be used; row {unreadable.true_row(first[0][0])}: {first[0][1]}"
    if unreadable.first:
        return f"none of the rows can be used; row {unreadable.first[0][0]}: {unreadable.first[0][1]}"
    return (
        "the file is not NDJSON: none of its lines is a JSON object with fields, and it is no JSON array of objects "
        f"of at most {LONGEST_ROW // 1024 // 1024} MB each, or it is cut off"
    )


def _explain(database: duckdb.DuckDBPyConnection, file: Path) -> None:
    """Explains where the first lines that start like objects are invalid."""
    query = "SELECT __row FROM lines WHERE problem IS NOT NULL ORDER BY __row LIMIT ?"
    rows = [row for (row,) in database.execute(query, [REPORTED]).fetchall()]
    if not rows:
        return
    with file.open("rb") as raw:
        lines = enumerate((line for line, _ in _pieces(raw) if line.strip()), start=1)
        found = {row: mistake for row, line in lines_at(lines, rows) if (mistake := mistake_of(line))}
    if found:
        _note(database, list(found), list(found.values()))


def lines_at(lines: Iterator[tuple[int, bytes]], rows: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The lines with these ascending numbers; reads none after the last of them."""
    wanted = set(rows)
    for row, line in lines:
        if row in wanted:
            yield row, line
        if row >= rows[-1]:
            return


def mistake_of(line: bytes) -> str | None:
    r"""Where the line of an object stops being valid UTF-8 JSON; None if it is valid.

    >>> mistake_of(b'{"a": 1,}')
    'the line is not JSON: it goes wrong at character 9, `}`'
    >>> mistake_of(b'{"a": "caf\xe9"}')
    'the line is not UTF-8: its byte 11 is 0xE9'
    >>> mistake_of(b'{"a": "\\ud83d"}')
    'a text has half of a surrogate pair, which is no character'
    """
    try:
        text = line.removeprefix(b"\xef\xbb\xbf").decode().rstrip("\r\n")
        if not text.lstrip().startswith("{"):
            return None
        value = json.loads(text, parse_int=len)  # Python refuses to parse very long ones.
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return HALF_PAIR
    except UnicodeDecodeError as error:
        return f"the line is not UTF-8: its byte {error.start + 1} is 0x{line[error.start]:02X}"
    except json.JSONDecodeError as error:
        rest = text[error.pos : error.pos + _SHOWN].strip()
        where = f"it goes wrong at character {error.pos + 1}, `{rest}`" if rest else "it ends too early"
        return f"the line is not JSON: {where}"
    except RecursionError:
        return TOO_DEEP
    return None


def _set_aside(database: duckdb.DuckDBPyConnection, suspect: str, problem_of: Callable[[str], str | None]) -> None:
    """Records the errors of the suspect lines (`suspect`: SQL)."""
    suspects = database.cursor()
    suspects.execute(f"SELECT __row, json::VARCHAR FROM lines WHERE json IS NOT NULL AND {suspect}")
    rows: list[int] = []
    problems: list[str] = []
    while chunk := suspects.fetchmany(1_000):
        for row, text in chunk:
            problem = problem_of(text)
            if problem is not None:
                rows.append(row)
                problems.append(problem)
    suspects.close()
    if rows:
        _note(database, rows, problems)


def _note(database: duckdb.DuckDBPyConnection, rows: Sequence[int], problems: Sequence[str]) -> None:
    database.register("odd", pa.table({"__row": rows, "problem": problems}))
    database.execute(
        "CREATE OR REPLACE TABLE lines AS SELECT __row, CASE WHEN odd.problem IS NULL THEN json END AS json,"
        " coalesce(odd.problem, lines.problem) AS problem FROM lines LEFT JOIN odd USING (__row) ORDER BY __row"
    )
    database.unregister("odd")


def problem_of(text: str) -> str | None:
    """The error of a JSON object that DuckDB would accept but change, or could not hold.

    >>> problem_of('{"a": [1, NaN]}')
    'a number is NaN, infinite or too large'
    >>> problem_of('{"a": [1, 2,]}')
    'the line is not JSON: it goes wrong at character 13, `]}`'
    """
    if _is_too_deep(text.encode()):
        return TOO_DEEP
    try:
        names = json.loads(
            text, object_pairs_hook=_checked_names, parse_float=_finite, parse_int=_finite, parse_constant=_refused
        )
        check_names(names)
    except Refusal as refusal:
        return refusal.message
    except _Odd as odd:
        return str(odd)
    except json.JSONDecodeError as error:
        is_comma = text[error.pos :].lstrip(", \t\r\n").startswith(("]", "}"))
        return mistake_of(text.encode()) if is_comma else NOT_FINITE
    except ValueError:
        return NOT_FINITE
    return ZERO_IN_TEXT if _ZERO.search(text) else None


class _Odd(Exception):
    """An invalid value."""


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Odd(NOT_FINITE)
    return number


def _refused(constant: str) -> None:
    raise _Odd(NOT_FINITE)


def _checked_names(pairs: list[tuple[str, Any]]) -> list[str]:
    """Validates the names of an object."""
    if any("\0" in name for name, _ in pairs):
        raise _Odd(ZERO_BYTE)
    if any(not name for name, _ in pairs):
        raise _Odd(NO_NAME)
    if len(pairs) > MOST_COLUMNS and len({type(value) for _, value in pairs if value is not None}) > 1:
        raise _Odd(TOO_WIDE)  # With one type of values it becomes a map.
    return [name for name, _ in pairs]


def _twice_named(text: str) -> str | None:
    try:
        json.loads(text, object_pairs_hook=_once_each)
    except _Odd as odd:
        return str(odd)
    return None


def _once_each(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise _Odd(f'the name "{name[:100]}" stands twice in one object')
        seen.add(name)


def _is_too_deep(text: bytes) -> bool:
    """Whether the object is nested too deeply; its own braces do not count."""
    brackets = _STRINGS.sub(b"", text).translate(None, _NOT_BRACKETS)
    rest = brackets
    for _ in range(MOST_LEVELS + 1):
        rest = _INNERMOST.sub(b"", rest)
    if rest:
        return True
    rest = brackets
    for _ in range(MOST_LISTS):
        while b"{}" in rest:
            rest = rest.replace(b"{}", b"")
        rest = rest.replace(b"[]", b"")
    return b"[" in rest


class _LongLines:
    """Lines longer than a row may be, for which DuckDB would reject the whole file."""

    def __init__(self) -> None:
        self._rows = array("q")

    @property
    def unreadable(self) -> Unreadable:
        rows = np.array(self._rows, np.int64)
        return Unreadable(rows, tuple((int(row), TOO_LONG) for row in rows[:REPORTED]))

    def has_any(self, file: Path) -> bool:
        position, last = 0, -1
        with file.open("rb") as raw:
            while chunk := raw.read(_CHUNK):
                ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10) + position
                position += len(chunk)
                edges = np.concatenate(([last], ends))
                if len(ends) and int(np.diff(edges).max()) > LONGEST_ROW:
                    return True
                last = int(edges[-1])
        return position - last > LONGEST_ROW

    def remove(self, file: Path, target: Path) -> Path:
        """The file without these lines; their numbers are recorded."""
        row = 0
        with file.open("rb") as raw, target.open("wb") as kept:
            for line, whole in _pieces(raw):
                if not line.strip():
                    continue
                row += 1
                if whole:
                    kept.write(line)
                else:
                    self._rows.append(row)
        return target


def _pieces(raw: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """Each line, and whether it is complete; only the start of a long one."""
    while line := raw.readline(LONGEST_ROW):
        rest = line
        while len(rest) == LONGEST_ROW and not rest.endswith(b"\n"):
            rest = raw.readline(LONGEST_ROW)
        yield line, rest is line
