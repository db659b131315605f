"""What the checker knows at the cursor of an unfinished expression; produces no completions."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from app.errors import DiagnosticKind
from app.pql.check.checker import segment, visit
from app.pql.check.scopes import Fields, Names
from app.pql.check.state import Checking, Checks
from app.pql.core import Builder, Node
from app.pql.editor.prefixes import CURSOR
from app.pql.functions import FREE, METHODS, Kind
from app.pql.schema import ObjectType, Scalar, Type
from app.pql.syntax.nodes import (
    ArrayLiteral,
    Binary,
    Call,
    Chain,
    Clause,
    Expr,
    Field,
    Literal,
    Logic,
    Name,
    Step,
    Tree,
    children,
)
from app.pql.syntax.trampoline import run

Path = tuple[str, ...]

COMPARED: Final = frozenset({"=", "!=", "in", "notIn", "like"})
TAKES_VALUES: Final = frozenset({Kind.TEXT, Kind.ITEM, Kind.TEXTS, Kind.ITEMS})


class Look:
    """A check that records what it passes: the scope at the cursor, the value left of it, the operands' types."""

    def __init__(self, text: str, schema: ObjectType, segments: Mapping[str, str]) -> None:
        self._checking = Checking(text, schema, segments, Builder(), self._visit)
        self._checking.fields = self._fields = _NotingFields(self._checking.builder)
        self._checking.error = self._silence  # type: ignore[method-assign]
        self._end = len(text.rstrip())
        self.profile = Names(0, is_level=True, element=self._checking.profile)
        self.scope: Names | None = None
        """The scope at the cursor; None if the check did not reach it."""
        self.receiver: Node | None = None
        """The value before the dot at the cursor."""
        self.behind_point = False
        self.subject: Expr | None = None
        """The expression that the operand at the cursor is compared with."""
        self.subject_node: Node | None = None
        self.subject_path: Path | None = None
        self.left: Type | None = None
        """The type of the operand that ends the text."""
        self.is_test = False
        """Whether the text ends with a complete comparison."""

    def at(self, tree: Tree) -> None:
        run(segment(self._checking, tree))

    def _visit(self, checking: Checking, expr: Expr, scope: Names) -> Checks:
        match expr:
            case Name(name=name) if name == CURSOR:
                self.scope = scope.climb(expr.up)
                return None
            case Field(name=name) if name == CURSOR:
                self.behind_point = True
                self.receiver = yield checking.visit(expr.object, scope)
                return None
            case Logic():
                # The cursor is at the end: what precedes it says nothing about its type.
                yield checking.visit(expr.operands[-1], scope)
                return checking.constant(True)
            case Call():
                expr = _with_all_arguments(expr)
        node: Node | None = yield visit(checking, expr, scope)
        if expr is self.subject and node is not None:
            self.subject_node = node
            self.subject_path = self._fields.path(node)
        if node is not None and expr.span[1] == self._end:
            self.left = self.left or node.type
            self.is_test = node.type is Scalar.BOOLEAN and isinstance(expr, Binary)
        return node

    def _silence(self, kind: DiagnosticKind, message: object, span: object, suggestions: object = ()) -> None:
        """Discards errors of an unfinished expression."""


class _NotingFields(Fields):
    """Records which array each element belongs to."""

    def __init__(self, builder: Builder) -> None:
        super().__init__(builder)
        self._arrays: dict[int, Node] = {}

    def element(self, array: Node, depth: int) -> Node:
        self._arrays[depth + 1] = array
        return super().element(array, depth)

    def path(self, node: Node) -> Path | None:
        """The path from the profile to a stored value; None for a computed one."""
        match node.op:
            case "element" if node.payload[0] == 0:
                return ()
            case "element":
                array = self._arrays.get(node.payload[0])
                return None if array is None else self.path(array)
            case "field":
                owner = self.path(node.operands[0])
                return None if owner is None else (*owner, *node.payload)
            case "map":
                self._arrays[node.payload[0]] = node.operands[0]
                return self.path(node.operands[1])
            case "filter" | "distinct" | "head" | "top" | "bottom":
                return self.path(node.operands[0])
        return None


def _with_all_arguments(expr: Call) -> Call:
    """The call with placeholders for missing arguments, so that the existing ones are checked."""
    function = (FREE if expr.receiver is None else METHODS).get(expr.name)
    missing = function.least - len(expr.arguments) if function else 0
    if missing <= 0:
        return expr
    return replace(expr, arguments=(*expr.arguments, *[Literal(None)] * missing))


def around_cursor(tree: Tree) -> tuple[Call | None, int, Expr | None, list[str]]:
    """The enclosing call and argument position, the expression compared with the cursor, and the earlier steps that a
    WHEN may name."""
    above = _way_to_cursor(tree)
    labels = _labels(above)
    if above and isinstance(above[0][0], ArrayLiteral):
        above = above[1:]
    parent, position = above[0] if above else (None, 0)
    match parent:
        case Binary(operator=operator) if operator in COMPARED:
            return None, 0, parent.right if position == 0 else parent.left, labels
        case Call():
            argument = position - (parent.receiver is not None)
            subject = None
            if parameter_of(parent, argument) in TAKES_VALUES:
                subject = parent.arguments[1] if parent.name == "stringCompare" else parent.receiver
            return parent, argument, subject, labels
    return None, 0, None, labels


def _way_to_cursor(tree: Tree) -> list[tuple[object, int]]:
    """The nodes around the name at the cursor, from the inside out, each with the child that leads to it."""
    above: dict[int, tuple[Any, int]] = {}
    stack: list[Expr | Clause | Step] = [tree.body]
    while stack:
        node = stack.pop()
        if isinstance(node, Name | Field) and node.name == CURSOR:
            way: list[tuple[object, int]] = []
            at: object = node
            while id(at) in above:
                way.append(above[id(at)])
                at = way[-1][0]
            return way
        for position, child in enumerate(children(node)):
            above[id(child)] = (node, position)
            stack.append(child)
    return []


def _labels(above: Iterable[tuple[Any, int]]) -> list[str]:
    """The labels of the steps before the one whose WHEN contains the cursor."""
    in_when = False
    for node, position in above:
        if isinstance(node, Step):
            in_when = position == 1
        elif isinstance(node, Chain):
            return [step.label for step in node.steps[: position - 2]] if in_when else []
    return []


def parameter_of(call: Call, position: int) -> Kind | None:
    function = (FREE if call.receiver is None else METHODS).get(call.name)
    if function is None or not 0 <= position < function.most:
        return None
    return function.parameters[position].kind
