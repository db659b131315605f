"""`ingest`: files into datasets."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from app.cli.terminal import Organisation, Sandbox, console, fail, run, with_services
from app.scope import Scope
from app.settings import load_settings

if TYPE_CHECKING:
    from app.parts import Services

commands = typer.Typer()


@commands.command(
    epilog="Example: `segmentation ingest purchases.csv --dataset purchases --kind event --id customer_id --time date`"
)
def ingest(
    file: Annotated[Path, typer.Argument(help="CSV, NDJSON or Parquet, also gzipped.", exists=True, dir_okay=False)],
    dataset: Annotated[str, typer.Option(help="Name of the dataset; created when there is none.")],
    kind: Annotated[str, typer.Option(help="`profile` or `event`.")],
    id: Annotated[str, typer.Option(help="Column with the primary identity, read as text.")],
    time: Annotated[str | None, typer.Option(help="Events: column with the time.")] = None,
    namespace: Annotated[str, typer.Option(help="Namespace of the identities.")] = "id",
    format: Annotated[str | None, typer.Option(help="csv, ndjson or parquet, if the name does not say.")] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Load the file even if the dataset got the same one within 24 hours.")
    ] = False,
    schema: Annotated[
        Path | None, typer.Option(help="JSON Schema of the rows, declared before they are loaded.", exists=True)
    ] = None,
    organisation: Organisation = "default",
    sandbox: Sandbox = "prod",
) -> None:
    """Add a file to a dataset: all of its good rows, or nothing. The same file within 24 hours is not loaded twice."""
    from app.services.access.audit import Entry, audited
    from app.services.datasets.datasets import NewDataset
    from app.services.datasets.uploads import FORMATS, DataFile, UploadOptions, ingest_file

    chosen = format or next((name for name in [*FORMATS] if f".{name}" in file.suffixes), None)
    if chosen is None or chosen not in FORMATS:
        fail(f"the format of {file.name} is not clear: say --format csv, ndjson or parquet")
    if kind not in {"profile", "event"}:
        fail(f"--kind is {kind!r}, but a dataset holds `profile` or `event`")
    scope = Scope(organisation, sandbox, user="cli")
    try:
        declared = None if schema is None else json.loads(schema.read_text())
    except ValueError as problem:
        fail(f"{schema} is not JSON: {problem}")

    async def load(services: "Services") -> None:
        key = None if again else await asyncio.to_thread(_content_key, file)
        uploaded = await ingest_file(
            services.database,
            services.lake,
            services.clock,
            scope,
            NewDataset(dataset, kind.upper(), id, namespace, time),
            DataFile(file, FORMATS[chosen]),
            UploadOptions(key, lease=services.settings.batch_lease),
            declared,
        )
        batch = uploaded.batch
        if uploaded.repeated:
            console.print(
                f"nothing to do: the dataset got this file at {batch.created_at:%F %T}Z as batch {batch.id}; "
                "--again loads it once more",
                soft_wrap=True,
            )
        duplicates = f", {batch.duplicate_rows:,} duplicates" if batch.duplicate_rows else ""
        console.print(f"{batch.row_count:,} rows in, {batch.rejected_rows:,} rejected{duplicates}")
        for row in uploaded.rejected:
            console.print(f"  row {row.row}: {row.message}", markup=False)

    async def record(services: "Services") -> None:
        async with audited(services.database, Entry(scope, services.clock, "ingest", uuid4().hex)):
            await load(services)

    run(with_services(load_settings(), record))


def _content_key(file: Path) -> str:
    """The idempotency key of a file: what is in it, whatever its name."""
    with file.open("rb") as content:
        return f"sha256:{hashlib.file_digest(content, 'sha256').hexdigest()}"
