"""Columns that a batch would widen, where that would alter values that the dataset has already; knows no formats."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow.parquet as pq

from app.engine.ingest.formats.columns import Column, Source, complaint, refuse
from app.engine.store.case_names import our_name
from app.engine.store.delta import TableVersion
from app.engine.store.field_types import WIDENINGS, noun, parsed
from app.engine.store.json_schema import fields_of
from app.engine.store.parquet_columns import leaf_name
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_EXACT = 1 << 53


DECLARED = "_declared.json"
"""In a dataset's folder: its JSON Schema as it was declared."""


def declared_fields(folder: Path) -> ObjectType:
    """What was declared of the dataset in the folder; nothing when nothing was."""
    try:
        return fields_of(json.loads((folder / DECLARED).read_text()))
    except FileNotFoundError:
        return ObjectType()


def without_rounding(
    source: Source, known: ObjectType, current: TableVersion | None, declared: ObjectType
) -> Mapping[str, Column]:
    """The columns of the source: one keeps a type that is declared, and whole numbers that a double cannot hold.

    What does not fit is rejected by row then; inside of objects and lists it refuses the file.
    """
    columns = dict(source.columns)
    for name, type_ in known.fields.items():
        if name not in columns or current is None:
            continue
        for path, narrow in _widened(type_, columns[name].type, (name,)):
            is_declared = _at(declared, path) is narrow
            if not is_declared and not (narrow is Scalar.INTEGER and holds_large(current, path)):
                continue
            if len(path) > 1:
                why = "is declared so" if is_declared else "past 2^53 would be rounded beside fractions"
                raise refuse(f'"{".".join(path)}" holds {noun(narrow)} and the file more, but what it holds {why}')
            columns[name] = _narrow(name, source.texts[name], narrow)
    return columns


def _at(fields: Type, path: tuple[str, ...]) -> Type | None:
    found: Type | None = fields
    for step in path:
        match found:
            case ObjectType():
                found = found.fields.get(step)
            case ArrayType(inner) | MapType(inner):
                found = inner
            case _:
                return None
    return found


def _widened(old: Type, new: Type, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Scalar]]:
    match old, new:
        case Scalar(), Scalar() if (old, new) in WIDENINGS:
            yield path, old
        case ObjectType(), ObjectType():
            for name in old.fields.keys() & new.fields.keys():
                yield from _widened(old.fields[name], new.fields[name], (*path, name))
        case ArrayType(one), ArrayType(other):
            yield from _widened(one, other, (*path, "[]"))
        case MapType(one), MapType(other):
            yield from _widened(one, other, (*path, "{}"))


def holds_large(table: TableVersion, path: tuple[str, ...]) -> bool:
    """Whether a file has whole numbers there that a double does not hold, by its statistics."""
    leaf = leaf_name(path)
    for file in table.paths():
        metadata = pq.read_metadata(file)
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            for column in (group.column(number) for number in range(group.num_columns)):
                statistics = column.statistics
                if column.physical_type != "INT64" or _our_path(column.path_in_schema) != leaf:
                    continue
                if statistics is None or not statistics.has_min_max:
                    if statistics is None or statistics.null_count < group.num_rows:
                        return True
                elif max(abs(statistics.min), abs(statistics.max)) > _EXACT:
                    return True
    return False


def _our_path(stored: str) -> str:
    return ".".join(map(our_name, stored.split(".")))


def _narrow(name: str, text: str, type_: Scalar) -> Column:
    value = parsed(f"regexp_replace({text}, '[.]0+$', '')" if type_ is Scalar.INTEGER else text, type_)
    wrong = complaint(name, text, noun(type_))
    return Column(type_, value, f"CASE WHEN {text} IS NOT NULL AND ({value}) IS NULL THEN {wrong} END")
