"""The update log of jobs, and who is woken when it grows: within a process, and across processes."""

import asyncio
import hashlib
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, Self

from sqlalchemy import func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.scope import Tenant
from app.storage.columns import columns, table
from app.storage.database import Database, announce, connect_postgresql, is_unavailable
from app.storage.tables.export_jobs import ExportJobRow
from app.storage.tables.jobs import FINAL, RUNNING, WAITING, JobColumns, JobUpdateRow
from app.storage.tables.previews import PreviewRow
from app.storage.tables.segment_jobs import SegmentJobRow
from app.storage.tenancy import within

log = logging.getLogger(__name__)

CHANNEL = "segmentation"
LOOK_SECONDS = 0.2
"""How often SQLite is asked whether another process has written."""
PATIENCE_SECONDS = 5.0
"""How often a log is looked at without a wake-up."""
TAIL_STATES = 128
"""States of a job that are kept for all who watch it, and that one read of the log gives."""
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0)

JOBS: dict[str, type[JobColumns]] = {"SEGMENT": SegmentJobRow, "EXPORT": ExportJobRow}
"""Every kind of job, with its table."""
KINDS: dict[str, type[JobColumns]] = {**JOBS, "PREVIEW": PreviewRow}
"""All that is queued and logged as jobs are. Previews are no jobs to their users: no list and no stream has them."""

_TOLD_AT_ONCE = 1_000
"""PostgreSQL refuses a row of more than 1,664 columns."""
_UPDATES = columns(JobUpdateRow)
_PRIVATE = frozenset({"idempotency_key", "lease_owner", "lease_until", "lost_leases", "snapshot", "expression"})
"""Columns of a job that are no part of its visible state, or are long and never change."""
_QUEUED = WAITING | RUNNING


class JobKey(Protocol):
    """What names a job: a row of its table, or anything else with its key."""

    @property
    def organisation(self) -> str: ...
    @property
    def sandbox(self) -> str: ...
    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class JobState:
    """A job of any kind as it was or is; `row` reads like a row of the kind's table."""

    kind: str
    row: Any


@dataclass(frozen=True, slots=True)
class Topic:
    """What one can be woken for. A wake-up says "look again", no more, so it may also come for nothing."""

    kind: str
    organisation: str = ""
    sandbox: str = ""
    id: str = ""

    @property
    def digest(self) -> str:
        """The topic as the payload of a notification, which must be short."""
        name = "\0".join((self.kind, self.organisation, self.sandbox, self.id))
        return hashlib.blake2b(name.encode(), digest_size=16).hexdigest()


QUEUE = Topic("queue")
"""There may be something for a worker to do."""
SCHEDULES = Topic("schedules")
"""Something may be due at another time than before."""
STREAMS = Topic("streams")
"""There may be a batch whose people are to be evaluated."""


def job_topic(tenant: Tenant, id: str) -> Topic:
    """One job has changed."""
    return Topic("job", tenant.organisation, tenant.sandbox, id)


def jobs_topic(tenant: Tenant) -> Topic:
    """Some job of the tenant has changed."""
    return Topic("jobs", tenant.organisation, tenant.sandbox)


def audience_topic(tenant: Tenant, id: str) -> Topic:
    """One audience has changed: its fields, its numbers or its members."""
    return Topic("audience", tenant.organisation, tenant.sandbox, id)


# ---------------------------------------------------------------- the log


async def append_update(session: AsyncSession, job: JobKey, kind: str = "SEGMENT") -> None:
    """Logs the job as it is in this transaction, under its next `sequence`; subscribers wake after the commit.

    Sequences have no gaps and are committed in order, since taking one locks the job's row. A row object that the
    caller holds is not refreshed.
    """
    await session.flush()
    row = KINDS[kind]
    of = columns(row)
    tenant = Tenant(job.organisation, job.sandbox)
    taken = within(update(table(row)), row, tenant).where(of.id == job.id)
    state = (await session.execute(taken.values(sequence=of.sequence + 1).returning(*of))).one()
    values = {
        "organisation": job.organisation,
        "sandbox": job.sandbox,
        "job_id": job.id,
        "sequence": state.sequence,
        "kind": kind,
        "state": {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in state._mapping.items()
            if name not in _PRIVATE
        },
        "at": state.updated_at,
    }
    await session.execute(insert(table(JobUpdateRow)).values(values))
    topics = {job_topic(tenant, job.id)} | ({jobs_topic(tenant)} if kind in JOBS else set())
    if state.status in FINAL or (state.status in _QUEUED and state.lease_until is None):
        # The end of a job may be what another one waits for.
        topics.add(QUEUE)
    await publish(session, *topics)


async def read_updates(
    session: AsyncSession, tenant: Tenant, job_id: str, after: int, limit: int | None = None
) -> list[JobState]:
    """The states of a job with a sequence above `after`, in order; with a `limit` the first of them."""
    statement = within(select(_UPDATES.kind, _UPDATES.state), JobUpdateRow, tenant)
    later = (
        statement.where(_UPDATES.job_id == job_id, _UPDATES.sequence > after).order_by(_UPDATES.sequence).limit(limit)
    )
    return [JobState(kind, _state(kind, state)) for kind, state in await session.execute(later)]


async def changed_jobs(session: AsyncSession, tenant: Tenant, since: datetime) -> dict[str, int]:
    """The jobs of a tenant that changed at `since` or later, with the newest sequence of each.

    Times are set before a transaction commits: ask again from a few seconds earlier, and compare sequences.
    """
    statement = within(select(_UPDATES.job_id, func.max(_UPDATES.sequence)), JobUpdateRow, tenant)
    recent = statement.where(_UPDATES.at >= since, _UPDATES.kind.in_(JOBS))
    rows = await session.execute(recent.group_by(_UPDATES.job_id))
    return {job_id: int(sequence) for job_id, sequence in rows}


async def publish(session: AsyncSession, *topics: Topic) -> None:
    """Wakes the topics' subscribers, here and in other processes, once this transaction is committed."""
    announce(session, *topics)
    if session.get_bind().dialect.name == "postgresql":
        payloads = [func.pg_notify(CHANNEL, topic.digest) for topic in sorted(topics, key=lambda topic: topic.kind)]
        for start in range(0, len(payloads), _TOLD_AT_ONCE):
            await session.execute(select(*payloads[start : start + _TOLD_AT_ONCE]))


def _state(kind: str, state: dict[str, Any]) -> Any:
    row = KINDS[kind]
    of = columns(row)
    values: dict[str, Any] = {
        name: datetime.fromisoformat(value) if value is not None and of[name].type.python_type is datetime else value
        for name, value in state.items()
        if name in of
    }
    return row(**values)


# ---------------------------------------------------------------- wake-ups


class Wakeups:
    """The wake-ups of one subscriber: one flag, so a slow one costs nothing and misses nothing that it then reads."""

    def __init__(self) -> None:
        self._flag = asyncio.Event()

    def set(self) -> None:
        self._flag.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Waits for the next wake-up and takes it; false when none came within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._flag.wait()
        except TimeoutError:
            return False
        self._flag.clear()
        return True

    @property
    def pending(self) -> bool:
        """Whether a wake-up has come that nobody has taken."""
        return self._flag.is_set()

    def take(self) -> None:
        """Takes the wake-up that has come, if one has."""
        self._flag.clear()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> None:
        await self.wait()


class Tail:
    """The newest states of one job, read once for all who watch it in this process; the log has the others.

    However many watch, an update costs one read. A slow one falls behind on its own: it goes on from the log, in parts.
    """

    def __init__(self, database: Database, tenant: Tenant, job_id: str, newest: int, wakeups: Wakeups) -> None:
        self._database = database
        self._job = (tenant, job_id)
        self._newest = newest - 1
        self._recent: deque[JobState] = deque(maxlen=TAIL_STATES)
        self.wakeups = wakeups
        self._turn = asyncio.Lock()
        self._read_at = time.monotonic()
        self.readers = 0

    async def after(self, sequence: int, known: int) -> list[JobState]:
        """The next states above `sequence`, in order, none when there are none; `known` is one that there is."""
        # While somebody reads, the wake-up is taken and its news are not there yet: wait for them.
        if self._turn.locked() or self._outdated(known):
            async with self._turn:
                if self._outdated(known):
                    await self._read()
        if self._recent and self._recent[0].row.sequence <= sequence + 1:
            return [state for state in self._recent if state.row.sequence > sequence]
        return await self._logged(sequence)

    def _outdated(self, known: int) -> bool:
        # A wake-up that got lost on its way costs seconds and not the stream.
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


class Changes:
    """Wakes subscribers of this process, whichever process made the change. Open it with `Changes.open`."""

    def __init__(self) -> None:
        self._subscribers: dict[Topic, set[Wakeups]] = {}
        self._topics: dict[str, Topic] = {}
        self._tails: dict[Topic, Tail] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, database: Database) -> AsyncIterator[Self]:
        """Listens to the database until the block ends; while the connection is away, it tries again and again."""
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
        """Wake-ups from now on. Subscribe first and read the log afterwards: then nothing falls between the two."""
        wakeups = self._add(topic)
        try:
            yield wakeups
        finally:
            self._drop(topic, wakeups)

    @contextmanager
    def tail(self, database: Database, tenant: Tenant, job_id: str, newest: int) -> Iterator[Tail]:
        """The job's tail, shared by all who watch it; `newest` is the newest sequence that the caller knows of."""
        topic = job_topic(tenant, job_id)
        tail = self._tails.get(topic)
        if tail is None:
            tail = self._tails[topic] = Tail(database, tenant, job_id, newest, self._add(topic))
        tail.readers += 1
        try:
            yield tail
        finally:
            tail.readers -= 1
            if not tail.readers:
                del self._tails[topic]
                self._drop(topic, tail.wakeups)

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
        """Everybody, or everybody whose topic is not told by the update log."""
        self.wake(*(topic for topic in self._subscribers if not but_jobs or topic.kind not in {"job", "jobs"}))


async def _keep_listening(database: Database, changes: Changes, source: Any, ready: asyncio.Event) -> None:
    failures = 0
    while True:
        try:
            async for _ in source(database, changes):
                # Whatever happened while nobody listened is made up for by one look of everybody.
                changes.wake_all()
                ready.set()
                failures = 0
        except Exception as error:
            if not is_unavailable(error):
                log.exception("listening for changes failed, and is tried again")
            ready.set()
        await asyncio.sleep(RECONNECT_SECONDS[min(failures, len(RECONNECT_SECONDS) - 1)])
        failures += 1


async def _notifications(database: Database, changes: Changes) -> AsyncIterator[None]:
    """PostgreSQL tells. Yields once it listens; ends when the connection does."""
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
    """SQLite is asked. Yields once it is looked at; ends when it cannot be."""
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
    """Wakes those whose jobs have new rows in the log. SQLite numbers rows in the order of their insertion."""
    last = await _scalar(connection, "SELECT max(rowid) FROM job_update")
    if last < newest:
        # Newest rows were deleted, so numbers are given again: they no longer say what is new.
        changes.wake_all()
    elif last > newest:
        fresh = text("SELECT DISTINCT organisation, sandbox, job_id FROM job_update WHERE rowid > :newest")
        for organisation, sandbox, job_id in await connection.execute(fresh, {"newest": newest}):
            tenant = Tenant(organisation, sandbox)
            changes.wake(job_topic(tenant, job_id), jobs_topic(tenant))
    return last


async def _scalar(connection: AsyncConnection, statement: str) -> int:
    return int((await connection.exec_driver_sql(statement)).scalar() or 0)
