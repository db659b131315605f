"""Checks one argument of a call against the kind of its parameter; knows no functions."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from app.errors import DiagnosticKind
from app.pql.check import regular_expressions
from app.pql.check.binders import ORDERED
from app.pql.check.scopes import Names
from app.pql.check.state import Checking, Checks, comparable, leaf
from app.pql.core import Node
from app.pql.functions import PER_ELEMENT, TEXT_TESTS, Kind, Parameter
from app.pql.schema import ArrayType, Scalar, Type
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.nodes import Expr, Literal

NULLABLE: Final = {
    Kind.TEXT: Scalar.STRING,
    Kind.ENTRY_KEY: Scalar.STRING,
    Kind.FLAG: Scalar.BOOLEAN,
    Kind.NUMBER: Scalar.NUMBER,
}


@dataclass(frozen=True, slots=True)
class Place:
    """The position of an argument: its call, the receiver, and the scopes outside and per element."""

    function: str
    receiver: Node | None
    outside: Names
    inside: Names
    earlier: tuple[Node, ...] = ()
    """The preceding arguments."""


def argument(checking: Checking, expr: Expr, parameter: Parameter, place: Place) -> Checks:
    """The node of an argument; None after reporting an error at its first token."""
    kind = parameter.kind
    if kind in (Kind.CONDITION, Kind.TEST_RESULT):
        scope = place.inside if kind in PER_ELEMENT else place.outside
        return (yield checking.condition(expr, scope, f"`{parameter.name}` of `{place.function}`"))
    if kind is Kind.SEGMENT:
        return _segment(checking, expr)
    if kind is Kind.TEST:
        return _test(checking, expr)
    value: Node | None = yield checking.visit(expr, place.inside if kind in PER_ELEMENT else place.outside)
    if value is None:
        return None
    problem = _CHECKS[kind](value, place)
    if problem:
        checking.type_error(f"`{parameter.name}` of `{place.function}` must be {problem}", expr.span)
        return None
    if kind in NULLABLE:
        return checking.known_as(value, NULLABLE[kind])
    return value


def _segment(checking: Checking, expr: Expr) -> Node | None:
    if not isinstance(expr, Literal) or not isinstance(expr.value, str):
        checking.type_error('the id of a segment is written out, such as inSegment("id")', expr.span)
        return None
    id_ = expr.value if expr.value in checking.segments else checking.aliases.get(expr.value, expr.value)
    checking.references.add(id_)
    if id_ in checking.segments:
        return checking.builder.condition("in_segment", payload=(id_,))
    candidates = (*checking.segments, *checking.aliases) if isinstance(checking.segments, Iterable) else ()
    suggestions = nearest(expr.value, candidates)
    message = f'there is no segment with the id "{expr.value}"{did_you_mean(suggestions)}'
    checking.error(DiagnosticKind.UNKNOWN_SEGMENT, message, expr.span, suggestions)
    return None


def _test(checking: Checking, expr: Expr) -> Node | None:
    name = expr.value if isinstance(expr, Literal) else None
    if isinstance(name, str) and name in TEXT_TESTS:
        return checking.constant(TEXT_TESTS[name])
    actual = f', not "{name}"' if isinstance(name, str) else ""
    checking.type_error(f"the name of the test must be written out, one of {', '.join(TEXT_TESTS)}{actual}", expr.span)
    return None


def _scalar(type_: Scalar, words: str) -> Callable[[Node, Place], str]:
    def check(value: Node, place: Place) -> str:
        return "" if value.type in (type_, Scalar.NULL) else f"{words}, not {value.type}"

    return check


def _subject(value: Node, place: Place) -> str:
    return "" if leaf(value.type) in (Scalar.STRING, Scalar.NULL) else f"a string, not {value.type}"


def _regex(value: Node, place: Place) -> str:
    problem = _scalar(Scalar.STRING, "a string")(value, place)
    written = value.payload[0] if value.op == "const" else None
    if problem or not isinstance(written, str):
        return problem
    try:
        regular_expressions.groups(written)
    except ValueError as error:
        return f'a regular expression: "{written}" is not one, {error}'
    return ""


def _group(value: Node, place: Place) -> str:
    problem = _scalar(Scalar.NUMBER, "a number")(value, place)
    number = value.payload[0] if value.op == "const" else None
    if problem or number is None:
        return problem
    if number < 0 or number != int(number):
        return f"a whole number from 0 on, not {number:g}"
    regex = place.earlier[0]
    written = regex.payload[0] if regex.op == "const" else None
    if isinstance(written, str) and number > (groups := regular_expressions.groups(written)):
        return f"at most {groups}, the number of groups in the regular expression, not {number:g}"
    return ""


def _texts(value: Node, place: Place) -> str:
    fits = value.type is Scalar.NULL or (
        isinstance(value.type, ArrayType) and value.type.element in (Scalar.STRING, Scalar.NULL)
    )
    return "" if fits else f'a list of strings such as ["CA", "VA"], not {value.type}'


def _item(value: Node, place: Place) -> str:
    element = _element(place)
    return "" if comparable(value.type, element) else f"one value of type {element}, not {value.type}"


def _items(value: Node, place: Place) -> str:
    element = _element(place)
    if value.type is Scalar.NULL:
        return ""
    if isinstance(value.type, ArrayType) and comparable(value.type.element, element):
        return ""
    return f"an array of {element}, not {value.type}"


def _element(place: Place) -> Type:
    receiver = place.receiver.type if place.receiver is not None else Scalar.NULL
    return receiver.element if isinstance(receiver, ArrayType) else Scalar.NULL


def _any(value: Node, place: Place) -> str:
    return "" if value.type is not Scalar.INTERVAL else "a value, not an interval of time"


def _measure(value: Node, place: Place) -> str:
    return "" if leaf(value.type) in (Scalar.NUMBER, Scalar.NULL) else f"a number, not {value.type}"


def _measures(value: Node, place: Place) -> str:
    fits = leaf(value.type) in ORDERED or leaf(value.type) is Scalar.NULL
    return "" if fits else f"a number, string, date or timestamp, not {value.type}"


def _rank(value: Node, place: Place) -> str:
    return _measures(value, place) if isinstance(value.type, Scalar) else f"a single value, not {value.type}"


def _key(value: Node, place: Place) -> str:
    fits = isinstance(value.type, Scalar) and value.type is not Scalar.INTERVAL
    return "" if fits else f"a single value, not {value.type}"


_CHECKS: Final[dict[Kind, Callable[[Node, Place], str]]] = {
    Kind.TEXT: _scalar(Scalar.STRING, "a string"),
    Kind.FLAG: _scalar(Scalar.BOOLEAN, "true or false"),
    Kind.NUMBER: _scalar(Scalar.NUMBER, "a number"),
    Kind.REGEX: _regex,
    Kind.GROUP: _group,
    Kind.SUBJECT: _subject,
    Kind.TEXTS: _texts,
    Kind.ITEM: _item,
    Kind.ITEMS: _items,
    Kind.ANY: _any,
    Kind.VALUE: _any,
    Kind.MEASURE: _measure,
    Kind.ORDERED: _measures,
    Kind.RANK: _rank,
    Kind.KEY: _key,
    Kind.ENTRY_KEY: _scalar(Scalar.STRING, "a string"),
}
