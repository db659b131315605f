"""pql/json: the JSON form of the syntax tree, for reading and writing; knows no types and no schema.

Every node is an object with a `nodeType`. Operators and functions are `fnApply`, with the receiver of a method as the
first parameter. A field of the profile is a `fieldLookup` on `parameterReference` 1. A name that only the schema can
resolve (a variable, or any name inside a method's argument) is a `nameReference`. The other nodes are the rows of
`NODES`.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, NoReturn, TypeAlias

from app.errors import DiagnosticKind, ExpressionRefused
from app.pql.functions import METHODS
from app.pql.syntax.constructs import AGGREGATES
from app.pql.syntax.json_spellings import adobes
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
    OccursAt,
    OccursBetween,
    OccursWithin,
    Parameter,
    Period,
    Quantifier,
    Select,
    Step,
    Tree,
    children,
)
from app.pql.syntax.parser import INFIX, SPELLING
from app.pql.syntax.positions import Positions
from app.pql.syntax.printer import print_tree
from app.pql.syntax.time_constructs import COMPARISONS, DIRECTIONS
from app.pql.syntax.tokens import MAXIMUM_BYTES, RESERVED, TIME_WORDS
from app.pql.syntax.trampoline import Walking, run

MAXIMUM_JSON_BYTES: Final = 32 * MAXIMUM_BYTES
MAXIMUM_JSON_DEPTH: Final = 600
"""Maximum nesting of objects and arrays, so that Python's JSON reader and writer do not exhaust the stack."""

ARITHMETIC: Final = frozenset({"+", "-", "*", "/", "%"})
BINARY: Final = {
    SPELLING.get(word, word): power for word, power in INFIX.items() if word not in ("and", "or", "occurs")
}
NOT_BARE: Final = RESERVED | TIME_WORDS | AGGREGATES | {"this", "last", "next", "chain", "if"}
"""Names that are written as `$1.name`, because alone they could be parsed as something else."""


class Takes(Enum):
    """What a key of a node contains."""

    NODE = auto()
    OPTIONAL = auto()
    INSIDE = auto()  # a node inside which bare names first refer to an element
    OPTIONAL_INSIDE = auto()
    NODES = auto()
    NODES_INSIDE = auto()
    NEW_NAME = auto()
    POSITION = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """The keys of a node after `nodeType`, in order; a set lists the allowed words."""

    node_class: type
    keys: dict[str, Takes | frozenset[str]]


_STEP_PARTS: Final = {
    "where": Takes.OPTIONAL_INSIDE,
    "when": Takes.OPTIONAL_INSIDE,
    "count": Takes.OPTIONAL,
}
_TIME: Final = {"time": Takes.OPTIONAL}
NODES: Final[dict[str, Row]] = {
    "parameterReference": Row(Parameter, {"position": Takes.POSITION}),
    "moment": Row(Moment, {"word": TIME_WORDS}),
    "period": Row(Period, {"which": frozenset({"this", "last", "next"}), "unit": frozenset(UNITS)}),
    "occurs": Row(OccursAt, {**_TIME, "relation": frozenset({"before", "after", "on"}), "reference": Takes.NODE}),
    "occursBetween": Row(OccursBetween, {**_TIME, "start": Takes.NODE, "end": Takes.NODE}),
    "occursWithin": Row(
        OccursWithin,
        {
            **_TIME,
            "operator": COMPARISONS,
            "count": Takes.NODE,
            "unit": frozenset(UNITS),
            "direction": frozenset(DIRECTIONS),
            "reference": Takes.NODE,
        },
    ),
    "let": Row(Let, {"name": Takes.NEW_NAME, "value": Takes.NODE, "body": Takes.NODE}),
    "index": Row(Index, {"array": Takes.NODE, "condition": Takes.INSIDE}),
    "clause": Row(Clause, {"variable": Takes.NEW_NAME, "array": Takes.NODE, "condition": Takes.NODE}),
    "quantifier": Row(Quantifier, {"kind": frozenset({"exists", "forall"}), "clauses": Takes.NODES}),
    "select": Row(Select, {"clause": Takes.NODE}),
    "aggregate": Row(Aggregate, {"kind": AGGREGATES, "body": Takes.OPTIONAL, "clause": Takes.NODE}),
    "step": Row(Step, {"label": Takes.NEW_NAME, "what": Takes.INSIDE, **_STEP_PARTS}),
    "chain": Row(Chain, {"array": Takes.NODE, "time": Takes.INSIDE, "steps": Takes.NODES_INSIDE}),
}
NODE_TYPES: Final = {row.node_class: node_type for node_type, row in NODES.items()}
PARTS: Final[dict[str, tuple[type, ...]]] = {
    "clause": (Clause,),
    "clauses": (Clause,),
    "steps": (Step,),
    "when": (OccursAt, OccursBetween, OccursWithin),
}
"""Keys that accept only these nodes; other keys accept any expression."""
LITERALS: Final[dict[str, Any]] = {
    "String": str,
    "Integer": int,
    "Double": (int, float),
    "Boolean": bool,
    "Null": type(None),
}
SPECIAL: Final = ("fnApply", "fieldLookup", "nameReference", "literal", "lambda")

PIECES: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)
"""Matches the tokens that determine the depth of a JSON text; strings match whole, so their braces do not count."""

Json: TypeAlias = Any
Walk: TypeAlias = Walking[Any]


def to_json(tree: Tree) -> str:
    """The tree as pql/json on one line. Raises `ExpressionRefused` if it is too deep for JSON.

    >>> from app.pql.syntax.parser import parse
    >>> to_json(parse("income > 1"))[:53]
    '{"nodeType": "fnApply", "fnName": ">", "params": [{"n'
    """
    bound = _bound_in(tree)
    body = run(_written(tree.body, bound, False))
    if tree.parameters:
        names = [parameter.name for parameter in tree.parameters]
        body = {"nodeType": "lambda", "parameters": names, "body": body}
    try:
        text = json.dumps(body, ensure_ascii=False)
    except RecursionError:
        text = ""
    if not text or depth_of(text) > MAXIMUM_JSON_DEPTH:
        refuse(
            print_tree(tree),
            DiagnosticKind.LIMIT,
            f"as pql/json the expression is nested deeper than {MAXIMUM_JSON_DEPTH} levels: keep it as pql/text",
            (0, 0),
        )
    return text


def _bound_in(tree: Tree) -> frozenset[str]:
    """Every name that the tree binds anywhere: such a name is never written as a field of the profile."""
    bound = {parameter.name for parameter in tree.parameters}
    stack: list[Expr | Clause | Step] = [tree.body]
    while stack:
        node = stack.pop()
        match node:
            case Let(name=name) | Clause(variable=name) | Step(label=name):
                bound.add(name)
            case Lambda(parameters=parameters):
                bound.update(parameter.name for parameter in parameters)
        stack.extend(children(node))
    return frozenset(bound)


def is_profile_field(name: str, bound: Iterable[str], inside: bool) -> bool:
    """Whether the bare name can only be a field of the profile, equivalent to `$1.name`."""
    return not inside and name not in bound and name.lower() not in NOT_BARE


def _written(expr: object, bound: frozenset[str], inside: bool) -> Walk:
    match expr:
        case Literal() | Negate(operand=Literal(value=float() | int())):
            return _literal(expr)
        case ArrayLiteral():
            values = yield _all_written(expr.items, bound, inside)
            return {"nodeType": "literal", "literalType": "List", "value": [_unwrapped(value) for value in values]}
        case Name(name=name, up=0) if is_profile_field(name, bound, inside):
            return _lookup(name, {"nodeType": "parameterReference", "position": 1})
        case Name():
            if expr.name in bound and not expr.up:
                return {"nodeType": "varRef", "varName": expr.name}
            reference = {"nodeType": "nameReference", "name": expr.name}
            return {**reference, "up": expr.up} if expr.up else reference
        case Field():
            return _lookup(expr.name, (yield _written(expr.object, bound, inside)))
        case Not() | Negate():
            name = "not" if isinstance(expr, Not) else "-"
            return _apply(name, [(yield _written(expr.operand, bound, inside))])
        case Logic():
            return _apply(expr.operator, (yield _all_written(expr.operands, bound, inside)))
        case Binary():
            return _apply(expr.operator, (yield _all_written(_operands(expr), bound, inside)))
        case Call():
            return (yield _call(expr, bound, inside))
        case Lambda():
            names = [parameter.name for parameter in expr.parameters]
            return {"nodeType": "lambda", "parameters": names, "body": (yield _written(expr.body, bound, inside))}
    return (yield _row_written(expr, bound, inside))


def _all_written(exprs: Iterable[object], bound: frozenset[str], inside: bool) -> Walk:
    values: list[Json] = []
    for expr in exprs:
        values.append((yield _written(expr, bound, inside)))
    return values


def _row_written(expr: object, bound: frozenset[str], inside: bool) -> Walk:
    node_type = NODE_TYPES[type(expr)]
    written: dict[str, Json] = {"nodeType": node_type}
    for key, takes in NODES[node_type].keys.items():
        value = getattr(expr, key)
        if takes in (Takes.NODES, Takes.NODES_INSIDE):
            value = yield _all_written(value, bound, inside or takes is Takes.NODES_INSIDE)
        elif value is None:
            continue
        elif isinstance(takes, Takes) and takes not in (Takes.NEW_NAME, Takes.POSITION):
            value = yield _written(value, bound, inside or takes in (Takes.INSIDE, Takes.OPTIONAL_INSIDE))
        written[key] = value
    return adobes(written)


def _call(expr: Call, bound: frozenset[str], inside: bool) -> Walk:
    params: list[Json] = yield _all_written(expr.arguments, bound, inside or expr.receiver is not None)
    if expr.receiver is not None:
        params.insert(0, (yield _written(expr.receiver, bound, inside)))
    is_method = expr.receiver is not None
    call = _apply(expr.name, params)
    if is_method is (expr.name in METHODS):
        return call
    # Unknown function: keep what was written, so that the checker can name it.
    return {**call, "form": "method" if is_method else "function"}


def _operands(expr: Binary) -> list[Expr]:
    """The operands of `a + b + c` side by side, so that long sums do not nest deeply."""
    operands, left = [expr.right], expr.left
    while expr.operator in ARITHMETIC and isinstance(left, Binary) and left.operator == expr.operator:
        operands.append(left.right)
        left = left.left
    return [left, *reversed(operands)]


def _apply(name: str, params: list[Json]) -> Json:
    return {"nodeType": "fnApply", "fnName": name, "params": params}


def _lookup(name: str, owner: Json) -> Json:
    return {"nodeType": "fieldLookup", "fieldName": name, "object": owner}


def _literal(expr: Literal | Negate) -> Json:
    value: Any = -expr.operand.value if isinstance(expr, Negate) else expr.value  # type: ignore[union-attr, operator]
    match value:
        case None:
            kind = "Null"
        case bool():
            kind = "Boolean"
        case int():
            kind = "Integer"
        case float() if value == int(value) and abs(value) < 2**53 and (value or not isinstance(expr, Negate)):
            kind, value = "Integer", int(value)
        case float():
            kind = "Double"
        case _:
            kind = "String"
    return {"nodeType": "literal", "literalType": kind, "value": value}


def _unwrapped(node: Json) -> Json:
    """In a list, plain values are written without a node."""
    return node["value"] if node["nodeType"] == "literal" and node["literalType"] != "List" else node


def depth_of(text: str) -> int:
    depth = deepest = 0
    for piece in PIECES.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(piece.group(), 0)
        deepest = max(deepest, depth)
    return deepest


def refuse(text: str, kind: DiagnosticKind, message: str, span: tuple[int, int]) -> NoReturn:
    raise ExpressionRefused([Positions(text).diagnostic(kind, message, *span)])
