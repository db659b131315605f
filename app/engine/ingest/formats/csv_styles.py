"""Numbers and times of CSV columns that are not written with a point and as ISO 8601: detected from the whole column,
or as the sender says. What could mean two things stays text, and is reported."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from app.engine.ingest.formats.csv_options import CsvOptions
from app.engine.store.epochs import EPOCHS
from app.engine.store.field_types import parsed
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
"""What programs and people write where there is no value."""
_CODE = re.compile(r"[+0][0-9]+|[0-9]{16,}|-?[0-9.]+[eE][+-]?[0-9]+")
"""What a number is not, but text with good reason."""
_ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?"
_NEARLY = (
    (rf"{_DAY}|{_OTHER_DAY}|{_ISO}", Scalar.TIMESTAMP, "dates", "name the date or timestamp format, or correct them"),
    (_OTHER_NUMBER, Scalar.NUMBER, "numbers", "write them as plain numbers, or leave them empty"),
    (_YES_OR_NO, Scalar.BOOLEAN, "yes or no", "write true and false"),
)
"""What values look like, as what they would be read, what that is called and what to do."""
_SAMPLE = 1_000
_NEARLY_ALL = 0.9
_AT_ONCE = 40
"""More columns are counted as (column, value) pairs: planning a query takes a while for each expression."""


@dataclass(frozen=True, slots=True)
class Style:
    """How the values of a column are written; `time_format` is as for strptime."""

    decimal_comma: bool = False
    time_format: str | None = None

    def value(self, text: str, type_: Scalar) -> str:
        """SQL that reads the text (an SQL expression), NULL when it is no value."""
        if self.time_format is not None and type_ in _TIMES:
            time = f"try_strptime({text}, {text_literal(self.time_format)})"
            # `%Y` takes a year of two digits, too: 26 is not 2026.
            value = f"CASE WHEN year({time}) BETWEEN 1000 AND 9998 THEN CAST({time} AS {_SQL[type_]}) END"
            return f"coalesce({parsed(text, type_)}, {value})" if self.time_format.startswith("%Y-") else value
        if self.decimal_comma and type_ in _NUMBERS:
            plain = f"replace(replace({text}, '.', ''), ',', '.')"
            return f"CASE WHEN regexp_full_match({text}, '{_COMMA}') THEN {parsed(plain, type_)} END"
        return parsed(text, type_)


_SQL = {Scalar.DATE: "DATE", Scalar.TIMESTAMP: "TIMESTAMPTZ"}


@dataclass(frozen=True, slots=True)
class _Looks:
    """How many values of a column there are, and how many look like something that is written in another style."""

    values: int
    comma: int
    """A number with a decimal comma, or a whole one."""
    commas: int
    thousands: int
    """A whole number with commas between groups of three digits: a decimal comma, or none."""
    american: int
    days: int
    day: str | None
    """One value that looks like a day."""


def count_each(
    database: duckdb.DuckDBPyConnection, rows: str, texts: Sequence[str], counts: Callable[[str], list[str]]
) -> list[tuple[Any, ...]]:
    """What `counts` (SQL of aggregates of a text) gives for each of the columns of the rows, an SQL relation."""
    if not texts:
        return []
    if len(texts) > _AT_ONCE:
        pairs = f"SELECT unnest(range({len(texts)})) AS place, unnest([{', '.join(texts)}]) AS value FROM {rows}"
        query = f"SELECT place, {', '.join(counts('value'))} FROM ({pairs}) GROUP BY place"
        counted = {place: tuple(row) for place, *row in database.execute(query).fetchall()}
        if len(counted) == len(texts):
            return [counted[place] for place in range(len(texts))]
    row = only_row(database, f"SELECT {', '.join(count for text in texts for count in counts(text))} FROM {rows}")
    width = len(row) // len(texts)
    return [row[start : start + width] for start in range(0, len(row), width)]


class Styles:
    """The styles of a file's columns, which must be in a table `texts`; `warnings` say what is not clear."""

    def __init__(self, database: duckdb.DuckDBPyConnection, texts: Mapping[str, str], options: CsvOptions) -> None:
        self._database = database
        self._texts = texts
        self._options = options
        self.warnings: list[str] = []

    def find(self, expected: Mapping[str, Scalar | None]) -> dict[str, tuple[Scalar, Style]]:
        """Those of the columns that have one. Half of the values decide where a type is expected, otherwise all."""
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
        """Notes of text columns that look like days or numbers, with a value that cannot be read as one."""
        sample = f"(SELECT * FROM texts LIMIT {_SAMPLE})"
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
            for name, (values, alike, odd) in zip(
                names, count_each(self._database, sample, texts, counts), strict=True
            ):
                if name in noted or not alike or alike < _NEARLY_ALL * values:
                    continue
                if odd is None:
                    odd = next(iter(count_each(self._database, "texts", [self._texts[name]], counts)))[2]
                if odd is not None and not _CODE.fullmatch(odd):
                    noted.add(name)
                    named = f", or name the null value {odd!r}" if re.fullmatch(_NOTHING, odd) else ""
                    self.warnings.append(
                        f'the column "{name}" looks like {kind}, but has values such as {odd[:40]!r}: {advice}{named}; '
                        "until then it is loaded as text"
                    )

    def _looks(self, names: Iterable[str]) -> Iterator[tuple[str, _Looks]]:
        columns = list(names)
        found = count_each(self._database, "texts", [self._texts[name] for name in columns], _counts)
        for name, counts in zip(columns, found, strict=True):
            yield name, _Looks(*counts)

    def _style(self, name: str, looks: _Looks, expected: Scalar | None) -> tuple[Scalar, Style] | None:
        enough = (looks.values + 1) // 2 if expected is not None else looks.values
        if expected in (None, *_TIMES):
            said = self._said_format(name, expected)
            if said is not None:
                type_, style = said
                matches = self._matches(name, style, type_)
                if matches >= (looks.values if expected is None else 1):
                    return expected or type_, style
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

    def _matches(self, name: str, style: Style, type_: Scalar) -> int:
        return int(only_row(self._database, f"SELECT count({style.value(self._texts[name], type_)}) FROM texts")[0])

    def _time_style(self, name: str, day: str, enough: int, expected: Scalar | None) -> tuple[Scalar, Style] | None:
        """Whether the day or the month comes first is clear when only one order reads the values; dots: the day."""
        mark = next(mark for mark in "./-" if mark in day)
        clock, half = re.fullmatch("([0-9:]*)( ?[AaPp][Mm])?", day.partition(" ")[2]).groups()  # type: ignore[union-attr]
        clock = {0: "", 1: " %H:%M", 2: " %H:%M:%S"}[clock.count(":")]
        if half is not None:
            clock = clock.replace("%H", "%I") + (" %p" if half.startswith(" ") else "%p")
        type_ = expected or (Scalar.TIMESTAMP if clock else Scalar.DATE)
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
        return type_, Style(time_format=best)

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
