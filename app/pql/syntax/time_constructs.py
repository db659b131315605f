"""Parses time constructs: periods, and what may follow `occurs` or stand in a WHEN; knows no types."""

from typing import TYPE_CHECKING, Final

from app.pql.syntax.lexer import Token, TokenKind
from app.pql.syntax.nodes import SINGULAR, UNITS, Expr, Occurs, OccursAt, OccursBetween, OccursWithin, Period
from app.pql.syntax.tokens import OPERATOR_WORDS, Walk
from app.pql.syntax.trampoline import Walking

if TYPE_CHECKING:
    from app.pql.syntax.parser import Parser

COMPARISONS: Final = frozenset({"=", "!=", "<", "<=", ">", ">="})
DIRECTIONS: Final = ("before", "after", "from")
ADDITIVE: Final = 5
"""Binding power of the operands of `occurs`: `and`, comparisons and similar operators end them."""
UNIT_NAMES: Final = "a unit of time (" + ", ".join(UNITS) + ")"


def period_follows(parser: "Parser") -> bool:
    """`this`, `last` and `next` are fields unless a name follows, which can only be a unit."""
    if parser.token.word not in ("this", "last", "next"):
        return False
    following = parser.ahead()
    return following.kind is TokenKind.NAME and following.word not in OPERATOR_WORDS


def period(parser: "Parser") -> Expr:
    which = parser.advance()
    unit = _unit(parser)
    return Period(which.word, unit, span=(which.start, parser.end))


def occurs(parser: "Parser", time: Expr | None, occurs_token: Token) -> Walking[Occurs]:
    """The test after `occurs` (with `time` on its left), or the content of a WHEN (`time` is None)."""
    token = parser.token
    start = occurs_token.start if time is None else time.span[0]
    at = occurs_token.start
    if token.word in COMPARISONS:
        return (yield _within(parser, time, at, start))
    if token.word == "between":
        parser.advance()
        low: Expr = yield parser.expression(ADDITIVE)
        parser.expect("and")
        high: Expr = yield parser.expression(ADDITIVE)
        return OccursBetween(time, low, high, at=at, span=(start, parser.end))
    relation = "on"
    if token.word in ("before", "after") or (token.word == "on" and _operand_after_on(parser)):
        relation = parser.advance().word
    reference: Expr = yield parser.expression(ADDITIVE)
    return OccursAt(time, relation, reference, at=at, span=(start, parser.end))


def _within(parser: "Parser", time: Expr | None, at: int, start: int) -> Walk:
    operator = parser.advance().word
    count: Expr = yield parser.expression(ADDITIVE)
    unit = _unit(parser)
    direction = parser.expect_any(DIRECTIONS, "`before`, `after` or `from`").word
    reference: Expr = yield parser.expression(ADDITIVE)
    return OccursWithin(time, operator, count, unit, direction, reference, at=at, span=(start, parser.end))


def _operand_after_on(parser: "Parser") -> bool:
    return parser.operand_follows() or parser.ahead().word in ("(", "-")


def _unit(parser: "Parser") -> str:
    return SINGULAR[parser.expect_any(SINGULAR, UNIT_NAMES).word]
