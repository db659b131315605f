"""Random operations over the whole schema: mostly such as a client might send, some as nobody should."""

import json
from collections import defaultdict
from random import Random
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLUnionType,
    get_named_type,
)

DEPTH = 3
EXPRESSIONS = [
    "true",
    "dollars > 1",
    "xEvent.sum(dollars) > 100",
    "xEvent[dollars > 100 and timestamp occurs <= 24 hours before now].count() > 0",
    "CHAIN(xEvent, timestamp, [A: WHAT(dollars > 1), B: WHAT(true) WHEN(<= 1 day after A)])",
    'inSegment("{id}")',
]
SENSIBLE: dict[str, list[Any]] = {
    "expression": EXPRESSIONS,
    "schemaName": ["_xdm.context.profile"],
    "cronExpression": ["0 30 2 ? * MON-FRI", "0 0 0 L * ?"],
    "namespace": ["crm", "AEPSegments"],
    "fields": ["dollars", "identityMap"],
    "term": ["n*", "gold", "n1 OR n2", "*"],
    "id": ["crm:00001"],
}
"""By the name of the argument or field; other text is any."""
STRANGE: dict[str, list[Any]] = {
    "String": ["", " ", "\0", "x" * 2_000, "%", "'", "..", "(", "/[/", "a AND", "* * * * * ?", "\U0001f600"],
    "ID": ["", "\0", "nothing", "QXVkaWVuY2U6eA==", "a" * 300],
    "Int": [0, -1, 501, 2**31 - 1, -(2**31)],
    "Float": [0, -1, 1e308],
    "BigInt": [0, -1, 2**53, 10**30, "12"],
    "DateTime": ["0001-01-01T00:00:00+12:00", "9999-12-31T23:59:59-12:00", "2026-02-30T00:00:00Z", "x"],
    "JSON": [[], "x", 1, {"\0": 1}, {"nodeType": "fnApply", "fnName": "=", "params": []}],
    "Boolean": [None, "x"],
    "Upload": [None],
}
USUAL: dict[str, list[Any]] = {
    "String": ["some text", "core/C1"],
    "Int": [1, 2, 5],
    "Float": [0.5, 10],
    "BigInt": [0, 12],
    "DateTime": ["2026-01-01T00:00:00Z", "2026-06-15T12:00:00+02:00"],
    "JSON": [{}, {"a": [1, None]}],
    "Boolean": [True, False],
    "Upload": [None],
}

NAMED_OTHERWISE = {"segmentId": "audience", "definitionIds": "segmentDefinition", "parentFolderId": "folder"}
"""Arguments that are not named after the type whose ids they take."""


class RandomOperations:
    """Makes operations; `learn` from their answers gives later ones ids, cursors and etags that exist."""

    def __init__(self, schema: GraphQLSchema, seed: int) -> None:
        self._schema = schema
        self._random = Random(seed)
        self._ids: dict[str, list[str]] = defaultdict(list)
        self._texts: dict[str, list[str]] = defaultdict(list)
        self._names = 0
        self._sensible = True
        self._root = ""

    def next(self) -> tuple[str, dict[str, Any]]:
        """A document and its variables."""
        random = self._random
        kind = random.choice(["query", "mutation", "mutation"])
        root = self._schema.query_type if kind == "query" else self._schema.mutation_type
        assert root is not None
        self._root = random.choice(list(root.fields))
        self._sensible = random.random() < 0.75
        variables: dict[str, tuple[str, Any]] = {}
        body = self._call(self._root, root.fields[self._root], DEPTH, variables)
        head = ", ".join(f"${name}: {type_}" for name, (type_, _) in variables.items())
        return f"{kind} {f'({head}) ' if head else ''}{{ {body} }}", {
            name: value for name, (_, value) in variables.items()
        }

    def learn(self, data: Any) -> None:
        if isinstance(data, list):
            for value in data:
                self.learn(value)
        elif isinstance(data, dict):
            if isinstance(data.get("id"), str) and "__typename" in data:
                self._ids[data["__typename"]].append(data["id"])
            for name, value in data.items():
                if name in {"etag", "cursor", "endCursor"} and isinstance(value, str):
                    self._texts["etag" if name == "etag" else "after"].append(value)
                self.learn(value)

    def _call(self, name: str, field: GraphQLField, depth: int, variables: dict[str, tuple[str, Any]]) -> str:
        given = []
        for argument, definition in field.args.items():
            if isinstance(definition.type, GraphQLNonNull) or self._random.random() < 0.4:
                variable = f"v{len(variables)}"
                variables[variable] = str(definition.type), self._value(argument, definition.type)
                given.append(f"{argument}: ${variable}")
        arguments = f"({', '.join(given)})" if given else ""
        return f"{name}{arguments} {self._selection(field.type, depth, variables)}"

    def _selection(self, type_: Any, depth: int, variables: dict[str, tuple[str, Any]]) -> str:
        named: Any = get_named_type(type_)
        if _is_leaf(named):
            return ""
        if isinstance(named, GraphQLUnionType):
            return "{ __typename }"
        chosen = ["__typename"]
        for name, field in named.fields.items():
            kept = 0.9 if _is_leaf(get_named_type(field.type)) else 0.4 * (depth > 0)
            if name in {"id", "etag"} or self._random.random() < kept:
                chosen.append(self._call(name, field, depth - 1, variables))
        return f"{{ {' '.join(chosen)} }}"

    def _value(self, name: str, type_: Any) -> Any:
        random = self._random
        if isinstance(type_, GraphQLNonNull):
            type_ = type_.of_type
        elif random.random() < 0.15:
            return None
        if isinstance(type_, GraphQLList):
            return [self._value(name, type_.of_type) for _ in range(random.choice([0, 1, 1, 2]))]
        if isinstance(type_, GraphQLEnumType):
            return random.choice(list(type_.values))
        if isinstance(type_, GraphQLInputObjectType):
            return {
                inner: self._value(inner, field.type)
                for inner, field in type_.fields.items()
                if isinstance(field.type, GraphQLNonNull) or random.random() < 0.4
            }
        assert isinstance(type_, GraphQLScalarType)
        if not self._sensible and random.random() < 0.3:
            return random.choice(STRANGE[type_.name])
        if type_.name == "ID":
            return self._id(name)
        if type_.name != "String":
            return random.choice(USUAL[type_.name])
        if name == "name":
            self._names += 1
            return f"n{self._names}"
        text = random.choice(self._texts.get(name, SENSIBLE.get(name, USUAL["String"]))[-20:])
        return text.replace("{id}", random.choice(self._ids.get("Audience", ["nothing"])[-9:]))

    def _id(self, name: str) -> str:
        """Of the type that the argument, or the operation, is named after."""
        asked = self._root if name in {"id", "ids"} else NAMED_OTHERWISE.get(name, name)
        types = [type_ for type_ in self._ids if type_.lower() in asked.lower()] or list(self._ids)
        return self._random.choice(self._ids[max(types, key=len)][-20:]) if types else "nothing"


def _is_leaf(type_: Any) -> bool:
    return isinstance(type_, GraphQLScalarType | GraphQLEnumType)


def shown(document: str, variables: dict[str, Any]) -> str:
    """For a failed test: what to send to see it again."""
    return f"{document}\n{json.dumps(variables)}"
