"""Numbers and times in CSV columns with formats other than decimal points and ISO 8601: detected from the whole column,
or given by the sender. Ambiguous values stay text and are reported."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import duckdb

from app.engine.ingest.formats.csv_options import CsvOptions
from app.engine.ingest.formats.csv_texts import count_each, table_of
from app.engine.store.epochs import EPOCHS
from app.engine.store.field_types import parsed, wider_types
from app.engine.store.lake import only_row, text_literal
from app.pql.schema import Scalar

_NUMBERS = (Scalar.NUMBER, Scalar.INTEGER)
_TIMES = (Scalar.DATE, Scalar.TIMESTAMP)
_COMMA = r"-?(0|[1-9][0-9]*|[1-9][0-9]{0,2}(\.[0-9]{3})+)(,[0-9]+)?"
_THOUSANDS = r"-?[1-9][0-9]{0,2}(,[0-9]{3})+"
_CLOCK = r"( [0-9]{1,2}:[0-9]{2}(:[0-9]{2})?( ?[AaPp][Mm])?)?"
_DAY = rf"([0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{4}}|[0-9]{{4}}[./-][0-9]{{1,2}}[./-][0-9]{{1,2}}){_CLOCK}"
_MONTH = "([Jj]an|[Ff]eb|[Mm]a[ry]|[Aa]pr|[Jj]u[nl]|[Aa]ug|[Ss]ep|[Oo]ct|[Nn]ov|[Dd]ec)[a-z]*"
_OTHER_DAY = (
    rf"[0-9]{{1,2}}[./-][0-9]{{1,2}}[./-][0-9]{{2}}{_CLOCK}"
    rf"|([A-Z][a-z]+,? )?[0-9]{{1,2}}[. -]*{_MONTH}[. ,-]*[0-9]{{2,4}}\b.*"
    rf"|{_MONTH}[. ]+[0-9]{{1,2}},? [0-9]{{4}}.*"
)
_OTHER_NUMBER = (
    r"[$€£]? ?[+-]?([0-9]{1,3}([ '.,][0-9]{3})*|[0-9]*)([.,][0-9]+)? ?[%$€£]?| *-?[0-9]+([.][0-9]+)? *"
    r"|\([$€£]?[0-9][0-9.,]*\)|[0-9][0-9.,]*-|[+-]?(?i:inf|infinity)"
)
_YES_OR_NO = "(?i:yes|no|y|n|on|off|t|f|true|false)"
_NOTHING = r"(?i:#?n/?a|<na>|nan|null|none|nil|\\n|-+|\?|unknown|missing)"
"""Common placeholders for a missing value."""
_CODE = re.compile(r"[+0][0-9]+|[0-9]{16,}|-?[0-9.]+[eE][+-]?[0-9]+")
"""Texts that contain digits but are intentionally not numbers."""
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?"
_NEARLY = (
    (rf"{_DAY}|{_OTHER_DAY}|{_ISO}", Scalar.TIMESTAMP, "dates", "name the date or timestamp format, or correct them"),
    (_OTHER_NUMBER, Scalar.NUMBER, "numbers", "write them as plain numbers, or leave them empty"),
    (_YES_OR_NO, Scalar.BOOLEAN, "yes or no", "write true and false"),
)
"""What values look like, the type they would get, its name and the advice."""
SAMPLE = 1_000
"""Number of rows that are looked at first."""
_NEARLY_ALL = 0.9


@dataclass(frozen=True, slots=True)
class Style:
    """The format of a column's values; `time_format` is a strptime format."""

    decimal_comma: bool = False
    time_format: str | None = None

    def value(self, text: str, type_: Scalar) -> str:
        """SQL that parses the text (an SQL expression); NULL if it is invalid."""
        if self.time_format is not None and type_ in _TIMES:
            time = f"try_strptime({text}, {text_literal(self.time_format)})"
            # `%Y` also accepts two-digit years, but 26 does not mean 2026.
            fits = f"year({time}) BETWEEN 1000 AND 9998"
            # A timestamp is a date only at midnight.
            fits += f" AND {time} = date_trunc('day', {time})" if type_ is Scalar.DATE else ""
            value = f"CASE WHEN {fits} THEN CAST({time} AS {_SQL[type_]}) END"
            return f"coalesce({parsed(text, type_)}, {value})" if self.time_format.startswith("%Y-") else value
        if self.decimal_comma and type_ in _NUMBERS:
            plain = f"replace(replace({text}, '.', ''), ',', '.')"
            return f"CASE WHEN regexp_full_match({text}, '{_COMMA}') THEN {parsed(plain, type_)} END"
        return parsed(text, type_)


_SQL = {Scalar.DATE: "DATE", Scalar.TIMESTAMP: "TIMESTAMPTZ"}


@dataclass(frozen=True, slots=True)
class _Looks:
    """The number of values in a column, and how many look like each alternative style."""

    values: int
    comma: int
    """A number with a decimal comma, or an integer."""
    commas: int
    thousands: int
    """An integer with commas between groups of three digits; a single such comma may also be a decimal comma."""
    american: int
    days: int
    day: str | None
    """A value that looks like a date."""

    @property
    def may_have_a_style(self) -> bool:
        """Whether all values look like one style; then rows before or after these may have a value that does not."""
        return self.values in (self.comma, self.american, self.days)


class Styles:
    """The styles of a file's columns, which must be loaded; `warnings` report ambiguities."""

    def __init__(self, database: duckdb.DuckDBPyConnection, texts: Mapping[str, str], options: CsvOptions) -> None:
        self._database = database
        self._texts = texts
        self._options = options
        self.warnings: list[str] = []

    def find(self, expected: Mapping[str, Scalar | None]) -> dict[str, tuple[Scalar, Style]]:
        """The styles of the columns that have one. If a type is expected, half of the values decide; otherwise all must
        agree."""
        styles: dict[str, tuple[Scalar, Style]] = {}
        plain: list[str] = []
        for name, looks in self._looks(expected):
            noted = len(self.warnings)
            style = self._style(name, looks, expected[name]) if looks.values else None
            if style is not None:
                styles[name] = style
            elif looks.values and expected[name] is None and len(self.warnings) == noted:
                plain.append(name)
        self._note_odd_values(plain)
        return styles

    def _note_odd_values(self, names: Sequence[str]) -> None:
        """Notes text columns that look like dates or numbers, with a value that cannot be parsed."""
        noted: set[str] = set()
        for looks, type_, kind, advice in _NEARLY:

            def counts(text: str, looks: str = looks, type_: Scalar = type_) -> list[str]:
                nothing = f"coalesce(regexp_full_match({text}, {text_literal(_NOTHING)}), false)"
                alike = f"(NOT {nothing} AND coalesce(regexp_full_match({text}, {text_literal(looks)}), false))"
                read = f"({parsed(text, type_)}) IS NOT NULL"
                odd = f"coalesce(min({text}) FILTER ({alike} AND NOT {read}), min({text}) FILTER (NOT {alike}))"
                values = f"count({text}) FILTER (NOT {nothing})"
                return [values, f"count(*) FILTER ({alike})", odd]

            texts = [self._texts[name] for name in names]
            counted = count_each(self._database, texts, counts, SAMPLE)
            for name, (values, alike, odd) in zip(names, counted, strict=True):
                if name in noted or not alike or alike < _NEARLY_ALL * values:
                    continue
                if odd is None:
                    odd = count_each(self._database, [self._texts[name]], counts)[0][2]
                if odd is not None and not _CODE.fullmatch(odd):
                    noted.add(name)
                    named = f", or name the null value {odd!r}" if re.fullmatch(_NOTHING, odd) else ""
                    self.warnings.append(
                        f'the column "{name}" looks like {kind}, but has values such as {odd[:40]!r}: {advice}{named}; '
                        "until then it is loaded as text"
                    )

    def _looks(self, expected: Mapping[str, Scalar | None]) -> Iterator[tuple[str, _Looks]]:
        """In the order of the columns; for columns that have no style by their first rows, the counts in these."""
        names = list(expected)
        looks = dict(self._counted(names, SAMPLE))
        said = self._options.date_format is not None or self._options.timestamp_format is not None
        open_ = [name for name in names if said or expected[name] is not None or looks[name].may_have_a_style]
        looks |= self._counted(open_)
        yield from looks.items()

    def _counted(self, names: Sequence[str], first: int | None = None) -> Iterator[tuple[str, _Looks]]:
        counted = count_each(self._database, [self._texts[name] for name in names], _counts, first)
        for name, counts in zip(names, counted, strict=True):
            yield name, _Looks(*counts)

    def _style(self, name: str, looks: _Looks, expected: Scalar | None) -> tuple[Scalar, Style] | None:
        enough = (looks.values + 1) // 2 if expected is not None else looks.values
        if expected in (None, *_TIMES):
            said = self._said_format(name, expected)
            if said is not None:
                type_, style = said
                matches = self._matches(name, style, type_)
                if matches >= (looks.values if expected is None else 1):
                    return self._fitting(name, style, (type_,) if expected is None else wider_types(expected)), style
                if 2 * matches > looks.values:
                    self.warnings.append(
                        f'{looks.values - matches:,} of the {looks.values:,} values of the column "{name}" are not '
                        f"written as {style.time_format}: all are loaded as text"
                    )
            elif looks.days >= enough and looks.day is not None:
                return self._time_style(name, looks.day, enough, expected)
        if expected in (None, *_NUMBERS) and self._options.decimal_separator != ".":
            return self._number_style(name, looks, enough)
        return None

    def _said_format(self, name: str, expected: Scalar | None) -> tuple[Scalar, Style] | None:
        options = self._options
        time, date = options.timestamp_format, options.date_format
        if time is not None and time not in EPOCHS:
            style = Style(time_format=time)
            if date is None or self._matches(name, style, Scalar.TIMESTAMP):
                return Scalar.TIMESTAMP, style
        return None if date is None else (Scalar.DATE, Style(time_format=date))

    def _fitting(self, name: str, style: Style, types: Sequence[Scalar]) -> Scalar:
        """The type that the most values have; the first one if several do."""
        return max(types, key=lambda type_: self._matches(name, style, type_))

    def _matches(self, name: str, style: Style, type_: Scalar) -> int:
        text = self._texts[name]
        return int(only_row(self._database, f"SELECT count({style.value(text, type_)}) FROM {table_of(text)}")[0])

    def _time_style(self, name: str, day: str, enough: int, expected: Scalar | None) -> tuple[Scalar, Style] | None:
        """The order of day and month is certain only if one order parses all values; with dots, the day comes first."""
        mark = next(mark for mark in "./-" if mark in day)
        clock, half = re.fullmatch("([0-9:]*)( ?[AaPp][Mm])?", day.partition(" ")[2]).groups()  # type: ignore[union-attr]
        clock = {0: "", 1: " %H:%M", 2: " %H:%M:%S"}[clock.count(":")]
        if half is not None:
            clock = clock.replace("%H", "%I") + (" %p" if half.startswith(" ") else "%p")
        orders = ("%Y %m %d",) if day[:4].isdigit() else ("%d %m %Y", "%m %d %Y")
        formats = [order.replace(" ", mark) + clock for order in orders]
        counts = {format_: self._matches(name, Style(time_format=format_), Scalar.TIMESTAMP) for format_ in formats}
        best = max(counts, key=lambda format_: counts[format_])
        if counts[best] < enough:
            return None
        if len(set(counts.values())) < len(counts) and mark != ".":
            self.warnings.append(
                f'the column "{name}" has values such as {day!r}, of which the day or the month could come first: '
                f"name the date format {' or '.join(formats)}"
                + (" to load them" if expected else "; they are loaded as text until then")
            )
            return None
        style = Style(time_format=best)
        types = wider_types(expected or Scalar.DATE) if expected or not clock else (Scalar.TIMESTAMP,)
        return self._fitting(name, style, types), style

    def _number_style(self, name: str, looks: _Looks, enough: int) -> tuple[Scalar, Style] | None:
        said = self._options.decimal_separator == ","
        if looks.comma >= enough and (said or looks.commas > looks.thousands):
            return Scalar.NUMBER, Style(decimal_comma=True)
        if looks.commas and (looks.comma >= enough or looks.american >= enough):
            self.warnings.append(
                f'the column "{name}" has numbers with commas, which could be decimal commas or separate thousands: '
                "name the decimal separator if it is a comma, or write the numbers without; they are loaded as text"
            )
        return None


def _counts(text: str) -> list[str]:
    def matching(pattern: str) -> str:
        return f"count(*) FILTER (WHERE regexp_full_match({text}, '{pattern}'))"

    return [
        f"count({text})",
        matching(_COMMA),
        f"count(*) FILTER (WHERE contains({text}, ','))",
        matching(_THOUSANDS),
        matching(rf"({_THOUSANDS}|-?[0-9]+)(\.[0-9]+)?"),
        matching(_DAY),
        f"min({text}) FILTER (WHERE regexp_full_match({text}, '{_DAY}'))",
    ]
