"""Fields shared by all kinds of jobs; knows no kind."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import strawberry

from app.api.context import Info
from app.api.described import enum_value, resolver, subscription
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.global_ids import node_type
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import DateTimeFilter, OrderDirection, names, one_id, ordered, time_filter
from app.api.scalars import BigInt, given
from app.services.jobs import shared as jobs
from app.services.jobs import watching
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.storage.job_log import JobState
from app.storage.tables.jobs import FINAL, WAITING
from app.storage.tables.jobs import JobKind as QueueKind

if TYPE_CHECKING:
    from app.api.resources.definitions import SegmentDefinition
    from app.api.resources.schedules import Schedule


@strawberry.enum(
    description="Status of a job: NEW, QUEUED, PROCESSING, then SUCCEEDED or FAILED; or CANCELLING, then CANCELLED."
)
class JobStatus(Enum):
    NEW = enum_value("NEW", description="Just created.")
    QUEUED = enum_value("QUEUED", description="Waiting for a worker.")
    PROCESSING = enum_value("PROCESSING", description="Being processed.")
    SUCCEEDED = enum_value("SUCCEEDED", description="Succeeded. Single definitions may have failed: see `errors`.")
    FAILED = enum_value("FAILED", description="Failed: see `errors`.")
    CANCELLING = enum_value("CANCELLING", description="Cancellation was requested; stopping.")
    CANCELLED = enum_value("CANCELLED", description="Cancelled; none of its results are kept.")


@strawberry.enum(description="What started a job.")
class JobSource(Enum):
    API = enum_value("API", description="An API client.")
    SCHEDULER = enum_value("SCHEDULER", description="A schedule.")


@strawberry.enum(description="Phase of a job.")
class JobPhase(Enum):
    WAITING = enum_value("WAITING", description="Waiting for a worker.")
    READING = enum_value("READING", description="Updating the merged profiles.")
    EVALUATING = enum_value("EVALUATING", description="Evaluating or exporting profiles.")
    WRITING = enum_value("WRITING", description="Publishing the results.")
    DONE = enum_value("DONE", description="Finished.")


@strawberry.enum(description="Kind of a job.")
class JobKind(Enum):
    SEGMENT = enum_value("SEGMENT", description="A `SegmentJob`: evaluates audiences.")
    EXPORT = enum_value("EXPORT", description="An `ExportJob`: writes profiles to a dataset.")
    ERASURE = enum_value("ERASURE", description="An `ErasureJob`: erases a person.")


@strawberry.enum(description="Sort keys of jobs.")
class JobOrderField(Enum):
    CREATED_AT = enum_value("CREATED_AT", description="Creation time.")
    UPDATED_AT = enum_value("UPDATED_AT", description="Time of the last change.")
    FINISHED_AT = enum_value("FINISHED_AT", description="End time; unfinished jobs come as the latest.")


@strawberry.type(description="Progress of a job.")
class JobProgress(FromRow):
    phase: JobPhase = strawberry.field(description="Current phase.")
    fraction: float = strawberry.field(description="From 0 to 1; never decreases.")
    profiles_read: BigInt = strawberry.field(description="Profiles processed so far.")
    total_profiles: BigInt = strawberry.field(description="Profiles to process; 0 until known.")
    estimated_seconds_left: float | None = strawberry.field(
        description="Estimated remaining seconds, from the pace so far; null until there is one."
    )
    sequence: int = strawberry.field(description="Number of this update. A subscription resumes after it by `after`.")
    row: strawberry.Private[Any]

    @resolver(description="What a waiting job waits for: a worker, or another job; null once a worker has claimed it.")
    async def waiting_for(self, info: Info) -> str | None:
        if self.row.status not in WAITING:
            return None
        if (first := getattr(self.row, "waits_for", None)) is not None:
            job = await info.context.loaders.segment_job.load(first)
            if job is not None and job.status not in FINAL:
                return f"the segment job {first}"
        workers = await info.context.loaders.workers.load("")
        if not workers:
            return "a worker, and none is running: start `segmentation worker`"
        return f"a free place at {'the worker' if workers == 1 else f'one of {workers} workers'}"

    FROM_ROW: ClassVar[RowFields] = {
        "phase": Column("phase", JobPhase),
        "estimated_seconds_left": Column("seconds_left"),
    }


@strawberry.type(description="A time span.")
class TimeSpan:
    start: datetime = strawberry.field(description="Start.")
    end: datetime | None = strawberry.field(description="End; null until it has ended.")
    total_ms: BigInt = strawberry.field(description="Duration in milliseconds.")

    @classmethod
    def of(cls, span: Mapping[str, Any]) -> Self:
        start, end = datetime.fromisoformat(span["start"]), datetime.fromisoformat(span["end"])
        return cls(start=start, end=end, total_ms=BigInt(round((end - start).total_seconds() * 1000)))


@strawberry.type(description="An error of a job.")
class JobError:
    code: str = strawberry.field(description="Error code, for programs.")
    message: str = strawberry.field(description="What is wrong and what to do.")
    definition_id: strawberry.Private[str | None]

    @resolver(description="Definition that failed; null if the whole job failed or the definition was deleted.")
    async def definition(
        self, info: Info
    ) -> Annotated["SegmentDefinition", strawberry.lazy("app.api.resources.definitions")] | None:
        definition: SegmentDefinition | None = None
        if self.definition_id is not None:
            definition = await node_type("SegmentDefinition").fetch(info.context, self.definition_id)
        return definition

    @classmethod
    def of(cls, error: Mapping[str, Any], definition_id: str | None = None) -> "JobError":
        segment_id = error.get("definition_id", definition_id)
        return cls(code=error["code"], message=error["message"], definition_id=segment_id)


@strawberry.interface(description="Fields that all kinds of jobs share.")
class Job:
    id: strawberry.ID = strawberry.field(description="Opaque global id, unique among all types.")
    job_id: str = strawberry.field(description="Raw id.")
    status: JobStatus = strawberry.field(description="Status.")
    source: JobSource = strawberry.field(description="What started it.")
    run_id: str | None = strawberry.field(description="For a scheduled job: id of the schedule's run.")
    progress: JobProgress = strawberry.field(description="Progress.")
    errors: list[JobError] = strawberry.field(description="Errors of the whole job or of single definitions.")
    created_by: str = strawberry.field(description="Creator.")
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change.")
    started_at: datetime | None = strawberry.field(description="Time when a worker first claimed it.")
    finished_at: datetime | None = strawberry.field(description="End time.")
    attempts: int = strawberry.field(description="Number of times a worker claimed it: more than 1 after a crash.")
    schedule_id: strawberry.Private[str | None]

    @resolver(description="For a scheduled job: the schedule that started it; null if it was deleted.")
    async def schedule(
        self, info: Info
    ) -> Annotated["Schedule", strawberry.lazy("app.api.resources.schedules")] | None:
        schedule: Schedule | None = None
        if self.schedule_id is not None:
            schedule = await node_type("Schedule").fetch(info.context, self.schedule_id)
        return schedule


_TYPES = {QueueKind.SEGMENT: "SegmentJob", QueueKind.EXPORT: "ExportJob", QueueKind.ERASURE: "ErasureJob"}


def any_job(state: JobState) -> Job:
    """A job of any kind, as its own type."""
    job: Job = node_type(_TYPES[state.kind]).of(state.row)
    return job


JOB_FROM_ROW: RowFields = {
    "job_id": Column("id"),
    "status": Column("status", JobStatus),
    "source": Column("source", JobSource),
    "progress": JobProgress.of,
    "errors": lambda row: [JobError.of(error) for error in row.errors or ()],
}
"""The fields of `Job` except its id, from a row of any kind of job."""


@strawberry.input(description="Sort order of jobs.")
class JobOrder:
    field: JobOrderField = strawberry.field(description="Sort key.")
    direction: OrderDirection = strawberry.field(description="Sort direction.")


@strawberry.input(description="Filters of jobs of any kind; all given conditions must match.")
class JobFilter:
    kind: list[JobKind] | None = strawberry.field(default=strawberry.UNSET, description="Kind is one of these.")
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="State is one of these.")
    source: list[JobSource] | None = strawberry.field(default=strawberry.UNSET, description="Source is one of these.")
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Creation time.")


def job_filter(value: JobFilter | None) -> jobs.AnyJobFilter | None:
    if value is None or not given(value):
        return None
    return jobs.AnyJobFilter(
        kind=names(value.kind),
        status=names(value.status),
        source=names(value.source),
        created_at=time_filter(value.created_at),
    )


@strawberry.input(description="Filters for segment jobs; all given conditions must match.")
class SegmentJobFilter:
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="State is one of these.")
    source: list[JobSource] | None = strawberry.field(default=strawberry.UNSET, description="Source is one of these.")
    segment_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluates this definition: global id or raw `segmentId`."
    )
    schedule_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Started by this schedule: global id or raw `scheduleId`."
    )
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Creation time matches.")


def segment_job_filter(value: SegmentJobFilter | None) -> segment_jobs.SegmentJobFilter | None:
    """Raises `Refusal` for a global id of another type."""
    if value is None or not given(value):
        return None
    return segment_jobs.SegmentJobFilter(
        status=names(value.status),
        source=names(value.source),
        segment_id=one_id("SegmentDefinition", value.segment_id, "filter", "segment_id"),
        schedule_id=one_id("Schedule", value.schedule_id, "filter", "schedule_id"),
        created_at=time_filter(value.created_at),
    )


JobFilterArgument = Annotated[
    SegmentJobFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]
JobId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `jobId`.")]
OrderArgument = Annotated[JobOrder | None, strawberry.argument(description="Sort order; default newest first.")]
AfterArgument = Annotated[
    int | None,
    strawberry.argument(description="Resumes after this `progress.sequence`: earlier states are not sent again."),
]
StatusArgument = Annotated[
    list[JobStatus] | None, strawberry.argument(description="Only jobs in these states; default all.")
]


AnyJobFilterArgument = Annotated[
    JobFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]


@strawberry.type
class JobQueries:
    @connection(description="The jobs of the sandbox, of every kind, in one list.")
    async def jobs(
        self,
        info: Info,
        page: PageRequest,
        filter: AnyJobFilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[Job]:
        operation = info.context
        conditions, order = job_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(
                lambda session: jobs.page_of_all_kinds(session, operation.scope, page, conditions, order)
            ),
            any_job,
            lambda: operation.read(lambda session: jobs.count_of_all_kinds(session, operation.scope, conditions)),
        )


@strawberry.type
class JobSubscriptions:
    @subscription(description="Every job of the sandbox, of any kind, whenever it changes; does not complete.")
    async def jobs_updated(self, info: Info, status: StatusArgument = strawberry.UNSET) -> AsyncGenerator[Job, None]:
        async with aclosing(job_states(info, status)) as states:
            async for state in states:
                yield any_job(state)


async def job_states(
    info: Info, status: list[JobStatus] | None, kind: QueueKind | None = None
) -> AsyncGenerator[JobState, None]:
    """Every later state of the jobs of the sandbox in these states, of one kind or all."""
    services = info.context.services
    states = watching.watch_all(services.database, services.changes, info.context.scope, names(status), kind)
    async with aclosing(states):
        async for state in states:
            info.context.event = (state.kind, state.row.id, state.row.sequence)
            yield state
