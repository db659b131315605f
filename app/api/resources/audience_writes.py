"""Audiences made, changed, replaced and deleted: inputs, payloads and mutations of the resource in `audiences`."""

from collections.abc import Callable
from typing import Annotated, Any, Self, cast

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info, Operation
from app.api.described import mutation
from app.api.errors import PqlDiagnostic, UserError, attempt, camel, errors_field
from app.api.filters import names, one_id, one_name
from app.api.global_ids import global_id, need_id
from app.api.resources.audiences import Audience, AudienceOrigin, AudienceType, EvaluationMethod, LifecycleState
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.scalars import BigInt, given
from app.errors import ErrorCode, Refusal, refuse_all
from app.services.audiences import computed as definitions
from app.services.audiences import writes as audience_writes
from app.services.audiences.writes import AudienceFields
from app.services.lists.paging import LARGEST_PAGE
from app.storage.tables.audiences import AudienceRow

_COMPUTED, _EXTERNAL = "Computed audiences only: ", "External audiences only: "


@strawberry.input(description="Where an external audience was made.")
class LinkedAudienceRefInput:
    flow_id: str | None = strawberry.field(default=strawberry.UNSET, description="Data flow that brings it.")
    ao_workflow_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Workflow of the orchestration that makes it."
    )
    payload_field_group_ref: str | None = strawberry.field(
        default=strawberry.UNSET, description="Field group of its payload columns."
    )
    audience_folder_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Folder in the system that it comes from."
    )

    def as_ref(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if given(value) is not None}


@strawberry.input(description="A new audience. A computed one is made together with the definition that computes it.")
class CreateAudienceInput:
    name: str = strawberry.field(description="Name; unique among computed audiences.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What it is for.")
    type: AudienceType = strawberry.field(
        default=AudienceType.SEGMENT_DEFINITION, description="Where its members come from."
    )
    expression: str | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "who is in it, in PQL: `xEvent.sum(dollars) > 500`."
    )
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="How the expression is written."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "when it is evaluated; BATCH unless given."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "how profiles are merged; the default policy unless given."
    )
    audience_id: str | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "what its maker knows it by, unique in its namespace."
    )
    namespace: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "namespace of its `audienceId`; `CustomerAudienceUpload` unless given.",
    )
    origin: AudienceOrigin | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "where it was made; CUSTOM_UPLOAD unless given."
    )
    dataset_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "dataset of kind AUDIENCE whose people are its members."
    )
    ttl_in_days: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "days after an upload until the members expire; 30 unless given.",
    )
    audience_meta: JSON | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "what its maker wants to note; not read here."
    )
    linked_audience_ref: LinkedAudienceRefInput | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "where it was made."
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether people who opted out are never members; true unless given."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, such as `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Folder of its namespace to put it in."
    )
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET, description="PUBLISHED unless given."
    )

    def as_fields(self) -> AudienceFields:
        """Only what is given: null is what leaving it out is."""
        return cast(AudienceFields, {name: value for name, value in _fields(self).items() if value is not None})


@strawberry.input(description="Changes of an audience: only the given fields change; null clears one that may be null.")
class UpdateAudienceInput:
    id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="As it was read; refused when it has changed since. Unchecked unless given.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name; unique among computed audiences.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="What it is for.")
    expression: str | None = strawberry.field(default=strawberry.UNSET, description=_COMPUTED + "who is in it, in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=strawberry.UNSET, description="How the expression is written; PQL_TEXT unless given."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "when it is evaluated."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "how profiles are merged."
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether people who opted out are never members."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, such as `core/C1`."
    )
    ttl_in_days: int | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "days after an upload until the members expire."
    )
    dataset_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "dataset whose people are its members from now on; null for none.",
    )
    audience_meta: JSON | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "what its maker wants to note; not read here."
    )
    linked_audience_ref: LinkedAudienceRefInput | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "where it was made."
    )
    folder_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Folder of its namespace; null for the root."
    )
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET,
        description="DRAFT and INACTIVE may be followed by PUBLISHED, PUBLISHED by INACTIVE while nobody relies on it.",
    )

    def as_fields(self) -> AudienceFields:
        """Raises `Refusals` for nulls where there must be a value."""
        fields = _fields(self)
        message = "it cannot be null: leave it out to keep it as it is"
        nulls = [name for name, value in fields.items() if value is None and name not in _CLEARABLE]
        refuse_all([Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in nulls])
        return cast(AudienceFields, fields)


_CLEARABLE = {"description", "dataset_id", "audience_meta", "linked_audience_ref", "folder_id"}


def _fields(source: CreateAudienceInput | UpdateAudienceInput) -> dict[str, Any]:
    """What is given, as services take it; null is None."""
    converted: dict[str, Callable[[Any], Any]] = {
        "evaluation_methods": names,
        "merge_policy_id": lambda id_: one_id("MergePolicy", id_, "merge_policy_id"),
        "dataset_id": lambda id_: one_id("Dataset", id_, "dataset_id"),
        "folder_id": lambda id_: one_id("Folder", id_, "folder_id"),
        "origin": one_name,
        "lifecycle_state": one_name,
        "linked_audience_ref": lambda ref: None if ref is None else ref.as_ref(),
    }
    found = {
        name: converted.get(name, lambda value: value)(value)
        for name, value in vars(source).items()
        if name in AudienceFields.__annotations__ and name != "format" and value is not strawberry.UNSET
    }
    if found.get("expression") is not None:
        found["format"] = service_format(given(source.format))
    return found


@strawberry.input(description="An audience as it is to be.")
class ReplaceAudienceInput:
    id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="As it was read; refused when it has changed since. Unchecked unless given.",
    )
    audience: CreateAudienceInput = strawberry.field(
        description="All of it: what is left out returns to its default. Its type, `audienceId` and `namespace` stay."
    )


@strawberry.input(description="People by identity namespace.")
class NamespaceCountInput:
    namespace: str = strawberry.field(description="Identity namespace.")
    count: BigInt = strawberry.field(description="How many people have an identity in it.")


@strawberry.input(description="How many people are in an audience, as somebody else counted them.")
class AudienceMetricsInput:
    audience_id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    total_profiles: BigInt = strawberry.field(description="People in the audience.")
    by_namespace: list[NamespaceCountInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The same by identity namespace; none unless given."
    )


@strawberry.type(description="Outcome of a change to an audience.")
class AudiencePayload:
    audience: Audience | None = strawberry.field(description="The audience; null when it was refused.")
    warnings: list[PqlDiagnostic] = strawberry.field(
        description="What speaks against the expression though it can be used, such as another definition that says "
        "the same."
    )
    errors: list[UserError] = errors_field()

    @classmethod
    async def of(cls, context: Operation, row: AudienceRow | None, errors: list[UserError]) -> Self:
        if row is None:
            return cls(audience=None, warnings=[], errors=errors)
        warnings: list[PqlDiagnostic] = []
        if (view := await context.loaders.definition.load(row.id)) is not None:
            found = await definitions.duplicates(
                context.services.database, context.scope, view.expression, view.canonical, but=row.id
            )
            warnings = [PqlDiagnostic.of(each) for each in found]
        return cls(audience=Audience.of(row), warnings=warnings, errors=errors)


@strawberry.type(description="Outcome of writing the metrics of many audiences: all of them, or none.")
class AudienceMetricsPayload:
    audiences: list[Audience] = strawberry.field(
        description="The audiences in the order of the input; empty when anything was refused."
    )
    errors: list[UserError] = errors_field()


NewAudienceArgument = Annotated[CreateAudienceInput, strawberry.argument(description="What it is to be.")]
UpdateArgument = Annotated[UpdateAudienceInput, strawberry.argument(description="Which one, and what changes.")]
ReplaceArgument = Annotated[ReplaceAudienceInput, strawberry.argument(description="Which one, and what it is to be.")]
MetricsArgument = Annotated[
    list[AudienceMetricsInput], strawberry.argument(description=f"The audiences, at most {LARGEST_PAGE}.")
]


@strawberry.type
class AudienceMutations:
    @mutation(description="Makes an audience: a computed one with its definition, or an external one.")
    async def create_audience(self, info: Info, input: NewAudienceArgument) -> AudiencePayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> AudienceRow:
            return await audience_writes.create(
                services.database, services.lake, services.clock, scope, input.type.value, input.as_fields()
            )

        row, errors = await attempt(info, create, "input")
        return await AudiencePayload.of(info.context, row, errors)

    @mutation(description="Changes an audience; jobs that run already keep the old one.")
    async def update_audience(self, info: Info, input: UpdateArgument) -> AudiencePayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> AudienceRow:
            raw = need_id("Audience", input.id, "id")
            return await audience_writes.update(
                services.database, services.lake, services.clock, scope, raw, given(input.etag), input.as_fields()
            )

        row, errors = await attempt(info, update, "input")
        return await AudiencePayload.of(info.context, row, errors)

    @mutation(description="Overwrites an audience: what is not given returns to its default.")
    async def replace_audience(self, info: Info, input: ReplaceArgument) -> AudiencePayload:
        services, scope, new = info.context.services, info.context.scope, input.audience

        async def replace() -> AudienceRow:
            raw = need_id("Audience", input.id, "id")
            return await audience_writes.replace(
                services.database,
                services.lake,
                services.clock,
                scope,
                raw,
                given(input.etag),
                new.type.value,
                new.as_fields(),
            )

        row, errors = await attempt(info, replace, "input", names=_INSIDE)
        return await AudiencePayload.of(info.context, row, errors)

    @mutation(description="Deletes an audience, and its definition if it is computed; refused while others rely on it.")
    async def delete_audience(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Audience", input.id, "id")
            raw = await audience_writes.delete(services.database, services.clock, scope, raw, given(input.etag))
            return global_id("Audience", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)

    @mutation(
        description="Writes how many people are in each of many audiences, as counted elsewhere: all numbers, or none "
        "when one of them is refused. The next job or upload counts anew; etags stay as they are."
    )
    async def update_audience_metrics(self, info: Info, input: MetricsArgument) -> AudienceMetricsPayload:
        services, scope = info.context.services, info.context.scope

        async def write() -> list[AudienceRow]:
            items = [
                audience_writes.NewMetrics(
                    need_id("Audience", item.audience_id, str(at), "audience_id"),
                    item.total_profiles,
                    tuple((one.namespace, one.count) for one in given(item.by_namespace) or ()),
                )
                for at, item in enumerate(input)
            ]
            return await audience_writes.write_metrics(services.database, services.clock, scope, items)

        rows, errors = await attempt(info, write, "input")
        return AudienceMetricsPayload(audiences=[Audience.of(row) for row in rows or []], errors=errors)


_INSIDE = {name: ("audience", camel(name)) for name in ("type", *AudienceFields.__annotations__)}
"""Where the fields of an audience stand in the input of `replaceAudience`."""
