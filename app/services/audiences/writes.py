"""Creates, updates, replaces and deletes audiences of either type, through the service of that type."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, cast

from sqlalchemy import update as update_rows

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal, Refusals, refuse_all
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences import computed as definitions
from app.services.audiences import external as external_audiences
from app.services.audiences import reads as audiences
from app.services.audiences.definition_rules import DefinitionChanges, NewDefinition
from app.services.evaluation.expressions import ExpressionFormat
from app.services.lists.paging import LARGEST_PAGE
from app.storage.columns import StoredValues, columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow, AudienceType, LifecycleState
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)


class AudienceFields(TypedDict, total=False):
    """The fields of an audience's input; in an update, only keys that are present change."""

    name: str
    description: str | None
    expression: str
    format: ExpressionFormat
    evaluation_methods: Collection[str]
    merge_policy_id: str
    audience_id: str
    namespace: str
    origin: str
    dataset_id: str | None
    ttl_in_days: int
    audience_meta: Any
    linked_audience_ref: Mapping[str, Any] | None
    exclude_opt_out: bool
    labels: Sequence[str]
    folder_id: str | None
    lifecycle_state: LifecycleState


_COMPUTED = {"expression", "evaluation_methods", "merge_policy_id"}
_IDENTITY = {"audience_id", "namespace"}
_EXTERNAL = _IDENTITY | {"origin", "dataset_id", "ttl_in_days", "audience_meta", "linked_audience_ref"}
_STRANGE = {
    AudienceType.SEGMENT_DEFINITION: (_EXTERNAL, "only an external audience has it: omit it"),
    AudienceType.EXTERNAL_SEGMENT: (_COMPUTED, "only a computed audience has it: omit it"),
}
"""For each type, the fields that only the other type has, with an error message."""


@dataclass(frozen=True, slots=True)
class NewMetrics:
    """The number of people in an audience, as counted by another system."""

    audience_id: str
    total_profiles: int
    by_namespace: Sequence[tuple[str, int]] = ()


async def create(
    database: Database, lake: Lake, clock: Clock, scope: Scope, type: AudienceType, fields: AudienceFields
) -> AudienceRow:
    """Creates an audience and, if it is computed, its definition. Raises `Refusals` or `Refusal`."""
    _refuse_strange(type, fields)
    values: StoredValues = dict(fields)
    if type == AudienceType.EXTERNAL_SEGMENT:
        return await external_audiences.create(database, lake, clock, scope, external_audiences.NewExternal(**values))
    view = await definitions.create(database, lake, clock, scope, NewDefinition(**values))
    return await _row(database, scope, view.id)


async def update(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, fields: AudienceFields
) -> AudienceRow:
    """Updates the given fields. Raises like `create`, `StaleEtag` and `HasDependents`."""
    current = await _row(database, scope, id)
    _refuse_strange(current.type, fields, whole=False)
    if current.type == AudienceType.EXTERNAL_SEGMENT:
        changes = cast(external_audiences.ExternalChanges, fields)
        return await external_audiences.update(database, lake, clock, scope, current.id, etag, changes)
    rewritten = cast(DefinitionChanges, fields)
    await definitions.update(database, lake, clock, scope, current.id, etag, rewritten)
    return await _row(database, scope, current.id)


@dataclass(frozen=True, slots=True)
class Replacement:
    """The complete new state of an audience."""

    type: AudienceType
    fields: AudienceFields


async def replace(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, new: Replacement
) -> AudienceRow:
    """Replaces all fields; omitted ones return to their defaults. The type and the audience id from the source system
    stay. Raises like `update`."""
    type, fields = new.type, new.fields
    current = await _row(database, scope, id)
    refusals = [
        Refusal(
            ErrorCode.INVALID_INPUT,
            f"it is {getattr(current, name)!r}, and cannot be changed after creation: create a new audience",
            (name,),
        )
        for name, value in {"type": type, **fields}.items()
        if name in {"type", *_IDENTITY} and value != getattr(current, name)
    ]
    refuse_all(refusals)
    values: StoredValues = {name: value for name, value in fields.items() if name not in _IDENTITY}
    _refuse_strange(type, values)
    if type == AudienceType.EXTERNAL_SEGMENT:
        external = external_audiences.NewExternal(**values)
        changes = {name: getattr(external, name) for name in external_audiences.ExternalChanges.__annotations__}
    else:
        plain = NewDefinition(**values)
        policy = await merge_policies.choose(database, clock, scope, plain.merge_policy_id)
        changes = {name: getattr(plain, name) for name in DefinitionChanges.__annotations__}
        changes |= {"merge_policy_id": policy.id, "evaluation_methods": plain.evaluation_methods or ("BATCH",)}
    return await update(database, lake, clock, scope, current.id, etag, cast(AudienceFields, changes))


async def delete(database: Database, clock: Clock, scope: Scope, id: str, etag: str | None = None) -> str:
    """Deletes an audience and its definition, if any. Returns its raw id. Raises `HasDependents`."""
    current = await _row(database, scope, id)
    if current.type == AudienceType.EXTERNAL_SEGMENT:
        await external_audiences.delete(database, scope, current.id, etag)
    else:
        await definitions.delete(database, clock, scope, current.id, etag)
    return current.id


async def write_metrics(
    database: Database, clock: Clock, scope: Scope, items: Sequence[NewMetrics]
) -> list[AudienceRow]:
    """Writes all of the counts, or none if one of them is invalid. Raises `Refusals`.

    The next job or upload overwrites them. Etags do not change, so concurrent edits are not affected.
    """
    if not 1 <= len(items) <= LARGEST_PAGE:
        message = f"the metrics of 1 to {LARGEST_PAGE} audiences are written at once, not of {len(items):,}"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)
    now = clock()
    async with database.write(scope.tenant) as session:
        rows_by_id = await audiences.get_many(session, scope, [item.audience_id for item in items])
        ids = [rows_by_id[item.audience_id].id if item.audience_id in rows_by_id else None for item in items]
        refuse_all([refusal for at, item in enumerate(items) for refusal in _wrong_metrics(at, item, ids)])
        for id_, item in zip(ids, items, strict=True):
            change = within(update_rows(AudienceRow), AudienceRow, scope.tenant).where(_AUDIENCES.id == id_)
            await session.execute(
                change.values(
                    total_profiles=item.total_profiles,
                    by_namespace=dict(item.by_namespace),
                    metrics_updated_at=now,
                    metrics_job_id=None,
                )
            )
        present_ids = [id_ for id_ in ids if id_ is not None]
        await audiences.publish_change(session, scope, *present_ids)
        rows = await audiences.get_many(session, scope, present_ids)
        return [rows[id_] for id_ in present_ids]


# ---------------------------------------------------------------- rules


def _refuse_strange(type: AudienceType, fields: Mapping[str, object], *, whole: bool = True) -> None:
    """Raises `Refusals` for fields of the other type and, if the fields describe the whole audience, for a missing
    expression."""
    strange, message = _STRANGE[type]
    refusals = [Refusal(ErrorCode.INVALID_INPUT, message, (name,)) for name in fields if name in strange]
    if whole and type == AudienceType.SEGMENT_DEFINITION and "expression" not in fields:
        missing = "an audience of type SEGMENT_DEFINITION is computed from an expression: say who is in it, in PQL"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, missing, ("expression",)))
    refuse_all(refusals)


def _wrong_metrics(at: int, item: NewMetrics, ids: Sequence[str | None]) -> list[Refusal]:
    refusals = []

    def refuse(message: str, *path: str, code: ErrorCode = ErrorCode.INVALID_INPUT) -> None:
        refusals.append(Refusal(code, message, (str(at), *path)))

    if ids[at] is None:
        message = f"there is no audience {item.audience_id!r} in this sandbox"
        refuse(message, "audience_id", code=ErrorCode.NOT_FOUND)
    elif ids[at] in ids[:at]:
        refuse(f"audience {item.audience_id!r} is given twice: send it once", "audience_id")
    if item.total_profiles < 0:
        refuse(f"an audience cannot have {item.total_profiles:,} profiles", "total_profiles")
    names = [name for name, _ in item.by_namespace]
    for place, (name, number) in enumerate(item.by_namespace):
        where = ("by_namespace", str(place))
        if name in names[:place]:
            refuse(f"namespace {name!r} is given twice: send it once", *where, "namespace")
        if not 0 <= number <= max(item.total_profiles, 0):
            message = (
                f"{number:,} people with an identity in {name!r} are not between 0 and all {item.total_profiles:,}"
            )
            refuse(message, *where, "count")
    return refusals


async def _row(database: Database, scope: Scope, id: str) -> AudienceRow:
    async with database.session() as session:
        return await audiences.required(session, scope, id)


__all__ = ["AudienceFields", "NewMetrics", "Refusals", "create", "delete", "replace", "update", "write_metrics"]
