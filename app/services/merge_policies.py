"""Merge policies: how fragments of one profile become one view. Every sandbox has a default one."""

from collections.abc import Iterable
from typing import Literal

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.profiles import MergeRule
from app.errors import ErrorCode, Refusal
from app.scope import Scope
from app.services.paging import Key, Order, PageRequest, Slice, fetch_page
from app.services.rows import as_row, get_rows, select_rows
from app.storage.database import Database
from app.storage.tables.merge_policies import MergePolicyRow
from app.storage.tenancy import within

DEFAULT_POLICY_ID = "default"
_ORDER = Order("CREATED", (Key(MergePolicyRow.__table__.c.created_at), Key(MergePolicyRow.__table__.c.id)))  # type: ignore[attr-defined]


async def ensure_default(database: Database, clock: Clock, scope: Scope) -> MergePolicyRow:
    """The sandbox's default policy, made when the sandbox is used for the first time."""
    async with database.session() as session:
        found = await default_policy(session, scope)
    if found is not None:
        return found
    async with database.write(scope.tenant) as session:
        if (found := await default_policy(session, scope)) is None:
            now = clock()
            row = MergePolicyRow(
                organisation=scope.organisation,
                sandbox=scope.sandbox,
                id=DEFAULT_POLICY_ID,
                name="Default: newest value wins",
                method="TIMESTAMP_ORDERED",
                identity_graph="NONE",
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
            found = await default_policy(session, scope)
    if found is None:
        raise RuntimeError("the default merge policy could not be made")
    return found


async def default_policy(session: AsyncSession, scope: Scope) -> MergePolicyRow | None:
    statement = select_rows(MergePolicyRow, scope).where(MergePolicyRow.is_default)  # type: ignore[arg-type]
    row = (await session.execute(statement)).first()
    return None if row is None else as_row(MergePolicyRow, row)


async def get_many(session: AsyncSession, scope: Scope, ids: Iterable[str]) -> dict[str, MergePolicyRow]:
    return await get_rows(session, MergePolicyRow, scope, ids)


async def page(session: AsyncSession, scope: Scope, request: PageRequest) -> Slice[MergePolicyRow]:
    statement = select_rows(MergePolicyRow, scope)
    return await fetch_page(session, statement, _ORDER, request, lambda row: as_row(MergePolicyRow, row))


async def count(session: AsyncSession, scope: Scope) -> int:
    statement = within(select(func.count()).select_from(MergePolicyRow), MergePolicyRow, scope.tenant)
    return int((await session.execute(statement)).scalar_one())


async def choose(database: Database, clock: Clock, scope: Scope, id: str | None) -> MergePolicyRow:
    """The policy with this id, or the default one. Raises `Refusal` for an unknown id."""
    if id is None:
        return await ensure_default(database, clock, scope)
    async with database.session() as session:
        found = (await get_many(session, scope, [id])).get(id)
    if found is None:
        raise Refusal(ErrorCode.NOT_FOUND, f"there is no merge policy {id!r} in this sandbox", ("merge_policy_id",))
    return found


def rule_of(policy: MergePolicyRow) -> MergeRule:
    method: Literal["TIMESTAMP_ORDERED", "DATA_SET_PRECEDENCE"] = (
        "DATA_SET_PRECEDENCE" if policy.method == "DATA_SET_PRECEDENCE" else "TIMESTAMP_ORDERED"
    )
    return MergeRule(policy.id, method, tuple(policy.datasets))
