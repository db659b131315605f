"""Checks calls against the table of functions (name, arity, receiver, arguments) and builds the operation."""

from collections.abc import Callable
from datetime import date
from typing import Final

from app.errors import DiagnosticKind
from app.pql.check.arguments import Place, argument
from app.pql.check.binders import reduced
from app.pql.check.objects import as_map, value_type
from app.pql.check.scopes import Names
from app.pql.check.state import Checking, Checks, leaf, unified
from app.pql.core import BINDERS, PROFILE_ID, Node
from app.pql.functions import FREE, METHODS, PER_ELEMENT, TEXT_TESTS, Function, Kind, Receiver, Result
from app.pql.schema import (
    COMPUTED,
    COMPUTED_ALIAS,
    MEMBERSHIP,
    ArrayType,
    MapType,
    ObjectType,
    Scalar,
    Type,
    namespace_of,
)
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.nodes import Call, Lambda, Literal, Span
from app.pql.syntax.trampoline import Walking

SCALAR_RECEIVERS: Final = {
    Receiver.TEXT: {Scalar.STRING, Scalar.NULL},
    Receiver.TIME: {Scalar.DATE, Scalar.TIMESTAMP, Scalar.NULL},
}
MEASURES: Final = frozenset({"sum", "average", "min", "max"})


def call(checking: Checking, expr: Call, scope: Names) -> Checks:
    at = (expr.at, expr.at + len(expr.name))
    receiver: Node | None = None
    if expr.receiver is not None:
        receiver = yield checking.visit(expr.receiver, scope)
        if receiver is None:
            return None
    function = (FREE if receiver is None else METHODS).get(expr.name)
    if function is None:
        _unknown(checking, expr, receiver, at)
        return None
    if receiver is not None and not accepts(function, receiver.type):
        others = ", ".join(sorted(name for name, row in METHODS.items() if accepts(row, receiver.type)))
        message = f"`{function.name}` is called on {_called_on(function)}, not {receiver.type}"
        checking.type_error(f"{message}, which has: {others}", at)
        return None
    if receiver is not None and _names_several_texts(expr):
        return (yield _compared_with_several(checking, expr, receiver, scope))
    if not function.least <= len(expr.arguments) <= function.most:
        _wrong_count(checking, function, len(expr.arguments), at)
        return None
    if (entry := _map_entry(expr)) is not None and receiver is not None:
        return (yield _to_map(checking, expr, entry, receiver, scope))
    arguments: list[Node] | None = yield _arguments(checking, expr, function, receiver, scope)
    if arguments is None:
        return None
    return _build(checking, expr, function, receiver, arguments, scope.depth)


def _arguments(
    checking: Checking, expr: Call, function: Function, receiver: Node | None, scope: Names
) -> Walking[list[Node] | None]:
    inside = scope
    if receiver is not None and isinstance(receiver.type, ArrayType):
        inside = scope.level(checking.fields.element(receiver, scope.depth), receiver)
    valid: list[Node] = []
    failed = False
    for passed, parameter in zip(expr.arguments, function.parameters, strict=False):
        if isinstance(passed, Lambda) and parameter.kind in PER_ELEMENT and receiver is not None:
            named = _parameters(checking, passed, receiver, inside)
            if named is None:
                return None
            passed, inside = passed.body, named
        if failed and parameter.kind is Kind.GROUP:
            return None
        place = Place(function.name, receiver, scope, inside, tuple(valid))
        value: Node | None = yield argument(checking, passed, parameter, place)
        if value is None:
            failed = True
        else:
            valid.append(value)
    if failed:
        return None
    for parameter in function.parameters[len(valid) :]:
        if parameter.kind is Kind.FLAG:
            valid.append(checking.constant(True))
    return valid


def _parameters(checking: Checking, expr: Lambda, receiver: Node, inside: Names) -> Names | None:
    """The scope in which `(E) => …` or, over groups, `(K, G) => …` binds its parameters; None after reporting an
    error."""
    names = [parameter.name for parameter in expr.parameters]
    values: list[Node | None] = [inside.element]
    element = receiver.type.element if isinstance(receiver.type, ArrayType) else Scalar.NULL
    if len(names) == 2 and inside.element is not None and isinstance(element, ObjectType):
        values = [checking.fields.of(inside.element, name, inside.depth) for name in ("key", "values")]
    if len(values) != len(names) or None in values:
        message = (
            "a function over the elements has one parameter, over the groups of groupBy it may have key and values"
        )
        checking.error(DiagnosticKind.ARGUMENT_COUNT, message, expr.span)
        return None
    for name, value in zip(names, values, strict=True):
        inside = inside.with_variable(name, value)
    return inside


def _map_entry(expr: Call) -> Call | None:
    """The `mapEntry(key, value)` that a `map` returns for each element, if it does."""
    argument = expr.arguments[0] if expr.name == "map" and len(expr.arguments) == 1 else None
    body = argument.body if isinstance(argument, Lambda) else argument
    is_entry = isinstance(body, Call) and body.receiver is None and body.name == "mapEntry" and len(body.arguments) == 2
    return body if is_entry and isinstance(body, Call) else None


def _to_map(checking: Checking, expr: Call, entry: Call, receiver: Node, scope: Names) -> Checks:
    inside: Names | None = scope.level(checking.fields.element(receiver, scope.depth), receiver)
    if isinstance(expr.arguments[0], Lambda) and inside is not None:
        inside = _parameters(checking, expr.arguments[0], receiver, inside)
    if inside is None:
        return None
    place = Place("mapEntry", receiver, scope, inside)
    row = FREE["mapEntry"]
    valid: list[Node | None] = []
    for passed, parameter in zip(entry.arguments, row.parameters, strict=True):
        valid.append((yield argument(checking, passed, parameter, place)))
    key, value = valid
    if key is None or value is None:
        return None
    return checking.builder.node("to_map", MapType(value.type), receiver, key, value, payload=(scope.depth + 1,))


def _misplaced_entry(
    checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int
) -> Node | None:
    checking.type_error("mapEntry(key, value) can only stand in array.map((K, G) => mapEntry(K, …))", expr.span)
    return None


def _names_several_texts(expr: Call) -> bool:
    """Whether the call has several texts, as in `state.equals("CA", "NV")`, which means any of them."""
    if expr.name not in TEXT_TESTS or len(expr.arguments) < 2:
        return False
    second = expr.arguments[1]
    return isinstance(second, Literal) and isinstance(second.value, str)


def _compared_with_several(checking: Checking, expr: Call, receiver: Node, scope: Names) -> Checks:
    values: list[Node | None] = []
    for argument_ in expr.arguments:
        values.append((yield checking.visit(argument_, scope)))
    valid = [value for value in values if value is not None]
    if len(valid) < len(values):
        return None
    case = valid.pop() if valid[-1].type is Scalar.BOOLEAN else checking.constant(True)
    for value, text in zip(valid, expr.arguments, strict=False):
        if value.type not in (Scalar.STRING, Scalar.NULL):
            checking.type_error(f"`text` of `{expr.name}` must be a string, not {value.type}", text.span)
            return None
    items = [checking.known_as(value, Scalar.STRING) for value in valid]
    texts = checking.builder.node("array", ArrayType(Scalar.STRING), *items)
    payload = (TEXT_TESTS[expr.name],)
    return checking.any_of(
        receiver,
        scope.depth,
        lambda text: checking.builder.condition("compare", text, texts, case, payload=payload),
    )


def _build(
    checking: Checking, expr: Call, function: Function, receiver: Node | None, arguments: list[Node], depth: int
) -> Node | None:
    special = _SPECIAL.get(function.name)
    if special is not None:
        return special(checking, expr, receiver, arguments, depth)
    if receiver is None:
        raise LookupError(f"the function {function.name} needs a builder")
    if function.op in MEASURES:
        blame = expr.arguments[0].span if expr.arguments else (expr.at, expr.at + len(expr.name))
        body = arguments[0] if arguments else checking.fields.element(receiver, depth)
        return reduced(checking, function.op, receiver, body, depth + 1, blame)
    if function.op == "map":
        return checking.fields.mapped(receiver, arguments[0], depth + 1)
    if function.op == "get" and _is_membership(checking, receiver):
        arguments[0] = _namespace(checking, arguments[0])
    if function.parameters and function.parameters[0].kind is Kind.ITEMS and arguments[0].type is not Scalar.NULL:
        receiver, arguments[0] = checking.alike(receiver, arguments[0])

    def made(value: Node) -> Node:
        if function.receiver is Receiver.MAP and isinstance(value.type, ObjectType):
            return as_map(checking, function.op, value, arguments, depth)
        payload = (depth + 1,) if function.op in BINDERS else ()
        type_ = _result(function, value.type, arguments)
        return checking.builder.node(function.op, type_, value, *arguments, payload=payload)

    if function.receiver in SCALAR_RECEIVERS or (
        function.receiver is Receiver.MAP and receiver.type != leaf(receiver.type)
    ):
        lift = checking.any_of if function.result is Result.BOOLEAN else checking.each_of
        return lift(receiver, depth, made)
    return made(receiver)


def _is_membership(checking: Checking, value: Node) -> bool:
    return value.op == "field" and value.payload == (MEMBERSHIP,) and value.operands[0] is checking.profile


def _namespace(checking: Checking, key: Node) -> Node:
    """The key of `segmentMembership` for a namespace."""
    written = key.payload[0] if key.op == "const" else None
    if isinstance(written, str):
        return checking.constant(namespace_of(written))
    is_alias = checking.builder.condition("eq", key, checking.constant(COMPUTED_ALIAS))
    return checking.builder.node("if", Scalar.STRING, is_alias, checking.constant(COMPUTED), key)


def _result(function: Function, receiver: Type, arguments: list[Node]) -> Type:
    match function.result:
        case Result.BOOLEAN | Result.NUMBER | Result.TEXT | Result.DATE:
            return Scalar(function.result.value)
        case Result.TEXTS:
            return ArrayType(Scalar.STRING)
        case Result.ELEMENT if isinstance(receiver, ArrayType):
            return receiver.element
        case Result.GROUPS:
            return ArrayType(ObjectType({"key": arguments[0].type, "values": receiver}))
        case Result.ENTRY if isinstance(receiver, MapType):
            return receiver.value
        case Result.ENTRIES if isinstance(receiver, MapType):
            return ArrayType(receiver.value)
    return receiver


def accepts(function: Function, type_: Type) -> bool:
    """Whether the function can be called on a value of this type."""
    if type_ is Scalar.INTERVAL:
        return False
    match function.receiver:
        case Receiver.TEXT | Receiver.TIME:
            return leaf(type_) in SCALAR_RECEIVERS[function.receiver]
        case Receiver.MAP:
            inner = leaf(type_)
            return isinstance(inner, MapType) or (isinstance(inner, ObjectType) and value_type(inner) is not None)
        case Receiver.ARRAY:
            return isinstance(type_, ArrayType) and _accepts_elements(function, type_.element)
        case Receiver.ANY:
            return True
    return False


def _accepts_elements(function: Function, element: Type) -> bool:
    """Whether the receiver's elements fit: comparisons need single values, sums without an argument need numbers."""
    if function.op in ("in", "intersects", "intersection", "subset_of", "superset_of", "distinct"):
        return isinstance(element, Scalar)
    return True


def _called_on(function: Function) -> str:
    if function.receiver is Receiver.ARRAY and not _accepts_elements(function, ObjectType()):
        return "an array of single values"
    return f"an {function.receiver}" if function.receiver is Receiver.ARRAY else f"a {function.receiver}"


def _unknown(checking: Checking, expr: Call, receiver: Node | None, at: Span) -> None:
    name = expr.name
    if receiver is None:
        suggestions = nearest(name, FREE)
        hint = f"; it is called on a value: `value.{name}(…)`" if name in METHODS else did_you_mean(suggestions)
    else:
        fitting = [row.name for row in METHODS.values() if accepts(row, receiver.type)]
        suggestions = nearest(name, fitting) or nearest(name, METHODS)
        hint = f"; it is called by itself: `{name}(…)`" if name in FREE else did_you_mean(suggestions)
    checking.error(DiagnosticKind.UNKNOWN_FUNCTION, f"there is no function `{name}` here{hint}", at, suggestions)


def _wrong_count(checking: Checking, function: Function, given: int, at: Span) -> None:
    least, most = function.least, function.most
    takes = f"{least}" if least == most else f"{least} to {most}"
    noun = "argument" if takes == "1" else "arguments"
    message = f"`{function.name}` takes {takes} {noun}, {given} given: {function.signature}"
    checking.error(DiagnosticKind.ARGUMENT_COUNT, message, at)


# ------------------------------------------------------------ functions whose operands differ from receiver and
# arguments in order


def _includes(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node | None:
    if receiver is None:
        return None
    if isinstance(receiver.type, ArrayType) and receiver.type.element is Scalar.NULL:
        receiver = checking.known_as(receiver, ArrayType(arguments[0].type))
    return checking.builder.condition("in", arguments[0], receiver)


def _in_segment(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node:
    return arguments[0]


def _sample(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node | None:
    salt, percent = (node.payload[0] if node.op == "const" else None for node in arguments)
    if not isinstance(salt, str) or not salt:
        checking.type_error('the salt of a sample is written out, such as sample("spring", 10)', expr.arguments[0].span)
        return None
    if percent is None or not 0 <= percent <= 100:
        message = 'the share of a sample is a number of 0 to 100, such as sample("spring", 10) for 10 percent'
        checking.type_error(message, expr.arguments[1].span)
        return None
    profile = checking.builder.node("field", Scalar.STRING, checking.profile, payload=(PROFILE_ID,))
    return checking.builder.condition("sample", profile, payload=(salt, float(percent)))


def _string_compare(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node:
    test, subject, texts, case = arguments
    texts = checking.known_as(texts, ArrayType(Scalar.STRING))

    def made(text: Node) -> Node:
        return checking.builder.condition("compare", text, texts, case, payload=test.payload)

    return checking.any_of(subject, depth, made)


def _current(op: str) -> "Builds":
    def build(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node:
        return checking.builder.node(op, Scalar.NUMBER, checking.builder.node("now", Scalar.TIMESTAMP))

    return build


def _if(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node | None:
    test, a, b = arguments
    type_ = unified(a.type, b.type)
    if type_ is None:
        message = f"both branches of `if` must be of one type: the first is {a.type}, the second {b.type}"
        checking.type_error(message, expr.arguments[2].span)
        return None
    return checking.builder.node("if", type_, test, checking.known_as(a, type_), checking.known_as(b, type_))


def _date(checking: Checking, expr: Call, receiver: Node | None, arguments: list[Node], depth: int) -> Node | None:
    if any(part.op != "const" or part.payload[0] is None for part in arguments):
        return checking.builder.node("date", Scalar.DATE, *arguments)
    parts = [part.payload[0] for part in arguments]
    written = ", ".join(f"{part:g}" for part in parts)
    try:
        if any(part != int(part) for part in parts):
            raise ValueError("its parts must be whole numbers")
        day = date(*map(int, parts))
    except (ValueError, OverflowError) as error:
        checking.type_error(f"there is no date({written}): {error}; write date(year, month, day)", expr.span)
        return None
    return checking.builder.constant(day, Scalar.DATE)


Builds = Callable[[Checking, Call, Node | None, list[Node], int], Node | None]

_SPECIAL: Final[dict[str, Builds]] = {
    "includes": _includes,
    "inSegment": _in_segment,
    "sample": _sample,
    "stringCompare": _string_compare,
    "currentMonth": _current("month_of"),
    "currentYear": _current("year_of"),
    "currentDayOfMonth": _current("day_of_month_of"),
    "if": _if,
    "mapEntry": _misplaced_entry,
    "date": _date,
}
