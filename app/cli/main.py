"""Combines all commands and turns errors into exit codes."""

import os

import typer

from app.cli.commands import audit, demo, ingest, jobs, keys, operations, pql, resources, server, settings
from app.cli.terminal import failures_said

cli = typer.Typer(
    name="segmentation",
    help="A GraphQL gateway over segmentation resources.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
for commands in (
    server.commands,
    operations.commands,
    settings.commands,
    audit.commands,
    ingest.commands,
    demo.commands,
):
    cli.add_typer(commands)
cli.add_typer(pql.commands, name="pql")
cli.add_typer(keys.commands, name="key")
cli.add_typer(jobs.commands, name="job")
cli.add_typer(jobs.export_commands, name="export")
cli.add_typer(resources.audiences, name="audience")
cli.add_typer(resources.datasets, name="dataset")
cli.add_typer(resources.schedules, name="schedule")


def main() -> None:
    """Entry point: errors become one sentence on standard error and exit code 1."""
    # Ignore a folder inherited from the environment: the metrics library would write this process's counters into files
    # of another program. `serve --workers` sets a folder for its own processes.
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    with failures_said():
        cli()
