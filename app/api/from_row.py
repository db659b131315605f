"""Objects of the API that show a row; knows no resource."""

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any, ClassVar, Self

RowFields = Mapping[str, Callable[[Any], object]]
"""Fields by name, each with what makes it from a row."""


class FromRow:
    """Each field is made from the row when it is first read, so that an operation pays for the fields that it selects.

    `FROM_ROW` says how; any other field is the attribute of its name of the row.
    The row must have been read whole: nothing is loaded later.
    """

    FROM_ROW: ClassVar[RowFields] = {}

    row: Any

    @classmethod
    def of(cls, row: Any) -> Self:
        shown = cls.__new__(cls)
        shown.row = row
        return shown

    def __getattr__(self, name: str) -> Any:
        """Called for what the object does not have yet. Raises `AttributeError` for what its row does not have."""
        row = self.__dict__.get("row")
        if row is None:
            raise AttributeError(f"{type(self).__name__} has no {name}")
        make = self.FROM_ROW.get(name)
        value = self.__dict__[name] = getattr(row, name) if make is None else make(row)
        return value


def reader(class_: type, name: str) -> Callable[[Any], object]:
    """What reads the attribute of an object of this class: of one that shows a row, without the way through Python's
    attributes."""
    if not issubclass(class_, FromRow) or hasattr(class_, name):
        return attrgetter(name)
    make = class_.FROM_ROW.get(name)
    return attrgetter(f"row.{name}") if make is None else lambda shown: make(shown.row)
