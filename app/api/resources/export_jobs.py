"""Export jobs: start, watch and cancel; with the batches they wrote."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Self

import strawberry

from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import mutation, resolver, subscription
from app.api.errors import UserError, attempt, errors_field
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.relation import Many
from app.api.global_ids import Node, find_id, global_id, need_id, split_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import DateTimeFilter, names, one_id, ordered, time_filter
from app.api.lists.relations import to_many
from app.api.resources.audiences import NamespaceCount
from app.api.resources.datasets import Batch, Dataset
from app.api.resources.export_spec import ExportEvents, ExportFilter
from app.api.resources.jobs import (
    JOB_FROM_ROW,
    AfterArgument,
    Job,
    JobId,
    JobSource,
    JobStatus,
    OrderArgument,
    StatusArgument,
    TimeSpan,
    job_states,
)
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.profiles import MembershipStatus
from app.api.resources.segment_jobs import SegmentJob
from app.api.scalars import BigInt, given
from app.errors import ErrorCode, Refusal
from app.services.jobs import watching
from app.services.jobs.export import input as export_input
from app.services.jobs.export import requests as export_jobs
from app.services.lists.paging import PageRequest
from app.storage.tables.export_jobs import ExportJobRow


@strawberry.type(description="Metrics of an export.")
class ExportJobMetrics:
    total_time: TimeSpan = strawberry.field(description="Time from start to end.")
    profile_export_time: TimeSpan = strawberry.field(description="Time spent reading and writing profiles.")
    total_exported_profiles: BigInt = strawberry.field(
        description="Number of profiles written, each counted once even if it is in several batches."
    )
    exported_profiles_by_namespace: list[NamespaceCount] = strawberry.field(
        description="Those profiles, by identity namespace."
    )

    @classmethod
    def of(cls, metrics: Mapping[str, Any]) -> Self:
        return cls(
            total_time=TimeSpan.of(metrics["total_time"]),
            profile_export_time=TimeSpan.of(metrics["profile_export_time"]),
            total_exported_profiles=BigInt(metrics["total_exported_profiles"]),
            exported_profiles_by_namespace=NamespaceCount.all_of(metrics["exported_profiles_by_namespace"]),
        )


@strawberry.type(description="Writes profiles to a dataset.")
class ExportJob(FromRow, Node, Job):
    fields: list[str] = strawberry.field(description="Paths of the attributes that are written; empty for all.")
    filter: ExportFilter | None = strawberry.field(description="Filter of profiles; null for all.")
    additional_fields: ExportEvents | None = strawberry.field(description="Events; null for none.")
    schema_name: str = strawberry.field(description="Name of the profile schema.")
    segment_per_batch: bool = strawberry.field(
        description="Whether each segment becomes a batch of its own; otherwise one batch holds all."
    )
    evaluate_first: bool = strawberry.field(description="Whether the segments are evaluated first.")
    metrics: ExportJobMetrics | None = strawberry.field(description="Metrics; null before it has succeeded.")
    row: strawberry.Private[ExportJobRow]

    @resolver(description="Merge policy; as it was, if it has been deleted.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        policy = await MergePolicy.fetch(info.context, self.row.merge_policy_id)
        return policy or MergePolicy.of(export_jobs.policy_of(self.row))

    @resolver(description="Dataset that the profiles are written to.")
    async def destination(self, info: Info) -> Dataset:
        dataset = await Dataset.fetch(info.context, self.row.destination_id)
        if dataset is None:
            raise LookupError(f"the dataset {self.row.destination_id} of an export is gone")
        return dataset

    @resolver(description="Segment job that it waits for; null if nothing is evaluated first.")
    async def evaluation(self, info: Info) -> SegmentJob | None:
        return None if self.row.waits_for is None else await SegmentJob.fetch(info.context, self.row.waits_for)

    @to_many("Batches that it wrote, in the order of its segments; empty before it has succeeded.", of="job_id")
    @staticmethod
    def batches(loaders: Loaders) -> Many[Batch]:
        return Many(loaders.batches_of_export, loaders.batch_count_of_export, Batch.of)

    FROM_ROW: ClassVar[RowFields] = {
        **JOB_FROM_ROW,
        "id": Column("id", partial(global_id, "ExportJob")),
        "filter": Column("filter", ExportFilter.of_json),
        "additional_fields": Column("additional_fields", ExportEvents.of_json),
        "metrics": lambda row: None if row.metrics is None else ExportJobMetrics.of(row.metrics),
    }

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.export_job.load(raw)
        return None if row is None else cls.of(row)


# ---------------------------------------------------------------- inputs


@strawberry.input(description="A segment whose members are written.")
class ExportSegmentInput:
    segment_id: strawberry.ID = strawberry.field(description="Global id of the audience, or its raw `audienceId`.")
    namespace: str | None = strawberry.field(
        default=strawberry.UNSET, description="Namespace of the audience; needed when several have that `audienceId`."
    )
    status: list[MembershipStatus] | None = strawberry.field(
        default_factory=lambda: [MembershipStatus.REALIZED, MembershipStatus.EXISTING],
        description="Membership statuses to include.",
    )


@strawberry.input(description="A time range, both ends included. An omitted end is unbounded.")
class TimeRangeInput:
    start: datetime | None = strawberry.field(default=strawberry.UNSET, description="Start.")
    end: datetime | None = strawberry.field(default=strawberry.UNSET, description="End.")


@strawberry.input(description="Which profiles are written; all given conditions must match.")
class ExportFilterInput:
    segments: list[ExportSegmentInput] | None = strawberry.field(
        default=strawberry.UNSET, description="Members of one of these segments, at most 1,500; default all profiles."
    )
    segment_qualification_time: TimeRangeInput | None = strawberry.field(
        default=strawberry.UNSET, description="Last entered one of the segments in this time range."
    )
    from_ingest_timestamp: datetime | None = strawberry.field(
        default=strawberry.UNSET, description="Have records or events ingested at this time or later."
    )
    empty_profiles: bool | None = strawberry.field(
        default=False,
        description="Whether to include people with events but no record. Members of `segments` are always included, "
        "and without any filter all people are.",
    )


@strawberry.input(description="Events to write with each profile, oldest first.")
class ExportEventsInput:
    fields: list[str] | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "Paths within an event, for example `commerce.order.total`; default all. The timestamp is always written."
        ),
    )
    from_: datetime | None = strawberry.field(
        default=strawberry.UNSET, name="from", description="Ingested at this time or later."
    )
    to: datetime | None = strawberry.field(default=strawberry.UNSET, description="Ingested at this time or earlier.")


@strawberry.input(description="Destination of an export.")
class ExportDestinationInput:
    dataset_id: strawberry.ID = strawberry.field(description="Dataset of kind EXPORT.")
    segment_per_batch: bool | None = strawberry.field(
        default=False, description="Whether each segment becomes a batch of its own; otherwise one batch holds all."
    )


@strawberry.input(description="The export to run. The same `idempotencyKey` within 24 hours returns the same job.")
class CreateExportJobInput:
    fields: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Paths of attributes, for example `homeAddress.city`; default all."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description="Merge policy; default that of the segments, else the sandbox's default policy.",
    )
    filter: ExportFilterInput | None = strawberry.field(
        default=strawberry.UNSET, description="Which profiles; default all."
    )
    additional_fields: ExportEventsInput | None = strawberry.field(
        default=strawberry.UNSET, description="Events to write with each profile; default none."
    )
    destination: ExportDestinationInput = strawberry.field(description="Destination.")
    schema_name: str = strawberry.field(description="Schema of a profile: `_xdm.context.profile`.")
    evaluate_first: bool | None = strawberry.field(
        default=False, description="Whether to evaluate the segments (all, if none is named) first."
    )
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Idempotency key chosen by the client: the same key within 24 hours returns the same job.",
    )

    def as_new(self, *path: str) -> export_input.NewExport:
        """Raises `Refusal` for a global id of another type; `path` leads to this input."""
        events = given(self.additional_fields)
        policy = one_id("MergePolicy", self.merge_policy_id, *path, "merge_policy_id")
        return export_input.NewExport(
            destination_id=need_id("Dataset", self.destination.dataset_id, *path, "destination", "dataset_id"),
            schema_name=self.schema_name,
            fields=tuple(given(self.fields) or ()),
            merge_policy_id=policy,
            filter=_filter(given(self.filter), path),
            additional_fields=events
            and export_input.ExportEvents(
                tuple(given(events.fields) or ()), export_input.TimeRange(given(events.from_), given(events.to))
            ),
            segment_per_batch=bool(self.destination.segment_per_batch),
            evaluate_first=bool(self.evaluate_first),
        )


def _filter(filter: ExportFilterInput | None, path: Sequence[str]) -> export_input.ExportFilter | None:
    if filter is None:
        return None
    time = given(filter.segment_qualification_time)
    segments = tuple(
        export_input.ExportSegment(
            _audience_id(segment.segment_id, *path, "filter", "segments", str(at), "segment_id"),
            given(segment.namespace),
            names(segment.status) or (),
        )
        for at, segment in enumerate(given(filter.segments) or ())
    )
    return export_input.ExportFilter(
        segments,
        export_input.TimeRange(given(time.start), given(time.end)) if time else export_input.TimeRange(),
        given(filter.from_ingest_timestamp),
        bool(filter.empty_profiles),
    )


def _audience_id(value: str, *path: str) -> str:
    """The raw id of an audience, or of the definition with the same id. Raises `Refusal`."""
    name, raw = split_id(value)
    if name in (None, "Audience", "SegmentDefinition"):
        return raw
    message = f"{value!r} is the id of an object of type {name}, but one of an audience is asked for"
    raise Refusal(ErrorCode.NOT_FOUND, message, path)


@strawberry.input(description="Filters for export jobs; all given conditions must match.")
class ExportJobFilter:
    status: list[JobStatus] | None = strawberry.field(default=strawberry.UNSET, description="State is one of these.")
    source: list[JobSource] | None = strawberry.field(default=strawberry.UNSET, description="Source is one of these.")
    segment_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Includes this audience: global id or raw `audienceId`."
    )
    schedule_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Started by this schedule: global id or raw `scheduleId`."
    )
    destination_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Writes to this dataset: global id or raw `datasetId`."
    )
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Creation time matches.")


def export_job_filter(value: ExportJobFilter | None) -> export_jobs.ExportJobFilter | None:
    """Raises `Refusal` for a global id of another type."""
    if value is None or not given(value):
        return None
    segment = given(value.segment_id)
    return export_jobs.ExportJobFilter(
        status=names(value.status),
        source=names(value.source),
        created_at=time_filter(value.created_at),
        segment_id=None if segment is None else _audience_id(segment, "filter", "segment_id"),
        schedule_id=one_id("Schedule", value.schedule_id, "filter", "schedule_id"),
        destination_id=one_id("Dataset", value.destination_id, "filter", "destination_id"),
    )


@strawberry.type(description="Result of a mutation of an export job.")
class ExportJobPayload:
    job: ExportJob | None = strawberry.field(description="The job; null if rejected.")
    errors: list[UserError] = errors_field()


# ---------------------------------------------------------------- operations

FilterArgument = Annotated[
    ExportJobFilter | None, strawberry.argument(description="Filters; all given conditions must match.")
]
CreateArgument = Annotated[CreateExportJobInput, strawberry.argument(description="What to export.")]


@strawberry.type
class ExportJobQueries:
    @resolver(description="An export job by its id.")
    async def export_job(self, info: Info, id: JobId) -> ExportJob | None:
        raw = find_id("ExportJob", id)
        return None if raw is None else await ExportJob.fetch(info.context, raw)

    @connection(description="The export jobs of the sandbox.")
    async def export_jobs(
        self,
        info: Info,
        page: PageRequest,
        filter: FilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[ExportJob]:
        operation = info.context
        conditions, order = export_job_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(lambda session: export_jobs.page(session, operation.scope, page, conditions, order)),
            ExportJob.of,
            lambda: operation.read(lambda session: export_jobs.count(session, operation.scope, conditions)),
        )


@strawberry.type
class ExportJobMutations:
    @mutation(description="Starts an export of profiles to a dataset: all batches become visible, or none.")
    async def create_export_job(self, info: Info, input: CreateArgument) -> ExportJobPayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> ExportJobRow:
            key = given(input.idempotency_key)
            return await export_jobs.create(
                services.database, services.lake, services.clock, scope, input.as_new(), key
            )

        row, errors = await attempt(info, create, "input")
        return ExportJobPayload(job=None if row is None else ExportJob.of(row), errors=errors)

    @mutation(
        description=(
            "Requests cancellation of an export job, and of the segment job that it waits for; none of "
            "its results are kept. A finished or stopping job is returned unchanged."
        )
    )
    async def cancel_export_job(self, info: Info, id: JobId) -> ExportJobPayload:
        services, scope = info.context.services, info.context.scope

        async def cancel() -> ExportJobRow:
            return await export_jobs.cancel(services.database, services.clock, scope, need_id("ExportJob", id, "id"))

        row, errors = await attempt(info, cancel)
        return ExportJobPayload(job=None if row is None else ExportJob.of(row), errors=errors)


@strawberry.type
class ExportJobSubscriptions:
    @subscription(
        description=(
            "The current state of an export job, then every later state in the order "
            "of `progress.sequence`; completes after a final state."
        )
    )
    async def export_job_updated(
        self, info: Info, id: JobId, after: AfterArgument = strawberry.UNSET
    ) -> AsyncGenerator[ExportJob, None]:
        services, raw = info.context.services, need_id("ExportJob", id, "id")
        states = watching.watch(
            services.database, services.changes, info.context.scope, export_jobs.KIND, raw, given(after)
        )
        async with aclosing(states):
            async for row in states:
                info.context.event = (export_jobs.KIND, row.id, row.sequence)
                yield ExportJob.of(row)

    @subscription(description="Every export job of the sandbox, whenever it changes; does not complete.")
    async def export_jobs_updated(
        self, info: Info, status: StatusArgument = strawberry.UNSET
    ) -> AsyncGenerator[ExportJob, None]:
        async with aclosing(job_states(info, status, export_jobs.KIND)) as states:
            async for state in states:
                yield ExportJob.of(state.row)
