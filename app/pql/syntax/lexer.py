"""Splits PQL text into tokens with offsets; knows no grammar and never fails (the parser reports BAD tokens)."""

import re
from enum import Enum, auto
from typing import Final, NamedTuple


class TokenKind(Enum):
    NAME = auto()
    NUMBER = auto()
    STRING = auto()
    PARAMETER = auto()
    SYMBOL = auto()
    BAD = auto()
    END = auto()


class Token(NamedTuple):
    """`word` is what the grammar sees: a name in lower case, a symbol as it is, otherwise empty.

    `value` is the unquoted, unescaped text of a string or backquoted name; for a BAD token it is the reason.
    """

    kind: TokenKind
    text: str
    start: int
    word: str = ""
    value: str = ""

    @property
    def name(self) -> str:
        """The name that a NAME token denotes."""
        return self.value or self.text

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_TOKEN: Final = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<name>[^\W\d]\w*)
  | (?P<quoted>`(?:[^`]|``)+`)
  | (?P<number>[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9]))
  | (?P<symbol>=>|<=|>=|!=|[=<>+\-*/%()\[\],:.^!])
  | (?P<string>"(?:[^"\\]|\\["'\\])*"|'(?:[^'\\]|\\["'\\])*')
  | (?P<parameter>\$[0-9]+)
  | (?P<broken>(?:"(?:[^"\\]|\\["'\\])*|'(?:[^'\\]|\\["'\\])*)(?P<escape>\\[^"'\\]))
  | (?P<open>["'](?s:.*))
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_NAME: Final = re.compile(r"[^\W\d]\w*")
_HINTS: Final = {
    "“": 'write a string in straight double quotes: "text"',
    "”": 'write a string in straight double quotes: "text"',
    "`": "write a name between backquotes: `Order Date`",
    "&": "write `and`",
    "|": "write `or`",
    "{": "write a list in brackets: [1, 2]",
    ";": "separate arguments with commas",
    "$": "parameters are $1, $2, …",
}


def is_name(text: str) -> bool:
    """Whether the text is a plain name of the language."""
    return _NAME.fullmatch(text) is not None


def written_name(name: str) -> str:
    """The name as written in any position: in backquotes unless it is a plain name.

    >>> written_name("amount"), written_name("Order Date"), written_name("a`b")
    ('amount', '`Order Date`', '`a``b`')
    """
    return name if is_name(name) else "`" + name.replace("`", "``") + "`"


def tokens(text: str) -> list[Token]:
    """All tokens; the last one is END, one past the last character."""
    tokens_read: list[Token] = []
    for match in _TOKEN.finditer(text):
        kind, piece, start = match.lastgroup, match.group(), match.start()
        if kind == "name":
            tokens_read.append(Token(TokenKind.NAME, piece, start, piece.lower()))
        elif kind == "quoted":
            tokens_read.append(Token(TokenKind.NAME, piece, start, "`", piece[1:-1].replace("``", "`")))
        elif kind == "symbol":
            tokens_read.append(Token(TokenKind.SYMBOL, piece, start, piece))
        elif kind == "string":
            value = piece[1:-1]
            if "\\" in value:
                value = re.sub(r"\\(.)", r"\1", value)
            tokens_read.append(Token(TokenKind.STRING, piece, start, value=value))
        elif kind == "number":
            tokens_read.append(Token(TokenKind.NUMBER, piece, start))
        elif kind == "parameter":
            tokens_read.append(Token(TokenKind.PARAMETER, piece, start))
        elif kind != "space":
            tokens_read.append(_bad(match))
    tokens_read.append(Token(TokenKind.END, "", len(text)))
    return tokens_read


def _bad(match: re.Match[str]) -> Token:
    piece, start = match.group(), match.start()
    escape = match.group("escape")
    if escape is not None:
        reason = f'`{escape}` is not an escape: write \\" for a quote and \\\\ for a backslash'
        return Token(TokenKind.BAD, escape, match.start("escape"), value=reason)
    if match.lastgroup == "open":
        return Token(TokenKind.BAD, piece, start, value=f"unterminated string: its closing {piece[0]} is missing")
    reason = f"the character `{piece}` is not part of the language"
    if piece in _HINTS:
        reason += f"; {_HINTS[piece]}"
    return Token(TokenKind.BAD, piece, start, value=reason)
