"""The two spellings of pql/json: ours, which follows the syntax tree, and Adobe's, which is used for output.

The reader accepts both, object by object, inner ones first; `ours` and `adobes` convert between them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

QUANTIFIERS: Final = {"exists": "some", "forall": "all"}
KINDS: Final = {"some": "exists", "any": "exists", "exists": "exists", "all": "forall", "forall": "forall"}
_CONDITIONS: Final = ("condition", "where", "predicate", "body", "expression")
"""Keys that may hold the condition on a variable."""
_ALWAYS: Final = {"nodeType": "literal", "literalType": "Boolean", "value": True}
_PROFILE: Final = {"nodeType": "parameterReference", "position": 1}
_LITERALS: Final = {
    name.lower(): name for name in ("String", "Integer", "Double", "Number", "Boolean", "Null", "List", "XDMObject")
} | {"long": "Integer", "int": "Integer", "float": "Double", "array": "List"}

Json = Mapping[str, Any]


def ours(node: Json) -> dict[str, object]:
    """An object of either spelling in ours. Unknown objects are returned unchanged for the reader to report.

    >>> ours({"nodeType": "varRef", "varName": "E"})
    {'nodeType': 'nameReference', 'name': 'E'}
    >>> ours({"nodeType": "literal", "literalType": "XDMObject", "value": 2})
    {'nodeType': 'literal', 'literalType': 'Double', 'value': 2}
    """
    spelling = _READ.get(node["nodeType"]) if isinstance(node.get("nodeType"), str) else None
    return dict(node) if spelling is None else spelling(node)


def adobes(node: Json) -> dict[str, object]:
    """An object of our spelling in Adobe's."""
    written = _WRITTEN.get(str(node["nodeType"]))
    return dict(node) if written is None else written(node)


def _read_quantifier(node: Json) -> dict[str, object]:
    kind = KINDS[node["nodeType"]]
    return {"nodeType": "quantifier", "kind": kind, "clauses": [_read_clause(node)]}


def _read_quantification(node: Json) -> dict[str, object]:
    written = next((node[key] for key in ("quantifier", "kind", "quantification") if key in node), None)
    kind = KINDS.get(written.lower(), written) if isinstance(written, str) else written
    clauses = node.get("clauses")
    return {"nodeType": "quantifier", "kind": kind, "clauses": [_read_clause(node)] if clauses is None else clauses}


def _read_select(node: Json) -> dict[str, object]:
    return dict(node) if "clause" in node else {"nodeType": "select", "clause": _read_clause(node)}


def _read_clause(node: Json) -> dict[str, object]:
    """The variable, its array and its condition, under any of their keys."""
    declared = node.get("varDecl")
    parts = {**node, **(declared if isinstance(declared, Mapping) else {"varName": declared} if declared else {})}
    condition = next((node[key] for key in _CONDITIONS if key in node), _ALWAYS)
    return {
        "nodeType": "clause",
        "variable": next((parts[key] for key in ("varName", "variable", "name") if key in parts), None),
        "array": next((parts[key] for key in ("range", "array", "from") if key in parts), None),
        "condition": condition,
    }


def _read_reference(node: Json) -> dict[str, object]:
    reference = {key: value for key, value in node.items() if key != "varName"}
    return {**reference, "nodeType": "nameReference", "name": node.get("varName", node.get("name"))}


def _read_literal(node: Json) -> dict[str, object]:
    kind = node.get("literalType")
    name = _LITERALS.get(kind.lower(), kind) if isinstance(kind, str) else kind
    if name == "XDMObject" and "value" in node:
        name = _kind_of(node["value"])
    elif name == "Number":
        name = "Double"
    return {**node, "literalType": name}


def _kind_of(value: object) -> str:
    match value:
        case bool():
            return "Boolean"
        case str():
            return "String"
        case None:
            return "Null"
        case list():
            return "List"
    return "Double"


def _write_quantifier(node: Json) -> dict[str, object]:
    kind, clauses = QUANTIFIERS[node["kind"]], node["clauses"]
    if len(clauses) == 1:
        return {**clauses[0], "nodeType": kind}
    return {"nodeType": "quantification", "quantifier": kind, "clauses": clauses}


def _write_select(node: Json) -> dict[str, object]:
    clause = node["clause"]
    declared = {"nodeType": "varDecl", "varName": clause["varName"], "range": clause["range"]}
    return {"nodeType": "select", "varDecl": declared, "condition": clause["condition"]}


def _write_clause(node: Json) -> dict[str, object]:
    return {
        "nodeType": "clause",
        "varName": node["variable"],
        "range": node["array"],
        "condition": node["condition"],
    }


_READ: Final[dict[str, Callable[[Json], dict[str, Any]]]] = {
    **dict.fromkeys(("some", "all"), _read_quantifier),
    "quantification": _read_quantification,
    "select": _read_select,
    "clause": _read_clause,
    "varRef": _read_reference,
    "literal": _read_literal,
    "fieldLookup": lambda node: {**node, "object": node.get("object", _PROFILE)},
}
_WRITTEN: Final[dict[str, Callable[[Json], dict[str, Any]]]] = {
    "quantifier": _write_quantifier,
    "select": _write_select,
    "clause": _write_clause,
}
