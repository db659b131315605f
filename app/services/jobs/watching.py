"""Streams of jobs: every state once and in order, at a database cost independent of the number of subscribers."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from app.scope import Scope, Tenant
from app.services.jobs.shared import required
from app.storage.database import Database, is_unavailable
from app.storage.job_log import JobState, changed_jobs, read_updates
from app.storage.tables.jobs import FINAL, JobKind
from app.storage.topics import job_topic, jobs_topic
from app.storage.wakeups import PATIENCE_SECONDS, Changes, Wakeups

T = TypeVar("T")

AWAY_SECONDS = 1.0
"""Seconds between a stream's retries while the database is unavailable."""
OVERLAP = timedelta(seconds=30)
"""Maximum delay between a state's timestamp and its commit."""
RECENT_STATES = 1_024
"""Number of cached states for subscribers to all jobs of a tenant."""
JOBS_KEPT = 10_000
"""Number of jobs whose delivered states a stream remembers; more than change within the overlap."""


async def watch(
    database: Database, changes: Changes, scope: Scope, kind: JobKind, id: str, after: int | None = None
) -> AsyncGenerator[Any, None]:
    """Yields the current state of a job, then each later one in the order of `sequence`, until a final one.

    `after` resumes: every state above it is yielded, none at or below it. Raises `Refusal` for an unknown job.
    """
    async with changes.subscribe(job_topic(scope.tenant, id)) as wakeups:
        async with database.session() as session:
            present = await required(session, scope, kind, id)
        sequence = present.sequence - 1 if after is None else after
        with changes.tail(database, scope.tenant, id, present.sequence) as tail:
            while True:
                states = await _patiently(tail.after, sequence, present.sequence)
                for state in states:
                    sequence = state.row.sequence
                    yield state.row
                    if state.row.status in FINAL:
                        return
                if states:
                    continue
                if present.status in FINAL and sequence >= present.sequence:
                    return
                await wakeups.wait(PATIENCE_SECONDS)


async def watch_all(
    database: Database,
    changes: Changes,
    scope: Scope,
    status: Collection[str] | None = None,
    kind: JobKind | None = None,
) -> AsyncGenerator[JobState, None]:
    """Every later state of every job of the tenant, of one kind or all, those of one job in the order of `sequence`;
    does not end."""
    topic = jobs_topic(scope.tenant)
    async with changes.subscribe(topic) as wakeups:
        with changes.shared(topic, lambda shared: JobsTail(database, scope.tenant, shared)) as tail:
            position = await _patiently(tail.position)
            since = datetime.now(UTC)
            async with database.session() as session:
                sequences = await changed_jobs(session, scope.tenant, since - OVERLAP)
            while True:
                now = datetime.now(UTC)
                position, recent = await _patiently(tail.after, position)
                states = recent if recent is not None else await _patiently(_logged, database, scope, since, sequences)
                since = now
                for state in states:
                    last = sequences.pop(state.row.id, 0)
                    sequences[state.row.id] = max(state.row.sequence, last)
                    matches = (kind is None or state.kind == kind) and (status is None or state.row.status in status)
                    if state.row.sequence > last and matches:
                        yield state
                while len(sequences) > JOBS_KEPT:
                    del sequences[next(iter(sequences))]
                if not states:
                    await wakeups.wait(PATIENCE_SECONDS)


class JobsTail:
    """The newest states of all jobs of a tenant, read once for all subscribers in this process.

    States are numbered as they are read. A subscriber that falls further behind than the cache continues from the log.
    """

    def __init__(self, database: Database, tenant: Tenant, wakeups: Wakeups) -> None:
        self._database = database
        self._tenant = tenant
        self._wakeups = wakeups
        self._recent: deque[JobState] = deque(maxlen=RECENT_STATES)
        self._count = 0
        self._seen: dict[str, int] | None = None
        self._since = datetime.now(UTC)
        self._turn = asyncio.Lock()
        self._read_at = 0.0

    async def position(self) -> int:
        """The number of the newest state."""
        async with self._turn:
            if self._seen is None:
                self._since, self._read_at = datetime.now(UTC), time.monotonic()
                async with self._database.session() as session:
                    self._seen = await changed_jobs(session, self._tenant, self._since - OVERLAP)
            return self._count

    async def after(self, position: int) -> tuple[int, list[JobState] | None]:
        """The states after that number, with the number of the last; None instead of states if not all are cached."""
        if self._turn.locked() or self._outdated:
            async with self._turn:
                if self._outdated:
                    await self._read()
        missing = self._count - position
        if missing > len(self._recent):
            return self._count, None
        return self._count, list(islice(self._recent, len(self._recent) - missing, None))

    @property
    def _outdated(self) -> bool:
        # A lost notification delays the stream by seconds, but does not stall it.
        return self._wakeups.pending or time.monotonic() - self._read_at >= PATIENCE_SECONDS

    async def _read(self) -> None:
        self._wakeups.take()
        now = datetime.now(UTC)
        try:
            self._seen, states = await _news(self._database, self._tenant, self._since, self._seen or {})
        except BaseException:
            self._wakeups.set()
            raise
        self._recent.extend(states)
        self._count += len(states)
        self._since, self._read_at = now, time.monotonic()


async def _news(
    database: Database, tenant: Tenant, since: datetime, seen: Mapping[str, int]
) -> tuple[dict[str, int], list[JobState]]:
    """The changes since: each job's newest sequence, and the states above those seen, in time order."""
    async with database.session() as session:
        newest = await changed_jobs(session, tenant, since - OVERLAP)
        states: list[JobState] = []
        for id_, sequence in newest.items():
            if sequence > seen.get(id_, 0):
                # A job that has not been seen did not change during the whole overlap, so its older states were
                # delivered.
                states += await read_updates(session, tenant, id_, seen.get(id_, 0), since=since - OVERLAP)
    return {**{id_: last for id_, last in seen.items() if id_ in newest}, **newest}, _in_order(states)


async def _logged(database: Database, scope: Scope, since: datetime, seen: Mapping[str, int]) -> list[JobState]:
    return (await _news(database, scope.tenant, since, seen))[1]


def _in_order(states: Iterable[JobState]) -> list[JobState]:
    return sorted(states, key=lambda state: (state.row.updated_at, state.row.id, state.row.sequence))


async def _patiently(read: Callable[..., Awaitable[T]], *arguments: object) -> T:
    """The result of a read, retried until the database is available: a stream survives an outage."""
    while True:
        try:
            return await read(*arguments)
        except Exception as error:
            if not is_unavailable(error):
                raise
        await asyncio.sleep(AWAY_SECONDS)
