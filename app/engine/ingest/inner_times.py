"""Times inside objects, lists and maps that are declared as numbers since 1970; knows no formats."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.engine.ingest.formats.columns import KnownTypes
from app.engine.store.case_names import file_names
from app.engine.store.epochs import Epoch
from app.engine.store.lake import name_literal
from app.engine.store.schema_rules import label_of, values_at
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class InnerTimes:
    """The places below columns that are declared to count from 1970, by path (`[]` elements of a list, `{}` values of a
    map)."""

    epochs: Mapping[_Path, Epoch]

    @property
    def names(self) -> set[str]:
        """The columns with such places."""
        return {path[0] for path in self.epochs}

    def as_text(self, fields: ObjectType) -> ObjectType:
        """The fields with text at these places."""
        return _object(fields, self.epochs, Scalar.TIMESTAMP, Scalar.STRING)

    def as_times(self, fields: ObjectType) -> ObjectType:
        """The fields with times at these places, whatever scalars they have."""
        return _object(fields, self.epochs, None, Scalar.TIMESTAMP)

    def stored(self, fields: ObjectType) -> ObjectType:
        """The fields after `value`."""
        return _object(fields, self.epochs, Scalar.STRING, Scalar.TIMESTAMP)

    def value(self, column: str, type_: Type, name: str) -> str:
        """SQL for the value of the column (`column`: SQL) of this name and type, with its text converted to times."""
        return _converted(column, type_, _below(self.epochs, name), 0)

    def problems(self, column: str, type_: Type, name: str) -> Iterator[str]:
        """SQL for the error of the column, for each place; NULL if there is none."""
        for path, epoch in self.epochs.items():
            values, found = values_at(column, type_, path[1:]) if path[0] == name else ("", None)
            if found is Scalar.STRING:
                each = f"list_transform({values}, lambda __v: {epoch.problem(label_of(path), '__v')})"
                yield f"list_filter({each}, lambda __p: __p IS NOT NULL)[1]"


@dataclass(frozen=True)
class TypesOfText(KnownTypes):
    """The types of columns, with text where times are counted from 1970."""

    stored: KnownTypes
    times: InnerTimes

    @cached_property
    def fields(self) -> ObjectType:
        return self.times.as_text(self.stored.fields)

    def widened(self, name: str, found: Type) -> Type:
        times = self.times.as_times(ObjectType({name: found})).fields[name]
        return self.times.as_text(ObjectType({name: self.stored.widened(name, times)})).fields[name]


def _below(epochs: Mapping[_Path, Epoch], step: str) -> dict[_Path, Epoch]:
    return {path[1:]: epoch for path, epoch in epochs.items() if path[:1] == (step,)}


def _object(fields: ObjectType, epochs: Mapping[_Path, Epoch], old: Scalar | None, new: Scalar) -> ObjectType:
    names = {path[0] for path in epochs} & fields.fields.keys()
    changed = {name: _with(fields.fields[name], _below(epochs, name), old, new) for name in names}
    return ObjectType({**fields.fields, **changed})


def _with(type_: Type, epochs: Mapping[_Path, Epoch], old: Scalar | None, new: Scalar) -> Type:
    """The type with `new` at these places instead of `old`, or of any scalar."""
    match type_:
        case _ if not epochs:
            return type_
        case ObjectType():
            return _object(type_, epochs, old, new)
        case ArrayType(element):
            return ArrayType(_with(element, _below(epochs, "[]"), old, new))
        case MapType(value):
            return MapType(_with(value, _below(epochs, "{}"), old, new))
        case _:
            return new if () in epochs and old in (None, type_) else type_


def _converted(value: str, type_: Type, epochs: Mapping[_Path, Epoch], depth: int) -> str:
    item = f"__item{depth}"  # no column has such a name, which would hide it
    match type_:
        case _ if not epochs:
            return value
        case ObjectType():
            names = file_names(type_.fields)
            parts = ", ".join(
                f"{name_literal(names[name])} := "
                + _converted(f"{value}.{name_literal(names[name])}", inner, _below(epochs, name), depth)
                for name, inner in type_.fields.items()
            )
            return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({parts}) END"
        case ArrayType(element):
            inner = _converted(item, element, _below(epochs, "[]"), depth + 1)
            return f"list_transform({value}, lambda {item}: {inner})"
        case MapType(element):
            inner = _converted(f"{item}.value", element, _below(epochs, "{}"), depth + 1)
            entries = f"list_transform(map_entries({value}), lambda {item}: struct_pack(k := {item}.key, v := {inner}))"
            return f"CASE WHEN {value} IS NOT NULL THEN map_from_entries({entries}) END"
        case _:
            return epochs[()].value(value) if () in epochs and type_ is Scalar.STRING else value
