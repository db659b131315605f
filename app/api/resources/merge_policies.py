"""Merge policies: how the fragments of a profile are merged."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Self, cast

import strawberry

from app.api.context import Info, Operation
from app.api.described import enum_value, mutation, resolver
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import Node, find_id, global_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import many_ids
from app.api.resources.datasets import Dataset
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.scalars import given
from app.errors import ErrorCode, Refusal, Refusals
from app.services import merge_policies
from app.services.lists.paging import PageRequest
from app.storage.columns import StoredValues
from app.storage.tables import merge_policies as tables
from app.storage.tables.merge_policies import MergePolicyRow


@strawberry.enum(description="How conflicting values of a field are resolved.")
class MergeMethod(Enum):
    TIMESTAMP_ORDERED = enum_value("TIMESTAMP_ORDERED", description="The newest non-null value wins.")
    DATA_SET_PRECEDENCE = enum_value(
        "DATA_SET_PRECEDENCE", description="The value of the first dataset in an ordered list wins."
    )


@strawberry.enum(description="How fragments are joined into one person.")
class GraphType(Enum):
    NONE = enum_value("NONE", description="Fragments with the same primary identity.")
    PDG = enum_value("PDG", description="Fragments linked by any shared identity.")


@strawberry.type(description="How fragments of a profile from several datasets are merged.")
class MergePolicy(Node):
    merge_policy_id: str = strawberry.field(description="Raw id.")
    name: str = strawberry.field(description="Name.")
    method: MergeMethod = strawberry.field(description="How conflicting values are resolved.")
    identity_graph: GraphType = strawberry.field(description="How fragments are joined into one person.")
    is_default: bool = strawberry.field(description="Whether it is the default policy.")
    etag: str = strawberry.field(
        description="Optimistic lock: changes with every write. Send it with an update to reject lost updates."
    )
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change.")
    dataset_ids: strawberry.Private[list[str]]

    @resolver(description="For DATA_SET_PRECEDENCE: datasets, highest precedence first.")
    async def datasets(self, info: Info) -> list[Dataset]:
        rows = await info.context.loaders.dataset.load_many(self.dataset_ids)
        return [Dataset.of(row) for row in rows if row is not None]

    @classmethod
    def of(cls, row: MergePolicyRow) -> Self:
        return cls(
            id=global_id("MergePolicy", row.id),
            merge_policy_id=row.id,
            name=row.name,
            method=MergeMethod(row.method),
            identity_graph=GraphType(row.identity_graph),
            is_default=row.is_default,
            etag=str(row.revision),
            created_at=row.created_at,
            updated_at=row.updated_at,
            dataset_ids=row.datasets,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.merge_policy.load(raw)
        return None if row is None else cls.of(row)


MergePolicyId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `mergePolicyId`.")]


@strawberry.type
class MergePolicyQueries:
    @resolver(description="A merge policy by its id.")
    async def merge_policy(self, info: Info, id: MergePolicyId) -> MergePolicy | None:
        raw = find_id("MergePolicy", id)
        return None if raw is None else await MergePolicy.fetch(info.context, raw)

    @connection(description="The merge policies of the sandbox, oldest first.")
    async def merge_policies(self, info: Info, page: PageRequest) -> Connection[MergePolicy]:
        operation = info.context
        return await connect(
            info,
            lambda: operation.read(lambda session: merge_policies.page(session, operation.scope, page)),
            MergePolicy.of,
            lambda: operation.read(lambda session: merge_policies.count(session, operation.scope)),
        )


_IDS = "For DATA_SET_PRECEDENCE: datasets by global or raw id, highest precedence first."
_INPUT = {"datasets": ("datasetIds",)}
_ENUMS = {"method": tables.MergeMethod, "identity_graph": tables.IdentityGraph}
"""For fields with an API enum, the enum of their column."""


@strawberry.input(description="The merge policy to create.")
class CreateMergePolicyInput:
    name: str = strawberry.field(description="Name.")
    method: MergeMethod = strawberry.field(description="How conflicting values are resolved.")
    identity_graph: GraphType = strawberry.field(
        default=GraphType.NONE, description="How fragments are joined into one person."
    )
    dataset_ids: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description=_IDS)
    is_default: bool | None = strawberry.field(default=False, description="Whether it becomes the default policy.")

    def as_new(self) -> merge_policies.NewPolicy:
        return merge_policies.NewPolicy(
            self.name,
            tables.MergeMethod(self.method.value),
            tables.IdentityGraph(self.identity_graph.value),
            many_ids("Dataset", self.dataset_ids, "datasets") or (),
            bool(self.is_default),
        )


@strawberry.input(description="Changes to a merge policy: only the given fields change; null clears the datasets.")
class UpdateMergePolicyInput:
    id: strawberry.ID = strawberry.field(description="Global id or raw `mergePolicyId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name.")
    method: MergeMethod | None = strawberry.field(
        default=strawberry.UNSET, description="How conflicting values are resolved."
    )
    identity_graph: GraphType | None = strawberry.field(
        default=strawberry.UNSET, description="How fragments are joined into one person."
    )
    dataset_ids: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description=_IDS)
    is_default: bool | None = strawberry.field(
        default=strawberry.UNSET, description="True to make it the default policy."
    )

    def as_changes(self) -> merge_policies.PolicyChanges:
        """Raises `Refusals` for null in a required field."""
        needed = ("name", "method", "identity_graph", "is_default")
        nulls = [name for name in needed if getattr(self, name) is None]
        if nulls:
            message = "it cannot be null: omit it to keep it as it is"
            raise Refusals([Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in nulls])
        changes: StoredValues = {
            name: _ENUMS[name](value.value) if name in _ENUMS else value
            for name in needed
            if (value := getattr(self, name)) is not strawberry.UNSET
        }
        if self.dataset_ids is not strawberry.UNSET:
            changes["datasets"] = many_ids("Dataset", self.dataset_ids, "datasets") or ()
        return cast(merge_policies.PolicyChanges, changes)


@strawberry.type(description="Result of a mutation of a merge policy.")
class MergePolicyPayload:
    merge_policy: MergePolicy | None = strawberry.field(description="The merge policy; null if rejected.")
    errors: list[UserError] = errors_field()


CreateArgument = Annotated[CreateMergePolicyInput, strawberry.argument(description="The object to create.")]
UpdateArgument = Annotated[
    UpdateMergePolicyInput, strawberry.argument(description="The object and the fields to change.")
]


@strawberry.type
class MergePolicyMutations:
    @mutation(description="Creates a merge policy.")
    async def create_merge_policy(self, info: Info, input: CreateArgument) -> MergePolicyPayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> MergePolicyRow:
            return await merge_policies.create(services.database, services.clock, scope, input.as_new())

        row, errors = await attempt(info, create, "input", names=_INPUT)
        return MergePolicyPayload(merge_policy=None if row is None else MergePolicy.of(row), errors=errors)

    @mutation(description="Updates a merge policy; memberships follow with the next evaluation.")
    async def update_merge_policy(self, info: Info, input: UpdateArgument) -> MergePolicyPayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> MergePolicyRow:
            raw, changes = need_id("MergePolicy", input.id, "id"), input.as_changes()
            return await merge_policies.update(
                services.database, services.clock, scope, raw, given(input.etag), changes
            )

        row, errors = await attempt(info, update, "input", names=_INPUT)
        return MergePolicyPayload(merge_policy=None if row is None else MergePolicy.of(row), errors=errors)

    @mutation(description="Deletes a merge policy; rejected for the default policy, and while audiences use it.")
    async def delete_merge_policy(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("MergePolicy", input.id, "id")
            await merge_policies.delete(services.database, scope, raw, given(input.etag))
            return global_id("MergePolicy", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)
