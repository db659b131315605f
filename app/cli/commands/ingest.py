"""`ingest`: loads files into datasets."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from app.cli import loading
from app.cli.terminal import Tenancy, fail, grouped, load_settings, run, with_services

if TYPE_CHECKING:
    from app.engine.ingest.formats import CsvOptions
    from app.services.datasets.datasets import NewDataset
    from app.wiring import Services

commands = typer.Typer()

_CSV = "How a CSV file is written"


@dataclass(frozen=True, slots=True)
class Target:
    """The dataset to load the files into."""

    dataset: Annotated[str, typer.Option(help="Name of the dataset; created if it does not exist.")]
    kind: Annotated[str, typer.Option(help="`profile` or `event`.")]
    id: Annotated[str, typer.Option(help="Column with the primary identity, read as text.")]
    time: Annotated[str | None, typer.Option(help="Events: column with the time.")] = None
    namespace: Annotated[str, typer.Option(help="Namespace of the identities.")] = "id"
    schema: Annotated[
        Path | None, typer.Option(help="JSON Schema of the rows, declared before they are loaded.", exists=True)
    ] = None

    def as_new(self) -> "NewDataset":
        from app.services.datasets.datasets import NewDataset
        from app.storage.tables.datasets import DatasetKind

        if self.kind not in {"profile", "event"}:
            fail(f"--kind is {self.kind!r}, but a dataset holds `profile` or `event`")
        return NewDataset(
            self.dataset, DatasetKind(self.kind.upper()), self.id, self.namespace, self.time, self._declared()
        )

    def _declared(self) -> Any:
        if self.schema is None:
            return None
        try:
            return json.loads(self.schema.read_text())
        except ValueError as problem:
            fail(f"{self.schema} is not JSON: {problem}")


@dataclass(frozen=True, slots=True)
class CsvFlags:
    """The format of a CSV file; omitted options are detected."""

    delimiter: Annotated[str | None, typer.Option(help="Separates values.", rich_help_panel=_CSV)] = None
    quote: Annotated[
        str | None, typer.Option(help="Encloses values; '' if they are never quoted.", rich_help_panel=_CSV)
    ] = None
    escape: Annotated[
        str | None, typer.Option(help="Precedes a quotation mark inside a quoted value.", rich_help_panel=_CSV)
    ] = None
    decimal: Annotated[str | None, typer.Option(help="Decimal separator: . or ,", rich_help_panel=_CSV)] = None
    date_format: Annotated[
        str | None, typer.Option(help="Format of dates, such as %d.%m.%Y.", rich_help_panel=_CSV)
    ] = None
    timestamp_format: Annotated[
        str | None,
        typer.Option(
            help="Format of timestamps, such as %d.%m.%Y %H:%M; epoch or epoch_ms in files of any format.",
            rich_help_panel=_CSV,
        ),
    ] = None
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the file, such as windows-1252.", rich_help_panel=_CSV)
    ] = None
    header: Annotated[
        bool | None, typer.Option(help="Whether the first line names the columns.", rich_help_panel=_CSV)
    ] = None
    null_value: Annotated[
        list[str] | None,
        typer.Option(help="A value that stands for null, such as NA; repeatable.", rich_help_panel=_CSV),
    ] = None

    def as_options(self) -> "CsvOptions":
        from app.engine.ingest.formats import CsvOptions

        return CsvOptions(
            delimiter="\t" if self.delimiter == "\\t" else self.delimiter,
            quote=self.quote,
            escape=self.escape,
            decimal_separator=self.decimal,
            date_format=self.date_format,
            timestamp_format=self.timestamp_format,
            encoding=self.encoding,
            header=self.header,
            null_values=tuple(self.null_value or ()),
        )


@dataclass(frozen=True, slots=True)
class Loading:
    """How the files are loaded."""

    format: Annotated[
        str | None, typer.Option(help="csv, tsv, json, ndjson or parquet; detected from name and content by default.")
    ] = None
    again: Annotated[
        bool, typer.Option("--again", help="Load the file even if the dataset got the same one within 24 hours.")
    ] = False
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be loaded, with types, and store nothing.")
    ] = False


@commands.command(
    epilog="Example: `segmentation ingest purchases.csv --dataset purchases --kind event --id customer_id --time date`"
)
@grouped
def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            help="CSV, TSV, JSON, NDJSON or Parquet files, also gzipped; patterns such as `'2026-*.csv'`; `-` reads "
            "standard input."
        ),
    ],
    target: Target,
    how: Loading,
    csv: CsvFlags,
    tenancy: Tenancy,
) -> None:
    """Add files to a dataset: all good rows of each file, or nothing. The same file is not loaded twice within 24
    hours."""
    from app.services.access.audit import Entry, audited

    new, options = target.as_new(), csv.as_options()
    scope = tenancy.scope
    with tempfile.TemporaryDirectory(prefix="segmentation-") as folder:
        opened = [loading.opened(name, how.format, options, Path(folder)) for name in loading.file_names(files)]

        async def load(services: "Services") -> None:
            if how.dry_run:
                await loading.try_out(services, scope, new, opened)
                return
            async with audited(services.database, Entry(scope, services.clock, "ingest", uuid4().hex)):
                await loading.load(services, scope, new, opened, how.again)

        run(with_services(load_settings(), load))
