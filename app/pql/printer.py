"""The canonical text of a syntax tree: one spelling for each meaning by form; knows no types.

Printing is idempotent, and what is printed parses to an equal tree. Operators carry only the parentheses that they
need;
constructs that reach as far right as they can (`let`, `exists`, `select`, `sum … over`) are parenthesised inside
others.
"""

from collections.abc import Generator
from typing import Any, Final

from app.pql.nodes import (
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
    Let,
    Literal,
    Logic,
    Moment,
    Name,
    Negate,
    Not,
    OccursAt,
    OccursBetween,
    OccursWithin,
    Parameter,
    Period,
    Quantifier,
    Select,
    Tree,
)
from app.pql.walking import run

_OPEN, _OR, _AND, _NOT, _COMPARISON, _SUM, _PRODUCT, _NEGATION, _POSTFIX = range(9)
"""How tightly constructs bind, loosest first (pql.md, "Operators, loosest first")."""

_BINARY: Final = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT}
_LOGIC: Final = {"or": _OR, "and": _AND}

_Printing = Generator[Any, Any, str]


def print_tree(tree: Tree) -> str:
    """The canonical text.

    >>> from app.pql.parser import parse
    >>> print_tree(parse('NOT ( (country)="US"  OR (income>1) )'))
    'not (country = "US" or income > 1)'
    """
    body = run(_expression(tree.body))
    if not tree.parameters:
        return body
    return f"({', '.join(parameter.name for parameter in tree.parameters)}) => {body}"


def _power(node: Expr) -> int:
    match node:
        case Let() | Quantifier() | Select() | Aggregate():
            return _OPEN
        case Logic():
            return _LOGIC[node.operator]
        case Not():
            return _NOT
        case Binary():
            return _BINARY.get(node.operator, _COMPARISON)
        case OccursWithin() | OccursAt() | OccursBetween():
            return _COMPARISON
        case Negate():
            return _NEGATION
        case _:
            return _POSTFIX


def _within(node: Expr, least: int) -> _Printing:
    """The node as an operand that must bind at least so tightly."""
    text: str = yield _expression(node)
    return text if _power(node) >= least else f"({text})"


def _listed(nodes: tuple[Expr, ...]) -> _Printing:
    """Between commas; what would take a comma for its own is parenthesised."""
    texts = []
    for node in nodes:
        texts.append((yield _within(node, _OR if len(nodes) > 1 else _OPEN)))
    return ", ".join(texts)


def _expression(node: Expr) -> _Printing:
    match node:
        case Literal():
            return _literal(node.value)
        case Name():
            return "^" * node.up + node.name
        case Parameter():
            return f"${node.position}"
        case Moment():
            return node.word
        case Period():
            return f"{node.which} {node.unit}"
        case Field():
            return f"{(yield _receiver(node.object))}.{node.name}"
        case Call():
            receiver = "" if node.receiver is None else (yield _receiver(node.receiver)) + "."
            return f"{receiver}{node.name}({(yield _listed(node.arguments))})"
        case Index():
            return f"{(yield _receiver(node.array))}[{(yield _expression(node.condition))}]"
        case ArrayLiteral():
            return f"[{(yield _listed(node.items))}]"
        case Not():
            return f"not {(yield _within(node.operand, _NOT))}"
        case Negate():
            return f"-{(yield _within(node.operand, _POSTFIX))}"
        case Logic():
            texts = []
            for operand in node.operands:
                texts.append((yield _within(operand, _LOGIC[node.operator] + 1)))
            return f" {node.operator} ".join(texts)
        case Binary():
            power = _power(node)
            left = yield _within(node.left, _SUM if power == _COMPARISON else power)
            right = yield _within(node.right, power + 1)
            return f"{left} {node.operator} {right}"
        case OccursWithin() | OccursAt() | OccursBetween():
            time = "" if node.time is None else (yield _within(node.time, _SUM)) + " "
            return f"{time}occurs {(yield _occurs(node))}"
        case Let():
            # A bare `in` would end the value, so whatever may hold one is parenthesised.
            value = yield _within(node.value, _SUM)
            return f"let {node.name} = {value} in {(yield _expression(node.body))}"
        case Quantifier():
            clauses = []
            for clause in node.clauses:
                clauses.append((yield _clause(clause, _OR if len(node.clauses) > 1 else _OPEN)))
            return f"{node.kind} {', '.join(clauses)}"
        case Select():
            return f"select {(yield _clause(node.clause))}"
        case Aggregate():
            body = "" if node.body is None else f"{(yield _within(node.body, _SUM))} over "
            return f"{node.kind} {body}{(yield _clause(node.clause))}"
        case Chain():
            text: str = yield _chain(node)
            return text


def _receiver(node: Expr) -> _Printing:
    """What a dot or a bracket may follow: `last month` and numbers would read otherwise."""
    text: str = yield _within(node, _POSTFIX)
    wrapped = isinstance(node, Period) or (isinstance(node, Literal) and not isinstance(node.value, str))
    return f"({text})" if wrapped else text


def _occurs(node: OccursWithin | OccursAt | OccursBetween) -> _Printing:
    """What follows `occurs`, and what stands inside a WHEN."""
    match node:
        case OccursWithin():
            count = yield _within(node.count, _SUM)
            unit = node.unit if node.count == Literal(1.0) else UNITS[node.unit]
            return f"{node.operator} {count} {unit} {node.direction} {(yield _within(node.reference, _SUM))}"
        case OccursAt():
            return f"{node.relation} {(yield _within(node.reference, _SUM))}"
        case OccursBetween():
            return f"between {(yield _within(node.start, _SUM))} and {(yield _within(node.end, _SUM))}"


def _clause(clause: Clause, least: int = _OPEN) -> _Printing:
    array = yield _within(clause.array, _SUM)
    return f"{clause.variable} from {array} where {(yield _within(clause.condition, least))}"


def _chain(node: Chain) -> _Printing:
    array, time = (yield _within(node.array, _OR)), (yield _within(node.time, _OR))
    steps = []
    for step in node.steps:
        when = "" if step.when is None else f" WHEN({(yield _occurs(step.when))})"
        steps.append(f"{step.label}: WHAT({(yield _expression(step.what))}){when}")
    return f"CHAIN({array}, {time}, [{', '.join(steps)}])"


def _literal(value: str | float | bool | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'"{escaped}"'
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(float(value))
