"""`audience`, `dataset` and `schedule`: list resources, for scripts."""

from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import typer

from app.cli.output import Listing, every, print_object
from app.cli.terminal import Tenancy, grouped, load_settings, run, with_services
from app.errors import ErrorCode, Refusal

if TYPE_CHECKING:
    from app.services.lists.paging import PageReader, PageRequest, Slice
    from app.services.people.members import Member
    from app.wiring import Services

audiences = typer.Typer(help="Audiences and their members.", no_args_is_help=True)
datasets = typer.Typer(help="Datasets.", no_args_is_help=True)
schedules = typer.Typer(help="Schedules.", no_args_is_help=True)

AUDIENCE = ("id", "name", "type", "lifecycle_state", "total_profiles", "metrics_updated_at")
DATASET = ("id", "name", "kind", "row_count", "updated_at")
SCHEDULE = ("id", "name", "type", "state", "cron_expression", "next_due_at")
MEMBER = ("profile", "status", "last_qualification_time")


@audiences.command("list", epilog="Example: `segmentation audience list --json`")
@grouped
def list_audiences(
    name: Annotated[str | None, typer.Option(help="Audiences whose name contains this.")] = None,
    *,
    listing: Listing,
    tenancy: Tenancy,
) -> None:
    """Print the audiences of a sandbox, newest first: id, name, type, state, members and time of the last count."""
    from app.services.audiences import reads
    from app.services.lists.filters import StringFilter

    filter = reads.AudienceFilter(name=StringFilter(contains=name))

    more = ("audience_id", "namespace", "description", "labels", "created_by", "created_at", "updated_at")
    _print_rows(lambda session, page: reads.page(session, tenancy.scope, page, filter), listing, AUDIENCE, more)


@audiences.command("members", epilog="Example: `segmentation audience members 019ecb27-… --json > members.ndjson`")
@grouped
def list_members(
    id: Annotated[str, typer.Argument(help="Raw id of the audience.")],
    status: Annotated[
        list[str] | None,
        typer.Option(help="realized, existing or exited; repeatable. Realized and existing by default."),
    ] = None,
    *,
    listing: Listing,
    tenancy: Tenancy,
) -> None:
    """Print the members of an audience: profile, status and the time of the last qualification."""
    from app.services.audiences import reads
    from app.services.lists.paging import Slice
    from app.services.people.profiles import ProfileReader

    statuses = None if status is None else [name.upper() for name in status]

    async def work(services: "Services") -> None:
        async with services.database.session() as session:
            await reads.required(session, tenancy.scope, id)
        people = ProfileReader(services.database, services.lake, services.clock, tenancy.scope)

        async def fetch(request: "PageRequest") -> "Slice[tuple[str, Member]]":
            page = (await people.members_many([id], request, statuses))[id]
            persons = await people.people([member.key for member in page.items])
            named = [(persons[member.key].profile_id, member) for member in page.items if member.key in persons]
            return Slice(named, page.cursors, page.has_next, page.has_previous)

        async for profile, member in every(fetch, listing.limit):
            values = {
                "profile": profile,
                "status": member.status,
                "last_qualification_time": member.last_qualification_time,
            }
            print_object(values, listing.as_json, MEMBER)

    run(with_services(load_settings(), work))


@datasets.command("list", epilog="Example: `segmentation dataset list`")
@grouped
def list_datasets(
    kind: Annotated[str | None, typer.Option(help="profile, event, audience or export.")] = None,
    *,
    listing: Listing,
    tenancy: Tenancy,
) -> None:
    """Print the datasets of a sandbox, newest first: id, name, kind, rows and last change."""
    from app.services.datasets import datasets

    more = ("identity_column", "namespace", "timestamp_column", "created_by", "created_at")
    asked_kind = None if kind is None else kind.upper()
    _print_rows(lambda session, page: datasets.page(session, tenancy.scope, page, asked_kind), listing, DATASET, more)


@datasets.command(epilog="Example: `segmentation dataset delete old_purchases`")
@grouped
def delete(
    dataset: Annotated[str, typer.Argument(help="Raw id or name of the dataset.")],
    tenancy: Tenancy,
) -> None:
    """Delete a dataset with its rows; rejected while definitions, policies or exports need it."""
    from app.services.access.audit import Entry, audited
    from app.services.datasets import datasets, deletion

    async def work(services: "Services") -> None:
        async with services.database.session() as session:
            row = await datasets.by_id_or_name(session, tenancy.scope, dataset)
        if row is None:
            raise Refusal(ErrorCode.NOT_FOUND, f"there is no dataset {dataset!r} in {tenancy}")
        async with audited(
            services.database, Entry(tenancy.scope, services.clock, "dataset delete", uuid4().hex, row.id)
        ):
            await deletion.delete_dataset(services.database, services.lake, services.clock, tenancy.scope, row.id)
        print(row.id)

    run(with_services(load_settings(), work))


@schedules.command("list", epilog="Example: `segmentation schedule list --json`")
@grouped
def list_schedules(listing: Listing, tenancy: Tenancy) -> None:
    """Print the schedules of a sandbox, newest first: id, name, type, state, times (Quartz) and the next time."""
    from app.services.jobs.schedules import reads

    more = ("description", "all_audiences", "created_by", "created_at", "updated_at")
    _print_rows(lambda session, page: reads.page(session, tenancy.scope, page), listing, SCHEDULE, more)


def _print_rows(
    fetch: "PageReader[Any]",
    listing: Listing,
    columns: tuple[str, ...],
    more: tuple[str, ...],
) -> None:
    """Prints rows page by page: their `columns`, and in JSON also the fields that `more` adds."""

    async def work(services: "Services") -> None:
        async def fetch_page(request: "PageRequest") -> "Slice[Any]":
            async with services.database.session() as session:
                return await fetch(session, request)

        async for row in every(fetch_page, listing.limit):
            print_object({name: getattr(row, name) for name in (*columns, *more)}, listing.as_json, columns)

    run(with_services(load_settings(), work))
