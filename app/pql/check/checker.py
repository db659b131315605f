"""Checks PQL text against a profile schema and turns it into core nodes. Services and the engine enter the language
only here."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import cached_property

from app.errors import Diagnostic, DiagnosticKind, ExpressionRefused, Severity
from app.pql.check import binders, calls, names, operators, times
from app.pql.check.scopes import Names
from app.pql.check.sizes import too_large
from app.pql.check.state import NO_ALIASES, Checking, Checks, comparable, unified
from app.pql.check.trace import Trace
from app.pql.core import Builder, Node
from app.pql.eligibility import StreamingEligibility, streaming_eligibility
from app.pql.schema import ArrayType, ObjectType, Scalar, Type
from app.pql.syntax.nodes import (
    Aggregate,
    ArrayLiteral,
    Binary,
    Call,
    Chain,
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
    OccursAt,
    OccursBetween,
    OccursWithin,
    Parameter,
    Period,
    Quantifier,
    Select,
    Tree,
)
from app.pql.syntax.parser import parse
from app.pql.syntax.printer import print_tree
from app.pql.syntax.trampoline import run

REFUSED = StreamingEligibility(False, ("the expression has errors",))


@dataclass(frozen=True)
class Checked:
    """The result of checking a text. `tree` is None if it does not parse, `condition` if it has errors.

    `references` are the ids of all segments named in the text, including unknown ones.
    """

    diagnostics: tuple[Diagnostic, ...]
    tree: Tree | None
    condition: Node | None
    references: frozenset[str]

    @cached_property
    def canonical(self) -> str | None:
        """The text as the printer writes it; None if it does not parse."""
        return None if self.tree is None else print_tree(self.tree)

    @cached_property
    def streaming(self) -> StreamingEligibility:
        return REFUSED if self.condition is None else streaming_eligibility(self.condition)

    @property
    def ok(self) -> bool:
        return not any(finding.severity is Severity.ERROR for finding in self.diagnostics)


def check(
    text: str,
    schema: ObjectType,
    *,
    segments: Container[str],
    aliases: Mapping[str, str] = NO_ALIASES,
    builder: Builder | None = None,
    trace: Trace | None = None,
) -> Checked:
    """Parses and checks a segment's expression. Mistakes in the text become diagnostics, never exceptions.

    `segments` are the ids that `inSegment` may name; `aliases` maps other names to ids. If `segments` is iterable,
    similar ids are suggested for unknown ones. A `trace` records what each part of the tree became.

    >>> schema = ObjectType({"income": Scalar.NUMBER})
    >>> check("income>10", schema, segments=()).condition
    gt(field(element(0), 'income'), const(10.0))
    >>> check("incme > 10", schema, segments=()).diagnostics[0].suggestions
    ('income',)
    """
    try:
        tree = parse(text)
    except ExpressionRefused as refused:
        return Checked(refused.diagnostics, None, None, frozenset())
    checking = Checking(text, schema, segments, builder or Builder(), visit, aliases)
    checking.trace = trace
    condition = run(segment(checking, tree))
    return Checked(checking.diagnostics, tree, condition, frozenset(checking.references))


@dataclass(frozen=True, slots=True)
class CheckedValue:
    """The result of checking a text that stands for a value. `node` is None if it has errors."""

    diagnostics: tuple[Diagnostic, ...]
    node: Node | None
    references: frozenset[str]


def check_value(
    text: str,
    schema: ObjectType,
    *,
    segments: Container[str],
    aliases: Mapping[str, str] = NO_ALIASES,
    builder: Builder | None = None,
) -> CheckedValue:
    """Parses and checks an expression for a single value of a profile: a number, text, boolean, date or timestamp.

    >>> schema = ObjectType({"income": Scalar.NUMBER})
    >>> check_value("income * 2", schema, segments=()).node
    multiply(field(element(0), 'income'), const(2.0))
    """
    try:
        tree = parse(text)
    except ExpressionRefused as refused:
        return CheckedValue(refused.diagnostics, None, frozenset())
    checking = Checking(text, schema, segments, builder or Builder(), visit, aliases)
    node: Node | None = run(checking.visit(tree.body, _profile_scope(checking, tree)))
    if node is not None and (not isinstance(node.type, Scalar) or node.type is Scalar.INTERVAL):
        message = f"expected a single value, not {node.type}: use count(), sum(), max() or another aggregate"
        checking.type_error(message, tree.body.span)
    _refuse_bombs(checking, tree, node)
    diagnostics = checking.diagnostics
    return CheckedValue(diagnostics, None if diagnostics else node, frozenset(checking.references))


def segment(checking: Checking, tree: Tree) -> Checks:
    """The condition of a whole tree; None if there are errors."""
    condition = yield checking.condition(tree.body, _profile_scope(checking, tree), "the result of a segment")
    _refuse_bombs(checking, tree, condition)
    return None if checking.diagnostics else condition


def _refuse_bombs(checking: Checking, tree: Tree, node: Node | None) -> None:
    if node is not None and (problem := too_large(node)):
        checking.error(DiagnosticKind.LIMIT, f"the expression is too large: {problem}", tree.body.span)


def _profile_scope(checking: Checking, tree: Tree) -> Names:
    scope = Names(0, is_level=True, element=checking.profile)
    for place, parameter in enumerate(tree.parameters):
        if place > 0:
            message = f"a segment has one parameter, the profile: remove `{parameter.name}`"
            checking.error(DiagnosticKind.ARGUMENT_COUNT, message, parameter.span)
        scope = scope.with_variable(parameter.name, checking.profile if place == 0 else None)
    return scope


def visit(checking: Checking, expr: Expr, scope: Names) -> Checks:  # noqa: C901  # one `match` over the kinds of nodes
    """The node of any expression; None after reporting an error."""
    match expr:
        case Field():
            return (yield names.step(checking, expr, scope))
        case Name():
            return names.bare(checking, expr, scope)
        case Literal():
            return _literal(checking, expr)
        case Binary():
            return (yield operators.binary(checking, expr, scope))
        case Call():
            return (yield calls.call(checking, expr, scope))
        case Logic():
            return (yield operators.logic(checking, expr, scope))
        case Not():
            return (yield operators.negation(checking, expr, scope))
        case Negate():
            return (yield operators.minus(checking, expr, scope))
        case Index():
            return (yield binders.index(checking, expr, scope))
        case ArrayLiteral():
            return (yield _array(checking, expr, scope))
        case OccursWithin() | OccursAt() | OccursBetween():
            return (yield times.occurs(checking, expr, scope))
        case Moment():
            return times.moment(checking, expr)
        case Period():
            return times.period(checking, expr)
        case Parameter():
            return names.parameter(checking, expr)
        case Let():
            return (yield binders.let(checking, expr, scope))
        case Quantifier():
            return (yield binders.quantifier(checking, expr, scope))
        case Select():
            return (yield binders.select(checking, expr, scope))
        case Aggregate():
            return (yield binders.aggregate(checking, expr, scope))
        case Chain():
            return (yield binders.chain(checking, expr, scope))
        case Lambda():
            message = "a function `(x) => …` can only stand as what map, filter and the like do with each element"
            checking.type_error(message, expr.span)
            return None


def _literal(checking: Checking, expr: Literal) -> Node:
    if expr.value is None:
        return checking.builder.constant(None, Scalar.NULL)
    return checking.constant(expr.value)


def _array(checking: Checking, expr: ArrayLiteral, scope: Names) -> Checks:
    items: list[Node | None] = []
    element: Type = Scalar.NULL
    for item in expr.items:
        value: Node | None = yield checking.visit(item, scope)
        if value is not None:
            fitting = _element_type(element, value.type)
            if fitting is None:
                message = f"the elements of an array must be of one type, not {element} and {value.type}"
                checking.type_error(message, item.span)
                value = None
            else:
                element = fitting
        items.append(value)
    valid = [item for item in items if item is not None]
    if len(valid) < len(items):
        return None
    operands = [checking.known_as(item, element) for item in valid]
    return checking.builder.node("array", ArrayType(element), *operands)


def _element_type(before: Type, this: Type) -> Type | None:
    """The common type of an array's elements. Dates mixed with timestamps become timestamps; an interval is not a
    value."""
    if this is Scalar.INTERVAL:
        return None
    if before is not this and Scalar.NULL not in (before, this) and comparable(before, this):
        return Scalar.TIMESTAMP
    return unified(before, this)
