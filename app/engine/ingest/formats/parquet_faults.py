"""What can be wrong in Parquet values that are stored as their column is: they are checked, not converted."""

from dataclasses import dataclass

import pyarrow as pa

from app.engine.store.case_names import file_names
from app.engine.store.field_types import within_years
from app.engine.store.lake import name_literal
from app.pql.schema import ArrayType, ObjectType, Scalar, Type


@dataclass(frozen=True, slots=True)
class Faults:
    """SQL conditions that a value is faulty; None if it cannot be."""

    zero_byte: str | None = None
    """A text in it has a zero byte."""
    misfit: str | None = None
    """A number in it is not finite, or a time is outside of the years 1 to 9999."""


def stored_faults(value: str, stored: pa.DataType, target: Type, depth: int = 0) -> Faults | None:
    """The faults that a value (an SQL expression) may have; None if its form is not that of the target, so that it must
    be converted.

    >>> stored_faults("v", pa.list_(pa.float64()), ArrayType(Scalar.NUMBER))
    Faults(zero_byte=None, misfit='len(list_filter(v, lambda __item0: NOT isfinite(__item0))) > 0')
    >>> stored_faults("v", pa.int32(), Scalar.INTEGER) is None
    True
    """
    match target:
        case Scalar():
            return _of_scalar(value, stored, target)
        case ArrayType(element) if pa.types.is_list(stored):
            item = f"__item{depth}"  # no column has such a name, which would hide it
            inner = stored_faults(item, stored.value_type, element, depth + 1)
            return inner and Faults(_any(value, item, inner.zero_byte), _any(value, item, inner.misfit))
        case ObjectType(fields) if pa.types.is_struct(stored) and [each.name for each in stored] == list(fields):
            names = file_names(fields)
            parts = [
                stored_faults(f"{value}.{name_literal(names[each.name])}", each.type, fields[each.name], depth)
                for each in stored
            ]
            faults = [part for part in parts if part is not None]
            if len(faults) < len(parts):
                return None
            return Faults(_or([part.zero_byte for part in faults]), _or([part.misfit for part in faults]))
        case _:
            return None


def _of_scalar(value: str, stored: pa.DataType, target: Scalar) -> Faults | None:
    types = pa.types
    if target is Scalar.STRING and (types.is_string(stored) or types.is_large_string(stored)):
        return Faults(zero_byte=f"contains({value}, chr(0))")
    if target is Scalar.NUMBER and types.is_float64(stored):
        return Faults(misfit=f"NOT isfinite({value})")
    is_time = (
        target is Scalar.TIMESTAMP and types.is_timestamp(stored) and stored.unit == "us" and stored.tz is not None
    )
    if is_time or (target is Scalar.DATE and types.is_date32(stored)):
        return Faults(misfit=f"({value} IS NOT NULL AND ({within_years(value, target)}) IS NULL)")
    is_plain = (target is Scalar.INTEGER and types.is_int64(stored)) or (
        target is Scalar.BOOLEAN and types.is_boolean(stored)
    )
    return Faults() if is_plain else None


def _any(values: str, item: str, fault: str | None) -> str | None:
    return fault and f"len(list_filter({values}, lambda {item}: {fault})) > 0"


def _or(faults: list[str | None]) -> str | None:
    return " OR ".join(f"({fault})" for fault in faults if fault) or None
