"""Cuts PQL text into tokens with their offsets; knows no grammar and never refuses (a bad token is for the parser to
report)."""

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
    """`word` is what the grammar looks at: a name in lower case, a symbol as it is, else empty.

    `value` is the text of a string or of a name in backquotes without quotes and escapes, and the reason why a BAD
    token is bad.
    """

    kind: TokenKind
    text: str
    start: int
    word: str = ""
    value: str = ""

    @property
    def name(self) -> str:
        """What a NAME names."""
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
    """Whether the text is one name of the language."""
    return _NAME.fullmatch(text) is not None


def written_name(name: str) -> str:
    """The name as it is written where any name may stand: in backquotes when it is none of the language.

    >>> written_name("amount"), written_name("Order Date"), written_name("a`b")
    ('amount', '`Order Date`', '`a``b`')
    """
    return name if is_name(name) else "`" + name.replace("`", "``") + "`"


def tokens(text: str) -> list[Token]:
    """All tokens, the last one END at one past the last character."""
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
