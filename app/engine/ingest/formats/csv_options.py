"""The sender's options for a CSV file; omitted ones are detected. Knows no files."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, fields

import duckdb

from app.engine.store.epochs import EPOCHS
from app.errors import ErrorCode, Refusal

NO_QUOTE = "\x01"
"""Stands for the quote of a file without quotes."""


@dataclass(frozen=True, slots=True)
class CsvOptions:
    """`date_format` and `timestamp_format` are strftime formats (`%d.%m.%Y`), or `epoch` and `epoch_ms` for numbers
    since 1970. With `header` false the file has no header line, and its columns are `column1`, `column2`, … An empty
    `quote` means that values are never quoted. `null_values` are treated as null, as empty values always are."""

    delimiter: str | None = None
    quote: str | None = None
    escape: str | None = None
    decimal_separator: str | None = None
    date_format: str | None = None
    timestamp_format: str | None = None
    encoding: str | None = None
    header: bool | None = None
    null_values: tuple[str, ...] = ()

    def check(self, is_csv: bool) -> None:
        """Raises `Refusal` for the first invalid option."""
        for name, message in self._mistakes(is_csv):
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("csv", name))

    def _mistakes(self, is_csv: bool) -> Iterator[tuple[str, str]]:
        unset = CsvOptions()
        if not is_csv:
            for name in (field.name for field in fields(self) if field.name != "timestamp_format"):
                if getattr(self, name) != getattr(unset, name):
                    yield name, f"{_words(name)} can be given for CSV files only"
        for name in ("delimiter", "quote", "escape"):
            mark = getattr(self, name)
            if mark is not None and not _is_mark(mark) and not (name == "quote" and mark == ""):
                yield name, f"{_words(name)} {mark!r} must be one ASCII character, and no line end"
        if self.delimiter is not None and self.delimiter in (self.quote or '"', self.escape):
            yield "delimiter", "the delimiter must differ from the quotation mark and its escape"
        if self.decimal_separator not in (None, ".", ","):
            yield "decimal_separator", f"the decimal separator {self.decimal_separator!r} must be '.' or ','"
        if self.encoding is not None and not _is_encoding(self.encoding):
            yield "encoding", f"there is no encoding {self.encoding!r}: try utf-8, windows-1252 or utf-16"
        for name in ("date_format", "timestamp_format"):
            format_ = getattr(self, name)
            if format_ is not None and not _is_format(format_, name):
                yield name, f"{_words(name)} {format_!r} is not one: write it as for strftime, such as %d.%m.%Y"


DETECTED = CsvOptions()
"""No options: everything is detected."""


def _words(name: str) -> str:
    return f"the {name.replace('_', ' ')}"


def _is_mark(text: str) -> bool:
    return len(text) == 1 and text.isascii() and text not in "\r\n\0"


def _is_encoding(name: str) -> bool:
    try:
        return "\n".encode(codecs.lookup(name).name).strip(b"\xef\xbb\xbf\xff\xfe\0") == b"\n"
    except (LookupError, UnicodeError, TypeError):
        return False


def _is_format(text: str, option: str) -> bool:
    if option == "timestamp_format" and text in EPOCHS:
        return True
    if "%" not in text:
        return False
    try:
        duckdb.execute("SELECT strptime(strftime(TIMESTAMPTZ '2026-11-29 10:00:00+00', $1), $1)", [text])
    except duckdb.Error:
        return False
    return True
