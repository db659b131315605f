"""The output of every format's reader: columns as SQL expressions, with the errors of each row."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine.store.field_types import noun
from app.engine.store.lake import text_literal
from app.errors import ErrorCode, Refusal
from app.pql.schema import EVENTS, ObjectType, Scalar, Type

INDEX = "__index_level_0__"
"""The column name that pandas uses for an unnamed index; such columns contain no data."""
_INDEX = re.compile("__index_level_[0-9]+__|__unnamed__")
UNNAMED = "__unnamed__"
"""The column after a trailing delimiter on each row; it must be empty."""
MOST_COLUMNS = 10_000
MOST_FIELDS = 200
"""An object with more fields, all of one type, is a map: its keys are data."""
MOST_LEVELS = 40
"""Maximum nesting of objects, maps and lists, close to the limit of Delta's readers."""
MOST_LISTS = 10
"""Maximum nesting of lists: with each level, DuckDB's memory for a value doubles."""


class KnownTypes(Protocol):
    """The existing types of columns, and how a file widens them."""

    @property
    def fields(self) -> ObjectType: ...

    def widened(self, name: str, found: Type) -> Type:
        """The type of a top-level column after a file with values of the type found."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it will be stored: its type, SQL for its value, and SQL for its error (NULL if valid)."""

    type: Type
    value: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows that could not be read (their ascending numbers), the first ones with a message."""

    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    first: tuple[tuple[int, str], ...] = ()

    def true_row(self, row: int) -> int:
        """The file's row number of the `row`-th readable row.

        >>> [Unreadable(np.array([2, 3])).true_row(row) for row in (1, 2, 3)]
        [1, 4, 5]
        """
        readable_before = self.rows - 1 - np.arange(len(self.rows))
        return row + int(np.searchsorted(readable_before, row, side="left"))


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a file.

    `rows` returns an SQL table expression with a column `__row` (1-based, counting only readable rows) and what the SQL
    of the columns with these names uses: a relation with all of thousands of columns is slow to plan. `texts` maps the
    top-level columns to SQL for their text as written. `names` are all columns of the file, including those without
    values, which `columns` omits. `problem` is SQL for the error of a row as a whole. `warnings` are for the sender;
    `notes` are warnings about one column each, which only apply if that column is stored.
    """

    rows: Callable[[Iterable[str]], str]
    names: tuple[str, ...]
    columns: Mapping[str, Column]
    texts: Mapping[str, str]
    problem: str | None = None
    unreadable: Unreadable = field(default_factory=Unreadable)
    warnings: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()
    is_quick: bool = False
    """Whether reading the values again costs less than storing them in a table."""


def refuse(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_INPUT, message, ("input", "file"))


def check_names(names: Collection[str]) -> None:
    """Raises `Refusal` for reserved or invalid column names, and for too many columns."""
    if len(names) > MOST_COLUMNS:
        raise refuse(f"the file has {len(names):,} columns: at most {MOST_COLUMNS:,} can be loaded")
    for name in names:
        problem = None if is_index(name) else name_problem(name)
        if problem is not None:
            raise refuse(f"{problem}: rename it")


def name_problem(name: str) -> str | None:
    """Why no column can have this name; None for one that can.

    >>> name_problem("__id")
    'the column "__id" begins with two underscores, which is reserved'
    """
    if name == EVENTS:
        return f'the column "{name}" is named like a part of the profile'
    if name.startswith("__"):
        return f'the column "{name}" begins with two underscores, which is reserved'
    return f"the name of the column {name!r} has a zero byte" if "\0" in name else None


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def complaint(name: str, text: str, expected: Type) -> str:
    """SQL for the message that a value (`text`: SQL for it) does not have the expected type.

    >>> print(complaint("a", "v", Scalar.DATE))
    'a: "' || left(v, 100) || '" is not a date (YYYY-MM-DD)'
    """
    wrong = text_literal(f'" is not {noun(expected)}')
    if expected is Scalar.NUMBER:
        precise = text_literal('" has more digits than a column with fractions holds: it would be rounded')
        wrong = f"CASE WHEN regexp_full_match({text}, '{_DIGITS}') THEN {precise} ELSE {wrong} END"
    return f"{text_literal(f'{name}: ' + chr(34))} || left({text}, 100) || {wrong}"


_DIGITS = r"-?(0|[1-9][0-9]*)([.][0-9]+)?"


def first_of(problems: list[str]) -> str | None:
    """SQL for the first error that is not NULL."""
    return f"coalesce({', '.join(problems)})" if problems else None
