"""Segment definitions: named, versioned expressions, each of which computes an audience."""

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any, Self, cast

import strawberry

from app.api.connections import Connection, connect, connection
from app.api.context import Info, Operation
from app.api.described import enum_value, mutation, resolver
from app.api.errors import PqlDiagnostic, UserError, attempt, errors_field
from app.api.filters import (
    DateTimeFilter,
    OrderDirection,
    StringFilter,
    many_ids,
    names,
    one_id,
    one_name,
    ordered,
    text_filter,
    time_filter,
)
from app.api.global_ids import Node, find_id, global_id, need_id, node_type
from app.api.resources.audiences import Audience, EvaluationMethod, LifecycleState, evaluation_methods
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.resources.folders import Folder
from app.api.resources.jobs import JobFilterArgument, segment_job_filter
from app.api.resources.merge_policies import MergePolicy
from app.api.resources.pql import ExpressionFormat, FormatArgument, StreamingEligibility, service_format
from app.api.scalars import given
from app.errors import ErrorCode, Refusal, Refusals
from app.services.audiences import computed as definitions
from app.services.evaluation.expressions import convert_expression
from app.services.lists.paging import PageRequest

if TYPE_CHECKING:
    from app.api.resources.schedules import Schedule
    from app.api.resources.segment_jobs import SegmentJob


@strawberry.type(description="A named predicate over a person and what the person did.")
class SegmentDefinition(Node):
    segment_id: str = strawberry.field(description="Raw id: what `inSegment` in other expressions refers to.")
    name: str = strawberry.field(description="Name, unique among the definitions of the sandbox.")
    description: str | None = strawberry.field(description="What it is for.")
    version: int = strawberry.field(description="1, then one more with each change of the expression or merge policy.")
    evaluation_methods: list[EvaluationMethod] = strawberry.field(description="When it is evaluated.")
    schema_name: str = strawberry.field(description="Schema that the expression is about.")
    exclude_opt_out: bool = strawberry.field(description="Whether people who opted out are never members.")
    labels: list[str] = strawberry.field(description="Data usage labels, such as `core/C1`.")
    created_by: str = strawberry.field(description="Who made it.")
    last_modified_by: str = strawberry.field(description="Who last changed it.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(description="When it last changed.")
    etag: str = strawberry.field(description="Changes with every write; send it back to refuse lost updates.")
    text: strawberry.Private[str]
    merge_policy_id: strawberry.Private[str]
    folder_id: strawberry.Private[str | None]

    @resolver(description="The expression, as text or as pql/json.")
    def expression(self, format: FormatArgument = ExpressionFormat.PQL_TEXT) -> str:
        wanted = service_format(format)
        return self.text if wanted == "PQL_TEXT" else convert_expression(self.text, service_format(None), wanted)

    @resolver(description="Whether streaming evaluation would be accepted, with the reason when not.")
    async def streaming_eligibility(self, info: Info) -> StreamingEligibility:
        return StreamingEligibility.of(await info.context.loaders.streaming_eligibility.load(self.text))

    @resolver(description="How profiles are merged for it.")
    async def merge_policy(self, info: Info) -> MergePolicy:
        row = await info.context.loaders.merge_policy.load(self.merge_policy_id)
        if row is None:
            raise LookupError(
                f"definition {self.segment_id} has the merge policy {self.merge_policy_id}, which is gone"
            )
        return MergePolicy.of(row)

    @resolver(description="The folder it is in, with its audience; null at the root.")
    async def folder(self, info: Info) -> Folder | None:
        return await Folder.fetch_maybe(info.context, self.folder_id)

    @resolver(description="The audience that it computes.")
    async def audience(self, info: Info) -> Audience:
        row = await info.context.loaders.audience.load(self.segment_id)
        if row is None:
            raise LookupError(f"definition {self.segment_id} has no audience")
        return Audience.of(row)

    @connection(description="The definitions that its expression refers to.")
    async def dependencies(self, info: Info, page: PageRequest) -> Connection["SegmentDefinition"]:
        loaders = info.context.loaders
        return await connect(
            info,
            lambda: loaders.dependencies_of_definition.load((self.segment_id, page)),
            SegmentDefinition.of,
            lambda: loaders.dependency_count_of_definition.load((self.segment_id,)),
        )

    @connection(description="The definitions whose expressions refer to it.")
    async def dependents(self, info: Info, page: PageRequest) -> Connection["SegmentDefinition"]:
        loaders = info.context.loaders
        return await connect(
            info,
            lambda: loaders.dependents_of_definition.load((self.segment_id, page)),
            SegmentDefinition.of,
            lambda: loaders.dependent_count_of_definition.load((self.segment_id,)),
        )

    @connection(description="The schedules that evaluate it, by name: those that name it, and those for all audiences.")
    async def schedules(
        self, info: Info, page: PageRequest
    ) -> Connection[Annotated["Schedule", strawberry.lazy("app.api.resources.schedules")]]:
        loaders = info.context.loaders
        return await connect(
            info,
            lambda: loaders.schedules_of_audience.load((self.segment_id, page)),
            node_type("Schedule").of,
            lambda: loaders.schedule_count_of_audience.load((self.segment_id,)),
        )

    @connection(description="The jobs that ran it, newest first.")
    async def jobs(
        self,
        info: Info,
        page: PageRequest,
        filter: JobFilterArgument = strawberry.UNSET,
    ) -> Connection[Annotated["SegmentJob", strawberry.lazy("app.api.resources.segment_jobs")]]:
        chosen, loaders = segment_job_filter(filter), info.context.loaders
        return await connect(
            info,
            lambda: loaders.jobs_of_definition.load((self.segment_id, page, chosen)),
            node_type("SegmentJob").of,
            lambda: loaders.job_count_of_definition.load((self.segment_id, chosen)),
        )

    @classmethod
    def of(cls, row: definitions.DefinitionView) -> Self:
        return cls(
            id=global_id("SegmentDefinition", row.id),
            segment_id=row.id,
            name=row.name,
            description=row.description,
            version=row.version,
            evaluation_methods=evaluation_methods(row),
            schema_name=row.schema_name,
            exclude_opt_out=row.exclude_opt_out,
            labels=row.labels,
            created_by=row.created_by,
            last_modified_by=row.last_modified_by,
            created_at=row.created_at,
            updated_at=row.updated_at,
            etag=str(row.revision),
            text=row.expression,
            merge_policy_id=row.merge_policy_id,
            folder_id=row.folder_id,
        )

    @classmethod
    async def fetch(cls, operation: Operation, raw: str) -> Self | None:
        row = await operation.loaders.definition.load(raw)
        return None if row is None else cls.of(row)


@strawberry.input(description="Which definitions. All that is given must hold.")
class SegmentDefinitionFilter:
    id: list[strawberry.ID] | None = strawberry.field(
        default=strawberry.UNSET, description="One of these, by global or raw id."
    )
    name: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="With such a name.")
    description: StringFilter | None = strawberry.field(
        default=strawberry.UNSET, description="With such a description."
    )
    evaluation_method: EvaluationMethod | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluated in this way."
    )
    label: str | None = strawberry.field(default=strawberry.UNSET, description="With this label.")
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Of this merge policy."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="In this folder.")
    created_by: StringFilter | None = strawberry.field(default=strawberry.UNSET, description="Made by such a user.")
    created_at: DateTimeFilter | None = strawberry.field(default=strawberry.UNSET, description="Made at such a time.")
    updated_at: DateTimeFilter | None = strawberry.field(
        default=strawberry.UNSET, description="Last changed at such a time."
    )


def definition_filter(value: SegmentDefinitionFilter | None) -> definitions.DefinitionFilter | None:
    """Raises `Refusal` for the id of something else."""
    if value is None or not given(value):
        return None
    return definitions.DefinitionFilter(
        ids=many_ids("SegmentDefinition", value.id, "filter", "id"),
        name=text_filter(value.name),
        description=text_filter(value.description),
        evaluation_method=one_name(value.evaluation_method),
        label=given(value.label),
        merge_policy_id=one_id("MergePolicy", value.merge_policy_id, "filter", "merge_policy_id"),
        folder_id=one_id("Folder", value.folder_id, "filter", "folder_id"),
        created_by=text_filter(value.created_by),
        created_at=time_filter(value.created_at),
        updated_at=time_filter(value.updated_at),
    )


@strawberry.enum(description="What a list of definitions is ordered by.")
class SegmentDefinitionOrderField(Enum):
    NAME = enum_value("NAME", description="Their names.")
    CREATED_AT = enum_value("CREATED_AT", description="When they were made.")
    UPDATED_AT = enum_value("UPDATED_AT", description="When they last changed.")


@strawberry.input(description="An order of definitions.")
class SegmentDefinitionOrder:
    field: SegmentDefinitionOrderField = strawberry.field(description="What they are ordered by.")
    direction: OrderDirection = strawberry.field(description="Which end comes first.")


@strawberry.input(description="A new segment definition, with its audience.")
class CreateSegmentDefinitionInput:
    name: str = strawberry.field(description="Name, unique among the definitions of the sandbox.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What it is for.")
    expression: str = strawberry.field(description="Who is in it, in PQL: `xEvent.sum(dollars) > 500`.")
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="How the expression is written."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description="When it is evaluated; BATCH unless given."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="How profiles are merged; the default policy unless given."
    )
    schema_name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Schema of the expression; `_xdm.context.profile`, the only one, unless given.",
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether people who opted out are never members; true unless given."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, such as `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Folder to put it in.")
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET, description="PUBLISHED unless given."
    )

    def as_new(self) -> definitions.NewDefinition:
        optional = {
            "exclude_opt_out": given(self.exclude_opt_out),
            "schema_name": given(self.schema_name),
            "lifecycle_state": one_name(self.lifecycle_state),
            "labels": given(self.labels),
        }
        return definitions.NewDefinition(
            name=self.name,
            description=given(self.description),
            expression=self.expression,
            format=service_format(self.format),
            evaluation_methods=names(self.evaluation_methods),
            merge_policy_id=one_id("MergePolicy", self.merge_policy_id, "merge_policy_id"),
            folder_id=one_id("Folder", self.folder_id, "folder_id"),
            **{name: value for name, value in optional.items() if value is not None},
        )


@strawberry.input(
    description="Changes of a segment definition: only the given fields change; null clears one that may be null."
)
class UpdateSegmentDefinitionInput:
    id: strawberry.ID = strawberry.field(description="Global id, or the raw `segmentId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="As it was read; refused when it has changed since. Unchecked unless given.",
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Name, unique among the definitions of the sandbox."
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What it is for.")
    expression: str | None = strawberry.field(default=strawberry.UNSET, description="Who is in it, in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=strawberry.UNSET, description="How the expression is written; PQL_TEXT unless given."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description="When it is evaluated."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="How profiles are merged."
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether people who opted out are never members."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, such as `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Folder to put it in.")

    def as_changes(self) -> definitions.DefinitionChanges:
        """Raises `Refusals` for nulls where there must be a value."""
        needed = ("name", "expression", "evaluation_methods", "merge_policy_id", "exclude_opt_out", "labels")
        nulls = [name for name in needed if getattr(self, name) is None]
        if nulls:
            message = "it cannot be null: leave it out to keep it as it is"
            raise Refusals([Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in nulls])
        changes = {
            "name": self.name,
            "description": self.description,
            "expression": self.expression,
            "format": self.format if self.format is strawberry.UNSET else service_format(self.format),
            "evaluation_methods": _kept(self.evaluation_methods, names),
            "merge_policy_id": _kept(self.merge_policy_id, lambda id_: one_id("MergePolicy", id_, "merge_policy_id")),
            "exclude_opt_out": self.exclude_opt_out,
            "labels": self.labels,
            "folder_id": _kept(self.folder_id, lambda id_: one_id("Folder", id_, "folder_id")),
        }
        given_ones = {name: value for name, value in changes.items() if value is not strawberry.UNSET}
        return cast(definitions.DefinitionChanges, given_ones)


def _kept(value: Any, convert: Any) -> Any:
    """Converted, but still UNSET when the caller left it out."""
    return value if value is strawberry.UNSET else convert(value)


@strawberry.type(description="Outcome of a change to a segment definition.")
class SegmentDefinitionPayload:
    definition: SegmentDefinition | None = strawberry.field(description="The definition; null when it was refused.")
    warnings: list[PqlDiagnostic] = strawberry.field(
        description="What speaks against the expression though it can be used, such as another definition that says "
        "the same."
    )
    errors: list[UserError] = errors_field()

    @classmethod
    async def of(cls, context: Operation, row: definitions.DefinitionView | None, errors: list[UserError]) -> Self:
        if row is None:
            return cls(definition=None, warnings=[], errors=errors)
        found = await definitions.duplicates(
            context.services.database, context.scope, row.expression, row.canonical, but=row.id
        )
        return cls(
            definition=SegmentDefinition.of(row), warnings=[PqlDiagnostic.of(each) for each in found], errors=errors
        )


DefinitionId = Annotated[strawberry.ID, strawberry.argument(description="Global id, or the raw `segmentId`.")]
FilterArgument = Annotated[SegmentDefinitionFilter | None, strawberry.argument(description="Which of them.")]
OrderArgument = Annotated[SegmentDefinitionOrder | None, strawberry.argument(description="Newest first unless given.")]
CreateArgument = Annotated[CreateSegmentDefinitionInput, strawberry.argument(description="What it is to be.")]
UpdateArgument = Annotated[
    UpdateSegmentDefinitionInput, strawberry.argument(description="Which one, and what changes.")
]


@strawberry.type
class DefinitionQueries:
    @resolver(description="A segment definition by its id.")
    async def segment_definition(self, info: Info, id: DefinitionId) -> SegmentDefinition | None:
        raw = find_id("SegmentDefinition", id)
        return None if raw is None else await SegmentDefinition.fetch(info.context, raw)

    @connection(description="The segment definitions of the sandbox.")
    async def segment_definitions(
        self,
        info: Info,
        page: PageRequest,
        filter: FilterArgument = strawberry.UNSET,
        order_by: OrderArgument = strawberry.UNSET,
    ) -> Connection[SegmentDefinition]:
        operation = info.context
        chosen, order = definition_filter(filter), ordered(order_by)
        return await connect(
            info,
            lambda: operation.read(lambda session: definitions.page(session, operation.scope, page, chosen, order)),
            SegmentDefinition.of,
            lambda: operation.read(lambda session: definitions.count(session, operation.scope, chosen)),
        )


@strawberry.type
class DefinitionMutations:
    @mutation(description="Makes a segment definition, and the audience that it computes.")
    async def create_segment_definition(self, info: Info, input: CreateArgument) -> SegmentDefinitionPayload:
        services, scope = info.context.services, info.context.scope
        row, errors = await attempt(
            info,
            lambda: definitions.create(services.database, services.lake, services.clock, scope, input.as_new()),
            "input",
        )
        return await SegmentDefinitionPayload.of(info.context, row, errors)

    @mutation(description="Changes a segment definition; jobs that run already keep the old one.")
    async def update_segment_definition(self, info: Info, input: UpdateArgument) -> SegmentDefinitionPayload:
        services, scope = info.context.services, info.context.scope
        row, errors = await attempt(
            info,
            lambda: definitions.update(
                services.database,
                services.lake,
                services.clock,
                scope,
                need_id("SegmentDefinition", input.id, "id"),
                given(input.etag),
                input.as_changes(),
            ),
            "input",
        )
        return await SegmentDefinitionPayload.of(info.context, row, errors)

    @mutation(description="Deletes a segment definition and its audience; refused while others refer to it.")
    async def delete_segment_definition(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("SegmentDefinition", input.id, "id")
            await definitions.delete(services.database, services.clock, scope, raw, given(input.etag))
            return global_id("SegmentDefinition", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)
