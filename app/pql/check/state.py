"""The state of one check: builder, findings, and conversions shared by all constructs; knows no particular
construct."""

from collections.abc import Callable, Container, Iterable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from app.errors import Diagnostic, DiagnosticKind
from app.pql.check.scopes import Fields, Names
from app.pql.check.trace import Trace
from app.pql.core import CONDITIONS, Builder, Node
from app.pql.schema import ArrayType, ObjectType, Scalar, Type
from app.pql.syntax.nodes import Expr, Span
from app.pql.syntax.positions import Positions
from app.pql.syntax.trampoline import Walking

Checks: TypeAlias = Walking[Node | None]
"""A walk that returns the node of an expression, or None after reporting why there is none."""

COMPARABLE_TIMES: Final = frozenset({Scalar.DATE, Scalar.TIMESTAMP})


NO_ALIASES: Mapping[str, str] = MappingProxyType({})


class Checking:
    """Shared by the modules that each check one construct. `visit` checks any expression in a scope."""

    def __init__(
        self,
        text: str,
        schema: ObjectType,
        segments: Container[str],
        builder: Builder,
        visit: "Callable[[Checking, Expr, Names], Checks]",
        aliases: Mapping[str, str] = NO_ALIASES,
    ) -> None:
        self.builder = builder
        self.fields = Fields(builder)
        self.schema = schema
        self.segments = segments
        self.aliases = aliases
        self.references: set[str] = set()
        self.trace: Trace | None = None
        self.profile = builder.node("element", schema, payload=(0,))
        self._visit = visit
        self._positions = Positions(text)
        self._found: dict[tuple[int, DiagnosticKind], Diagnostic] = {}

    def visit(self, expr: Expr, scope: Names) -> Checks:
        return self._visit(self, expr, scope) if self.trace is None else self._traced(self.trace, expr, scope)

    def _traced(self, trace: Trace, expr: Expr, scope: Names) -> Checks:
        node: Node | None = yield self._visit(self, expr, scope)
        if node is not None:
            trace.note(expr, node, scope)
        return node

    @property
    def diagnostics(self) -> tuple[Diagnostic, ...]:
        return tuple(sorted(self._found.values(), key=lambda finding: (finding.line, finding.column)))

    def error(self, kind: DiagnosticKind, message: str, span: Span, suggestions: Iterable[str] = ()) -> None:
        """Reports an error; at most one of each kind per place."""
        diagnostic = self._positions.diagnostic(kind, message, *span, suggestions=tuple(suggestions))
        self._found.setdefault((span[0], kind), diagnostic)

    def type_error(self, message: str, span: Span) -> None:
        self.error(DiagnosticKind.TYPE, message, span)

    def condition(self, expr: Expr, scope: Names, what: str) -> Checks:
        """Checks an expression that must be a condition; `what` names its place in messages."""
        value: Node | None = yield self.visit(expr, scope)
        if value is None:
            return None
        condition_node = self.as_condition(value)
        if condition_node is None:
            self.type_error(f"{what} must be a boolean or an array, not {value.type}: {_as_test(value)}", expr.span)
        elif self.trace is not None:
            self.trace.conditions[id(expr)] = condition_node
        return condition_node

    def as_condition(self, value: Node) -> Node | None:
        """The value as a `cond`: null becomes false, an array becomes "is not empty". None for any other type."""
        if value.type is Scalar.NULL:
            return self.constant(False)
        if isinstance(value.type, ArrayType):
            return self.builder.condition("not_empty", value)
        if value.type is not Scalar.BOOLEAN:
            return None
        if value.op in CONDITIONS or (value.op == "const" and value.payload[0] is not None):
            return value
        return self.builder.condition("truth", value)

    def constant(self, value: bool | float | str) -> Node:
        if isinstance(value, bool):
            return self.builder.constant(value, Scalar.BOOLEAN)
        return self.builder.constant(value, Scalar.STRING if isinstance(value, str) else Scalar.NUMBER)

    def any_of(self, value: Node, depth: int, test: Callable[[Node], Node]) -> Node:
        """The test of a scalar, or of any element of an array (including nested arrays)."""
        if not isinstance(value.type, ArrayType):
            return test(value)
        inner = self.any_of(self.fields.element(value, depth), depth + 1, test)
        return self.builder.condition("exists", value, inner, payload=(depth + 1,))

    def each_of(self, value: Node, depth: int, reading: Callable[[Node], Node]) -> Node:
        """The reading of a scalar, or an array of the readings of an array's elements."""
        if not isinstance(value.type, ArrayType):
            return reading(value)
        inner = self.each_of(self.fields.element(value, depth), depth + 1, reading)
        return self.fields.mapped(value, inner, depth + 1)

    def known_as(self, value: Node, type_: Type) -> Node:
        """The value with a compatible type: `null` and `[]` take any type, and a date becomes a timestamp."""
        if value.type == type_:
            return value
        if value.op == "const" and value.type is Scalar.NULL:
            return self.builder.constant(None, type_)
        if value.op == "if":
            test, *branches = value.operands
            return self.builder.node("if", type_, test, *(self.known_as(branch, type_) for branch in branches))
        if value.op == "array" and isinstance(type_, ArrayType):
            items = [self.known_as(item, type_.element) for item in value.operands]
            return self.builder.node("array", type_, *items)
        return self.builder.node("typed", type_, value)

    def alike(self, left: Node, right: Node) -> tuple[Node, Node]:
        """Two arrays with the same type for comparison; an array of nulls takes the other's type."""
        type_ = unified(left.type, right.type)
        return (left, right) if type_ is None else (self.known_as(left, type_), self.known_as(right, type_))


def leaf(type_: Type) -> Type:
    """The innermost element type of an array; any other type unchanged."""
    while isinstance(type_, ArrayType):
        type_ = type_.element
    return type_


def comparable(left: Type, right: Type) -> bool:
    """Whether two scalars can be compared for equality: same type, a date with a timestamp, or null."""
    if not isinstance(left, Scalar) or not isinstance(right, Scalar) or Scalar.INTERVAL in (left, right):
        return False
    return left is right or Scalar.NULL in (left, right) or {left, right} <= COMPARABLE_TIMES


def unified(left: Type, right: Type) -> Type | None:
    """The common type of two alternatives; None if they differ. `null` and `[]` take the other's type.

    >>> unified(Scalar.NUMBER, Scalar.NUMBER), unified(Scalar.NULL, Scalar.DATE), unified(Scalar.NUMBER, Scalar.DATE)
    (<Scalar.NUMBER: 'number'>, <Scalar.DATE: 'date'>, None)
    """
    if left is Scalar.NULL:
        return right
    if right is Scalar.NULL:
        return left
    if isinstance(left, ArrayType) and isinstance(right, ArrayType):
        element = unified(left.element, right.element)
        return None if element is None else ArrayType(element)
    return left if left == right else None


def _as_test(value: Node) -> str:
    if isinstance(value.type, Scalar):
        return "compare it with something"
    return "use .isNotNull() to ask whether it is there"
