"""`migrate`, `doctor`, `backup`, `restore` and `schema`: for those who run the gateway."""

import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.terminal import console, fail, load_settings, run

if TYPE_CHECKING:
    from app.services.maintenance.doctor import Finding

T = TypeVar("T")

commands = typer.Typer()


@commands.command(epilog="Example: `segmentation migrate`")
def migrate() -> None:
    """Bring the database's tables up to date; `serve` and `worker` do it on start as well."""
    from app.wiring import open_services

    async def migrated() -> None:
        async with open_services(load_settings()):
            console.print("the schema is up to date")

    run(migrated())


@commands.command(epilog="Example: `segmentation doctor || echo something is wrong`")
def doctor(
    checksums: Annotated[
        bool, typer.Option("--checksums", help="Also read every file of the lake and compare it with its checksum.")
    ] = False,
) -> None:
    """Check the database and the lake against each other, and name what is wrong and what to do; changes nothing.

    Ends with exit code 1 when anything is wrong. What runs meanwhile may show as wrong for a moment: ask again.
    """
    from app.wiring import examined

    settings = load_settings()
    if not settings.data_dir.is_dir():
        fail(f"there is no data folder {settings.data_dir}: set SEGMENTATION_DATA_DIR to the right folder")
    findings = run(examined(settings, checksums=checksums))
    _print_findings(findings)


@commands.command(epilog="Example: `segmentation backup /backups/2026-06-15`")
def backup(target: Annotated[Path, typer.Argument(help="Folder that is empty, or not there yet.")]) -> None:
    """Copy the database and the lake, as of one moment, into a folder; servers and workers go on meanwhile."""
    from app.services.maintenance.backup import as_words
    from app.wiring import backed_up

    settings = load_settings()
    if not settings.data_dir.is_dir():
        fail(f"there is no data folder {settings.data_dir}: set SEGMENTATION_DATA_DIR to the right folder")
    print(as_words(_undamaged(backed_up(settings, target))))


@commands.command(epilog="Example: `SEGMENTATION_DATA_DIR=new segmentation restore /backups/2026-06-15`")
def restore(source: Annotated[Path, typer.Argument(help="Folder that `backup` wrote.")]) -> None:
    """Read a backup into the database and the data folder of the settings, which must be empty, and check all of it.

    Either kind of database takes the backup of either kind. Ends with exit code 1 when anything is wrong.
    """
    from app.services.maintenance.backup import as_words
    from app.wiring import restored

    summary, findings = _undamaged(restored(load_settings(), source))
    print(as_words(summary))
    _print_findings(findings)


def _undamaged(work: Coroutine[Any, Any, T]) -> T:
    from app.engine.maintenance.copying import CopyDamaged

    try:
        return run(work)
    except CopyDamaged as damage:
        fail(str(damage))


def _print_findings(findings: "Sequence[Finding]") -> None:
    """Ends with exit code 1 unless there are none."""
    for finding in findings:
        print(f"{finding.check}: {finding.where}: {finding.problem}\n    {finding.advice}")
    if findings:
        raise typer.Exit(1)
    print("nothing is wrong")


@commands.command(epilog="Example: `segmentation schema > schema.graphql`")
def schema() -> None:
    """Print the GraphQL schema."""
    from app.api.schema import print_schema

    sys.stdout.write(print_schema())
