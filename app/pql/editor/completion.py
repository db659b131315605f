"""Completions at a cursor: fields, functions, keywords, segments and values seen in the data; reads no files.

The expression up to the cursor is parsed with placeholders for what is missing (`prefixes`) and checked like any other.
When the check reaches the cursor it records the names in scope and the type of the left side.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from heapq import nsmallest
from typing import Final

from app.pql.check.calls import accepts
from app.pql.check.scopes import Names
from app.pql.check.state import leaf
from app.pql.core import Node
from app.pql.editor.at_cursor import Look, Path, around_cursor, parameter_of
from app.pql.editor.prefixes import CURSOR, tree_around, what_may_follow
from app.pql.functions import FREE, METHODS, TEXT_TESTS, Function, Kind
from app.pql.schema import ObjectType, Scalar, leaves
from app.pql.syntax.constructs import AGGREGATES
from app.pql.syntax.lexer import Token, TokenKind, tokens, written_name
from app.pql.syntax.nodes import (
    UNITS,
    Tree,
)
from app.pql.syntax.parser import COMPARISON, INFIX
from app.pql.syntax.tokens import MAXIMUM_BYTES, OPERATOR_WORDS, bare_name


class CompletionKind(StrEnum):
    FIELD = "FIELD"
    FUNCTION = "FUNCTION"
    KEYWORD = "KEYWORD"
    SEGMENT = "SEGMENT"
    VALUE = "VALUE"


@dataclass(frozen=True, slots=True)
class Completion:
    """Replacement text for the characters from `start` up to but not including `end`; `detail` is its type, signature
    or name."""

    text: str
    kind: CompletionKind
    detail: str | None
    start: int
    end: int


_Found = tuple[str, CompletionKind, object]
"""Text, kind and the source of the detail. Only the best of many thousand candidates become completions."""

Values = Callable[[Path], Sequence[str]]
"""The values seen in a text field, given its path from the profile; empty if there are too many."""

OPENING: Final = (
    *("not", "exists", "forall", "select", "let", "true", "false", "null"),
    *("now", "today", "yesterday", "tomorrow", "this", "last", "next"),
    *("sum", "count", "average", "min", "max", "CHAIN"),
)
"""Keywords that can start an operand."""

FOLLOWING: Final = {
    "occurs": ("before", "after", "between", "on", "<=", "<", ">=", ">", "=", "!="),
    "this": tuple(UNITS),
    "last": tuple(UNITS),
    "next": tuple(UNITS),
}
"""Keywords that can follow a keyword."""

OPERATORS: Final = {
    "=": None,
    "!=": None,
    "<": None,
    "<=": None,
    ">": None,
    ">=": None,
    "in": None,
    "notIn": None,
    "like": frozenset({Scalar.STRING}),
    "occurs": frozenset({Scalar.DATE, Scalar.TIMESTAMP}),
    "and": None,
    "or": None,
    "+": frozenset({Scalar.NUMBER}),
    "-": frozenset({Scalar.NUMBER}),
    "*": frozenset({Scalar.NUMBER}),
    "/": frozenset({Scalar.NUMBER}),
    "%": frozenset({Scalar.NUMBER}),
}
"""Operators and the types they accept on the left; None is any."""

ALSO_FIELDS: Final = AGGREGATES | {"before", "after", "on", "between"}
BEFORE_OPERANDS: Final = OPERATOR_WORDS | ALSO_FIELDS | {"not"}
"""Words after which an operand may start; some of them may also be fields."""

SPELLED: Final = {"what": "WHAT", "when": "WHEN"}


def complete(
    text: str,
    offset: int,
    schema: ObjectType,
    *,
    segments: Mapping[str, str],
    values: Values = lambda path: (),
    limit: int = 20,
) -> list[Completion]:
    """The best completions at an offset (in characters; past the end means the end), best first. Never raises.

    `segments` maps ids to names.

    >>> schema = ObjectType({"income": Scalar.NUMBER, "name": Scalar.STRING})
    >>> [item.text for item in complete("inc", 3, schema, segments={})]
    ['income']
    >>> [item.text for item in complete("name.sta", 8, schema, segments={})]
    ['startsWith(', 'doesNotStartWith(']
    """
    offset = max(0, min(offset, len(text)))
    if len(text) > MAXIMUM_BYTES:
        return []
    place = _Place.of(text, offset)
    if place is None:
        return []
    ranked = _Ranked(place.typed)
    for word in _brought(place.before) if place.takes_words else ():
        ranked.add(word, CompletionKind.KEYWORD)
    tree = None if _is_complete(place.before) else tree_around(text[: place.start], place.before)
    if tree is not None:
        look = Look(text[: place.start], schema, segments)
        for completion in _operands(look, tree, segments, values, in_text=place.in_text):
            if completion[1] is CompletionKind.FIELD or not place.in_backquotes:
                ranked.add(*completion)
    if place.takes_words and (tree is None or (place.before and place.before[-1].word in ALSO_FIELDS)):
        for word in _keywords(place, text[: place.start], schema, segments):
            ranked.add(word, CompletionKind.KEYWORD)
    return [
        Completion(text, kind, None if detail is None else str(detail), place.start, place.end)
        for text, kind, detail in ranked.best(limit)
    ]


def _brought(before: Sequence[Token]) -> tuple[str, ...]:
    """Keywords that can follow the last words before the cursor, by `FOLLOWING`."""
    words = [token.word for token in before[-2:]]
    return FOLLOWING.get("occurs" if words == ["when", "("] else words[-1], ()) if words else ()


def _is_complete(before: Sequence[Token]) -> bool:
    """Whether the token before the cursor ends an operand, so that none can start there."""
    if not before:
        return False
    last = before[-1]
    if last.kind is TokenKind.NAME:
        return last.word not in BEFORE_OPERANDS or (len(before) > 1 and before[-2].word == ".")
    return last.word in (")", "]") or last.kind in (TokenKind.NUMBER, TokenKind.STRING, TokenKind.PARAMETER)


@dataclass(frozen=True, slots=True)
class _Place:
    """The token at the cursor, which is replaced; the typed part of it; and the tokens before it."""

    before: list[Token]
    start: int
    end: int
    typed: str
    in_text: bool = False

    @property
    def in_backquotes(self) -> bool:
        return self.typed.startswith("`")

    @property
    def takes_words(self) -> bool:
        return not self.in_text and not self.in_backquotes

    @classmethod
    def of(cls, text: str, offset: int) -> "_Place | None":
        """None where nothing can be completed: inside a number."""
        before: list[Token] = []
        for token in tokens(text):
            open_text = token.kind is TokenKind.BAD and token.text[0] in "\"'"
            in_text = token.start < offset and (open_text or (token.kind is TokenKind.STRING and offset < token.end))
            if in_text:
                # An unterminated string extends to the end of the line; the characters after the cursor are not part of
                # it.
                end = offset if open_text else token.end
                return cls(before, token.start, end, text[token.start : offset], in_text=True)
            if token.kind is TokenKind.BAD and token.text == "`" and token.start < offset:
                return cls(before, token.start, offset, text[token.start : offset])
            if token.kind is TokenKind.NAME and token.start <= offset <= token.end:
                return cls(before, token.start, token.end, text[token.start : offset])
            if token.start < offset <= token.end and token.kind in (TokenKind.NUMBER, TokenKind.PARAMETER):
                return None
            if token.end > offset or token.kind is TokenKind.END or token.start >= offset:
                return cls(before, offset, offset, "")
            before.append(token)
        return cls(before, offset, offset, "")


# ------------------------------------------------------------ candidates


def _operands(
    look: Look, tree: Tree, segments: Mapping[str, str], values: Values, *, in_text: bool
) -> Iterator[_Found]:
    """Candidates where an operand may start."""
    call, position, look.subject, labels = around_cursor(tree)
    look.at(tree)
    parameter = None if call is None else parameter_of(call, position)
    if parameter is Kind.SEGMENT:
        yield from (_text(id_, CompletionKind.SEGMENT, name) for id_, name in segments.items())
        return
    if parameter is Kind.TEST:
        yield from (_text(name, CompletionKind.VALUE, METHODS[name].description) for name in TEXT_TESTS)
        return
    yield from _values(look, values)
    if in_text:
        return
    if look.receiver is not None:
        yield from _members(look.receiver)
    elif not look.behind_point:
        if parameter is Kind.FLAG:
            yield from ((word, CompletionKind.VALUE, "boolean") for word in ("true", "false"))
        yield from ((label, CompletionKind.FIELD, "timestamp") for label in labels)
        yield from _names(look.scope or look.profile)
        yield from (_function(row) for row in FREE.values())
        yield from ((word, CompletionKind.KEYWORD, None) for word in OPENING)


def _values(look: Look, values: Values) -> Iterator[_Found]:
    type_ = leaf(look.subject_node.type) if look.subject_node is not None else None
    if type_ is Scalar.BOOLEAN:
        yield from ((word, CompletionKind.VALUE, "boolean") for word in ("true", "false"))
    elif type_ is Scalar.STRING and look.subject_path:
        where = ".".join(look.subject_path)
        yield from (_text(value, CompletionKind.VALUE, f"seen in {where}") for value in values(look.subject_path))


def _members(receiver: Node) -> Iterator[_Found]:
    """Candidates after a dot: fields, and the methods of the type."""
    type_ = leaf(receiver.type)
    if isinstance(type_, ObjectType):
        yield from _fields(type_)
    yield from (_function(row) for row in METHODS.values() if accepts(row, receiver.type))


def _names(scope: Names) -> Iterator[_Found]:
    """Variables and fields, innermost first; for nested objects also the paths."""
    hidden: set[str] = set()
    for around in scope.around():
        for name, value in around.variables.items():
            if name not in hidden and not name.startswith(CURSOR):
                yield bare_name(name), CompletionKind.FIELD, None if value is None else value.type
        hidden |= around.variables.keys()
        if around.element is not None:
            type_ = leaf(around.element.type)
            if isinstance(type_, ObjectType):
                shown = {name: inner for name, inner in type_.fields.items() if name not in hidden}
                yield from _fields(ObjectType(shown), bare_name)
                hidden |= type_.fields.keys()


def _fields(type_: ObjectType, write: Callable[[str], str] = written_name) -> Iterator[_Found]:
    """The fields and the paths below them; `write` renders the first name."""
    for name, inner in type_.fields.items():
        yield write(name), CompletionKind.FIELD, inner
    for names, inner in leaves(type_):
        if len(names) > 1:
            yield ".".join([write(names[0]), *map(written_name, names[1:])]), CompletionKind.FIELD, inner


def _function(row: Function) -> _Found:
    return f"{row.name}(" if row.parameters else f"{row.name}()", CompletionKind.FUNCTION, row.signature


def _text(value: str, kind: CompletionKind, detail: str | None) -> _Found:
    written = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{written}"', kind, detail


def _keywords(place: _Place, text: str, schema: ObjectType, segments: Mapping[str, str]) -> Iterator[str]:
    """Operators that accept the operand before the cursor, and the words that the grammar allows."""
    tree, power, words = what_may_follow(text, place.before)
    if tree is not None and power is not None:
        look = Look(text, schema, segments)
        look.at(tree)
        left = None if look.left is None else leaf(look.left)
        for word, takes in OPERATORS.items():
            binds = INFIX[word.lower()]
            fits = (left is None or takes is None or left in takes) and not (look.is_test and binds == COMPARISON)
            if fits and binds >= power and not (word == "in" and "in" in words):
                yield word
    if "millisecond" in words:
        words = [word for word in words if word not in UNITS]
    yield from (SPELLED.get(word, word) for word in words)


# ------------------------------------------------------------ ranking


_QUOTES: Final = '"`'


class _Ranked:
    """Completions ordered by how well they match the typed text, then by insertion order."""

    def __init__(self, typed: str) -> None:
        self._typed = typed
        self._lower = typed.lower().strip(_QUOTES)
        self._ranks: dict[tuple[str, CompletionKind], tuple[int, int, _Found]] = {}

    def add(self, text: str, kind: CompletionKind, detail: object = None) -> None:
        rank = self._rank(text, kind, detail)
        if rank is not None and (text, kind) not in self._ranks:
            self._ranks[text, kind] = rank, len(self._ranks), (text, kind, detail)

    def _rank(self, text: str, kind: CompletionKind, detail: object) -> int | None:
        """0: starts with the typed text; 1: ignoring case; 2: one of its parts does; 3: it or its detail contains the
        text."""
        if not self._lower:
            return 1 if kind is CompletionKind.FIELD and "." in text else 0
        if text.startswith(self._typed):
            return 0
        lower = text.lower().strip(_QUOTES)
        if lower.startswith(self._lower):
            return 1
        if kind is CompletionKind.KEYWORD:
            return None
        if f".{self._lower}" in lower:
            return 2
        if self._lower in lower or (kind is CompletionKind.SEGMENT and self._lower in str(detail or "").lower()):
            return 3
        return None

    def best(self, limit: int) -> list[_Found]:
        return [completion for _, _, completion in nsmallest(max(0, limit), self._ranks.values())]
