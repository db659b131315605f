"""`ingest`: files into datasets."""

import asyncio
import glob
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from app.cli.terminal import Organisation, Sandbox, console, fail, run, with_services
from app.errors import Refusal
from app.scope import Scope
from app.settings import load_settings

if TYPE_CHECKING:
    from app.engine.ingest.batch import DryRun, RejectedRow
    from app.engine.ingest.formats import CsvOptions
    from app.parts import Services
    from app.services.datasets.datasets import NewDataset
    from app.services.datasets.uploads import DataFile, Uploaded

commands = typer.Typer()

_CSV = "How a CSV file is written"
_SNIFFED = 4096


@dataclass(frozen=True, slots=True)
class _File:
    """`name` is what the user calls it."""

    name: str
    data: "DataFile"


@commands.command(
    epilog="Example: `segmentation ingest purchases.csv --dataset purchases --kind event --id customer_id --time date`"
)
def ingest(
    files: Annotated[
        list[str],
        typer.Argument(
            help="CSV, TSV, JSON, NDJSON or Parquet files, also gzipped; patterns such as `'2026-*.csv'`; `-` reads "
            "standard input."
        ),
    ],
    dataset: Annotated[str, typer.Option(help="Name of the dataset; created if it does not exist.")],
    kind: Annotated[str, typer.Option(help="`profile` or `event`.")],
    id: Annotated[str, typer.Option(help="Column with the primary identity, read as text.")],
    time: Annotated[str | None, typer.Option(help="Events: column with the time.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the identities.")] = "id",
    again: Annotated[
        bool, typer.Option("--again", help="Load the file even if the dataset got the same one within 24 hours.")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="JSON Schema of the rows, declared before they are loaded.", exists=True)
    ] = None,
    format: Annotated[
        str | None, typer.Option(help="csv, tsv, json, ndjson or parquet; detected from name and content by default.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be loaded, with types, and store nothing.")
    ] = False,
    delimiter: Annotated[str | None, typer.Option(help="Separates values.", rich_help_panel=_CSV)] = None,
    quote: Annotated[
        str | None, typer.Option(help="Encloses values; '' if they are never quoted.", rich_help_panel=_CSV)
    ] = None,
    escape: Annotated[
        str | None, typer.Option(help="Precedes a quotation mark inside a quoted value.", rich_help_panel=_CSV)
    ] = None,
    decimal: Annotated[str | None, typer.Option(help="Decimal separator: . or ,", rich_help_panel=_CSV)] = None,
    date_format: Annotated[
        str | None, typer.Option(help="Format of dates, such as %d.%m.%Y.", rich_help_panel=_CSV)
    ] = None,
    timestamp_format: Annotated[
        str | None,
        typer.Option(
            help="Format of timestamps, such as %d.%m.%Y %H:%M; epoch or epoch_ms in files of any format.",
            rich_help_panel=_CSV,
        ),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Encoding of the file, such as windows-1252.", rich_help_panel=_CSV)
    ] = None,
    header: Annotated[
        bool | None, typer.Option(help="Whether the first line names the columns.", rich_help_panel=_CSV)
    ] = None,
    null_value: Annotated[
        list[str] | None,
        typer.Option(help="A value that stands for null, such as NA; repeatable.", rich_help_panel=_CSV),
    ] = None,
    organisation: Organisation = "default",
    sandbox: Sandbox = "prod",
) -> None:
    """Add files to a dataset: of each all of its good rows, or nothing. The same file within 24 hours is not loaded
    twice."""
    from app.engine.ingest.formats import CsvOptions
    from app.services.access.audit import Entry, audited
    from app.services.datasets.datasets import NewDataset

    if kind not in {"profile", "event"}:
        fail(f"--kind is {kind!r}, but a dataset holds `profile` or `event`")
    csv = CsvOptions(
        "\t" if delimiter == "\\t" else delimiter,
        quote,
        escape,
        decimal,
        date_format,
        timestamp_format,
        encoding,
        header,
        tuple(null_value or ()),
    )
    new = NewDataset(dataset, kind.upper(), id, namespace, time)
    scope = Scope(organisation, sandbox, user="cli")
    try:
        declared = None if schema is None else json.loads(schema.read_text())
    except ValueError as problem:
        fail(f"{schema} is not JSON: {problem}")
    with tempfile.TemporaryDirectory(prefix="segmentation-") as folder:
        chosen = [_opened(name, format, csv, Path(folder)) for name in _names(files)]

        async def load(services: "Services") -> None:
            if dry_run:
                await _try(services, scope, new, chosen)
                return
            async with audited(services.database, Entry(scope, services.clock, "ingest", uuid4().hex)):
                await _load(services, scope, new, chosen, again, declared)

        run(with_services(load_settings(), load))


def _names(files: Sequence[str]) -> list[str]:
    """The files that the arguments name, each once, in order."""
    names: dict[str, None] = {}
    for file in files:
        matches = [file] if file == "-" or Path(file).exists() else sorted(glob.glob(file, recursive=True))
        if not matches:
            fail(f"there is no file {file}")
        names |= dict.fromkeys(name for name in matches if name == "-" or not Path(name).is_dir())
        if not any(name == "-" or Path(name).is_file() for name in matches):
            fail(f"{file} is a folder: name the files in it, such as '{file.rstrip('/')}/*.csv'")
    return list(names)


def _opened(name: str, format: str | None, csv: "CsvOptions", folder: Path) -> _File:
    from app.services.datasets.uploads import FORMATS, DataFile

    path = Path(name)
    if name == "-":
        name, path = "standard input", folder / "input"
        with path.open("wb") as copy:
            shutil.copyfileobj(sys.stdin.buffer, copy)
    ending = format or next((suffix[1:].lower() for suffix in path.suffixes if suffix[1:].lower() in FORMATS), None)
    ending = ending or _sniffed(path)
    if ending not in FORMATS:
        fail(f"--format is {ending!r}, not one of csv, tsv, json, ndjson and parquet")
    if ending == "tsv" and csv.delimiter is None:
        csv = replace(csv, delimiter="\t")
    return _File(name, DataFile(path, FORMATS[ending], csv))


def _sniffed(path: Path) -> str:
    """The format by the content of the file."""
    from app.engine.ingest.formats import first_bytes

    start = first_bytes(path, _SNIFFED).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    return "ndjson" if start[:1] in (b"{", b"[") else "csv"


def _content_key(dataset: str, file: "DataFile") -> str:
    """The idempotency key of a file in a dataset: what is in it and how it is read, whatever its name."""
    with file.path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256")
    digest.update(json.dumps([dataset, file.format, asdict(file.csv)]).encode())
    return f"sha256:{digest.hexdigest()}"


async def _load(
    services: "Services", scope: Scope, new: "NewDataset", files: Sequence[_File], again: bool, schema: Any
) -> None:
    from app.services.datasets.uploads import UploadOptions, ingest_file

    with _progress(files) as progress:
        task = progress.add_task("", total=sum(file.data.path.stat().st_size for file in files))
        for file in files:
            progress.update(task, description=file.name)
            with _named(file, files):
                key = None if again else await asyncio.to_thread(_content_key, new.name, file.data)
                options = UploadOptions(key, lease=services.settings.batch_lease)
                uploaded = await ingest_file(
                    services.database, services.lake, services.clock, scope, new, file.data, options, schema
                )
            progress.advance(task, file.data.path.stat().st_size)
            _report(file, files, uploaded)


async def _try(services: "Services", scope: Scope, new: "NewDataset", files: Sequence[_File]) -> None:
    from app.services.datasets.uploads import try_file

    for file in files:
        with _named(file, files):
            tried = await try_file(services.database, services.lake, scope, new, file.data)
        _report_try(file, files, tried)


@contextmanager
def _named(file: _File, files: Sequence[_File]) -> Iterator[None]:
    """A refusal among several files says of which one."""
    try:
        yield
    except Refusal as refusal:
        if len(files) == 1:
            raise
        raise Refusal(refusal.code, f"{file.name}: {refusal.message}", refusal.path) from refusal


def _progress(files: Sequence[_File]) -> Progress:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _report(file: _File, files: Sequence[_File], uploaded: "Uploaded") -> None:
    batch = uploaded.batch
    duplicates = f", {batch.duplicate_rows:,} duplicates" if batch.duplicate_rows else ""
    prefix = f"{file.name}: " if len(files) > 1 else ""
    if uploaded.repeated:
        _print(
            f"{prefix}nothing to do: the dataset got this file at {batch.created_at:%F %T}Z as batch {batch.id}; "
            "--again loads it once more"
        )
    _print(f"{prefix}{batch.row_count:,} rows in, {batch.rejected_rows:,} rejected{duplicates}")
    _print_details(uploaded.rejected, uploaded.warnings)


def _report_try(file: _File, files: Sequence[_File], tried: "DryRun") -> None:
    from app.pql.schema import leaf_paths

    duplicates = f", {tried.duplicate_rows:,} duplicates" if tried.duplicate_rows else ""
    prefix = f"{file.name}: " if len(files) > 1 else ""
    _print(f"{prefix}would load {tried.row_count:,} rows, {tried.rejected_rows:,} rejected{duplicates}; nothing stored")
    for path, type_ in leaf_paths(tried.fields):
        _print(f"  {path}: {type_}{' (new)' if path.split('.')[0] in tried.new_fields else ''}")
    _print_details(tried.rejected, tried.warnings)


def _print_details(rejected: "Sequence[RejectedRow]", warnings: Sequence[str]) -> None:
    for row in rejected:
        _print(f"  row {row.row}: {row.message}")
    for warning in warnings:
        _print(f"  note: {warning}")


def _print(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
