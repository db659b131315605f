"""The work of `ingest`: finds and opens files, shows progress, and reports the result of each file."""

import asyncio
import glob
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, cast

from app.cli.progress import display
from app.cli.terminal import console, fail
from app.errors import Refusal
from app.scope import Scope

if TYPE_CHECKING:
    from app.engine.ingest.formats import CsvOptions, InputFile
    from app.engine.ingest.rows import DryRun, RejectedRow
    from app.services.datasets.datasets import NewDataset
    from app.services.datasets.uploads import Uploaded
    from app.wiring import Services

_SNIFFED = 4096
_COPIED = 1 << 20


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """`name` is the user's name for the file."""

    name: str
    data: "InputFile"


def file_names(files: Sequence[str]) -> list[str]:
    """The files that the arguments match, each once, in order."""
    names: dict[str, None] = {}
    for file in files:
        matches = [file] if file == "-" or Path(file).exists() else sorted(glob.glob(file, recursive=True))
        if not matches:
            fail(f"there is no file {file}")
        names |= dict.fromkeys(name for name in matches if name == "-" or not Path(name).is_dir())
        if not any(name == "-" or Path(name).is_file() for name in matches):
            fail(f"{file} is a folder: name the files in it, such as '{file.rstrip('/')}/*.csv'")
    return list(names)


def opened(name: str, format: str | None, csv: "CsvOptions", folder: Path) -> OpenedFile:
    """A file with its format, determined by name or content; standard input is copied into `folder`."""
    from app.engine.ingest.formats import InputFile
    from app.services.datasets.uploads import FORMATS

    path = Path(name)
    if name == "-":
        name, path = "standard input", folder / "input"
        with path.open("wb") as copy, display(None) as shown:
            incoming = cast(BufferedReader, sys.stdin.buffer)
            while chunk := incoming.read1(_COPIED):
                copy.write(chunk)
                shown.show(name, copy.tell())
    ending = format or next((suffix[1:].lower() for suffix in path.suffixes if suffix[1:].lower() in FORMATS), None)
    ending = ending or _sniffed(path)
    if ending not in FORMATS:
        fail(f"--format is {ending!r}, not one of csv, tsv, json, ndjson and parquet")
    if ending == "tsv" and csv.delimiter is None:
        csv = replace(csv, delimiter="\t")
    return OpenedFile(name, InputFile(path, FORMATS[ending], csv))


def _sniffed(path: Path) -> str:
    """The format, determined by the content of the file."""
    from app.engine.ingest.formats import first_bytes

    start = first_bytes(path, _SNIFFED).removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith(b"PAR1"):
        return "parquet"
    return "ndjson" if start[:1] in (b"{", b"[") else "csv"


async def load(services: "Services", scope: Scope, new: "NewDataset", files: Sequence[OpenedFile], again: bool) -> None:
    """Loads each file as a batch; stops at the first error. With `again`, also files that were loaded before."""
    from app.services.datasets.uploads import UploadOptions, content_digest, ingest_file

    with display(_bytes(files)) as shown:
        loaded: dict[str | None, str] = {}
        for file in files:
            size = file.data.path.stat().st_size
            with _named(file, files):
                async with shown.watching(file.name, size) as progress:
                    key = None if again else f"sha256:{await asyncio.to_thread(content_digest, file.data)}"
                    options = UploadOptions(key, lease=services.settings.batch_lease, progress=progress)
                    uploaded = await ingest_file(
                        services.database, services.lake, services.clock, scope, new, file.data, options
                    )
            if uploaded.repeated and key in loaded:
                _print(f"{file.name}: nothing to do: it is the same as {loaded[key]}; --again loads it once more")
            else:
                _report(file, files, uploaded)
            loaded.setdefault(key, file.name)


async def try_out(services: "Services", scope: Scope, new: "NewDataset", files: Sequence[OpenedFile]) -> None:
    """Prints what `load` would load."""
    from app.services.datasets.uploads import try_file

    with display(_bytes(files)) as shown:
        for file in files:
            size = file.data.path.stat().st_size
            with _named(file, files):
                async with shown.watching(file.name, size) as progress:
                    tried = await try_file(services.database, services.lake, scope, new, file.data, progress)
            _report_try(file, files, tried)


def _bytes(files: Sequence[OpenedFile]) -> int:
    return sum(file.data.path.stat().st_size for file in files)


@contextmanager
def _named(file: OpenedFile, files: Sequence[OpenedFile]) -> Iterator[None]:
    """With several files, adds the file name to an error."""
    try:
        yield
    except Refusal as refusal:
        if len(files) == 1:
            raise
        raise Refusal(refusal.code, f"{file.name}: {refusal.message}", refusal.path) from refusal


def _report(file: OpenedFile, files: Sequence[OpenedFile], uploaded: "Uploaded") -> None:
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


def _report_try(file: OpenedFile, files: Sequence[OpenedFile], tried: "DryRun") -> None:
    from app.pql.schema import leaves, numbers_alike
    from app.pql.syntax.paths import written_path

    duplicates = f", {tried.duplicate_rows:,} duplicates" if tried.duplicate_rows else ""
    prefix = f"{file.name}: " if len(files) > 1 else ""
    _print(f"{prefix}would load {tried.row_count:,} rows, {tried.rejected_rows:,} rejected{duplicates}; nothing stored")
    for names, type_ in leaves(tried.fields):
        new = " (new)" if names[0] in tried.new_fields else ""
        _print(f"  {written_path((*tried.above, *names))}: {numbers_alike(type_)}{new}")
    _print_details(tried.rejected, tried.warnings)


def _print_details(rejected: "Sequence[RejectedRow]", warnings: Sequence[str]) -> None:
    for row in rejected:
        _print(f"  row {row.row}: {row.message}")
    for warning in warnings:
        _print(f"  note: {warning}")


def _print(line: str) -> None:
    console.print(line, markup=False, soft_wrap=True)
