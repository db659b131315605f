"""Folders: one tree per namespace, which organises audiences."""

from dataclasses import replace
from typing import Annotated, Self, cast

import strawberry

from app.api.context import Info, Operation
from app.api.described import mutation, resolver
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import Node, find_id, global_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import one_id
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.scalars import given
from app.errors import ErrorCode, Refusal
from app.services.lists.paging import PageRequest
from app.services.search import folders
from app.storage.tables.folders import FolderRow


@strawberry.type(description="A folder of audiences; each namespace has its own tree.")
class Folder(Node):
    folder_id: str = strawberry.field(description="Raw id.")
    name: str = strawberry.field(description="Name, unique within its parent.")
    namespace: str = strawberry.field(description="Namespace of its contents, for example `AEPSegments`.")
    path: str = strawberry.field(description="Path from the root, for example `/Retail/Summer`.")
    etag: str = strawberry.field(
        description="Optimistic lock: changes with every write. Send it with an update to reject lost updates."
    )
    parent_id: strawberry.Private[str | None]

    @resolver(description="Folder; null at the root.")
    async def parent(self, info: Info) -> "Folder | None":
        return await Folder.fetch_maybe(info.context, self.parent_id)

    @classmethod
    def of(cls, row: FolderRow) -> Self:
        return cls(
            id=global_id("Folder", row.id),
            folder_id=row.id,
            name=row.name,
            namespace=row.namespace,
            path=row.path,
            etag=str(row.revision),
            parent_id=row.parent_id,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.folder.load(raw)
        return None if row is None else cls.of(row)

    @classmethod
    async def fetch_maybe(cls, operation: Operation, raw: str | None) -> Self | None:
        """The folder of an object that may have none."""
        return None if raw is None else await cls.fetch(operation, raw)


@strawberry.input(description="The folder to create.")
class CreateFolderInput:
    name: str = strawberry.field(description='Name, unique within its parent, without "/".')
    namespace: str = strawberry.field(description="Namespace of its contents; must be that of its parent.")
    parent_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Parent folder, by global or raw id; default the root."
    )

    def as_new(self) -> folders.NewFolder:
        return folders.NewFolder(self.name, self.namespace, one_id("Folder", self.parent_id, "parent_id"))


@strawberry.input(description="Changes to a folder: only the given fields change.")
class UpdateFolderInput:
    id: strawberry.ID = strawberry.field(description="Global id or raw `folderId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name, unique within its parent.")
    parent_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="New parent folder; null moves it to the root."
    )

    def as_changes(self) -> folders.FolderChanges:
        """Raises `Refusal` for null in a required field."""
        if self.name is None:
            message = "it cannot be null: omit it to keep it as it is"
            raise Refusal(ErrorCode.INVALID_INPUT, message, ("name",))
        changes: dict[str, str | None] = {} if self.name is strawberry.UNSET else {"name": self.name}
        if self.parent_id is not strawberry.UNSET:
            changes["parent_id"] = one_id("Folder", self.parent_id, "parent_id")
        return cast(folders.FolderChanges, changes)


@strawberry.type(description="Result of a mutation of a folder.")
class FolderPayload:
    folder: Folder | None = strawberry.field(description="The folder; null if rejected.")
    errors: list[UserError] = errors_field()


NamespaceArgument = Annotated[
    str | None, strawberry.argument(description="Namespace of the folders; every namespace unless given.")
]
ParentArgument = Annotated[
    strawberry.ID | None,
    strawberry.argument(
        description="Folder they are directly in, by global id or raw `folderId`; null for those at the root, "
        "every level unless given."
    ),
]
FolderId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `folderId`.")]
CreateArgument = Annotated[CreateFolderInput, strawberry.argument(description="The object to create.")]
UpdateArgument = Annotated[UpdateFolderInput, strawberry.argument(description="The object and the fields to change.")]


@strawberry.type
class FolderQueries:
    @resolver(description="A folder by its id.")
    async def folder(self, info: Info, id: FolderId) -> Folder | None:
        return await Folder.fetch_maybe(info.context, find_id("Folder", id))

    @connection(description="The folders of the sandbox by path, so a folder before what is inside it.")
    async def folders(
        self,
        info: Info,
        namespace: NamespaceArgument = strawberry.UNSET,
        parent_id: ParentArgument = strawberry.UNSET,
        *,
        page: PageRequest,
    ) -> Connection[Folder]:
        operation = info.context
        filter = folders.FolderFilter(given(namespace))
        if parent_id is not strawberry.UNSET:
            filter = replace(filter, parent_ids=(one_id("Folder", parent_id, "parent_id"),))
        return await connect(
            info,
            lambda: operation.read(lambda session: folders.page(session, operation.scope, page, filter)),
            Folder.of,
            lambda: operation.read(lambda session: folders.count(session, operation.scope, filter)),
        )


@strawberry.type
class FolderMutations:
    @mutation(description="Creates a folder.")
    async def create_folder(self, info: Info, input: CreateArgument) -> FolderPayload:
        services, scope = info.context.services, info.context.scope
        row, errors = await attempt(
            info, lambda: folders.create(services.database, services.clock, scope, input.as_new()), "input"
        )
        return FolderPayload(folder=None if row is None else Folder.of(row), errors=errors)

    @mutation(description="Renames a folder, or moves it with its contents.")
    async def update_folder(self, info: Info, input: UpdateArgument) -> FolderPayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> FolderRow:
            raw, changes = need_id("Folder", input.id, "id"), input.as_changes()
            return await folders.update(services.database, services.clock, scope, raw, given(input.etag), changes)

        row, errors = await attempt(info, update, "input")
        return FolderPayload(folder=None if row is None else Folder.of(row), errors=errors)

    @mutation(description="Deletes a folder; rejected unless it is empty.")
    async def delete_folder(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Folder", input.id, "id")
            await folders.delete(services.database, scope, raw, given(input.etag))
            return global_id("Folder", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)
