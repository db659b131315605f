"""`key`: API keys; needs access to the database."""

from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from app.cli.terminal import Organisation, load_settings, run, with_services
from app.scope import Scope
from app.services.access.identity import DEFAULT_SANDBOX

if TYPE_CHECKING:
    from app.wiring import Services

commands = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)

Permissions = Annotated[
    list[str],
    typer.Option(
        "--permission", "-p", help="A permission: read, write, run, admin, or one such as audiences:write; repeatable."
    ),
]
Sandboxes = Annotated[
    list[str] | None,
    typer.Option("--sandbox", "-s", help="A sandbox in which the key is valid; repeatable. All by default."),
]
Expires = Annotated[datetime | None, typer.Option(help="Expiry time (UTC); never by default.")]


@commands.command(epilog="Example: `segmentation key create nightly -p read -p jobs:run --organisation acme`")
def create(
    name: Annotated[str, typer.Argument(help="Name of the key.")],
    permission: Permissions,
    sandbox: Sandboxes = None,
    expires: Expires = None,
    organisation: Organisation = "default",
) -> None:
    """Create a key and print its secret, which is shown only once and not stored."""
    from app.api.permissions import is_permission
    from app.services.access import keys

    until = None if expires is None else expires.replace(tzinfo=expires.tzinfo or UTC)

    async def work(services: "Services") -> None:
        new = keys.NewKey(name, permission, sandbox or None, until)
        async with _audited(services, organisation, "key create"):
            _, secret = await keys.create(services.database, services.clock, _scope(organisation), new, is_permission)
        print(secret)

    run(with_services(load_settings(), work))


@commands.command("list", epilog="Example: `segmentation key list --organisation acme`")
def list_keys(organisation: Organisation = "default") -> None:
    """Print the keys of an organisation, newest first: id, prefix, state, permissions, sandboxes and name."""
    from app.services.access import keys
    from app.services.lists.paging import PageRequest

    async def work(services: "Services") -> None:
        cursor = None
        while True:
            async with services.database.session() as session:
                page = await keys.page(session, _scope(organisation), PageRequest(cursor=cursor))
            for row in page.items:
                expired = row.expires_at is not None and row.expires_at <= services.clock()
                state = "revoked" if row.revoked_at else "expired" if expired else "good"
                sandboxes = "all" if row.sandboxes is None else ",".join(row.sandboxes)
                print(row.id, f"{row.prefix}…", state, ",".join(row.permissions), sandboxes, row.name, sep="\t")
            if not page.has_next:
                return
            cursor = page.cursors[-1]

    run(with_services(load_settings(), work))


@commands.command(epilog="Example: `segmentation key revoke 019ecb27-227b-774b-8000-0123456789ab`")
def revoke(
    id: Annotated[str, typer.Argument(help="Id of the key, as `key list` prints it.")],
    organisation: Organisation = "default",
) -> None:
    """Revoke a key at once, in every process: its requests are rejected and its streams end."""
    from app.services.access import keys

    async def work(services: "Services") -> None:
        async with _audited(services, organisation, "key revoke", id):
            row = await keys.revoke(services.database, services.clock, _scope(organisation), id)
        print(f"{row.prefix}… is revoked")

    run(with_services(load_settings(), work))


def _scope(organisation: str) -> Scope:
    return Scope(organisation, DEFAULT_SANDBOX, user="cli")


def _audited(
    services: "Services", organisation: str, action: str, id: str | None = None
) -> AbstractAsyncContextManager[object]:
    """Keys belong to no sandbox; the command line records their audit events in the default sandbox."""
    from app.services.access.audit import Entry, audited

    return audited(services.database, Entry(_scope(organisation), services.clock, action, uuid4().hex, id))
