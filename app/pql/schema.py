"""The types of PQL, and with them the schema of a profile; knows neither expressions nor files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Scalar(StrEnum):
    """A type without parts. `INTERVAL` (such as `last month`) and `NULL` (the literal) are never stored.

    `INTEGER` is a stored number of 64 bits; expressions know numbers only (`numbers_alike`).
    """

    NUMBER = "number"
    INTEGER = "integer"
    STRING = "string"
    BOOLEAN = "boolean"
    DATE = "date"
    TIMESTAMP = "timestamp"
    INTERVAL = "interval"
    NULL = "null"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ArrayType:
    element: "Type"

    def __str__(self) -> str:
        return f"array<{self.element}>"


@dataclass(frozen=True, slots=True)
class MapType:
    """Keys are strings."""

    value: "Type"

    def __str__(self) -> str:
        return f"map<{self.value}>"


@dataclass(frozen=True, slots=True, eq=False)
class ObjectType:
    """Named fields; compared by content, hashed by names (fields may nest deeply, names are enough to tell most
    apart)."""

    fields: Mapping[str, "Type"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, ObjectType) and self.fields == other.fields)

    def __hash__(self) -> int:
        return hash(frozenset(self.fields))

    def __str__(self) -> str:
        return "object"


Type = Scalar | ArrayType | MapType | ObjectType

IDENTITY_MAP = MapType(ArrayType(ObjectType({"id": Scalar.STRING, "primary": Scalar.BOOLEAN})))
SEGMENT_MEMBERSHIP = MapType(MapType(ObjectType({"status": Scalar.STRING, "lastQualificationTime": Scalar.TIMESTAMP})))
EVENTS = "xEvent"
MEMBERSHIP = "segmentMembership"
COMPUTED = "AEPSegments"
"""The namespace of audiences that are computed here."""
COMPUTED_ALIAS = "ups"

Segment = tuple[str, str]
"""A segment by its namespace and its id there."""


def namespace_of(name: str) -> str:
    """
    >>> namespace_of("ups"), namespace_of("AAMSegments")
    ('AEPSegments', 'AAMSegments')
    """
    return COMPUTED if name == COMPUTED_ALIAS else name


def profile_schema(profile: ObjectType, event: ObjectType) -> ObjectType:
    """The schema that PQL sees: the fields of the records, the events under `xEvent`, and the two built-in maps."""
    schema = profile_fields(profile, event)
    return ObjectType({name: numbers_alike(type_) for name, type_ in schema.fields.items()})


def profile_fields(profile: ObjectType, event: ObjectType) -> ObjectType:
    """The same with its numbers as they are stored."""
    return ObjectType(
        {
            "identityMap": IDENTITY_MAP,
            MEMBERSHIP: SEGMENT_MEMBERSHIP,
            **profile.fields,
            EVENTS: ArrayType(event),
        }
    )


def numbers_alike(type_: Type) -> Type:
    """The type with all of its integers as numbers.

    >>> numbers_alike(ArrayType(Scalar.INTEGER))
    ArrayType(element=<Scalar.NUMBER: 'number'>)
    """
    match type_:
        case ArrayType(element):
            return ArrayType(numbers_alike(element))
        case MapType(value):
            return MapType(numbers_alike(value))
        case ObjectType():
            return ObjectType({name: numbers_alike(inner) for name, inner in type_.fields.items()})
        case _:
            return Scalar.NUMBER if type_ is Scalar.INTEGER else type_


def leaf_paths(schema: ObjectType, prefix: str = "") -> Iterator[tuple[str, Type]]:
    """Each field that is not an object, with its dotted path; arrays of objects are followed, maps are not.

    >>> list(leaf_paths(ObjectType({"a": ObjectType({"b": Scalar.NUMBER}), "c": Scalar.STRING})))
    [('a.b', <Scalar.NUMBER: 'number'>), ('c', <Scalar.STRING: 'string'>)]
    """
    for name, type_ in schema.fields.items():
        path = f"{prefix}{name}"
        inner = type_.element if isinstance(type_, ArrayType) else type_
        if isinstance(inner, ObjectType):
            yield from leaf_paths(inner, f"{path}.")
        else:
            yield path, type_
