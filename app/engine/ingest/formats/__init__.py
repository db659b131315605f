"""Files of rows as SQL: what is in a CSV, NDJSON or Parquet file, with types; knows no datasets and no people."""

from app.engine.ingest.formats.columns import Column, Source, Unreadable, refuse
from app.engine.ingest.formats.source import FileFormat, open_source, plain_file

__all__ = ["Column", "FileFormat", "Source", "Unreadable", "open_source", "plain_file", "refuse"]
