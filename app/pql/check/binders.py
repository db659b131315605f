"""Checks the constructs that bind names: let, exists, forall, select, sum … over, array[…], CHAIN; knows no
functions."""

from app.errors import DiagnosticKind
from app.pql.check import times
from app.pql.check.scopes import Names
from app.pql.check.state import Checking, Checks
from app.pql.core import Node, walk
from app.pql.schema import ArrayType, Scalar, Type
from app.pql.syntax.nodes import (
    Aggregate,
    Chain,
    Clause,
    Expr,
    Index,
    Let,
    Literal,
    Name,
    Occurs,
    Quantifier,
    Select,
    Span,
    Step,
)
from app.pql.syntax.trampoline import Walking

ORDERED = frozenset({Scalar.NUMBER, Scalar.STRING, Scalar.DATE, Scalar.TIMESTAMP})


def let(checking: Checking, expr: Let, scope: Names) -> Checks:
    value: Node | None = yield checking.visit(expr.value, scope)
    body: Node | None = yield checking.visit(expr.body, scope.with_variable(expr.name, value))
    return body


def index(checking: Checking, expr: Index, scope: Names) -> Checks:
    array: Node | None = yield checking.visit(expr.array, scope)
    if array is None:
        return None
    if not isinstance(array.type, ArrayType):
        checking.type_error(f"`[…]` filters an array, not {array.type}", (expr.at, expr.at + 1))
        return None
    inside = scope.level(checking.fields.element(array, scope.depth), array)
    condition = yield checking.condition(expr.condition, inside, "the condition in brackets")
    return None if condition is None else filtered(checking, array, condition, inside.depth)


def filtered(checking: Checking, array: Node, condition: Node, level: int) -> Node:
    return checking.builder.node("filter", array.type, array, condition, payload=(level,))


def quantifier(checking: Checking, expr: Quantifier, scope: Names) -> Checks:
    """Nests the clauses, first one outermost.

    `exists` tests each `where` as early as possible. In `forall` all conditions are innermost, because they must hold
    for every combination and there may be none.
    """
    inside = scope
    bound: list[tuple[Node | None, Node | None, int]] = []
    for clause in expr.clauses:
        array, condition, inside = yield _clause(checking, clause, inside, f"the condition of `{expr.kind}`")
        bound.append((array, condition, inside.depth))
    arrays = [(array, level) for array, _, level in bound if array is not None]
    conditions = [condition for _, condition, _ in bound if condition is not None]
    if len(arrays) < len(bound) or len(conditions) < len(bound):
        return None
    make = checking.builder.condition
    if expr.kind == "forall":
        body = conditions[0] if len(conditions) == 1 else make("and", *conditions)
        for array, level in reversed(arrays):
            body = make("forall", array, body, payload=(level,))
        return body
    array, level = arrays[-1]
    body = make("exists", array, conditions[-1], payload=(level,))
    for (array, level), condition in reversed(list(zip(arrays[:-1], conditions[:-1], strict=True))):
        body = make("exists", array, make("and", condition, body), payload=(level,))
    return body


def select(checking: Checking, expr: Select, scope: Names) -> Checks:
    array, condition, inside = yield _clause(checking, expr.clause, scope, "the condition of `select`")
    if array is None or condition is None:
        return None
    return filtered(checking, array, condition, inside.depth)


def aggregate(checking: Checking, expr: Aggregate, scope: Names) -> Checks:
    array, condition, inside = yield _clause(checking, expr.clause, scope, f"the condition of `{expr.kind}`")
    body: Node | None = None
    if expr.body is not None:
        body = yield checking.visit(expr.body, inside)
    if array is None or condition is None:
        return None
    matching = filtered(checking, array, condition, inside.depth)
    if expr.body is None:
        return checking.builder.node("count", Scalar.NUMBER, matching)
    if body is None:
        return None
    return reduced(checking, expr.kind, matching, body, inside.depth, expr.body.span)


def reduced(checking: Checking, op: str, array: Node, body: Node, level: int, blame: Span) -> Node | None:
    """`sum`, `average`, `min` or `max` of the body over the array; a body that is an array is flattened first."""
    if isinstance(body.type, ArrayType):
        array = checking.fields.mapped(array, body, level)
        body = checking.fields.element(array, level - 1)
        return reduced(checking, op, array, body, level, blame)
    type_: Type = body.type
    if type_ is Scalar.NULL:
        if op in ("min", "max"):
            return checking.builder.constant(None, type_)
        type_ = Scalar.NUMBER
        body = checking.known_as(body, type_)
    allowed = ORDERED if op in ("min", "max") else {Scalar.NUMBER}
    if type_ not in allowed:
        accepted = "numbers, strings, dates or timestamps" if op in ("min", "max") else "numbers"
        checking.type_error(f"`{op}` takes {accepted}, not values of type {type_}", blame)
        return None
    return checking.builder.node(op, type_, array, body, payload=(level,))


def _clause(
    checking: Checking, clause: Clause, scope: Names, what: str
) -> Walking[tuple[Node | None, Node | None, Names]]:
    """The array, the condition, and the scope that binds the clause's variable."""
    array: Node | None = yield checking.visit(clause.array, scope)
    if array is not None and not isinstance(array.type, ArrayType):
        checking.type_error(f"what follows `from` must be an array, not {array.type}", clause.array.span)
        array = None
    element = None if array is None else checking.fields.element(array, scope.depth)
    inside = scope.with_bound(clause.variable, element, array)
    condition = yield checking.condition(clause.condition, inside, what)
    return array, condition, inside


def chain(checking: Checking, expr: Chain, scope: Names) -> Checks:
    array: Node | None = yield checking.visit(expr.array, scope)
    if array is not None and not isinstance(array.type, ArrayType):
        checking.type_error(f"CHAIN goes over an array of events, not {array.type}", expr.array.span)
        array = None
    inside = scope.level(None if array is None else checking.fields.element(array, scope.depth), array)
    time: Node | None = yield _time(checking, expr.time, inside)
    whats: list[Node | None] = []
    whens: list[Node | None] = []
    for number, step in enumerate(expr.steps):
        whats.append((yield _what(checking, step, inside)))
        whens.append((yield _when(checking, expr.steps, number, inside, time)))
    valid = [node for node in (*whats, *whens) if node is not None]
    if array is None or time is None or len(valid) < 2 * len(expr.steps):
        return None
    counts = [_count(checking, step, when) for step, when in zip(expr.steps, whens, strict=True)]
    sound = tuple(count for count in counts if count is not None)
    if len(sound) < len(counts):
        return None
    return checking.builder.condition("chain", array, time, *valid, payload=(inside.depth, len(expr.steps), sound))


def _what(checking: Checking, step: Step, inside: Names) -> Checks:
    what: Node | None = yield checking.condition(step.what, inside, "the condition in WHAT")
    if step.where is None:
        return what
    where: Node | None = yield checking.condition(step.where, inside, "the condition in WHERE")
    return None if what is None or where is None else checking.builder.condition("and", what, where)


def _count(checking: Checking, step: Step, when: Node | None) -> int | None:
    """The number of events that the step needs; None after reporting an error."""
    if step.count is None:
        return 1
    number = step.count.value if isinstance(step.count, Literal) else None
    if not isinstance(number, int | float) or isinstance(number, bool) or number < 1 or number != int(number):
        checking.type_error("COUNT takes a written whole number of events, such as COUNT(5)", step.count.span)
        return None
    if number > 1 and when is not None and _turns_back(when):
        message = "COUNT cannot stand with `from` or `!=` and an earlier step: use `before` or `after`"
        checking.type_error(message, step.count.span)
        return None
    return int(number)


def _turns_back(when: Node) -> bool:
    """Whether events both before and after an earlier step can satisfy the WHEN."""
    two_sided = when.op == "occurs" and (when.payload[0] == "!=" or when.payload[2] == "from")
    return two_sided and any(node.op == "label" for node in walk(when))


def _time(checking: Checking, expr: Expr, inside: Names) -> Checks:
    time: Node | None = yield checking.visit(expr, inside)
    if time is not None and time.type not in (Scalar.TIMESTAMP, Scalar.DATE):
        checking.type_error(f"CHAIN orders by a timestamp of each event, not {time.type}", expr.span)
        return None
    return time


def _when(checking: Checking, steps: tuple[Step, ...], number: int, inside: Names, time: Node | None) -> Checks:
    step = steps[number]
    if step.when is None:
        return checking.constant(True)
    labels = {earlier.label: at for at, earlier in enumerate(steps[:number])}
    labels_in_scope = inside.names()
    for later in steps[number:]:
        for name in _references(step.when):
            if name.name == later.label and name.name not in labels_in_scope:
                message = f"`{name.name}` is not an earlier step: WHEN can only look back" + (
                    f", to {', '.join(f'`{label}`' for label in labels)}" if labels else ""
                )
                checking.error(DiagnosticKind.UNKNOWN_FIELD, message, name.span, tuple(labels))
    when: Node | None = yield times.occurs(checking, step.when, inside, time, labels)
    return when


def _references(when: Occurs) -> list[Name]:
    return [expr for expr, _ in times.operands_of(when) if isinstance(expr, Name) and not expr.up]
