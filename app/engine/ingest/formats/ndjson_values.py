"""SQL that reads JSON values as types and finds values of other kinds in a row; knows no files."""

import json
import re

from app.engine.ingest.formats.columns import complaint
from app.engine.store.case_names import file_names
from app.engine.store.field_types import WIDENINGS, parsed, sql_type, whole
from app.engine.store.lake import name_literal, text_literal
from app.pql.schema import ArrayType, MapType, ObjectType, Scalar, Type

WHOLE = ("UBIGINT", "BIGINT", "HUGEINT", "UHUGEINT")
NUMBERS = (*WHOLE, "DOUBLE")
TIMES = (Scalar.DATE, Scalar.TIMESTAMP)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)

JsonForm = str | list["JsonForm"] | dict[str, "JsonForm"]
"""A type in the form of `json_transform`: SQL type names in lists and objects."""


def step(name: str) -> str:
    """A field in a path.

    >>> print(step('12" pan'))
    "12\\" pan"
    """
    escaped = name.replace("\\", r"\\").replace('"', r"\"")
    return f'"{escaped}"'


def has_many(path: str) -> bool:
    """Whether a row may have several values at the path.

    >>> has_many('$."a"[*]'), has_many('$."a*"')
    (True, False)
    """
    return "*" in _QUOTED.sub("", path)


def as_type(json_value: str, type_: Type, depth: int = 0) -> str:
    """SQL for a JSON value (an SQL expression) as one of the type. Values of another kind become NULL."""
    item = f"j{depth}"
    if not _is_renamed(type_):
        return f"json_transform({json_value}, {text_literal(json.dumps(_form(type_), ensure_ascii=False))})"
    match type_:
        case ObjectType():
            names = file_names(type_.fields)
            values = ", ".join(
                f"{name_literal(names[name])} := "
                + as_type(f"json_extract({json_value}, {text_literal('$.' + step(name))})", inner, depth)
                for name, inner in type_.fields.items()
            )
            value, kind = f"struct_pack({values})", "OBJECT"
        case ArrayType(element):
            each = as_type(item, element, depth + 1)
            value = f"list_transform(json_extract({json_value}, '$[*]'), lambda {item}: {each})"
            kind = "ARRAY"
        case MapType(inner):
            pairs = f"list_zip(json_keys({json_value}), json_extract({json_value}, '$.*'))"
            entry = f"struct_pack(k := {item}[1], v := {as_type(f'{item}[2]', inner, depth + 1)})"
            value, kind = f"map_from_entries(list_transform({pairs}, lambda {item}: {entry}))", "OBJECT"
        case _:
            raise TypeError(f"{type_} has no fields")
    return f"CASE WHEN json_type({json_value}) = '{kind}' THEN {value} END"


def _is_renamed(type_: Type) -> bool:
    """Whether an object in it has fields with different names in files."""
    match type_:
        case ObjectType():
            return any(one != other for one, other in file_names(type_.fields).items()) or any(
                map(_is_renamed, type_.fields.values())
            )
        case ArrayType(inner) | MapType(inner):
            return _is_renamed(inner)
        case _:
            return False


def _form(type_: Type) -> JsonForm:
    """The type in the form of `json_transform`."""
    match type_:
        case ObjectType():
            return {name: _form(inner) for name, inner in type_.fields.items()}
        case ArrayType(element):
            return [_form(element)]
        case _:
            return sql_type(type_)


def fits_kind(found: Type, target: Type) -> bool:
    """Whether all values of the found kind can be converted to the target, ignoring nested values."""
    match found, target:
        case Scalar(), Scalar():
            return target in (found, Scalar.STRING) or (found, target) in WIDENINGS
        case _:
            return type(found) is type(target)


def allowed_kinds(target: Type) -> frozenset[str]:
    """The JSON kinds that can be converted to the target."""
    match target:
        case Scalar.NUMBER:
            return frozenset(NUMBERS)
        case Scalar.INTEGER:
            return frozenset(WHOLE)
        case Scalar.BOOLEAN:
            return frozenset({"BOOLEAN"})
        case Scalar.STRING:
            return frozenset({*NUMBERS, "BOOLEAN", "VARCHAR"})
        case Scalar():
            return frozenset({"VARCHAR"})
        case ArrayType():
            return frozenset({"ARRAY"})
        case _:
            return frozenset({"OBJECT"})


def _read_number(text: str, target: Scalar) -> str:
    """SQL for the number, NULL if it would be rounded; JSON allows any form of exponents."""
    if target is Scalar.INTEGER:
        return whole(text)
    return f"CASE WHEN regexp_matches({text}, '[.eE]') THEN try_cast({text} AS DOUBLE) ELSE {parsed(text, target)} END"


def mismatch(values: str, label: str, target: Type, *, many: bool) -> str:
    """SQL for the error of a JSON value, or of the first invalid one in a list (SQL expressions); NULL if there is
    none."""
    value = "v" if many else values
    kind, text = f"json_type({value})", f"json_extract_string({value}, '$')"
    kinds = ", ".join(text_literal(kind) for kind in sorted(allowed_kinds(target) | {"NULL"}))
    wrong = f"{kind} NOT IN ({kinds})"
    if target in (Scalar.INTEGER, Scalar.NUMBER) and isinstance(target, Scalar):
        if target is Scalar.INTEGER:
            # 5.0 is an integer, too.
            wrong = wrong.replace("'NULL'", "'DOUBLE', 'NULL'")
        wrong = f"({wrong} OR ({kind} <> 'NULL' AND ({_read_number(text, target)}) IS NULL))"
    if target in TIMES and isinstance(target, Scalar):
        wrong = f"({wrong} OR ({kind} = 'VARCHAR' AND ({parsed(text, target)}) IS NULL))"
    if not many:
        return f"CASE WHEN {wrong} THEN {complaint(label, text, target)} END"
    bad = f"list_filter({values}, lambda v: {wrong})"
    return f"CASE WHEN len({bad}) > 0 THEN {complaint(label, f'''json_extract_string({bad}[1], '$')''', target)} END"
