"""`migrate`, `doctor` and `schema`: for those who run the gateway."""

import sys
from typing import Annotated

import typer

from app.cli.terminal import console, fail, load_settings, run

commands = typer.Typer()


@commands.command(epilog="Example: `segmentation migrate`")
def migrate() -> None:
    """Bring the database's tables up to date; `serve` and `worker` do it on start as well."""
    from app.parts import open_services

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
    from app.parts import examined

    settings = load_settings()
    if not settings.data_dir.is_dir():
        fail(f"there is no data folder {settings.data_dir}: set SEGMENTATION_DATA_DIR to the right folder")
    findings = run(examined(settings, checksums=checksums))
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
