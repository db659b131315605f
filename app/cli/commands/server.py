"""`serve` and `worker`: the long-running processes."""

from typing import Annotated

import typer

from app.cli.serving import opened, serve_until_stopped, work
from app.cli.terminal import load_settings, observe, run

commands = typer.Typer()


@commands.command(epilog="Example: `segmentation serve --port 8000`")
def serve(
    host: Annotated[str | None, typer.Option(help="Address to bind.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to bind; 0 takes a free one.")] = None,
    worker: Annotated[bool | None, typer.Option(help="Also run jobs.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that serve, 1 by default; with more, jobs run in another one of their own.", min=1
        ),
    ] = None,
) -> None:
    """Serve the GraphQL API, subscriptions and the workplace; by default jobs run in the same process."""
    settings = load_settings(host=host, port=port, worker=worker, server_processes=workers)
    observe(settings, "segmentation-server")
    if settings.server_processes == 1:
        run(serve_until_stopped(settings))
    else:
        from app.cli.processes import supervise

        with opened(settings) as listener:
            supervise(settings, listener)


@commands.command(epilog="Example: `SEGMENTATION_DATABASE_URL=postgresql://… segmentation worker --metrics-port 9100`")
def worker(
    metrics_port: Annotated[
        int | None,
        typer.Option(help="Port of SEGMENTATION_HOST that serves `/metrics` and `/health`; 0 takes a free one."),
    ] = None,
) -> None:
    """Run jobs of the shared database and lake until stopped (SIGTERM hands unfinished jobs back)."""
    settings = load_settings()
    observe(settings, "segmentation-worker")
    run(work(settings, metrics_port))
