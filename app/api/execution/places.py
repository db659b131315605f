"""Positions of values in a response. Paths are only computed when needed, mostly for errors."""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

from graphql.pyutils import Path

from app.api.execution.from_row import FromRow
from app.api.execution.plan import Selection


class Container(Protocol):
    """An object or a list in the response."""

    def __setitem__(self, key: Any, value: object, /) -> None: ...


class Place:
    """The position of a value: `container[key]`, within the place `outer`. The root has no outer place."""

    __slots__ = ("container", "key", "nullable", "outer", "position", "typename")

    def __init__(
        self,
        container: Container,
        key: str | int,
        position: int,
        nullable: bool,
        outer: "Outer",
        typename: str | None,
    ) -> None:
        self.container: Final = container
        self.key: Final = key
        self.position: Final = position
        self.nullable: Final = nullable
        self.outer: Final = _place(outer)
        self.typename: Final = typename

    def path(self) -> Path | None:
        """The path of the value; None for the root."""
        if self.outer is None:
            return None
        return Path(self.outer.path(), self.key, self.typename)

    def order(self) -> tuple[int, ...]:
        """Sort key for response order."""
        return () if self.outer is None else (*self.outer.order(), self.position)


At: TypeAlias = "tuple[Container, str | int, int, bool, Outer, str | None]"
"""The arguments of a `Place`."""
Outer: TypeAlias = "tuple[Group, int] | At | None"
"""The enclosing place: for a field, that of its object, by number in the object's group."""


def _place(outer: Outer) -> Place | None:
    match outer:
        case None:
            return None
        case (group, number):
            return group.place(number)
        case _:
            return Place(*outer)


class Group:
    """The objects of one selection on one level: the source of each, and its place in the response.

    Objects are added one by one, or as a whole list. If `row_class` is set, they are rows of objects of that class.
    """

    __slots__ = ("_places", "_starts", "asked", "objects", "row_class", "selection", "written")

    def __init__(self, selection: Selection) -> None:
        self.selection: Final = selection
        self.objects: Final[list[Any]] = []
        self.row_class: type[FromRow] | None = None
        self.written: list[dict[str, object]] = []
        self.asked = selection.fields
        """Fields that are resolved object by object."""
        self._starts: Final[list[int]] = []
        self._places: Final[list[At | tuple[list[Any], At, bool]]] = []

    def add(self, object_: object, at: At) -> None:
        self._starts.append(len(self.objects))
        self._places.append(at)
        self.objects.append(object_)

    def add_list(self, objects: Sequence[object], items: list[Any], outer: At, nullable: bool) -> None:
        """Adds all items of the list at `outer`; their responses are written to `items`."""
        self._starts.append(len(self.objects))
        self._places.append((items, outer, nullable))
        self.objects.extend(objects)

    def takes_rows_of(self, class_: type[FromRow]) -> bool:
        """Whether rows of objects of this class can be added: not if there are objects, or other rows."""
        if not self.objects:
            self.row_class = class_
        return self.row_class is class_

    def place(self, number: int) -> Place:
        """The place of the object with this number."""
        at = bisect_right(self._starts, number) - 1
        place = self._places[at]
        if len(place) == 3:
            items, outer, nullable = place
            key = number - self._starts[at]
            return Place(items, key, key, nullable, outer, None)
        return Place(*place)

    def put(self, written: list[dict[str, object]]) -> None:
        """Puts the written objects into their places."""
        self.written = written
        for start, place in zip(self._starts, self._places, strict=True):
            if len(place) == 3:
                items = place[0]
                items[:] = written[start : start + len(items)]
            else:
                place[0][place[1]] = written[start]
