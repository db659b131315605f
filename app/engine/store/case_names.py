"""Field names in files, which are case-insensitive: the only place that maps between them and ours; knows no rows.

JSON and PQL distinguish `email` from `Email`; DuckDB and Delta do not. In files the first name stays unchanged, and the
others get `~case1`, `~case2`, … A name that already ends in such a suffix gets one as well, so that all can be read
back.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, count

import pyarrow as pa

_MARK = re.compile("~case[0-9]+$")
_PLAIN = {"_id": "_id", "identitymap": "identityMap"}
"""Names used by our SQL: in a file, only an exactly equal name may use them."""

_Rename = Callable[[Sequence[pa.Field], Sequence[pa.Field]], list[pa.Field]]


def our_name(stored: str) -> str:
    """The field's name, given its name in a file.

    >>> our_name("Email~case1"), our_name("email")
    ('Email', 'email')
    """
    return _MARK.sub("", stored) if "~" in stored else stored


def file_names(names: Iterable[str]) -> dict[str, str]:
    """The names in a file of the fields of one object.

    >>> file_names(["email", "Email", "EMAIL", "_ID", "x~case1"])
    {'email': 'email', 'Email': 'Email~case1', 'EMAIL': 'EMAIL~case2', '_ID': '_ID~case1', 'x~case1': 'x~case1~case1'}
    """
    reserved: set[str] = set()
    return {name: _free(name, reserved) for name in names}


def _free(name: str, taken: set[str]) -> str:
    """Reserves a name that is not in use yet."""
    is_plain = _PLAIN.get(name.lower(), name) == name and not _MARK.search(name)
    marked = (f"{name}~case{number}" for number in count(1))
    free_name = next(
        candidate for candidate in chain([name] if is_plain else [], marked) if candidate.lower() not in taken
    )
    taken.add(free_name.lower())
    return free_name


def file_schema(schema: pa.Schema, known: pa.Schema | None = None) -> pa.Schema:
    """The columns with their names in files, at every depth; columns of `known`, a schema of files, keep their
    names."""
    return pa.schema(_file_fields(list(schema), [] if known is None else list(known)))


def our_schema(schema: pa.Schema) -> pa.Schema:
    """The columns of a file with our names."""
    return pa.schema([_ours(field) for field in schema])


def with_names(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The same values, with columns and fields, which have our names, named as in a schema of files."""
    return _with_fields(batch, _file_fields(list(batch.schema), list(schema)))


def with_stored_names(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Like `with_names`, of a batch that already has names of files, but perhaps other ones."""
    return _with_fields(batch, _file_fields([_ours(field) for field in batch.schema], list(schema)))


def _with_fields(batch: pa.RecordBatch, fields: Sequence[pa.Field]) -> pa.RecordBatch:
    """The same values under fields that differ only in their names."""
    if pa.schema(fields).equals(batch.schema):
        return batch
    columns = [
        column if column.type == field.type else column.view(field.type)
        for column, field in zip(batch.columns, fields, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=[field.name for field in fields])


def _ours(field: pa.Field) -> pa.Field:
    return pa.field(our_name(field.name), _mapped(field.type, None, lambda some, _: [_ours(inner) for inner in some]))


def _file_fields(fields: Sequence[pa.Field], known: Sequence[pa.Field]) -> list[pa.Field]:
    before = {our_name(field.name): field for field in known}
    reserved = {field.name.lower() for field in known}
    named = []
    for field in fields:
        there = before.get(field.name)
        name = _free(field.name, reserved) if there is None else there.name
        named.append(pa.field(name, _mapped(field.type, None if there is None else there.type, _file_fields)))
    return named


def _mapped(type_: pa.DataType, known: pa.DataType | None, rename: _Rename) -> pa.DataType:
    """The type with the fields of its objects renamed; `known` is the same value's type in existing files."""
    types = pa.types
    if types.is_struct(type_):
        return pa.struct(rename(list(type_), list(known) if known is not None and types.is_struct(known) else []))
    if types.is_map(type_):
        item = known.item_type if known is not None and types.is_map(known) else None
        return pa.map_(type_.key_type, _mapped(type_.item_type, item, rename))
    if types.is_list(type_):
        element = known.value_type if known is not None and types.is_list(known) else None
        return pa.list_(_mapped(type_.value_type, element, rename))
    return type_
