"""Parses the part of an expression before a cursor, with what is missing after it made up; knows no types.

Two things are learnt from it: the tree around the cursor, if an operand may stand there, and the words that may.
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
"""The name that stands at the cursor; no text can hold it as a name."""


class PrefixParser(Parser):
    """A parse that never fails for want of text: at the end, whatever has to follow is taken to be there."""

    def __init__(self, text: str, tokens: list[Token]) -> None:
        super().__init__("")
        self.text = text
        self.tokens = [*tokens, Token(TokenKind.END, "", len(text))]
        self.power: int | None = None
        """Operators that bind at least so tightly may stand at the end; None when no operator may."""
        self.words: list[str] = []
        """Other words that may stand there."""
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
            # A new name is the user's to choose.
            raise self.unexpected(what)
        if not self._at_end():
            return super().expect_name(what)
        self._listening = False
        # Labels and variables made up must differ from each other.
        self._made_up += 1
        return Token(TokenKind.NAME, f"{CURSOR}{self._made_up}", len(self.text))

    def _at_end(self) -> bool:
        return self.token.kind is TokenKind.END

    def _hear(self, words: Collection[str]) -> None:
        if self._listening and self._at_end():
            self.words.extend(word for word in words if word.isalpha())


def tree_around(text: str, tokens: list[Token]) -> Tree | None:
    """The tree of the tokens and an operand, the name `CURSOR`, after them; None when no operand may stand there."""
    at_cursor = Token(TokenKind.NAME, CURSOR, len(text), CURSOR)
    try:
        return run(PrefixParser(text, [*tokens, at_cursor]).whole())
    except ExpressionRefused:
        return None


def what_may_follow(text: str, tokens: list[Token]) -> tuple[Tree | None, int | None, list[str]]:
    """The tree of the tokens, how tightly an operator after them has to bind, and the other words that may follow."""
    parser = PrefixParser(text, tokens)
    walk: Walking[Tree] = parser.whole()
    try:
        tree = run(walk)
    except ExpressionRefused:
        return None, None, []
    return tree, parser.power, list(dict.fromkeys(parser.words))
