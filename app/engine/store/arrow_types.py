"""Conversion between Arrow and PQL types; knows neither files nor expressions."""

import numpy as np
import pyarrow as pa

from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

_STORED = {
    Scalar.NUMBER: pa.float64(),
    Scalar.INTEGER: pa.int64(),
    Scalar.STRING: pa.string(),
    Scalar.BOOLEAN: pa.bool_(),
    Scalar.DATE: pa.date32(),
    Scalar.TIMESTAMP: pa.timestamp("us", tz="UTC"),
}


_MOST_DIGITS = 38
"""DuckDB reads decimals with more digits as doubles, which rounds them."""


_LISTS = frozenset(
    kind.id
    for kind in (
        pa.list_(pa.null()),
        pa.large_list(pa.null()),
        pa.list_(pa.null(), 1),
        pa.list_view(pa.null()),
        pa.large_list_view(pa.null()),
    )
)
_TEXTS = frozenset(
    kind.id for kind in (pa.null(), pa.string(), pa.large_string(), pa.string_view(), pa.time32("s"), pa.time64("us"))
)


def is_list(arrow: pa.DataType) -> bool:
    """Whether the values are lists, in any of Arrow's layouts."""
    return arrow.id in _LISTS


def _is_text(arrow: pa.DataType) -> bool:
    return arrow.id in _TEXTS or isinstance(arrow, pa.UuidType | pa.JsonType)


def pql_type(arrow: pa.DataType) -> Type:
    """The PQL type of a stored column: a dictionary has the type of its values, a decimal without fraction digits is an
    integer, and clock times, UUIDs and JSON documents are text.

    Raises `TypeError` for types without a counterpart (binary, durations, decimals with too many digits, …).

    >>> str(pql_type(pa.list_(pa.struct({"sku": pa.string(), "price": pa.decimal128(9, 2)}))))
    'array<object>'
    """
    types = pa.types
    if types.is_dictionary(arrow):
        return pql_type(arrow.value_type)
    if types.is_decimal(arrow) and arrow.precision > _MOST_DIGITS:
        raise TypeError(f"PQL has no type for {arrow}")
    if types.is_integer(arrow) or (types.is_decimal(arrow) and arrow.scale == 0):
        return Scalar.INTEGER
    if types.is_floating(arrow) or types.is_decimal(arrow):
        return Scalar.NUMBER
    if types.is_boolean(arrow):
        return Scalar.BOOLEAN
    if _is_text(arrow):
        return Scalar.STRING
    if types.is_date(arrow):
        return Scalar.DATE
    if types.is_timestamp(arrow):
        return Scalar.TIMESTAMP
    if types.is_map(arrow):
        return MapType(pql_type(arrow.item_type))
    if is_list(arrow):
        return ArrayType(pql_type(arrow.value_type))
    if types.is_struct(arrow):
        return ObjectType({field.name: pql_type(field.type) for field in arrow})
    raise TypeError(f"PQL has no type for {arrow}")


def arrow_type(type_: Type) -> pa.DataType:
    """The Arrow type that stores a PQL type.

    >>> arrow_type(MapType(Scalar.NUMBER))
    MapType(map<string, double>)
    """
    match type_:
        case ArrayType(element):
            return pa.list_(arrow_type(element))
        case MapType(value):
            return pa.map_(pa.string(), arrow_type(value))
        case ObjectType():
            return pa.struct([pa.field(name, arrow_type(inner)) for name, inner in type_.fields.items()])
        case Scalar():
            return _STORED[type_]


def object_type(schema: pa.Schema) -> ObjectType:
    """The fields of a table as PQL types."""
    return ObjectType({field.name: pql_type(field.type) for field in schema})


def with_type(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """The array cast to a type that differs in the layout of lists. Arrow's own cast of list views with nulls or
    objects fails."""
    types, stored = pa.types, array.type
    if stored == type_:
        return array
    if types.is_struct(stored):
        parts = [with_type(array.field(at), field.type) for at, field in enumerate(type_)]
        return pa.StructArray.from_arrays(parts, fields=list(type_), mask=array.is_null())
    if types.is_map(stored):
        items = with_type(array.items, type_.item_type)
        return pa.MapArray.from_arrays(array.offsets, array.keys, items, type_, mask=array.is_null())
    if is_list(stored):
        ends = np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
        offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
        values = with_type(array.flatten(), type_.value_type)
        return pa.ListArray.from_arrays(offsets, values, type_, mask=array.is_null())
    return array.cast(type_)
