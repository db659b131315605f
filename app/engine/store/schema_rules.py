"""Rules of a JSON Schema for values, as SQL that finds the values that violate them; knows no files."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import duckdb

from app.engine.store.case_names import file_names
from app.engine.store.epochs import Epoch
from app.engine.store.lake import name_literal, text_literal
from app.json_values import JsonValue
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type


@dataclass(frozen=True, slots=True)
class Rule:
    """A keyword for the values at a path, in which `[]` are elements of a list and `{}` values of a map. `required`
    applies to the object at the path and names one of its fields."""

    path: tuple[str, ...]
    keyword: str
    value: JsonValue

    @property
    def name(self) -> str:
        """The field that `required` names."""
        return str(self.value)

    @property
    def epoch(self) -> Epoch:
        """The content of `EPOCH`."""
        format, is_whole = cast(tuple[str, bool], self.value)
        return Epoch(format, is_whole)


@dataclass(frozen=True, slots=True)
class _Keyword:
    """`kinds` are the types of values it applies to; `holds` builds SQL from a value, the keyword's value and the type;
    `says` describes the violation."""

    kinds: tuple[object, ...]
    accepts: Callable[[Any], bool]
    expected: str
    holds: Callable[[str, Any, Type], str]
    says: Callable[[Any], str]


FORMATS: Mapping[str, tuple[str, str]] = {
    "email": (r"[^@\s]+@[^@\s]+", "an email address"),
    "uuid": (r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "a UUID"),
    "uri": (r"[A-Za-z][A-Za-z0-9+.-]*:\S*", "a URI"),
    "ipv4": (r"((25[0-5]|2[0-4]\d|1?\d?\d)(\.|$)){4}", "an IPv4 address"),
    "time": (r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)", "a time (RFC 3339)"),
}
"""Checked formats of text, each with its pattern and name."""

_NUMBERS = (Scalar.INTEGER, Scalar.NUMBER)
_SCALARS = (*_NUMBERS, Scalar.STRING, Scalar.BOOLEAN, Scalar.DATE, Scalar.TIMESTAMP)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and float(value).is_integer()


def _is_pattern(value: object) -> bool:
    try:
        duckdb.execute("SELECT regexp_matches('', $1)", [value])
    except (duckdb.Error, TypeError):
        return False
    return isinstance(value, str)


def _bound(comparison: str, rounded: Callable[[float], int]) -> Callable[[str, object, Type], str]:
    def holds(value: str, bound: Any, type_: Type) -> str:
        literal = f"({rounded(bound)}::HUGEINT)" if type_ is Scalar.INTEGER else f"({bound!r}::DOUBLE)"
        return f"{value} {comparison} {literal}"

    return holds


def _multiple(value: str, of: Any, type_: Type) -> str:
    if type_ is Scalar.INTEGER and float(of).is_integer():
        return f"{value} % {int(of)} = 0"
    times = f"({value}::DOUBLE / {float(of)!r}::DOUBLE)"
    return f"abs({times} - round({times})) <= 1e-9 * greatest(1, abs({times}))"


def _one_of(value: str, values: Any, type_: Type) -> str:
    literals = [literal for entry in values if (literal := _literal(entry, type_)) is not None]
    return f"{value} IN ({', '.join(literals)})" if literals else "false"


def _literal(value: object, type_: Type) -> str | None:
    """A value as SQL; None for a value of another type, which cannot be equal."""
    if type_ in _NUMBERS:
        return f"({value!r}::{'HUGEINT' if isinstance(value, int) else 'DOUBLE'})" if _is_number(value) else None
    if type_ is Scalar.BOOLEAN:
        return str(value).lower() if isinstance(value, bool) else None
    if not isinstance(value, str):
        return None
    kind = "DATE" if type_ is Scalar.DATE else "TIMESTAMPTZ" if type_ is Scalar.TIMESTAMP else "VARCHAR"
    return f"try_cast({text_literal(value)} AS {kind})"


def _listed(values: Sequence[object]) -> str:
    return ", ".join(str(value) for value in values[:10]) + (", …" if len(values) > 10 else "")


def _size(kinds: tuple[object, ...], function: str, comparison: str, says: str) -> _Keyword:
    expected = "must be a whole number that is not negative"
    return _Keyword(
        kinds, _is_count, expected, lambda x, v, t: f"{function}({x}) {comparison} {int(v)}", lambda v: says.format(v)
    )


_LISTS, _TEXT = (ArrayType,), (Scalar.STRING,)
_NUMBER = "must be a number"
RULES: Mapping[str, _Keyword] = {
    "enum": _Keyword(
        _SCALARS,
        lambda v: isinstance(v, list | tuple) and len(v) > 0 and not any(isinstance(one, dict | list) for one in v),
        "must be a list of values",
        _one_of,
        lambda v: f"is not one of {_listed(v)}",
    ),
    "const": _Keyword(
        _SCALARS,
        lambda v: isinstance(v, str | bool) or _is_number(v),
        "must be a text, number or boolean",
        lambda x, v, t: _one_of(x, [v], t),
        lambda v: f"is not {v}",
    ),
    "minimum": _Keyword(_NUMBERS, _is_number, _NUMBER, _bound(">=", math.ceil), lambda v: f"is below {v}"),
    "maximum": _Keyword(_NUMBERS, _is_number, _NUMBER, _bound("<=", math.floor), lambda v: f"is above {v}"),
    "exclusiveMinimum": _Keyword(_NUMBERS, _is_number, _NUMBER, _bound(">", math.floor), lambda v: f"is not above {v}"),
    "exclusiveMaximum": _Keyword(_NUMBERS, _is_number, _NUMBER, _bound("<", math.ceil), lambda v: f"is not below {v}"),
    "multipleOf": _Keyword(
        _NUMBERS,
        lambda v: _is_number(v) and v > 0,
        "must be a number above 0",
        _multiple,
        lambda v: f"is no multiple of {v}",
    ),
    "pattern": _Keyword(
        _TEXT,
        _is_pattern,
        "must be a regular expression (as RE2 knows them: without lookaround and back references)",
        lambda x, v, t: f"regexp_matches({x}, {text_literal(v)})",
        lambda v: f"does not match the pattern {v}",
    ),
    "minLength": _size(_TEXT, "length", ">=", "is shorter than {} characters"),
    "maxLength": _size(_TEXT, "length", "<=", "is longer than {} characters"),
    "minItems": _size(_LISTS, "len", ">=", "has fewer than {} elements"),
    "maxItems": _size(_LISTS, "len", "<=", "has more than {} elements"),
    "uniqueItems": _Keyword(
        _LISTS,
        lambda v: isinstance(v, bool),
        "must be true or false",
        lambda x, v, t: (
            f"len(list_distinct({x})) = len(list_filter({x}, lambda __u: __u IS NOT NULL))" if v else "true"
        ),
        lambda v: "has an element twice",
    ),
}
"""Keywords that define rules for values."""

_FORMAT = _Keyword(
    _TEXT,
    lambda v: v in FORMATS,
    "",
    lambda x, v, t: f"regexp_full_match({x}, {text_literal(FORMATS[v][0])})",
    lambda v: f"is not {FORMATS[v][1]}",
)

EPOCH = "epoch"
"""Not a JSON Schema keyword: how a place counts from 1970, with format and whether values are integers."""

PRECISE = "precise"
"""Not a JSON Schema keyword: integers that a double represents exactly, for places where another dataset has
fractions."""
_PRECISE = _Keyword(
    (Scalar.INTEGER,),
    lambda v: v is None,
    "",
    lambda x, v, t: f"abs({x}::HUGEINT) <= {1 << 53}",
    lambda v: "has more digits than a column with fractions holds (another dataset has some): it would be rounded",
)


def mistake(keyword: str, value: object, type_: Type | None) -> str | None:
    """The error in a keyword's value, or in its use for such values; None if there is none."""
    rule = RULES[keyword]
    if not rule.accepts(value):
        return f"`{keyword}` {rule.expected}"
    if type_ is not None and type_ not in rule.kinds and type(type_) not in rule.kinds:
        return f"`{keyword}` does not apply to the type {type_}"
    return None


def problem(rule: Rule, columns: Mapping[str, tuple[str, Type]]) -> str | None:
    """SQL for a row's violation of the rule, NULL if there is none; None if the columns have no such path, or no value
    there to which the rule applies.

    `columns` are the top-level columns by name, as SQL and type.
    """
    if rule.keyword == "required" and not rule.path:
        column = columns.get(rule.name)
        wrong = text_literal(f"{rule.name}: a value is required")
        return wrong if column is None else f"CASE WHEN {column[0]} IS NULL THEN {wrong} END"
    column = columns.get(rule.path[0])
    if column is None:
        return None
    values, type_ = values_at(*column, rule.path[1:])
    if type_ is None:
        return None
    label = label_of(rule.path)
    if rule.keyword == "required":
        name = file_names(type_.fields).get(rule.name) if isinstance(type_, ObjectType) else None
        if name is None:
            return None
        wrong = text_literal(f"{label}.{rule.name}: a value is required")
        missing = f"list_filter({values}, lambda __v: __v IS NOT NULL AND __v.{name_literal(name)} IS NULL)"
        return f"CASE WHEN len({missing}) > 0 THEN {wrong} END"
    keyword = {"format": _FORMAT, PRECISE: _PRECISE}.get(rule.keyword) or RULES[rule.keyword]
    if type_ not in keyword.kinds and type(type_) not in keyword.kinds:
        return None
    holds = keyword.holds("__v", rule.value, type_)
    bad = f"list_filter({values}, lambda __v: __v IS NOT NULL AND NOT coalesce({holds}, false))"
    begin, end = text_literal(f'{label}: "'), text_literal(f'" {keyword.says(rule.value)}')
    return f"CASE WHEN len({bad}) > 0 THEN {begin} || left(({bad})[1]::VARCHAR, 100) || {end} END"


def label_of(path: Sequence[str]) -> str:
    """The path in messages.

    >>> label_of(("orders", "[]", "at"))
    'orders.at'
    """
    return ".".join(step for step in path if step not in ("[]", "{}"))


def values_at(value: str, type_: Type, path: Sequence[str]) -> tuple[str, Type | None]:
    """SQL for the list of values at the path below a value, and their type; no type if the path does not exist."""
    values: str = f"[{value}]"
    below: Type | None = type_
    for step in path:
        match below:
            case ArrayType(element) if step == "[]":
                values, below = f"flatten({values})", element
            case MapType(inner) if step == "{}":
                values, below = f"flatten(list_transform({values}, lambda __m: map_values(__m)))", inner
            case ObjectType() if step in below.fields:
                name = name_literal(file_names(below.fields)[step])
                values, below = f"list_transform({values}, lambda __o: __o.{name})", below.fields[step]
            case _:
                return values, None
    return values, below
