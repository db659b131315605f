"""`ingest`: files into datasets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    organisation: Organisation = "default",
    sandbox: Sandbox = "prod",
) -> None:
    """Add a file to a dataset: all of its good rows, or nothing."""
    from app.services.datasets.datasets import NewDataset
    from app.services.datasets.uploads import FORMATS, DataFile, ingest_file

    chosen = format or next((name for name in [*FORMATS] if f".{name}" in file.suffixes), None)
    if chosen is None or chosen not in FORMATS:
        fail(f"the format of {file.name} is not clear: say --format csv, ndjson or parquet")
    if kind not in {"profile", "event"}:
        fail(f"--kind is {kind!r}, but a dataset holds `profile` or `event`")
    scope = Scope(organisation, sandbox, user="cli")

    async def load(services: "Services") -> None:
        uploaded = await ingest_file(
            services.database,
            services.lake,
            services.clock,
            scope,
            NewDataset(dataset, kind.upper(), id, namespace, time),
            DataFile(file, FORMATS[chosen]),
        )
        console.print(f"{uploaded.batch.row_count:,} rows in, {uploaded.batch.rejected_rows:,} rejected")
        for row in uploaded.rejected:
            console.print(f"  row {row.row}: {row.message}", markup=False)

    run(with_services(load_settings(), load))
