"""Runs due schedules; knows no kind of job. Any number of processes may do so concurrently."""

import asyncio
import logging

from app.clock import Clock, SteadyClock
from app.services.jobs.schedules.run import due, next_due, run_due
from app.storage.database import Database, is_unavailable
from app.storage.topics import SCHEDULES
from app.storage.wakeups import Changes
from app.worker.service import Rest, serve

log = logging.getLogger(__name__)

LONGEST_SECONDS = 30.0
"""Maximum seconds between checks without a wake-up: a clock may be set, and a wake-up may be lost."""
RETRY_SECONDS = 5.0


async def keep_time(
    database: Database, changes: Changes, clock: Clock, stop: asyncio.Event, steady: SteadyClock | None = None
) -> None:
    """Starts the runs of all tenants' schedules until `stop` is set, beginning with missed ones.

    Nothing runs while the clock is not `steady`: due times that were never really reached would be skipped permanently.
    """
    doubted = False

    async def step() -> Rest:
        nonlocal doubted
        if steady is not None and not steady.is_steady():
            if not doubted:
                log.warning(
                    "the clock of this machine was set by more than a minute: schedules wait until it is steady"
                )
            doubted = True
            return Rest(LONGEST_SECONDS)
        doubted = False
        return Rest(await _run_all(database, clock))

    async with changes.subscribe(SCHEDULES) as wakeups:
        await serve(step, stop, name="scheduler", wakeups=wakeups, retry_seconds=(RETRY_SECONDS,))


async def _run_all(database: Database, clock: Clock) -> float:
    """Runs everything due. Returns the seconds to sleep if nothing changes meanwhile."""
    failed = False
    for tenant, id_ in await due(database, clock()):
        try:
            await run_due(database, clock, tenant, id_)
        except Exception as error:
            if is_unavailable(error):
                raise
            # An internal error in one schedule must not delay the others.
            log.exception("could not run schedule %s of %s; retrying", id_, tenant)
            failed = True
    upcoming = await next_due(database)
    if failed:
        return RETRY_SECONDS
    if upcoming is None:
        return LONGEST_SECONDS
    return min(max((upcoming - clock()).total_seconds(), 0.0), LONGEST_SECONDS)
