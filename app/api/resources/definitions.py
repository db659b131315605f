"""Segment definitions: named, versioned expressions, each of which computes an audience."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from enum import Enum
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import strawberry

from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import enum_value, resolver
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.relation import Many, One
from app.api.global_ids import Node, find_id, global_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import (
    DateTimeFilter,
    OrderDirection,
    StringFilter,
    many_ids,
    one_id,
    one_name,
    ordered,
    text_filter,
    time_filter,
)
from app.api.lists.relations import to_many, to_one
from app.api.resources.audiences import Audience, EvaluationMethod, evaluation_methods
from app.api.resources.evaluated import Evaluated
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.pql import ExpressionFormat, FormatArgument, StreamingEligibility, service_format
from app.api.scalars import given
from app.services.audiences import definition_reads
from app.services.audiences.definition_rules import LIMIT_REASON
from app.services.evaluation.expressions import convert_expression
from app.services.lists.paging import PageRequest


@strawberry.type(description="Only the first profiles by a value are members; ties by profile id, exactly.")
class Limit:
    first: int = strawberry.field(description="Maximum number of members.")
    by: str = strawberry.field(description="PQL value of a profile, for example `xEvent.sum(dollars)`.")
    direction: OrderDirection = strawberry.field(description="Order; profiles without a value come last in either.")

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Self:
        direction = OrderDirection.DESC if kept["descending"] else OrderDirection.ASC
        return cls(first=kept["first"], by=kept["by"], direction=direction)


@strawberry.type(description="A named condition in PQL over a profile and its events.")
class SegmentDefinition(FromRow, Evaluated, Node):
    segment_id: str = strawberry.field(description="Raw id: what `inSegment` in other expressions refers to.")
    name: str = strawberry.field(description="Name, unique among the definitions of the sandbox.")
    description: str | None = strawberry.field(description="Description.")
    version: int = strawberry.field(
        description="Version: starts at 1 and increases with each change of expression, limit or merge policy."
    )
    evaluation_methods: list[EvaluationMethod] = strawberry.field(description="Evaluation methods.")
    schema_name: str = strawberry.field(description="Schema that the expression is about.")
    exclude_opt_out: bool = strawberry.field(description="Whether profiles that opted out are excluded.")
    labels: list[str] = strawberry.field(description="Data usage labels, for example `core/C1`.")
    limit: Limit | None = strawberry.field(
        description="Keeps only the first of the profiles that the expression holds for; null to keep all."
    )
    created_by: str = strawberry.field(description="Creator.")
    last_modified_by: str = strawberry.field(description="User who last changed it.")
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change.")
    etag: str = strawberry.field(
        description="Optimistic lock: changes with every write. Send it with an update to reject lost updates."
    )
    text: strawberry.Private[str]
    merge_policy_id: strawberry.Private[str]

    @resolver(description="The expression, as text or as pql/json.")
    def expression(self, format: FormatArgument = ExpressionFormat.PQL_TEXT) -> str:
        language = service_format(format)
        return self.text if language == "PQL_TEXT" else convert_expression(self.text, service_format(None), language)

    @resolver(description="Eligibility for streaming evaluation, with the reasons if not eligible.")
    async def streaming_eligibility(self, info: Info) -> StreamingEligibility:
        eligibility = await info.context.loaders.streaming_eligibility.load(self.text)
        if self.limit is not None:
            eligibility = replace(eligibility, eligible=False, reasons=(*eligibility.reasons, LIMIT_REASON))
        return StreamingEligibility.of(eligibility)

    @to_one("Merge policy of its profiles.", of="merge_policy_id", missing="the merge policy of a definition")
    @staticmethod
    def merge_policy(loaders: Loaders) -> One[MergePolicy]:
        return One(loaders.merge_policy, MergePolicy.of)

    @to_one("The audience that it computes.", of="segment_id", missing="the audience of a definition")
    @staticmethod
    def audience(loaders: Loaders) -> One[Audience]:
        return One(loaders.audience, Audience.of)

    @to_many("Definitions that its expression refers to.", of="segment_id")
    @staticmethod
    def dependencies(loaders: Loaders) -> Many["SegmentDefinition"]:
        return Many(loaders.dependencies_of_definition, loaders.dependency_count_of_definition, SegmentDefinition.of)

    @to_many("Definitions whose expressions refer to it.", of="segment_id")
    @staticmethod
    def dependents(loaders: Loaders) -> Many["SegmentDefinition"]:
        return Many(loaders.dependents_of_definition, loaders.dependent_count_of_definition, SegmentDefinition.of)

    FROM_ROW: ClassVar[RowFields] = {
        "id": Column("id", partial(global_id, "SegmentDefinition")),
        "raw": Column("id"),
        "segment_id": Column("id"),
        "evaluation_methods": lambda row: evaluation_methods(row),
        "limit": lambda row: None if row.kept is None else Limit.of(row.kept),
        "etag": Column("revision", str),
        "text": Column("expression"),
    }

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.definition.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(description="Filters for definitions; all given conditions must match.")
class SegmentDefinitionFilter:
    id: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Global or raw id is one of these."
    )
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Name matches.")
    description: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Description matches.")
    evaluation_method: EvaluationMethod | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluated by this method."
    )
    label: str | None = strawberry.field(default=strawberry.UNSET, description="Has this label.")
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Uses this merge policy."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Is in this folder.")
    created_by: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Creator matches.")
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Creation time matches.")
    updated_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Time of the last change matches."
    )


def definition_filter(value: SegmentDefinitionFilter | None) -> definition_reads.DefinitionFilter | None:
    """Raises `Refusal` for a global id of another type."""
    if value is None or not given(value):
        return None
    return definition_reads.DefinitionFilter(
        ids=many_ids("SegmentDefinition", value.id, "filter", "id"),
        name=text_filter(value.name),
        description=text_filter(value.description),
        evaluation_method=one_name(value.evaluation_method),
        label=given(value.label),
        merge_policy_id=one_id("MergePolicy", value.merge_policy_id, "filter", "merge_policy_id"),
        folder_id=one_id("Folder", value.folder_id, "filter", "folder_id"),
        created_by=text_filter(value.created_by),
        created_at=time_filter(value.created_at),
        updated_at=time_filter(value.updated_at),
    )


@strawberry.enum(description="Sort keys of definitions.")
class SegmentDefinitionOrderField(Enum):
    NAME = enum_value("NAME", description="Name.")
    CREATED_AT = enum_value("CREATED_AT", description="Creation time.")
    UPDATED_AT = enum_value("UPDATED_AT", description="Time of the last change.")


@strawberry.input(description="Sort order of definitions.")
class SegmentDefinitionOrder:
    field: SegmentDefinitionOrderField = strawberry.field(description="Sort key.")
    direction: OrderDirection = strawberry.field(description="Sort direction.")


DefinitionId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `segmentId`.")]
FilterArgument = Annotated[
    SegmentDefinitionFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]
OrderArgument = Annotated[
    SegmentDefinitionOrder | None, strawberry.argument(description="Sort order; default newest first.")
]


@strawberry.type
class DefinitionQueries:
    @resolver(description="A segment definition by its id.")
    async def segment_definition(self, info: Info, id: DefinitionId) -> SegmentDefinition | None:
        raw = find_id("SegmentDefinition", id)
        return None if raw is None else await SegmentDefinition.fetch(info.context, raw)

    @connection(description="The segment definitions of the sandbox.")
    async def segment_definitions(
        self,
        info: Info,
        page: PageRequest,
        filter: FilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[SegmentDefinition]:
        operation = info.context
        conditions, order = definition_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(
                lambda session: definition_reads.page(session, operation.scope, page, conditions, order)
            ),
            SegmentDefinition.of,
            lambda: operation.read(lambda session: definition_reads.count(session, operation.scope, conditions)),
        )
