"""Parses the constructs that start with a keyword: let, exists, forall, select, sum … over, CHAIN; knows no types."""

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from app.errors import DiagnosticKind
from app.pql.syntax import time_constructs as time_forms
from app.pql.syntax.lexer import TokenKind
from app.pql.syntax.nodes import Aggregate, Chain, Clause, Expr, Let, Literal, Quantifier, Select, Step
from app.pql.syntax.tokens import Walk
from app.pql.syntax.trampoline import Walking

if TYPE_CHECKING:
    from app.pql.syntax.parser import Parser

_STEP_PARTS: Final = ("where", "when", "count")
AGGREGATES: Final = frozenset({"sum", "count", "average", "min", "max"})
ADDITIVE: Final = time_forms.ADDITIVE


def opening(parser: "Parser") -> Walk | None:
    """The construct that the current token starts, if any."""
    token = parser.token
    if token.kind is not TokenKind.NAME:
        return None
    match token.word:
        case "let":
            return _let(parser)
        case "exists" | "forall":
            return _quantifier(parser)
        case "select":
            return _select(parser)
        case "chain" if parser.ahead().word == "(":
            return _chain(parser)
        case word if word in AGGREGATES and _is_aggregate(parser):
            return _aggregate(parser)
    return None


def _let(parser: "Parser") -> Walk:
    start = parser.advance().start
    name = parser.expect_name("the name that the value gets")
    parser.expect("=")
    before_in, parser.before_in = parser.before_in, True
    value: Expr = yield parser.expression(0)
    parser.before_in = before_in
    parser.expect("in")
    body: Expr = yield parser.expression(0)
    return Let(name.name, value, body, span=(start, body.span[1]))


def _quantifier(parser: "Parser") -> Walk:
    opening_token = parser.advance()
    clauses: list[Clause] = [(yield _clause(parser))]
    while parser.token.word == "," and parser.ahead().kind is TokenKind.NAME and parser.ahead(2).word == "from":
        parser.advance()
        clauses.append((yield _clause(parser)))
    return Quantifier(opening_token.word, tuple(clauses), span=(opening_token.start, parser.end))


def _select(parser: "Parser") -> Walk:
    start = parser.advance().start
    clause = yield _clause(parser)
    return Select(clause, span=(start, parser.end))


def _clause(parser: "Parser") -> Walking[Clause]:
    """`V from A where C`, `V from A : C`, or `V from A` alone; C extends as far right as possible."""
    variable = parser.expect_name("the name of a variable")
    parser.expect("from")
    array: Expr = yield parser.expression(ADDITIVE)
    if not parser.take(":") and not parser.take("where"):
        return Clause(variable.name, array, Literal(True), span=(variable.start, parser.end))
    condition: Expr = yield parser.expression(0)
    return Clause(variable.name, array, condition, span=(variable.start, parser.end))


def _is_aggregate(parser: "Parser") -> bool:
    """Distinguishes `sum e over …` from a field named `sum`.

    The next token decides, except for `(`, `[` and `-`, which may also follow a field: then it is an aggregate if an
    `over` belongs to it.
    """
    if parser.operand_follows():
        return True
    if parser.token.word == "count" or parser.ahead().word not in ("(", "[", "-"):
        return False
    depth = 0
    for before, token in pairwise(parser.tokens[parser.position :]):
        if token.word in ("(", "["):
            depth += 1
        elif token.word in (")", "]"):
            depth -= 1
            if depth < 0:
                return False
        elif depth == 0 and token.word == "over":
            return True
        elif depth == 0 and (token.word in ("where", ",", ":") or (token.word in AGGREGATES and before.word != ".")):
            return False
    return False


def _aggregate(parser: "Parser") -> Walk:
    kind = parser.advance()
    body: Expr | None = None
    if kind.word != "count":
        body = yield parser.expression(0)
        parser.expect("over")
    clause = yield _clause(parser)
    return Aggregate(kind.word, body, clause, span=(kind.start, parser.end))


def _chain(parser: "Parser") -> Walk:
    start = parser.advance().start
    parser.enter(parser.advance())
    before_in, parser.before_in = parser.before_in, False
    array: Expr = yield parser.expression(0)
    parser.expect(",")
    time: Expr = yield parser.expression(0)
    parser.expect(",")
    parser.enter(parser.expect_any(("[",), "`[` and the steps of the sequence"))
    steps: list[Step] = [(yield _step(parser, set()))]
    while parser.take(","):
        steps.append((yield _step(parser, {step.label for step in steps})))
    parser.expect_closing("]", "`,` or ")
    parser.expect_closing(")", "")
    parser.before_in = before_in
    return Chain(array, time, tuple(steps), span=(start, parser.end))


def _follows(parser: "Parser", words: list[str]) -> bool:
    """Whether one of the words comes next. Each is queried separately, because an editor lists the possible words."""
    return True in [parser.at(word) for word in words]


def _step(parser: "Parser", earlier: set[str]) -> Walking[Step]:
    label = parser.expect_name("the label of a step")
    if label.name in earlier:
        message = f"the label `{label.text}` is already used: each step needs its own"
        raise parser.refusal(DiagnosticKind.SYNTAX, message, label)
    parser.expect(":")
    parser.expect_any(("what",), "`WHAT(…)`")
    parser.require("(", "`(`")
    what: Expr = yield parser.enclosed(parser.expression(0), ")")
    parts: dict[str, Any] = {}
    while _follows(parser, [word for word in _STEP_PARTS if word not in parts]):
        token = parser.advance()
        parser.require("(", "`(`")
        inner = time_forms.occurs(parser, None, token) if token.word == "when" else parser.expression(0)
        parts[token.word] = yield parser.enclosed(inner, ")")
    return Step(label.name, what, **parts, span=(label.start, parser.end))
