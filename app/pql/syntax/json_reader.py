"""Reads pql/json into a syntax tree and reports the offending object; knows no types and no schema."""

import json
import re
from collections.abc import Iterable
from math import isfinite
from typing import Any, Final, NoReturn

from app.errors import DiagnosticKind
from app.pql.functions import METHODS
from app.pql.suggestions import did_you_mean, nearest
from app.pql.syntax.json_spellings import ours
from app.pql.syntax.json_writer import (
    BINARY,
    LITERALS,
    MAXIMUM_JSON_BYTES,
    MAXIMUM_JSON_DEPTH,
    NODES,
    PARTS,
    PIECES,
    SPECIAL,
    Json,
    Row,
    Takes,
    Walk,
    depth_of,
    is_profile_field,
    refuse,
)
from app.pql.syntax.lexer import is_name
from app.pql.syntax.nodes import (
    Aggregate,
    ArrayLiteral,
    Binary,
    Call,
    Clause,
    Expr,
    Field,
    Lambda,
    Literal,
    Name,
    Negate,
    Not,
    Parameter,
    Step,
    Tree,
    Variable,
    joined,
)
from app.pql.syntax.parser import SUM, parse
from app.pql.syntax.printer import print_tree
from app.pql.syntax.trampoline import run

_OPTIONAL: Final = frozenset({Takes.OPTIONAL, Takes.OPTIONAL_INSIDE})
_HALF_CHARACTER: Final = re.compile("[\ud800-\udfff]")
"""Characters that a JSON escape can express but text cannot contain."""


class _Object(dict[str, Any]):
    """A JSON object with its position in the text."""

    span: tuple[int, int] = (0, 0)


def from_json(text: str) -> Tree:
    """The tree of pql/json. Raises `ExpressionRefused` with one diagnostic at the invalid object."""
    if len(text.encode("utf-8", "surrogatepass")) > MAXIMUM_JSON_BYTES:
        refuse(text, DiagnosticKind.LIMIT, f"the expression has more than {MAXIMUM_JSON_BYTES} bytes", (0, 0))
    if depth_of(text) > MAXIMUM_JSON_DEPTH:
        message = f"the expression is nested deeper than {MAXIMUM_JSON_DEPTH} objects and arrays"
        refuse(text, DiagnosticKind.LIMIT, message, (0, 0))
    reader = _Reader(text)
    return parse(print_tree(reader.tree()))


def _located(node: dict[str, object], span: tuple[int, int]) -> _Object:
    """The object with its position; objects created by the conversion to our spelling get the same position."""
    object_ = _Object({key: _placed(value, span) for key, value in node.items()})
    object_.span = span
    return object_


def _placed(value: Json, span: tuple[int, int]) -> Json:
    if isinstance(value, list):
        return [_placed(item, span) for item in value]
    return _located(value, span) if isinstance(value, dict) and not isinstance(value, _Object) else value


class _Reader:
    """One reading of a text."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.bound: set[str] = set()

    def tree(self) -> Tree:
        whole = self._loaded()
        if isinstance(whole, _Object) and whole.get("nodeType") == "lambda":
            self._require_keys(whole, {"parameters", "body"})
            names = whole["parameters"]
            if not isinstance(names, list) or not names:
                self.refuse("`parameters` must be an array of names", whole)
            parameters = tuple(Variable(self._new_name(whole, name)) for name in names)
            return Tree(run(self.node(whole["body"], whole, False)), parameters)
        return Tree(run(self.node(whole, whole, False)))

    def _loaded(self) -> Json:
        spans = iter(_object_spans(self.text))

        def located(pairs: list[tuple[str, Any]]) -> _Object:
            span = next(spans)
            located_object = _located(ours(dict(pairs)), span)
            for node in (located_object, located_object.get("clause"), *_listed(located_object.get("clauses"))):
                if isinstance(node, dict) and node.get("nodeType") in ("let", "clause", "step"):
                    names = (node.get(key) for key in ("name", "variable", "label"))
                    self.bound.update(name for name in names if isinstance(name, str))
            if isinstance(located_object.get("parameters"), list):
                self.bound.update(name for name in located_object["parameters"] if isinstance(name, str))
            return located_object

        try:
            return json.loads(self.text, object_pairs_hook=located, parse_constant=float)
        except json.JSONDecodeError as error:
            refuse(self.text, DiagnosticKind.SYNTAX, f"not JSON: {error.msg}", (error.pos, error.pos + 1))
        except (StopIteration, RuntimeError, ValueError):
            refuse(self.text, DiagnosticKind.SYNTAX, "not JSON", (0, 0))

    def node(self, value: Json, parent: Json, inside: bool, wanted: tuple[type, ...] = ()) -> Walk:
        """The node of a JSON value; `wanted` are the allowed classes."""
        if not isinstance(value, _Object):
            self.refuse(f"a node must be an object with a `nodeType`, not {_shown(value)}", parent)
        node_type = value.get("nodeType")
        node_types = (*NODES, *SPECIAL)
        if not isinstance(node_type, str) or node_type not in node_types:
            hint = did_you_mean(nearest(node_type, node_types)) if isinstance(node_type, str) else ""
            self.refuse(
                f"there is no nodeType {_shown(node_type)}{hint or '; there are: ' + ', '.join(node_types)}", value
            )
        row = NODES.get(node_type)
        node_class = row.node_class if row else Expr
        if (node_class not in wanted) if wanted else (node_class in (Clause, Step)):
            self.refuse(f"a `{node_type}` cannot stand here", value)
        if row is not None:
            return (yield self._row(value, row, inside, wanted))
        match node_type:
            case "fnApply":
                return (yield self._apply(value, inside))
            case "fieldLookup":
                return (yield self._lookup(value, inside))
            case "literal":
                return (yield self._literal(value, inside))
            case "lambda":
                return (yield self._lambda(value, inside))
        self._require_keys(value, {"name"}, {"up"})
        up = value.get("up", 0)
        if type(up) is not int or not 0 <= up <= MAXIMUM_JSON_DEPTH:
            self.refuse(f"`up` must be the number of levels to step out, not {_shown(up)}", value)
        return Name(self._new_name(value, value["name"]), up)

    def _row(self, value: _Object, row: Row, inside: bool, wanted: tuple[type, ...]) -> Walk:
        optional = {key for key, takes in row.keys.items() if takes in _OPTIONAL}
        self._require_keys(value, row.keys.keys() - optional, optional)
        arguments: dict[str, Any] = {}
        for key, takes in row.keys.items():
            arguments[key] = yield self._argument(value, key, takes, inside)
        if row.node_class is Aggregate and (arguments["body"] is None) is not (arguments["kind"] == "count"):
            self.refuse("`body` is what is summed or compared: all kinds but `count` have one", value)
        if "time" in optional and (arguments["time"] is None) is not (wanted == PARTS["when"]):
            self.refuse("`time` is what occurs: it stands everywhere but in the `when` of a step", value)
        return row.node_class(**arguments)

    def _argument(self, value: _Object, key: str, takes: Takes | frozenset[str], inside: bool) -> Walk:
        """The value of an object's key, as an argument of its node's class."""
        part = value.get(key)
        match takes:
            case Takes.NEW_NAME:
                return self._new_name(value, part)
            case Takes.POSITION:
                return self._position(value, part)
            case Takes.NODES | Takes.NODES_INSIDE:
                return (yield self._nodes(value, key, inside or takes is Takes.NODES_INSIDE))
            case Takes():
                if part is None and takes in _OPTIONAL:
                    return None
                within = inside or takes in (Takes.INSIDE, Takes.OPTIONAL_INSIDE)
                return (yield self.node(part, value, within, PARTS.get(key, ())))
        if not isinstance(part, str) or part not in takes:
            self.refuse(f"`{key}` must be one of {' '.join(sorted(takes))}, not {_shown(part)}", value)
        return part

    def _nodes(self, value: _Object, key: str, inside: bool) -> Walk:
        parts = value.get(key)
        if not isinstance(parts, list) or not parts:
            self.refuse(f"`{key}` must be an array of nodes, not {_shown(parts)}", value)
        nodes: list[object] = []
        for part in parts:
            nodes.append((yield self.node(part, value, inside, PARTS.get(key, ()))))
        return tuple(nodes)

    def _apply(self, value: _Object, inside: bool) -> Walk:
        self._require_keys(value, {"fnName", "params"}, {"form"})
        name, params, form = value["fnName"], value["params"], value.get("form")
        if not isinstance(name, str) or not isinstance(params, list):
            self.refuse("`fnName` must be a text and `params` an array", value)
        is_method = name in METHODS if form is None else form == "method"
        nodes: list[Any] = []
        for at, param in enumerate(params):
            nodes.append((yield self.node(param, value, inside or (is_method and at > 0))))
        if form is not None:
            if form not in ("method", "function"):
                self.refuse(f"`form` must be `method` or `function`, not {_shown(form)}", value)
        elif name in BINARY or name in ("and", "or", "not"):
            return self._operator(value, name, nodes)
        if not is_name(name) or (is_method and not nodes):
            self.refuse(f"there is no function {_shown(name)} of {len(nodes)} params", value)
        return Call(nodes[0], name, tuple(nodes[1:])) if is_method else Call(None, name, tuple(nodes))

    def _operator(self, value: _Object, name: str, operands: list[Expr]) -> Expr:
        count = len(operands)
        if name == "not" and count == 1:
            return Not(operands[0])
        if name == "-" and count == 1:
            return Negate(operands[0])
        if name in ("and", "or") and count >= 2:
            return joined(name, operands)
        if name in BINARY and (count == 2 or (count > 2 and BINARY[name] >= SUM)):
            expression = operands[0]
            for operand in operands[1:]:
                expression = Binary(name, expression, operand)
            return expression
        return self.refuse(f"the operator `{name}` cannot have {count} params", value)

    def _lookup(self, value: _Object, inside: bool) -> Walk:
        self._require_keys(value, {"fieldName", "object"})
        name = value["fieldName"]
        if not isinstance(name, str) or not name or _HALF_CHARACTER.search(name):
            self.refuse(f"{_shown(name)} cannot be the name of a field", value)
        owner = yield self.node(value["object"], value, inside)
        if owner == Parameter(1) and is_profile_field(name, self.bound, inside):
            return Name(name)
        return Field(owner, name)

    def _lambda(self, value: _Object, inside: bool) -> Walk:
        self._require_keys(value, {"parameters", "body"})
        names = value["parameters"]
        if not isinstance(names, list) or not names:
            self.refuse("`parameters` must be an array of names", value)
        parameters = tuple(Variable(self._new_name(value, name)) for name in names)
        return Lambda(parameters, (yield self.node(value["body"], value, inside)))

    def _literal(self, value: _Object, inside: bool) -> Walk:
        self._require_keys(value, {"literalType", "value"})
        kind, held = value["literalType"], value["value"]
        if kind == "List" and isinstance(held, list):
            items: list[Any] = []
            for item in held:
                is_node = isinstance(item, _Object)
                items.append((yield self.node(item, value, inside)) if is_node else self._constant(value, item))
            return ArrayLiteral(tuple(items))
        fits = LITERALS.get(kind) if isinstance(kind, str) else None
        if fits is None:
            self.refuse(f"`literalType` must be {' '.join(LITERALS)} or List, not {_shown(kind)}", value)
        if not isinstance(held, fits) or (isinstance(held, bool) and kind != "Boolean"):
            self.refuse(f"{_shown(held)} is not a valid {kind}", value)
        return self._constant(value, held)

    def _constant(self, owner: _Object, held: Json) -> Expr:
        if isinstance(held, bool) or held is None or (isinstance(held, str) and not _HALF_CHARACTER.search(held)):
            return Literal(held)
        try:
            number: float = float(held)
            if isinstance(held, int) and held != number:
                number = held
        except (TypeError, ValueError, OverflowError):
            self.refuse(f"{_shown(held)} is not a PQL value", owner)
        if not isfinite(number):
            self.refuse(f"{_shown(held)} is not a PQL number", owner)
        return Negate(Literal(-number)) if str(number).startswith("-") else Literal(number)

    def _new_name(self, owner: _Object, name: Json) -> str:
        if not isinstance(name, str) or not name or _HALF_CHARACTER.search(name):
            self.refuse(f"{_shown(name)} cannot be a name", owner)
        return name

    def _position(self, owner: _Object, position: Json) -> int:
        if type(position) is not int or position < 0:
            self.refuse(f"`position` must be a whole number from 1, not {_shown(position)}", owner)
        return position

    def _require_keys(self, value: _Object, required: Iterable[str], optional: Iterable[str] = ()) -> None:
        required, allowed = set(required), {"nodeType", *required, *optional}
        missing = sorted(required - value.keys())
        if missing:
            self.refuse(f"a `{value['nodeType']}` needs `{missing[0]}`", value)
        for key in value:
            if key not in allowed:
                hint = did_you_mean(nearest(key, allowed))
                self.refuse(f"a `{value['nodeType']}` has no key {_shown(key)}{hint}", value)

    def refuse(self, message: str, value: Json) -> NoReturn:
        span = value.span if isinstance(value, _Object) else (0, 0)
        refuse(self.text, DiagnosticKind.SYNTAX, message, span)


def _object_spans(text: str) -> list[tuple[int, int]]:
    """Positions of the objects in the order in which they end, which is the order in which they are read."""
    spans, starts = [], []
    for piece in PIECES.finditer(text):
        if piece.group() == "{":
            starts.append(piece.start())
        elif piece.group() == "}" and starts:
            spans.append((starts.pop(), piece.end()))
    return spans


def _listed(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _shown(value: Json) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= 60 else shown[:57] + "…"
