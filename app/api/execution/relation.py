"""Relations: fields whose objects are read by a key of their parent. They are declared once for a field, not resolved
for each parent, so the executor reads the objects of all parents of a level at once (`related`)."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeAlias, TypeVar

from app.api.context.batching import Loader, PageLoader
from app.services.lists.paging import Slice

T = TypeVar("T")

AnySlice: TypeAlias = Slice[Any]
Make: TypeAlias = Callable[[Any], object]
"""Creates an object from a row."""

RELATION: Final = "relation"
"""Attribute of a resolver that was made from a `Relation`."""


@dataclass(frozen=True, slots=True)
class One(Generic[T]):
    """At most one object for each parent: `rows` loads its row by the parent's key, `make` creates it from the row."""

    rows: Loader[str, Any]
    make: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Many(Generic[T]):
    """A page of objects for each parent. `pages` loads it by the parent's key, the page and `arguments`; `counts` loads
    the number of all objects by key and `arguments`."""

    pages: PageLoader[AnySlice]
    counts: PageLoader[int]
    make: Callable[[Any], T]
    arguments: tuple[Hashable, ...] = ()


AnyOne: TypeAlias = One[Any]
AnyMany: TypeAlias = Many[Any]
Values: TypeAlias = Mapping[str, Callable[[AnySlice, Make], object]]
"""For each field of a connection that depends on its page, by name, its value for a page and `make`."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How a field is read. `declare` takes the loaders and the field's arguments, without those of paging; `of` is the
    attribute of the parent that is its key."""

    of: str
    declare: Callable[..., AnyOne | AnyMany]
    missing: str | None = None
    """What is gone if there is no object; None if the field is then null."""
    values: Values = field(default_factory=dict)

    def object(self, one: AnyOne, key: object, row: object) -> object:
        """The object of a row, None if there is none. Raises `LookupError`."""
        if row is not None:
            return one.make(row)
        if self.missing is not None:
            raise LookupError(f"{self.missing} ({key}) is gone")
        return None


EMPTY: Final[AnySlice] = Slice([], [], False, False)


def needs_page(selected: frozenset[str] | None) -> bool:
    """Whether a connection's fields (None for unknown ones) need the page."""
    return selected is None or bool(selected - {"totalCount", "__typename"})
