"""Columns that a batch would widen, where that would alter values that the dataset has already; knows no formats."""

from collections.abc import Iterator, Mapping

import pyarrow.parquet as pq

from app.engine.ingest.formats.columns import Column, Source, complaint, refuse
from app.engine.store.delta import TableVersion
from app.engine.store.field_types import noun, parsed
from app.engine.store.parquet_columns import leaf_name
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_EXACT = 1 << 53


def without_rounding(source: Source, known: ObjectType, current: TableVersion | None) -> Mapping[str, Column]:
    """The columns of the source: one of whole numbers stays so when a double cannot hold what is stored of it.

    Its fractions are rejected by row then; inside of objects and lists they refuse the file.
    """
    columns = dict(source.columns)
    for name, type_ in known.fields.items():
        if name not in columns or current is None:
            continue
        for path in _widened(type_, columns[name].type, (name,)):
            if not _holds_large(current, path):
                continue
            if len(path) > 1:
                raise refuse(
                    f'"{".".join(path)}" holds whole numbers past 2^53, which would be rounded beside the fractions of'
                    " this file: give the fractions a field of their own"
                )
            columns[name] = _whole(name, source.texts[name])
    return columns


def _widened(old: Type, new: Type, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    match old, new:
        case Scalar.INTEGER, Scalar.NUMBER:
            yield path
        case ObjectType(), ObjectType():
            for name in old.fields.keys() & new.fields.keys():
                yield from _widened(old.fields[name], new.fields[name], (*path, name))
        case ArrayType(one), ArrayType(other):
            yield from _widened(one, other, (*path, "[]"))
        case MapType(one), MapType(other):
            yield from _widened(one, other, (*path, "{}"))


def _holds_large(table: TableVersion, path: tuple[str, ...]) -> bool:
    """Whether a file has whole numbers there that a double does not hold, by its statistics."""
    leaf = leaf_name(path)
    for file in table.paths():
        metadata = pq.read_metadata(file)
        for group in (metadata.row_group(number) for number in range(metadata.num_row_groups)):
            for column in (group.column(number) for number in range(group.num_columns)):
                statistics = column.statistics
                if column.path_in_schema != leaf or column.physical_type != "INT64":
                    continue
                if statistics is None or not statistics.has_min_max:
                    if statistics is None or statistics.null_count < group.num_rows:
                        return True
                elif max(abs(statistics.min), abs(statistics.max)) > _EXACT:
                    return True
    return False


def _whole(name: str, text: str) -> Column:
    value = parsed(f"regexp_replace({text}, '[.]0+$', '')", Scalar.INTEGER)
    wrong = complaint(name, text, noun(Scalar.INTEGER))
    return Column(Scalar.INTEGER, value, f"CASE WHEN {text} IS NOT NULL AND ({value}) IS NULL THEN {wrong} END")
