"""JSON Schema (2020-12) of rows as types of fields, and back; knows no files.

The keywords `type`, `format`, `properties`, `items` and `additionalProperties` say what a row holds. Those that only
describe (`title`, `description`, …, and XDM's `meta:` ones) are passed over; every other one is rejected by name.
"""

from collections.abc import Mapping
from typing import Any

from app.errors import ErrorCode, Refusal, Refusals
from app.pql.schema import EVENTS, IDENTITY_MAP, ArrayType, MapType, ObjectType, Scalar, Type

DIALECT = "https://json-schema.org/draft/2020-12/schema"
RESERVED = frozenset({EVENTS, "segmentMembership"})
"""Names at the top of a profile that are not for columns."""

_SCALARS = {
    "string": Scalar.STRING,
    "integer": Scalar.INTEGER,
    "number": Scalar.NUMBER,
    "boolean": Scalar.BOOLEAN,
}
_FORMATS = {"date": Scalar.DATE, "date-time": Scalar.TIMESTAMP}
_MEANING = frozenset({"type", "format", "properties", "items", "additionalProperties"})
_DESCRIBING = frozenset({"$schema", "$id", "$comment", "title", "description", "examples", "default", "deprecated"})
_DEEPEST = 30


def fields_of(schema: Any) -> ObjectType:
    """The fields that the schema of a row declares. Raises `Refusals`: every fault, with its path in the schema."""
    reading = _Reading()
    type_ = reading.read(schema, ())
    if not reading.refusals and not isinstance(type_, ObjectType):
        reading.refuse((), "the schema of a row must be of type object and have `properties`")
    if isinstance(type_, ObjectType):
        for name in type_.fields:
            if name in RESERVED or name.startswith("__"):
                reading.refuse(("properties", name), f"the name {name!r} is reserved: choose another name")
    if reading.refusals or not isinstance(type_, ObjectType):
        raise Refusals(reading.refusals)
    if "identityMap" in type_.fields and type_.fields["identityMap"] != IDENTITY_MAP:
        return ObjectType({**type_.fields, "identityMap": IDENTITY_MAP})
    return type_


def json_schema(fields: ObjectType) -> dict[str, Any]:
    """The fields as the schema of a row.

    >>> json_schema(ObjectType({"day": Scalar.DATE}))["properties"]
    {'day': {'type': 'string', 'format': 'date'}}
    """
    return {"$schema": DIALECT, **_written(fields)}


def _written(type_: Type) -> dict[str, Any]:
    match type_:
        case ObjectType():
            return {"type": "object", "properties": {name: _written(inner) for name, inner in type_.fields.items()}}
        case MapType(value):
            return {"type": "object", "additionalProperties": _written(value)}
        case ArrayType(element):
            return {"type": "array", "items": _written(element)}
    for format, scalar in _FORMATS.items():
        if type_ is scalar:
            return {"type": "string", "format": format}
    return {"type": next(name for name, scalar in _SCALARS.items() if scalar is type_)}


class _Reading:
    def __init__(self) -> None:
        self.refusals: list[Refusal] = []

    def refuse(self, path: tuple[str, ...], message: str) -> None:
        place = "/".join(("schema", *path))
        self.refusals.append(Refusal(ErrorCode.INVALID_INPUT, f"{place}: {message}", ("schema",)))

    def read(self, schema: Any, path: tuple[str, ...]) -> Type | None:
        """The type, None when something is wrong with it."""
        if not isinstance(schema, Mapping):
            self.refuse(path, "a schema must be an object")
            return None
        if len(path) > 2 * _DEEPEST:
            self.refuse(path, f"schemas may nest {_DEEPEST} levels deep")
            return None
        for keyword in schema:
            if keyword not in _MEANING | _DESCRIBING and not keyword.startswith("meta:"):
                supported = ", ".join(sorted(_MEANING))
                self.refuse((*path, keyword), f"the keyword {keyword!r} is not supported: use {supported}")
        match self._kind(schema, path):
            case "object":
                return self._object(schema, path)
            case "array":
                if "items" not in schema:
                    self.refuse(path, "an array needs `items`, the schema of its elements")
                    return None
                element = self.read(schema["items"], (*path, "items"))
                return None if element is None else ArrayType(element)
            case "string":
                return _FORMATS.get(schema.get("format", ""), Scalar.STRING)
            case str(kind):
                return _SCALARS[kind]
        return None

    def _kind(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> str | None:
        """The one type that is not null."""
        declared = schema.get("type", "object" if schema.keys() & {"properties", "additionalProperties"} else None)
        kinds = [kind for kind in (declared if isinstance(declared, list) else [declared]) if kind != "null"]
        supported = [*_SCALARS, "object", "array"]
        if len(kinds) != 1 or kinds[0] not in supported:
            self.refuse((*path, "type"), f"`type` must be one of {', '.join(supported)} (with or without null)")
            return None
        for keyword, kind in (("properties", "object"), ("additionalProperties", "object"), ("items", "array")):
            if keyword in schema and kinds[0] != kind:
                self.refuse((*path, keyword), f"`{keyword}` applies to the type {kind}, not {kinds[0]}")
        if not isinstance(schema.get("format", ""), str):
            self.refuse((*path, "format"), "`format` must be text")
        return str(kinds[0])

    def _object(self, schema: Mapping[str, Any], path: tuple[str, ...]) -> Type | None:
        others, properties = schema.get("additionalProperties", True), schema.get("properties")
        if isinstance(properties, Mapping) and properties:
            if others is not True:
                self.refuse((*path, "additionalProperties"), "an object has either `properties` or keys of one type")
            members = {name: self.read(inner, (*path, "properties", name)) for name, inner in properties.items()}
            valid = {name: type_ for name, type_ in members.items() if type_ is not None}
            return ObjectType(valid) if len(valid) == len(members) else None
        if not isinstance(others, Mapping):
            self.refuse(path, "an object needs `properties`, or `additionalProperties` with the schema of its values")
            return None
        value = self.read(others, (*path, "additionalProperties"))
        return None if value is None else MapType(value)
