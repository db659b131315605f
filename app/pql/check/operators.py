"""Checks operators: logic, comparisons, `in`, `like`, arithmetic; knows no names or functions."""

from collections.abc import Callable
from typing import Final

from app.pql.check.scopes import Names
from app.pql.check.state import Checking, Checks, comparable, leaf
from app.pql.core import Node
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type
from app.pql.syntax.nodes import Binary, Logic, Negate, Not, Span

EQUALITIES: Final = {"=": "eq", "!=": "ne"}
ORDERS: Final = {"<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
SETS: Final = {"=": "set_eq", "!=": "set_ne"}
ARITHMETIC: Final = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "remainder"}


def logic(checking: Checking, expr: Logic, scope: Names) -> Checks:
    operands: list[Node | None] = []
    for operand in expr.operands:
        operands.append((yield checking.condition(operand, scope, f"each side of `{expr.operator}`")))
    valid = [operand for operand in operands if operand is not None]
    if len(valid) < len(operands):
        return None
    return checking.builder.condition(expr.operator, *valid)


def negation(checking: Checking, expr: Not, scope: Names) -> Checks:
    operand = yield checking.condition(expr.operand, scope, "what follows `not`")
    return None if operand is None else checking.builder.condition("not", operand)


def minus(checking: Checking, expr: Negate, scope: Names) -> Checks:
    operand: Node | None = yield checking.visit(expr.operand, scope)
    if operand is None:
        return None
    if operand.type not in (Scalar.NUMBER, Scalar.NULL):
        start = expr.span[0]
        checking.type_error(f"only a number can be negated, not {operand.type}", (start, start + 1))
        return None
    if operand.op == "const" and operand.payload[0] is not None:
        return checking.constant(-operand.payload[0])
    return checking.builder.node("negate", Scalar.NUMBER, operand)


def binary(checking: Checking, expr: Binary, scope: Names) -> Checks:
    left: Node | None = yield checking.visit(expr.left, scope)
    right: Node | None = yield checking.visit(expr.right, scope)
    if left is None or right is None:
        return None
    at = (expr.at, expr.at + len(expr.operator))
    if expr.operator in ARITHMETIC:
        return _arithmetic(checking, expr.operator, left, right, at)
    if expr.operator in ("in", "notIn"):
        return _membership(checking, expr.operator, left, right, at, scope.depth)
    if expr.operator == "like":
        return _like(checking, left, right, at, scope.depth)
    return _comparison(checking, expr.operator, left, right, at, scope.depth)


def _arithmetic(checking: Checking, operator: str, left: Node, right: Node, at: Span) -> Node | None:
    if all(side.type in (Scalar.NUMBER, Scalar.NULL) for side in (left, right)):
        return checking.builder.node(ARITHMETIC[operator], Scalar.NUMBER, left, right)
    hint = ""
    if any(isinstance(side.type, ArrayType) for side in (left, right)):
        hint = "; for each element of an array write array.map(…), for one number use sum(), max(), …"
    checking.type_error(f"`{operator}` takes two numbers, not {_a(left.type)} and {_a(right.type)}{hint}", at)
    return None


def _comparison(checking: Checking, operator: str, left: Node, right: Node, at: Span, depth: int) -> Node | None:
    if Scalar.NULL in (left.type, right.type) and not _are_scalars(left.type, right.type):
        return checking.constant(False)
    both_arrays = isinstance(left.type, ArrayType) and isinstance(right.type, ArrayType)
    problem = _why_not(operator, left.type, right.type, both_arrays)
    if problem:
        checking.type_error(problem, at)
        return None
    if both_arrays:
        return checking.builder.condition(SETS[operator], *checking.alike(left, right))
    op = (EQUALITIES | ORDERS)[operator]
    return _any_side(checking, left, right, depth, lambda a, b: checking.builder.condition(op, a, b))


def _why_not(operator: str, left: Type, right: Type, both_arrays: bool) -> str:
    """Why two values cannot be compared; empty if they can."""
    kinds = f"{_a(left)} with {_a(right)}"
    a, b = leaf(left), leaf(right)
    if any(isinstance(side, ObjectType | MapType) for side in (a, b)):
        return f"cannot compare {kinds}: compare one of its fields or values, or use .isNull()"
    if Scalar.INTERVAL in (a, b):
        return f"cannot compare {kinds}: write `occurs` instead of `{operator}`"
    if not comparable(a, b):
        return f"cannot compare {kinds}{_conversion(a, b)}"
    if both_arrays and not _are_sets(left, right):
        return f"cannot compare {kinds}: compare their elements with exists(…), or use count()"
    if operator in EQUALITIES:
        return ""
    if both_arrays:
        return f"`{operator}` cannot compare {kinds}: compare a minimum, a maximum or a count"
    if Scalar.BOOLEAN in (a, b):
        return f"booleans have no order: `{operator}` cannot compare {kinds}, use `=` or `!=`"
    return ""


def _conversion(a: Type, b: Type) -> str:
    kinds = {a, b}
    if kinds == {Scalar.NUMBER, Scalar.STRING}:
        return ": write a number without quotes, a string with quotes"
    if Scalar.STRING in kinds and (Scalar.DATE in kinds or Scalar.TIMESTAMP in kinds):
        return ": write a day as date(2020, 3, 14)"
    return ": both sides must be of one kind"


def _any_side(checking: Checking, left: Node, right: Node, depth: int, test: Callable[[Node, Node], Node]) -> Node:
    """Applies the test to the elements of whichever side is an array."""
    if isinstance(left.type, ArrayType):
        return checking.any_of(left, depth, lambda element: test(element, right))
    return checking.any_of(right, depth, lambda element: test(left, element))


def _membership(checking: Checking, operator: str, left: Node, right: Node, at: Span, depth: int) -> Node | None:
    if right.type is Scalar.NULL:
        return checking.constant(False)
    if not isinstance(right.type, ArrayType):
        hint = "; the keys of a map are map.keys()" if isinstance(right.type, MapType) else ', such as ["a", "b"]'
        checking.type_error(f"the right side of `{operator}` must be an array, not {_a(right.type)}{hint}", at)
        return None
    if left.type is not Scalar.NULL and not comparable(leaf(left.type), right.type.element):
        what = f"{_a(left.type)} cannot be in {_a(right.type)}"
        checking.type_error(f"{what}{_conversion(leaf(left.type), leaf(right.type))}", at)
        return None
    op = "in" if operator == "in" else "not_in"
    if right.type.element is Scalar.NULL:
        right = checking.known_as(right, ArrayType(leaf(left.type)))
    return checking.any_of(left, depth, lambda element: checking.builder.condition(op, element, right))


def _like(checking: Checking, left: Node, right: Node, at: Span, depth: int) -> Node | None:
    if leaf(left.type) not in (Scalar.STRING, Scalar.NULL) or right.type not in (Scalar.STRING, Scalar.NULL):
        checking.type_error(f"`like` takes a string and a pattern, not {_a(left.type)} and {_a(right.type)}", at)
        return None
    case = checking.constant(True)
    return checking.any_of(left, depth, lambda text: checking.builder.condition("like", text, right, case))


def _are_sets(*types: Type) -> bool:
    return all(isinstance(type_, ArrayType) and isinstance(type_.element, Scalar) for type_ in types)


def _are_scalars(*types: Type) -> bool:
    return all(isinstance(type_, Scalar) and type_ is not Scalar.INTERVAL for type_ in types)


def _a(type_: Type) -> str:
    return f"an {type_}" if str(type_)[0] in "aeiou" else f"a {type_}"
