"""What every kind of job has; knows no kind."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Self

import strawberry

from app.api.connections import Connection, connect, connection
from app.api.context import Info
from app.api.described import enum_value, resolver, subscription
from app.api.filters import DateTimeFilter, OrderDirection, names, one_id, ordered, time_filter
from app.api.global_ids import node_type
from app.api.scalars import BigInt, given
from app.services.jobs import shared as jobs
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.storage.job_log import JobState
from app.storage.tables.jobs import JobKind

if TYPE_CHECKING:
    from app.api.resources.definitions import SegmentDefinition
    from app.api.resources.schedules import Schedule


@strawberry.enum(
    description="How far a job has come. NEW, QUEUED, PROCESSING, then SUCCEEDED or FAILED; or CANCELLING, CANCELLED."
)
class JobStatus(Enum):
    NEW = enum_value("NEW", description="Just made.")
    QUEUED = enum_value("QUEUED", description="Waiting for a worker.")
    PROCESSING = enum_value("PROCESSING", description="A worker is at it.")
    SUCCEEDED = enum_value("SUCCEEDED", description="Done. Single definitions may have failed: see `errors`.")
    FAILED = enum_value("FAILED", description="Given up: see `errors`.")
    CANCELLING = enum_value("CANCELLING", description="Asked to stop, and about to.")
    CANCELLED = enum_value("CANCELLED", description="Stopped on request; nothing of it is kept.")


@strawberry.enum(description="Who started a job.")
class JobSource(Enum):
    API = enum_value("API", description="A caller of this API.")
    SCHEDULER = enum_value("SCHEDULER", description="A schedule.")


@strawberry.enum(description="What a job is busy with.")
class JobPhase(Enum):
    WAITING = enum_value("WAITING", description="Waiting for a worker.")
    READING = enum_value("READING", description="Bringing the profiles up to date.")
    EVALUATING = enum_value("EVALUATING", description="Going through the profiles.")
    WRITING = enum_value("WRITING", description="Storing the outcome.")
    DONE = enum_value("DONE", description="Nothing more to do.")


@strawberry.enum(description="What a list of jobs is ordered by.")
class JobOrderField(Enum):
    CREATED_AT = enum_value("CREATED_AT", description="When they were made.")
    UPDATED_AT = enum_value("UPDATED_AT", description="When they last changed.")
    FINISHED_AT = enum_value("FINISHED_AT", description="When they ended; unfinished ones count as latest.")


@strawberry.type(description="How far a job has come.")
class JobProgress:
    phase: JobPhase = strawberry.field(description="What it is busy with.")
    fraction: float = strawberry.field(description="From 0 to 1; never goes back.")
    profiles_read: BigInt = strawberry.field(description="People looked at so far.")
    total_profiles: BigInt = strawberry.field(description="People to look at; 0 until that is known.")
    estimated_seconds_left: float | None = strawberry.field(
        description="A guess from the pace so far; null while there is none."
    )
    sequence: int = strawberry.field(
        description="Number of this state of the job. A subscription resumes after one by its `after`."
    )

    @classmethod
    def of(cls, row: Any) -> "JobProgress":
        return cls(
            phase=JobPhase(row.phase),
            fraction=row.fraction,
            profiles_read=BigInt(row.profiles_read),
            total_profiles=BigInt(row.total_profiles),
            estimated_seconds_left=row.seconds_left,
            sequence=row.sequence,
        )


@strawberry.type(description="A stretch of time.")
class TimeSpan:
    start: datetime = strawberry.field(description="When it began.")
    end: datetime | None = strawberry.field(description="When it ended; null while it lasts.")
    total_ms: BigInt = strawberry.field(description="Its length in milliseconds.")

    @classmethod
    def of(cls, span: Mapping[str, Any]) -> Self:
        start, end = datetime.fromisoformat(span["start"]), datetime.fromisoformat(span["end"])
        return cls(start=start, end=end, total_ms=BigInt(round((end - start).total_seconds() * 1000)))


@strawberry.type(description="What went wrong in a job.")
class JobError:
    code: str = strawberry.field(description="What went wrong, for programs.")
    message: str = strawberry.field(description="What went wrong, for people.")
    definition_id: strawberry.Private[str | None]

    @resolver(description="The definition that failed; null when the whole job did, or when it is gone.")
    async def definition(
        self, info: Info
    ) -> Annotated["SegmentDefinition", strawberry.lazy("app.api.resources.definitions")] | None:
        found: SegmentDefinition | None = None
        if self.definition_id is not None:
            found = await node_type("SegmentDefinition").fetch(info.context, self.definition_id)
        return found

    @classmethod
    def of(cls, error: Mapping[str, Any], definition_id: str | None = None) -> "JobError":
        found = error.get("definition_id", definition_id)
        return cls(code=error["code"], message=error["message"], definition_id=found)


@strawberry.interface(description="What a segment job and an export job have in common.")
class Job:
    id: strawberry.ID = strawberry.field(description="Opaque global id, unique among all types.")
    job_id: str = strawberry.field(description="Raw id.")
    status: JobStatus = strawberry.field(description="How far it has come.")
    source: JobSource = strawberry.field(description="Who started it.")
    run_id: str | None = strawberry.field(description="For a scheduled job: the run of the schedule.")
    progress: JobProgress = strawberry.field(description="How far it has come, in numbers.")
    errors: list[JobError] = strawberry.field(
        description="What went wrong: in the whole job, or in single definitions."
    )
    created_by: str = strawberry.field(description="Who made it.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    started_at: datetime | None = strawberry.field(description="When a worker first took it up.")
    finished_at: datetime | None = strawberry.field(description="When it ended.")
    attempts: int = strawberry.field(description="How many times a worker took it up: more than 1 after a crash.")
    schedule_id: strawberry.Private[str | None]

    @resolver(description="For a scheduled job: the schedule that started it; null when it is gone.")
    async def schedule(
        self, info: Info
    ) -> Annotated["Schedule", strawberry.lazy("app.api.resources.schedules")] | None:
        found: Schedule | None = None
        if self.schedule_id is not None:
            found = await node_type("Schedule").fetch(info.context, self.schedule_id)
        return found


_TYPES = {JobKind.SEGMENT: "SegmentJob", JobKind.EXPORT: "ExportJob"}


def any_job(state: JobState) -> Job:
    """A job of whatever kind, as its own type."""
    found: Job = node_type(_TYPES[state.kind]).of(state.row)
    return found


def job_fields(row: Any) -> dict[str, Any]:
    """The fields of `Job` but its id, from a row of any kind of job."""
    return {
        "job_id": row.id,
        "status": JobStatus(row.status),
        "source": JobSource(row.source),
        "run_id": row.run_id,
        "progress": JobProgress.of(row),
        "errors": [JobError.of(error) for error in row.errors or ()],
        "created_by": row.created_by,
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "attempts": row.attempts,
        "schedule_id": row.schedule_id,
    }


@strawberry.input(description="An order of jobs.")
class JobOrder:
    field: JobOrderField = strawberry.field(description="What they are ordered by.")
    direction: OrderDirection = strawberry.field(description="Which end comes first.")


@strawberry.input(description="Filters of jobs of any kind; all given conditions must match.")
class JobFilter:
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="In one of these states.")
    source: list[JobSource] | None = strawberry.field(default=strawberry.UNSET, description="Started by one of these.")
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Creation time.")


def job_filter(value: JobFilter | None) -> jobs.JobFilter | None:
    if value is None or not given(value):
        return None
    return jobs.JobFilter(
        status=names(value.status), source=names(value.source), created_at=time_filter(value.created_at)
    )


@strawberry.input(description="Which segment jobs. All that is given must hold.")
class SegmentJobFilter:
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="In one of these states.")
    source: list[JobSource] | None = strawberry.field(default=strawberry.UNSET, description="Started by one of these.")
    segment_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Ran this definition: global id, or the raw `segmentId`."
    )
    schedule_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Started by this schedule: global id, or the raw `scheduleId`."
    )
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Made at such a time.")


def segment_job_filter(value: SegmentJobFilter | None) -> segment_jobs.SegmentJobFilter | None:
    """Raises `Refusal` for the id of something else."""
    if value is None or not given(value):
        return None
    return segment_jobs.SegmentJobFilter(
        status=names(value.status),
        source=names(value.source),
        segment_id=one_id("SegmentDefinition", value.segment_id, "filter", "segment_id"),
        schedule_id=one_id("Schedule", value.schedule_id, "filter", "schedule_id"),
        created_at=time_filter(value.created_at),
    )


JobFilterArgument = Annotated[SegmentJobFilter | None, strawberry.argument(description="Which of them.")]
JobId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `jobId`.")]
OrderArgument = Annotated[JobOrder | None, strawberry.argument(description="Newest first unless given.")]
AfterArgument = Annotated[
    int | None, strawberry.argument(description="Resumes: no state up to this `progress.sequence` is sent again.")
]
StatusArgument = Annotated[
    list[JobStatus] | None, strawberry.argument(description="Only jobs in these states; all unless given.")
]


AnyJobFilterArgument = Annotated[
    JobFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]


@strawberry.type
class JobQueries:
    @connection(description="The segment jobs and export jobs of the sandbox in one list.")
    async def jobs(
        self,
        info: Info,
        page: PageRequest,
        filter: AnyJobFilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[Job]:
        operation = info.context
        chosen, order = job_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(
                lambda session: jobs.page_of_all_kinds(session, operation.scope, page, chosen, order)
            ),
            any_job,
            lambda: operation.read(lambda session: jobs.count_of_all_kinds(session, operation.scope, chosen)),
        )


@strawberry.type
class JobSubscriptions:
    @subscription(description="Every job of the sandbox, of each kind, as it changes; does not complete.")
    async def jobs_updated(self, info: Info, status: StatusArgument = strawberry.UNSET) -> AsyncGenerator[Job, None]:
        services = info.context.services
        states = jobs.watch_all(services.database, services.changes, info.context.scope, names(status))
        async with aclosing(states):
            async for state in states:
                yield any_job(state)
