"""Tenants: a statement within one never touches a row of another."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import delete, select, update

from app.scope import Tenant
from app.storage.database import Database
from app.storage.tables.datasets import DatasetRow
from app.storage.tenancy import within

ACME = Tenant("acme", "prod")
TENANTS = [ACME, Tenant("acme", "dev"), Tenant("globex", "prod")]
NOON = datetime(2026, 6, 15, 12, tzinfo=UTC)


async def test_reading_changing_and_deleting_stay_within(database: Database) -> None:
    async with database.write() as session:
        for tenant in TENANTS:
            values: dict[str, Any] = {"id": "d1", "name": "d1", "kind": "EVENT", "created_by": "ada"}
            where: dict[str, Any] = {"organisation": tenant.organisation, "sandbox": tenant.sandbox}
            session.add(DatasetRow(**values, **where, created_at=NOON, updated_at=NOON))
    async with database.session() as session:
        found = (await session.execute(within(select(DatasetRow), DatasetRow, ACME))).scalars().all()
        assert [(row.organisation, row.sandbox) for row in found] == [("acme", "prod")]
    async with database.write() as session:
        await session.execute(within(update(DatasetRow), DatasetRow, ACME).values(row_count=7))
    assert await _counts(database) == {("acme", "dev"): 0, ("acme", "prod"): 7, ("globex", "prod"): 0}
    async with database.write() as session:
        await session.execute(within(delete(DatasetRow), DatasetRow, ACME))
    assert await _counts(database) == {("acme", "dev"): 0, ("globex", "prod"): 0}


async def _counts(database: Database) -> dict[tuple[str, str], int]:
    async with database.session() as session:
        rows = (await session.execute(select(DatasetRow))).scalars()
        return {(row.organisation, row.sandbox): row.row_count for row in rows}
