"""The audit log of a sandbox, for administrators."""

from datetime import datetime
from typing import Annotated, Self

import strawberry

from app.api.context import Info
from app.api.global_ids import split_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import DateTimeFilter, time_filter
from app.api.scalars import given
from app.services.access import audit
from app.services.lists.paging import PageRequest
from app.storage.tables.access import AuditEventRow


@strawberry.type(description="What was done, by whom, and how it ended. Events are never changed or deleted.")
class AuditEvent:
    at: datetime = strawberry.field(description="When it was recorded.")
    subject: str = strawberry.field(description="The caller.")
    action: str = strawberry.field(description="The mutation or command.")
    resource_id: strawberry.ID | None = strawberry.field(
        description="Raw id of the object that it was done to or that it created; null unless there is one."
    )
    outcome: str = strawberry.field(description="OK, or the code of the first error.")
    request_id: str = strawberry.field(description="The request, as its answer and the server's log name it.")

    @classmethod
    def of(cls, row: AuditEventRow) -> Self:
        return cls(
            at=row.at,
            subject=row.subject,
            action=row.action,
            resource_id=None if row.resource_id is None else strawberry.ID(row.resource_id),
            outcome=row.outcome,
            request_id=row.request_id,
        )


@strawberry.input(description="Filters for the audit log; all given conditions must match.")
class AuditFilter:
    subject: str | None = strawberry.field(default=strawberry.UNSET, description="Caller is exactly this.")
    action: str | None = strawberry.field(default=strawberry.UNSET, description="Mutation or command is exactly this.")
    resource_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Object has this global or raw id."
    )
    at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Time of the event.")


FilterArgument = Annotated[AuditFilter | None, strawberry.argument(description="Which events.")]


def _filter(value: AuditFilter | None) -> audit.AuditFilter:
    if value is None or not given(value):
        return audit.AuditFilter()
    resource = given(value.resource_id)
    return audit.AuditFilter(
        subject=given(value.subject),
        action=given(value.action),
        resource_id=None if resource is None else split_id(resource)[1],
        at=time_filter(value.at),
    )


@strawberry.type
class AuditQueries:
    @connection(description="The audit log of the sandbox, newest first.")
    async def audit_events(
        self, info: Info, filter: FilterArgument = strawberry.UNSET, *, page: PageRequest
    ) -> Connection[AuditEvent]:
        operation, conditions = info.context, _filter(filter)
        return await connect(
            info,
            lambda: operation.read(lambda session: audit.page(session, operation.scope, page, conditions)),
            AuditEvent.of,
            lambda: operation.read(lambda session: audit.count(session, operation.scope, conditions)),
        )
