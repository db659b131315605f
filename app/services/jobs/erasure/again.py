"""Repeats erasures that a restored backup does not include, from the records of a later lake."""

import asyncio
from pathlib import Path

from app.clock import Clock
from app.engine.erasure.returned import returned
from app.engine.store.erased import read_erased_file
from app.engine.store.lake import Lake
from app.errors import ErrorCode, Refusal
from app.scope import Scope, Tenant
from app.services.evaluation.expressions import data_sources
from app.services.jobs.erasure.requests import NewErasure, create
from app.services.maintenance.backup import LAKE
from app.services.maintenance.retention import all_tenants
from app.storage.database import Database

NOTE = "erased.json"


def refuse_misfit(later: Path, backup: Path) -> None:
    """Raises `Refusal` unless `later` is a lake with records of erased people, or a copy of just these records in their
    folders. Sandboxes that are in both must have the same salt."""
    notes = sorted(path for path in later.rglob(NOTE) if path.is_file())
    if not notes:
        message = f"{later} has no {NOTE} in it: name the folder `lake` of the data that the backup replaces"
        raise Refusal(ErrorCode.NOT_FOUND, message, ("erased",))
    for path in notes:
        own, newer = read_erased_file(backup / LAKE / path.relative_to(later)), read_erased_file(path)
        if own is not None and newer is not None and own.salt != newer.salt:
            message = f"{path} is not of the sandbox in the backup: its salt differs"
            raise Refusal(ErrorCode.INVALID_STATE, message, ("erased",))


async def erase_again(database: Database, lake: Lake, clock: Clock, later: Path) -> int:
    """Queues an erasure for each person of the lake who was erased later; returns their number."""
    jobs = 0
    async with database.session() as session:
        tenants = await all_tenants(session)
    for tenant in tenants:
        scope = Scope(tenant.organisation, tenant.sandbox, "restore")
        async with database.session() as session:
            sources = [source.id for source in await data_sources(session, scope)]
        for namespace, id in await asyncio.to_thread(_returned, lake, tenant, later, sources):
            await create(database, lake, clock, scope, NewErasure(namespace, id))
            jobs += 1
    return jobs


def _returned(lake: Lake, tenant: Tenant, later: Path, sources: list[str]) -> list[tuple[str, str]]:
    own = lake.tenant(tenant)
    return returned(own, later / own.folder.relative_to(lake.root) / NOTE, sources)
