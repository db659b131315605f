"""The canonical text of a syntax tree: one spelling per construct, minimal parentheses; knows no types.

`parse(print_tree(tree)) == tree`, and printing that tree again yields the same text.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from app.pql.functions import FREE
from app.pql.syntax.constructs import AGGREGATES
from app.pql.syntax.lexer import written_name
from app.pql.syntax.nodes import (
    UNITS,
    Aggregate,
    ArrayLiteral,
    Binary,
    Call,
    Chain,
    Clause,
    Expr,
    Field,
    Index,
    Lambda,
    Let,
    Literal,
    Logic,
    Moment,
    Name,
    Negate,
    Not,
    Occurs,
    OccursAt,
    OccursBetween,
    OccursWithin,
    Parameter,
    Period,
    Quantifier,
    Select,
    Step,
    Tree,
)
from app.pql.syntax.parser import AND, COMPARISON, INFIX, NOT, OR, SUM, UNARY
from app.pql.syntax.tokens import bare_name
from app.pql.syntax.trampoline import Walking, run

POSTFIX: Final = UNARY + 1

_TAKES_UNIT: Final = re.compile(rf"(?:^|[^.\w])(?:this|last|next|{'|'.join(AGGREGATES)})$", re.IGNORECASE)
"""A number of units that ends in such a word (a field's name) would consume the unit as its own."""

Prints: TypeAlias = Walking[str]


@dataclass(frozen=True, slots=True)
class Place:
    """The context in which an expression is printed.

    Its operators must bind at least as tightly as `power`. `followed` is true if text follows before the next closing
    bracket; `before_in` if a bare `in` would end the expression; `before_over` inside an aggregate's body, where `sum
    -x` is not a subtraction.
    """

    power: int = 0
    followed: bool = False
    before_in: bool = False
    before_over: bool = False

    def at(self, power: int, *, followed: bool) -> "Place":
        """The context of a part of this expression; the last part is followed by whatever follows the whole."""
        return replace(self, power=power, followed=followed or self.followed)


ANYWHERE: Final = Place()


def print_tree(tree: Tree) -> str:
    """The canonical text.

    >>> from app.pql.syntax.parser import parse
    >>> print_tree(parse('((income>1)) AND NOT (tags.count() = 2.0)'))
    'income > 1 and not tags.count() = 2'
    """
    body = run(_expr(tree.body, ANYWHERE))
    if not tree.parameters:
        return body
    return f"({', '.join(bare_name(parameter.name) for parameter in tree.parameters)}) => {body}"


def print_number(value: float) -> str:
    """Whole numbers are printed without a decimal point as long as they are exact."""
    return str(int(value)) if value == int(value) and abs(value) < 1e16 else repr(value)


def _expr(expr: Expr, place: Place) -> Prints:
    if _needs_parentheses(expr, place):
        return f"({(yield _bare(expr, ANYWHERE))})"
    return (yield _bare(expr, place))


def _needs_parentheses(expr: Expr, place: Place) -> bool:
    match expr:
        case Let() | Quantifier() | Select() | Aggregate() | Lambda():
            return place.followed
        case Logic():
            return INFIX[expr.operator] < place.power
        case Not():
            return place.power > NOT
        case Binary():
            return INFIX[expr.operator.lower()] < place.power or (expr.operator == "in" and place.before_in)
        case OccursWithin() | OccursAt() | OccursBetween():
            return place.power > COMPARISON
        case Negate():
            return place.power > UNARY
        case Name():
            return place.before_over and expr.name.lower() in AGGREGATES
    return False


def _bare(expr: Expr, place: Place) -> Prints:  # noqa: C901  # one `match` over the kinds of nodes
    match expr:
        case Literal() | Name() | Parameter() | Moment() | Period():
            return _leaf(expr)
        case Field():
            return f"{(yield _receiver(expr.object, place))}.{written_name(expr.name)}"
        case Index():
            array = yield _receiver(expr.array, place)
            return f"{array}[{(yield _expr(expr.condition, ANYWHERE))}]"
        case Call():
            receiver = "" if expr.receiver is None else f"{(yield _receiver(expr.receiver, place))}."
            return f"{receiver}{expr.name}({(yield _list(expr.arguments))})"
        case ArrayLiteral():
            return f"[{(yield _list(expr.items))}]"
        case Not():
            return f"not {(yield _expr(expr.operand, place.at(NOT, followed=False)))}"
        case Negate():
            operand: str = yield _expr(expr.operand, place.at(UNARY, followed=False))
            return f"- {operand}" if operand.startswith("-") else f"-{operand}"
        case Logic():
            return (yield _logic(expr, place))
        case Binary():
            power = INFIX[expr.operator.lower()]
            left = yield _expr(expr.left, place.at(power, followed=True))
            return f"{left} {expr.operator} {(yield _expr(expr.right, place.at(power + 1, followed=False)))}"
        case OccursWithin() | OccursAt() | OccursBetween():
            return (yield _occurs(expr, place))
        case Let():
            value = yield _expr(expr.value, Place(followed=True, before_in=True))
            return f"let {bare_name(expr.name)} = {value} in {(yield _expr(expr.body, place.at(0, followed=False)))}"
        case Quantifier():
            return (yield _quantifier(expr, place))
        case Select():
            return f"select {(yield _clause(expr.clause, place, last=True))}"
        case Aggregate():
            return (yield _aggregate(expr, place))
        case Chain():
            return (yield _chain(expr))
        case Lambda():
            parameters = ", ".join(bare_name(parameter.name) for parameter in expr.parameters)
            return f"({parameters}) => {(yield _expr(expr.body, place.at(0, followed=False)))}"


def _leaf(expr: Literal | Name | Parameter | Moment | Period) -> str:
    match expr:
        case Literal(value=None):
            return "null"
        case Literal(value=bool(value)):
            return "true" if value else "false"
        case Literal(value=float(value)):
            return print_number(value)
        case Literal(value=int(value)):
            return str(value)
        case Literal(value=value):
            return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Name():
            return "^" * expr.up + bare_name(expr.name)
        case Parameter():
            return f"${expr.position}"
        case Moment():
            return expr.word
        case Period():
            return f"{expr.which} {expr.unit}"


def _receiver(expr: Expr, place: Place) -> Prints:
    return (yield _expr(expr, place.at(POSTFIX, followed=True)))


def _list(items: tuple[Expr, ...]) -> Prints:
    printed: list[str] = []
    for item in items:
        printed.append((yield _expr(item, ANYWHERE)))
    return ", ".join(printed)


def _logic(expr: Logic, place: Place) -> Prints:
    power = OR if expr.operator == "or" else AND
    printed: list[str] = []
    for number, operand in enumerate(expr.operands, 1):
        printed.append((yield _expr(operand, place.at(power + 1, followed=number < len(expr.operands)))))
    return f" {expr.operator} ".join(printed)


def _occurs(expr: Occurs, place: Place) -> Prints:
    time = ""
    if expr.time is not None:
        time = f"{(yield _expr(expr.time, place.at(COMPARISON, followed=True)))} occurs "
    return time + (yield _test(expr, place))


def _test(expr: Occurs, place: Place) -> Prints:
    """The test after `occurs` or in a WHEN."""
    middle, last = place.at(SUM, followed=True), place.at(SUM, followed=False)
    match expr:
        case OccursAt():
            # `on` is written only where the reference would otherwise be ambiguous.
            reference = yield _expr(expr.reference, last)
            needless = expr.relation == "on" and (_is_plain(expr.reference) or reference.startswith("["))
            return reference if needless else f"{expr.relation} {reference}"
        case OccursBetween():
            return f"between {(yield _expr(expr.start, middle))} and {(yield _expr(expr.end, last))}"
        case OccursWithin():
            count = yield _expr(expr.count, middle)
            if _TAKES_UNIT.search(count):
                count = f"({count})"
            unit = expr.unit if expr.count == Literal(1.0) else UNITS[expr.unit]
            reference = yield _expr(expr.reference, last)
            return f"{expr.operator} {count} {unit} {expr.direction} {reference}"


def _is_plain(reference: Expr) -> bool:
    return isinstance(reference, Moment | Period) or (
        isinstance(reference, Call) and reference.receiver is None and reference.name in FREE
    )


def _clause(clause: Clause, place: Place, *, last: bool) -> Prints:
    array = yield _expr(clause.array, place.at(SUM, followed=True))
    condition = yield _expr(clause.condition, place.at(0, followed=not last))
    return f"{bare_name(clause.variable)} from {array} where {condition}"


def _quantifier(expr: Quantifier, place: Place) -> Prints:
    printed: list[str] = []
    for number, clause in enumerate(expr.clauses, 1):
        printed.append((yield _clause(clause, place, last=number == len(expr.clauses))))
    return f"{expr.kind} {', '.join(printed)}"


def _aggregate(expr: Aggregate, place: Place) -> Prints:
    body = ""
    if expr.body is not None:
        body = f"{(yield _expr(expr.body, replace(place.at(0, followed=True), before_over=True)))} over "
    return f"{expr.kind} {body}{(yield _clause(expr.clause, place, last=True))}"


def _chain(expr: Chain) -> Prints:
    array = yield _expr(expr.array, ANYWHERE)
    time = yield _expr(expr.time, ANYWHERE)
    steps: list[str] = []
    for step in expr.steps:
        steps.append((yield _step(step)))
    return f"CHAIN({array}, {time}, [{', '.join(steps)}])"


def _step(step: Step) -> Prints:
    what = yield _expr(step.what, ANYWHERE)
    where = "" if step.where is None else f" WHERE({(yield _expr(step.where, ANYWHERE))})"
    when = "" if step.when is None else f" WHEN({(yield _test(step.when, ANYWHERE))})"
    count = "" if step.count is None else f" COUNT({(yield _expr(step.count, ANYWHERE))})"
    return f"{bare_name(step.label)}: WHAT({what}){where}{when}{count}"
