"""Audiences: sets of profiles, computed from a definition or uploaded."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info, Operation
from app.api.context.loaders import Loaders
from app.api.described import enum_value, resolver
from app.api.execution.from_row import Column, FromRow, RowFields
from app.api.execution.relation import Many, One
from app.api.global_ids import Node, global_id, node_type
from app.api.lists.connections import LongConnection, connect_long, connection
from app.api.lists.filters import (
    names,
)
from app.api.lists.relations import to_many, to_one
from app.api.resources.datasets import Dataset
from app.api.resources.evaluated import Evaluated
from app.api.resources.history import AsOfArgument, AudienceHistory, members_at
from app.api.resources.insight import OrderArgument, WhereArgument, profile_order
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.profiles import Membership, Statuses
from app.api.resources.statistics import AudienceStatistics
from app.api.scalars import BigInt, given
from app.services.audiences.definition_reads import DefinitionView
from app.services.insight import profiles
from app.services.insight.population import open_population
from app.services.lists.paging import PageRequest, Slice
from app.services.people.members import Member, statuses_of
from app.storage.tables.audiences import AudienceRow

if TYPE_CHECKING:
    from app.api.resources.definitions import SegmentDefinition
    from app.api.resources.segment_jobs import SegmentJob


@strawberry.enum(description="How the members of an audience are determined.")
class AudienceType(Enum):
    SEGMENT_DEFINITION = enum_value("SEGMENT_DEFINITION", description="Computed from a segment definition.")
    EXTERNAL_SEGMENT = enum_value("EXTERNAL_SEGMENT", description="Uploaded into a dataset.")


@strawberry.enum(description="Lifecycle state of an audience.")
class LifecycleState(Enum):
    DRAFT = enum_value("DRAFT", description="Draft: other audiences cannot refer to it.")
    PUBLISHED = enum_value("PUBLISHED", description="Published.")
    INACTIVE = enum_value("INACTIVE", description="Inactive: not evaluated.")


@strawberry.enum(description="System that created an audience.")
class AudienceOrigin(Enum):
    REAL_TIME_CUSTOMER_PROFILE = enum_value(
        "REAL_TIME_CUSTOMER_PROFILE", description="This service, from a definition."
    )
    CUSTOM_UPLOAD = enum_value("CUSTOM_UPLOAD", description="A file that was uploaded.")
    AUDIENCE_ORCHESTRATION = enum_value("AUDIENCE_ORCHESTRATION", description="A composition of audiences.")
    AUDIENCE_MANAGER = enum_value("AUDIENCE_MANAGER", description="Audience Manager.")
    AUDIENCE_MATCH = enum_value("AUDIENCE_MATCH", description="A match with a partner's audience.")


@strawberry.enum(description="Evaluation methods.")
class EvaluationMethod(Enum):
    BATCH = enum_value("BATCH", description="By segment jobs.")
    STREAMING = enum_value("STREAMING", description="For the touched profiles, as soon as a batch lands.")
    EDGE = enum_value("EDGE", description="For one profile, whenever its memberships are read.")


def evaluation_methods(row: AudienceRow | DefinitionView) -> list[EvaluationMethod]:
    flags = (
        (row.evaluates_batch, EvaluationMethod.BATCH),
        (row.evaluates_streaming, EvaluationMethod.STREAMING),
        (row.evaluates_edge, EvaluationMethod.EDGE),
    )
    return [method for on, method in flags if on]


@strawberry.type(description="Number of profiles with an identity in a namespace.")
class NamespaceCount:
    namespace: str = strawberry.field(description="Identity namespace.")
    count: BigInt = strawberry.field(description="Number of profiles with an identity in it.")

    @classmethod
    def all_of(cls, counts: dict[str, int]) -> list["NamespaceCount"]:
        return [cls(namespace=name, count=BigInt(number)) for name, number in sorted(counts.items())]


@strawberry.type(description="Size of an audience.")
class AudienceMetrics:
    total_profiles: BigInt = strawberry.field(description="Number of members.")
    by_namespace: list[NamespaceCount] = strawberry.field(description="The same, by identity namespace.")
    updated_at: datetime = strawberry.field(description="When the members were counted.")
    job_id: strawberry.Private[str | None]

    @resolver(description="Job that counted them; null for counts from elsewhere.")
    async def job(
        self, info: Info
    ) -> Annotated["SegmentJob", strawberry.lazy("app.api.resources.segment_jobs")] | None:
        job: SegmentJob | None = None
        if self.job_id is not None:
            job = await node_type("SegmentJob").fetch(info.context, self.job_id)
        return job


@strawberry.type(description="Origin of an external audience.")
class LinkedAudienceRef:
    flow_id: str | None = strawberry.field(description="Data flow that delivers it.")
    ao_workflow_id: str | None = strawberry.field(description="Orchestration workflow that creates it.")
    payload_field_group_ref: str | None = strawberry.field(description="Field group of its payload columns.")
    audience_folder_id: str | None = strawberry.field(description="Folder in the system that it comes from.")

    @classmethod
    def of_maybe(cls, ref: Mapping[str, Any] | None) -> Self | None:
        if ref is None:
            return None
        return cls(
            flow_id=ref.get("flow_id"),
            ao_workflow_id=ref.get("ao_workflow_id"),
            payload_field_group_ref=ref.get("payload_field_group_ref"),
            audience_folder_id=ref.get("audience_folder_id"),
        )


def _metrics(row: AudienceRow) -> AudienceMetrics | None:
    if row.total_profiles is None or row.metrics_updated_at is None:
        return None
    return AudienceMetrics(
        total_profiles=BigInt(row.total_profiles),
        by_namespace=NamespaceCount.all_of(row.by_namespace),
        updated_at=row.metrics_updated_at,
        job_id=row.metrics_job_id,
    )


@strawberry.type(description="A set of people, with a name.")
class Audience(FromRow, Evaluated, AudienceHistory, AudienceStatistics, Node):
    audience_id: str = strawberry.field(description="Raw id; for an external audience the id that its creator gave it.")
    name: str = strawberry.field(description="Name.")
    description: str | None = strawberry.field(description="Description.")
    type: AudienceType = strawberry.field(description="How its members are determined.")
    origin: AudienceOrigin = strawberry.field(description="System that created it.")
    namespace: str = strawberry.field(description="Namespace of its id, for example `AEPSegments`.")
    lifecycle_state: LifecycleState = strawberry.field(description="Lifecycle state.")
    evaluation_methods: list[EvaluationMethod] = strawberry.field(description="Evaluation methods.")
    exclude_opt_out: bool = strawberry.field(description="Whether profiles that opted out are excluded.")
    labels: list[str] = strawberry.field(description="Data usage labels, for example `core/C1`.")
    ttl_in_days: int | None = strawberry.field(description="External audiences only: days until the members expire.")
    expires_at: datetime | None = strawberry.field(description="External audiences only: when the members expire.")
    audience_meta: JSON | None = strawberry.field(
        description="Free-form metadata from the creator; stored and returned unchanged."
    )
    linked_audience_ref: LinkedAudienceRef | None = strawberry.field(description="Free-form origin of the audience.")
    is_system: bool = strawberry.field(description="Whether it is a system audience, which cannot be changed.")
    save_segment_membership: bool = strawberry.field(description="Whether members are stored, or only counted.")
    override_performance_warnings: bool = strawberry.field(description="Whether performance warnings were overridden.")
    created_by: str = strawberry.field(description="Creator.")
    last_modified_by: str = strawberry.field(description="User who last changed it.")
    created_at: datetime = strawberry.field(description="Creation time.")
    updated_at: datetime = strawberry.field(description="Time of the last change.")
    etag: str = strawberry.field(
        description="Optimistic lock: changes with every write. Send it with an update to reject lost updates."
    )
    counted: strawberry.Private[AudienceMetrics | None]
    merge_policy_id: strawberry.Private[str | None]
    dataset_id: strawberry.Private[str | None]

    @resolver(description="Size and counts; null before the first evaluation.")
    def metrics(self, info: Info) -> AudienceMetrics | None:
        if self.counted is None or self.expires_at is None or self.expires_at > info.context.services.clock():
            return self.counted
        return AudienceMetrics(total_profiles=BigInt(0), by_namespace=[], updated_at=self.expires_at, job_id=None)

    @to_one("Definition that computes it; null for an external audience.", of="raw")
    @staticmethod
    def definition(
        loaders: Loaders,
    ) -> One[Annotated["SegmentDefinition", strawberry.lazy("app.api.resources.definitions")]]:
        return One(loaders.definition, node_type("SegmentDefinition").of)

    @to_one("Merge policy of its profiles; null for an external audience.", of="merge_policy_id")
    @staticmethod
    def merge_policy(loaders: Loaders) -> One[MergePolicy]:
        return One(loaders.merge_policy, MergePolicy.of)

    @to_one("External audiences only: the dataset with its members.", of="dataset_id")
    @staticmethod
    def dataset(loaders: Loaders) -> One[Dataset]:
        return One(loaders.dataset, Dataset.of)

    @to_many("Audiences that its expression refers to.", of="raw")
    @staticmethod
    def dependencies(loaders: Loaders) -> Many["Audience"]:
        return Many(loaders.dependencies_of_audience, loaders.dependency_count_of_audience, Audience.of)

    @to_many("Audiences whose expressions refer to it.", of="raw")
    @staticmethod
    def dependents(loaders: Loaders) -> Many["Audience"]:
        return Many(loaders.dependents_of_audience, loaders.dependent_count_of_definition, Audience.of)

    @connection(
        description="Its current members: those with the given `status`, by default REALIZED and EXISTING. `where` "
        "filters them and `orderBy` sorts them by a value, both with current data. With `asOf`, the members at that "
        "moment who still exist, with the statuses of the last run with the same members."
    )
    async def members(
        self,
        info: Info,
        page: PageRequest,
        status: Statuses = strawberry.UNSET,
        where: WhereArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
        as_of: AsOfArgument = strawberry.UNSET,
    ) -> LongConnection[Membership]:
        statuses, loaders = names(status), info.context.loaders
        expression, order, at = given(where), profile_order(order_by), given(as_of)
        if expression is not None or order is not None or at is not None:
            heads = None if at is None else await members_at(info.context, self.raw, at, "as_of")
            among = profiles.Among(self.raw, statuses_of(statuses), heads)
            return await self._evaluated_members(info, page, among, expression, order)
        return await connect_long(
            info,
            lambda: loaders.members_of_definition.load((self.raw, page, statuses)),
            Membership.of,
            lambda: loaders.member_count_of_definition.load((self.raw, statuses)),
        )

    async def _evaluated_members(
        self,
        info: Info,
        page: PageRequest,
        among: profiles.Among,
        where: str | None,
        order: profiles.ProfileOrder | None,
    ) -> LongConnection[Membership]:
        operation, threads = info.context, info.context.services.lake.threads

        async def load() -> Slice[Member]:
            population = await open_population(operation.profiles, self.merge_policy_id)
            people = await profiles.page(population, page, where, order, threads, among)
            return await profiles.members_of(population, people, among)

        async def count() -> int:
            population = await open_population(operation.profiles, self.merge_policy_id)
            return await profiles.count(population, where, among)

        return await connect_long(info, load, Membership.of, count)

    FROM_ROW: ClassVar[RowFields] = {
        "id": Column("id", partial(global_id, "Audience")),
        "raw": Column("id"),
        "type": Column("type", AudienceType),
        "origin": Column("origin", AudienceOrigin),
        "lifecycle_state": Column("lifecycle_state", LifecycleState),
        "evaluation_methods": lambda row: evaluation_methods(row),
        "linked_audience_ref": Column("linked_audience_ref", LinkedAudienceRef.of_maybe),
        "etag": Column("revision", str),
        "counted": _metrics,
    }

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.audience.load(raw)
        return None if row is None else cls.of(row)


AudienceId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `audienceId`.")]
