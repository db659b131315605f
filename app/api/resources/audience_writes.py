"""Creates, updates, replaces and deletes audiences: inputs, payloads and mutations of the resource in `audiences`."""

from collections.abc import Callable
from typing import Annotated, Any, Self, cast

import strawberry
from strawberry.scalars import JSON

from app.api.context import Info
from app.api.described import mutation, resolver
from app.api.errors import PqlDiagnostic, UserError, attempt, camel, errors_field
from app.api.global_ids import global_id, need_id
from app.api.lists.filters import names, one_id, one_name, one_of
from app.api.resources.audiences import Audience, AudienceOrigin, AudienceType, EvaluationMethod, LifecycleState
from app.api.resources.definition_writes import WARNINGS, warnings_of
from app.api.resources.deletions import DeleteArgument, DeletePayload
from app.api.resources.pql import ExpressionFormat, service_format
from app.api.scalars import BigInt, given
from app.errors import ErrorCode, Refusal, refuse_all
from app.services.audiences import writes as audience_writes
from app.services.audiences.writes import AudienceFields
from app.services.lists.paging import LARGEST_PAGE
from app.storage.columns import StoredValues
from app.storage.tables import audiences as tables
from app.storage.tables.audiences import AudienceRow

_COMPUTED, _EXTERNAL = "Computed audiences only: ", "External audiences only: "


@strawberry.input(description="Origin of an external audience.")
class LinkedAudienceRefInput:
    flow_id: str | None = strawberry.field(default=strawberry.UNSET, description="Data flow that delivers it.")
    ao_workflow_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Orchestration workflow that creates it."
    )
    payload_field_group_ref: str | None = strawberry.field(
        default=strawberry.UNSET, description="Field group of its payload columns."
    )
    audience_folder_id: str | None = strawberry.field(
        default=strawberry.UNSET, description="Folder in the system that it comes from."
    )

    def as_ref(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if given(value) is not None}


@strawberry.input(description="The audience to create. A computed audience is created together with its definition.")
class CreateAudienceInput:
    name: str = strawberry.field(description="Name; unique among computed audiences.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description.")
    type: AudienceType = strawberry.field(
        default=AudienceType.SEGMENT_DEFINITION, description="How its members are determined."
    )
    expression: str | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "condition in PQL, for example `xEvent.sum(dollars) > 500`."
    )
    format: ExpressionFormat | None = strawberry.field(
        default=ExpressionFormat.PQL_TEXT, description="Format of the expression."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "evaluation methods; default BATCH."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "merge policy; default the sandbox's default policy."
    )
    audience_id: str | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "the creator's own id, unique in its namespace."
    )
    namespace: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "namespace of its `audienceId`; default `CustomerAudienceUpload`.",
    )
    origin: AudienceOrigin | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "system that created it; default CUSTOM_UPLOAD."
    )
    dataset_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "dataset of kind AUDIENCE that holds its members."
    )
    ttl_in_days: int | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "days after an upload until the members expire; default 30.",
    )
    audience_meta: JSON | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "free-form metadata; stored and returned unchanged."
    )
    linked_audience_ref: LinkedAudienceRefInput | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "free-form origin."
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether profiles that opted out are excluded; default true."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, for example `core/C1`."
    )
    folder_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Folder, of the same namespace."
    )
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET, description="Initial state; default PUBLISHED."
    )

    def as_fields(self) -> AudienceFields:
        """Only the given fields; null is equivalent to omitting a field."""
        return cast(AudienceFields, {name: value for name, value in _fields(self).items() if value is not None})


@strawberry.input(description="Changes to an audience: only the given fields change; null clears an optional field.")
class UpdateAudienceInput:
    id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    name: str | None = strawberry.field(default=strawberry.UNSET, description="Name; unique among computed audiences.")
    description: str | None = strawberry.field(default=strawberry.UNSET, description="Description.")
    expression: str | None = strawberry.field(default=strawberry.UNSET, description=_COMPUTED + "condition in PQL.")
    format: ExpressionFormat | None = strawberry.field(
        default=strawberry.UNSET, description="Format of the expression; default PQL_TEXT."
    )
    evaluation_methods: list[EvaluationMethod] | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "evaluation methods."
    )
    merge_policy_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description=_COMPUTED + "merge policy."
    )
    exclude_opt_out: bool | None = strawberry.field(
        default=strawberry.UNSET, description="Whether profiles that opted out are excluded."
    )
    labels: list[str] | None = strawberry.field(
        default=strawberry.UNSET, description="Data usage labels, for example `core/C1`."
    )
    ttl_in_days: int | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "days after an upload until the members expire."
    )
    dataset_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET,
        description=_EXTERNAL + "dataset that holds its members from now on; null for none.",
    )
    audience_meta: JSON | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "free-form metadata; stored and returned unchanged."
    )
    linked_audience_ref: LinkedAudienceRefInput | None = strawberry.field(
        default=strawberry.UNSET, description=_EXTERNAL + "free-form origin."
    )
    folder_id: strawberry.ID | None = strawberry.field(
        default=strawberry.UNSET, description="Folder, of the same namespace; null for the root."
    )
    lifecycle_state: LifecycleState | None = strawberry.field(
        default=strawberry.UNSET,
        description=(
            "DRAFT and INACTIVE can become PUBLISHED; PUBLISHED can become INACTIVE while nothing depends on it."
        ),
    )

    def as_fields(self) -> AudienceFields:
        """Raises `Refusals` for null in a required field."""
        fields = _fields(self)
        message = "it cannot be null: omit it to keep it as it is"
        nulls = [name for name, value in fields.items() if value is None and name not in _CLEARABLE]
        refuse_all([Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in nulls])
        return cast(AudienceFields, fields)


_CLEARABLE = {"description", "dataset_id", "audience_meta", "linked_audience_ref", "folder_id"}


def _fields(source: CreateAudienceInput | UpdateAudienceInput) -> StoredValues:
    """The given fields as services take them; null becomes None."""
    converted: dict[str, Callable[[Any], Any]] = {
        "evaluation_methods": names,
        "merge_policy_id": lambda id_: one_id("MergePolicy", id_, "merge_policy_id"),
        "dataset_id": lambda id_: one_id("Dataset", id_, "dataset_id"),
        "folder_id": lambda id_: one_id("Folder", id_, "folder_id"),
        "origin": one_name,
        "lifecycle_state": lambda state: one_of(tables.LifecycleState, state),
        "linked_audience_ref": lambda ref: None if ref is None else ref.as_ref(),
    }
    fields = {
        name: converted.get(name, lambda value: value)(value)
        for name, value in vars(source).items()
        if name in AudienceFields.__annotations__ and name != "format" and value is not strawberry.UNSET
    }
    if fields.get("expression") is not None:
        fields["format"] = service_format(given(source.format))
    return fields


@strawberry.input(description="The new state of an audience.")
class ReplaceAudienceInput:
    id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    etag: str | None = strawberry.field(
        default=strawberry.UNSET,
        description="Optimistic lock: the mutation is rejected if the etag no longer matches. Default: no check.",
    )
    audience: CreateAudienceInput = strawberry.field(
        description=(
            "The new state: omitted fields return to their defaults. Type, `audienceId` and `namespace` do not change."
        )
    )


@strawberry.input(description="Number of profiles by identity namespace.")
class NamespaceCountInput:
    namespace: str = strawberry.field(description="Identity namespace.")
    count: BigInt = strawberry.field(description="Number of profiles with an identity in it.")


@strawberry.input(description="Size of an audience, as counted by another system.")
class AudienceMetricsInput:
    audience_id: strawberry.ID = strawberry.field(description="Global id, or the raw `audienceId`.")
    total_profiles: BigInt = strawberry.field(description="Number of members.")
    by_namespace: list[NamespaceCountInput] | None = strawberry.field(
        default=strawberry.UNSET, description="The same, by identity namespace; default none."
    )


@strawberry.type(description="Result of a mutation of an audience.")
class AudiencePayload:
    audience: Audience | None = strawberry.field(description="The audience; null if rejected.")
    errors: list[UserError] = errors_field()
    written: strawberry.Private[AudienceRow | None] = None

    @classmethod
    def of(cls, row: AudienceRow | None, errors: list[UserError]) -> Self:
        return cls(audience=None if row is None else Audience.of(row), errors=errors, written=row)

    @resolver(description=WARNINGS)
    async def warnings(self, info: Info) -> list[PqlDiagnostic]:
        if self.written is None:
            return []
        return await warnings_of(info.context, await info.context.loaders.definition.load(self.written.id))


@strawberry.type(description="Result of writing the metrics of several audiences: all are written, or none.")
class AudienceMetricsPayload:
    audiences: list[Audience] = strawberry.field(
        description="The audiences in the order of the input; empty if anything was rejected."
    )
    errors: list[UserError] = errors_field()


NewAudienceArgument = Annotated[CreateAudienceInput, strawberry.argument(description="The object to create.")]
UpdateArgument = Annotated[UpdateAudienceInput, strawberry.argument(description="The object and the fields to change.")]
ReplaceArgument = Annotated[ReplaceAudienceInput, strawberry.argument(description="The object and its new state.")]
MetricsArgument = Annotated[
    list[AudienceMetricsInput], strawberry.argument(description=f"The audiences, at most {LARGEST_PAGE}.")
]


@strawberry.type
class AudienceMutations:
    @mutation(description="Creates an audience: computed, together with its definition, or external.")
    async def create_audience(self, info: Info, input: NewAudienceArgument) -> AudiencePayload:
        services, scope = info.context.services, info.context.scope

        async def create() -> AudienceRow:
            return await audience_writes.create(
                services.database,
                services.lake,
                services.clock,
                scope,
                tables.AudienceType(input.type.value),
                input.as_fields(),
            )

        row, errors = await attempt(info, create, "input")
        return AudiencePayload.of(row, errors)

    @mutation(description="Updates an audience; running jobs keep the previous state.")
    async def update_audience(self, info: Info, input: UpdateArgument) -> AudiencePayload:
        services, scope = info.context.services, info.context.scope

        async def update() -> AudienceRow:
            raw = need_id("Audience", input.id, "id")
            return await audience_writes.update(
                services.database, services.lake, services.clock, scope, raw, given(input.etag), input.as_fields()
            )

        row, errors = await attempt(info, update, "input")
        return AudiencePayload.of(row, errors)

    @mutation(description="Replaces an audience: omitted fields return to their defaults.")
    async def replace_audience(self, info: Info, input: ReplaceArgument) -> AudiencePayload:
        services, scope, new = info.context.services, info.context.scope, input.audience

        async def replace() -> AudienceRow:
            raw = need_id("Audience", input.id, "id")
            whole = audience_writes.Replacement(tables.AudienceType(new.type.value), new.as_fields())
            return await audience_writes.replace(
                services.database, services.lake, services.clock, scope, raw, given(input.etag), whole
            )

        row, errors = await attempt(info, replace, "input", names=_INSIDE)
        return AudiencePayload.of(row, errors)

    @mutation(
        description="Deletes an audience, and its definition if it is computed; rejected while anything depends on it."
    )
    async def delete_audience(self, info: Info, input: DeleteArgument) -> DeletePayload:
        services, scope = info.context.services, info.context.scope

        async def delete() -> strawberry.ID:
            raw = need_id("Audience", input.id, "id")
            raw = await audience_writes.delete(services.database, services.clock, scope, raw, given(input.etag))
            return global_id("Audience", raw)

        deleted, errors = await attempt(info, delete, "input")
        return DeletePayload(deleted_id=deleted, errors=errors)

    @mutation(
        description=(
            "Sets the sizes of several audiences as counted by another system: all of them, or none if "
            "one is rejected. The next job or upload counts again; etags do not change."
        )
    )
    async def update_audience_metrics(self, info: Info, input: MetricsArgument) -> AudienceMetricsPayload:
        services, scope = info.context.services, info.context.scope

        async def write() -> list[AudienceRow]:
            items = [
                audience_writes.NewMetrics(
                    need_id("Audience", item.audience_id, str(at), "audience_id"),
                    item.total_profiles,
                    tuple((count.namespace, count.count) for count in given(item.by_namespace) or ()),
                )
                for at, item in enumerate(input)
            ]
            return await audience_writes.write_metrics(services.database, services.clock, scope, items)

        rows, errors = await attempt(info, write, "input")
        return AudienceMetricsPayload(audiences=[Audience.of(row) for row in rows or []], errors=errors)


_INSIDE = {name: ("audience", camel(name)) for name in ("type", *AudienceFields.__annotations__)}
"""Paths of an audience's fields in the input of `replaceAudience`."""
