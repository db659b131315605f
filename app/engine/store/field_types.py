"""Field types: how they widen, their names in DuckDB, and how text is parsed into values; knows no files."""

from collections.abc import Mapping
from functools import reduce

from app.engine.store.case_names import file_names
from app.engine.store.lake import name_literal
from app.pql.schema import IDENTITY_MAP, SEGMENT_MEMBERSHIP, ArrayType, MapType, ObjectType, Scalar, Type

MAPS: Mapping[tuple[str, ...], MapType] = {
    ("identityMap",): IDENTITY_MAP,
    ("segmentMembership",): SEGMENT_MEMBERSHIP,
    ("consents", "marketing", "email", "subscriptions"): MapType(ObjectType({"val": Scalar.STRING})),
}
"""Fields whose keys are data: objects in files, maps in PQL."""

_SQL = {
    Scalar.NUMBER: "DOUBLE",
    Scalar.INTEGER: "BIGINT",
    Scalar.STRING: "VARCHAR",
    Scalar.BOOLEAN: "BOOLEAN",
    Scalar.DATE: "DATE",
    Scalar.TIMESTAMP: "TIMESTAMPTZ",
}

NOUNS = {
    Scalar.NUMBER: "a number",
    Scalar.INTEGER: "a whole number of 64 bits",
    Scalar.STRING: "text",
    Scalar.BOOLEAN: "true or false",
    Scalar.DATE: "a date (YYYY-MM-DD)",
    Scalar.TIMESTAMP: "a time (ISO 8601, such as 2026-06-15 or 2026-06-15T12:00:00Z)",
}


def noun(type_: Type) -> str:
    """The name of the type's values in messages."""
    match type_:
        case Scalar():
            return NOUNS[type_]
        case ArrayType():
            return "a list"
        case _:
            return "an object"


def sql_type(type_: Type) -> str:
    """The DuckDB type, as stored by `arrow_type`.

    >>> sql_type(ArrayType(ObjectType({"a b": Scalar.NUMBER})))
    'STRUCT("a b" DOUBLE)[]'
    """
    match type_:
        case ArrayType(element):
            return f"{sql_type(element)}[]"
        case MapType(value):
            return f"MAP(VARCHAR, {sql_type(value)})"
        case ObjectType():
            names = file_names(type_.fields)
            fields = (f"{name_literal(names[name])} {sql_type(inner)}" for name, inner in type_.fields.items())
            return f"STRUCT({', '.join(fields)})"
        case Scalar():
            return _SQL[type_]


WIDENINGS = frozenset({(Scalar.INTEGER, Scalar.NUMBER), (Scalar.DATE, Scalar.TIMESTAMP)})
"""Types to which a column's type may be widened: all of its values are values of the other type too."""


def fits_map(fields: ObjectType, value: Type) -> bool:
    """Whether the object could be a map with such values."""
    return all(type_ == value or (type_, value) in WIDENINGS for type_ in fields.fields.values())


def wider_types(type_: Type) -> tuple[Scalar, ...]:
    """The types to which a column may be widened, starting with its own."""
    if not isinstance(type_, Scalar):
        return ()
    return (type_, *(wide for narrow, wide in WIDENINGS if narrow is type_))


def widen(old: ObjectType, new: ObjectType) -> ObjectType:
    """The union of both, at every depth. Where the types conflict, `old` is kept.

    >>> dict(widen(ObjectType({"a": Scalar.NUMBER}), ObjectType({"a": Scalar.STRING, "b": Scalar.DATE})).fields)
    {'a': <Scalar.NUMBER: 'number'>, 'b': <Scalar.DATE: 'date'>}
    """
    fields = dict(old.fields)
    for name, type_ in new.fields.items():
        fields[name] = _wider(fields[name], type_) if name in fields else type_
    return ObjectType(fields)


def _wider(old: Type, new: Type) -> Type:
    match old, new:
        case ObjectType(), ObjectType():
            return widen(old, new)
        case ArrayType(one), ArrayType(other):
            return ArrayType(_wider(one, other))
        case MapType(one), MapType(other):
            return MapType(_wider(one, other))
        case ObjectType(), MapType(value):
            return MapType(reduce(_wider, old.fields.values(), value))
        case _:
            return new if (old, new) in WIDENINGS else old


def contradicts(one: Type, other: Type) -> bool:
    """Whether a value of one type cannot be stored in the other, at some place that both have."""
    match one, other:
        case ObjectType(), ObjectType():
            shared = one.fields.keys() & other.fields.keys()
            return any(contradicts(one.fields[name], other.fields[name]) for name in shared)
        case ArrayType(inner), ArrayType(outer):
            return contradicts(inner, outer)
        case MapType(inner), MapType(outer):
            return contradicts(inner, outer)
        case _:
            return one != other


def parsed(text: str, type_: Scalar) -> str:
    """SQL that parses the text (an SQL expression) as a value; NULL if it is invalid."""
    match type_:
        case Scalar.INTEGER:
            return f"CASE WHEN regexp_full_match({text}, '{_WHOLE}') THEN try_cast({text} AS BIGINT) END"
        case Scalar.NUMBER:
            return _number(text)
        case Scalar.BOOLEAN:
            return f"CASE lower({text}) WHEN 'true' THEN true WHEN 'false' THEN false END"
        case Scalar.DATE:
            return f"CASE WHEN regexp_full_match({text}, '{_DAY}') THEN try_cast({text} AS DATE) END"
        case Scalar.TIMESTAMP:
            # Upper case: RFC 3339 allows lower-case t and z.
            time = f"try_cast(upper({text}) AS TIMESTAMPTZ)"
            time = f"CASE WHEN NOT regexp_full_match({text}, '{_BEYOND}') THEN {time} END"
            return f"CASE WHEN regexp_full_match({text}, '{_TIME}') THEN {time} END"
        case _:
            return text


def within_years(value: str, type_: Scalar) -> str:
    """SQL for a date or time; NULL outside the years 1 to 9999 in UTC, the range of Python and JSON."""
    kind = {Scalar.DATE: "DATE", Scalar.TIMESTAMP: "TIMESTAMPTZ"}[type_]
    first, last = (f"CAST('{bound}' AS {kind})" for bound in _YEARS[type_])
    return f"CASE WHEN {value} BETWEEN {first} AND {last} THEN {value} END"


_YEARS = {
    Scalar.DATE: ("0001-01-01", "9999-12-31"),
    Scalar.TIMESTAMP: ("0001-01-01 00:00:00+00", "9999-12-31 23:59:59.999999+00"),
}


def whole(text: str) -> str:
    """SQL that parses the text as an integer, allowing zeros after the decimal point."""
    return parsed(f"regexp_replace({text}, '[.]0+$', '')", Scalar.INTEGER)


def looks_like(text: str, type_: Scalar) -> str:
    """SQL that tests whether the text would be inferred as that type in a column of unknown type.

    Numbers with a leading zero, a plus sign or an exponent, and integers beyond 64 bits, are treated as identifiers.
    """
    if type_ is Scalar.NUMBER:
        quantity = f"(contains({text}, '.') OR try_cast({text} AS BIGINT) IS NOT NULL)"
        return f"(regexp_full_match({text}, '{_DECIMAL}') AND {quantity} AND {parsed(text, type_)} IS NOT NULL)"
    return f"({parsed(text, type_)} IS NOT NULL)"


def _number(text: str) -> str:
    """A double that prints as the text, apart from trailing zeros."""
    number = f"try_cast({text} AS DOUBLE)"
    plain = f"regexp_full_match({text}, '{_DECIMAL}')"
    # Test the length first: a double represents every decimal of 15 digits, and few are longer.
    places = f"regexp_replace({text}, '(\\.[0-9]*[1-9])0+$|\\.0+$', '\\1')"
    prints = f"regexp_replace(CAST({number} AS VARCHAR), '\\.0$', '')"
    exact = f"(length({text}) < 16 OR {prints} = {places} OR format('{{:.17g}}', {number}) = {text})"
    whole = f"try_cast({text} AS HUGEINT) = try_cast({number} AS HUGEINT)"
    return (
        f"CASE WHEN NOT {plain} THEN CASE WHEN regexp_full_match({text}, '{_EXPONENT}') AND {prints} = lower({text})"
        f" THEN {number} END WHEN contains({text}, '.') THEN CASE WHEN {exact} THEN {number} END"
        f" WHEN length({text}) < 16 OR {whole} THEN {number} END"
    )


def guess(seen: int, counts: Mapping[Scalar, int]) -> Scalar:
    """The type of a column, from its number of values and how many of them look like each type.

    >>> guess(3, {Scalar.DATE: 1, Scalar.TIMESTAMP: 3})
    <Scalar.TIMESTAMP: 'timestamp'>
    """
    for type_ in (Scalar.BOOLEAN, Scalar.INTEGER, Scalar.NUMBER, Scalar.DATE, Scalar.TIMESTAMP):
        if counts.get(type_, 0) == seen:
            return type_
    return Scalar.STRING


_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_DAY = f"{_YEAR}-[0-9]{{2}}-[0-9]{{2}}"
_BEYOND = "0001-01-01.*[+].*[1-9].*|9999-12-31.+-.*[1-9].*"
"""Times that may be outside the years 1 to 9999 in UTC."""
_WHOLE = "-?(0|[1-9][0-9]*)"
_DECIMAL = r"-?((0|[1-9][0-9]*)(\.[0-9]+)?|\.[0-9]+)"
_EXPONENT = r"-?[1-9](\.[0-9]*[1-9])?[eE][+-]?[0-9]+"
_HOUR = "([01][0-9]|2[0-3])"
_CLOCK = rf"{_HOUR}:[0-5][0-9](:[0-5][0-9]([.][0-9]+)?)?"
_TIME = f"{_DAY}([Tt ]{_CLOCK}( ?([Zz]|UTC|[+-]{_HOUR}(:?[0-5][0-9])?))?)?"
"""RFC 3339, or a date only, or without seconds or offset (then UTC)."""
