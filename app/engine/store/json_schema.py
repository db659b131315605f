"""Parses JSON Schema (2020-12) of rows into field types with rules for their values; knows no files.

`type`, `format`, `properties`, `items` and `additionalProperties` determine the types; `RULES`, `required` and some
formats the rules. `$ref` within the schema and `allOf` are followed, and so are `oneOf` and `anyOf` if one column can
hold the alternatives. Annotations (`title`, `description`, …, XDM's `meta:` and OpenAPI's `x-` keywords) are ignored;
every other keyword is rejected by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from app.engine.store.epochs import EPOCHS, Epoch, as_times
from app.engine.store.field_types import MAPS, WIDENINGS, widen
from app.engine.store.schema_rules import EPOCH, FORMATS, RULES, Rule, mistake
from app.errors import ErrorCode, Refusal, Refusals
from app.json_values import JsonValue
from app.pql.schema import EVENTS, ArrayType, MapType, ObjectType, Scalar, Type

SCALARS = {
    "string": Scalar.STRING,
    "integer": Scalar.INTEGER,
    "number": Scalar.NUMBER,
    "boolean": Scalar.BOOLEAN,
}
_KINDS = (*SCALARS, "object", "array")
TIME_FORMATS = {"date": Scalar.DATE, "date-time": Scalar.TIMESTAMP}
_KINDS_OF_FORMATS: Mapping[JsonValue, Sequence[str]] = {
    **dict.fromkeys((*TIME_FORMATS, *FORMATS), ("string",)),
    **dict.fromkeys(EPOCHS, ("integer", "number", "string")),
}
"""The types to which a format applies that is more than an annotation."""
_COUNTED = ": use epoch or epoch_ms for numbers of seconds or milliseconds since 1970"
_ALTERNATIVES = ("oneOf", "anyOf")
_COMBINING = frozenset({"$ref", "allOf", *_ALTERNATIVES})
_MEANING = frozenset(
    {"type", "nullable", "format", "properties", "items", "additionalProperties", "required", *_COMBINING, *RULES}
)
_DESCRIBING = frozenset(
    {"$schema", "$id", "$anchor", "$comment", "$defs", "definitions", "title", "description", "examples", "default"}
    | {"deprecated", "readOnly", "writeOnly", "version", "imsOrg"}
    | {"example", "externalDocs", "discriminator", "xml"}
)
_DEEPEST = 30
_MOST_PLACES = 30_000
_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declared:
    """The fields of a row, the rules for their values, and the places with times counted from 1970."""

    fields: ObjectType = field(default_factory=ObjectType)
    rules: tuple[Rule, ...] = ()
    epochs: Mapping[_Path, Epoch] = field(default_factory=dict)


def declared(schema: JsonValue, *, is_stored: bool = False) -> Declared:
    """Parses the schema of a row. Raises `Refusals` with every error and its path in the schema.

    `is_stored`: it was accepted before, perhaps when keywords without effect still were.
    """
    reading = _Reading(schema, is_stored)
    part = reading.read(schema, ())
    type_ = None if part is None else part.type
    if not reading.refusals and not isinstance(type_, ObjectType):
        reading.refuse((), "the schema of a row must be of type object and have `properties`")
    if isinstance(type_, ObjectType):
        for name in type_.fields:
            if name == EVENTS or name.startswith("__"):
                reading.refuse(("properties", name), f"the name {name!r} is reserved: choose another name")
    epochs = {rule.path: rule.epoch for rule in part.rules if rule.keyword == EPOCH} if part else {}
    if reading.refusals or part is None or not isinstance(type_, ObjectType):
        raise Refusals(reading.refusals)
    maps = {path[0]: type_ for path, type_ in MAPS.items() if len(path) == 1}
    known = {name: maps.get(name, inner) for name, inner in type_.fields.items()}
    rules = tuple(dict.fromkeys(rule for rule in part.rules if rule.keyword != EPOCH))
    return Declared(ObjectType(known), rules, epochs)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one place of a schema declares; paths of rules are relative to it."""

    type: Type | None
    rules: tuple[Rule, ...] = ()
    nullable: bool = False

    def below(self, *steps: str) -> tuple[Rule, ...]:
        return tuple(replace(rule, path=(*steps, *rule.path)) for rule in self.rules)


class _Reading:
    def __init__(self, root: JsonValue, is_stored: bool) -> None:
        self.root = root
        self.is_stored = is_stored
        self.refusals: list[Refusal] = []
        self.following: list[str] = []
        self.places = 0

    def refuse(self, path: _Path, message: str) -> None:
        place = "/".join(("schema", *path))
        self.refusals.append(Refusal(ErrorCode.INVALID_INPUT, f"{place}: {message}", ("schema",)))

    def refuse_idle(self, path: _Path, message: str) -> None:
        """Rejects what would have no effect."""
        if not self.is_stored:
            self.refuse(path, message)

    def read(self, schema: JsonValue, path: _Path, is_whole: bool = True) -> _Part | None:
        """Parses the part; None if there are errors. An incomplete part may contain only rules for what other parts
        declare."""
        faults = len(self.refusals)
        self.places += 1
        if not isinstance(schema, Mapping):
            self.refuse(path, "a schema must be an object")
            return None
        if _levels(path) > _DEEPEST:
            self.refuse(path, f"schemas may nest {_DEEPEST} levels deep")
        elif self.places == _MOST_PLACES:
            self.refuse(path, f"the schema has more than {_MOST_PLACES:,} places, those that it refers to included")
        if len(self.refusals) > faults or self.places > _MOST_PLACES:
            return None
        for keyword in schema:
            if keyword not in _MEANING | _DESCRIBING and not keyword.startswith(("meta:", "x-")):
                supported = ", ".join(sorted(_MEANING))
                self.refuse((*path, keyword), f"the keyword {keyword!r} is not supported: use {supported}")
        own = self._own(schema, path)
        parts = [part for part in (own, *self._included(schema, path)) if part is not None]
        if len(self.refusals) > faults:
            return None
        return self._together(parts, path, is_whole)

    def _included(self, schema: Mapping[str, JsonValue], path: _Path) -> Iterator[_Part | None]:
        """The parts referenced by `$ref`, `allOf`, `oneOf` and `anyOf`."""
        if "$ref" in schema:
            yield self._referred(schema["$ref"], (*path, "$ref"))
        parts = schema.get("allOf", [])
        if not isinstance(parts, list):
            self.refuse((*path, "allOf"), "`allOf` must be a list of schemas")
            return
        for place, part in enumerate(parts):
            yield self.read(part, (*path, "allOf", str(place)), is_whole=False)
        for keyword in (keyword for keyword in _ALTERNATIVES if keyword in schema):
            yield self._alternative(schema[keyword], (*path, keyword))

    def _alternative(self, schemas: JsonValue, path: _Path) -> _Part | None:
        """Merges alternatives into one part; null as an alternative means an absent value."""
        if not isinstance(schemas, list) or not schemas:
            self.refuse(path, f"`{path[-1]}` must be a list of schemas")
            return None
        typed = [(place, schema) for place, schema in enumerate(schemas) if schema not in _NULLS]
        parts = [self.read(schema, (*path, str(place)), is_whole=False) for place, schema in typed]
        alternatives = [part for part in parts if part is not None]
        if len(alternatives) < len(parts):
            return None
        if not alternatives:
            self.refuse(path, "at least one alternative must be another one than null")
            return None
        types = [part.type for part in alternatives]
        together = reduce(_either, types) if None not in types else None
        if together is None and any(types):
            names = ", ".join(dict.fromkeys("none" if type_ is None else str(type_) for type_ in types))
            self.refuse(path, f"one column cannot hold alternatives of different types: {names}")
            return None
        rules = _shared_rules([part.rules for part in alternatives])
        if rules is None:
            keywords = sorted({rule.keyword for part in alternatives for rule in part.rules})
            self.refuse(
                path, f"rules cannot differ between alternatives ({', '.join(keywords)}): move them out, or omit them"
            )
            return None
        return _Part(together, rules, len(typed) < len(schemas) or any(part.nullable for part in alternatives))

    def _referred(self, reference: JsonValue, path: _Path) -> _Part | None:
        if not isinstance(reference, str) or not reference.startswith("#"):
            self.refuse(
                path,
                f"{reference!r} is another document, and none is fetched: send the schema with its references resolved "
                "(the Schema Registry does it for `Accept: application/vnd.adobe.xed-full+json; version=1`), or copy "
                "what it names to `$defs` and refer to '#/$defs/…'",
            )
            return None
        if not f"{reference}/".startswith("#/"):
            self.refuse(path, f"{reference!r} is an anchor, and none is followed: refer to a place, '#/$defs/…'")
            return None
        if reference in self.following:
            self.refuse(path, f"{reference!r} contains itself, so that its rows would have no end")
            return None
        target: JsonValue = self.root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, Mapping) else None
        if target is None:
            self.refuse(path, f"there is no {reference!r} in the schema")
            return None
        self.following.append(reference)
        part = self.read(target, path)
        self.following.pop()
        return part

    def _together(self, parts: Sequence[_Part], path: _Path, is_whole: bool) -> _Part | None:
        types = [part.type for part in parts if part.type is not None]
        if not types and not is_whole:
            return _Part(None, tuple(rule for part in parts for rule in part.rules))
        if not types:
            self.refuse((*path, "type"), _NO_TYPE)
            return None
        kinds = {type_ if isinstance(type_, Scalar) else type(type_) for type_ in types}
        if len(kinds) > 1 and kinds != {Scalar.INTEGER, Scalar.NUMBER}:
            self.refuse(path, f"its parts declare different types: {', '.join(dict.fromkeys(map(str, types)))}")
            return None
        both: Type = Scalar.INTEGER if len(kinds) > 1 else types[0]
        if isinstance(both, ObjectType):
            both = reduce(widen, [type_ for type_ in types if isinstance(type_, ObjectType)])
        rules = tuple(rule for part in parts for rule in part.rules)
        counts = {(rule.path, rule.keyword): rule.value for rule in rules if rule.keyword == EPOCH}
        if any(counts.get((rule.path, rule.keyword), rule.value) != rule.value for rule in rules):
            self.refuse_idle(path, "its parts count from 1970 in different ways: declare one of epoch and epoch_ms")
        return _Part(both, rules, all(part.nullable for part in parts if part.type is not None))

    def _own(self, schema: Mapping[str, JsonValue], path: _Path) -> _Part | None:
        """The content of the keywords beside `$ref` and `allOf`; None if there are none."""
        kind, nullable = self._kind(schema, path)
        if kind is None:
            for keyword in (keyword for keyword in ("format", "items") if keyword in schema):
                if keyword == "items" or schema[keyword] in _KINDS_OF_FORMATS:
                    self.refuse_idle((*path, keyword), f"`{keyword}` needs `type` beside it: name both in one place")
            has_rules = "required" in schema or schema.keys() & RULES.keys()
            return _Part(None, self._required(schema, path) + self._rules(schema, path)) if has_rules else None
        part = self._of_kind(kind, schema, path)
        if part is None:
            return None
        rules = self._rules(schema, path, part.type)
        return _Part(part.type, part.rules + rules, nullable)

    def _of_kind(self, kind: str, schema: Mapping[str, JsonValue], path: _Path) -> _Part | None:
        format = str(schema.get("format", ""))
        if kind not in (kinds := _KINDS_OF_FORMATS.get(format, _KINDS)):
            applies = f"the format {format} applies to the type {' or '.join(kinds)}, not {kind}"
            self.refuse_idle((*path, "format"), f"{applies}{_COUNTED if format in TIME_FORMATS else ''}")
        match kind:
            case "integer" | "number" | "string" if format in EPOCHS:
                is_whole = format == "epoch_ms" or kind != "number"
                return _Part(Scalar.TIMESTAMP, (Rule((), EPOCH, (format, is_whole)),))
            case "object":
                return self._object(schema, path)
            case "array":
                if "items" not in schema:
                    self.refuse(path, "an array needs `items`, the schema of its elements")
                    return None
                element = self.read(schema["items"], (*path, "items"))
                if element is None or element.type is None:
                    return None
                return _Part(ArrayType(element.type), element.below("[]"))
            case "string":
                checked = (Rule((), "format", format),) if format in FORMATS else ()
                return _Part(TIME_FORMATS.get(format, Scalar.STRING), checked)
        return _Part(SCALARS[kind])

    def _kind(self, schema: Mapping[str, JsonValue], path: _Path) -> tuple[str | None, bool]:
        """The only type other than null, and whether null is allowed; no type if none is given."""
        type_ = schema.get("type", "object" if schema.keys() & {"properties", "additionalProperties"} else None)
        kinds = [kind for kind in (type_ if isinstance(type_, list) else [type_]) if kind != "null"]
        if type_ is None:
            if schema.get("nullable") is True:
                # On its own it has no effect in OpenAPI either; beside `$ref` its author means something else.
                self.refuse((*path, "nullable"), '`nullable` needs `type` beside it: use `anyOf` with {"type": "null"}')
            return None, False
        if len(kinds) != 1 or kinds[0] not in _KINDS:
            self.refuse((*path, "type"), _NO_TYPE)
            return None, False
        for keyword, kind in (("properties", "object"), ("additionalProperties", "object"), ("items", "array")):
            if keyword in schema and kinds[0] != kind:
                self.refuse((*path, keyword), f"`{keyword}` applies to the type {kind}, not {kinds[0]}")
        if not isinstance(schema.get("nullable", False), bool):
            self.refuse((*path, "nullable"), "`nullable` must be true or false")
        if not isinstance(schema.get("format", ""), str):
            self.refuse((*path, "format"), "`format` must be text")
            return None, False
        # OpenAPI 3.0 uses `nullable`; 3.1 and JSON Schema list the type null.
        return str(kinds[0]), (isinstance(type_, list) and "null" in type_) or schema.get("nullable") is True

    def _object(self, schema: Mapping[str, JsonValue], path: _Path) -> _Part | None:
        others, properties = schema.get("additionalProperties", True), schema.get("properties")
        if isinstance(properties, Mapping) and properties:
            if others is not True:
                self.refuse((*path, "additionalProperties"), "an object has either `properties` or keys of one type")
            for name in (name for name in properties if not name or "\0" in name):
                self.refuse((*path, "properties", name), "a name needs characters, and none may be a zero byte")
            parts = {name: self.read(inner, (*path, "properties", name)) for name, inner in properties.items()}
            typed = {name: part for name, part in parts.items() if part is not None and part.type is not None}
            if len(typed) < len(parts):
                return None
            rules = [rule for name, part in typed.items() for rule in part.below(name)]
            # Absent values and null are equivalent: if null is allowed, nothing is required.
            nullable = {name for name, part in typed.items() if part.nullable}
            required = [rule for rule in self._required(schema, path) if rule.value not in nullable]
            return _Part(
                ObjectType({name: part.type for name, part in typed.items() if part.type}), (*required, *rules)
            )
        if not isinstance(others, Mapping):
            if schema.keys() & _COMBINING:
                return _Part(None, self._required(schema, path))
            self.refuse(path, "an object needs `properties`, or `additionalProperties` with the schema of its values")
            return None
        value = self.read(others, (*path, "additionalProperties"))
        return None if value is None or value.type is None else _Part(MapType(value.type), value.below("{}"))

    def _required(self, schema: Mapping[str, JsonValue], path: _Path) -> tuple[Rule, ...]:
        names = schema.get("required", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            self.refuse((*path, "required"), "`required` must be a list of names")
            return ()
        return tuple(Rule((), "required", name) for name in names)

    def _rules(self, schema: Mapping[str, JsonValue], path: _Path, type_: Type | None = None) -> tuple[Rule, ...]:
        rules = []
        for keyword in (keyword for keyword in RULES if keyword in schema):
            if (wrong := mistake(keyword, schema[keyword], type_)) is not None:
                self.refuse((*path, keyword), wrong)
            else:
                format = schema.get("format") if type_ is Scalar.TIMESTAMP else None
                rules.append(Rule((), keyword, _hashable(as_times(schema[keyword], format))))
        return tuple(rules)


_NULLS: tuple[JsonValue, ...] = ({"type": "null"}, {"const": None}, {"enum": [None]})


def _either(one: Type | None, other: Type | None) -> Type | None:
    """The type that holds the values of both; None if there is none.

    >>> print(_either(Scalar.INTEGER, Scalar.NUMBER), _either(Scalar.STRING, Scalar.NUMBER))
    number None
    """
    match one, other:
        case (None, _) | (_, None):
            return None
        case ObjectType(), ObjectType():
            fields: dict[str, Type] = {**one.fields}
            for name, type_ in other.fields.items():
                both = _either(fields[name], type_) if name in fields else type_
                if both is None:
                    return None
                fields[name] = both
            return ObjectType(fields)
        case ArrayType(inner), ArrayType(outer):
            element = _either(inner, outer)
            return None if element is None else ArrayType(element)
        case MapType(inner), MapType(outer):
            value = _either(inner, outer)
            return None if value is None else MapType(value)
        case _ if one == other or (other, one) in WIDENINGS:
            return one
        case _:
            return other if (one, other) in WIDENINGS else None


def _shared_rules(alternatives: Sequence[tuple[Rule, ...]]) -> tuple[Rule, ...] | None:
    """The rules that one set expresses for all alternatives, with enumerations merged; None if that is impossible."""
    if len({frozenset(rules) for rules in alternatives}) == 1:
        return alternatives[0]
    values: list[JsonValue] = []
    for rules in alternatives:
        if len(rules) != 1 or rules[0].path or rules[0].keyword not in ("enum", "const"):
            return None
        value = rules[0].value
        values += value if isinstance(value, tuple) else [value]
    return (Rule((), "enum", tuple(dict.fromkeys(values))),)


_NO_TYPE = f"`type` must be one of {', '.join(_KINDS)} (with or without null)"


def _levels(path: _Path) -> int:
    return sum(step in ("properties", "items", "additionalProperties") for step in path)


def _hashable(value: JsonValue) -> JsonValue:
    return tuple(value) if isinstance(value, list) else value
