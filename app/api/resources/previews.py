"""Previews: expressions tried on a sample, with an estimate that refines while it is read."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Self

import strawberry

from app.api.connections import Connection, LongConnection, connect, connect_long, connection
from app.api.context import Info, Operation
from app.api.described import enum_value, mutation, resolver, subscription
from app.api.errors import UserError, attempt, errors_field
from app.api.filters import one_id, one_name
from app.api.global_ids import Node, find_id, global_id, need_id, split_id
from app.api.resources.audiences import NamespaceCount
from app.api.resources.merge_policies import GraphType, MergePolicy
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.resources.profiles import Profile
from app.api.scalars import BigInt, given
from app.engine.people.profiles import Person
from app.engine.run.sampling import LEVEL
from app.services.jobs.preview import requests as previews
from app.services.lists.paging import PageRequest, Slice
from app.services.people.profiles import Who
from app.storage.tables.jobs import JobStatus
from app.storage.tables.previews import PreviewRow


@strawberry.enum(description="How far an estimate has come: NEW, RUNNING, then RESULT_READY or FAILED; or CANCELLED.")
class EstimateState(Enum):
    NEW = enum_value("NEW", description="Waiting to be read.")
    RUNNING = enum_value("RUNNING", description="The sample is being read; the figures refine.")
    RESULT_READY = enum_value("RESULT_READY", description="The whole sample has been read.")
    FAILED = enum_value("FAILED", description="Given up: see `error`.")
    CANCELLED = enum_value("CANCELLED", description="Stopped on request; the figures are those of that moment.")


@strawberry.type(description="Where the true size lies, at a level of confidence.")
class ConfidenceInterval:
    level: float = strawberry.field(description="How often such intervals have the true size: 0.95.")
    low: BigInt = strawberry.field(description="The smallest size that is in it.")
    high: BigInt = strawberry.field(description="The largest size that is in it.")


@strawberry.type(description="How many people an expression catches, as far as the sample has been read.")
class Estimate(Node):
    preview_id: str = strawberry.field(description="Raw id, that of the preview.")
    state: EstimateState = strawberry.field(description="How far it has come.")
    estimated_size: BigInt | None = strawberry.field(
        description="How many of all people qualify; null while nothing has been read, exact once everybody has."
    )
    num_rows_to_read: BigInt = strawberry.field(
        description="Size of the sample: everybody below 1 million people, 1 million up to 20 million, 5% above, "
        "rounded up to whole buckets; 0 until it is drawn."
    )
    profiles_read_so_far: BigInt = strawberry.field(description="People of the sample that have been read.")
    profiles_matched_so_far: BigInt = strawberry.field(description="Those of them who qualify.")
    total_rows: BigInt = strawberry.field(description="All people; 0 until they are counted.")
    standard_error: float | None = strawberry.field(
        description="Standard error of `estimatedSize`, in people; 0 once everybody has been read."
    )
    confidence_interval: ConfidenceInterval | None = strawberry.field(
        description="The 95% interval of the size; null while nothing has been read."
    )
    estimated_namespace_distribution: list[NamespaceCount] = strawberry.field(
        description="Of `profilesMatchedSoFar`, how many have an identity in each namespace."
    )
    error: str | None = strawberry.field(description="Why it failed, and what to do.")
    sequence: int = strawberry.field(
        description="Number of this state. A subscription resumes after one by its `after`."
    )

    @classmethod
    def of(cls, row: PreviewRow) -> Self:
        found = previews.figures(row)
        return cls(
            id=global_id("Estimate", row.id),
            preview_id=row.id,
            state=_state(row),
            estimated_size=None if found is None else BigInt(found.size),
            num_rows_to_read=BigInt(row.rows_to_read),
            profiles_read_so_far=BigInt(row.profiles_read),
            profiles_matched_so_far=BigInt(row.profiles_matched),
            total_rows=BigInt(row.total_profiles),
            standard_error=None if found is None else found.standard_error,
            confidence_interval=None
            if found is None
            else ConfidenceInterval(level=LEVEL, low=BigInt(found.low), high=BigInt(found.high)),
            estimated_namespace_distribution=NamespaceCount.all_of(row.by_namespace),
            error="; ".join(error["message"] for error in row.errors) or None,
            sequence=row.sequence,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.preview.load(raw)
        return None if row is None else cls.of(row)


@strawberry.type(description="An expression tried on a sample of the people, before anything is stored.")
class Preview(Node):
    preview_id: str = strawberry.field(description="Raw id.")
    state: EstimateState = strawberry.field(description="How far it has come.")
    expression: str = strawberry.field(description="The expression, as text.")
    graph_type: GraphType = strawberry.field(description="Which fragments were taken for one person.")
    exclude_opt_out: bool = strawberry.field(description="Whether people who opted out never qualify.")
    created_at: datetime = strawberry.field(description="When it was made.")
    row: strawberry.Private[Any]

    @resolver(description="How people are merged; as it was then, should the policy be gone.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        kept = previews.policy_of(self.row)
        return MergePolicy.of(await info.context.loaders.merge_policy.load(kept.id) or kept)

    @resolver(description="How many people it catches, as far as the sample has been read.")
    def estimate(self) -> Estimate:
        return Estimate.of(self.row)

    @connection(
        description="Qualifying people of the sample, as far as it has been read, as they are now; "
        "more are appended while it is read.",
        backward=False,
    )
    async def profiles(self, info: Info, page: PageRequest) -> LongConnection[Profile]:
        operation = info.context
        lake, scope, loaders = operation.services.lake, operation.scope, operation.loaders
        people = loaders.by_rule(previews.rule_of(self.row))

        async def load() -> Slice[tuple[Who, Person]]:
            read = await loaders.buckets_of_preview.load(self.preview_id)
            return await previews.people_page(lake, scope, people.profiles, read, page)

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
            created_at=row.created_at,
            row=row,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.preview.load(raw)
        return None if row is None else cls.of(row)


def _state(row: PreviewRow) -> EstimateState:
    return EstimateState(previews.STATES[JobStatus(row.status)])


@strawberry.input(description="An expression to try.")
class CreatePreviewInput:
    expression: str = strawberry.field(description="Who is to be caught, in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="How the expression is written."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="How people are merged; the default policy unless given."
    )
    graph_type: GraphType | None = strawberry.field(
        default=GraphType.NONE,
        description="PDG takes linked fragments for one person whatever the merge policy says; NONE does as it says.",
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=True, description="Whether people who opted out never qualify, as for a definition."
    )


@strawberry.type(description="Outcome of a change to a preview.")
class PreviewPayload:
    preview: Preview | None = strawberry.field(description="The preview; null when it was refused.")
    errors: list[UserError] = errors_field()


PreviewId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `previewId`.")]
EstimateId = Annotated[
    strawberry.ID,
    strawberry.argument(description="Global id of the estimate or of its preview, or the raw `previewId`."),
]
CreateArgument = Annotated[CreatePreviewInput, strawberry.argument(description="What is to be tried.")]
AfterArgument = Annotated[
    int | None, strawberry.argument(description="Resumes: no state up to this `sequence` is sent again.")
]


def _either(id: str) -> str:
    """The type whose id an estimate is asked for by: it has the same raw id as its preview."""
    return "Preview" if split_id(id)[0] == "Preview" else "Estimate"


@strawberry.type
class PreviewQueries:
    @resolver(description="A preview by its id; previews are kept for some days.")
    async def preview(self, info: Info, id: PreviewId) -> Preview | None:
        raw = find_id("Preview", id)
        return None if raw is None else await Preview.fetch(info.context, raw)

    @connection(description="The previews of the sandbox, newest first; they are kept for some days.")
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
    @mutation(description="Tries an expression on a sample of the people as they are now.")
    async def create_preview(self, info: Info, input: CreateArgument) -> PreviewPayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> PreviewRow:
            new = previews.NewPreview(
                expression=input.expression,
                format=service_format(input.format),
                merge_policy_id=one_id("MergePolicy", input.merge_policy_id, "merge_policy_id"),
                graph_type=one_name(input.graph_type) or "NONE",
                exclude_opt_out=given(input.exclude_opt_out) is not False,
            )
            return await previews.create(services.database, services.lake, services.clock, scope, new)

        row, errors = await attempt(info, create, "input")
        return PreviewPayload(preview=None if row is None else Preview.of(row), errors=errors)

    @mutation(description="Ends a preview at once; a cancelled one is returned as it is.")
    async def cancel_preview(self, info: Info, id: PreviewId) -> PreviewPayload:
        services, scope = info.context.services, info.context.scope

        async def cancel() -> PreviewRow:
            return await previews.cancel(services.database, services.clock, scope, need_id("Preview", id, "id"))

        row, errors = await attempt(info, cancel)
        return PreviewPayload(preview=None if row is None else Preview.of(row), errors=errors)


@strawberry.type
class PreviewSubscriptions:
    @subscription(
        description="The present state of an estimate at once, then every later one in the order of `sequence`; "
        "completes after a final one."
    )
    async def estimate_updated(
        self, info: Info, id: EstimateId, after: AfterArgument = strawberry.UNSET
    ) -> AsyncGenerator[Estimate, None]:
        services, raw = info.context.services, need_id(_either(id), id, "id")
        states = previews.watch(services.database, services.changes, info.context.scope, raw, given(after))
        async with aclosing(states):
            async for row in states:
                yield Estimate.of(row)
