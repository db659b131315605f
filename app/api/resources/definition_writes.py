"""Creates, updates and deletes segment definitions."""

from typing import Annotated, Any, Self, cast

import strawberry

from app.api.context import Info, Operation
from app.api.described import mutation, resolver
from app.api.errors import PqlDiagnostic, UserError, attempt, errors_field
from app.api.global_ids import global_id, need_id
from app.api.lists.filters import (
    OrderDirection,
    names,
    one_id,
    one_of,
)
from app.api.resources.audiences import EvaluationMethod, LifecycleState
from app.api.resources.definitions import SegmentDefinition
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.scalars import given
from app.errors import ErrorCode, Refusal, Refusals
from app.services.audiences import computed as definitions
from app.services.audiences import definition_reads
from app.services.audiences.definition_rules import DefinitionChanges, Limit, NewDefinition
from app.storage.tables import audiences as tables


@strawberry.input(description="Keeps only the first profiles by a value; ties by profile id, exactly.")
class LimitInput:
    first: int = strawberry.field(description="Maximum number of members, at most 10,000,000.")
    by: str = strawberry.field(description="PQL value of a profile, for example `xEvent.sum(dollars)`.")
    direction: OrderDirection = strawberry.field(
        default=OrderDirection.DESC, description="Order; profiles without a value come last in either."
    )

    def as_limit(self) -> Limit:
        return Limit(self.first, self.by, self.direction is OrderDirection.DESC)


@strawberry.input(description="The segment definition to create, with its audience.")
class CreateSegmentDefinitionInput:
    name: str = strawberry.field(description="Name, unique among the definitions of the sandbox.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description.")
    expression: str = strawberry.field(description="Condition in PQL, for example `xEvent.sum(dollars) > 500`.")
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="Format of the expression."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluation methods; default BATCH."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Merge policy; default the sandbox's default policy."
    )
    schema_name: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Schema of the expression; `_xdm.context.profile`, the only one, unless given.",
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether profiles that opted out are excluded; default true."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, for example `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Folder.")
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET, description="Initial state; default PUBLISHED."
    )
    limit: LimitInput | None = strawberry.field(
        default=strawberry.UNSET, description="Keeps only the first profiles by a value; default all. BATCH only."
    )

    def as_new(self) -> NewDefinition:
        optional = {
            "exclude_opt_out": given(self.exclude_opt_out),
            "schema_name": given(self.schema_name),
            "lifecycle_state": one_of(tables.LifecycleState, self.lifecycle_state),
            "labels": given(self.labels),
            "limit": limit_of(self.limit),
        }
        return NewDefinition(
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
    description="Changes to a segment definition: only the given fields change; null clears an optional field."
)
class UpdateSegmentDefinitionInput:
    id: strawberry.ID = strawberry.field(description="Global id or raw `segmentId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description="Name, unique among the definitions of the sandbox."
    )
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description.")
    expression: str | None = strawberry.field(default=strawberry.UNSET, description="Condition in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=strawberry.UNSET, description="Format of the expression; default PQL_TEXT."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description="Evaluation methods."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Merge policy.")
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether profiles that opted out are excluded."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, for example `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(default=strawberry.UNSET, description="Folder.")
    limit: LimitInput | None = strawberry.field(
        default=strawberry.UNSET, description="Keeps only the first profiles by a value; null to keep all."
    )

    def as_changes(self) -> DefinitionChanges:
        """Raises `Refusals` for null in a required field."""
        needed = ("name", "expression", "evaluation_methods", "merge_policy_id", "exclude_opt_out", "labels")
        nulls = [name for name in needed if getattr(self, name) is None]
        if nulls:
            message = "it cannot be null: omit it to keep it as it is"
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
            "limit": _kept(self.limit, limit_of),
        }
        given_ones = {name: value for name, value in changes.items() if value is not strawberry.UNSET}
        return cast(DefinitionChanges, given_ones)


def limit_of(value: LimitInput | None) -> Limit | None:
    """None if there is no limit, or none was given."""
    return None if value is None or value is strawberry.UNSET else value.as_limit()


def _kept(value: Any, convert: Any) -> Any:
    """The converted value, or UNSET if the caller omitted it."""
    return value if value is strawberry.UNSET else convert(value)


WARNINGS = "Non-blocking warnings about the expression, for example an equivalent definition."


async def warnings_of(context: Operation, view: definition_reads.DefinitionView | None) -> list[PqlDiagnostic]:
    """The warnings about a definition that was written; none if it was rejected."""
    if view is None:
        return []
    database, scope = context.services.database, context.scope
    labels = await definition_reads.duplicates(database, scope, view.expression, view.canonical, but=view.id)
    return [PqlDiagnostic.of(each) for each in labels]


@strawberry.type(description="Result of a mutation of a segment definition.")
class SegmentDefinitionPayload:
    definition: SegmentDefinition | None = strawberry.field(description="The definition; null if rejected.")
    errors: list[UserError] = errors_field()
    written: strawberry.Private[definition_reads.DefinitionView | None] = None

    @classmethod
    def of(cls, row: definition_reads.DefinitionView | None, errors: list[UserError]) -> Self:
        return cls(definition=None if row is None else SegmentDefinition.of(row), errors=errors, written=row)

    @resolver(description=WARNINGS)
    async def warnings(self, info: Info) -> list[PqlDiagnostic]:
        return await warnings_of(info.context, self.written)


CreateArgument = Annotated[CreateSegmentDefinitionInput, strawberry.argument(description="The object to create.")]


UpdateArgument = Annotated[
    UpdateSegmentDefinitionInput, strawberry.argument(description="The object and the fields to change.")
]


@strawberry.type
class DefinitionMutations:
    @mutation(description="Creates a segment definition and the audience that it computes.")
    async def create_segment_definition(self, info: Info, input: CreateArgument) -> SegmentDefinitionPayload:
        services, scope = info.context.services, info.context.scope
        row, errors = await attempt(
            info,
            lambda: definitions.create(services.database, services.lake, services.clock, scope, input.as_new()),
            "input",
        )
        return SegmentDefinitionPayload.of(row, errors)

    @mutation(description="Updates a segment definition; running jobs keep the previous version.")
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
        return SegmentDefinitionPayload.of(row, errors)

    @mutation(description="Deletes a segment definition and its audience; rejected while anything refers to it.")
    async def delete_segment_definition(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("SegmentDefinition", input.id, "id")
            await definitions.delete(services.database, services.clock, scope, raw, given(input.etag))
            return global_id("SegmentDefinition", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)
