"""`job` and `export`: run, watch and cancel jobs, for cron and scripts."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from app.cli.output import Json, Listing, every, print_object
from app.cli.terminal import Tenancy, console, fail, grouped, load_settings, run, with_services
from app.errors import ErrorCode, Refusal
from app.scope import Scope

if TYPE_CHECKING:
    from app.storage.job_log import JobState
    from app.storage.tables.jobs import JobColumns, JobKind
    from app.wiring import Services

commands = typer.Typer(help="Segment and export jobs.", no_args_is_help=True)
export_commands = typer.Typer(help="Exports of profiles to a dataset.", no_args_is_help=True)

COLUMNS = ("id", "kind", "status", "fraction", "created_at", "finished_at")

JobId = Annotated[str, typer.Argument(help="Raw id of the job.")]


@dataclass(frozen=True, slots=True)
class Start:
    """How a job is started, and whether the command waits for its end."""

    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the job has ended; exit code 1 unless it has succeeded.")
    ] = False
    work: Annotated[
        bool, typer.Option("--work", help="Wait, and also run jobs in this process, for when no worker is running.")
    ] = False
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same within 24 hours gives the same job.")] = (
        None
    )
    as_json: Json = False


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported, and its destination."""

    dataset: Annotated[str, typer.Option(help="Id or name of a dataset of kind EXPORT; created if there is none.")]
    audience: Annotated[
        list[str] | None, typer.Option("--audience", "-a", help="Members of this audience only; repeatable.")
    ] = None
    field: Annotated[list[str] | None, typer.Option("--field", "-f", help="Field to export; repeatable.")] = None
    batch_per_audience: Annotated[
        bool, typer.Option("--batch-per-audience", help="Write a batch for each audience.")
    ] = False
    evaluate_first: Annotated[
        bool, typer.Option("--evaluate-first", help="Evaluate the audiences before they are exported.")
    ] = False


class Kind(StrEnum):
    segment = "segment"
    export = "export"
    erasure = "erasure"


@commands.command("list", epilog="Example: `segmentation job list --status failed --limit 10`")
@grouped
def list_jobs(
    status: Annotated[list[str] | None, typer.Option(help="Jobs with this status; repeatable.")] = None,
    kind: Annotated[Kind | None, typer.Option(help="Jobs of this kind.")] = None,
    *,
    listing: Listing,
    tenancy: Tenancy,
) -> None:
    """Print the jobs of a sandbox, newest first: id, kind, status, fraction, creation and end."""
    from app.services.jobs import shared as jobs
    from app.services.lists.paging import PageRequest, Slice
    from app.storage.tables.jobs import JobStatus

    statuses = None if status is None else [name.upper() for name in status]
    if unknown := [name for name in statuses or () if name not in list(JobStatus)]:
        fail(f"--status is {unknown[0].lower()!r}, not one of {', '.join(JobStatus).lower()}")

    async def work(services: "Services") -> None:
        filter = jobs.AnyJobFilter(status=statuses, kind=None if kind is None else [kind.upper()])

        async def fetch(request: PageRequest) -> "Slice[JobState]":
            async with services.database.session() as session:
                return await jobs.page_of_all_kinds(session, tenancy.scope, request, filter)

        async for state in every(fetch, listing.limit):
            print_object(_job(state), listing.as_json, COLUMNS)

    run(with_services(load_settings(), work))


@commands.command(epilog="Example: `segmentation job show 019ecb27-227b-774b-8000-0123456789ab --json`")
@grouped
def show(id: JobId, as_json: Json = False, *, tenancy: Tenancy) -> None:
    """Print one job: its fields, one a line, and its errors. Exit code 1 if it has failed."""
    scope = tenancy.scope

    async def work(services: "Services") -> None:
        state = await _required(services, scope, id)
        _show(state, as_json)
        if state.row.status == "FAILED":
            raise typer.Exit(1)

    run(with_services(load_settings(), work))


@commands.command("run", epilog="Example: `segmentation job run --all --work`")
@grouped
def run_job(
    audience: Annotated[
        list[str] | None, typer.Option("--audience", "-a", help="Id of a computed audience; repeatable.")
    ] = None,
    all_audiences: Annotated[bool, typer.Option("--all", help="All published audiences.")] = False,
    *,
    start: Start,
    tenancy: Tenancy,
) -> None:
    """Queue a segment job and print its id."""
    from app.services.jobs.segment import requests as segment_jobs
    from app.storage.tables.jobs import JobKind

    scope = tenancy.scope
    if (audience is None) == (not all_audiences):
        fail("name audiences with --audience, or run them --all: one of the two")

    async def create(services: "Services") -> Any:
        return await segment_jobs.create(services.database, services.clock, scope, audience, all_audiences, start.key)

    _run(_Job("job run", JobKind.SEGMENT, create), start, scope)


@commands.command(epilog="Example: `segmentation job cancel 019ecb27-227b-774b-8000-0123456789ab`")
@grouped
def cancel(id: JobId, as_json: Json = False, *, tenancy: Tenancy) -> None:
    """Cancel a job: a waiting job at once, a running job soon."""
    from app.services.jobs.export import requests as export_jobs
    from app.services.jobs.segment import requests as segment_jobs
    from app.storage.tables.jobs import JobKind

    scope = tenancy.scope
    cancels: dict[JobKind, Callable[..., Awaitable[Any]]] = {
        JobKind.SEGMENT: segment_jobs.cancel,
        JobKind.EXPORT: export_jobs.cancel,
    }

    async def work(services: "Services") -> None:
        async with _audited(services, scope, "job cancel", id):
            state = await _required(services, scope, id)
            if state.kind not in cancels:
                message = f"a job of kind {state.kind.lower()} cannot be cancelled: it ends by itself"
                raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
            await cancels[state.kind](services.database, services.clock, scope, id)
        print_object(_job(await _required(services, scope, id)), as_json, COLUMNS)

    run(with_services(load_settings(), work))


@export_commands.command("run", epilog="Example: `segmentation export run --dataset vips --audience 019ecb27-… --work`")
@grouped
def run_export(export: Export, start: Start, tenancy: Tenancy) -> None:
    """Queue an export of profiles, or of the members of audiences, and print its id."""
    from app.services.jobs.export import requests as export_jobs
    from app.services.jobs.export.input import SCHEMA, ExportFilter, ExportSegment, NewExport
    from app.storage.tables.jobs import JobKind

    scope = tenancy.scope
    members = tuple(ExportSegment(id_) for id_ in export.audience or ())

    async def create(services: "Services") -> Any:
        new = NewExport(
            await _export_dataset(services, scope, export.dataset),
            SCHEMA,
            tuple(export.field or ()),
            filter=ExportFilter(members) if members else None,
            segment_per_batch=export.batch_per_audience,
            evaluate_first=export.evaluate_first,
        )
        return await export_jobs.create(services.database, services.lake, services.clock, scope, new, start.key)

    _run(_Job("export run", JobKind.EXPORT, create), start, scope)


async def _export_dataset(services: "Services", scope: Scope, name: str) -> str:
    from app.services.datasets import datasets
    from app.storage.tables.datasets import DatasetKind

    async with services.database.session() as session:
        row = await datasets.by_id_or_name(session, scope, name)
    if row is None:
        new = datasets.NewDataset(name, DatasetKind.EXPORT)
        row = await datasets.create(services.database, services.clock, scope, new)
    return row.id


@dataclass(frozen=True, slots=True)
class _Job:
    """A job to be created; `action` is its name in the audit log."""

    action: str
    kind: "JobKind"
    create: "Callable[[Services], Awaitable[JobColumns]]"


def _run(job: _Job, start: Start, scope: Scope) -> None:
    async def started(services: "Services") -> None:
        from app.wiring import working

        async with _audited(services, scope, job.action):
            row = await job.create(services)
        if not (start.wait or start.work):
            print_object({"id": row.id, "status": row.status}, start.as_json, ("id",))
            return
        async with working(services) if start.work else nullcontext():
            if not start.work:
                await _say_if_nobody_works(services)
            state = await _ended(services, scope, job.kind, row.id)
        _show(state, start.as_json)
        if state.row.status != "SUCCEEDED":
            raise typer.Exit(1)

    run(with_services(load_settings(), started))


async def _say_if_nobody_works(services: "Services") -> None:
    from app.services.maintenance.readiness import left_jobs

    async with services.database.session() as session:
        if reason := await left_jobs(session, services.clock()):
            console.print(f"segmentation: {reason}, or wait with --work", markup=False, soft_wrap=True)


async def _ended(services: "Services", scope: Scope, kind: "JobKind", id: str) -> "JobState":
    from app.services.jobs.watching import watch
    from app.storage.job_log import JobState

    states: AsyncIterator[Any] = watch(services.database, services.changes, scope, kind, id)
    newest = None
    async for row in states:
        newest = row
        if console.is_terminal:
            console.print(f"{row.status} {row.fraction:.0%}", end="\r")
    if newest is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no job {id!r} any more")
    return JobState(kind, newest)


async def _required(services: "Services", scope: Scope, id: str) -> "JobState":
    from app.services.lists.rows import get_rows
    from app.storage.job_log import JOBS, JobState

    async with services.database.session() as session:
        for kind, table in JOBS.items():
            if row := (await get_rows(session, table, scope, [id])).get(id):
                return JobState(kind, row)
    raise Refusal(ErrorCode.NOT_FOUND, f"there is no job {id!r} in {scope.organisation}/{scope.sandbox}")


def _job(state: "JobState") -> dict[str, Any]:
    row = state.row
    names = (
        "id", "status", "source", "schedule_id", "phase", "fraction", "profiles_read", "total_profiles", "attempts",
        "created_by", "created_at", "started_at", "finished_at", "errors",
    )  # fmt: skip
    return {"kind": state.kind.value, **{name: getattr(row, name) for name in names}}


def _show(state: "JobState", as_json: bool) -> None:
    job = _job(state)
    if as_json:
        print_object(job, True, ())
        return
    for name, value in job.items():
        if name != "errors":
            print_object({"name": name, "value": value}, False, ("name", "value"))
    for error in job["errors"]:
        print_object({"name": "error", **error}, False, ("name", "code", "message"))


def _audited(
    services: "Services", scope: Scope, action: str, id: str | None = None
) -> AbstractAsyncContextManager[object]:
    from app.services.access.audit import Entry, audited

    return audited(services.database, Entry(scope, services.clock, action, uuid4().hex, id))
