"""Reads only the requested leaf columns, converted to one common form; knows Parquet and types, no people."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from app.engine.store.arrow_types import arrow_type, pql_type
from app.engine.store.bucket import Path
from app.engine.store.case_names import our_name
from app.engine.store.checksums import FileLost
from app.engine.store.field_types import WIDENINGS
from app.errors import LakeAway
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

TEXT = pa.dictionary(pa.int32(), pa.string())
"""Text outside maps is returned as dictionary codes: files store it so, and tests on text only need the dictionary."""


def prune(fields: ObjectType, paths: Iterable[Path]) -> ObjectType:
    """Keeps only what the paths name. A path continues through arrays into their elements; a path that ends early
    includes everything below.

    >>> person = ObjectType({"name": Scalar.STRING, "age": Scalar.NUMBER})
    >>> dict(prune(ObjectType({"people": ArrayType(person)}), [("people", "age")]).fields["people"].element.fields)
    {'age': <Scalar.NUMBER: 'number'>}
    """
    below: dict[str, list[Path]] = {}
    for path in paths:
        if path and path[0] in fields.fields:
            below.setdefault(path[0], []).append(path[1:])
    # In the order of the fields, independently of the order of the paths, so that files and reads are deterministic.
    return ObjectType({name: _pruned(type_, below[name]) for name, type_ in fields.fields.items() if name in below})


def _pruned(type_: Type, rests: list[Path]) -> Type:
    if () in rests:
        return type_
    match type_:
        case ObjectType():
            return prune(type_, rests)
        case ArrayType(element):
            return ArrayType(_pruned(element, rests))
        case _:
            return type_


def read_columns(
    file: pq.ParquetFile, wanted: ObjectType, plain: Sequence[str] = (), groups: Sequence[int] | None = None
) -> pa.Table:
    """The requested fields that the file has, converted by `shape`, after the `plain` columns as stored.

    Raises `FileLost`.
    """
    schema = file.schema_arrow
    there = frozenset(schema.names)
    names = [name for name in plain if name in there]
    stored = _stored_names(schema, wanted)
    paths = list(names)
    for name, column in stored.items():
        paths += [path for path, _ in _leaf_columns(schema.field(column).type, wanted.fields[name], column)]
    row_groups = range(file.num_row_groups) if groups is None else groups
    # One row group at a time: Arrow cannot combine nested dictionaries of several.
    try:
        parts = [file.read_row_group(group, columns=paths) for group in row_groups]
    except LakeAway:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FileLost from error
    table = pa.concat_tables(parts) if parts else schema.empty_table().select([*names, *stored.values()])
    columns = {name: _one_chunk(table[name]) for name in names}
    columns_read = frozenset(table.schema.names)
    for name, column in stored.items():
        if column in columns_read:
            columns[name] = shape(_one_chunk(table[column]), wanted.fields[name])
    return pa.table(columns) if columns else table.select([])


def groups_with(file: pq.ParquetFile, numbers: NDArray[Any], column: str) -> list[int]:
    """The row groups that may contain one of the (ascending) numbers in a column, by its statistics."""
    return [group for group in range(file.num_row_groups) if _may_have(file.metadata.row_group(group), numbers, column)]


def _may_have(group: Any, numbers: NDArray[Any], column: str) -> bool:
    chunk = next(c for c in map(group.column, range(group.num_columns)) if c.path_in_schema == column)
    statistics = chunk.statistics
    if statistics is None or not statistics.has_min_max:
        return True
    start, end = np.searchsorted(numbers, [statistics.min, statistics.max + 1])
    return bool(end > start)


def open_file(path: FilePath, wanted: ObjectType) -> pq.ParquetFile:
    """The file, opened so that text is read as dictionaries. Raises `FileLost` and `FileNotFoundError`."""
    try:
        schema = pq.read_schema(path)
    except FileNotFoundError:  # Readers of an old version know what it means.
        raise
    except LakeAway:
        raise
    except (OSError, pa.ArrowException) as error:
        raise FileLost(path) from error
    texts = [
        leaf
        for name, column in _stored_names(schema, wanted).items()
        for leaf, text in _leaf_columns(schema.field(column).type, wanted.fields[name], column)
        if text
    ]
    return pq.ParquetFile(path, read_dictionary=texts)


def _stored_names(schema: pa.Schema, wanted: ObjectType) -> dict[str, str]:
    """The file's names of the requested fields that it has."""
    there = {our_name(name): name for name in schema.names}
    return {name: there[name] for name in wanted.fields if name in there}


def _leaf_columns(stored: pa.DataType, wanted: Type, path: str) -> Iterator[tuple[str, bool]]:
    """The file's names of the requested leaves below a field, and whether they are text outside maps.

    Places whose type differs from the requested one are left out.
    """
    match wanted:
        case ObjectType() if pa.types.is_struct(stored):
            there = {our_name(field.name): field for field in stored}
            present = [name for name in wanted.fields if name in there]
            for name in present:
                field = there[name]
                yield from _leaf_columns(field.type, wanted.fields[name], f"{path}.{field.name}")
            if not present:
                # Any leaf shows whether the object is present.
                yield from _any_leaf(stored, path)
        case ArrayType(element) if pa.types.is_list(stored):
            yield from _leaf_columns(stored.value_type, element, f"{path}.list.{_LIST_ITEM}")
        case MapType() if pa.types.is_map(stored) or pa.types.is_struct(stored):
            yield from ((leaf, False) for leaf, _ in _all_leaves(stored, path))
        case Scalar() if not pa.types.is_nested(stored):
            yield path, pa.types.is_string(stored)


_LIST_ITEM = "element"


def leaf_name(path: Path) -> str:
    """The file's name of a leaf column, with parts as in `our_name`; paths use `[]` for lists and `{}` for maps.

    >>> leaf_name(("orders", "[]", "price"))
    'orders.list.element.price'
    """
    steps = {"[]": f"list.{_LIST_ITEM}", "{}": "key_value.value"}
    return ".".join(steps.get(step, step) for step in path)


def leaves(schema: pa.Schema) -> list[str]:
    """The names of all leaf columns of a file with this schema.

    >>> leaves(pa.schema({"orders": pa.list_(pa.struct({"price": pa.float64()})), "name": pa.string()}))
    ['orders.list.element.price', 'name']
    """
    return [leaf for field in schema for leaf, _ in _all_leaves(field.type, field.name)]


def _all_leaves(stored: pa.DataType, path: str) -> Iterator[tuple[str, bool]]:
    if pa.types.is_struct(stored):
        for field in stored:
            yield from _all_leaves(field.type, f"{path}.{field.name}")
    elif pa.types.is_map(stored):
        yield from _all_leaves(stored.key_type, f"{path}.key_value.key")
        yield from _all_leaves(stored.item_type, f"{path}.key_value.value")
    elif pa.types.is_list(stored):
        yield from _all_leaves(stored.value_type, f"{path}.list.{_LIST_ITEM}")
    else:
        yield path, pa.types.is_string(stored)


def _any_leaf(stored: pa.DataType, path: str) -> Iterator[tuple[str, bool]]:
    for leaf, _ in _all_leaves(stored, path):
        yield leaf, False
        return


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return pa.concat_arrays(combined.chunks) if combined.num_chunks else pa.nulls(0, column.type)
    return combined


def stored_type(type_: Type, in_map: bool = False) -> pa.DataType:
    """The type in which readers receive a column: as stored, but with text as dictionaries outside maps."""
    match type_:
        case Scalar.STRING if not in_map:
            return TEXT
        case ArrayType(element):
            return pa.list_(stored_type(element, in_map))
        case ObjectType():
            return pa.struct([pa.field(name, stored_type(inner, in_map)) for name, inner in type_.fields.items()])
        case _:
            return arrow_type(type_)


def plain_type(arrow: pa.DataType) -> pa.DataType:
    """The type with dictionaries replaced by their value types."""
    if pa.types.is_dictionary(arrow):
        return arrow.value_type
    if pa.types.is_struct(arrow):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in arrow])
    if pa.types.is_list(arrow):
        return pa.list_(plain_type(arrow.value_type))
    return arrow


def shape(array: pa.Array, type_: Type, in_map: bool = False) -> pa.Array:
    """The array with exactly the fields of the type, in order; missing or conflicting ones are null."""
    target = stored_type(type_, in_map)
    if array.type == target:
        return array
    if isinstance(type_, MapType) and pa.types.is_struct(array.type):
        array = _entries_of(array)
    if pa.types.is_null(array.type) or not _same_kind(array.type, type_):
        return pa.nulls(len(array), target)
    match type_:
        case ObjectType():
            there = {our_name(field.name): position for position, field in enumerate(array.type)}
            parts = array.flatten()
            children = [
                shape(parts[there[name]], inner, in_map)
                if name in there
                else pa.nulls(len(array), stored_type(inner, in_map))
                for name, inner in type_.fields.items()
            ]
            return pa.StructArray.from_arrays(children, fields=list(target), mask=pc.is_null(array))
        case ArrayType(element):
            array = _from_zero(array)
            values = shape(array.values, element, in_map)
            return pa.ListArray.from_arrays(array.offsets, values, type=target, mask=pc.is_null(array))
        case MapType(value):
            array = _from_zero(array)
            items = shape(array.items, value, True)
            keys = array.keys.cast(pa.string())
            return pa.MapArray.from_arrays(array.offsets, keys, items, type=target, mask=pc.is_null(array))
        case _:
            return array.dictionary_encode() if target is TEXT else array.cast(target, safe=False)


def _entries_of(structs: pa.StructArray) -> pa.Array:
    """Objects stored before their column became a map: the fields with values are the entries."""
    names = [our_name(field.name) for field in structs.type]
    columns = structs.flatten()
    widest = next((column.type for column in columns if pa.types.is_floating(column.type)), None)
    columns = [column if widest is None else column.cast(widest, safe=False) for column in columns]
    if not columns or any(column.type != columns[0].type for column in columns):
        return pa.nulls(len(structs))
    rows = np.concatenate([np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False)) for column in columns])
    keys = np.repeat(np.arange(len(columns)), [len(column) - column.null_count for column in columns])
    order = np.argsort(rows, kind="stable")
    values = pa.concat_arrays([column.drop_null() for column in columns]).take(pa.array(order))
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(structs)))])
    labels = pa.array(names).take(pa.array(keys[order]))
    return pa.MapArray.from_arrays(pa.array(offsets, pa.int32()), labels, values, mask=pc.is_null(structs))


def _from_zero(array: pa.Array) -> pa.Array:
    """Copies a sliced array, since offsets must start at the first value."""
    return array.take(pa.array(range(len(array)))) if array.offset else array


def _same_kind(stored: pa.DataType, type_: Type) -> bool:
    try:
        stored_type = pql_type(stored)
    except TypeError:
        return False
    if isinstance(type_, Scalar):
        return stored_type is type_ or (stored_type, type_) in WIDENINGS
    return type(stored_type) is type(type_)
