"""Parquet as a source of rows; knows no datasets."""

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.arrow_types import pql_type
from app.engine.fields import MAPS, noun, sql_type, widen
from app.engine.lake import name_literal, text_literal
from app.engine.reading.columns import Column, Source, complaint, refuse
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type


def read(
    database: duckdb.DuckDBPyConnection, file: Path, scratch: Path, known: ObjectType, as_text: frozenset[str]
) -> Source:
    schema = _schema(file)
    columns = {}
    for field in schema:
        if pa.types.is_null(field.type):
            continue
        found = _type(field)
        name = name_literal(field.name)
        if found is None:
            continue
        if field.name in as_text:
            if not isinstance(found, Scalar):
                raise refuse(f'the column "{field.name}" must hold text, but holds {found}')
            columns[field.name] = Column(Scalar.STRING, f"CAST({name} AS VARCHAR)")
            continue
        target = _as_map(found, (field.name,))
        if field.name in known.fields:
            target = widen(ObjectType({"": known.fields[field.name]}), ObjectType({"": target})).fields[""]
        columns[field.name] = _column(field.name, found, target)
    return Source(
        relation=f"(SELECT file_row_number + 1 AS __row, * EXCLUDE (file_row_number)"
        f" FROM read_parquet({text_literal(str(file))}, file_row_number = true))",
        names=tuple(schema.names),
        columns=columns,
        texts={field.name: f"CAST({name_literal(field.name)} AS VARCHAR)" for field in schema},
    )


def _schema(file: Path) -> pa.Schema:
    with file.open("rb") as raw:
        if raw.read(4) != b"PAR1":
            raise refuse("the file is not Parquet: it does not begin with PAR1")
    try:
        schema = pq.read_schema(file)
        rows = pq.read_metadata(file).num_rows
    except (pa.ArrowException, OSError, ValueError):
        raise refuse("the file begins like Parquet but cannot be read: it is damaged or cut off") from None
    if rows == 0:
        raise refuse("the file has no rows")
    twice = next((name for name in schema.names if schema.names.count(name) > 1), None)
    if twice is not None:
        raise refuse(f'the file has the column "{twice}" twice')
    return schema


def _type(field: pa.Field) -> Type | None:
    try:
        return _without_empty(pql_type(field.type))
    except TypeError:
        raise refuse(f'the column "{field.name}" is of type {field.type}, which has no counterpart in PQL') from None


def _without_empty(type_: Type) -> Type | None:
    """Objects without fields can hold nothing."""
    match type_:
        case ObjectType():
            fields = {name: inner for name, t in type_.fields.items() if (inner := _without_empty(t)) is not None}
            return ObjectType(fields) if fields else None
        case ArrayType(element):
            inner = _without_empty(element)
            return None if inner is None else ArrayType(inner)
        case MapType(value):
            inner = _without_empty(value)
            return None if inner is None else MapType(inner)
        case _:
            return type_


def _as_map(type_: Type, path: tuple[str, ...]) -> Type:
    """The type with the objects at the known paths of maps made maps."""
    if not isinstance(type_, ObjectType):
        return type_
    if path in MAPS:
        return _map_of(type_, MAPS[path])
    return ObjectType({name: _as_map(inner, (*path, name)) for name, inner in type_.fields.items()})


def _map_of(type_: Type, target: Type) -> Type:
    """The target map, widened by what the object's fields hold besides."""
    if isinstance(target, MapType) and isinstance(type_, ObjectType):
        value = target.value
        for inner in type_.fields.values():
            value = widen(ObjectType({"": value}), ObjectType({"": _map_of(inner, target.value)})).fields[""]
        return MapType(value)
    return type_


def _column(name: str, found: Type, target: Type) -> Column:
    raw = name_literal(name)
    value = converted(raw, found, target)
    if value is None:
        text = f"CAST({raw} AS VARCHAR)"
        attempt = f"try_cast({raw} AS {sql_type(target)})" if _castable(found, target) else "NULL"
        wrong = f"CASE WHEN {raw} IS NOT NULL AND {attempt} IS NULL THEN {complaint(name, text, noun(target))} END"
        return Column(target, attempt, wrong)
    return Column(target, value)


def _castable(found: Type, target: Type) -> bool:
    return isinstance(found, Scalar) and isinstance(target, Scalar) and Scalar.BOOLEAN not in (found, target)


def converted(value: str, found: Type, target: Type, depth: int = 0) -> str | None:
    """SQL that makes the value (an SQL expression) one of the target type, None when the types contradict.

    Fields are matched by name; those that are missing become NULL.
    """
    item = f"x{depth}"
    match found, target:
        case Scalar(), Scalar():
            if found is target:
                return f"CAST({value} AS {sql_type(target)})"
            return f"CAST({value} AS VARCHAR)" if target is Scalar.STRING else None
        case ArrayType(one), ArrayType(other):
            inner = converted(item, one, other, depth + 1)
            return None if inner is None else f"list_transform({value}, lambda {item}: {inner})"
        case ObjectType(), ObjectType():
            return _object(value, found, target, depth)
        case MapType(one), MapType(other):
            inner = converted(f"{item}.value", one, other, depth + 1)
            entry = f"struct_pack(k := CAST({item}.key AS VARCHAR), v := {inner})"
            return (
                None
                if inner is None
                else _entries(value, f"list_transform(map_entries({value}), lambda {item}: {entry})")
            )
        case ObjectType(), MapType(other):
            entries = []
            for name, one in found.fields.items():
                inner = converted(f"{value}.{name_literal(name)}", one, other, depth)
                if inner is None:
                    return None
                entries.append(f"struct_pack(k := {text_literal(name)}, v := {inner})")
            return _entries(value, f"list_filter([{', '.join(entries)}], lambda {item}: {item}.v IS NOT NULL)")
        case _:
            return None


def _entries(value: str, entries: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN map_from_entries({entries}) END"


def _object(value: str, found: ObjectType, target: ObjectType, depth: int) -> str | None:
    parts = []
    for name, other in target.fields.items():
        if name in found.fields:
            inner = converted(f"{value}.{name_literal(name)}", found.fields[name], other, depth)
            if inner is None:
                return None
        else:
            inner = f"CAST(NULL AS {sql_type(other)})"
        parts.append(f"{name_literal(name)} := {inner}")
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(parts)}) END"
