"""`migrate`, `doctor`, `backup`, `restore` and `schema`: commands for operators."""

import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.terminal import console, fail, load_settings, run

if TYPE_CHECKING:
    from app.services.maintenance.doctor import Finding
    from app.settings import Settings

T = TypeVar("T")

commands = typer.Typer()


@commands.command(epilog="Example: `segmentation migrate`")
def migrate() -> None:
    """Migrate the database to the newest schema; `serve` and `worker` also do so at startup."""
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
    """Check the database and the lake against each other, and print problems and remedies; changes nothing.

    Exits with code 1 if anything is wrong. Work in progress may briefly appear as a problem: run it again.
    """
    from app.wiring import examined

    settings = _with_data()
    findings = run(examined(settings, checksums=checksums))
    _print_findings(findings)


@commands.command(epilog="Example: `segmentation backup /backups/2026-06-15`")
def backup(target: Annotated[Path, typer.Argument(help="Folder that is empty, or not there yet.")]) -> None:
    """Copy the database and the lake, as of one moment, into a folder while servers and workers continue."""
    from app.services.maintenance.backup import as_words
    from app.wiring import backed_up

    settings = _with_data()
    print(as_words(_undamaged(backed_up(settings, target))))


@commands.command(epilog="Example: `SEGMENTATION_DATA_DIR=new segmentation restore /backups/2026-06-15`")
def restore(
    source: Annotated[Path, typer.Argument(help="Folder that `backup` wrote.")],
    erased: Annotated[
        Path | None,
        typer.Option(
            help="Folder `lake` of the data that the backup replaces: people who were erased there are erased again."
        ),
    ] = None,
) -> None:
    """Read a backup into the database and the data folder of the settings, which must be empty, and check all of it.

    People who were erased after the backup are in it: `--erased` starts their erasures again. Either kind of database
    takes the backup of either kind. Ends with exit code 1 when anything is wrong.
    """
    from app.services.maintenance.backup import as_words
    from app.wiring import restored

    result = _undamaged(restored(load_settings(), source, erased))
    print(as_words(result.summary))
    print(_erasures_as_words(result.erasures, known=erased is not None))
    _print_findings(result.findings)


def _erasures_as_words(erasures: int, *, known: bool) -> str:
    if not known:
        return "people who were erased after this moment are in the data again: see `--erased`"
    if not erasures:
        return "nobody in it was erased after this moment"
    return f"erasures of people who were erased after this moment, which wait for a worker: {erasures:,}"


def _with_data() -> "Settings":
    """The settings, unless they name a folder that is not there: asking would make another one."""
    settings = load_settings()
    if not settings.on_object_storage and not settings.folder.is_dir():
        fail(f"there is no data folder {settings.folder}: set SEGMENTATION_DATA_DIR to the right folder")
    return settings


def _undamaged(work: Coroutine[Any, Any, T]) -> T:
    from app.engine.maintenance.copying import CopyDamaged

    try:
        return run(work)
    except CopyDamaged as damage:
        fail(str(damage))


def _print_findings(findings: "Sequence[Finding]") -> None:
    """Exits with code 1 if there are findings."""
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
