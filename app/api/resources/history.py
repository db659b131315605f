"""The history of an audience: size over time, entries and exits, versions of its definition."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Self

import strawberry

from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import resolver, subscription
from app.api.errors import user_error
from app.api.execution.relation import Many
from app.api.global_ids import need_id, node_type
from app.api.lists.relations import to_many
from app.api.resources.compare import Comparison
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.resources.profiles import MembershipStatus, Profile
from app.api.scalars import BigInt, given
from app.errors import ErrorCode, Refusal
from app.services.evaluation.expressions import ExpressionFormat as ServiceFormat
from app.services.evaluation.expressions import convert_expression
from app.services.evaluation.heads import Heads
from app.services.insight import changes, moments
from app.services.insight.history import Period
from app.services.people.profiles import ProfileReader
from app.storage.tables.definitions import DefinitionVersionRow
from app.storage.tables.membership_changes import MembershipChangeRow

if TYPE_CHECKING:
    from app.api.resources.audiences import Audience
    from app.api.resources.segment_jobs import SegmentJob

MOST_WATCHED = 100


@strawberry.type(description="The size of an audience after something changed its members.")
class AudiencePoint:
    at: datetime = strawberry.field(description="When the members changed.")
    total_profiles: BigInt = strawberry.field(description="Members after it.")
    entered: BigInt = strawberry.field(description="Profiles that entered.")
    exited: BigInt = strawberry.field(description="Profiles that left.")
    version: int = strawberry.field(
        description="Version of the definition that was evaluated; 0 for an external audience."
    )
    job_id: strawberry.Private[str | None]

    @resolver(description="The job that evaluated it; null for a streaming batch or an upload, and when it is gone.")
    async def job(
        self, info: Info
    ) -> Annotated["SegmentJob", strawberry.lazy("app.api.resources.segment_jobs")] | None:
        node: SegmentJob | None = None
        if self.job_id is not None:
            node = await node_type("SegmentJob").fetch(info.context, self.job_id)
        return node

    @classmethod
    def of(cls, row: MembershipChangeRow) -> Self:
        return cls(
            at=row.at,
            total_profiles=BigInt(row.total_profiles),
            entered=BigInt(row.entered),
            exited=BigInt(row.exited),
            version=row.version,
            job_id=row.job_id,
        )


@strawberry.type(description="A profile that entered or left an audience.")
class MembershipChange:
    status: MembershipStatus = strawberry.field(description="REALIZED: it entered. EXITED: it left.")
    at: datetime = strawberry.field(description="When the members changed.")
    cursor: str = strawberry.field(
        description="Position of the change: `changes` and `membershipChanged` resume after it."
    )
    change: strawberry.Private[changes.Change]

    @resolver(description="The profile.")
    def profile(self) -> Profile:
        return Profile.of(self.change.who, self.change.person)

    @resolver(description="The audience.")
    async def audience(self, info: Info) -> Annotated["Audience", strawberry.lazy("app.api.resources.audiences")]:
        node: Audience = await node_type("Audience").fetch(info.context, self.change.audience)
        return node

    @resolver(description="The job that found it; null for a streaming batch or an upload, and when it is gone.")
    async def job(
        self, info: Info
    ) -> Annotated["SegmentJob", strawberry.lazy("app.api.resources.segment_jobs")] | None:
        node: SegmentJob | None = None
        if self.change.job_id is not None:
            node = await node_type("SegmentJob").fetch(info.context, self.change.job_id)
        return node

    @classmethod
    def of(cls, change: changes.Change) -> Self:
        return cls(status=MembershipStatus(change.status), at=change.at, cursor=change.cursor, change=change)


FormatArgument = Annotated[ExpressionFormat | None, strawberry.argument(description="Format of the expression.")]


@strawberry.type(description="An expression that a definition has or had.")
class DefinitionVersion:
    version: int = strawberry.field(description="1 for the first; each change of expression or merge policy adds one.")
    created_by: str = strawberry.field(description="User or process that made the change.")
    created_at: datetime = strawberry.field(description="Time of the change.")
    row: strawberry.Private[DefinitionVersionRow]

    @resolver(description="The expression of this version.")
    def expression(self, format: FormatArgument = ExpressionFormat.PQL_TEXT) -> str:
        target = service_format(format)
        if target is ServiceFormat.PQL_TEXT:
            return self.row.expression
        return convert_expression(self.row.expression, ServiceFormat.PQL_TEXT, target)

    @resolver(description="The merge policy of this version.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        policy = await MergePolicy.fetch(info.context, self.row.merge_policy_id)
        if policy is None:
            message = f"the merge policy {self.row.merge_policy_id!r} of version {self.version} was deleted"
            raise Refusal(ErrorCode.NOT_FOUND, message)
        return policy

    @classmethod
    def of(cls, row: DefinitionVersionRow) -> Self:
        return cls(version=row.version, created_by=row.created_by, created_at=row.created_at, row=row)


FromArgument = Annotated[
    datetime | None, strawberry.argument(name="from", description="At this time or later; no lower bound unless given.")
]
ToArgument = Annotated[
    datetime | None, strawberry.argument(name="to", description="Before this time; no upper bound unless given.")
]


AsOfArgument = Annotated[
    datetime | None, strawberry.argument(description="A moment that history still has; now unless given.")
]
MomentArgument = Annotated[datetime, strawberry.argument(name="from", description="The earlier moment.")]
LaterArgument = Annotated[
    datetime | None, strawberry.argument(name="to", description="The later moment; now unless given.")
]


async def members_at(operation: Operation, audience: str, at: datetime, argument: str) -> Heads:
    """Raises `Refusal`."""
    return await operation.loaders.heads_of_audience.load((audience, at, argument))


@strawberry.type
class AudienceHistory:
    """Fields of every audience in addition to its current members."""

    raw: strawberry.Private[str]

    @to_many(
        "Its size over time: one point for each run, upload or streaming batch that changed its members, oldest first.",
        of="raw",
    )
    @staticmethod
    def history(
        loaders: Loaders,
        from_: FromArgument = strawberry.UNSET,
        to: ToArgument = strawberry.UNSET,
    ) -> Many[AudiencePoint]:
        return Many(
            loaders.points_of_audience,
            loaders.point_count_of_audience,
            AudiencePoint.of,
            (Period(given(from_), given(to)),),
        )

    @to_many(
        "Who entered and who left, in the order of commits, oldest first; profiles that no longer exist are omitted.",
        of="raw",
        long=True,
    )
    @staticmethod
    def changes(
        loaders: Loaders,
        from_: FromArgument = strawberry.UNSET,
        to: ToArgument = strawberry.UNSET,
    ) -> Many[MembershipChange]:
        return Many(
            loaders.changes_of_audience,
            loaders.change_count_of_audience,
            MembershipChange.of,
            (Period(given(from_), given(to)),),
        )

    @resolver(
        description="Compares the members at two moments, among the profiles that still exist. A profile that left and "
        "returned in between counts as staying."
    )
    async def difference(self, info: Info, from_: MomentArgument, to: LaterArgument = strawberry.UNSET) -> Comparison:
        operation, later = info.context, given(to)
        try:
            if later is not None and later < from_:
                message = f"`to` ({later.isoformat()}) is before `from` ({from_.isoformat()}): give the earlier first"
                raise Refusal(ErrorCode.INVALID_INPUT, message, ("to",))
            end = operation.services.clock() if later is None else later
            heads = [await members_at(operation, self.raw, at, name) for name, at in (("from", from_), ("to", end))]
            row = await operation.loaders.audience.load(self.raw)
            if row is None:
                raise Refusal(ErrorCode.NOT_FOUND, "the audience was deleted meanwhile")
            result = await moments.difference(operation.profiles, row, *heads)
            return Comparison.of(result, await result.counts(operation.services.lake.threads))
        except Refusal as refusal:
            return Comparison.refused(user_error(refusal))

    @to_many("The versions of its definition, newest first; none of an external audience.", of="raw")
    @staticmethod
    def versions(loaders: Loaders) -> Many[DefinitionVersion]:
        return Many(loaders.versions_of_definition, loaders.version_count_of_definition, DefinitionVersion.of)


WatchedArgument = Annotated[
    list[strawberry.ID],
    strawberry.argument(description=f"1 to {MOST_WATCHED} audiences, by global id or raw `audienceId`."),
]
AfterArgument = Annotated[
    str | None,
    strawberry.argument(
        description="Resumes after the last `cursor` seen: each later change comes once. Only new ones unless given."
    ),
]


@strawberry.type
class HistorySubscriptions:
    @subscription(
        description="Each entry and exit in commit order, resumable by the last `cursor` seen; does not complete."
    )
    async def membership_changed(
        self, info: Info, audience_ids: WatchedArgument, after: AfterArgument = strawberry.UNSET
    ) -> AsyncGenerator[MembershipChange, None]:
        operation, services = info.context, info.context.services
        if not 1 <= len(audience_ids) <= MOST_WATCHED:
            message = f"{len(audience_ids)} audiences are given, and 1 to {MOST_WATCHED} can be watched at once"
            raise Refusal(
                ErrorCode.LIMIT_EXCEEDED if audience_ids else ErrorCode.INVALID_INPUT, message, ("audience_ids",)
            )
        ids = []
        for at, id in enumerate(audience_ids):
            row = await operation.loaders.audience.load(need_id("Audience", id, "audience_ids", str(at)))
            if row is None:
                message = f"there is no audience {id!r} in this sandbox"
                raise Refusal(ErrorCode.NOT_FOUND, message, ("audience_ids", str(at)))
            ids.append(row.id)
        scope = operation.scope

        def reader() -> ProfileReader:
            return ProfileReader(services.database, services.lake, services.clock, scope)

        stream = changes.watch(services.database, services.changes, scope, reader, ids, given(after))
        async with aclosing(stream):
            async for change in stream:
                yield MembershipChange.of(change)
