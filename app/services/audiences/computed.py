"""Creates, updates and deletes segment definitions: named, versioned expressions. Each shares its id and its name,
labels and state with the audience it computes."""

from typing import Any

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import (
    refuse_all,
)
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences.definition_reads import DefinitionView, get_many, required
from app.services.audiences.definition_rows import (
    delete_all,
    next_version,
    write_audience,
    write_current,
    write_dependencies,
    write_new,
)
from app.services.audiences.definition_rules import (
    DefinitionChanges,
    Limit,
    NewDefinition,
    accept,
    misfits,
    refuse_new,
    refuse_update,
)
from app.services.audiences.lifecycle import HOLDERS, refuse_start
from app.services.audiences.reads import METHOD_COLUMNS, publish_change
from app.services.evaluation.expressions import ExpressionFormat
from app.services.lists.dependents import refuse_dependents
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceType
from app.storage.tables.merge_policies import MergePolicyRow


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewDefinition) -> DefinitionView:
    """Creates a definition and its audience. Raises `Refusals`, `ExpressionRefused` or `Refusal`."""
    policy = await merge_policies.choose(database, clock, scope, new.merge_policy_id)
    checked = await accept(
        database, lake, scope, new, refuse_start(AudienceType.SEGMENT_DEFINITION, new.lifecycle_state)
    )
    now = clock()
    id_ = new_id(now)
    async with database.write(scope.tenant) as session:
        await refuse_new(session, scope, new, checked)
        view = await write_new(session, scope, id_, new, policy.id, checked, now)
        await publish_change(session, scope, id_)
    return view


async def update(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, changes: DefinitionChanges
) -> DefinitionView:
    """Updates the given fields; a new expression or merge policy creates a new version. Raises like `create`, and
    `StaleEtag`."""
    async with database.session() as session:
        current = await required(session, scope, id, etag)
    policy = await merge_policies.choose(
        database, clock, scope, changes.get("merge_policy_id") or current.merge_policy_id
    )
    merged = _merged(current, changes, policy)
    # Changes of the data since then must not prevent a new name or a deactivation.
    checked = None
    if changes.keys() & {"expression", "evaluation_methods", "limit"}:
        checked = await accept(database, lake, scope, merged)
    else:
        refuse_all(misfits(merged))
    async with database.write(scope.tenant) as session:
        now, fresh = clock(), await required(session, scope, id, str(current.revision) if etag is None else etag)
        version = next_version(fresh, merged, checked, policy, now)
        await refuse_update(session, scope, fresh, merged, checked, version is not None)
        await write_audience(session, scope, fresh, merged, now)
        if version is not None:
            await write_current(session, scope, version)
        if checked is not None:
            await write_dependencies(session, scope, id, checked)
        await publish_change(session, scope, id)
        return (await get_many(session, scope, [id]))[id]


async def delete(database: Database, clock: Clock, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes definition and audience; jobs keep what they ran. Raises `HasDependents` if it is in use."""
    async with database.write(scope.tenant) as session:
        await required(session, scope, id, etag)
        await refuse_dependents(session, scope, id, "id", HOLDERS)
        await publish_change(session, scope, id)
        await delete_all(session, scope, id)


# ---------------------------------------------------------------- the merged input


def _merged(current: DefinitionView, changes: DefinitionChanges, policy: MergePolicyRow) -> NewDefinition:
    """The definition after the update. Its stored expression is text, whatever format was sent."""
    format = changes.get("format", ExpressionFormat.PQL_TEXT)
    return NewDefinition(
        name=changes.get("name", current.name),
        expression=changes.get("expression", current.expression),
        description=changes.get("description", current.description),
        format=format if "expression" in changes else ExpressionFormat.PQL_TEXT,
        evaluation_methods=changes.get("evaluation_methods", _methods(current)),
        merge_policy_id=policy.id,
        exclude_opt_out=_unless_none(changes.get("exclude_opt_out"), current.exclude_opt_out),
        labels=_unless_none(changes.get("labels"), current.labels),
        folder_id=changes.get("folder_id", current.folder_id),
        lifecycle_state=changes.get("lifecycle_state", current.lifecycle_state),
        limit=changes.get("limit", None if current.kept is None else Limit(**current.kept)),
    )


def _methods(view: DefinitionView) -> tuple[str, ...]:
    return tuple(method for column, method in METHOD_COLUMNS.items() if getattr(view, column))


def _unless_none(value: object, otherwise: object) -> Any:
    return otherwise if value is None else value
