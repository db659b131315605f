"""Previews: expressions evaluated on a sample, with an estimate that is refined while the sample is read."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self

import strawberry

from app.api.context import Info, Operation
from app.api.described import enum_value, mutation, resolver, subscription
from app.api.errors import UserError, attempt, errors_field
from app.api.global_ids import Node, find_id, global_id, need_id, split_id
from app.api.lists.connections import Connection, LongConnection, connect, connect_long, connection
from app.api.lists.filters import one_id, one_name
from app.api.resources.audiences import NamespaceCount
from app.api.resources.compare import ConfidenceInterval
from app.api.resources.definition_writes import LimitInput, limit_of
from app.api.resources.definitions import Limit
from app.api.resources.merge_policies import GraphType, MergePolicy
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.resources.profiles import Profile
from app.api.scalars import BigInt, given
from app.engine.people.profiles import Person
from app.engine.run.sampling import LEVEL
from app.services.jobs.preview import requests as previews
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Who
from app.storage.tables.jobs import JobStatus
from app.storage.tables.merge_policies import IdentityGraph
from app.storage.tables.previews import PreviewRow


@strawberry.enum(description="Status of an estimate: NEW, RUNNING, then RESULT_READY, FAILED or CANCELLED.")
class EstimateState(Enum):
    NEW = enum_value("NEW", description="Waiting for a worker.")
    RUNNING = enum_value("RUNNING", description="The sample is being read; the figures refine.")
    RESULT_READY = enum_value("RESULT_READY", description="The whole sample has been read.")
    FAILED = enum_value("FAILED", description="Failed: see `error`.")
    CANCELLED = enum_value("CANCELLED", description="Cancelled; the figures are those of that moment.")


@strawberry.type(
    description="Estimated number of profiles that match an expression, from the part of the sample that has been read."
)
class Estimate(Node):
    preview_id: str = strawberry.field(description="Raw id; the same as that of the preview.")
    state: EstimateState = strawberry.field(description="Status.")
    estimated_size: BigInt | None = strawberry.field(
        description=(
            "Estimated number of matching profiles; null before anything has been read, exact once all profiles have."
        )
    )
    num_rows_to_read: BigInt = strawberry.field(
        description=(
            "Size of the sample: all profiles below 1 million, 1 million up to 20 million, 5% "
            "above that, rounded up to whole buckets; 0 until it is drawn."
        )
    )
    profiles_read_so_far: BigInt = strawberry.field(description="Profiles of the sample that have been read.")
    profiles_matched_so_far: BigInt = strawberry.field(description="Those that match.")
    total_rows: BigInt = strawberry.field(description="All profiles; 0 until they are counted.")
    standard_error: float | None = strawberry.field(
        description="Standard error of `estimatedSize`, in profiles; 0 once all have been read."
    )
    confidence_interval: ConfidenceInterval | None = strawberry.field(
        description="95% confidence interval of the size; null before anything has been read."
    )
    estimated_namespace_distribution: list[NamespaceCount] = strawberry.field(
        description="Number of matching profiles with an identity in each namespace."
    )
    error: str | None = strawberry.field(description="Why it failed, and what to do.")
    sequence: int = strawberry.field(description="Number of this update. A subscription resumes after it by `after`.")

    @classmethod
    def of(cls, row: PreviewRow) -> Self:
        figures = previews.figures(row)
        return cls(
            id=global_id("Estimate", row.id),
            preview_id=row.id,
            state=_state(row),
            estimated_size=None if figures is None else BigInt(figures.size),
            num_rows_to_read=BigInt(row.rows_to_read),
            profiles_read_so_far=BigInt(row.profiles_read),
            profiles_matched_so_far=BigInt(row.profiles_matched),
            total_rows=BigInt(row.total_profiles),
            standard_error=None if figures is None else figures.standard_error,
            confidence_interval=None
            if figures is None
            else ConfidenceInterval(level=LEVEL, low=BigInt(figures.low), high=BigInt(figures.high)),
            estimated_namespace_distribution=NamespaceCount.all_of(row.by_namespace),
            error="; ".join(error["message"] for error in row.errors) or None,
            sequence=row.sequence,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.preview.load(raw)
        return None if row is None else cls.of(row)


@strawberry.type(description="An expression evaluated on a sample of the profiles, before anything is stored.")
class Preview(Node):
    preview_id: str = strawberry.field(description="Raw id.")
    state: EstimateState = strawberry.field(description="Status.")
    expression: str = strawberry.field(description="The expression, as text.")
    graph_type: GraphType = strawberry.field(description="How fragments are joined into one person.")
    exclude_opt_out: bool = strawberry.field(description="Whether profiles that opted out are excluded.")
    limit: Limit | None = strawberry.field(description="Where only the first profiles by a value are kept.")
    created_at: datetime = strawberry.field(description="Creation time.")
    row: strawberry.Private[Any]

    @resolver(description="Merge policy; as it was, if it has been deleted.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        policy = previews.policy_of(self.row)
        return MergePolicy.of(await info.context.loaders.merge_policy.load(policy.id) or policy)

    @resolver(description="Estimated number of matching profiles, from the part of the sample that has been read.")
    def estimate(self) -> Estimate:
        return Estimate.of(self.row)

    @connection(
        description=(
            "Matching profiles from the part of the sample that has been read, with their current attributes; more "
            "are appended as reading continues. With a limit those that it keeps, once all have been read."
        )
    )
    async def profiles(self, info: Info, page: PageRequest) -> LongConnection[Profile]:
        operation = info.context
        lake, scope, loaders = operation.services.lake, operation.scope, operation.loaders
        people = loaders.by_rule(previews.rule_of(self.row))

        async def load() -> Slice[tuple[Who, Person]]:
            buckets = await loaders.buckets_of_preview.load(self.preview_id)
            return await previews.people_page(lake, scope, people.profiles, buckets, page)

        async def count() -> int:
            return previews.people_count(await loaders.buckets_of_preview.load(self.preview_id))

        return await connect_long(info, load, lambda found: Profile.of(*found, loaders=people), count)

    @classmethod
    def of(cls, row: PreviewRow) -> Self:
        return cls(
            id=global_id("Preview", row.id),
            preview_id=row.id,
            state=_state(row),
            expression=row.expression,
            graph_type=GraphType(row.graph_type),
            exclude_opt_out=row.exclude_opt_out,
            limit=None if row.kept is None else Limit.of(row.kept),
            created_at=row.created_at,
            row=row,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.preview.load(raw)
        return None if row is None else cls.of(row)


def _state(row: PreviewRow) -> EstimateState:
    return EstimateState(previews.STATES[JobStatus(row.status)])


@strawberry.input(description="The expression to preview.")
class CreatePreviewInput:
    expression: str = strawberry.field(description="Condition in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="Format of the expression."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Merge policy; default the sandbox's default policy."
    )
    graph_type: GraphType | None = strawberry.field(
        default=GraphType.NONE,
        description="PDG joins linked fragments regardless of the merge policy; NONE follows the merge policy.",
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=True, description="Whether profiles that opted out are excluded."
    )
    limit: LimitInput | None = strawberry.field(
        default=strawberry.UNSET,
        description="Keeps only the first profiles by a value: exactly where all profiles are read, else their part of "
        "the sample.",
    )


@strawberry.type(description="Result of a mutation of a preview.")
class PreviewPayload:
    preview: Preview | None = strawberry.field(description="The preview; null if rejected.")
    errors: list[UserError] = errors_field()


PreviewId = Annotated[strawberry.ID, strawberry.argument(description="Global id or raw `previewId`.")]
EstimateId = Annotated[
    strawberry.ID,
    strawberry.argument(description="Global id of the estimate or of its preview, or raw `previewId`."),
]
CreateArgument = Annotated[CreatePreviewInput, strawberry.argument(description="The expression to preview.")]
AfterArgument = Annotated[
    int | None, strawberry.argument(description="Resumes after this `sequence`: earlier states are not sent again.")
]


def _either(id: str) -> str:
    """The type of the id in an estimate query: an estimate has the same raw id as its preview."""
    return "Preview" if split_id(id)[0] == "Preview" else "Estimate"


@strawberry.type
class PreviewQueries:
    @resolver(description="A preview by its id; previews are deleted after some days.")
    async def preview(self, info: Info, id: PreviewId) -> Preview | None:
        raw = find_id("Preview", id)
        return None if raw is None else await Preview.fetch(info.context, raw)

    @connection(description="The previews of the sandbox, newest first; they are deleted after some days.")
    async def previews(self, info: Info, page: PageRequest) -> Connection[Preview]:
        operation = info.context
        return await connect(
            info,
            lambda: operation.read(lambda session: previews.page(session, operation.scope, page)),
            Preview.of,
            lambda: operation.read(lambda session: previews.count(session, operation.scope)),
        )

    @resolver(description="The estimate of a preview.")
    async def estimate(self, info: Info, id: EstimateId) -> Estimate | None:
        raw = find_id(_either(id), id)
        return None if raw is None else await Estimate.fetch(info.context, raw)


@strawberry.type
class PreviewMutations:
    @mutation(description="Creates a preview: evaluates an expression on a sample of the current profiles.")
    async def create_preview(self, info: Info, input: CreateArgument) -> PreviewPayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> PreviewRow:
            new = previews.NewPreview(
                expression=input.expression,
                format=service_format(input.format),
                merge_policy_id=one_id("MergePolicy", input.merge_policy_id, "merge_policy_id"),
                graph_type=IdentityGraph(one_name(input.graph_type) or "NONE"),
                exclude_opt_out=given(input.exclude_opt_out) is not False,
                limit=limit_of(input.limit),
            )
            return await previews.create(services.database, services.lake, services.clock, scope, new)

        row, errors = await attempt(info, create, "input")
        return PreviewPayload(preview=None if row is None else Preview.of(row), errors=errors)

    @mutation(description="Cancels a preview; a cancelled one is returned unchanged.")
    async def cancel_preview(self, info: Info, id: PreviewId) -> PreviewPayload:
        services, scope = info.context.services, info.context.scope

        async def cancel() -> PreviewRow:
            return await previews.cancel(services.database, services.clock, scope, need_id("Preview", id, "id"))

        row, errors = await attempt(info, cancel)
        return PreviewPayload(preview=None if row is None else Preview.of(row), errors=errors)


@strawberry.type
class PreviewSubscriptions:
    @subscription(
        description=(
            "The current state of an estimate, then every later state in the "
            "order of `sequence`; completes after a final state."
        )
    )
    async def estimate_updated(
        self, info: Info, id: EstimateId, after: AfterArgument = strawberry.UNSET
    ) -> AsyncGenerator[Estimate, None]:
        services, raw = info.context.services, need_id(_either(id), id, "id")
        states = previews.watch(services.database, services.changes, info.context.scope, raw, given(after))
        async with aclosing(states):
            async for row in states:
                info.context.event = (previews.KIND, row.id, row.sequence)
                yield Estimate.of(row)
