"""Files of rows as SQL: the contents of CSV, NDJSON and Parquet files, with types; knows no datasets and no people."""

from app.engine.ingest.formats.columns import Column, KnownTypes, Source, Unreadable, refuse
from app.engine.ingest.formats.csv_options import DETECTED, CsvOptions
from app.engine.ingest.formats.source import FileFormat, InputFile, first_bytes, open_source, plain_file, utf8_file

__all__ = [
    "DETECTED",
    "Column",
    "CsvOptions",
    "FileFormat",
    "InputFile",
    "KnownTypes",
    "Source",
    "Unreadable",
    "first_bytes",
    "open_source",
    "plain_file",
    "refuse",
    "utf8_file",
]
