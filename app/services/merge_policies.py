"""Merge policies: how fragments of one profile become one view. Every sandbox has a default one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy import delete as delete_rows
from sqlalchemy import update as update_rows
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.people.profiles import MergeRule
from app.errors import ErrorCode, Refusal, Refusals, StaleEtag
from app.scope import Scope, Tenant
from app.services.lists.dependents import MOST_FOUND, Dependent, refuse_dependents
from app.services.lists.listing import Key, Listing, Order
from app.services.lists.paging import PageRequest, Slice
from app.services.lists.rows import as_row, get_rows, rows_of_any, select_rows
from app.services.lists.validation import refuse_bad_name
from app.storage.columns import StoredValues, columns
from app.storage.database import Database, unwitnessed
from app.storage.ids import new_id
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetKind, DatasetRow
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import RUNNING, WAITING
from app.storage.tables.merge_policies import IdentityGraph, MergeMethod, MergePolicyRow
from app.storage.tables.segment_jobs import SegmentJobDefinitionRow, SegmentJobRow
from app.storage.tenancy import same_tenant, within

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
    """Only the keys that are there change."""

    name: str
    method: MergeMethod
    identity_graph: IdentityGraph
    datasets: Sequence[str]
    is_default: bool


def policy_as_json(policy: MergePolicyRow) -> StoredValues:
    """A merge policy as a job keeps it."""
    names = [column.key for column in _POLICIES if column.key not in {"organisation", "sandbox"}]
    values = {name: getattr(policy, name) for name in names}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}


def policy_from_json(tenant: Tenant, kept: Mapping[str, Any]) -> MergePolicyRow:
    """The merge policy that a job of the tenant has kept."""
    times = {name: datetime.fromisoformat(kept[name]) for name in ("created_at", "updated_at")}
    return MergePolicyRow(**{**kept, **times, "organisation": tenant.organisation, "sandbox": tenant.sandbox})


async def ensure_default(database: Database, clock: Clock, scope: Scope) -> MergePolicyRow:
    """The sandbox's default policy, made when the sandbox is used for the first time."""
    async with database.session() as session:
        policy = await default_policy(session, scope)
    if policy is not None:
        return policy
    # Whoever uses the sandbox first did not ask for it: it is nothing that a caller did.
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
            session.add(row)
            await session.flush()
            policy = await default_policy(session, scope)
    if policy is None:
        raise RuntimeError("the default merge policy could not be created")
    return policy


async def default_policy(session: AsyncSession, scope: Scope) -> MergePolicyRow | None:
    statement = select_rows(MergePolicyRow, scope).where(_POLICIES.is_default)
    row = (await session.execute(statement)).first()
    return None if row is None else as_row(MergePolicyRow, row)


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
    """Raises `Refusals` for what does not fit together. A new default replaces the one before."""
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
        session.add(row)
    return row


async def update(
    database: Database, clock: Clock, scope: Scope, id: str, etag: str | None, changes: PolicyChanges
) -> MergePolicyRow:
    """Changes what is given; what was computed stays until the next evaluation. Raises as `create`, and `StaleEtag`."""
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
        if merged.identity_graph == "PDG" != current.identity_graph:
            await refuse_dependents(session, scope, id, "identity_graph", [_live_audiences], "make them BATCH first")
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
    """Raises `HasDependents` while audiences or unfinished jobs use it, and `Refusal` for the default policy."""
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
    policy = (await get_many(session, scope, [id])).get(id)
    if policy is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no merge policy {id!r} in this sandbox", ("id",))
    if etag is not None and etag != str(policy.revision):
        raise StaleEtag(str(policy.revision), ("etag",))
    return policy


async def _audiences(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    return await _audiences_that(session, scope, _AUDIENCES.merge_policy_id == policy_id, "use it")


async def _live_audiences(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    """Only a job can resolve stitched profiles: nothing over them is evaluated without one."""
    live = or_(_AUDIENCES.evaluates_streaming, _AUDIENCES.evaluates_edge)
    mine = and_(_AUDIENCES.merge_policy_id == policy_id, live)
    does = "are evaluated by STREAMING or EDGE, which needs the identity graph NONE"
    return await _audiences_that(session, scope, mine, does)


async def _audiences_that(
    session: AsyncSession, scope: Scope, condition: ColumnElement[bool], does: str
) -> list[Dependent]:
    statement = within(select(_AUDIENCES.id, _AUDIENCES.name), AudienceRow, scope.tenant).where(condition)
    rows = await session.execute(statement.order_by(_AUDIENCES.name, _AUDIENCES.id).limit(MOST_FOUND))
    return [Dependent("Audience", row.id, repr(row.name), does) for row in rows]


async def _export_jobs(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    """The export jobs that have not ended."""
    statement = within(select(_EXPORTS.id), ExportJobRow, scope.tenant)
    live = statement.where(_EXPORTS.merge_policy_id == policy_id, _EXPORTS.status.in_(WAITING | RUNNING))
    ids = await session.scalars(live.order_by(_EXPORTS.id).limit(MOST_FOUND))
    return [Dependent("ExportJob", id_, id_, "use it", "the export jobs ") for id_ in ids]


async def _segment_jobs(session: AsyncSession, scope: Scope, policy_id: str) -> list[Dependent]:
    """The segment jobs that have not ended and run a definition under the policy."""
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
