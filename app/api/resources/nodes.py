"""Any object by its global id, and the current caller."""

import asyncio
from typing import Annotated

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.global_ids import Node, fetch_node
from app.api.resources.sandboxes import Sandbox
from app.errors import ErrorCode, Refusal
from app.services.evaluation.sandboxes import own_time_zone, sandboxes
from app.services.lists.paging import LARGEST_PAGE

GlobalId = Annotated[strawberry.ID, strawberry.argument(description="Global id: the `id` of an object.")]
GlobalIds = Annotated[list[strawberry.ID], strawberry.argument(description=f"Global ids, at most {LARGEST_PAGE}.")]


@strawberry.type(description="The caller, its organisation and sandbox.")
class Viewer:
    subject: str = strawberry.field(description="The caller.")
    organisation: str = strawberry.field(description="Organisation.")
    sandbox: str = strawberry.field(description="Sandbox.")
    permissions: list[str] = strawberry.field(description="Permissions of the caller.")

    @resolver(description="Sandboxes of the organisation that hold something and that the caller may use, by name.")
    async def sandboxes(self, info: Info) -> list[Sandbox]:
        services = info.context.services
        return [
            Sandbox.of(sandbox) for sandbox in await sandboxes(services.database, services.lake, info.context.scope)
        ]

    @resolver(description="IANA name of the sandbox's time zone.")
    async def time_zone(self, info: Info) -> str:
        services = info.context.services
        return await own_time_zone(services.database, services.lake, info.context.scope)


@strawberry.type
class NodeQueries:
    @resolver(description="An object by its global id; null if it does not exist.")
    async def node(self, info: Info, id: GlobalId) -> Node | None:
        node: Node | None = await fetch_node(info.context, id)
        return node

    @resolver(description="Objects by their global ids, in the given order, with null for those that do not exist.")
    async def nodes(self, info: Info, ids: GlobalIds) -> list[Node | None]:
        if len(ids) > LARGEST_PAGE:
            message = f"{len(ids)} ids are asked for, and at most {LARGEST_PAGE} are answered at once: split them"
            raise Refusal(ErrorCode.LIMIT_EXCEEDED, message, ("ids",))
        return list(await asyncio.gather(*(fetch_node(info.context, id_) for id_ in ids)))

    @resolver(description="The caller, its organisation and sandbox.")
    def viewer(self, info: Info) -> Viewer:
        scope = info.context.scope
        return Viewer(
            subject=scope.user,
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            permissions=sorted(scope.permissions),
        )
