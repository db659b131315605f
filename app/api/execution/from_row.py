"""API objects that show a row; knows no resource."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, ClassVar, Final, Self

RowFields = Mapping[str, Callable[[Any], object]]
"""For each field, by name, a function that computes it from a row: a `Column` if one column suffices."""


@dataclass(frozen=True, slots=True)
class Column:
    """A field that is a column of the row, renamed or converted.

    `convert` must be a pure function of the value, so that the executor can read and convert the column itself.
    """

    name: str
    convert: Callable[[Any], object] | None = None

    def __call__(self, row: Any) -> object:
        value = getattr(row, self.name)
        return value if self.convert is None else self.convert(value)


class FromRow:
    """Computes each field from the row on first access, so that an operation only pays for the selected fields.

    `FROM_ROW` defines how; any other field is the row's attribute with the same name. The row must have all columns
    that the fields need: nothing is loaded later.
    """

    FROM_ROW: ClassVar[RowFields] = {}

    row: Any

    @classmethod
    def of(cls, row: Any) -> Self:
        shown = cls.__new__(cls)
        shown.row = row
        return shown

    def __getattr__(self, name: str) -> Any:
        """Computes a field on first access. Raises `AttributeError` if the row does not have it."""
        row = self.__dict__.get("row")
        if row is None:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        make = self.FROM_ROW.get(name)
        value = self.__dict__[name] = getattr(row, name) if make is None else make(row)
        return value


_OF: Final = vars(FromRow)["of"].__func__


def is_plain(class_: type, make: Callable[[Any], object]) -> bool:
    """Whether `make` is the unchanged `of` of a `FromRow` class, so that a row can stand for its object."""
    return issubclass(class_, FromRow) and make == class_.of and getattr(make, "__func__", None) is _OF


def reader(class_: type, name: str) -> Callable[[Any], object]:
    """A function that reads the attribute from objects of this class. For a `FromRow` class it reads the row directly,
    without `__getattr__`."""
    if not issubclass(class_, FromRow) or hasattr(class_, name):
        return attrgetter(name)
    make = class_.FROM_ROW.get(name)
    return attrgetter(f"row.{name}") if make is None else lambda shown: make(shown.row)
