"""Generates functions that write the plain fields of many objects at once, one per selection and class.

A plain field needs no resolver: it is an attribute, a column of the row that the object shows, or computed from the
row. For `{ name etag state jobs { … } }` of schedules the function is this:

    def write(objects):
        written = []
        for shown in objects:
            row = shown.row
            written.append({
                "name": v if (v := row[3]).__class__ is str else leaf0(v),
                "etag": v if (v := made1(row[7])).__class__ is str else leaf2(v),
                "state": memo3[row[5]],
                "jobs": None,
            })
        return written

The numbers are column indexes in the driver's rows (`app.storage.sessions.reading`), so columns that are not selected
are never converted. An object that shows the same row as its parent (such as the progress of a job) is written with the
parent. Other fields are set to None and filled by the executor. The function raises an exception if a value is invalid
(a null in a non-null field, a number out of range): the executor then resolves the objects one by one, and finds the
invalid value.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from types import CodeType
from typing import Any, Final, NamedTuple, TypeAlias

from graphql import GraphQLObjectType
from graphql.pyutils import Undefined

from app.api.execution.from_row import Column, FromRow
from app.api.execution.plan import FieldPlan, Selection, Shape
from app.storage.sessions.reading import Layout

CODE_KEPT: Final = 1_024
"""Maximum number of functions whose code is kept."""

Written: TypeAlias = list[dict[str, object]]
_Convert: TypeAlias = Callable[[Any], object]
_Select: TypeAlias = Callable[[FieldPlan, GraphQLObjectType], Selection]
"""Returns the selection on objects of a type that a field returns."""

_AS_IT_IS: Final = {
    "String": "v.__class__ is str",
    "ID": "v.__class__ is str",
    "Boolean": "v.__class__ is bool",
    "Int": "v.__class__ is int and -2147483648 <= v <= 2147483647",
    "BigInt": "v.__class__ is int",
    "Float": "v.__class__ is float and v - v == 0",
}
"""For each scalar, by name, the condition under which a value `v` is written unchanged; `v - v == 0` holds for finite
numbers only."""


class Writer(NamedTuple):
    """A function that writes objects of one class, and the fields that must be resolved afterwards."""

    write: Callable[[Sequence[Any]], Written]
    asked: list[FieldPlan]


class NotPlain(Exception):
    """A value that the executor must complete or reject."""


def writer_for(
    selection: Selection,
    objects: Sequence[object],
    select: _Select,
    of_rows: type[FromRow] | None = None,
    organisation: str = "",
) -> Writer | None:
    """The writer for these objects, or, with `of_rows`, for these rows of objects of that class; None if they have
    several classes, or show rows of several statements. Documents of one organisation share its code."""
    classes: set[type] = set(map(type, objects)) if of_rows is None else {of_rows}
    if len(classes) != 1:
        return None
    (class_,) = classes
    row_class: type | None = None
    if issubclass(class_, FromRow):
        rows = objects if of_rows is not None else [shown.row for shown in objects if isinstance(shown, FromRow)]
        row_classes = set(map(type, rows))
        if len(row_classes) != 1:
            return None
        (row_class,) = row_classes
    key = class_, row_class, of_rows is None
    writer = selection.writers.get(key)
    if writer is None:
        source = _Source(selection, class_, row_class, select)
        writer = selection.writers[key] = source.compiled(organisation, takes_rows=of_rows is not None)
    return writer


class _Source:
    """The source of one function, and the objects that it references by name."""

    def __init__(self, selection: Selection, class_: type, row_class: type | None, select: _Select) -> None:
        self._selection = selection
        self._class = class_
        self._layout: Layout = getattr(row_class, "LAYOUT", {})
        self._shows_row: Final = row_class is not None
        self._select = select
        self._names: dict[str, Any] = {"datetime": datetime, "UTC": UTC}

    def compiled(self, organisation: str, *, takes_rows: bool) -> Writer:
        values = [(field, self._value(self._class, field)) for field in self._selection.fields]
        written = _object(values)
        if takes_rows:
            self._names["of"] = getattr(self._class, "of", None)
            of_each = "row in objects", "shown = of(row)" if "shown." in written else "pass"
        else:
            of_each = "shown in objects", "row = shown.row" if self._shows_row else "pass"
        text = (
            "def write(objects):\n"
            "    written = []\n"
            f"    for {of_each[0]}:\n"
            f"        {of_each[1]}\n"
            f"        written.append({written})\n"
            "    return written\n"
        )
        exec(_code(organisation, text), self._names)
        return Writer(self._names["write"], [field for field, value in values if value is None])

    def _name(self, kind: str, value: object) -> str:
        name = f"{kind}{len(self._names)}"
        self._names[name] = value
        return name

    def _value(self, class_: type, field: FieldPlan) -> str | None:
        """The source expression of a field's value; None for a field that is not plain."""
        if field.typename:
            return repr(field.parent.name)
        if field.attribute is None:
            return None
        if not field.shape.flat:
            return self._same_row(class_, field, field.attribute)
        raw, converts = self._read(class_, field.attribute)
        shape = field.shape
        if shape.by_enum_member is not None and raw.startswith("row["):
            return f"{self._name('memo', _Memo(_chain([*converts, leaf(shape)])))}[{raw}]"
        name = "" if shape.item else shape.type.name
        if name == "DateTime":
            write = self._name("time", _chain([*converts, leaf(shape)]))
            return f"v.isoformat()[:-6] + 'Z' if (v := {raw}).__class__ is datetime and v.tzinfo is UTC else {write}(v)"
        for convert in converts:
            raw = f"{self._name('made', convert)}({raw})"
        complete = self._name("leaf", leaf(shape))
        as_it_is = _AS_IT_IS.get(name)
        if as_it_is is None:
            return f"{complete}({raw})"
        return f"v if {as_it_is.replace('v', f'(v := {raw})', 1)} else {complete}(v)"

    def _same_row(self, class_: type, field: FieldPlan, attribute: str) -> str | None:
        """The source expression of an object that shows its parent's row; None if the field is no such object, or if
        not all of its fields are plain."""
        made = None if hasattr(class_, attribute) else getattr(class_, "FROM_ROW", {}).get(attribute)
        shown = getattr(made, "__self__", None)
        type_ = field.shape.type
        if not (isinstance(shown, type) and issubclass(shown, FromRow) and isinstance(type_, GraphQLObjectType)):
            return None
        values = [(inner, self._value(shown, inner)) for inner in self._select(field, type_).fields]
        return None if any(value is None for _, value in values) else _object(values)

    def _read(self, class_: type, attribute: str) -> tuple[str, list[_Convert]]:
        """The source expression that reads an attribute, and the functions that convert its result."""
        if not self._shows_row or hasattr(class_, attribute):
            return f"shown.{attribute}", []
        made = class_.FROM_ROW.get(attribute)  # type: ignore[attr-defined]
        column = attribute if made is None else made.name if isinstance(made, Column) else None
        if column is None:
            return "row", [made]
        converts = [made.convert] if isinstance(made, Column) and made.convert is not None else []
        if column not in self._layout:
            return f"row.{column}", converts
        at, convert = self._layout[column]
        return f"row[{at}]", converts if convert is None else [convert, *converts]


@lru_cache(maxsize=CODE_KEPT)
def _code(organisation: str, text: str) -> CodeType:
    """The compiled text of a function. Compiling takes longer than all else that is done once for a new document, and
    most documents select what others select, too. Response times must not reveal what another organisation selects."""
    return compile(text, "<writer>", "exec")


def _object(values: Sequence[tuple[FieldPlan, str | None]]) -> str:
    return "{" + ", ".join(f"{field.key!r}: {value}" for field, value in values) + "}"


class _Memo(dict[Any, object]):
    """Caches the results of a conversion; only for types with few values."""

    def __init__(self, convert: _Convert) -> None:
        super().__init__()
        self._convert = convert

    def __missing__(self, value: object) -> object:
        self[value] = made = self._convert(value)
        return made


def _chain(converts: Sequence[_Convert]) -> _Convert:
    def convert(value: object) -> object:
        for each in converts:
            value = each(value)
        return value

    return convert


def leaf(shape: Shape) -> _Convert:
    """A function that completes a value of a leaf type, or a list of them. It raises an exception for an invalid
    value."""
    non_null = shape.non_null
    if shape.item is not None:
        item = leaf(shape.item)

        def write(value: Any) -> object:
            if value.__class__ is not list:
                raise NotPlain
            return [item(each) for each in value]

    else:
        coerce = shape.type.coerce_output_value

        def write(value: Any) -> object:
            coerced = coerce(value)
            if coerced is None or coerced is Undefined:
                raise NotPlain
            return coerced

    def complete(value: Any) -> object:
        if value is None or value is Undefined:
            if non_null:
                raise NotPlain
            return None
        return write(value)

    return complete
