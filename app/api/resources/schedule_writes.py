"""Creates, updates and runs schedules."""

from typing import Annotated, Self, cast

import strawberry

from app.api.context import Info
from app.api.described import mutation
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import global_id, need_id
from app.api.lists.filters import many_ids, one_of
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.resources.export_jobs import CreateExportJobInput
from app.api.resources.jobs import Job, any_job
from app.api.resources.schedules import Schedule, ScheduleId, ScheduleState, ScheduleType
from app.api.scalars import given
from app.errors import ErrorCode, Refusal, Refusals
from app.services.jobs.export.input import NewExport
from app.services.jobs.schedules import requests as schedules
from app.services.jobs.schedules import run as schedule_runs
from app.storage.columns import StoredValues
from app.storage.tables import schedules as tables
from app.storage.tables.schedules import ScheduleRow

_CRON = (
    "Quartz cron of 6 or 7 fields, in UTC, such as `0 30 2 ? * MON-FRI`; at most once in 24 hours, so with one time of "
    "day."
)
_IDS = "Audiences to evaluate, at most 1,500, by global or raw id."
_EXPORT = (
    "For a schedule of type EXPORT: the export that each run starts. Its segments need not have been evaluated yet. "
    "Each run is a job of its own, so there is no `idempotencyKey`."
)


def _export(value: CreateExportJobInput | None) -> NewExport | None:
    """Raises `Refusal`."""
    if value is None or not given(value):
        return None
    if given(value.idempotency_key) is not None:
        message = "each run of a schedule starts a job of its own: leave the key out"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("export", "idempotency_key"))
    return value.as_new("export")


@strawberry.input(
    description=(
        "The schedule to create: either `audienceIds`, or `allAudiences: true`, or type EXPORT with an `export`."
    )
)
class CreateScheduleInput:
    name: str = strawberry.field(description="Name.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description.")
    type: ScheduleType = strawberry.field(
        default=ScheduleType.BATCH_SEGMENTATION, description="Kind of job that it starts."
    )
    cron_expression: str | None = strawberry.field(
        default=strawberry.UNSET, description=f"{_CRON} Unless given: once a day, at a minute that is chosen for it."
    )
    state: ScheduleState | None = strawberry.field(
        default=ScheduleState.INACTIVE, description="Whether it starts jobs automatically."
    )
    audience_ids: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description=_IDS)
    all_audiences: bool | None = strawberry.field(
        default=False, description="Whether it evaluates every audience, including those created later."
    )
    export: CreateExportJobInput | None = strawberry.field(default=strawberry.UNSET, description=_EXPORT)

    def as_new(self) -> schedules.NewSchedule:
        """Raises `Refusal` for a global id of another type."""
        return schedules.NewSchedule(
            self.name,
            given(self.description),
            tables.ScheduleType(self.type.value),
            given(self.cron_expression),
            tables.ScheduleState((self.state or ScheduleState.INACTIVE).value),
            many_ids("Audience", self.audience_ids, "audience_ids"),
            bool(self.all_audiences),
            _export(self.export),
        )


@strawberry.input(
    description=(
        "Changes to a schedule: only the given fields change. `audienceIds` replaces `allAudiences`, and vice versa."
    )
)
class UpdateScheduleInput:
    id: strawberry.ID = strawberry.field(description="Global id or raw `scheduleId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description; null for none.")
    cron_expression: str | None = strawberry.field(default=strawberry.UNSET, description=_CRON)
    state: ScheduleState | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it starts jobs automatically."
    )
    audience_ids: list[strawberry.ID] | None = strawberry.field(default=strawberry.UNSET, description=_IDS)
    all_audiences: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether it evaluates every audience."
    )
    export: CreateExportJobInput | None = strawberry.field(default=strawberry.UNSET, description=_EXPORT)

    def as_changes(self) -> schedules.ScheduleChanges:
        """Raises `Refusals` for null in a required field."""
        needed = ("name", "cron_expression", "state", "all_audiences")
        nulls = [name for name in needed if getattr(self, name) is None]
        if nulls:
            message = "it cannot be null: omit it to keep it as it is"
            raise Refusals([Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in nulls])
        changes: StoredValues = {
            name: value for name in (*needed, "description") if (value := getattr(self, name)) is not strawberry.UNSET
        }
        if self.state is not strawberry.UNSET:
            changes["state"] = one_of(tables.ScheduleState, self.state)
        if self.audience_ids is not strawberry.UNSET:
            changes["audience_ids"] = many_ids("Audience", self.audience_ids, "audience_ids")
        if self.export is not strawberry.UNSET:
            changes["export"] = _export(self.export)
        return cast(schedules.ScheduleChanges, changes)


@strawberry.type(description="Result of a mutation of a schedule.")
class SchedulePayload:
    schedule: Schedule | None = strawberry.field(description="The schedule; null if rejected.")
    errors: list[UserError] = errors_field()

    @classmethod
    def of(cls, row: ScheduleRow | None, errors: list[UserError]) -> Self:
        return cls(schedule=None if row is None else Schedule.of(row), errors=errors)


@strawberry.type(description="Result of starting a job.")
class JobPayload:
    job: Job | None = strawberry.field(description="The job; null if rejected.")
    errors: list[UserError] = errors_field()


CreateArgument = Annotated[CreateScheduleInput, strawberry.argument(description="The object to create.")]


UpdateArgument = Annotated[UpdateScheduleInput, strawberry.argument(description="The object and the fields to change.")]


AudienceIds = Annotated[
    list[strawberry.ID], strawberry.argument(description="Audiences, by global id or raw `audienceId`.")
]


@strawberry.type
class ScheduleMutations:
    @mutation(description="Creates a schedule.")
    async def create_schedule(self, info: Info, input: CreateArgument) -> SchedulePayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> ScheduleRow:
            return await schedules.create(services.database, services.lake, services.clock, scope, input.as_new())

        return SchedulePayload.of(*await attempt(info, create, "input"))

    @mutation(description="Updates a schedule; jobs that it started are not affected.")
    async def update_schedule(self, info: Info, input: UpdateArgument) -> SchedulePayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> ScheduleRow:
            raw, changes = need_id("Schedule", input.id, "id"), input.as_changes()
            etag = given(input.etag)
            return await schedules.update(services.database, services.lake, services.clock, scope, raw, etag, changes)

        return SchedulePayload.of(*await attempt(info, update, "input"))

    @mutation(description="Deletes a schedule; jobs that it started are kept and continue.")
    async def delete_schedule(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Schedule", input.id, "id")
            await schedules.delete(services.database, scope, raw, given(input.etag))
            return global_id("Schedule", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)

    @mutation(description="Adds audiences to a schedule.")
    async def add_schedule_audiences(self, info: Info, id: ScheduleId, audience_ids: AudienceIds) -> SchedulePayload:
        services, scope = info.context.services, info.context.scope

        async def add() -> ScheduleRow:
            raw, ids = need_id("Schedule", id, "id"), many_ids("Audience", audience_ids, "audience_ids") or ()
            return await schedules.add_audiences(services.database, services.clock, scope, raw, ids)

        return SchedulePayload.of(*await attempt(info, add))

    @mutation(description="Removes audiences from a schedule, which must keep at least one.")
    async def remove_schedule_audiences(self, info: Info, id: ScheduleId, audience_ids: AudienceIds) -> SchedulePayload:
        services, scope = info.context.services, info.context.scope

        async def remove() -> ScheduleRow:
            raw, ids = need_id("Schedule", id, "id"), many_ids("Audience", audience_ids, "audience_ids") or ()
            return await schedules.remove_audiences(services.database, services.clock, scope, raw, ids)

        return SchedulePayload.of(*await attempt(info, remove))

    @mutation(description="Starts a run now, in addition to the scheduled times and regardless of the state.")
    async def trigger_schedule(self, info: Info, id: ScheduleId) -> JobPayload:
        services, scope = info.context.services, info.context.scope
        state, errors = await attempt(
            info,
            lambda: schedule_runs.trigger(services.database, services.clock, scope, need_id("Schedule", id, "id")),
        )
        return JobPayload(job=None if state is None else any_job(state), errors=errors)
