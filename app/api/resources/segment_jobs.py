"""Segment jobs: start, watch and cancel; with their results."""

from collections.abc import AsyncGenerator, Mapping
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
from app.api.global_ids import Node, find_id, global_id, need_id
from app.api.lists.connections import Connection, connect, connection
from app.api.lists.filters import many_ids, ordered
from app.api.lists.relations import to_many
from app.api.resources.audiences import NamespaceCount
from app.api.resources.definitions import SegmentDefinition
from app.api.resources.jobs import (
    JOB_FROM_ROW,
    AfterArgument,
    Job,
    JobError,
    JobFilterArgument,
    JobId,
    OrderArgument,
    StatusArgument,
    TimeSpan,
    job_states,
    segment_job_filter,
)
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.profiles import MembershipStatus
from app.api.scalars import BigInt, given
from app.services.jobs import watching
from app.services.jobs.segment import requests as segment_jobs
from app.services.lists.paging import PageRequest
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow


@strawberry.type(description="Number of profiles under one merge policy.")
class MergePolicyCount:
    count: BigInt = strawberry.field(description="Number of profiles.")
    merge_policy_id: strawberry.Private[str]
    job: strawberry.Private[SegmentJobRow]

    @resolver(description="Merge policy; as it was, if it has been deleted.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        current = await info.context.loaders.merge_policy.load(self.merge_policy_id)
        row = current or segment_jobs.pinned_policy(self.job, self.merge_policy_id)
        if row is None:
            raise LookupError(f"the merge policy {self.merge_policy_id} of a job is gone")
        return MergePolicy.of(row)


@strawberry.type(
    description="Where the time of one bucket of profiles went, in elapsed time. `totalMs` is more than "
    "`readingMs` and `evaluatingMs` together: memberships are read, compared and counted too."
)
class BucketTime:
    bucket: int = strawberry.field(description="Number of the bucket.")
    profiles: BigInt = strawberry.field(description="Profiles evaluated in the bucket.")
    total_ms: float = strawberry.field(description="Milliseconds from its first profile to its counts.")
    reading_ms: float = strawberry.field(description="Milliseconds spent on reading profiles and events.")
    evaluating_ms: float = strawberry.field(description="Milliseconds spent on evaluating definitions.")


@strawberry.type(
    description="Where the time of all buckets went, added up. Buckets are evaluated side by side in threads, so that "
    "the sums can be greater than the time of the job."
)
class BucketTimes:
    buckets: int = strawberry.field(description="Number of buckets measured.")
    total_ms: float = strawberry.field(description="Milliseconds of all buckets.")
    reading_ms: float = strawberry.field(description="Milliseconds spent on reading profiles and events.")
    evaluating_ms: float = strawberry.field(description="Milliseconds spent on evaluating definitions.")
    slowest: list[BucketTime] = strawberry.field(description="The slowest buckets, slowest first, at most 10.")

    @classmethod
    def of(cls, times: Mapping[str, Any]) -> Self:
        slowest = [BucketTime(**{**time, "profiles": BigInt(time["profiles"])}) for time in times["slowest"]]
        return cls(**{**times, "slowest": slowest})


@strawberry.type(description="Metrics of a segment job.")
class SegmentJobMetrics:
    total_time: TimeSpan = strawberry.field(description="Time from start to end.")
    profile_segmentation_time: TimeSpan = strawberry.field(description="Time spent on evaluation.")
    total_profiles: BigInt = strawberry.field(description="Profiles evaluated.")
    total_profiles_by_merge_policy: list[MergePolicyCount] = strawberry.field(description="The same, by merge policy.")
    unchanged_profiles: BigInt = strawberry.field(
        description="Of these, profiles that were not read because neither their data nor any definition had changed "
        "since the last run: their memberships stand."
    )
    bucket_time: BucketTimes | None = strawberry.field(
        description="Where the time went, by bucket; null where no bucket was measured, as in jobs of earlier releases."
    )

    @classmethod
    def of(cls, job: SegmentJobRow, metrics: Mapping[str, Any]) -> Self:
        return cls(
            total_time=TimeSpan.of(metrics["total_time"]),
            profile_segmentation_time=TimeSpan.of(metrics["profile_segmentation_time"]),
            total_profiles=BigInt(metrics["total_profiles"]),
            total_profiles_by_merge_policy=[
                MergePolicyCount(count=BigInt(count), merge_policy_id=id_, job=job)
                for id_, count in sorted(metrics["total_profiles_by_merge_policy"].items())
            ],
            unchanged_profiles=BigInt(metrics.get("unchanged_profiles", 0)),
            bucket_time=BucketTimes.of(times) if (times := metrics.get("bucket_time")) else None,
        )


@strawberry.type(description="Number of profiles with a status.")
class StatusCount:
    status: MembershipStatus = strawberry.field(description="Status after the job.")
    count: BigInt = strawberry.field(description="Number of profiles.")


@strawberry.type(description="A definition as a job evaluated it.")
class SegmentJobSegment:
    id: strawberry.ID = strawberry.field(
        description="Unique id of the definition's result in the job, for caches of clients."
    )
    segment_id: str = strawberry.field(description="Raw id of the definition.")
    version: int = strawberry.field(description="Version that the job evaluated.")
    expression: str = strawberry.field(description="Expression that the job evaluated, as text.")
    profile_count: BigInt | None = strawberry.field(
        description="Number of members; null before the job has succeeded, and if this definition failed."
    )
    by_namespace: list[NamespaceCount] = strawberry.field(description="Members by identity namespace.")
    by_status: list[StatusCount] = strawberry.field(description="Profiles that entered, stayed and left.")
    error: JobError | None = strawberry.field(description="Error of this definition; null if it succeeded.")
    evaluation_ms: float | None = strawberry.field(
        description="Milliseconds of elapsed time spent on evaluating this definition, added up over all "
        "buckets. What several definitions share counts for the first of them. Null before the job has succeeded, and "
        "if the definition was not evaluated, as where nothing has changed since its last run."
    )

    @resolver(description="The current definition; null if it was deleted.")
    async def definition(self, info: Info) -> SegmentDefinition | None:
        return await SegmentDefinition.fetch(info.context, self.segment_id)

    @classmethod
    def of(cls, row: SegmentJobDefinitionRow) -> Self:
        return cls(
            id=global_id("SegmentJobSegment", f"{row.job_id}:{row.definition_id}"),
            segment_id=row.definition_id,
            version=row.version,
            expression=row.expression,
            profile_count=None if row.profile_count is None else BigInt(row.profile_count),
            by_namespace=NamespaceCount.all_of(row.by_namespace),
            by_status=[
                StatusCount(status=status, count=BigInt(row.by_status[status.value]))
                for status in MembershipStatus
                if status.value in row.by_status
            ],
            error=None if row.error is None else JobError.of(row.error, row.definition_id),
            evaluation_ms=None if row.seconds is None else round(1000 * row.seconds, 3),
        )


@strawberry.type(description="Evaluates segment definitions over all profiles.")
class SegmentJob(FromRow, Node, Job):
    all_definitions: bool = strawberry.field(description="Whether it was created for all definitions.")
    evaluated_at: datetime | None = strawberry.field(
        description="The instant that `now` and `today` refer to throughout the job; null before it starts."
    )
    row: strawberry.Private[SegmentJobRow]

    @resolver(description="Metrics; null before it has succeeded.")
    async def metrics(self, info: Info) -> SegmentJobMetrics | None:
        row: SegmentJobRow | None = self.row
        if not hasattr(row, "metrics"):
            row = await info.context.loaders.segment_job.load(self.job_id)
        return None if row is None or row.metrics is None else SegmentJobMetrics.of(row, row.metrics)

    @to_many("The definitions as evaluated, with their results.", of="job_id")
    @staticmethod
    def segments(loaders: Loaders) -> Many[SegmentJobSegment]:
        return Many(loaders.segments_of_job, loaders.segment_count_of_job, SegmentJobSegment.of)

    FROM_ROW: ClassVar[RowFields] = {**JOB_FROM_ROW, "id": Column("id", partial(global_id, "SegmentJob"))}

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.segment_job.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(
    description="Either `definitionIds` or `allDefinitions: true`. "
    "The same idempotencyKey within 24 hours returns the same job."
)
class CreateSegmentJobInput:
    definition_ids: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="Definitions to evaluate, at most 1,500."
    )
    all_definitions: bool | None = strawberry.field(default=False, description="Whether to evaluate every definition.")
    idempotency_key: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Idempotency key chosen by the client: the same key within 24 hours returns the same job.",
    )


@strawberry.type(description="Result of a mutation of a segment job.")
class SegmentJobPayload:
    job: SegmentJob | None = strawberry.field(description="The job; null if rejected.")
    errors: list[UserError] = errors_field()


CreateArgument = Annotated[CreateSegmentJobInput, strawberry.argument(description="What to evaluate.")]


@strawberry.type
class SegmentJobQueries:
    @resolver(description="A segment job by its id.")
    async def segment_job(self, info: Info, id: JobId) -> SegmentJob | None:
        raw = find_id("SegmentJob", id)
        return None if raw is None else await SegmentJob.fetch(info.context, raw)

    @connection(description="The segment jobs of the sandbox.")
    async def segment_jobs(
        self,
        info: Info,
        page: PageRequest,
        filter: JobFilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[SegmentJob]:
        operation = info.context
        conditions, order = segment_job_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(
                lambda session: segment_jobs.page(session, operation.scope, page, conditions, order)
            ),
            SegmentJob.of,
            lambda: operation.read(lambda session: segment_jobs.count(session, operation.scope, conditions)),
        )


@strawberry.type
class SegmentJobMutations:
    @mutation(description="Starts a segment job. It evaluates definitions as they are when a worker claims the job.")
    async def create_segment_job(self, info: Info, input: CreateArgument) -> SegmentJobPayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> SegmentJobRow:
            ids = many_ids("SegmentDefinition", input.definition_ids, "definition_ids")
            key = given(input.idempotency_key)
            return await segment_jobs.create(
                services.database, services.clock, scope, ids, bool(input.all_definitions), key
            )

        row, errors = await attempt(info, create, "input")
        return SegmentJobPayload(job=None if row is None else SegmentJob.of(row), errors=errors)

    @mutation(description="Requests cancellation of a job; a finished or stopping job is returned unchanged.")
    async def cancel_segment_job(self, info: Info, id: JobId) -> SegmentJobPayload:
        services, scope = info.context.services, info.context.scope

        async def cancel() -> SegmentJobRow:
            return await segment_jobs.cancel(services.database, services.clock, scope, need_id("SegmentJob", id, "id"))

        row, errors = await attempt(info, cancel)
        return SegmentJobPayload(job=None if row is None else SegmentJob.of(row), errors=errors)


@strawberry.type
class SegmentJobSubscriptions:
    @subscription(
        description=(
            "The current state of a segment job, then every later state in the order "
            "of `progress.sequence`; completes after a final state."
        )
    )
    async def segment_job_updated(
        self, info: Info, id: JobId, after: AfterArgument = strawberry.UNSET
    ) -> AsyncGenerator[SegmentJob, None]:
        services, raw = info.context.services, need_id("SegmentJob", id, "id")
        states = watching.watch(
            services.database, services.changes, info.context.scope, segment_jobs.KIND, raw, given(after)
        )
        async with aclosing(states):
            async for row in states:
                info.context.event = (segment_jobs.KIND, row.id, row.sequence)
                yield SegmentJob.of(row)

    @subscription(description="Every segment job of the sandbox, whenever it changes; does not complete.")
    async def segment_jobs_updated(
        self, info: Info, status: StatusArgument = strawberry.UNSET
    ) -> AsyncGenerator[SegmentJob, None]:
        async with aclosing(job_states(info, status, segment_jobs.KIND)) as states:
            async for state in states:
                yield SegmentJob.of(state.row)
