"""What a process with a worker does beside its jobs: settles what dead processes left behind; knows no job."""

import asyncio
import logging
from contextlib import suppress

from app.clock import Clock
from app.engine.lake import Lake
from app.services.uploads import reconcile
from app.storage.database import Database, is_unavailable

log = logging.getLogger(__name__)

EVERY_SECONDS = 30.0
"""Half of a batch's lease: who waits for a lost batch waits no longer than a minute and a half."""


async def keep_house(
    database: Database, lake: Lake, clock: Clock, stop: asyncio.Event, every: float = EVERY_SECONDS
) -> None:
    """Looks at once and then every so many seconds, until `stop` is set. Any number of processes may do it at once."""
    while not stop.is_set():
        try:
            await reconcile(database, lake, clock)
        except Exception as error:
            if is_unavailable(error):
                log.warning("the database is away; lost batches wait: %s", error)
            else:
                log.exception("looking for lost batches failed; it is tried again in %.0f s", every)
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), every)
