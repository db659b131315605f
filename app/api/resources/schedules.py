"""Schedules: start jobs at the times of a Quartz cron expression."""

from datetime import datetime
from enum import Enum
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar, Self

import strawberry

from app import quartz
from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import enum_value, resolver
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.relation import Many
from app.api.global_ids import Node, find_id, global_id, node_type
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import OrderDirection, StringFilter, one_id, one_of, ordered, text_filter
from app.api.lists.relations import to_many
from app.api.resources.audiences import Audience
from app.api.resources.export_spec import ExportSpec
from app.api.resources.jobs import Job, any_job
from app.api.scalars import given
from app.errors import ErrorCode, Refusal
from app.services.jobs.schedules import reads as schedule_reads
from app.services.lists.paging import PageRequest
from app.storage.tables import schedules as tables
from app.storage.tables.schedules import ScheduleRunRow

MOST_TIMES = 100


@strawberry.enum(description="Kind of job that a schedule starts.")
class ScheduleType(Enum):
    BATCH_SEGMENTATION = enum_value("BATCH_SEGMENTATION", description="Segment jobs, which evaluate audiences.")
    EXPORT = enum_value("EXPORT", description="Export jobs, which write profiles to a dataset.")


@strawberry.enum(description="State of a schedule.")
class ScheduleState(Enum):
    ACTIVE = enum_value("ACTIVE", description="Starts jobs at every time of its expression.")
    INACTIVE = enum_value("INACTIVE", description="Starts jobs only on request.")


@strawberry.enum(description="Outcome of a run of a schedule.")
class ScheduleRunOutcome(Enum):
    STARTED = enum_value("STARTED", description="A job was started.")
    SKIPPED = enum_value("SKIPPED", description="No process was running before a later time was due.")
    REFUSED = enum_value("REFUSED", description="The job could not be created: see `message`.")


JOB_TYPES = {ScheduleType.BATCH_SEGMENTATION: "SegmentJob", ScheduleType.EXPORT: "ExportJob"}


@strawberry.type(description="A run of a schedule: one due time, or one call to run it now.")
class ScheduleRun:
    run_id: str = strawberry.field(description="Raw id, which the job has as its `runId`.")
    outcome: ScheduleRunOutcome = strawberry.field(description="Outcome.")
    due_at: datetime | None = strawberry.field(description="Due time; null for a call to run now.")
    ran_at: datetime = strawberry.field(description="Time when it was handled.")
    message: str | None = strawberry.field(description="Why it started no job; null if it did.")
    job_id: strawberry.Private[str | None]
    type: strawberry.Private[ScheduleType]

    @resolver(description="The job that it started; null if none.")
    async def job(self, info: Info) -> Job | None:
        job: Job | None = None
        if self.job_id is not None:
            job = await node_type(JOB_TYPES[self.type]).fetch(info.context, self.job_id)
        return job

    @classmethod
    def of(cls, row: ScheduleRunRow, type: ScheduleType) -> Self:
        return cls(
            run_id=row.id,
            outcome=ScheduleRunOutcome(row.outcome),
            due_at=row.due_at,
            ran_at=row.at,
            message=row.message,
            job_id=row.job_id,
            type=type,
        )


Times = Annotated[int | None, strawberry.argument(description=f"How many, from 1 to {MOST_TIMES}.")]


@strawberry.type(description="Starts jobs at the times of a Quartz cron expression.")
class Schedule(FromRow, Node):
    schedule_id: str = strawberry.field(description="Raw id.")
    name: str = strawberry.field(description="Name.")
    description: str | None = strawberry.field(description="Description.")
    type: ScheduleType = strawberry.field(description="Kind of job that it starts.")
    state: ScheduleState = strawberry.field(description="Whether it starts jobs automatically.")
    cron_expression: str = strawberry.field(
        description=(
            "Quartz cron expression: seconds, minutes, hours, day of the month, "
            "month, day of the week (1 is Sunday) and optionally year."
        )
    )
    all_audiences: bool = strawberry.field(description="Whether it evaluates every computed audience.")
    export: ExportSpec | None = strawberry.field(description="For export schedules: the export that each run starts.")
    created_by: str = strawberry.field(description="Creator.")
    last_modified_by: str = strawberry.field(description="User who last changed it.")
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change.")
    etag: str = strawberry.field(
        description="Optimistic lock: changes with every write. Send it with an update to reject lost updates."
    )

    @resolver(description="The cron expression in words.")
    def frequency(self) -> str:
        return quartz.parse(self.cron_expression).words()

    @resolver(
        description=(
            "The next times of the expression, soonest first, also for an INACTIVE schedule. Fewer if its years end."
        )
    )
    def next_run_times(self, info: Info, first: Times = 5) -> list[datetime]:
        number = 5 if first is None else first
        if not 1 <= number <= MOST_TIMES:
            message = f"`first` is {number}, and from 1 to {MOST_TIMES} times are given"
            raise Refusal(ErrorCode.INVALID_INPUT if number < 1 else ErrorCode.LIMIT_EXCEEDED, message, ("first",))
        return list(islice(quartz.parse(self.cron_expression).fires(info.context.services.clock()), number))

    @to_many(
        "Its audiences, by name. The audiences that they refer to are evaluated first and not listed here.",
        of="schedule_id",
    )
    @staticmethod
    def audiences(loaders: Loaders) -> Many[Audience]:
        return Many(loaders.audiences_of_schedule, loaders.audience_count_of_schedule, Audience.of)

    @to_many("Jobs that it started, newest first.", of="schedule_id")
    @staticmethod
    def jobs(loaders: Loaders) -> Many[Job]:
        return Many(loaders.jobs_of_schedule, loaders.job_count_of_schedule, any_job)

    @resolver(description="The latest job that it started; null before the first.")
    async def last_job(self, info: Info) -> Job | None:
        # A run may start two jobs at the same instant: an export, and the evaluation it waits for.
        page = await info.context.loaders.jobs_of_schedule.load((self.schedule_id, PageRequest(2)))
        own = [job for job in map(any_job, page.items) if type(job).__name__ == JOB_TYPES[self.type]]
        return own[0] if own else None

    @resolver(description="Its latest run, including runs that started no job; null before the first.")
    async def last_run(self, info: Info) -> ScheduleRun | None:
        row = await info.context.loaders.last_run_of_schedule.load(self.schedule_id)
        return None if row is None else ScheduleRun.of(row, self.type)

    FROM_ROW: ClassVar[RowFields] = {
        "id": Column("id", partial(global_id, "Schedule")),
        "schedule_id": Column("id"),
        "type": Column("type", ScheduleType),
        "state": Column("state", ScheduleState),
        "export": Column("export", ExportSpec.of_json),
        "etag": Column("revision", str),
    }

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.schedule.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(description="Filters for schedules; all given conditions must match.")
class ScheduleFilter:
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Name matches.")
    type: ScheduleType | None = strawberry.field(default=strawberry.UNSET, description="Kind of job that they start.")
    state: ScheduleState | None = strawberry.field(default=strawberry.UNSET, description="State is this.")
    audience_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluates this audience, listed or as one of all: global or raw id."
    )


def schedule_filter(value: ScheduleFilter | None) -> schedule_reads.ScheduleFilter | None:
    """Raises `Refusal` for a global id of another type."""
    if value is None or not given(value):
        return None
    return schedule_reads.ScheduleFilter(
        name=text_filter(value.name),
        type=one_of(tables.ScheduleType, value.type),
        state=one_of(tables.ScheduleState, value.state),
        audience_id=one_id("Audience", value.audience_id, "filter", "audience_id"),
    )


@strawberry.enum(description="Sort keys of schedules.")
class ScheduleOrderField(Enum):
    NAME = enum_value("NAME", description="Name.")
    CREATED_AT = enum_value("CREATED_AT", description="Creation time.")
    UPDATED_AT = enum_value("UPDATED_AT", description="Time of the last change.")


@strawberry.input(description="Sort order of schedules.")
class ScheduleOrder:
    field: ScheduleOrderField = strawberry.field(description="Sort key.")
    direction: OrderDirection = strawberry.field(description="Sort direction.")


ScheduleId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `scheduleId`.")]
FilterArgument = Annotated[
    ScheduleFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]
OrderArgument = Annotated[ScheduleOrder | None, strawberry.argument(description="Sort order; default newest first.")]


@strawberry.type
class ScheduleQueries:
    @resolver(description="A schedule by its id.")
    async def schedule(self, info: Info, id: ScheduleId) -> Schedule | None:
        raw = find_id("Schedule", id)
        return None if raw is None else await Schedule.fetch(info.context, raw)

    @connection(description="The schedules of the sandbox.")
    async def schedules(
        self,
        info: Info,
        page: PageRequest,
        filter: FilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[Schedule]:
        operation = info.context
        conditions, order = schedule_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(
                lambda session: schedule_reads.page(session, operation.scope, page, conditions, order)
            ),
            Schedule.of,
            lambda: operation.read(lambda session: schedule_reads.count(session, operation.scope, conditions)),
        )
