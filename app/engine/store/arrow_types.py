"""Between Arrow's types and PQL's; knows neither files nor expressions."""

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


def pql_type(arrow: pa.DataType) -> Type:
    """The PQL type of a stored column: a dictionary is what it encodes, a decimal without places is an integer.

    Raises `TypeError` for what has no counterpart (binary, durations, …).

    >>> str(pql_type(pa.list_(pa.struct({"sku": pa.string(), "price": pa.decimal128(9, 2)}))))
    'array<object>'
    """
    types = pa.types
    if types.is_dictionary(arrow):
        return pql_type(arrow.value_type)
    if types.is_integer(arrow) or (types.is_decimal(arrow) and arrow.scale == 0):
        return Scalar.INTEGER
    if types.is_floating(arrow) or types.is_decimal(arrow):
        return Scalar.NUMBER
    if types.is_boolean(arrow):
        return Scalar.BOOLEAN
    if types.is_string(arrow) or types.is_large_string(arrow) or types.is_string_view(arrow) or types.is_null(arrow):
        return Scalar.STRING
    if types.is_date(arrow):
        return Scalar.DATE
    if types.is_timestamp(arrow):
        return Scalar.TIMESTAMP
    if types.is_map(arrow):
        return MapType(pql_type(arrow.item_type))
    if types.is_list(arrow) or types.is_large_list(arrow) or types.is_fixed_size_list(arrow):
        return ArrayType(pql_type(arrow.value_type))
    if types.is_struct(arrow):
        return ObjectType({field.name: pql_type(field.type) for field in arrow})
    raise TypeError(f"PQL has no type for {arrow}")


def arrow_type(type_: Type) -> pa.DataType:
    """How a PQL type is stored.

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
    """The fields of a table, as PQL sees them."""
    return ObjectType({field.name: pql_type(field.type) for field in schema})
