"""Parses the part of an expression before a cursor, with placeholders for what is missing after it; knows no types.

It yields the tree around the cursor, if an operand may stand there, and the words that may follow.
"""

from collections.abc import Collection
from typing import Final

from app.errors import ExpressionRefused
from app.pql.syntax.lexer import Token, TokenKind
from app.pql.syntax.nodes import Expr, Literal, Tree
from app.pql.syntax.parser import INFIX, Parser
from app.pql.syntax.tokens import Walk
from app.pql.syntax.trampoline import Walking, run

CURSOR: Final = "\N{CARET INSERTION POINT}"
"""The name placed at the cursor; it cannot occur in a text."""


class PrefixParser(Parser):
    """A parser that never fails because the text ends: at the end, any required token is assumed."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        super().__init__("")
        self.text = text
        self.tokens = [*tokens, Token(TokenKind.END, "", len(text))]
        self.power: int | None = None
        """Minimum binding power of operators allowed at the end; None if no operator is allowed."""
        self.words: list[str] = []
        """Other words allowed there."""
        self._listening = True
        self._made_up = 0

    def expression(self, minimum: int) -> Walk:
        parsed: Expr = yield from super().expression(minimum)
        if self._at_end() and self._listening:
            self.power = minimum if self.power is None else min(self.power, minimum)
        return parsed

    def operand(self) -> Walk:
        if self._at_end():
            self._listening = False
            return Literal(None, span=(len(self.text), len(self.text)))
        return (yield from super().operand())

    def at(self, word: str) -> bool:
        if word not in INFIX:
            self._hear((word,))
        return super().at(word)

    def expect_any(self, words: Collection[str], expected: str) -> Token:
        if not self._at_end():
            return super().expect_any(words, expected)
        self.require(words, expected)
        word = next(iter(words))
        return Token(TokenKind.NAME, word, len(self.text), word)

    def require(self, words: Collection[str], expected: str) -> None:
        if not self._at_end():
            super().require(words, expected)
        self._hear(words)
        self._listening = self._listening and not self._at_end()

    def expect_name(self, what: str) -> Token:
        if self.token.text == CURSOR:
            # The user chooses new names.
            raise self.unexpected(what)
        if not self._at_end():
            return super().expect_name(what)
        self._listening = False
        # Generated labels and variables must be distinct.
        self._made_up += 1
        return Token(TokenKind.NAME, f"{CURSOR}{self._made_up}", len(self.text))

    def _at_end(self) -> bool:
        return self.token.kind is TokenKind.END

    def _hear(self, words: Collection[str]) -> None:
        if self._listening and self._at_end():
            self.words.extend(word for word in words if word.isalpha())


def tree_around(text: str, tokens: list[Token]) -> Tree | None:
    """The tree of the tokens followed by the operand `CURSOR`; None if no operand may stand there."""
    at_cursor = Token(TokenKind.NAME, CURSOR, len(text), CURSOR)
    try:
        return run(PrefixParser(text, [*tokens, at_cursor]).whole())
    except ExpressionRefused:
        return None


def what_may_follow(text: str, tokens: list[Token]) -> tuple[Tree | None, int | None, list[str]]:
    """The tree of the tokens, the minimum binding power of a following operator, and the other words that may
    follow."""
    parser = PrefixParser(text, tokens)
    walk: Walking[Tree] = parser.whole()
    try:
        tree = run(walk)
    except ExpressionRefused:
        return None, None, []
    return tree, parser.power, list(dict.fromkeys(parser.words))
