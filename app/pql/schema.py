"""PQL types, and the schema of a profile built from them; knows neither expressions nor files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType


class Scalar(StrEnum):
    """An atomic type. `INTERVAL` (such as `last month`) and `NULL` (the literal) are never stored.

    `INTEGER` is a stored 64-bit number; expressions know only numbers (`numbers_alike`).
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
    """A map with string keys."""

    value: "Type"

    def __str__(self) -> str:
        return f"map<{self.value}>"


@dataclass(frozen=True, slots=True, eq=False)
class ObjectType:
    """Named fields. Compared by content but hashed by field names only, since fields may nest deeply and names suffice
    to distinguish most types."""

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
"""The namespace of audiences computed by this service."""
COMPUTED_ALIAS = "ups"

Segment = tuple[str, str]
"""A segment's namespace and its id there."""


def namespace_of(name: str) -> str:
    """
    >>> namespace_of("ups"), namespace_of("AAMSegments")
    ('AEPSegments', 'AAMSegments')
    """
    return COMPUTED if name == COMPUTED_ALIAS else name


def profile_schema(profile: ObjectType, event: ObjectType) -> ObjectType:
    """The schema that PQL sees: the record fields, the events under `xEvent`, and the two built-in maps."""
    schema = profile_fields(profile, event)
    return ObjectType({name: numbers_alike(type_) for name, type_ in schema.fields.items()})


def profile_fields(profile: ObjectType, event: ObjectType) -> ObjectType:
    """Like `profile_schema`, but with numbers in their stored types."""
    return ObjectType(
        {
            "identityMap": IDENTITY_MAP,
            MEMBERSHIP: SEGMENT_MEMBERSHIP,
            **profile.fields,
            EVENTS: ArrayType(event),
        }
    )


def numbers_alike(type_: Type) -> Type:
    """The type with all integers replaced by numbers.

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


def leaves(fields: ObjectType, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Type]]:
    """Each non-object field with the names that lead to it; follows arrays of objects but not maps.

    >>> list(leaves(ObjectType({"a": ObjectType({"b": Scalar.NUMBER}), "c": Scalar.STRING})))
    [(('a', 'b'), <Scalar.NUMBER: 'number'>), (('c',), <Scalar.STRING: 'string'>)]
    """
    for name, type_ in fields.fields.items():
        inner = type_.element if isinstance(type_, ArrayType) else type_
        if isinstance(inner, ObjectType):
            yield from leaves(inner, (*above, name))
        else:
            yield (*above, name), type_
