"""The specification of an export, as read from an export job or a schedule."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

import strawberry

from app.api.context import Info
from app.api.described import resolver
from app.api.resources.audiences import Audience
from app.api.resources.datasets import Dataset
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.profiles import MembershipStatus
from app.services.jobs.export import input as export_input


@strawberry.type(description="A time range, both ends included.")
class TimeRange:
    start: datetime | None = strawberry.field(description="First instant; null for no lower bound.")
    end: datetime | None = strawberry.field(description="Last instant; null for no upper bound.")


@strawberry.type(description="A segment whose members an export writes.")
class ExportSegment:
    segment_id: str = strawberry.field(description="`audienceId` of the audience.")
    namespace: str | None = strawberry.field(description="Namespace of the audience.")
    status: list[MembershipStatus] = strawberry.field(description="Membership statuses that are written.")

    @resolver(description="The audience; null if it was deleted.")
    async def audience(self, info: Info) -> Audience | None:
        row = await info.context.loaders.audience_by_name.load((self.namespace, self.segment_id))
        return None if row is None else Audience.of(row)

    @classmethod
    def of(cls, segment: export_input.ExportSegment) -> Self:
        return cls(
            segment_id=segment.segment_id,
            namespace=segment.namespace,
            status=[MembershipStatus(item) for item in segment.status],
        )


@strawberry.type(description="Which profiles an export writes; all given conditions must match.")
class ExportFilter:
    segments: list[ExportSegment] = strawberry.field(description="Members of one of these; empty for every profile.")
    segment_qualification_time: TimeRange | None = strawberry.field(
        description="When they last entered one of the segments; null for any time."
    )
    from_ingest_timestamp: datetime | None = strawberry.field(
        description="Records or events arrived at this time or later; null for any time."
    )
    empty_profiles: bool = strawberry.field(description="Whether profiles with events and no record are written.")

    @classmethod
    def of(cls, filter: export_input.ExportFilter) -> Self:
        time = filter.segment_qualification_time
        return cls(
            segments=[ExportSegment.of(item) for item in filter.segments],
            segment_qualification_time=TimeRange(start=time.start, end=time.end) if time.start or time.end else None,
            from_ingest_timestamp=filter.from_ingest_timestamp,
            empty_profiles=filter.empty_profiles,
        )

    @classmethod
    def of_json(cls, value: Mapping[str, object] | None) -> Self | None:
        filter = export_input.filter_from_json(value)
        return None if filter is None else cls.of(filter)


@strawberry.type(description="Events that an export writes with each profile.")
class ExportEvents:
    fields: list[str] = strawberry.field(description="Paths within an event; empty for all.")
    from_: datetime | None = strawberry.field(name="from", description="Ingested at this time or later; null for any.")
    to: datetime | None = strawberry.field(description="Ingested at this time or earlier; null for any.")

    @classmethod
    def of_json(cls, value: Mapping[str, object] | None) -> Self | None:
        events = export_input.events_from_json(value)
        if events is None:
            return None
        return cls(fields=list(events.fields), from_=events.ingested.start, to=events.ingested.end)


@strawberry.type(description="The export that each run of a schedule starts.")
class ExportSpec:
    fields: list[str] = strawberry.field(description="Paths of the attributes that are written; empty for all.")
    filter: ExportFilter | None = strawberry.field(description="Filter of profiles; null for all.")
    additional_fields: ExportEvents | None = strawberry.field(description="Events; null for none.")
    segment_per_batch: bool = strawberry.field(
        description="Whether each segment becomes a batch of its own; otherwise one batch holds all."
    )
    schema_name: str = strawberry.field(description="Name of the profile schema.")
    evaluate_first: bool = strawberry.field(description="Whether the segments are evaluated before each export.")
    spec: strawberry.Private[export_input.NewExport]

    @resolver(description="Merge policy; null if each run takes that of its segments, or the default.")
    async def merge_policy(self, info: Info) -> MergePolicy | None:
        policy = self.spec.merge_policy_id
        return None if policy is None else await MergePolicy.fetch(info.context, policy)

    @resolver(description="The dataset that the profiles are written to.")
    async def destination(self, info: Info) -> Dataset:
        dataset = await Dataset.fetch(info.context, self.spec.destination_id)
        if dataset is None:
            raise LookupError(f"the dataset {self.spec.destination_id} of a scheduled export does not exist")
        return dataset

    @classmethod
    def of_json(cls, value: Mapping[str, Any] | None) -> Self | None:
        if value is None:
            return None
        spec = export_input.NewExport.from_json(value)
        return cls(
            fields=list(spec.fields),
            filter=None if spec.filter is None else ExportFilter.of(spec.filter),
            additional_fields=ExportEvents.of_json(value["additionalFields"]),
            segment_per_batch=spec.segment_per_batch,
            schema_name=spec.schema_name,
            evaluate_first=spec.evaluate_first,
            spec=spec,
        )
