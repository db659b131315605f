"""The work of `segmentation demo`: generates a shop, and evaluates its audiences as of several weeks."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from app.clock import utc_now
from app.engine.ingest.formats import InputFile
from app.engine.run.demo_shop import IDENTITY_COLUMN, IDENTITY_NAMESPACE, write_shop
from app.scope import Scope
from app.services.audiences import computed as definitions
from app.services.audiences import external
from app.services.audiences import reads as audiences
from app.services.audiences.definition_rules import NewDefinition
from app.services.datasets import datasets
from app.services.datasets.datasets import NewDataset
from app.services.datasets.uploads import ingest_file
from app.services.jobs import watching
from app.services.jobs.export.input import ExportFilter, ExportSegment, NewExport
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules.run import trigger
from app.services.jobs.segment import requests as segment_jobs
from app.storage.tables.datasets import DatasetKind
from app.storage.tables.schedules import ScheduleState, ScheduleType
from app.wiring import Services, working

SCOPE = Scope("default", "prod", user="demo")

RUNS_BEFORE = (timedelta(days=21), timedelta(days=14), timedelta(days=7))
"""How long before the present the audiences are evaluated."""

GUESTS_EACH = 40
"""One in this many people came as a partner's guest."""

QUARTERS = 4


@dataclass(frozen=True, slots=True)
class Example:
    """An audience of the demo; `{Name}` in its expression stands for the id of an earlier one."""

    description: str
    expression: str
    labels: tuple[str, ...] = ()


AUDIENCES: Mapping[str, Example] = {
    "Newsletter readers": Example("Asked for the newsletter", "newsletter = true", ("core/C1",)),
    "Gold and platinum": Example("The two best tiers of the loyalty programme", 'loyalty.tier in ["gold", "platinum"]'),
    "Berlin and Paris": Example(
        "For the openings of the two new shops", 'homeAddress.city = "Berlin" or homeAddress.city = "Paris"'
    ),
    "Twenty-somethings": Example(
        "From 20 up to 29 years old",
        "person.birthDate occurs >= 20 years before today and not (person.birthDate occurs >= 30 years before today)",
        ("core/C2",),
    ),
    "Big spenders": Example(
        "Bought for more than 400 in all", 'xEvent[eventType = "purchase"].sum(commerce.order.priceTotal) > 400'
    ),
    "Abandoned carts": Example(
        "Filled a cart in the last 30 days and bought nothing within them",
        'xEvent[eventType = "cart" and timestamp occurs <= 30 days before now].count() > 0 '
        'and not (xEvent[eventType = "purchase" and timestamp occurs <= 30 days before now].count() > 0)',
    ),
    "Lapsing": Example(
        "Bought within the last year, but nothing and no visit in the last 60 days",
        'xEvent[eventType = "purchase"].count() > 0 '
        "and not (xEvent[timestamp occurs <= 60 days before now].count() > 0)",
    ),
    "E-mail clickers": Example(
        "Clicked in at least two e-mails in the last 90 days",
        'xEvent[eventType = "email.click" and timestamp occurs <= 90 days before now].count() >= 2',
        ("core/C1",),
    ),
    "View, cart, purchase": Example(
        "Saw something, put it into the cart within a day and bought within a week",
        'CHAIN(xEvent, timestamp, [S1: WHAT(eventType = "view"), S2: WHAT(eventType = "cart") WHEN(<= 1 day after S1), '
        'S3: WHAT(eventType = "purchase") WHEN(<= 7 days after S2)])',
    ),
    "Winnable": Example(
        "Big spenders who abandoned a cart, gold or platinum",
        'inSegment("{Big spenders}") and inSegment("{Abandoned carts}") and loyalty.tier in ["gold", "platinum"]',
    ),
}


class ShiftedClock:
    """The current time, or an earlier time shifted by `behind`."""

    def __init__(self) -> None:
        self.behind = timedelta()

    def __call__(self) -> datetime:
        return utc_now() - self.behind


async def run_demo(services: Services, profiles: int, events: int, console: Console) -> None:
    """Loads the shop, evaluates its audiences as of past weeks and as of now, prints their sizes, and exports one."""
    clock = ShiftedClock()
    services = replace(services, clock=clock)
    clock.behind = RUNS_BEFORE[0]
    await _load(services, profiles, events, console)
    ids = await _define(services)
    await _invite(services, profiles, console)
    for behind in RUNS_BEFORE:
        clock.behind = behind
        await _evaluate(services, list(ids.values()), console)
    clock.behind = timedelta()
    nightly, mailing = await _schedule(services, ids)
    await _evaluate(services, list(ids.values()), console, nightly)
    await _print_sizes(services, ids, console)
    await _export(services, mailing)


async def _load(services: Services, profiles: int, events: int, console: Console) -> None:
    with tempfile.TemporaryDirectory(dir=services.settings.folder) as folder:
        console.print(f"Generating a shop: {profiles:,} people, {events:,} events")
        people, facts = await asyncio.to_thread(write_shop, Path(folder), profiles, events, utc_now())
        for name, kind, time, file in (
            ("people", DatasetKind.PROFILE, None, people),
            ("clicks", DatasetKind.EVENT, "timestamp", facts),
        ):
            await _ingest(services, NewDataset(name, kind, IDENTITY_COLUMN, IDENTITY_NAMESPACE, time), file, console)


async def _ingest(services: Services, dataset: NewDataset, file: Path, console: Console) -> None:
    written = InputFile(file, "PARQUET" if file.suffix == ".parquet" else "CSV")
    loaded = await ingest_file(services.database, services.lake, services.clock, SCOPE, dataset, written)
    console.print(f"Loaded {loaded.batch.row_count:,} rows into the dataset {dataset.name!r}")


async def _define(services: Services) -> dict[str, str]:
    """Creates the computed audiences; returns name → id."""
    ids: dict[str, str] = {}
    for name, example in AUDIENCES.items():
        new = NewDefinition(
            name=name,
            description=example.description,
            expression=_with_ids(example.expression, ids),
            labels=example.labels,
        )
        ids[name] = (await definitions.create(services.database, services.lake, services.clock, SCOPE, new)).id
    return ids


def _with_ids(expression: str, ids: Mapping[str, str]) -> str:
    for name, id_ in ids.items():
        expression = expression.replace(f"{{{name}}}", id_)
    return expression


async def _invite(services: Services, profiles: int, console: Console) -> None:
    """Creates an external audience: guests from a partner's list."""
    dataset = NewDataset("partner guests", DatasetKind.AUDIENCE, IDENTITY_COLUMN, IDENTITY_NAMESPACE)
    with tempfile.TemporaryDirectory(dir=services.settings.folder) as folder:
        file = await asyncio.to_thread(_write_guests, Path(folder), profiles)
        await _ingest(services, dataset, file, console)
    async with services.database.session() as session:
        row = await datasets.by_name(session, SCOPE, dataset.name)
    guests = external.NewExternal(
        "Partner guests",
        "Came as guests of a partner",
        audience_id="partner-guests",
        dataset_id=row.id if row else None,
    )
    await external.create(services.database, services.lake, services.clock, SCOPE, guests)


def _write_guests(folder: Path, profiles: int) -> Path:
    seasons = ("spring", "summer", "autumn")
    rows = [f"{number:07d},{seasons[number % len(seasons)]}" for number in range(0, profiles, GUESTS_EACH)]
    file = folder / "guests.csv"
    file.write_text("\n".join([f"{IDENTITY_COLUMN},season", *rows]) + "\n")
    return file


async def _schedule(services: Services, ids: Mapping[str, str]) -> tuple[str, str]:
    """Creates two schedules: every audience each night, and the export of a mailing list each week."""
    target = NewDataset("mailing list", DatasetKind.EXPORT)
    destination = await datasets.create(services.database, services.clock, SCOPE, target)
    export = NewExport(
        destination.id,
        "_xdm.context.profile",
        ("person.name.firstName", "personalEmail.address", "homeAddress.city"),
        filter=ExportFilter((ExportSegment(ids["Winnable"]),)),
    )
    requests = [
        schedules.NewSchedule(
            "Nightly", "Every audience, before the day begins", cron_expression="0 30 2 ? * *",
            state=ScheduleState.ACTIVE, all_audiences=True,
        ),
        schedules.NewSchedule(
            "Mailing list", "Whom the shop writes to on Mondays", ScheduleType.EXPORT, "0 0 6 ? * MON",
            ScheduleState.ACTIVE, export=export,
        ),
    ]  # fmt: skip
    nightly, mailing = [
        (await schedules.create(services.database, services.lake, services.clock, SCOPE, new)).id for new in requests
    ]
    return nightly, mailing


async def _export(services: Services, schedule: str) -> None:
    """Runs the schedule once, to completion."""
    async with working(services):
        job = await trigger(services.database, services.clock, SCOPE, schedule)
        async for _ in watching.watch(services.database, services.changes, SCOPE, job.kind, job.row.id):
            pass


async def _evaluate(services: Services, ids: list[str], console: Console, schedule: str | None = None) -> None:
    """Evaluates the audiences, as a run of the schedule if one is given."""
    async with working(services):
        if schedule is None:
            job = await segment_jobs.create(services.database, services.clock, SCOPE, ids)
        else:
            job = (await trigger(services.database, services.clock, SCOPE, schedule)).row
        now = services.clock()
        day = f"{now.day} {now:%B}"
        # Without a terminal there is no progress bar: print one line per quarter.
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        bar = Progress(*columns, console=console, disable=not console.is_terminal)
        quarters_shown = 0
        with bar:
            task = bar.add_task(f"Evaluating as of {day}", total=1.0)
            async for state in watching.watch(services.database, services.changes, SCOPE, segment_jobs.KIND, job.id):
                bar.update(task, completed=state.fraction)
                if not console.is_terminal and int(state.fraction * QUARTERS) > quarters_shown:
                    quarters_shown = int(state.fraction * QUARTERS)
                    console.print(f"Evaluating as of {day}: {state.fraction:.0%}")
    async with services.database.session() as session:
        rows = await audiences.get_many(session, SCOPE, ids)
    sizes = ", ".join(f"{rows[id_].name} {rows[id_].total_profiles or 0:,}" for id_ in ids)
    console.print(f"Job {job.id}: {state.status}, {state.total_profiles:,} people read. {sizes}", markup=False)
    for error in state.errors:
        console.print(f"  {error['message']}", markup=False)


async def _print_sizes(services: Services, ids: Mapping[str, str], console: Console) -> None:
    """Prints sizes, and expressions on lines of their own so that they can be copied unchanged."""
    async with services.database.session() as session:
        rows = await audiences.get_many(session, SCOPE, list(ids.values()))
    for name, id_ in ids.items():
        console.print(f"\n{name}: {rows[id_].total_profiles:,} people. {AUDIENCES[name].description}.", markup=False)
        console.print(_with_ids(AUDIENCES[name].expression, ids), markup=False, soft_wrap=True)
    console.print()
