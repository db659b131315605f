"""Times that are numbers since 1970, as SQL that reads their text; knows no files."""

from dataclasses import dataclass

from app.engine.store.field_types import within_years
from app.engine.store.lake import text_literal
from app.pql.schema import Scalar

EPOCHS = {"epoch": 1, "epoch_ms": 1_000}
"""How many are a second, by the name of their format."""
_UNITS = {"epoch": "second", "epoch_ms": "millisecond"}
_NUMBER = "-?(0|[1-9][0-9]*)([.][0-9]+)?([eE][+-]?[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Epoch:
    """A column of such times by declaration: the name of their format, and whether all are whole."""

    format: str
    is_whole: bool

    def value(self, text: str) -> str:
        """SQL for the time, NULL when there is none or `problem` says what is wrong."""
        fits = f"regexp_full_match({text}, '{_NUMBER}')"
        if self.is_whole:
            fits += f" AND NOT {_has_fraction(text)}"
        return f"CASE WHEN {fits} THEN {epoch_time(text, self.format)} END"

    def problem(self, name: str, text: str) -> str:
        """SQL for what is wrong with the text of the column of that name, NULL when nothing is."""
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
    """SQL for the time that a text counts to, NULL when it is no number, or outside the years 1 to 9999. Fractions
    beyond microseconds are cut off."""
    # A decimal number: a double would move its microseconds.
    micros = f"try_cast({text} AS DECIMAL(27, 9)) * {1_000_000 // EPOCHS[format]}"
    return within_years(f"TRY(make_timestamptz(CAST(floor({micros}) AS BIGINT)))", Scalar.TIMESTAMP)


def _has_fraction(text: str) -> str:
    return f"coalesce(try_cast({text} AS DECIMAL(38, 18)) % 1 <> 0, false)"
