"""The sandboxes of an organisation, and the time zone of each."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo, available_timezones

from sqlalchemy import delete, insert, select, union
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.store.delta import open_table
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.pql.suggestions import did_you_mean, nearest
from app.scope import Scope, Tenant
from app.storage.columns import columns
from app.storage.database import Database
from app.storage.tables.audiences import AudienceRow
from app.storage.tables.datasets import DatasetRow
from app.storage.tables.sandboxes import SandboxRow
from app.storage.tenancy import within

_SANDBOXES = columns(SandboxRow)


@dataclass(frozen=True, slots=True)
class Sandbox:
    """`total_profiles` counts all primary identities ever loaded."""

    name: str
    time_zone: str
    total_profiles: int


async def read_time_zone(session: AsyncSession, scope: Scope, lake: Lake) -> ZoneInfo:
    """The sandbox's time zone, or that of the settings."""
    statement = within(select(_SANDBOXES.time_zone), SandboxRow, scope.tenant)
    name = (await session.execute(statement)).scalar_one_or_none()
    return ZoneInfo(name or lake.time_zone)


async def update(database: Database, lake: Lake, clock: Clock, scope: Scope, time_zone: str) -> Sandbox:
    """Sets the time zone for evaluations that start from now on. Raises `Refusal`."""
    zones = available_timezones()
    if time_zone not in zones:
        hint = did_you_mean(nearest(time_zone, sorted(zones)))
        message = f"there is no time zone {time_zone!r}{hint or ': send an IANA name, such as Europe/Berlin'}"
        raise Refusal(ErrorCode.INVALID_INPUT, message, ("time_zone",))
    async with database.write() as session:
        await session.execute(within(delete(SandboxRow), SandboxRow, scope.tenant))
        key = {"organisation": scope.organisation, "sandbox": scope.sandbox}
        row = {**key, "time_zone": time_zone, "last_modified_by": scope.user, "updated_at": clock()}
        await session.execute(insert(SandboxRow).values(**row))
    return await asyncio.to_thread(_sandbox, lake, scope.tenant, time_zone)


async def own_time_zone(database: Database, lake: Lake, scope: Scope) -> str:
    async with database.session() as session:
        return (await read_time_zone(session, scope, lake)).key


async def sandboxes(database: Database, lake: Lake, scope: Scope) -> Sequence[Sandbox]:
    """The organisation's sandboxes that have datasets, audiences or a time zone and that the caller may use, by
    name."""
    tables = (columns(DatasetRow), columns(AudienceRow), _SANDBOXES)
    named = union(*(select(of.sandbox).where(of.organisation == scope.organisation) for of in tables))
    zones = select(_SANDBOXES.sandbox, _SANDBOXES.time_zone).where(_SANDBOXES.organisation == scope.organisation)
    async with database.session() as session:
        names = {row.sandbox for row in await session.execute(named)}
        zone_of: Mapping[str, str] = {row.sandbox: row.time_zone for row in await session.execute(zones)}
    if scope.sandboxes is not None:
        names &= scope.sandboxes
    return await asyncio.to_thread(
        lambda: [
            _sandbox(lake, Tenant(scope.organisation, name), zone_of.get(name, lake.time_zone))
            for name in sorted(names)
        ]
    )


def _sandbox(lake: Lake, tenant: Tenant, time_zone: str) -> Sandbox:
    table = open_table(lake.tenant(tenant).identities)
    return Sandbox(tenant.sandbox, time_zone, 0 if table is None else sum(file.rows for file in table.files))
