"""Navigates the tokens of one text, tracks nesting, and rejects tokens that cannot continue; knows no grammar."""

from collections.abc import Collection
from typing import Final, TypeAlias

from app.errors import Diagnostic, DiagnosticKind, ExpressionRefused
from app.pql.syntax.lexer import Token, TokenKind, tokens, written_name
from app.pql.syntax.nodes import Expr
from app.pql.syntax.positions import Positions
from app.pql.syntax.trampoline import Walking

MAXIMUM_BYTES: Final = 64 * 1024
MAXIMUM_DEPTH: Final = 200

OPERATOR_WORDS: Final = frozenset(
    {"and", "or", "in", "notin", "like", "occurs", "from", "where", "over", "what", "when"}
)
RESERVED: Final = OPERATOR_WORDS | {"not", "let", "exists", "forall", "select", "true", "false", "null"}
"""Words that are never bare fields or variables; after a dot they are ordinary names."""
TIME_WORDS: Final = frozenset({"now", "today", "yesterday", "tomorrow"})
OPERAND: Final = "a field, a value or a parenthesis"

Walk: TypeAlias = Walking[Expr]


def bare_name(name: str) -> str:
    """The name as written where no dot precedes it.

    >>> bare_name("amount"), bare_name("and")
    ('amount', '`and`')
    """
    return f"`{name}`" if name.lower() in RESERVED | TIME_WORDS else written_name(name)


class Cursor:
    """The tokens of a text, the current token and its nesting."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > MAXIMUM_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAXIMUM_BYTES:
            raise self.refusal(
                DiagnosticKind.LIMIT,
                f"the expression has {len(text.encode('utf-8', 'surrogatepass'))} bytes, more than {MAXIMUM_BYTES}: "
                "split it into several segments and combine them with inSegment",
                Token(TokenKind.END, "", 0),
            )
        self.tokens = tokens(text)
        self.position = 0
        self.depth = 0
        self.before_in = False
        """Whether a bare `in` ends the current expression (the value of a `let`)."""

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def ahead(self, distance: int = 1) -> Token:
        return self.tokens[min(self.position + distance, len(self.tokens) - 1)]

    def advance(self) -> Token:
        token = self.tokens[self.position]
        if token.kind is not TokenKind.END:
            self.position += 1
        return token

    @property
    def end(self) -> int:
        """Offset after the last consumed token."""
        return self.tokens[self.position - 1].end if self.position else 0

    def at(self, word: str) -> bool:
        return self.tokens[self.position].word == word

    def take(self, word: str) -> bool:
        if self.at(word):
            self.position += 1
            return True
        return False

    def expect(self, word: str) -> Token:
        return self.expect_any((word,), f"`{word}`")

    def expect_any(self, words: Collection[str], expected: str) -> Token:
        """Consumes one of the words; `expected` describes them in an error."""
        self.require(words, expected)
        return self.advance()

    def require(self, words: Collection[str], expected: str) -> None:
        """Requires the current token to be one of the words, without consuming it."""
        if self.token.word not in words:
            raise self.unexpected(expected)

    def expect_name(self, what: str) -> Token:
        """Consumes a name that may be bound: any but the reserved words."""
        if self.token.kind is not TokenKind.NAME or self.token.word in RESERVED:
            raise self.unexpected(what)
        return self.advance()

    def enter(self, token: Token) -> None:
        """Enters a nesting level: `token` opened a parenthesis, a bracket, a call or a `not`."""
        self.depth += 1
        if self.depth > MAXIMUM_DEPTH:
            raise self.refusal(
                DiagnosticKind.LIMIT,
                f"the expression is nested deeper than {MAXIMUM_DEPTH} levels: "
                "take inner parts out with `let` or into segments of their own",
                token,
            )

    def leave(self) -> None:
        self.depth -= 1

    def operand_follows(self, distance: int = 1) -> bool:
        """Whether the token at this distance can start an operand and cannot continue one."""
        token = self.ahead(distance)
        if token.kind is TokenKind.NAME:
            return token.word not in OPERATOR_WORDS
        return token.kind in (TokenKind.NUMBER, TokenKind.STRING, TokenKind.PARAMETER) or token.word in ("^", "!")

    def unexpected(self, expected: str) -> ExpressionRefused:
        token = self.token
        if token.kind is TokenKind.BAD:
            message = token.value
        elif token.kind is TokenKind.END:
            message = f"the expression ends too early: {expected} is missing"
        else:
            message = f"`{token.text}` cannot stand here: expected {expected}"
        return self.refusal(DiagnosticKind.SYNTAX, message, token)

    def refusal(self, kind: DiagnosticKind, message: str, token: Token) -> ExpressionRefused:
        diagnostic: Diagnostic = Positions(self.text).diagnostic(kind, message, token.start, token.end)
        return ExpressionRefused([diagnostic])
