"""Segment definitions: named, versioned expressions; each shares its id, and its row, with the audience it computes."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, TypedDict

from sqlalchemy import and_, func, insert, select
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.store.lake import Lake
from app.errors import (
    Diagnostic,
    DiagnosticKind,
    ErrorCode,
    ExpressionRefused,
    Refusal,
    Refusals,
    Severity,
    StaleEtag,
    refuse_all,
)
from app.pql.check.checker import Checked
from app.pql.dependencies import find_cycle
from app.scope import Scope
from app.services import merge_policies
from app.services.audiences.lifecycle import HOLDERS, refuse_start, refuse_step, refuse_unpublished
from app.services.audiences.reads import METHOD_COLUMNS, AudienceFilter, audience_order, publish_change
from app.services.evaluation.expressions import ExpressionFormat, vocabulary
from app.services.lists.dependents import refuse_dependents
from app.services.lists.filters import DateTimeFilter, OrderBy, StringFilter
from app.services.lists.paging import Key, Order, PageRequest, Slice, fetch_page, fetch_pages
from app.services.lists.validation import refuse_bad_labels, refuse_bad_name
from app.services.search import folders
from app.storage.columns import JsonObject, columns
from app.storage.database import Database
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.definitions import DefinitionDependencyRow, DefinitionRow, DefinitionVersionRow
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tenancy import AnySelect, same_tenant, within

DUPLICATES_NAMED = 3
"""So many definitions are named in one warning."""

MOST_DEFINITIONS = 4_000
PROFILE_SCHEMA = "_xdm.context.profile"
"""The one schema that expressions are about."""
NAMESPACE = "AEPSegments"
"""That of every definition and its audience, and so of the folders they may be in."""

_AUDIENCES = columns(AudienceRow)
_DEFINITIONS = columns(DefinitionRow)
_DEPENDENCIES = columns(DefinitionDependencyRow)


@dataclass(frozen=True, slots=True)
class DefinitionView:
    """A definition with what it shares with its audience. `revision` is the etag."""

    id: str
    name: str
    description: str | None
    labels: list[str]
    lifecycle_state: str
    evaluates_batch: bool
    evaluates_streaming: bool
    evaluates_edge: bool
    exclude_opt_out: bool
    merge_policy_id: str
    folder_id: str | None
    revision: int
    created_by: str
    last_modified_by: str
    created_at: datetime
    updated_at: datetime
    version: int
    expression: str
    canonical: str
    schema_name: str

    @classmethod
    def of(cls, row: Any) -> "DefinitionView":
        return cls(*(getattr(row, name) for name in _VIEW))


_VIEW = tuple(each.name for each in fields(DefinitionView))


@dataclass(frozen=True, slots=True)
class NewDefinition:
    """What `create` needs; what is left out takes the default of segmentation-service.md."""

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
    lifecycle_state: str = "PUBLISHED"


class DefinitionChanges(TypedDict, total=False):
    """Only the keys that are there change."""

    name: str
    description: str | None
    expression: str
    format: ExpressionFormat
    evaluation_methods: Collection[str]
    merge_policy_id: str
    exclude_opt_out: bool
    labels: Sequence[str]
    folder_id: str | None
    lifecycle_state: str


@dataclass(frozen=True, slots=True)
class DefinitionFilter:
    """All that are given must hold."""

    ids: Collection[str] | None = None
    name: StringFilter = field(default_factory=StringFilter)
    description: StringFilter = field(default_factory=StringFilter)
    evaluation_method: str | None = None
    label: str | None = None
    merge_policy_id: str | None = None
    folder_id: str | None = None
    created_by: StringFilter = field(default_factory=StringFilter)
    created_at: DateTimeFilter = field(default_factory=DateTimeFilter)
    updated_at: DateTimeFilter = field(default_factory=DateTimeFilter)

    def of_audience(self) -> AudienceFilter:
        return AudienceFilter(**{each.name: getattr(self, each.name) for each in fields(self)})


# ---------------------------------------------------------------- reads


async def check_expression(
    database: Database,
    lake: Lake,
    scope: Scope,
    expression: str,
    format: ExpressionFormat = ExpressionFormat.PQL_TEXT,
) -> Checked:
    """What the tenant's schema and segments say of an expression, and a warning when a definition says the same
    already. Raises `ExpressionRefused` for pql/json that is none."""
    checked = (await vocabulary(database, lake, scope)).check(expression, format)
    warnings = await duplicates(database, scope, expression, checked.canonical)
    return replace(checked, diagnostics=(*checked.diagnostics, *warnings))


async def duplicates(
    database: Database, scope: Scope, expression: str, canonical: str | None, but: str | None = None
) -> list[Diagnostic]:
    """A warning that names definitions with the same canonical text, oldest first; nothing when there are none."""
    if canonical is None:
        return []
    statement = (
        _views(scope)
        .where(_DEFINITIONS.canonical == canonical, _AUDIENCES.id != (but or ""))
        .order_by(_AUDIENCES.created_at, _AUDIENCES.name)
        .limit(DUPLICATES_NAMED + 1)
    )
    async with database.session() as session:
        labels = [f"{row.name!r} ({row.id})" for row in await session.execute(statement)]
    if not labels:
        return []
    names = ", ".join(labels[:DUPLICATES_NAMED]) + (" and others" if len(labels) > DUPLICATES_NAMED else "")
    message = f"equivalent to {names}: use that definition, or refer to it with inSegment, so that it is evaluated once"
    return [Diagnostic(DiagnosticKind.DUPLICATE, message, 1, 1, len(expression), severity=Severity.WARNING)]


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, DefinitionView]:
    rows = await session.execute(_views(scope).where(_DEFINITIONS.id.in_(list(ids))))
    return {row.id: DefinitionView.of(row) for row in rows}


async def page(
    session: AsyncSession,
    scope: Scope,
    request: PageRequest,
    filter: DefinitionFilter | None = None,
    order: OrderBy | None = None,
) -> Slice[DefinitionView]:
    statement = _views(scope).where(*(filter or DefinitionFilter()).of_audience().conditions())
    return await fetch_page(session, statement, audience_order(order), request, DefinitionView.of)


async def count(session: AsyncSession, scope: Scope, filter: DefinitionFilter | None = None) -> int:
    conditions = (filter or DefinitionFilter()).of_audience().conditions()
    statement = within(select(func.count()).select_from(DefinitionRow), DefinitionRow, scope.tenant)
    return int((await session.execute(statement.join(AudienceRow, _same_audience()).where(*conditions))).scalar_one())


async def dependencies_by_definition(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[DefinitionView]]:
    """The definitions that each refers to, by name."""
    return await _related(session, scope, ids, request, _DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id)


async def dependents_by_definition(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest
) -> dict[str, Slice[DefinitionView]]:
    """The definitions that refer to each, by name."""
    return await _related(session, scope, ids, request, _DEPENDENCIES.depends_on_id, _DEPENDENCIES.definition_id)


async def dependency_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    return await _related_counts(session, scope, ids, _DEPENDENCIES.definition_id, _DEPENDENCIES.depends_on_id)


async def dependent_counts(session: AsyncSession, scope: Scope, ids: Sequence[str]) -> dict[str, int]:
    return await _related_counts(session, scope, ids, _DEPENDENCIES.depends_on_id, _DEPENDENCIES.definition_id)


@dataclass(frozen=True, slots=True)
class _Version:
    """A version of a definition: its expression as written and in canonical form, and its merge policy."""

    definition_id: str
    version: int
    expression: str
    canonical: str
    merge_policy_id: str
    created_at: datetime


# ---------------------------------------------------------------- writes


async def create(database: Database, lake: Lake, clock: Clock, scope: Scope, new: NewDefinition) -> DefinitionView:
    """Makes a definition and its audience. Raises `Refusals`, `ExpressionRefused` or `Refusal`."""
    policy = await merge_policies.choose(database, clock, scope, new.merge_policy_id)
    checked = await _accept(database, lake, scope, new, policy, refuse_start("SEGMENT_DEFINITION", new.lifecycle_state))
    now = clock()
    id_ = new_id(now)
    audience = AudienceRow(
        organisation=scope.organisation,
        sandbox=scope.sandbox,
        id=id_,
        audience_id=id_,
        name=new.name,
        description=new.description,
        lifecycle_state=new.lifecycle_state,
        labels=list(new.labels),
        exclude_opt_out=new.exclude_opt_out,
        **_flags(new.evaluation_methods),
        merge_policy_id=policy.id,
        folder_id=new.folder_id,
        created_by=scope.user,
        last_modified_by=scope.user,
        created_at=now,
        updated_at=now,
    )
    async with database.write(scope.tenant) as session:
        await _refuse_too_many(session, scope)
        await _refuse_taken_name(session, scope, new.name)
        await _refuse_gone(session, scope, checked)
        if new.lifecycle_state == "PUBLISHED":
            await refuse_unpublished(session, scope, checked.references)
        if new.folder_id is not None:
            await folders.choose(session, scope, new.folder_id, NAMESPACE)
        session.add(audience)
        await session.flush()
        text = _text_of(new.expression, new.format, checked)
        version = _Version(id_, 1, text, str(checked.canonical), policy.id, now)
        key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "id": id_}
        texts = {"expression": version.expression, "canonical": version.canonical}
        await session.execute(insert(DefinitionRow).values(**key, version=1, **texts, schema_name=PROFILE_SCHEMA))
        await _write_version(session, scope, version)
        await _write_dependencies(session, scope, id_, checked)
        await publish_change(session, scope, id_)
        return (await get_many(session, scope, [id_]))[id_]


async def update(
    database: Database, lake: Lake, clock: Clock, scope: Scope, id: str, etag: str | None, changes: DefinitionChanges
) -> DefinitionView:
    """Changes what is given; a new expression or merge policy is a new version. Raises as `create`, and `StaleEtag`."""
    async with database.session() as session:
        current = await _required(session, scope, id, etag)
    policy = await merge_policies.choose(
        database, clock, scope, changes.get("merge_policy_id") or current.merge_policy_id
    )
    merged = _merged(current, changes, policy)
    # What others did to the data must not stand in the way of a new name or of deactivation.
    checked = None
    if changes.keys() & {"expression", "evaluation_methods"}:
        checked = await _accept(database, lake, scope, merged, policy)
    else:
        refuse_all(_misfits(merged, policy))
    async with database.write(scope.tenant) as session:
        now, fresh = clock(), await _required(session, scope, id, str(current.revision) if etag is None else etag)
        version = _next_version(fresh, merged, checked, policy, now)
        await _refuse_update(session, scope, fresh, merged, checked, version)
        await _write_audience(session, scope, fresh, merged, now)
        if version is not None:
            await _write_current(session, scope, version)
        if checked is not None:
            await _write_dependencies(session, scope, id, checked)
        await publish_change(session, scope, id)
        return (await get_many(session, scope, [id]))[id]


async def delete(database: Database, clock: Clock, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes definition and audience; jobs keep what they ran. Raises `HasDependents` while others use it."""
    async with database.write(scope.tenant) as session:
        await _required(session, scope, id, etag)
        await refuse_dependents(session, scope, id, "id", HOLDERS)
        await publish_change(session, scope, id)
        for table, column in (
            (DefinitionDependencyRow, _DEPENDENCIES.definition_id),
            (DefinitionVersionRow, columns(DefinitionVersionRow).definition_id),
            (DefinitionRow, _DEFINITIONS.id),
            (AudienceRow, _AUDIENCES.id),
        ):
            await session.execute(within(delete_rows(table), table, scope.tenant).where(column == id))


# ---------------------------------------------------------------- rules


def _merged(current: DefinitionView, changes: DefinitionChanges, policy: MergePolicyRow) -> NewDefinition:
    """The definition as it is to be. What is kept of its expression is text, whatever it was sent as."""
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
    )


async def _accept(
    database: Database,
    lake: Lake,
    scope: Scope,
    new: NewDefinition,
    policy: MergePolicyRow,
    found: Sequence[Refusal] = (),
) -> Checked:
    """Everything that can be wrong with the input by itself, reported together with what was `found` already."""
    refusals = [*found, *_misfits(new, policy)]
    checked = None
    try:
        checked = (await vocabulary(database, lake, scope)).check(new.expression, new.format)
        if not checked.ok:
            refusals.append(ExpressionRefused(checked.diagnostics, ("expression",)))
        elif not checked.streaming.eligible:
            refusals.extend(_not_eligible(new, checked.streaming.reasons))
    except ExpressionRefused as refusal:
        refusals.append(ExpressionRefused(refusal.diagnostics, ("expression",)))
    if refusals or checked is None:
        raise Refusals(refusals)
    return checked


def _misfits(new: NewDefinition, policy: MergePolicyRow) -> list[Refusal]:
    """What is wrong with the fields around the expression."""
    refusals: list[Refusal] = []
    refuse_bad_name(new.name, refusals)
    if new.schema_name != PROFILE_SCHEMA:
        message = f"unsupported schema {new.schema_name!r}: only {PROFILE_SCHEMA!r} is available; omit `schemaName`"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("schema_name",)))
    if new.evaluation_methods is not None and not new.evaluation_methods:
        message = "a definition needs an evaluation method: name at least one, or omit them for BATCH"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("evaluation_methods",)))
    if policy.identity_graph == "PDG" and (methods := _live_methods(new)):
        message = (
            f"only a job can resolve stitched profiles, so {' and '.join(methods)} is not available with the merge "
            f"policy {policy.name!r} (PDG): use [BATCH], or a merge policy with the identity graph NONE"
        )
        refusals.append(Refusal(ErrorCode.NOT_ELIGIBLE, message, ("evaluation_methods",)))
    refuse_bad_labels(new.labels, refusals)
    return refusals


def _live_methods(new: NewDefinition) -> list[str]:
    """Those that need no job."""
    return [method for method in ("STREAMING", "EDGE") if method in (new.evaluation_methods or ())]


def _not_eligible(new: NewDefinition, reasons: Sequence[str]) -> Iterator[Refusal]:
    """What needs an expression that can be evaluated for one person at a time (segmentation-service.md)."""
    if methods := _live_methods(new):
        message = f"it cannot be evaluated by {' and '.join(methods)}: {'; '.join(reasons)}"
        yield Refusal(ErrorCode.NOT_ELIGIBLE, message, ("evaluation_methods",))


def _flags(methods: Collection[str] | None) -> JsonObject:
    """The columns that say when an audience is evaluated."""
    evaluated_by = ("BATCH",) if methods is None else methods
    return {column: method in evaluated_by for column, method in METHOD_COLUMNS.items()}


def _methods(view: DefinitionView) -> tuple[str, ...]:
    return tuple(method for column, method in METHOD_COLUMNS.items() if getattr(view, column))


async def _refuse_too_many(session: AsyncSession, scope: Scope) -> None:
    if await count(session, scope) >= MOST_DEFINITIONS:
        message = f"a sandbox has at most {MOST_DEFINITIONS:,} definitions: delete some that are not needed"
        raise Refusal(ErrorCode.LIMIT_EXCEEDED, message)


async def _refuse_taken_name(session: AsyncSession, scope: Scope, name: str) -> None:
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    same = statement.where(_AUDIENCES.name == name, _AUDIENCES.type == "SEGMENT_DEFINITION")
    if (await session.execute(same)).first() is not None:
        message = f"a definition named {name!r} already exists: choose another name"
        raise Refusal(ErrorCode.ALREADY_EXISTS, message, ("name",))


async def _refuse_gone(session: AsyncSession, scope: Scope, checked: Checked) -> None:
    """A segment may have been deleted between the check of the expression and this transaction."""
    statement = within(select(_AUDIENCES.id), AudienceRow, scope.tenant)
    there = set(await session.scalars(statement.where(_AUDIENCES.id.in_(sorted(checked.references)))))
    for gone in sorted(checked.references - there):
        message = f"segment {gone!r} no longer exists in this sandbox"
        raise Refusal(ErrorCode.NOT_FOUND, message, ("expression",))


async def _references(session: AsyncSession, scope: Scope, id: str, checked: Checked | None) -> frozenset[str]:
    """Those of the new expression, or of the one in force when there is no new one."""
    if checked is not None:
        return checked.references
    statement = within(select(_DEPENDENCIES.depends_on_id), DefinitionDependencyRow, scope.tenant)
    return frozenset(await session.scalars(statement.where(_DEPENDENCIES.definition_id == id)))


async def _refuse_update(
    session: AsyncSession,
    scope: Scope,
    current: DefinitionView,
    merged: NewDefinition,
    checked: Checked | None,
    version: _Version | None,
) -> None:
    """What stands in the way of an update as the sandbox is in this transaction."""
    if merged.name != current.name:
        await _refuse_taken_name(session, scope, merged.name)
    if checked is not None:
        await _refuse_gone(session, scope, checked)
        await _refuse_cycle(session, scope, current.id, checked)
    await refuse_step(session, scope, current.id, current.lifecycle_state, merged.lifecycle_state)
    newly_published = current.lifecycle_state != "PUBLISHED"
    if merged.lifecycle_state == "PUBLISHED" and (version is not None or newly_published):
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


async def _required(session: AsyncSession, scope: Scope, id: str, etag: str | None) -> DefinitionView:
    current = (await get_many(session, scope, [id])).get(id)
    if current is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no segment definition {id!r} in this sandbox", ("id",))
    if etag is not None and etag != str(current.revision):
        raise StaleEtag(str(current.revision), ("etag",))
    return current


# ---------------------------------------------------------------- rows


def _views(scope: Scope) -> AnySelect:
    by_name: Mapping[str, Any] = {**dict(_AUDIENCES.items()), **dict(_DEFINITIONS.items())}
    return within(
        select(*(by_name[name] for name in _VIEW)).select_from(DefinitionRow).join(AudienceRow, _same_audience()),
        DefinitionRow,
        scope.tenant,
    )


def _same_audience() -> Any:
    return and_(
        same_tenant(_AUDIENCES, _DEFINITIONS),
        _AUDIENCES.id == _DEFINITIONS.id,
    )


async def _related(
    session: AsyncSession, scope: Scope, ids: Sequence[str], request: PageRequest, this: Any, other: Any
) -> dict[str, Slice[DefinitionView]]:
    joined = _views(scope).join(DefinitionDependencyRow, _links(other))
    order = Order("NAME", (Key(_AUDIENCES.name), Key(_AUDIENCES.id)))
    return await fetch_pages(session, joined, this, order, request, ids, DefinitionView.of)


async def _related_counts(
    session: AsyncSession, scope: Scope, ids: Sequence[str], this: Any, other: Any
) -> dict[str, int]:
    statement = within(select(this, func.count()).select_from(DefinitionRow), DefinitionRow, scope.tenant)
    counted = statement.join(DefinitionDependencyRow, _links(other)).where(this.in_(ids)).group_by(this)
    counts = {id_: int(number) for id_, number in await session.execute(counted)}
    return {id_: counts.get(id_, 0) for id_ in ids}


def _links(other: Any) -> Any:
    """Joins dependencies to the definitions at one end of them: at the other there may be external audiences."""
    return and_(
        same_tenant(_DEPENDENCIES, _DEFINITIONS),
        other == _DEFINITIONS.id,
    )


def _next_version(
    current: DefinitionView, merged: NewDefinition, checked: Checked | None, policy: MergePolicyRow, now: datetime
) -> _Version | None:
    """None when neither the expression (`checked` if there is a new one) nor the merge policy changes."""
    text, canonical = current.expression, current.canonical
    if checked is not None:
        text, canonical = _text_of(merged.expression, merged.format, checked), str(checked.canonical)
    if text == current.expression and policy.id == current.merge_policy_id:
        return None
    return _Version(current.id, current.version + 1, text, canonical, policy.id, now)


async def _write_audience(
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


async def _write_current(session: AsyncSession, scope: Scope, version: _Version) -> None:
    """Makes it the version in force."""
    change = within(update_rows(DefinitionRow), DefinitionRow, scope.tenant)
    await session.execute(
        change.where(_DEFINITIONS.id == version.definition_id).values(
            version=version.version, expression=version.expression, canonical=version.canonical
        )
    )
    await _write_version(session, scope, version)


async def _write_version(session: AsyncSession, scope: Scope, version: _Version) -> None:
    tenant = {"organisation": scope.organisation, "sandbox": scope.sandbox}
    await session.execute(insert(DefinitionVersionRow).values(**tenant, **asdict(version), created_by=scope.user))


async def _write_dependencies(session: AsyncSession, scope: Scope, id: str, checked: Checked) -> None:
    old = within(delete_rows(DefinitionDependencyRow), DefinitionDependencyRow, scope.tenant)
    await session.execute(old.where(_DEPENDENCIES.definition_id == id))
    key = {"organisation": scope.organisation, "sandbox": scope.sandbox, "definition_id": id}
    if checked.references:
        rows = [{**key, "depends_on_id": reference} for reference in sorted(checked.references)]
        await session.execute(insert(DefinitionDependencyRow), rows)


def _text_of(expression: str, format: ExpressionFormat, checked: Checked) -> str:
    """Text is kept as its author wrote it; pql/json is kept as the text that it stands for."""
    return expression if format is ExpressionFormat.PQL_TEXT else str(checked.canonical)


def _unless_none(value: Any, otherwise: Any) -> Any:
    return otherwise if value is None else value
