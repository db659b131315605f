"""`demo`: a complete example without any input."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from app.cli.serving import serve_until_stopped
from app.cli.terminal import load_settings, run

if TYPE_CHECKING:
    from app.settings import Settings

commands = typer.Typer()


@commands.command(epilog="Example: `segmentation demo --no-serve`")
def demo(
    serve: Annotated[bool, typer.Option(help="Start the server after printing the results.")] = True,
    port: Annotated[int, typer.Option(help="Port of the server; 0 takes a free one.")] = 8000,
    profiles: Annotated[int, typer.Option(min=1, help="Number of profiles to generate.")] = 100_000,
    events: Annotated[int, typer.Option(min=1, help="Number of events to generate.")] = 2_000_000,
) -> None:
    """Generate a shop in a temporary folder, evaluate its audiences, and serve them."""
    from app.demo import run_demo
    from app.wiring import open_services

    async def show(settings: "Settings") -> None:
        async with open_services(settings) as services:
            await run_demo(services, profiles, events, Console(highlight=False))
        if serve:
            await serve_until_stopped(settings)

    with tempfile.TemporaryDirectory(prefix="segmentation-demo-") as folder:
        run(show(load_settings(data_dir=Path(folder), database_url="", host="127.0.0.1", port=port, worker=True)))
