"""The format of a CSV file, as an API input."""

import strawberry

from app.api.scalars import given
from app.engine.ingest.formats import CsvOptions


@strawberry.input(description="How a CSV file is written. Omitted options are detected.")
class CsvOptionsInput:
    delimiter: str | None = strawberry.field(default=strawberry.UNSET, description="Separates values: one character.")
    quote: str | None = strawberry.field(
        default=strawberry.UNSET, description='Encloses values; empty if values are never quoted. Default `"`.'
    )
    escape: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Precedes a quotation mark inside a quoted value: the mark, or a backslash.",
    )
    decimal_separator: str | None = strawberry.field(default=strawberry.UNSET, description="`.` or `,`.")
    date_format: str | None = strawberry.field(
        default=strawberry.UNSET, description="Format of dates as for strftime, such as `%d.%m.%Y`."
    )
    timestamp_format: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Format of times as for strftime, or `epoch` or `epoch_ms` if the time column counts seconds or "
        "milliseconds since 1970; those two also for NDJSON and Parquet.",
    )
    encoding: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Encoding, such as `windows-1252`. Default UTF-8, or by a byte order mark.",
    )
    header: bool | None = strawberry.field(
        default=strawberry.UNSET,
        description="Whether the first line names the columns (the default); if not, they are `column1`, `column2`, ….",
    )
    null_values: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Values that mean null, as an empty one does, such as `NA`."
    )

    def as_options(self) -> CsvOptions:
        return CsvOptions(
            delimiter=given(self.delimiter),
            quote=given(self.quote),
            escape=given(self.escape),
            decimal_separator=given(self.decimal_separator),
            date_format=given(self.date_format),
            timestamp_format=given(self.timestamp_format),
            encoding=given(self.encoding),
            header=given(self.header),
            null_values=tuple(given(self.null_values) or ()),
        )
