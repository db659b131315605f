"""Validates inputs: text that databases can store, numbers that JSON can represent, and limits on lengths.

Variables are checked as they arrive (`VariableSizes`), numbers and strings of the document where they occur, and each
argument by its type once its field is known (`argument_problems`).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from math import isfinite
from typing import Any

from graphql import (
    SKIP,
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FloatValueNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    IntValueNode,
    ListValueNode,
    ObjectFieldNode,
    StringValueNode,
    ValidationRule,
    VariableNode,
    Visitor,
    VisitorAction,
    visit,
)
from strawberry.extensions import SchemaExtension

from app.api.context import Limits
from app.api.errors import refusal_extensions
from app.errors import ErrorCode, Limit, Refusal
from app.services.lists.validation import is_text
from app.storage.columns import StoredValues

_STRANGE = "a NUL character or half of a surrogate pair, which no database keeps"

LONGEST_TEXT = 255
"""Maximum length in characters of texts not listed in `LONG_TEXTS`: longer ones do not fit into a database index."""

LONG_TEXTS: Mapping[str, int | None] = {
    # By the name of the argument or input field; None means `Limits.max_text`.
    "expression": None,
    "where": None,
    "description": 10_000,
    "after": 10_000,
    "before": 10_000,
    "eq": 1_000,
    "ne": 1_000,
    "in": 1_000,
    "contains": 1_000,
    "startsWith": 1_000,
    "fields": 2_000,
    "paths": 2_000,
    # Ids of all people that can be loaded must be accepted in queries and erasures.
    "id": 20_000,
    # Services limit these themselves, and report all errors together.
    "name": None,
    "idempotencyKey": None,
    "cronExpression": None,
    "term": None,
}

MOST_ITEMS = 20_000
"""Maximum number of items of any list or object in a variable. Larger ones are rejected unread."""

ROWS = ("ingestRows", "input", "rows")
"""The mutation, argument and field whose values the loader checks, so that a bad row only affects itself."""

LONG_LISTS = frozenset({ROWS[-1]})
"""Lists that services limit themselves, such as a batch's rows."""


class VariableSizes(SchemaExtension):
    """Rejects variables with text that a database cannot store, with numbers of more than 64 bits, or with values that
    are too long, too large or too deeply nested. The document's own numbers are checked too."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits

    def on_validate(self) -> Iterator[None]:
        context = self.execution_context
        errors = value_errors(self._limits, context.query or "", context.graphql_document, context.variables or {})
        context.pre_execution_errors = [*(context.pre_execution_errors or []), *errors] or None
        yield


def value_errors(
    limits: Limits, text: str, document: DocumentNode | None, variables: Mapping[str, object]
) -> list[GraphQLError]:
    """Errors in the variables, and in the numbers of the document with this text."""
    if document is not None and ROWS[0] in text:
        variables = _without_rows(document, variables)
    errors = [
        GraphQLError(refusal.message, extensions=extensions_in_place(refusal))
        for refusal in _value_problems(limits, variables)
    ]
    if document is not None and _UNUSUAL_NUMBER.search(text):
        errors += _number_errors(document)
    return errors


def _without_rows(document: DocumentNode, variables: Mapping[str, object]) -> Mapping[str, object]:
    """The variables without those (or those of their fields) that contain only rows."""
    sent = _RowsSent()
    visit(document, sent)
    rest = dict(variables)
    for name in sent.inputs:
        if isinstance(value := rest.get(name), Mapping):
            rest[name] = {field: inner for field, inner in value.items() if field != ROWS[-1]}
    return {name: value for name, value in rest.items() if name not in sent.rows or sent.uses[name] > 1}


def extensions_in_place(refusal: Refusal) -> StoredValues:
    """Like other errors, with the path as the client wrote it."""
    return refusal_extensions(refusal) | {"path": list(refusal.path)}


_Way = tuple[Any, str]
"""The path to a value: the path to its container, or None, and its key or index there. Few paths are ever expanded."""


def _value_problems(limits: Limits, variables: Mapping[str, object]) -> Iterator[Refusal]:
    """Errors in values at any depth. Keys of objects are texts too."""
    waiting: list[tuple[_Way | None, int, Any]] = [(None, 0, variables)]
    while waiting:
        way, depth, value = waiting.pop()
        if isinstance(value, str):
            if not is_text(value):
                path = _path(way)
                yield Refusal(ErrorCode.INVALID_INPUT, f"the text at {'.'.join(path)} holds {_STRANGE}: omit it", path)
            elif len(value) > limits.max_text:
                yield _too_long(_path(way), len(value), limits.max_text)
        elif isinstance(value, int | float) and not -(2**63) <= value < 2**64 and not _is_double(value):
            path = _path(way)
            problem = "has more than 64 bits" if isinstance(value, int) else "is not finite"
            yield Refusal(ErrorCode.INVALID_INPUT, f"the number at {'.'.join(path)} {problem}: send it as a text", path)
        elif not isinstance(value, list | Mapping):
            continue
        elif (refusal := _too_large(limits, value, way, depth)) is not None:
            yield refusal
            return
        elif isinstance(value, list):
            waiting += [((way, str(at)), depth + 1, inner) for at, inner in enumerate(value)]
        else:
            waiting += [((way, key if is_text(key) else repr(key)), depth + 1, inner) for key, inner in value.items()]
            waiting += [((way, repr(key)), depth + 1, key) for key in value if not is_text(key)]


def _is_double(number: float) -> bool:
    return isinstance(number, float) and isfinite(number)


def _too_large(limits: Limits, value: Sized, way: _Way | None, depth: int) -> Refusal | None:
    if depth > limits.max_json_depth:
        path = _path(way)
        problem = f"the variable {path[0]} is more than {limits.max_json_depth} levels deep: flatten it"
        limit = Limit("max_json_depth", limits.max_json_depth)
        return Refusal(ErrorCode.LIMIT_EXCEEDED, problem, path[:1], limit)
    if len(value) > MOST_ITEMS:
        path = _path(way)
        problem = (
            f"the variable {'.'.join(path)} has {len(value):,} items, and at most {MOST_ITEMS:,} are taken: split it"
        )
        return Refusal(ErrorCode.LIMIT_EXCEEDED, problem, path, Limit("max_list_items", MOST_ITEMS, len(value)))
    return None


def _path(way: _Way | None) -> list[str]:
    path: list[str] = []
    while way is not None:
        way, key = way
        path.append(key)
    return path[::-1]


def _too_long(path: Sequence[str], length: int, allowed: int) -> Refusal:
    message = f"the text at {'.'.join(path)} has {length:,} characters, and at most {allowed:,} are allowed: shorten it"
    return Refusal(ErrorCode.LIMIT_EXCEEDED, message, path, Limit("max_text", allowed, length))


class _RowsSent(Visitor):
    """The variables that are the whole input of a call with rows, and those that are rows, with the number of uses of
    each."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: set[str] = set()
        self.rows: set[str] = set()
        self.uses: Counter[str] = Counter()

    def enter_variable_definition(self, *_others: object) -> VisitorAction:
        return SKIP

    def enter_variable(self, node: VariableNode, *_others: object) -> None:
        self.uses[node.name.value] += 1

    def enter_field(self, node: FieldNode, *_others: object) -> None:
        if node.name.value == ROWS[0]:
            values = [argument.value for argument in node.arguments or ()]
            self.inputs.update(value.name.value for value in values if isinstance(value, VariableNode))

    def enter_object_field(
        self, node: ObjectFieldNode, _key: object, _parent: object, _path: object, ancestors: Sequence[object]
    ) -> None:
        if _holds_rows(node, ancestors):
            values = node.value.values if isinstance(node.value, ListValueNode) else [node.value]
            self.rows.update(value.name.value for value in values if isinstance(value, VariableNode))


def _holds_rows(field: ObjectFieldNode, ancestors: Sequence[object]) -> bool:
    """Whether this field of a value in the document contains the rows of a call."""
    around = [node for node in ancestors if isinstance(node, FieldNode | ArgumentNode | ObjectFieldNode)][-2:]
    return tuple(node.name.value for node in (*around, field)) == ROWS


class PlainStrings(ValidationRule):
    """A validation rule that rejects strings in the document that a database cannot store."""

    def enter_object_field(
        self, node: ObjectFieldNode, _key: object, _parent: object, _path: object, ancestors: Sequence[object]
    ) -> VisitorAction:
        return SKIP if _holds_rows(node, ancestors) else None

    def enter_string_value(self, node: StringValueNode, *_others: object) -> None:
        if not is_text(node.value):
            self.report_error(GraphQLError(f"the string holds {_STRANGE}: omit it", node))


# ---------------------------------------------------------------- numbers in the document

_UNUSUAL_NUMBER = re.compile(r"\d{17}|\d[eE]\+?\d{3}")
_LONGEST_NUMBER = 20
"""Number of characters of -2^63 and of 2^64 - 1."""
_LONGEST_IN_ROW = 1_000
"""The loader checks numbers up to this many digits; Python reads at most some thousands."""


def _number_errors(document: DocumentNode) -> list[GraphQLError]:
    """Errors for numbers that no JSON parser reads back unchanged, some of which Python itself cannot parse."""
    numbers = _Numbers()
    visit(document, numbers)
    return [
        GraphQLError(
            f"the number {_start(node.value)} is too large: send it as a text, or use a whole number of 64 bits",
            node,
            extensions={"code": ErrorCode.INVALID_INPUT.value, "path": []},
        )
        for node in numbers.too_large
    ]


def _start(text: str) -> str:
    return text if len(text) <= 2 * _LONGEST_NUMBER else f"{text[:_LONGEST_NUMBER]}… ({len(text):,} digits)"


class _Numbers(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.too_large: list[IntValueNode | FloatValueNode] = []
        self._rows: ObjectFieldNode | None = None

    def enter_object_field(
        self, node: ObjectFieldNode, _key: object, _parent: object, _path: object, ancestors: Sequence[object]
    ) -> None:
        if _holds_rows(node, ancestors):
            self._rows = node

    def leave_object_field(self, node: ObjectFieldNode, *_others: object) -> None:
        if self._rows is node:
            self._rows = None

    def enter_int_value(self, node: IntValueNode, *_others: object) -> None:
        longest = _LONGEST_NUMBER if self._rows is None else _LONGEST_IN_ROW
        if len(node.value) > longest or (self._rows is None and not -(2**63) <= int(node.value) < 2**64):
            self.too_large.append(node)

    def enter_float_value(self, node: FloatValueNode, *_others: object) -> None:
        if self._rows is None and not isfinite(float(node.value)):
            self.too_large.append(node)


# ---------------------------------------------------------------- arguments, by type


def argument_problems(limits: Limits, type_: Any, value: Any, path: Sequence[str]) -> Iterator[Refusal]:
    """Errors for texts and lists of an argument that exceed the limits of their type and place; `path` ends in its
    name."""
    if isinstance(type_, GraphQLNonNull):
        type_ = type_.of_type
    if isinstance(type_, GraphQLList):
        items = value if isinstance(value, list) else [] if value is None else [value]
        if len(items) > limits.max_list_items and path[-1] not in LONG_LISTS:
            message = f"`{path[-1]}` has {len(items):,} items, and at most {limits.max_list_items:,} are allowed"
            limit = Limit("max_list_items", limits.max_list_items, len(items))
            yield Refusal(ErrorCode.LIMIT_EXCEEDED, f"{message}: split it", path, limit)
            return
        for at, item in enumerate(items):
            yield from argument_problems(limits, type_.of_type, item, (*path, str(at)))
    elif isinstance(type_, GraphQLInputObjectType):
        for name, field in type_.fields.items() if isinstance(value, Mapping) else ():
            if name in value:
                yield from argument_problems(limits, field.type, value[name], (*path, name))
    elif isinstance(value, str) and type_.name in {"String", "ID"}:
        name = next(part for part in reversed(path) if not part.isdecimal())
        allowed = LONG_TEXTS.get(name, LONGEST_TEXT)
        allowed = limits.max_text if allowed is None else min(allowed, limits.max_text)
        if len(value) > allowed:
            yield _too_long(path, len(value), allowed)
