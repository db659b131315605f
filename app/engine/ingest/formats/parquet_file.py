"""Parquet as a source of rows; knows no datasets."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from app.engine.ingest.formats.columns import (
    MOST_FIELDS,
    MOST_LEVELS,
    MOST_LISTS,
    Column,
    KnownTypes,
    Source,
    check_names,
    complaint,
    is_index,
    refuse,
)
from app.engine.ingest.formats.parquet_faults import stored_faults
from app.engine.store.arrow_types import is_list, pql_type, with_type
from app.engine.store.case_names import file_names, file_schema, with_names
from app.engine.store.field_types import MAPS, WIDENINGS, parsed, sql_type, widen, within_years
from app.engine.store.lake import name_literal, text_literal
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_TIMES = (Scalar.DATE, Scalar.TIMESTAMP)
_SAFE_DIGITS = 15
"""A double represents every decimal with this many digits."""
_ROW_NUMBER = "file_row_number"
"""The column that DuckDB adds: one of the file with this name gets another name."""


def read(
    database: duckdb.DuckDBPyConnection, file: Path, scratch: Path, known: KnownTypes, as_text: frozenset[str]
) -> Source:
    schema = _schema(file)
    file = _with_names(file, schema, scratch / "renamed.parquet")
    names = file_names([_ROW_NUMBER, *schema.names])
    columns = {}
    for field in schema:
        if pa.types.is_null(field.type) or is_index(field.name):
            continue
        found = _type(field)
        name = name_literal(names[field.name])
        if found is None:
            continue
        if field.name in as_text:
            if not isinstance(found, Scalar):
                raise refuse(f'the column "{field.name}" must hold text, but holds {found}')
            columns[field.name] = _text(field.name, name)
            continue
        target = known.widened(field.name, _as_map(found, (field.name,), known.fields.fields.get(field.name)))
        columns[field.name] = _column(field.name, name, field.type, found, target)

    def rows(some: Iterable[str]) -> str:
        selected = "".join(f", {name_literal(names[name])}" for name in dict.fromkeys(some))
        source = f"read_parquet({text_literal(str(file))}, {_ROW_NUMBER} = true)"
        return f"(SELECT {_ROW_NUMBER} + 1 AS __row{selected} FROM {source})"

    return Source(
        rows=rows,
        names=tuple(name for name in schema.names if not is_index(name)),
        columns=columns,
        texts={name: f"CAST({name_literal(names[name])} AS VARCHAR)" for name in schema.names},
        is_quick=True,
    )


def _with_names(file: Path, schema: pa.Schema, target: Path) -> Path:
    """The file itself, or a copy in which no two names of an object differ only in case, nor one from the row
    number's."""
    stored = pa.schema(list(file_schema(pa.schema([pa.field(_ROW_NUMBER, pa.int64()), *schema])))[1:])
    if stored.equals(schema):
        return file
    try:
        with pq.ParquetWriter(target, stored, compression="zstd") as writer:
            for batch in pq.ParquetFile(file).iter_batches():
                columns = [with_type(column, field.type) for column, field in zip(batch.columns, schema, strict=True)]
                writer.write_batch(with_names(pa.RecordBatch.from_arrays(columns, schema=schema), stored))
    except (pa.ArrowException, OSError, ValueError):
        raise refuse("the file begins like Parquet but cannot be read: it is damaged or cut off") from None
    return target


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
    for field in schema:
        _refuse_deep(field.name, field.type)
    check_names(schema.names)
    _refuse_names("the file", "column", schema.names)
    for field in schema:
        for names in _names_inside(field.type):
            _refuse_names(f'the column "{field.name}"', "field", names)
    return pa.schema([field.with_type(_plain(field.type)) for field in schema])


def _refuse_names(owner: str, kind: str, names: Sequence[str]) -> None:
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise refuse(f'{owner} has the {kind} "{twice}" twice')
    if not all(names):
        raise refuse(f"{owner} has a {kind} without a name")
    odd = next((name for name in names if "\0" in name), None)
    if odd is not None:
        raise refuse(f"the name of the {kind} {odd!r} has a zero byte")


def _names_inside(type_: pa.DataType) -> Iterator[list[str]]:
    """The names in each of the objects of a value."""
    if pa.types.is_struct(type_):
        yield [field.name for field in type_]
    if pa.types.is_nested(type_):
        for place in range(type_.num_fields):
            yield from _names_inside(type_.field(place).type)


def _plain(type_: pa.DataType) -> pa.DataType:
    """The type with all lists in one layout."""
    if is_list(type_):
        return pa.list_(_plain(type_.value_type))
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(_plain(field.type)) for field in type_])
    if pa.types.is_map(type_):
        return pa.map_(type_.key_type, _plain(type_.item_type))
    return type_


def _type(field: pa.Field) -> Type | None:
    valued = _without_nulls(field.type)
    try:
        return None if valued is None else _without_empty(pql_type(valued))
    except TypeError:
        raise refuse(f'the column "{field.name}" is of type {field.type}, which has no counterpart in PQL') from None


def _without_nulls(type_: pa.DataType) -> pa.DataType | None:
    """The type without object fields that contain only nulls."""
    if pa.types.is_null(type_):
        return None
    if pa.types.is_struct(type_):
        fields = [(field.name, valued) for field in type_ if (valued := _without_nulls(field.type)) is not None]
        return pa.struct(fields)
    if pa.types.is_list(type_):
        element = _without_nulls(type_.value_type)
        return None if element is None else pa.list_(element)
    return type_


def _without_empty(type_: Type) -> Type | None:
    """Objects without fields cannot hold anything."""
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


def _as_map(type_: Type, path: tuple[str, ...], known: Type | None) -> Type:
    """The type with objects converted to maps if they are at known map paths, or have too many fields of one type, in
    this file and before."""
    if isinstance(type_, ArrayType):
        element = known.element if isinstance(known, ArrayType) else None
        return ArrayType(_as_map(type_.element, (*path, "[]"), element))
    if not isinstance(type_, ObjectType):
        return type_
    if path in MAPS:
        return _map_of(type_, MAPS[path])
    before = known.fields if isinstance(known, ObjectType) else {}
    if len(type_.fields.keys() | before.keys()) > MOST_FIELDS and not isinstance(known, MapType):
        value = _one_type([*before.values(), *type_.fields.values()])
        if value is not None:
            return MapType(value)
    return ObjectType({name: _as_map(inner, (*path, name), before.get(name)) for name, inner in type_.fields.items()})


def _one_type(types: Sequence[Type]) -> Type | None:
    """The common type of the values of all types."""
    kinds = set(types)
    if kinds == {Scalar.INTEGER, Scalar.NUMBER}:
        return Scalar.NUMBER
    return types[0] if len(kinds) == 1 else None


def _map_of(type_: Type, target: Type) -> Type:
    """The target map, widened by the object's fields."""
    if isinstance(target, MapType) and isinstance(type_, ObjectType):
        value = target.value
        for inner in type_.fields.values():
            value = widen(ObjectType({"": value}), ObjectType({"": _map_of(inner, target.value)})).fields[""]
        return MapType(value)
    return type_


def _text(name: str, raw: str) -> Column:
    return Column(Scalar.STRING, f"CAST({raw} AS VARCHAR)", f"CASE {_zero_byte(name, raw)} END")


def _zero_byte(name: str, raw: str) -> str:
    """SQL that tests whether a text in the value contains a zero byte, at any depth."""
    return f"WHEN contains(CAST({raw} AS VARCHAR), chr(0)) THEN {_has_zero_byte(name)}"


def _has_zero_byte(name: str) -> str:
    return text_literal(f"{name}: a text has a zero byte")


def _column(name: str, raw: str, stored: pa.DataType, found: Type, target: Type) -> Column:
    if found is target is Scalar.STRING:
        return _text(name, raw)
    faults = stored_faults(raw, stored, target)
    if faults is not None:
        value, misfit = raw, faults.misfit
        zero_byte = [f"WHEN {faults.zero_byte} THEN {_has_zero_byte(name)}"] if faults.zero_byte else []
    else:
        value, exact = _converted(raw, stored, found, target, 0)
        value = value if exact else f"TRY({value})"
        misfit = None if exact else f"{raw} IS NOT NULL AND {value} IS NULL"
        zero_byte = [] if isinstance(found, Scalar) else [_zero_byte(name, raw)]
    wrong = [] if misfit is None else [f"WHEN {misfit} THEN {_misfit(name, raw, stored, found, target)}"]
    cases = " ".join([*zero_byte, *wrong])
    return Column(target, value, f"CASE {cases} END" if cases else None)


def _misfit(name: str, raw: str, stored: pa.DataType, found: Type, target: Type) -> str:
    """SQL for the message that a value does not fit its type."""
    text = f"CAST({raw} AS VARCHAR)"
    if type(found) is not type(target) or isinstance(target, Scalar):
        return complaint(name, text, target)
    misfit = "a value inside does not fit the type of its field"
    misfit += ", or a map has a key twice" if _has_map(stored) else ""
    return f"{text_literal(f'{name}: {misfit}: {chr(34)}')} || left({text}, 100) || {text_literal(chr(34))}"


def _has_map(stored: pa.DataType) -> bool:
    if pa.types.is_map(stored):
        return True
    return pa.types.is_nested(stored) and any(_has_map(stored.field(at).type) for at in range(stored.num_fields))


def _converted(value: str, stored: pa.DataType, found: Type, target: Type, depth: int) -> tuple[str, bool]:
    """SQL that converts the value (an SQL expression) to the target type, and whether the conversion always succeeds.

    If it cannot convert a value, it fails. Fields are matched by name; missing ones become NULL.
    """
    item = f"__item{depth}"  # no column has such a name, which would hide it
    match found, target:
        case Scalar(), Scalar():
            return _scalar(value, stored, found, target)
        case ArrayType(one), ArrayType(other):
            inner, exact = _converted(item, stored.value_type, one, other, depth + 1)
            return f"list_transform({value}, lambda {item}: {inner})", exact
        case ObjectType(), ObjectType():
            return _object(value, stored, found, target, depth)
        case MapType(one), MapType(other):
            # Parquet allows duplicate keys in a map, for which this fails.
            inner, _ = _converted(f"{item}.value", stored.item_type, one, other, depth + 1)
            entry = f"struct_pack(k := CAST({item}.key AS VARCHAR), v := {inner})"
            return _map(value, f"list_transform(map_entries({value}), lambda {item}: {entry})"), False
        case ObjectType(), MapType(other):
            names = _names(stored)
            parts = {
                name: _converted(f"{value}.{name_literal(names[name])}", stored.field(name).type, one, other, depth)
                for name, one in found.fields.items()
            }
            entries = ", ".join(
                f"struct_pack(k := {text_literal(name)}, v := {part})" for name, (part, _) in parts.items()
            )
            exact = all(exact for _, exact in parts.values())
            return _map(value, f"list_filter([{entries}], lambda {item}: {item}.v IS NOT NULL)"), exact
        case _:
            return _failing(value, f"CAST(NULL AS {sql_type(target)})"), False


def _scalar(value: str, stored: pa.DataType, found: Scalar, target: Scalar) -> tuple[str, bool]:
    if target in (Scalar.INTEGER, Scalar.NUMBER) and found in (Scalar.INTEGER, Scalar.NUMBER):
        return _number(value, stored, target)
    if pa.types.is_timestamp(stored) and stored.unit == "ns" and target is Scalar.TIMESTAMP:
        # Truncated, unlike in DuckDB: rounding up could yield the next day.
        nanoseconds = f"epoch_ns({value})"
        micros = f"({nanoseconds} - (({nanoseconds} % 1000) + 1000) % 1000) // 1000"
        return f"make_timestamptz({micros})", True
    if target in _TIMES and found in _TIMES:
        time = within_years(f"CAST({value} AS {sql_type(target)})", target)
        if (found, target) == (Scalar.TIMESTAMP, Scalar.DATE):
            # A timestamp is a date only at midnight.
            time = f"CASE WHEN CAST({value} AS DATE) = {value} THEN {time} END"
        return _failing(value, time), False
    if target in (found, Scalar.STRING) or (found, target) in WIDENINGS:
        return f"CAST({value} AS {sql_type(target)})", True
    return _failing(
        value, parsed(value, target) if found is Scalar.STRING else f"CAST(NULL AS {sql_type(target)})"
    ), False


def _number(value: str, stored: pa.DataType, target: Scalar) -> tuple[str, bool]:
    """Numbers are never rounded: the conversion fails for fractions if the target is an integer, for more digits than
    64 bits or a double hold, and for non-finite numbers."""
    types = pa.types
    number = f"CAST({value} AS {sql_type(target)})"
    if types.is_float32(stored) or types.is_float16(stored):
        # As printed, not with all the digits of the double.
        number = f"CAST(CAST({value} AS VARCHAR) AS {sql_type(target)})"
    if target is Scalar.INTEGER:
        if types.is_integer(stored) and stored != pa.uint64():
            return number, True
        whole = f"TRY_CAST({value} AS BIGINT)"
        return _failing(value, f"CASE WHEN {whole} = {value} THEN {whole} END"), False
    if types.is_floating(stored):
        return _failing(value, f"CASE WHEN isfinite({value}) THEN {number} END"), False
    if types.is_integer(stored) and stored.bit_width < 64:
        return number, True
    if types.is_decimal(stored):
        # Through its text: a direct cast uses more digits of a double than are printed.
        text = f"CAST({value} AS VARCHAR)"
        return (number, True) if stored.precision <= _SAFE_DIGITS else (_failing(value, parsed(text, target)), False)
    back = f"TRY_CAST({number} AS HUGEINT)"
    return _failing(value, f"CASE WHEN {back} = {value} THEN {number} END"), False


def _failing(value: str, attempt: str) -> str:
    """The attempt, which must return a value if there is one."""
    # A cast that always fails: TRY does not accept error(), which is volatile in DuckDB.
    never = f"CAST('!' || CAST({value} AS VARCHAR) AS BOOLEAN)"
    lost = f"({value}) IS NOT NULL AND ({attempt}) IS NULL"
    return f"CASE WHEN {lost} THEN CASE WHEN {never} THEN {attempt} END ELSE {attempt} END"


def _map(value: str, entries: str) -> str:
    return f"CASE WHEN {value} IS NOT NULL THEN map_from_entries({entries}) END"


def _object(value: str, stored: pa.DataType, found: ObjectType, target: ObjectType, depth: int) -> tuple[str, bool]:
    parts, exact = [], True
    names, called = _names(stored), file_names(target.fields)
    for name, other in target.fields.items():
        inner = f"CAST(NULL AS {sql_type(other)})"
        if name in found.fields:
            inner, fits = _converted(
                f"{value}.{name_literal(names[name])}", stored.field(name).type, found.fields[name], other, depth
            )
            exact = exact and fits
        parts.append(f"{name_literal(called[name])} := {inner}")
    return f"CASE WHEN {value} IS NOT NULL THEN struct_pack({', '.join(parts)}) END", exact


def _names(stored: pa.DataType) -> dict[str, str]:
    """The names of objects' fields as DuckDB reads them."""
    return file_names(field.name for field in stored)


def _refuse_deep(name: str, type_: pa.DataType, levels: int = 0, lists: int = 0) -> None:
    """Checked before reading values, whose memory doubles with each enclosing list."""
    if levels > MOST_LEVELS or lists > MOST_LISTS:
        raise refuse(
            f'the values of the column "{name}" are nested too deep: at most {MOST_LEVELS} levels can be loaded, '
            f"and {MOST_LISTS} lists inside one another"
        )
    if pa.types.is_map(type_):
        _refuse_deep(name, type_.item_type, levels + 1, lists)
    elif pa.types.is_nested(type_):
        is_list = not pa.types.is_struct(type_)
        for place in range(type_.num_fields):
            _refuse_deep(name, type_.field(place).type, levels + 1, lists + is_list)
