"""The demo: a generated shop, three audiences, a job that one watches; what `segmentation demo` does."""

import asyncio
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.parts import Services, working
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences import reads as audiences
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import DataFile, ingest_file
from app.services.jobs import shared as jobs
from app.services.jobs.segment import requests as segment_jobs

SCOPE = Scope("default", "prod", user="demo")

AUDIENCES = {
    "Big spenders": (
        "Bought for more than 400 in all",
        'xEvent[eventType = "purchase"].sum(commerce.order.priceTotal) > 400',
    ),
    "Abandoned carts": (
        "Filled a cart in the last 30 days and bought nothing within them",
        'xEvent[eventType = "cart" and timestamp occurs <= 30 days before now].count() > 0 '
        'and not(xEvent[eventType = "purchase" and timestamp occurs <= 30 days before now].count() > 0)',
    ),
    "Winnable": (
        "Big spenders who abandoned a cart, gold or platinum",
        'inSegment("{Big spenders}") and inSegment("{Abandoned carts}") and loyalty.tier in ["gold", "platinum"]',
    ),
}
"""Name → description and expression; `{Name}` stands for the id of an audience above."""


async def run_demo(services: Services, profiles: int, events: int, console: Console) -> None:
    """Loads the shop, evaluates the audiences with a progress bar and prints their sizes."""
    with tempfile.TemporaryDirectory(dir=services.settings.data_dir) as folder:
        with console.status(f"Generating a shop: {profiles:,} people, {events:,} events"):
            people, facts = await asyncio.to_thread(write_shop, Path(folder), profiles, events, services.clock())
        with console.status("Loading it"):
            for name, kind, time, file in (
                ("people", "PROFILE", None, people),
                ("clicks", "EVENT", "timestamp", facts),
            ):
                loaded = await ingest_file(
                    services.database,
                    services.lake,
                    services.clock,
                    SCOPE,
                    NewDataset(name, kind, IDENTITY_COLUMN, IDENTITY_NAMESPACE, time),
                    DataFile(file, "PARQUET"),
                )
                console.print(f"Loaded {loaded.batch.row_count:,} rows into the dataset {name!r}")
    ids: dict[str, str] = {}
    for name, (description, expression) in AUDIENCES.items():
        for known, id_ in ids.items():
            expression = expression.replace(f"{{{known}}}", id_)
        new = definitions.NewDefinition(name=name, description=description, expression=expression)
        ids[name] = (await definitions.create(services.database, services.lake, services.clock, SCOPE, new)).id
    await _evaluate(services, list(ids.values()), console)
    async with services.database.session() as session:
        rows = await audiences.get_many(session, SCOPE, list(ids.values()))
    table = Table("Audience", "People", "Expression")
    for name, id_ in ids.items():
        table.add_row(name, f"{rows[id_].total_profiles:,}", escape(AUDIENCES[name][1]))
    console.print(table)


async def _evaluate(services: Services, ids: list[str], console: Console) -> None:
    async with working(services):
        job = await segment_jobs.create(services.database, services.clock, SCOPE, ids)
        bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), console=console
        )
        with bar:
            task = bar.add_task("Evaluating", total=1.0)
            async for state in jobs.watch(services.database, services.changes, SCOPE, segment_jobs.KIND, job.id):
                bar.update(task, completed=state.fraction, description=f"{state.phase.capitalize():<10}")
    console.print(f"Job {job.id}: {state.status}, {state.total_profiles:,} people read")
    for error in state.errors:
        console.print(f"  {error['message']}", markup=False)
