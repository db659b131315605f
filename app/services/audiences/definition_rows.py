"""The rows of a segment definition: itself, its audience, its versions and what it refers to."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete as delete_rows
from sqlalchemy import insert
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.pql.check.checker import Checked
from app.scope import Scope
from app.services.audiences.definition_reads import DefinitionView
from app.services.audiences.definition_rules import PROFILE_SCHEMA, Limit, NewDefinition
from app.services.audiences.reads import METHOD_COLUMNS
from app.services.evaluation.expressions import ExpressionFormat
from app.storage.columns import StoredValues, columns
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
    """A limit as it is stored."""
    return None if limit is None else asdict(limit)


def next_version(
    current: DefinitionView, merged: NewDefinition, checked: Checked | None, policy: MergePolicyRow, now: datetime
) -> Version | None:
    """None when none of expression (`checked` if there is a new one), limit and merge policy changes."""
    text, canonical = current.expression, current.canonical
    if checked is not None:
        text, canonical = _text_of(merged.expression, merged.format, checked), str(checked.canonical)
    limit = kept(merged.limit)
    if (text, policy.id, limit) == (current.expression, current.merge_policy_id, current.kept):
        return None
    return Version(current.id, current.version + 1, text, canonical, limit, policy.id, now)


def _text_of(expression: str, format: ExpressionFormat, checked: Checked) -> str:
    """Text is kept as its author wrote it; pql/json is kept as the text that it stands for."""
    return expression if format is ExpressionFormat.PQL_TEXT else str(checked.canonical)


def _flags(methods: Collection[str] | None) -> StoredValues:
    """The columns that say when an audience is evaluated."""
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
) -> None:
    """The rows of a definition in its first version."""
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
    session.add(audience)
    await session.flush()
    text = _text_of(new.expression, new.format, checked)
    version = Version(id, 1, text, str(checked.canonical), kept(new.limit), policy_id, now)
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "id": id}
    texts = {"expression": version.expression, "canonical": version.canonical, "kept": version.kept}
    await session.execute(insert(DefinitionRow).values(**key, version=1, **texts, schema_name=PROFILE_SCHEMA))
    await _write_version(session, scope, version)
    await write_dependencies(session, scope, id, checked)


async def write_audience(
    session: AsyncSession, scope: Scope, current: DefinitionView, merged: NewDefinition, now: datetime
) -> None:
    change = within(update_rows(AudienceRow), AudienceRow, scope.tenant).where(_AUDIENCES.id == current.id)
    await session.execute(
        change.values(
            name=merged.name,
            description=merged.description,
            labels=list(merged.labels),
            **_flags(merged.evaluation_methods),
            exclude_opt_out=merged.exclude_opt_out,
            merge_policy_id=merged.merge_policy_id,
            folder_id=merged.folder_id,
            lifecycle_state=merged.lifecycle_state,
            revision=current.revision + 1,
            last_modified_by=scope.user,
            updated_at=now,
        )
    )


async def write_current(session: AsyncSession, scope: Scope, version: Version) -> None:
    """Makes it the version in force."""
    change = within(update_rows(DefinitionRow), DefinitionRow, scope.tenant)
    await session.execute(
        change.where(_DEFINITIONS.id == version.definition_id).values(
            version=version.version, expression=version.expression, canonical=version.canonical, kept=version.kept
        )
    )
    await _write_version(session, scope, version)


async def _write_version(session: AsyncSession, scope: Scope, version: Version) -> None:
    tenant = {"organisation": scope.organisation, "sandbox": scope.sandbox}
    await session.execute(insert(DefinitionVersionRow).values(**tenant, **asdict(version), created_by=scope.user))


async def write_dependencies(session: AsyncSession, scope: Scope, id: str, checked: Checked) -> None:
    old = within(delete_rows(DefinitionDependencyRow), DefinitionDependencyRow, scope.tenant)
    await session.execute(old.where(_DEPENDENCIES.definition_id == id))
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "definition_id": id}
    if checked.references:
        rows = [{**key, "depends_on_id": reference} for reference in sorted(checked.references)]
        await session.execute(insert(DefinitionDependencyRow), rows)


async def delete_all(session: AsyncSession, scope: Scope, id: str) -> None:
    for table, column in (
        (DefinitionDependencyRow, _DEPENDENCIES.definition_id),
        (DefinitionVersionRow, columns(DefinitionVersionRow).definition_id),
        (DefinitionRow, _DEFINITIONS.id),
        (AudienceRow, _AUDIENCES.id),
    ):
        await session.execute(within(delete_rows(table), table, scope.tenant).where(column == id))
