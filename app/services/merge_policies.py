"""Merge policies: how the fragments of a profile are merged. Every sandbox has a default policy."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from sqlalchemy import and_, func, select
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.people.profiles import MergeRule
from app.errors import ErrorCode, Refusal, Refusals
from app.scope import Scope, Tenant
from app.services.lists.dependents import MOST_FOUND, Dependent, refuse_dependents
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, current_row, get_rows, rows_of_any, select_rows
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import StoredValues, columns
from app.storage.database import Database, unwitnessed
from app.storage.ids import new_id
from app.storage.sessions.reading import Prepared, read
from app.storage.sessions.writing import insert_rows
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import RUNNING, WAITING
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod, MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import parameters, same_tenant, within

DEFAULT_POLICY_ID = "default"
_POLICIES = columns(MergePolicyRow)
_EXPORTS = columns(ExportJobRow)
_AUDIENCES = columns(AudienceRow)
_PARTS = columns(SegmentJobDefinitionRow)
_SEGMENT_JOBS = columns(SegmentJobRow)
_ORDER = Order("CREATED", (Key(_POLICIES.created_at), Key(_POLICIES.id)))


@dataclass(frozen=True, slots=True)
class NewPolicy:
    """`datasets` are ids in order of precedence, for DATA_SET_PRECEDENCE only."""

    name: str
    method: MergeMethod
    identity_graph: IdentityGraph = IdentityGraph.NONE
    datasets: Sequence[str] = ()
    is_default: bool = False


class PolicyChanges(TypedDict, total=False):
    """Only keys that are present change."""

    name: str
    method: MergeMethod
    identity_graph: IdentityGraph
    datasets: Sequence[str]
    is_default: bool


def policy_as_json(policy: MergePolicyRow) -> StoredValues:
    """A merge policy in the form stored by jobs."""
    names = [column.key for column in _POLICIES if column.key not in {"organisation", "sandbox"}]
    values = {name: getattr(policy, name) for name in names}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def policy_from_json(tenant: Tenant, kept: Mapping[str, Any]) -> MergePolicyRow:
    """The merge policy that a job of the tenant has stored."""
    times = {name: datetime.fromisoformat(kept[name]) for name in ("created_at", "updated_at")}
    return MergePolicyRow(**{**kept, **times, "organisation": tenant.organisation, "sandbox": tenant.sandbox})


async def ensure_default(database: Database, clock: Clock, scope: Scope) -> MergePolicyRow:
    """The sandbox's default policy, created when the sandbox is first used."""
    async with database.session() as session:
        policy = await default_policy(session, scope, alone=True)
    if policy is not None:
        return policy
    # The first caller did not request the policy, so its creation is not in the audit log.
    with unwitnessed():
        return await _make_default(database, clock, scope)


async def _make_default(database: Database, clock: Clock, scope: Scope) -> MergePolicyRow:
    async with database.write(scope.tenant) as session:
        if (policy := await default_policy(session, scope)) is None:
            now = clock()
            row = MergePolicyRow(
                organisation=scope.organisation,
                sandbox=scope.sandbox,
                id=DEFAULT_POLICY_ID,
                name="Default: newest value wins",
                method=MergeMethod.TIMESTAMP_ORDERED,
                identity_graph=IdentityGraph.NONE,
                datasets=[],
                is_default=True,
                revision=1,
                created_by="system",
                last_modified_by="system",
                created_at=now,
                updated_at=now,
            )
            await insert_rows(session, row)
            policy = await default_policy(session, scope)
    if policy is None:
        raise RuntimeError("the default merge policy could not be created")
    return policy


_DEFAULT = Prepared(rows_of_any(MergePolicyRow).where(_POLICIES.is_default))


async def default_policy(session: AsyncSession, scope: Scope, *, alone: bool = False) -> MergePolicyRow | None:
    """The sandbox's default policy, if it exists already. `alone` as for `read`."""
    rows = await read(session, _DEFAULT, parameters(scope.tenant), alone=alone)
    return as_row(MergePolicyRow, rows[0]) if rows else None


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, MergePolicyRow]:
    return await get_rows(session, MergePolicyRow, scope, ids)


async def all_policies(session: AsyncSession, scope: Scope) -> list[MergePolicyRow]:
    rows = await session.execute(select_rows(MergePolicyRow, scope).order_by(_POLICIES.id))
    return [as_row(MergePolicyRow, row) for row in rows]


async def page(session: AsyncSession, scope: Scope, request: PageRequest) -> Slice[MergePolicyRow]:
    listing = Listing(rows_of_any(MergePolicyRow), _ORDER, lambda row: as_row(MergePolicyRow, row))
    return await listing.page(session, scope.tenant, request)


async def count(session: AsyncSession, scope: Scope) -> int:
    statement = within(select(func.count()).select_from(MergePolicyRow), MergePolicyRow, scope.tenant)
    return int((await session.execute(statement)).scalar_one())


async def choose(database: Database, clock: Clock, scope: Scope, id: str | None) -> MergePolicyRow:
    """The policy with this id, or the default one. Raises `Refusal` for an unknown id."""
    if id is None:
        return await ensure_default(database, clock, scope)
    async with database.session() as session:
        policy = (await get_many(session, scope, [id])).get(id)
    if policy is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no merge policy {id!r} in this sandbox", ("merge_policy_id",))
    return policy


def rule_of(policy: MergePolicyRow) -> MergeRule:
    method: Literal["TIMESTAMP_ORDERED", "DATA_SET_PRECEDENCE"] = (
        "DATA_SET_PRECEDENCE" if policy.method == "DATA_SET_PRECEDENCE" else "TIMESTAMP_ORDERED"
    )
    graph: Literal["NONE", "PDG"] = "PDG" if policy.identity_graph == "PDG" else "NONE"
    return MergeRule(policy.id, method, tuple(policy.datasets), graph)


# ---------------------------------------------------------------- writes


async def create(database: Database, clock: Clock, scope: Scope, new: NewPolicy) -> MergePolicyRow:
    """Creates a merge policy. A new default replaces the previous one. Raises `Refusals` for inconsistent input."""
    await ensure_default(database, clock, scope)
    now = clock()
    async with database.write(scope.tenant) as session:
        await _refuse_misfits(session, scope, new)
        if new.is_default:
            await _step_down(session, scope)
        row = MergePolicyRow(
            organisation=scope.organisation,
            sandbox=scope.sandbox,
            id=new_id(now),
            name=new.name,
            method=new.method,
            identity_graph=new.identity_graph,
            datasets=list(new.datasets),
            is_default=new.is_default,
            created_by=scope.user,
            last_modified_by=scope.user,
            created_at=now,
            updated_at=now,
        )
        await insert_rows(session, row)
    return row


async def update(
    database: Database, clock: Clock, scope: Scope, id: str, etag: str | None, changes: PolicyChanges
) -> MergePolicyRow:
    """Updates the given fields; stored memberships stay until the next evaluation. Raises like `create`, `Refusal` for
    a default policy that would no longer be one, and `StaleEtag`."""
    async with database.write(scope.tenant) as session:
        current = await _required(session, scope, id, etag)
        merged = NewPolicy(
            changes.get("name", current.name),
            changes.get("method", current.method),
            changes.get("identity_graph", current.identity_graph),
            changes.get("datasets", current.datasets),
            changes.get("is_default", current.is_default),
        )
        if current.is_default and not merged.is_default:
            message = "a sandbox has one default policy: make another one the default instead"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("is_default",))
        await _refuse_misfits(session, scope, merged)
        if merged.is_default and not current.is_default:
            await _step_down(session, scope)
        change = within(update_rows(MergePolicyRow), MergePolicyRow, scope.tenant).where(_POLICIES.id == id)
        await session.execute(
            change.values(
                name=merged.name,
                method=merged.method,
                identity_graph=merged.identity_graph,
                datasets=list(merged.datasets),
                is_default=merged.is_default,
                revision=current.revision + 1,
                last_modified_by=scope.user,
                updated_at=clock(),
            )
        )
        return (await get_many(session, scope, [id]))[id]


async def delete(database: Database, scope: Scope, id: str, etag: str | None = None) -> None:
    """Deletes a merge policy. Raises `HasDependents` if audiences or unfinished jobs use it, `Refusal` for the default
    policy, and `StaleEtag`."""
    async with database.write(scope.tenant) as session:
        current = await _required(session, scope, id, etag)
        if current.is_default:
            message = f"{current.name!r} is the default policy: make another one the default first"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("id",))
        await refuse_dependents(
            session, scope, id, "id", [_audiences], "give them another merge policy, or delete them first"
        )
        for finder in (_export_jobs, _segment_jobs):
            await refuse_dependents(session, scope, id, "id", [finder], "wait until they end, or cancel them first")
        await session.execute(
            within(delete_rows(MergePolicyRow), MergePolicyRow, scope.tenant).where(_POLICIES.id == id)
        )


async def _required(session: AsyncSession, scope: Scope, id: str, etag: str | None) -> MergePolicyRow:
    return current_row((await get_many(session, scope, [id])).get(id), "merge policy", id, etag)


async def _audiences(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    statement = within(select(_AUDIENCES.id, _AUDIENCES.name), AudienceRow, scope.tenant)
    mine = statement.where(_AUDIENCES.merge_policy_id == policy_id)
    rows = await session.execute(mine.order_by(_AUDIENCES.name, _AUDIENCES.id).limit(MOST_FOUND))
    return [Dependent("Audience", row.id, repr(row.name), "use it") for row in rows]


async def _export_jobs(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    """Unfinished export jobs that use the policy."""
    statement = within(select(_EXPORTS.id), ExportJobRow, scope.tenant)
    live = statement.where(_EXPORTS.merge_policy_id == policy_id, _EXPORTS.status.in_(WAITING | RUNNING))
    ids = await session.scalars(live.order_by(_EXPORTS.id).limit(MOST_FOUND))
    return [Dependent("ExportJob", id_, id_, "use it", "the export jobs ") for id_ in ids]


async def _segment_jobs(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    """Unfinished segment jobs that evaluate a definition under the policy."""
    same = and_(same_tenant(_SEGMENT_JOBS, _PARTS), _SEGMENT_JOBS.id == _PARTS.job_id)
    ran = within(select(_PARTS.job_id), SegmentJobDefinitionRow, scope.tenant).join(SegmentJobRow, same)
    live = ran.where(_PARTS.merge_policy_id == policy_id, _SEGMENT_JOBS.status.in_(WAITING | RUNNING)).distinct()
    ids = await session.scalars(live.order_by(_PARTS.job_id).limit(MOST_FOUND))
    return [Dependent("SegmentJob", id_, id_, "use it", "the segment jobs ") for id_ in ids]


async def _step_down(session: AsyncSession, scope: Scope) -> None:
    old = within(update_rows(MergePolicyRow), MergePolicyRow, scope.tenant).where(_POLICIES.is_default)
    await session.execute(old.values(is_default=False, revision=_POLICIES.revision + 1))


async def _refuse_misfits(session: AsyncSession, scope: Scope, new: NewPolicy) -> None:
    refusals: list[Refusal] = []
    refuse_bad_name(new.name, refusals)
    if new.method == "TIMESTAMP_ORDERED" and new.datasets:
        message = "TIMESTAMP_ORDERED takes every dataset: send no datasets, or the method DATA_SET_PRECEDENCE"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("datasets",)))
    if new.method == "DATA_SET_PRECEDENCE" and not new.datasets:
        message = "DATA_SET_PRECEDENCE needs the datasets, the one that wins first"
        refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, ("datasets",)))
    rows = await get_rows(session, DatasetRow, scope, set(new.datasets))
    for at, id in enumerate(new.datasets):
        path = ("datasets", str(at))
        if id not in rows:
            refusals.append(Refusal(ErrorCode.NOT_FOUND, f"there is no dataset {id!r} in this sandbox", path))
        elif rows[id].kind != DatasetKind.PROFILE:
            message = f"{rows[id].name!r} is of kind {rows[id].kind}: only the records of PROFILE datasets are merged"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
        elif id in new.datasets[:at]:
            message = f"{rows[id].name!r} is named twice: keep its first place"
            refusals.append(Refusal(ErrorCode.INVALID_INPUT, message, path))
    if refusals:
        raise Refusals(refusals)
