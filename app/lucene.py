"""Parses Lucene query syntax into a tree; knows neither the index nor the contents of its fields."""

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import StrEnum
from typing import NoReturn

from app.errors import Diagnostic, DiagnosticKind, ExpressionRefused

LONGEST = 2_000
DEEPEST = 30
MOST_CLAUSES = 100
LARGEST_SLOP = 1_000
LARGEST_BOOST = 100.0
FARTHEST = 2
"""Maximum edit distance of a fuzzy word."""


class Occur(StrEnum):
    """How a clause affects its group. A group of SHOULD clauses only needs one to match; a group of MUST_NOT clauses
    only matches everything else."""

    SHOULD = ""
    MUST = "+"
    MUST_NOT = "-"


class Wild(StrEnum):
    ANY = "*"
    ONE = "?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A leaf without a `field` is searched in names and descriptions; `start` and `end` are offsets."""

    field: str | None = None
    start: int = 0
    end: int = 0
    boost: float = 1.0


@dataclass(frozen=True, slots=True)
class Everything(Leaf):
    """Matches everything: `*`, `*:*` and the empty text."""


@dataclass(frozen=True, slots=True)
class Word(Leaf):
    text: str


@dataclass(frozen=True, slots=True)
class Fuzzy(Leaf):
    """`blue~1`: words within `distance` edits (insertion, deletion, substitution or transposition of a letter)."""

    text: str
    distance: int


@dataclass(frozen=True, slots=True)
class Wildcard(Leaf):
    """`run*`, `cam?`: literals and wildcards in their order; `*` stands for any characters, `?` for exactly one."""

    parts: tuple[str | Wild, ...]


@dataclass(frozen=True, slots=True)
class Phrase(Leaf):
    """Words in this order, or with `slop` (`"hotel airport"~5`) reachable by at most that many moves of a word."""

    text: str
    slop: int = 0


@dataclass(frozen=True, slots=True)
class Regex(Leaf):
    """`/[mh]otel/`: a pattern for one whole word."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Group:
    clauses: tuple[tuple[Occur, "Node"], ...]
    boost: float = 1.0


Node = Leaf | Group


def parse(text: str, fields: Collection[str]) -> Node:
    """Parses a query into a tree. Raises `ExpressionRefused` with the position, as a 1-based offset, for invalid
    syntax. AND binds tighter than OR, and adjacent words are joined by OR: `a b AND c` is `a OR (b AND c)`.

    >>> parse("name:blue~1 -sale", {"name"})
    ... # doctest: +NORMALIZE_WHITESPACE
    Group(clauses=((<Occur.SHOULD: ''>, Fuzzy(field='name', start=5, end=11, boost=1.0, text='blue', distance=1)),
                   (<Occur.MUST_NOT: '-'>, Word(field=None, start=13, end=17, boost=1.0, text='sale'))), boost=1.0)
    """
    return _Parser(text, fields).query()


def refuse(
    message: str,
    start: int,
    end: int,
    kind: DiagnosticKind = DiagnosticKind.SYNTAX,
    suggestions: tuple[str, ...] = (),
) -> NoReturn:
    """Raises `ExpressionRefused`. A query is one line: the column is the 1-based offset."""
    raise ExpressionRefused([Diagnostic(kind, message, 1, start + 1, max(0, end - start), suggestions)], ("term",))


_SPACE = re.compile(r"\s*")
_OPERATOR = re.compile(r"(AND|OR|NOT)(?=[\s()]|$)|&&|\|\||!(?=\S)")
_NAMES = {"&&": "AND", "||": "OR", "!": "NOT"}
_FIELD = re.compile(r"([^\W\d]\w*|\*)\s*:")
_WORD = re.compile(r'(?:\\[\s\S]|[^\s()\[\]{}"^~:\\])+')
_PIECE = re.compile(r"\\([\s\S])|(\*+|\?)|([^\\*?]+)")
_PHRASE = re.compile(r'"((?:\\[\s\S]|[^"\\])*)"')
_REGEX = re.compile(r"/((?:\\[\s\S]|[^/\\])*)/")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WHOLE = 'write the character as \\{0}, or put the text into double quotes: "…"'


class _Parser:
    """Recursive descent parser; each method starts where the next token may be preceded by spaces."""

    def __init__(self, text: str, fields: Collection[str]) -> None:
        self._text = text
        self._fields = fields
        self._at = 0
        self._depth = 0
        self._clauses = 0

    def query(self) -> Node:
        if len(self._text) > LONGEST:
            message = f"the query has {len(self._text)} characters, and at most {LONGEST:,} are read: shorten it"
            refuse(message, LONGEST, len(self._text), DiagnosticKind.LIMIT)
        try:
            self._text.encode()
        except UnicodeEncodeError as error:
            refuse("this is half of a character: omit it", error.start, error.start + 1)
        if not self._text.strip():
            return Everything(end=len(self._text))
        node = self._any_of(None)
        if not self._is_end():
            refuse('this ")" closes no "(": take it out, or open one before it', self._at, self._at + 1)
        return node

    # ------------------------------------------------------------ groups

    def _any_of(self, field: str | None) -> Node:
        """Clauses joined by OR, explicitly or by adjacency."""
        clauses = [self._all_of(field)]
        while not self._is_end() and not self._is(")"):
            self._takes("OR")
            clauses.append(self._all_of(field))
        return _group(clauses)

    def _all_of(self, field: str | None) -> tuple[Occur, Node]:
        """Clauses joined by AND, as one clause."""
        clauses = [self._clause(field)]
        while self._takes("AND"):
            clauses.append(self._clause(field))
        if len(clauses) == 1:
            return clauses[0]
        needed = [(Occur.MUST if occur is Occur.SHOULD else occur, node) for occur, node in clauses]
        return Occur.SHOULD, Group(tuple(needed))

    def _clause(self, field: str | None) -> tuple[Occur, Node]:
        occur = Occur.SHOULD
        self._skip()
        if self._takes("NOT"):
            occur = Occur.MUST_NOT
        elif self._is("+") or self._is("-"):
            sign, start = self._text[self._at], self._at
            self._at += 1
            if self._at == len(self._text) or self._text[self._at].isspace():
                message = f'"{sign}" stands directly before what it is about, as in {sign}word: {_WHOLE.format(sign)}'
                refuse(message, start, start + 1)
            occur = Occur(sign)
        return occur, self._primary(field)

    def _primary(self, field: str | None) -> Node:
        self._clauses += 1
        if self._clauses > MOST_CLAUSES:
            message = f"the query has more than {MOST_CLAUSES} parts: leave some out"
            refuse(message, self._at, len(self._text), DiagnosticKind.LIMIT)
        self._skip()
        if self._at == len(self._text):
            refuse(
                "the query ends where a word is expected: add one, or take out what stands before", self._at, self._at
            )
        if operator := _OPERATOR.match(self._text, self._at):
            name = operator[0]
            message = f'a word is expected and here is the operator {name}: to search for it write "{name.lower()}"'
            refuse(message, *operator.span())
        if (named := _FIELD.match(self._text, self._at)) and not self._is("*:*"):
            return self._boosted(self._named(named))
        return self._boosted(self._simple(field))

    def _named(self, found: re.Match[str]) -> Node:
        name = found[1]
        if name not in self._fields:
            spelled = {field.lower(): field for field in self._fields}
            suggestions = tuple(spelled[near] for near in get_close_matches(name.lower(), spelled, 3))
            fields = ", ".join(sorted(self._fields))
            message = f"there is no field {name!r}; the fields are {fields}. To search for a colon write it as \\:"
            refuse(message, *found.span(1), DiagnosticKind.UNKNOWN_FIELD, suggestions)
        self._at = found.end()
        self._skip()
        if self._at == len(self._text) or self._is(")") or _OPERATOR.match(self._text, self._at):
            refuse(
                f"the field {name!r} has nothing to look for after its colon: add a word", found.start(), found.end()
            )
        return self._simple(name)

    def _simple(self, field: str | None) -> Node:
        """What may follow a field: a group, a phrase, a regular expression or a word."""
        readers: dict[str, Callable[[str | None], Node]] = {"(": self._nested, '"': self._phrase, "/": self._regex}
        return readers.get(self._text[self._at], self._word)(field)

    def _nested(self, field: str | None) -> Node:
        start = self._at
        self._depth += 1
        if self._depth > DEEPEST:
            message = f"parentheses are more than {DEEPEST} deep: write the query flatter"
            refuse(message, start, start + 1, DiagnosticKind.LIMIT)
        self._at += 1
        if self._is(")"):
            refuse('there is nothing between "(" and ")": put a word there, or take both out', start, self._at + 1)
        if self._is_end():
            refuse('this "(" is never closed: add a ")"', start, start + 1)
        node = self._any_of(field)
        if not self._is(")"):
            refuse('this "(" is never closed: add a ")"', start, start + 1)
        self._at += 1
        self._depth -= 1
        return node

    # ------------------------------------------------------------ leaves

    def _phrase(self, field: str | None) -> Node:
        start = self._at
        match = _PHRASE.match(self._text, start)
        if match is None:
            refuse("this double quote is never closed: add one at the end of the phrase", start, len(self._text))
        self._at = match.end()
        slop = self._number("~", LARGEST_SLOP, default=None) or 0
        return Phrase(field=field, start=start, end=self._at, text=_plain(match[1]), slop=int(slop))

    def _regex(self, field: str | None) -> Node:
        start = self._at
        match = _REGEX.match(self._text, start)
        if match is None:
            message = f'this "/" begins a regular expression that never ends: add a "/", or {_WHOLE.format("/")}'
            refuse(message, start, len(self._text))
        if not match[1]:
            refuse("the regular expression between the slashes is empty: write one", *match.span())
        self._at = match.end()
        return Regex(field=field, start=start, end=self._at, pattern=match[1].replace("\\/", "/"))

    def _word(self, field: str | None) -> Node:
        start = self._at
        match = _WORD.match(self._text, start)
        if match is None:
            self._refuse_character()
        self._at = match.end()
        parts = tuple(_pieces(match[0]))
        wild = any(isinstance(part, Wild) for part in parts)
        if self._at < len(self._text) and self._text[self._at] == "~":
            if wild:
                message = "a word is fuzzy (~) or has wildcards (* ?), not both: take one of them out"
                refuse(message, start, self._at + 1)
            distance = self._number("~", FARTHEST, default=FARTHEST)
            return Fuzzy(field=field, start=start, end=self._at, text="".join(parts), distance=int(distance or 0))
        if parts == (Wild.ANY,) and self._text.startswith(":*", self._at):
            self._at += 2
            return Everything(start=start, end=self._at)
        if self._at < len(self._text) and self._text[self._at] in ':"\\[{':
            self._refuse_character()
        if parts == (Wild.ANY,) and field is None:
            return Everything(start=start, end=self._at)
        if wild:
            return Wildcard(field=field, start=start, end=self._at, parts=parts)
        return Word(field=field, start=start, end=self._at, text="".join(parts))

    def _boosted(self, node: Node) -> Node:
        start = self._at
        factor = self._number("^", LARGEST_BOOST, default=0)
        if factor is None:
            return node
        if not factor:
            refuse('"^" needs a number above 0 after it, as in word^2', start, self._at)
        return replace(node, boost=node.boost * factor)

    def _number(self, sign: str, largest: float, default: float | None) -> float | None:
        """The number after the sign at this position; `default` if the sign has no number, None if there is no sign."""
        if self._at == len(self._text) or self._text[self._at] != sign:
            return None
        start = self._at
        self._at += 1
        match = _NUMBER.match(self._text, self._at)
        if match is None:
            after = self._text[self._at : self._at + 1]
            if default is not None and (not after or after.isspace() or after in ")^~"):
                return default
            refuse(f'"{sign}" needs a number after it: {_WHOLE.format(sign)}', start, self._at)
        self._at = match.end()
        value = float(match[0])
        if value > largest or (sign == "~" and not value.is_integer()):
            kind = "whole number from 0" if sign == "~" else "number"
            refuse(f"{match[0]} is not possible after {sign}: write a {kind} up to {largest:g}", *match.span())
        return value

    def _refuse_character(self) -> NoReturn:
        character, end = self._text[self._at], self._at + 1
        if character in "[]{}":
            refuse(f"ranges are not supported: {_WHOLE.format(character)}", self._at, end)
        if character == "\\":
            refuse("the backslash has nothing after it: it goes before a character to take it as it is", self._at, end)
        if character == ":":
            refuse(f"a colon goes between a field and a word: {_WHOLE.format(':')}", self._at, end)
        refuse(f"{character!r} cannot stand here: {_WHOLE.format(character)}", self._at, end)

    # ------------------------------------------------------------ characters

    def _skip(self) -> None:
        self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]  # it matches anything

    def _is(self, text: str) -> bool:
        self._skip()
        return self._text.startswith(text, self._at)

    def _is_end(self) -> bool:
        self._skip()
        return self._at == len(self._text)

    def _takes(self, operator: str) -> bool:
        self._skip()
        match = _OPERATOR.match(self._text, self._at)
        if match is None or _NAMES.get(match[0], match[0]) != operator:
            return False
        self._at = match.end()
        return True


def _group(clauses: list[tuple[Occur, Node]]) -> Node:
    """A group of one clause is replaced by the clause."""
    (occur, node), *others = clauses
    return Group(tuple(clauses)) if others or occur is Occur.MUST_NOT else node


def _pieces(word: str) -> Iterator[str | Wild]:
    """The literals and wildcards of a word, in order; a backslash makes the next character literal."""
    literal = ""
    for escaped, wild, plain in _PIECE.findall(word):
        if wild:
            yield from (literal,) if literal else ()
            yield Wild(wild[0])
            literal = ""
        else:
            literal += escaped or plain
    if literal:
        yield literal


def _plain(text: str) -> str:
    return re.sub(r"\\([\s\S])", r"\1", text)
