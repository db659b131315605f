"""`audit`: prints the audit log."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.terminal import Tenancy, grouped, load_settings, run, with_services

if TYPE_CHECKING:
    from app.wiring import Services

commands = typer.Typer()

Subject = Annotated[str | None, typer.Option(help="Actions of this caller only.")]
Action = Annotated[str | None, typer.Option(help="This mutation or command only, such as `deleteAudience`.")]
Resource = Annotated[str | None, typer.Option(help="Actions on the object with this raw id only.")]
Since = Annotated[datetime | None, typer.Option(help="Actions since this time only (UTC).")]


@commands.command(epilog="Example: `segmentation audit --action deleteAudience --since 2026-06-01`")
@grouped
def audit(
    subject: Subject = None,
    action: Action = None,
    resource: Resource = None,
    since: Since = None,
    *,
    tenancy: Tenancy,
) -> None:
    """Print the audit log of a sandbox, newest first: time, subject, action, id, outcome and request id."""
    from app.services.access import audit as log
    from app.services.lists.filters import DateTimeFilter
    from app.services.lists.paging import LARGEST_PAGE, PageRequest

    begin = None if since is None else since.replace(tzinfo=since.tzinfo or UTC)
    filter = log.AuditFilter(subject, action, resource, DateTimeFilter(gte=begin))

    async def work(services: "Services") -> None:
        cursor = None
        while True:
            request = PageRequest(LARGEST_PAGE, cursor=cursor)
            async with services.database.session() as session:
                page = await log.page(session, tenancy.scope, request, filter)
            for row in page.items:
                print(
                    f"{row.at:%Y-%m-%dT%H:%M:%SZ}", row.subject, row.action, row.resource_id or "-", row.outcome,
                    row.request_id, sep="\t",
                )  # fmt: skip
            if not page.has_next:
                return
            cursor = page.cursors[-1]

    run(with_services(load_settings(), work))
