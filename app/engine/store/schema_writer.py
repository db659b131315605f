"""Writes field types with rules for their values as JSON Schema (2020-12) of rows; knows no files."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from app.engine.store.json_schema import SCALARS, TIME_FORMATS
from app.engine.store.schema_rules import Rule
from app.json_values import JsonObject
from app.pql.schema import ArrayType, MapType, ObjectType, Type

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema(fields: ObjectType, rules: Sequence[Rule] = ()) -> JsonObject:
    """The fields and their rules as the schema of a row.

    >>> json_schema(ObjectType({"day": TIME_FORMATS["date"]}))["properties"]
    {'day': {'type': 'string', 'format': 'date'}}
    """
    return {"$schema": DIALECT, **_written(fields, rules)}


def _written(type_: Type, rules: Sequence[Rule]) -> JsonObject:
    own, below = _split(rules)
    match type_:
        case ObjectType():
            properties = {name: _written(inner, below[name]) for name, inner in type_.fields.items()}
            return {"type": "object", "properties": properties, **own}
        case MapType(value):
            return {"type": "object", "additionalProperties": _written(value, below["{}"]), **own}
        case ArrayType(element):
            return {"type": "array", "items": _written(element, below["[]"]), **own}
    for format, scalar in TIME_FORMATS.items():
        if type_ is scalar:
            return {"type": "string", "format": format, **own}
    return {"type": next(name for name, scalar in SCALARS.items() if scalar is type_), **own}


def _split(rules: Sequence[Rule]) -> tuple[JsonObject, Mapping[str, list[Rule]]]:
    """Splits rules into keywords for a place itself, and rules for places below, by their next step."""
    keywords: JsonObject = {}
    required: list[str] = []
    below: defaultdict[str, list[Rule]] = defaultdict(list)
    for rule in rules:
        if rule.path:
            below[rule.path[0]].append(replace(rule, path=rule.path[1:]))
        elif rule.keyword == "required":
            required.append(rule.name)
        else:
            keywords[rule.keyword] = rule.value
    return keywords | ({"required": required} if required else {}), below
