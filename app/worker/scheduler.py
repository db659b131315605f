"""Runs what schedules have due, at its time; knows no kind of job. Any number of processes may do so at once."""

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
"""How often it looks without having been woken: a clock may be set, and a wake-up may get lost."""
RETRY_SECONDS = 5.0


async def keep_time(
    database: Database, changes: Changes, clock: Clock, stop: asyncio.Event, steady: SteadyClock | None = None
) -> None:
    """Starts the runs of all tenants' schedules until `stop` is set; at first what was missed meanwhile.

    While the clock is not `steady` nothing runs: a time that was never reached would be passed over for good.
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
    """Runs all that is due, and returns for how many seconds to sleep, should nothing change meanwhile."""
    failed = False
    for tenant, id_ in await due(database, clock()):
        try:
            await run_due(database, clock, tenant, id_)
        except Exception as error:
            if is_unavailable(error):
                raise
            # One schedule that fails by a mistake of ours does not hold up the others.
            log.exception("could not run schedule %s of %s; retrying", id_, tenant)
            failed = True
    upcoming = await next_due(database)
    if failed:
        return RETRY_SECONDS
    if upcoming is None:
        return LONGEST_SECONDS
    return min(max((upcoming - clock()).total_seconds(), 0.0), LONGEST_SECONDS)
