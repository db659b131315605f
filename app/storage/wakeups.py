"""Change notifications, within a process and across processes."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.scope import Tenant
from app.storage.database import Database, connect_postgresql, is_unavailable
from app.storage.job_log import JobState, read_updates
from app.storage.sessions.writing import CHANNEL
from app.storage.topics import Topic, job_topic, jobs_topic

log = logging.getLogger(__name__)

T = TypeVar("T")

LOOK_SECONDS = 0.2
"""Seconds between polls for writes of other processes on SQLite."""
PATIENCE_SECONDS = 5.0
"""Seconds after which the log is read even without a wake-up."""
TAIL_STATES = 128
"""Number of a job's states that are cached for all subscribers, and that one read of the log returns."""
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)


class Wakeups:
    """The wake-ups of one subscriber. A single flag: a slow subscriber costs nothing, and its next read misses
    nothing."""

    def __init__(self) -> None:
        self._flag = asyncio.Event()
        self._set_at = 0.0

    def set(self) -> None:
        self._set_at = time.monotonic()
        self._flag.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits for the next wake-up and clears it; false if none came within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._flag.wait()
        except TimeoutError:
            return False
        self._flag.clear()
        return True

    async def next(self, seconds: float) -> float:
        """Waits at most `seconds` for the next wake-up and clears it. Returns the time (`time.monotonic`) from which
        there may be news: that of the wake-up, or the start of the wait if none came."""
        begun = time.monotonic()
        return self._set_at if await self.wait(seconds) else begun

    @property
    def pending(self) -> bool:
        """Whether a wake-up has come and not been cleared."""
        return self._flag.is_set()

    def take(self) -> None:
        """Clears a pending wake-up."""
        self._flag.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        await self.wait()


class Tail:
    """The newest states of one job, read once for all its subscribers in this process; older states are in the log.

    An update costs one read, however many subscribers there are. A slow subscriber falls behind on its own and
    continues from the log, in parts.
    """

    def __init__(self, database: Database, tenant: Tenant, job_id: str, newest: int, wakeups: Wakeups) -> None:
        self._database = database
        self._job = (tenant, job_id)
        self._newest = newest - 1
        self._recent: deque[JobState] = deque(maxlen=TAIL_STATES)
        self.wakeups = wakeups
        self._turn = asyncio.Lock()
        self._read_at = time.monotonic()

    async def after(self, sequence: int, known: int) -> list[JobState]:
        """The next states above `sequence`, in order; empty if there are none. `known` is a sequence known to exist."""
        # During another task's read the wake-up is already cleared but its states are not here yet: wait for that read.
        if self._turn.locked() or self._outdated(known):
            async with self._turn:
                if self._outdated(known):
                    await self._read()
        if self._recent and self._recent[0].row.sequence <= sequence + 1:
            return [state for state in self._recent if state.row.sequence > sequence]
        return await self._logged(sequence)

    def _outdated(self, known: int) -> bool:
        # A lost notification delays the stream by seconds, but does not stall it.
        late = time.monotonic() - self._read_at >= PATIENCE_SECONDS
        return late or self._newest < known or self.wakeups.pending

    async def _read(self) -> None:
        self.wakeups.take()
        try:
            while fresh := await self._logged(self._newest):
                self._recent.extend(fresh)
                self._newest = fresh[-1].row.sequence
                if len(fresh) < TAIL_STATES:
                    break
        except BaseException:
            self.wakeups.set()
            raise
        self._read_at = time.monotonic()

    async def _logged(self, sequence: int) -> list[JobState]:
        async with self._database.session() as session:
            return await read_updates(session, *self._job, sequence, TAIL_STATES)


@dataclass(slots=True)
class _Shared:
    value: Any
    wakeups: Wakeups
    users: int = 0


class Changes:
    """Wakes subscribers in this process, whichever process made the change. Open it with `Changes.open`."""

    def __init__(self) -> None:
        self._subscribers: dict[Topic, set[Wakeups]] = {}
        self._topics: dict[str, Topic] = {}
        self._shared: dict[Topic, _Shared] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database) -> AsyncIterator[Self]:
        """Listens for changes until the block ends, and reconnects as long as the database is unavailable."""
        changes = cls()
        remove = database.on_commit(lambda topics: changes.wake(*topics))
        ready = asyncio.Event()
        source = _notifications if database.dialect == "postgresql" else _looks
        listening = asyncio.create_task(_keep_listening(database, changes, source, ready), name="changes")
        try:
            await ready.wait()
            yield changes
        finally:
            remove()
            listening.cancel()
            with suppress(asyncio.CancelledError):
                await listening

    @asynccontextmanager
    async def subscribe(self, topic: Topic) -> AsyncIterator[Wakeups]:
        """Wake-ups from now on. Subscribe before reading the log, so that no change is missed in between."""
        wakeups = self._add(topic)
        try:
            yield wakeups
        finally:
            self._drop(topic, wakeups)

    @contextmanager
    def shared(self, topic: Topic, make: Callable[[Wakeups], T]) -> Iterator[T]:
        """A value shared by all subscribers of the topic in this process. The first subscriber creates it, with its own
        wake-ups; it is dropped with the last."""
        shared = self._shared.get(topic)
        if shared is None:
            wakeups = self._add(topic)
            shared = self._shared[topic] = _Shared(make(wakeups), wakeups)
        shared.users += 1
        try:
            yield shared.value
        finally:
            shared.users -= 1
            if not shared.users:
                del self._shared[topic]
                self._drop(topic, shared.wakeups)

    def tail(self, database: Database, tenant: Tenant, job_id: str, newest: int) -> AbstractContextManager[Tail]:
        """The job's tail, shared by all its subscribers; `newest` is the newest sequence known to the caller."""
        return self.shared(job_topic(tenant, job_id), lambda wakeups: Tail(database, tenant, job_id, newest, wakeups))

    def _add(self, topic: Topic) -> Wakeups:
        wakeups = Wakeups()
        self._subscribers.setdefault(topic, set()).add(wakeups)
        self._topics[topic.digest] = topic
        return wakeups

    def _drop(self, topic: Topic, wakeups: Wakeups) -> None:
        others = self._subscribers[topic]
        others.discard(wakeups)
        if not others:
            del self._subscribers[topic], self._topics[topic.digest]

    def wake(self, *topics: Topic) -> None:
        for topic in topics:
            for wakeups in self._subscribers.get(topic, ()):
                wakeups.set()

    def wake_digest(self, digest: str) -> None:
        if (topic := self._topics.get(digest)) is not None:
            self.wake(topic)

    def wake_all(self, *, but_jobs: bool = False) -> None:
        """Wakes all subscribers, or with `but_jobs` only those whose topics the update log does not cover."""
        self.wake(*(topic for topic in self._subscribers if not but_jobs or topic.kind not in {"job", "jobs"}))


Source = Callable[[Database, Changes], AsyncIterator[None]]
"""Wakes subscribers on changes of other processes. Yields once it is listening, and ends with its connection."""


async def _keep_listening(database: Database, changes: Changes, source: Source, ready: asyncio.Event) -> None:
    failures = 0
    while True:
        try:
            async for _ in source(database, changes):
                # Changes may have been missed while not listening, so all subscribers look once.
                changes.wake_all()
                ready.set()
                failures = 0
        except Exception as error:
            if not is_unavailable(error):
                log.exception("lost the notification connection; reconnecting")
            ready.set()
        await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
        failures += 1


async def _notifications(database: Database, changes: Changes) -> AsyncIterator[None]:
    """Listens to PostgreSQL's notifications. Yields once it is listening; ends with the connection."""
    connection = await connect_postgresql(database.location)
    try:
        ended = asyncio.Event()
        connection.add_termination_listener(lambda _connection: ended.set())
        await connection.add_listener(CHANNEL, lambda _c, _pid, _channel, payload: changes.wake_digest(payload))
        yield
        await ended.wait()
    finally:
        if not connection.is_closed():
            connection.terminate()


async def _looks(database: Database, changes: Changes) -> AsyncIterator[None]:
    """Polls SQLite for changes. Yields after the first poll; ends when polling fails."""
    async with database.engines[0].connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        version = await _scalar(connection, "PRAGMA data_version")
        newest = await _scalar(connection, "SELECT max(rowid) FROM job_update")
        yield
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = await _scalar(connection, "PRAGMA data_version")
            if now != version:
                version = now
                newest = await _wake_logged(connection, changes, newest)
                changes.wake_all(but_jobs=True)


async def _wake_logged(connection: AsyncConnection, changes: Changes, newest: int) -> int:
    """Wakes subscribers of jobs with new rows in the log. SQLite numbers rows in insertion order."""
    last = await _scalar(connection, "SELECT max(rowid) FROM job_update")
    if last < newest:
        # The newest rows were deleted and their numbers are reused, so they no longer tell what is new.
        changes.wake_all()
    elif last > newest:
        fresh = text("SELECT DISTINCT organisation, sandbox, job_id FROM job_update WHERE rowid > :newest")
        for organisation, sandbox, job_id in await connection.execute(fresh, {"newest": newest}):
            tenant = Tenant(organisation, sandbox)
            changes.wake(job_topic(tenant, job_id), jobs_topic(tenant))
    return last


async def _scalar(connection: AsyncConnection, statement: str) -> int:
    return int((await connection.exec_driver_sql(statement)).scalar() or 0)
