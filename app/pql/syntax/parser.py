"""Parses PQL text into a syntax tree by operator precedence; knows no types and no schema.

Every construct is a generator run by `trampoline.run`, so deeply nested text does not consume Python's stack.
Constructs that start with a keyword are in `constructs`; what may follow `occurs` is in `time_constructs`.
"""

from dataclasses import replace
from math import isinf
from typing import Final

from app.errors import DiagnosticKind
from app.pql.syntax import constructs as forms
from app.pql.syntax import time_constructs as time_forms
from app.pql.syntax.lexer import Token, TokenKind
from app.pql.syntax.nodes import (
    ArrayLiteral,
    Binary,
    Call,
    Chain,
    Expr,
    Field,
    Index,
    Lambda,
    Literal,
    Moment,
    Name,
    Negate,
    Not,
    Parameter,
    Tree,
    Variable,
    joined,
)
from app.pql.syntax.tokens import OPERAND, OPERATOR_WORDS, RESERVED, TIME_WORDS, Cursor, Walk
from app.pql.syntax.trampoline import Walking, run

OR, AND, NOT, COMPARISON, SUM, PRODUCT, UNARY = range(1, 8)

INFIX: Final = {
    "or": OR,
    "and": AND,
    **dict.fromkeys(("=", "!=", "<", "<=", ">", ">=", "in", "notin", "like", "occurs"), COMPARISON),
    **dict.fromkeys(("+", "-"), SUM),
    **dict.fromkeys(("*", "/", "%"), PRODUCT),
}
CONSTANTS: Final = {"true": True, "false": False, "null": None}
SPELLING: Final = {"notin": "notIn"}


def parse(text: str) -> Tree:
    """The syntax tree of a text. Raises `ExpressionRefused` with one diagnostic, at the first token that cannot
    continue the text."""
    parser = Parser(text)
    return run(parser.whole())


class Parser(Cursor):
    """One parse. Functions that parse a construct take the parser as their first argument."""

    def whole(self) -> Walking[Tree]:
        parameters = self._parameters()
        body = yield self.expression(0)
        if self.token.kind is not TokenKind.END:
            raise self.unexpected("an operator or the end of the expression")
        return Tree(body, parameters)

    def expression(self, minimum: int) -> Walk:
        """An operand and all following operators whose binding power is at least `minimum`."""
        left: Expr = yield self.operand()
        while True:
            word = self.token.word
            power = INFIX.get(word, 0)
            if power == 0 or power < minimum or (word == "in" and self.before_in):
                return left
            if power <= AND:
                left = yield self._logic(word, power, left)
            elif word == "occurs":
                left = yield time_forms.occurs(self, left, self.advance())
            else:
                at = self.advance().start
                right: Expr = yield self.expression(power + 1)
                span = (left.span[0], right.span[1])
                left = Binary(SPELLING.get(word, word), left, right, at=at, span=span)

    def _logic(self, word: str, power: int, left: Expr) -> Walk:
        operands = [left]
        while self.take(word):
            operands.append((yield self.expression(power + 1)))
        return joined(word, operands, (left.span[0], self.end))

    def operand(self) -> Walk:
        """A primary followed by accesses with a dot or brackets, or a prefix construct."""
        token = self.token
        if token.word in ("not", "!"):
            self.enter(self.advance())
            inner: Expr = yield self.expression(NOT)
            self.leave()
            return Not(inner, span=(token.start, inner.span[1]))
        if token.word == "-":
            self.advance()
            inner = yield self.expression(UNARY)
            return Negate(inner, span=(token.start, inner.span[1]))
        form = forms.opening(self)
        left: Expr
        if form is not None:
            left = yield form
            if not isinstance(left, Chain):  # which ends with its parenthesis; the others reach as far as they can
                return left
        else:
            left = self._simple() or (yield self._composed())
        while self.token.word in (".", "["):
            left = yield self._postfix(left)
        return left

    def _simple(self) -> Expr | None:
        """An operand of one token, a period, or a bare name; None if it is none of these."""
        token = self.token
        if token.kind is TokenKind.STRING:
            self.advance()
            return Literal(token.value, span=(token.start, token.end))
        if token.kind is TokenKind.NUMBER:
            return self._number(self.advance())
        if token.kind is TokenKind.PARAMETER:
            self.advance()
            return Parameter(int(token.text[1:]), span=(token.start, token.end))
        if token.word == "^":
            return self._outer_name()
        if token.kind is not TokenKind.NAME:
            return None
        if token.word in CONSTANTS:
            self.advance()
            return Literal(CONSTANTS[token.word], span=(token.start, token.end))
        if self.ahead().word == "(" and token.word not in RESERVED:
            return None
        if token.word in TIME_WORDS:
            self.advance()
            return Moment(token.word, span=(token.start, token.end))
        if time_forms.period_follows(self):
            return time_forms.period(self)
        if token.word in RESERVED:
            raise self.unexpected(OPERAND)
        self.advance()
        return Name(token.name, at=token.start, span=(token.start, token.end))

    def _number(self, token: Token) -> Expr:
        value: float = float(token.text)
        if isinf(value):
            raise self.refusal(DiagnosticKind.LIMIT, f"the number {token.text} is larger than 1.8e308", token)
        if token.text.isdecimal() and int(token.text) != value:
            value = int(token.text)
        return Literal(value, span=(token.start, token.end))

    def _outer_name(self) -> Expr:
        start = self.token.start
        up = 0
        while self.take("^"):
            up += 1
        self.take(".")
        if self.token.kind is not TokenKind.NAME:
            raise self.unexpected("the name of a field")
        name = self.advance()
        if self.token.word == "(":
            raise self.unexpected("an operator (`^` stands before fields, not before functions)")
        return Name(name.name, up, at=name.start, span=(start, name.end))

    def _composed(self) -> Walk:
        token = self.token
        if token.word == "(":
            if parameters := self._parameters():
                body: Expr = yield self.expression(0)
                return Lambda(parameters, body, span=(token.start, body.span[1]))
            inner: Expr = yield self.enclosed(self.expression(0), ")")
            return replace(inner, span=(token.start, self.end))
        if token.word == "[":
            items = yield self.several("]")
            return ArrayLiteral(items, span=(token.start, self.end))
        if token.kind is TokenKind.NAME and token.word not in OPERATOR_WORDS and self.ahead().word == "(":
            self.advance()
            arguments = yield self.several(")")
            name = "if" if token.word == "if" else token.text
            return Call(None, name, arguments, at=token.start, span=(token.start, self.end))
        raise self.unexpected(OPERAND)

    def _postfix(self, left: Expr) -> Walk:
        start = left.span[0]
        opening = self.token
        if opening.word == "[":
            condition = yield self.enclosed(self.expression(0), "]")
            return Index(left, condition, at=opening.start, span=(start, self.end))
        self.advance()
        if self.token.kind is not TokenKind.NAME:
            raise self.unexpected("the name of a field or function")
        name = self.advance()
        if self.token.word != "(":
            return Field(left, name.name, at=name.start, span=(start, name.end))
        arguments = yield self.several(")")
        return Call(left, name.text, arguments, at=name.start, span=(start, self.end))

    def enclosed(self, inner: Walk, closing: str) -> Walk:
        """The current opening token, `inner`, and `closing`; inside, a bare `in` is an operator again."""
        self.enter(self.advance())
        before_in, self.before_in = self.before_in, False
        result: Expr = yield inner
        self.expect_closing(closing)
        self.before_in = before_in
        return result

    def several(self, closing: str) -> Walking[tuple[Expr, ...]]:
        """Expressions separated by commas between the current opening token and `closing`; may be empty."""
        self.enter(self.advance())
        before_in, self.before_in = self.before_in, False
        items: list[Expr] = []
        if self.token.word != closing:
            items.append((yield self.expression(0)))
            while self.take(","):
                items.append((yield self.expression(0)))
        self.expect_closing(closing, "`,` or ")
        self.before_in = before_in
        return tuple(items)

    def expect_closing(self, closing: str, otherwise: str = "an operator or ") -> None:
        self.expect_any((closing,), f"{otherwise}`{closing}`")
        self.leave()

    def _parameters(self) -> tuple[Variable, ...]:
        """`(P, Q) =>`, if it comes next."""
        at, tokens_ahead = self.position + 1, [self.token]
        while at + 1 < len(self.tokens) and tokens_ahead[-1].word in ("(", ","):
            if self.tokens[at].kind is not TokenKind.NAME:
                return ()
            tokens_ahead += self.tokens[at : at + 2]
            at += 2
        if len(tokens_ahead) < 3 or tokens_ahead[-1].word != ")" or self.tokens[at].word != "=>":
            return ()
        self.advance()
        names = [self.expect_name("the name of a parameter")]
        while self.take(","):
            names.append(self.expect_name("the name of a parameter"))
        self.expect(")")
        self.expect("=>")
        return tuple(Variable(name.name, span=(name.start, name.end)) for name in names)
