"""What every format's reader gives: columns as SQL expressions, with what is wrong in a row."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine.store.field_types import noun
from app.engine.store.lake import text_literal
from app.errors import ErrorCode, Refusal
from app.pql.schema import EVENTS, ObjectType, Scalar, Type

INDEX = "__index_level_0__"
"""What pandas calls an index without a name; such columns are no data."""
_INDEX = re.compile("__index_level_[0-9]+__|__unnamed__")
UNNAMED = "__unnamed__"
"""The column after a delimiter that ends each row; it must be empty."""
MOST_COLUMNS = 10_000
MOST_FIELDS = 200
"""An object with more of them, all of one type, is a map: its keys are data."""
MOST_LEVELS = 40
"""Objects, maps and lists inside one another; Delta's readers take little more."""
MOST_LISTS = 10
"""Lists inside one another: what DuckDB holds for a value doubles with each."""


class KnownTypes(Protocol):
    """The types that columns have already, and what they become with a file."""

    @property
    def fields(self) -> ObjectType: ...

    def widened(self, name: str, found: Type) -> Type:
        """The type of a column at the top, after a file with values of the type found."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column as it will be stored: its type, SQL for its value, and SQL for what is wrong (NULL when it is fine)."""

    type: Type
    value: str
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Rows that are no rows at all (their numbers, rising), the first of them with a sentence."""

    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    first: tuple[tuple[int, str], ...] = ()

    def true_row(self, row: int) -> int:
        """The number in the file of the `row`-th row that could be read.

        >>> [Unreadable(np.array([2, 3])).true_row(row) for row in (1, 2, 3)]
        [1, 4, 5]
        """
        readable_before = self.rows - 1 - np.arange(len(self.rows))
        return row + int(np.searchsorted(readable_before, row, side="left"))


@dataclass(frozen=True, slots=True)
class Source:
    """The rows of a file.

    `relation` is an SQL table expression with a column `__row` (1-based, counting the rows that could be read).
    `texts` has, for the columns of the top, SQL for their text as written. `names` are all columns of the file, also
    those without any value, which `columns` leaves out. `problem` is SQL for what is wrong with a row as a whole.
    `warnings` say what the sender should look at, and `notes` so of a column, for one that is stored.
    """

    relation: str
    names: tuple[str, ...]
    columns: Mapping[str, Column]
    texts: Mapping[str, str]
    problem: str | None = None
    unreadable: Unreadable = field(default_factory=Unreadable)
    warnings: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def refuse(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_INPUT, message, ("input", "file"))


def check_names(names: Collection[str]) -> None:
    """Raises `Refusal` for a column that is named like one of ours, and for too many of them."""
    if len(names) > MOST_COLUMNS:
        raise refuse(f"the file has {len(names):,} columns: at most {MOST_COLUMNS:,} can be loaded")
    for name in names:
        if name == EVENTS:
            raise refuse(f'the column "{name}" is named like a part of the profile: rename it')
        if name.startswith("__") and not is_index(name):
            raise refuse(f'the column "{name}" begins with two underscores, which is reserved: rename it')


def is_index(name: str) -> bool:
    return _INDEX.fullmatch(name) is not None


def complaint(name: str, text: str, expected: Type) -> str:
    """SQL for the sentence that a value (`text`: SQL for it) is not of the expected type.

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
    """SQL for the first problem that there is."""
    return f"coalesce({', '.join(problems)})" if problems else None
