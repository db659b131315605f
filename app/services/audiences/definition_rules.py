"""Validation of segment definitions: input, name, and references between definitions."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from sqlalchemy import bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.engine.store.lake import Lake
from app.errors import (
    Diagnostic,
    DiagnosticKind,
    ErrorCode,
    ExpressionRefused,
    Refusal,
    Refusals,
)
from app.pql.check.checker import Checked
from app.pql.dependencies import find_cycle
from app.scope import Scope
from app.services.audiences.definition_reads import DefinitionView, get_many
from app.services.audiences.lifecycle import refuse_step, refuse_unpublished
from app.services.evaluation.expressions import ExpressionFormat, vocabulary
from app.services.lists.validation import refuse_bad_labels, refuse_bad_name
from app.services.search import folders
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.sessions.reading import Prepared, read
from app.storage.tables.audiences import AudienceRow, AudienceType, LifecycleState
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow
from app.storage.tenancy import parameters, within, within_any

MOST_DEFINITIONS = 4_000
LARGEST_LIMIT = 10_000_000
LIMIT_REASON = "a limit compares all profiles with one another, which only a job does"
PROFILE_SCHEMA = "_xdm.context.profile"
"""The only supported schema of expressions."""
NAMESPACE = "AEPSegments"
"""The namespace of all definitions and their audiences, and so of their folders."""

_AUDIENCES = columns(AudienceRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)


@dataclass(frozen=True, slots=True)
class Limit:
    """Limits the members to the first profiles by the value of `by`: ties are ordered by id, profiles without a value
    come last."""

    first: int
    by: str
    descending: bool = True


@dataclass(frozen=True, slots=True)
class NewDefinition:
    """The input of `create`; omitted fields get the defaults of segmentation-service.md."""

    name: str
    expression: str
    description: str | None = None
    format: ExpressionFormat = ExpressionFormat.PQL_TEXT
    evaluation_methods: Collection[str] | None = None
    merge_policy_id: str | None = None
    schema_name: str = PROFILE_SCHEMA
    exclude_opt_out: bool = True
    labels: Sequence[str] = ()
    folder_id: str | None = None
    lifecycle_state: LifecycleState = LifecycleState.PUBLISHED
    limit: Limit | None = None


class DefinitionChanges(TypedDict, total=False):
    """Only keys that are present change."""

    name: str
    description: str | None
    expression: str
    format: ExpressionFormat
    evaluation_methods: Collection[str]
    merge_policy_id: str
    exclude_opt_out: bool
    labels: Sequence[str]
    folder_id: str | None
    lifecycle_state: LifecycleState
    limit: Limit | None


# ---------------------------------------------------------------- by itself


async def accept(
    database: Database,
    lake: Lake,
    scope: Scope,
    new: NewDefinition,
    earlier: Sequence[Refusal] = (),
) -> Checked:
    """The checked expression. Raises `Refusals` with `earlier` and all errors of the input itself."""
    refusals = [*earlier, *misfits(new)]
    checked = None
    try:
        texts = (new.expression,) if new.limit is None else (new.expression, new.limit.by)
        words = await vocabulary(database, lake, scope, texts)
        checked = words.check(new.expression, new.format)
        if new.limit is not None:
            value = words.check_value(new.limit.by)
            checked = replace(checked, references=checked.references | value.references)
            if value.diagnostics:
                refusals.append(ExpressionRefused(value.diagnostics, ("limit", "by")))
        if not checked.ok:
            refusals.append(ExpressionRefused(checked.diagnostics, ("expression",)))
        elif not checked.streaming.eligible:
            refusals.extend(_not_eligible(new, checked.streaming.reasons))
    except ExpressionRefused as refusal:
        refusals.append(ExpressionRefused(refusal.diagnostics, ("expression",)))
    if refusals or checked is None:
        raise Refusals(refusals)
    return checked


def misfits(new: NewDefinition) -> list[Refusal]:
    """Errors in the fields other than the expression."""
    refusals: list[Refusal] = []
    refuse_bad_name(new.name, refusals)
    if new.schema_name != PROFILE_SCHEMA:
        message = f"unsupported schema {new.schema_name!r}: only {PROFILE_SCHEMA!r} is available; omit `schemaName`"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("schema_name",)))
    if new.evaluation_methods is not None and not new.evaluation_methods:
        message = "a definition needs an evaluation method: name at least one, or omit them for BATCH"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("evaluation_methods",)))
    if new.limit is not None:
        refusals += [*misfits_of_limit(new.limit), *_unlimited(new)]
    refuse_bad_labels(new.labels, refusals)
    return refusals


def misfits_of_limit(limit: Limit) -> Iterator[Refusal]:
    """Errors of a limit, except in its value expression."""
    if not 1 <= limit.first <= LARGEST_LIMIT:
        message = f"a limit keeps 1 to {LARGEST_LIMIT:,} profiles, not {limit.first:,}: leave it out to keep all"
        yield Refusal(ErrorCode.INVALID_INPUT, message, ("limit", "first"))


def _unlimited(new: NewDefinition) -> Iterator[Refusal]:
    if methods := _live_methods(new):
        message = f"it cannot be evaluated by {' and '.join(methods)}: {LIMIT_REASON}"
        yield Refusal(ErrorCode.NOT_ELIGIBLE, message, ("evaluation_methods",))


def _live_methods(new: NewDefinition) -> list[str]:
    """The evaluation methods that need no job."""
    return [method for method in ("STREAMING", "EDGE") if method in (new.evaluation_methods or ())]


def _not_eligible(new: NewDefinition, reasons: Sequence[str]) -> Iterator[Refusal]:
    """Rejects methods that require an expression that can be evaluated for one person at a time
    (segmentation-service.md)."""
    if methods := _live_methods(new):
        message = f"it cannot be evaluated by {' and '.join(methods)}: {'; '.join(reasons)}"
        yield Refusal(ErrorCode.NOT_ELIGIBLE, message, ("evaluation_methods",))


# ---------------------------------------------------------------- in its sandbox


def _state() -> Prepared:
    """How many definitions the sandbox has, and whether one of them has the given name."""
    number = within_any(select(func.count()), DefinitionRow).scalar_subquery()
    same = within_any(select(_AUDIENCES.id), AudienceRow).where(
        _AUDIENCES.name == bindparam("name"), _AUDIENCES.type == AudienceType.SEGMENT_DEFINITION
    )
    return Prepared(select(number.label("number"), same.exists().label("taken")))


_STATE = _state()


async def _refuse_taken(session: AsyncSession, scope: Scope, name: str, more: int) -> None:
    """Raises `Refusal` if a definition has the name, or if there would be too many with so many more."""
    (state,) = await read(session, _STATE, {**parameters(scope.tenant), "name": name})
    if state.number + more > MOST_DEFINITIONS:
        message = f"a sandbox has at most {MOST_DEFINITIONS:,} definitions: delete some that are not needed"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)
    if state.taken:
        message = f"a definition named {name!r} already exists: choose another name"
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("name",))


async def _refuse_gone(session: AsyncSession, scope: Scope, checked: Checked) -> None:
    """A segment may have been deleted between the check of the expression and this transaction."""
    if not checked.references:
        return
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    there = set(await session.scalars(statement.where(_AUDIENCES.id.in_(sorted(checked.references)))))
    for gone in sorted(checked.references - there):
        message = f"segment {gone!r} no longer exists in this sandbox"
        raise Refusal(ErrorCode.NOT_FOUND, message, ("expression",))


async def _references(session: AsyncSession, scope: Scope, id: str, checked: Checked | None) -> frozenset[str]:
    """The references of the new expression, or of the current one if there is no new one."""
    if checked is not None:
        return checked.references
    statement = within(select(_DEPENDENCIES.depends_on_id), DefinitionDependencyRow, scope.tenant)
    return frozenset(await session.scalars(statement.where(_DEPENDENCIES.definition_id == id)))


async def refuse_new(session: AsyncSession, scope: Scope, new: NewDefinition, checked: Checked) -> None:
    """Validates a new definition against the sandbox's state in this transaction."""
    await _refuse_taken(session, scope, new.name, more=1)
    await _refuse_gone(session, scope, checked)
    if new.lifecycle_state == LifecycleState.PUBLISHED:
        await refuse_unpublished(session, scope, checked.references)
    if new.folder_id is not None:
        await folders.choose(session, scope, new.folder_id, NAMESPACE)


async def refuse_update(
    session: AsyncSession,
    scope: Scope,
    current: DefinitionView,
    merged: NewDefinition,
    checked: Checked | None,
    is_new_version: bool,
) -> None:
    """Validates an update against the sandbox's state in this transaction."""
    if merged.name != current.name:
        await _refuse_taken(session, scope, merged.name, more=0)
    if checked is not None:
        await _refuse_gone(session, scope, checked)
        await _refuse_cycle(session, scope, current.id, checked)
    await refuse_step(session, scope, current.id, current.lifecycle_state, merged.lifecycle_state)
    newly_published = current.lifecycle_state != LifecycleState.PUBLISHED
    if merged.lifecycle_state == LifecycleState.PUBLISHED and (is_new_version or newly_published):
        await refuse_unpublished(session, scope, await _references(session, scope, current.id, checked))
    if merged.folder_id is not None:
        await folders.choose(session, scope, merged.folder_id, NAMESPACE)


async def _refuse_cycle(session: AsyncSession, scope: Scope, id: str, checked: Checked) -> None:
    statement = within(
        select(_DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id), DefinitionDependencyRow, scope.tenant
    )
    edges: dict[str, set[str]] = {}
    for definition, depends_on in await session.execute(statement):
        edges.setdefault(definition, set()).add(depends_on)
    edges[id] = set(checked.references)
    cycle = find_cycle(edges)
    if cycle is None:
        return
    rows = await get_many(session, scope, cycle)
    path = " → ".join(repr(rows[id_].name) if id_ in rows else repr(id_) for id_ in cycle)
    diagnostic = Diagnostic(DiagnosticKind.CYCLE, f"the definitions would form a cycle: {path}", 1, 1, 1)
    raise ExpressionRefused([diagnostic], ("expression",))
