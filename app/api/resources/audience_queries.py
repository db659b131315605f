"""Queries and subscriptions of audiences."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from enum import Enum
from typing import Annotated

import strawberry

from app.api.context import Info
from app.api.described import enum_value, resolver, subscription
from app.api.global_ids import find_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import (
    DateTimeFilter,
    OrderDirection,
    StringFilter,
    many_ids,
    names,
    one_id,
    one_name,
    ordered,
    text_filter,
    time_filter,
)
from app.api.resources.audiences import (
    Audience,
    AudienceId,
    AudienceOrigin,
    AudienceType,
    EvaluationMethod,
    LifecycleState,
)
from app.api.scalars import given
from app.services.audiences import reads as audiences
from app.services.lists.paging import PageRequest


@strawberry.input(description="Filters for audiences; all given conditions must match.")
class AudienceFilter:
    id: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Global or raw id is one of these."
    )
    audience_id: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="`audienceId` matches.")
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Name matches.")
    description: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Description matches.")
    type: list[AudienceType] | None = strawberry.field(default=strawberry.UNSET, description="Type is one of these.")
    origin: list[AudienceOrigin] | None = strawberry.field(
        default=strawberry.UNSET, description="Created by one of these systems."
    )
    namespace: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Namespace matches.")
    lifecycle_state: list[LifecycleState] | None = strawberry.field(
        default=strawberry.UNSET, description="State is one of these."
    )
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


def audience_filter(value: AudienceFilter | None) -> audiences.AudienceFilter | None:
    """Raises `Refusal` for a global id of another type."""
    if value is None or not given(value):
        return None
    return audiences.AudienceFilter(
        ids=many_ids("Audience", value.id, "filter", "id"),
        audience_id=text_filter(value.audience_id),
        name=text_filter(value.name),
        description=text_filter(value.description),
        type=names(value.type),
        origin=names(value.origin),
        namespace=text_filter(value.namespace),
        lifecycle_state=names(value.lifecycle_state),
        evaluation_method=one_name(value.evaluation_method),
        label=given(value.label),
        merge_policy_id=one_id("MergePolicy", value.merge_policy_id, "filter", "merge_policy_id"),
        folder_id=one_id("Folder", value.folder_id, "filter", "folder_id"),
        created_by=text_filter(value.created_by),
        created_at=time_filter(value.created_at),
        updated_at=time_filter(value.updated_at),
    )


@strawberry.enum(description="Sort keys of audiences.")
class AudienceOrderField(Enum):
    NAME = enum_value("NAME", description="Name.")
    CREATED_AT = enum_value("CREATED_AT", description="Creation time.")
    UPDATED_AT = enum_value("UPDATED_AT", description="Time of the last change.")
    TOTAL_PROFILES = enum_value(
        "TOTAL_PROFILES", description="Number of members; audiences without a count come as the smallest."
    )


@strawberry.input(description="Sort order of audiences.")
class AudienceOrder:
    field: AudienceOrderField = strawberry.field(description="Sort key.")
    direction: OrderDirection = strawberry.field(description="Sort direction.")


AudienceFilterArgument = Annotated[
    AudienceFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]


AudienceOrderArgument = Annotated[
    AudienceOrder | None, strawberry.argument(description="Sort order; default newest first.")
]


@strawberry.type
class AudienceQueries:
    @resolver(description="An audience by its id.")
    async def audience(self, info: Info, id: AudienceId) -> Audience | None:
        raw = find_id("Audience", id)
        return None if raw is None else await Audience.fetch(info.context, raw)

    @connection(description="The audiences of the sandbox.")
    async def audiences(
        self,
        info: Info,
        page: PageRequest,
        filter: AudienceFilterArgument = strawberry.UNSET,
        order_by: AudienceOrderArgument = strawberry.UNSET,
    ) -> Connection[Audience]:
        operation = info.context
        conditions, order = audience_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(lambda session: audiences.page(session, operation.scope, page, conditions, order)),
            Audience.of,
            lambda: operation.read(lambda session: audiences.count(session, operation.scope, conditions)),
        )


@strawberry.type
class AudienceSubscriptions:
    @subscription(
        description=(
            "The current state of an audience, then an update whenever its fields, metrics or members change (an edit, "
            "a finished job, an upload, a streaming batch, expiry); completes only when the audience is deleted."
        )
    )
    async def audience_updated(self, info: Info, id: AudienceId) -> AsyncGenerator[Audience, None]:
        services, raw = info.context.services, need_id("Audience", id, "id")
        states = audiences.watch(services.database, services.changes, services.clock, info.context.scope, raw)
        async with aclosing(states):
            async for reading in states:
                info.context.event = ("audience", reading.number)
                yield Audience.of(reading.row)
