"""The log that search reads: the database writes it itself, whoever makes the change and in whatever way."""

import asyncio
from datetime import UTC, datetime

from sqlalchemy import text

from app.scope import Tenant
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.folders import FolderRow
from app.storage.tables.search import CHANGES_KEPT

NOW = datetime(2026, 6, 15, 12, tzinfo=UTC)


def audience(id_: str, sandbox: str = "prod") -> AudienceRow:
    return AudienceRow(
        organisation="acme",
        sandbox=sandbox,
        id=id_,
        audience_id=id_,
        name=f"Audience {id_}",
        created_by="ann",
        last_modified_by="ann",
        created_at=NOW,
        updated_at=NOW,
    )


def folder(id_: str, parent: str | None = None) -> FolderRow:
    return FolderRow(
        organisation="acme",
        sandbox="prod",
        id=id_,
        name=id_,
        namespace="AEPSegments",
        parent_id=parent,
        path=f"/{id_}",
        created_by="ann",
        last_modified_by="ann",
        created_at=NOW,
        updated_at=NOW,
    )


async def run(database: Database, *statements: str) -> None:
    async with database.write() as session:
        for statement in statements:
            await session.execute(text(statement))


async def noted(database: Database, sandbox: str = "prod") -> tuple[int, dict[str, int]]:
    """The tenant's version, and that of each object in the log."""
    async with database.session() as session:
        where = f"WHERE organisation = 'acme' AND sandbox = '{sandbox}'"
        version = (await session.execute(text(f"SELECT version FROM search_version {where}"))).scalar() or 0
        rows = await session.execute(text(f"SELECT kind, object_id, version FROM search_change {where}"))
        return version, {f"{kind} {id_}": number for kind, id_, number in rows}


async def test_making_changing_and_deleting_raise_the_version(database: Database) -> None:
    async with database.write() as session:
        session.add(audience("a"))
        await session.flush()
        session.add(audience("b"))
    assert await noted(database) == (2, {"Audience a": 1, "Audience b": 2})
    await run(database, "UPDATE audience SET name = 'New' WHERE id = 'a'")
    assert await noted(database) == (3, {"Audience a": 3, "Audience b": 2})
    await run(database, "DELETE FROM audience WHERE id = 'b'")
    assert await noted(database) == (4, {"Audience a": 3, "Audience b": 4})


async def test_each_column_that_is_searched_counts_and_no_other(database: Database) -> None:
    async with database.write() as session:
        session.add(audience("a"))
        session.add(folder("f"))
    version = 2
    for table, column in [
        ("audience", "audience_id"),
        ("audience", "name"),
        ("audience", "description"),
        ("audience", "namespace"),
        ("audience", "folder_id"),
        ("folder", "name"),
        ("folder", "namespace"),
        ("folder", "path"),
    ]:
        await run(database, f"UPDATE {table} SET {column} = 'changed'")
        version += 1
        assert (await noted(database))[0] == version, column
        await run(database, f"UPDATE {table} SET {column} = 'changed'")
        assert (await noted(database))[0] == version, column
    await run(database, "UPDATE audience SET total_profiles = 5, lifecycle_state = 'DRAFT', revision = 9")
    assert (await noted(database))[0] == version


async def test_versions_are_each_sandbox_s_own(database: Database) -> None:
    async with database.write() as session:
        session.add_all([audience("a"), audience("a", "dev")])
    assert await noted(database) == (1, {"Audience a": 1})
    await run(database, "UPDATE audience SET name = 'New' WHERE sandbox = 'dev'")
    assert await noted(database) == (1, {"Audience a": 1})
    assert await noted(database, "dev") == (2, {"Audience a": 2})


async def test_a_rolled_back_change_leaves_no_trace(database: Database) -> None:
    class Stop(Exception):
        pass

    try:
        async with database.write() as session:
            session.add(audience("a"))
            await session.flush()
            raise Stop
    except Stop:
        pass
    assert await noted(database) == (0, {})


async def test_versions_become_visible_in_their_order(database: Database) -> None:
    """A later version is never committed before an earlier one, or an index would step over that one."""
    tenant, first_in, order = Tenant("acme", "prod"), asyncio.Event(), []

    async def slow() -> None:
        async with database.write() as session:
            session.add(audience("slow"))
            await session.flush()
            first_in.set()
            await asyncio.sleep(0.1)
            order.append("slow")

    async def quick() -> None:
        await first_in.wait()
        async with database.write(tenant) as session:
            session.add(audience("quick"))
            await session.flush()
            order.append("quick")

    await asyncio.gather(slow(), quick())
    assert order == ["slow", "quick"]
    assert await noted(database) == (2, {"Audience slow": 1, "Audience quick": 2})


async def test_the_log_forgets_what_is_long_ago(database: Database) -> None:
    async with database.write() as session:
        session.add_all([audience("a"), audience("b")])
    await run(database, f"UPDATE search_version SET version = {CHANGES_KEPT}")
    await run(database, "UPDATE audience SET name = 'New' WHERE id = 'b'")
    assert await noted(database) == (CHANGES_KEPT + 1, {"Audience b": CHANGES_KEPT + 1})
