"""The rows of a segment definition: definition, audience, versions and references."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete as delete_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.pql.check.checker import Checked
from app.scope import Scope
from app.services.audiences.definition_reads import DefinitionView, view_of
from app.services.audiences.definition_rules import PROFILE_SCHEMA, Limit, NewDefinition
from app.services.audiences.reads import METHOD_COLUMNS
from app.services.evaluation.expressions import ExpressionFormat
from app.storage.columns import StoredValues, columns
from app.storage.sessions.writing import insert_rows, update_row
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow, DefinitionVersionRow
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tenancy import within

_AUDIENCES = columns(AudienceRow)
_DEFINITIONS = columns(DefinitionRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a definition: its expression as written and in canonical form, and its merge policy."""

    definition_id: str
    version: int
    expression: str
    canonical: str
    kept: StoredValues | None
    merge_policy_id: str
    created_at: datetime


def kept(limit: Limit | None) -> StoredValues | None:
    """A limit in its stored form."""
    return None if limit is None else asdict(limit)


def next_version(
    current: DefinitionView, merged: NewDefinition, checked: Checked | None, policy: MergePolicyRow, now: datetime
) -> Version | None:
    """The next version; None if neither expression (`checked` is None without a new one), limit nor merge policy
    changes."""
    text, canonical = current.expression, current.canonical
    if checked is not None:
        text, canonical = _text_of(merged.expression, merged.format, checked), str(checked.canonical)
    limit = kept(merged.limit)
    if (text, policy.id, limit) == (current.expression, current.merge_policy_id, current.kept):
        return None
    return Version(current.id, current.version + 1, text, canonical, limit, policy.id, now)


def _text_of(expression: str, format: ExpressionFormat, checked: Checked) -> str:
    """Text is stored as written; pql/json is stored as the equivalent text."""
    return expression if format is ExpressionFormat.PQL_TEXT else str(checked.canonical)


def _flags(methods: Collection[str] | None) -> StoredValues:
    """The columns that tell when an audience is evaluated."""
    evaluated_by = ("BATCH",) if methods is None else methods
    return {column: method in evaluated_by for column, method in METHOD_COLUMNS.items()}


async def write_new(
    session: AsyncSession,
    scope: Scope,
    id: str,
    new: NewDefinition,
    policy_id: str,
    checked: Checked,
    now: datetime,
) -> DefinitionView:
    """Writes the rows of a new definition with its first version."""
    audience = AudienceRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=id,
        audience_id=id,
        name=new.name,
        description=new.description,
        lifecycle_state=new.lifecycle_state,
        labels=list(new.labels),
        exclude_opt_out=new.exclude_opt_out,
        **_flags(new.evaluation_methods),
        merge_policy_id=policy_id,
        folder_id=new.folder_id,
        created_by=scope.user,
        last_modified_by=scope.user,
        created_at=now,
        updated_at=now,
    )
    await insert_rows(session, audience)
    text = _text_of(new.expression, new.format, checked)
    version = Version(id, 1, text, str(checked.canonical), kept(new.limit), policy_id, now)
    definition = DefinitionRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=id,
        version=version.version,
        expression=version.expression,
        canonical=version.canonical,
        kept=version.kept,
        schema_name=PROFILE_SCHEMA,
    )
    await insert_rows(session, definition)
    await _write_version(session, scope, version)
    await _add_dependencies(session, scope, id, checked)
    return view_of(audience, definition)


async def write_audience(
    session: AsyncSession, scope: Scope, current: DefinitionView, merged: NewDefinition, now: datetime
) -> None:
    values = {
        "name": merged.name,
        "description": merged.description,
        "labels": list(merged.labels),
        **_flags(merged.evaluation_methods),
        "exclude_opt_out": merged.exclude_opt_out,
        "merge_policy_id": merged.merge_policy_id,
        "folder_id": merged.folder_id,
        "lifecycle_state": merged.lifecycle_state,
        "revision": current.revision + 1,
        "last_modified_by": scope.user,
        "updated_at": now,
    }
    await update_row(session, AudienceRow, scope.tenant, current.id, values)


async def write_current(session: AsyncSession, scope: Scope, version: Version) -> None:
    """Makes the version the current one."""
    values = {name: getattr(version, name) for name in ("version", "expression", "canonical", "kept")}
    await update_row(session, DefinitionRow, scope.tenant, version.definition_id, values)
    await _write_version(session, scope, version)


async def _write_version(session: AsyncSession, scope: Scope, version: Version) -> None:
    tenant: StoredValues = {"organisation": scope.organisation, "sandbox": scope.sandbox}
    await insert_rows(session, DefinitionVersionRow(**tenant, **asdict(version), created_by=scope.user))


async def write_dependencies(session: AsyncSession, scope: Scope, id: str, checked: Checked) -> None:
    old = within(delete_rows(DefinitionDependencyRow), DefinitionDependencyRow, scope.tenant)
    await session.execute(old.where(_DEPENDENCIES.definition_id == id))
    await _add_dependencies(session, scope, id, checked)


async def _add_dependencies(session: AsyncSession, scope: Scope, id: str, checked: Checked) -> None:
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "definition_id": id}
    references = sorted(checked.references)
    await insert_rows(session, *(DefinitionDependencyRow(**key, depends_on_id=reference) for reference in references))


async def delete_all(session: AsyncSession, scope: Scope, id: str) -> None:
    for table, column in (
        (DefinitionDependencyRow, _DEPENDENCIES.definition_id),
        (DefinitionVersionRow, columns(DefinitionVersionRow).definition_id),
        (DefinitionRow, _DEFINITIONS.id),
        (AudienceRow, _AUDIENCES.id),
    ):
        await session.execute(within(delete_rows(table), table, scope.tenant).where(column == id))
