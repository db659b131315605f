"""The types that columns may get beside already stored data, so that no number is ever rounded; knows no formats."""

import json
from collections.abc import Iterator
from functools import reduce
from pathlib import Path

from app.engine.ingest.neighbours import Neighbours, holds_large
from app.engine.ingest.rows import EVENT_ID, TIMESTAMP, DatasetShape, user_fields
from app.engine.store.delta import TableVersion
from app.engine.store.field_types import WIDENINGS, widen
from app.engine.store.json_schema import Declared, declared
from app.errors import ErrorCode, Refusal
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_NUMBERS = (Scalar.INTEGER, Scalar.NUMBER)
_Path = tuple[str, ...]


DECLARED = "_declared.json"
"""File in a dataset's folder: its JSON Schema as declared."""


def declared_of(folder: Path) -> Declared:
    """The declaration of the dataset in the folder; empty if there is none."""
    try:
        return declared(json.loads((folder / DECLARED).read_text()), is_stored=True)
    except FileNotFoundError:
        return Declared()


class StoredTypes:
    """The existing types of columns, and the types they get with a file.

    `fields` are the dataset's. Declared types are kept. So is the type of integers beyond 2^53, which would be rounded
    beside fractions, including those of neighbours that share the column in a view; a value that does not fit is then
    rejected by row.
    """

    def __init__(
        self, fields: ObjectType, declared: ObjectType, current: TableVersion | None, neighbours: Neighbours
    ) -> None:
        self.fields = fields
        self._declared = declared
        self._current = current
        self._stored = ObjectType() if current is None else user_fields(current.schema)
        self._neighbours = neighbours

    def widened(self, name: str, found: Type) -> Type:
        """The type of a top-level column after a file with values of the type found."""
        return self._wider(self.fields.fields.get(name), found, (name,))

    def _wider(self, old: Type | None, new: Type, path: _Path) -> Type:
        match old, new:
            case None | Scalar(), Scalar() if new in _NUMBERS and old in (None, *_NUMBERS):
                return self._number(old, new, path)
            case None | ObjectType(), ObjectType():
                fields = {} if old is None else dict(old.fields)
                for name, inner in new.fields.items():
                    fields[name] = self._wider(fields.get(name), inner, (*path, name))
                return ObjectType(fields)
            case None | ArrayType(), ArrayType(inner):
                return ArrayType(self._wider(None if old is None else old.element, inner, (*path, "[]")))
            case None | MapType(), MapType(inner):
                return MapType(self._wider(None if old is None else old.value, inner, (*path, "{}")))
            case ObjectType(), MapType(inner):
                item = (*path, "{}")
                return MapType(reduce(lambda one, other: self._wider(one, other, item), old.fields.values(), inner))
            case None, _:
                return new
            case Scalar(), _:
                return new if (old, new) in WIDENINGS and _at(self._declared, path) is not old else old
            case _:
                return old

    def _number(self, old: Scalar | None, new: Scalar, path: _Path) -> Scalar:
        if old is not None and _at(self._declared, path) is old:
            return old
        wide = new if old is None or (old, new) in WIDENINGS else old
        if wide is Scalar.NUMBER:
            return Scalar.INTEGER if self._large(path) or self._neighbours.large(path) else wide
        if self._neighbours.fractions(path):
            # The view has fractions there, so integers that can be represented among them are fine.
            return wide if self._large(path) else Scalar.NUMBER
        return wide

    def _large(self, path: _Path) -> bool:
        current = self._current
        return current is not None and _at(self._stored, path) is Scalar.INTEGER and holds_large(current, path)


def _at(fields: Type, path: _Path) -> Type | None:
    below: Type | None = fields
    for step in path:
        match below:
            case ObjectType():
                below = below.fields.get(step)
            case ArrayType(inner) | MapType(inner):
                below = inner
            case _:
                return None
    return below


def _of_rows(fields: ObjectType, shape: DatasetShape) -> ObjectType:
    is_event = shape.kind == "EVENT"
    for name in (shape.identity_column, EVENT_ID if is_event else shape.identity_column):
        if fields.fields.get(name, Scalar.STRING) is not Scalar.STRING:
            raise _refuse(f"{name!r} is an id, read as text exactly as written: declare it as a string")
    if not is_event:
        return fields
    time = shape.timestamp_column or TIMESTAMP
    if fields.fields.get(time, Scalar.TIMESTAMP) not in (Scalar.TIMESTAMP, Scalar.DATE):
        raise _refuse(f"{time!r} is the time of an event: declare it as a string of the format date-time")
    if time != TIMESTAMP and TIMESTAMP in fields.fields:
        raise _refuse(f"the time column {time!r} becomes {TIMESTAMP!r}: declare no other column of that name")
    return ObjectType({name: type_ for name, type_ in fields.fields.items() if name not in (time, TIMESTAMP)})


def _differences(old: Type, new: Type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Type, Type]]:
    match old, new:
        case ObjectType(), ObjectType():
            for name in old.fields.keys() & new.fields.keys():
                yield from _differences(old.fields[name], new.fields[name], (*path, name))
        case ArrayType(one), ArrayType(other):
            yield from _differences(one, other, (*path, "[]"))
        case MapType(one), MapType(other):
            yield from _differences(one, other, (*path, "{}"))
        case _:
            if old != new:
                yield path, old, new


def declarable(
    current: TableVersion | None, known: ObjectType, fields: ObjectType, shape: DatasetShape, neighbours: Neighbours
) -> ObjectType:
    """The fields of a dataset after this declaration. Raises `Refusal` if they contradict its data or its shape, or the
    data of its neighbours."""
    fields = _of_rows(fields, shape)
    for path in sorted(neighbours.beside_large(fields)):
        raise _refuse(
            f"another dataset holds whole numbers past 2^53 in {'.'.join(path)!r}, which a number would round where "
            "both are one profile's: declare it as an integer, or under another name"
        )
    for path, old, new in _differences(known, fields, ()):
        _refuse_altering(current, path, old, new)
    return widen(known, fields)


def _refuse_altering(current: TableVersion | None, path: tuple[str, ...], old: Type, new: Type) -> None:
    name = ".".join(path)
    if (old, new) not in WIDENINGS:
        raise _refuse(f"{name!r} holds data of the type {old}, which cannot become {new}: declare it as it is")
    if old is Scalar.INTEGER and current is not None and holds_large(current, path):
        raise _refuse(f"{name!r} holds whole numbers past 2^53, which a number would round: declare it as an integer")


def _refuse(message: str) -> Refusal:
    return Refusal(ErrorCode.INVALID_INPUT, message, ("schema",))
