"""Merge policies: how fragments of one profile become one view."""

from datetime import datetime
from enum import Enum
from typing import Annotated, Self

import strawberry

from app.api.connections import After, Connection, First, asked, connect
from app.api.context import Info, Operation
from app.api.datasets import Dataset
from app.api.described import enum_value, resolver
from app.api.global_ids import Node, find_id, global_id
from app.services import merge_policies
from app.storage.tables.merge_policies import MergePolicyRow


@strawberry.enum(description="Which value of a field wins when fragments differ.")
class MergeMethod(Enum):
    TIMESTAMP_ORDERED = enum_value("TIMESTAMP_ORDERED", description="The newest value that is not null.")
    DATA_SET_PRECEDENCE = enum_value("DATA_SET_PRECEDENCE", description="That of the first dataset in an ordered list.")


@strawberry.enum(description="Which fragments are taken for one person.")
class GraphType(Enum):
    NONE = enum_value("NONE", description="Those with the same primary identity.")
    PDG = enum_value("PDG", description="Those linked by any identity that they share.")


@strawberry.type(description="How fragments of one profile from several datasets become one view.")
class MergePolicy(Node):
    merge_policy_id: str = strawberry.field(description="Raw id.")
    name: str = strawberry.field(description="Name.")
    method: MergeMethod = strawberry.field(description="Which value of a field wins.")
    identity_graph: GraphType = strawberry.field(description="Which fragments are taken for one person.")
    is_default: bool = strawberry.field(description="Whether it is used where none is named.")
    etag: str = strawberry.field(description="Changes with every write; send it back to refuse lost updates.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    dataset_ids: strawberry.Private[list[str]]

    @resolver(description="For DATA_SET_PRECEDENCE: the datasets, the one that wins first.")
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


MergePolicyId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `mergePolicyId`.")]


@strawberry.type
class MergePolicyQueries:
    @resolver(description="A merge policy by its id.")
    async def merge_policy(self, info: Info, id: MergePolicyId) -> MergePolicy | None:
        raw = find_id("MergePolicy", id)
        return None if raw is None else await MergePolicy.fetch(info.context, raw)

    @resolver(description="The merge policies of the sandbox, oldest first.")
    async def merge_policies(
        self, info: Info, first: First = strawberry.UNSET, after: After = strawberry.UNSET
    ) -> Connection[MergePolicy]:
        page, operation = asked(first, after), info.context
        return await connect(
            info,
            lambda: operation.read(lambda session: merge_policies.page(session, operation.scope, page)),
            MergePolicy.of,
            lambda: operation.read(lambda session: merge_policies.count(session, operation.scope)),
        )
