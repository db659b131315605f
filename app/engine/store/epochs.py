"""SQL that parses times written as numbers since 1970; knows no files."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from app.engine.store.field_types import within_years
from app.engine.store.lake import text_literal
from app.json_values import JsonValue
from app.pql.schema import Scalar

EPOCHS = {"epoch": 1, "epoch_ms": 1_000}
"""Units per second, by name of the format."""
_UNITS = {"epoch": "second", "epoch_ms": "millisecond"}
_NUMBER = "-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Epoch:
    """A column declared to contain such times: the name of the format, and whether all values are integers."""

    format: str
    is_whole: bool

    def value(self, text: str) -> str:
        """SQL for the time; NULL if there is none, or if `problem` reports an error."""
        fits = f"regexp_full_match({text}, '{_NUMBER}')"
        if self.is_whole:
            fits += f" AND NOT {_has_fraction(text)}"
        return f"CASE WHEN {fits} THEN {epoch_time(text, self.format)} END"

    def problem(self, name: str, text: str) -> str:
        """SQL for the error in the text of the column with this name; NULL if there is none."""
        unit = _UNITS[self.format]
        number = f"is not a number of {unit}s since 1970, as declared ({self.format})"
        beyond = f"{unit}s since 1970 are outside the years 1 to 9999"
        if self.format == "epoch":
            beyond += ": if it counts milliseconds, declare the format epoch_ms"
        reason = f"WHEN NOT regexp_full_match({text}, '{_NUMBER}') THEN {text_literal(number)}"
        if self.is_whole:
            reason += f" WHEN {_has_fraction(text)} THEN {text_literal(f'has fractions of a {unit}')}"
        begin = f"{text_literal(f'{name}: {chr(34)}')} || left({text}, 100) || {text_literal(f'{chr(34)} ')}"
        wrong = f"{text} IS NOT NULL AND ({self.value(text)}) IS NULL"
        return f"CASE WHEN {wrong} THEN {begin} || CASE {reason} ELSE {text_literal(beyond)} END END"


def epoch_time(text: str, format: str) -> str:
    """SQL for the time that a text denotes; NULL if it is not a number or outside the years 1 to 9999. Fractions below
    microseconds are truncated."""
    # A decimal: a double would change the microseconds.
    micros = f"try_cast({text} AS DECIMAL(27, 9)) * {1_000_000 // EPOCHS[format]}"
    return within_years(f"TRY(make_timestamptz(CAST(floor({micros}) AS BIGINT)))", Scalar.TIMESTAMP)


def _has_fraction(text: str) -> str:
    return f"coalesce(try_cast({text} AS DECIMAL(38, 18)) % 1 <> 0, false)"


def as_times(value: JsonValue, format: JsonValue) -> JsonValue:
    """A value of an enumeration in a schema, or a list of them, with numbers since 1970 converted to times in UTC.

    >>> as_times([1767225600, "1767225600.5", None], "epoch")
    ['2026-01-01T00:00:00Z', '2026-01-01T00:00:00.500000Z', None]
    """
    if isinstance(value, list):
        return [as_times(item, format) for item in value]
    text = "" if isinstance(value, bool) else str(value)
    if format not in EPOCHS or not re.fullmatch(_NUMBER, text):
        return value
    try:
        micros = int(Decimal(text) * (1_000_000 // EPOCHS[str(format)]))
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)
    except OverflowError:
        return value  # outside the range of times, so that no time equals it
    return time.isoformat().replace("+00:00", "Z")
