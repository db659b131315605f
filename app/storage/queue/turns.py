"""The queue of streaming evaluation: batches waiting for evaluation, and which sandbox is next; knows no audiences.

One worker at a time takes all of a sandbox's waiting batches. Taking a turn increments its number, which is the fencing
token of its lease (`leases`).

`claim_turn` queries across tenants, since a worker serves all of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

from sqlalchemy import bindparam, delete, false, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.metrics import LEASES_TAKEN_OVER
from app.scope import Tenant
from app.storage.columns import columns, table
from app.storage.database import Database
from app.storage.job_log import KINDS
from app.storage.queue.leases import NOT_HELD, NOW, Due, Lease, is_free, take_next
from app.storage.tables.jobs import RUNNING
from app.storage.tables.streaming import StreamingBatchRow, StreamingTurnRow
from app.storage.tenancy import AnyRow, same_tenant, within
from app.storage.topics import STREAMS, publish

PAUSES = (timedelta(0), timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=30), timedelta(minutes=5))
"""Pause of a sandbox after one, two, … consecutive failures; the last value applies to any further failure."""

_TURNS = table(StreamingTurnRow)
_BATCHES = table(StreamingBatchRow)


@dataclass(frozen=True, slots=True)
class Turn:
    """A claimed turn of a sandbox. `number` is the fencing token.

    When a sweep is due (re-evaluation of all profiles for definitions that depend on the clock), it continues with the
    buckets after `sweep_after`.
    """

    tenant: Tenant
    number: int
    owner: str
    lease: timedelta
    sweep_after: int | None = None

    @property
    def held(self) -> Lease:
        key = {"turn": self.number, "lease_owner": self.owner}
        return Lease(f"turn {self.number} of {self.tenant}", StreamingTurnRow, self.tenant, key, self.lease)


@dataclass(frozen=True, slots=True)
class WaitingBatch:
    dataset_id: str
    batch_id: str


# ---------------------------------------------------------------- batches


async def queue_batch(
    session: AsyncSession, tenant: Tenant, dataset_id: str, batch_id: str, version: int, now: datetime
) -> None:
    """Queues a batch in the transaction that makes it visible; `version` is the dataset's version with the batch."""
    await _make_turn(session, tenant)
    key = {"organisation": tenant.organisation, "sandbox": tenant.sandbox, "batch_id": batch_id}
    values = {**key, "dataset_id": dataset_id, "version": version, "waiting": True, "created_at": now}
    await session.execute(insert(_BATCHES).values(**values))
    await publish(session, STREAMS)


async def forget_batch(session: AsyncSession, tenant: Tenant, batch_id: str) -> None:
    await session.execute(within(delete(_BATCHES), StreamingBatchRow, tenant).where(_BATCHES.c.batch_id == batch_id))


async def waiting_batches(session: AsyncSession, tenant: Tenant) -> list[WaitingBatch]:
    """Batches to evaluate, oldest first."""
    batches = within(select(_BATCHES.c.dataset_id, _BATCHES.c.batch_id), StreamingBatchRow, tenant)
    rows = await session.execute(batches.where(_BATCHES.c.waiting).order_by(_BATCHES.c.created_at, _BATCHES.c.batch_id))
    return [WaitingBatch(row.dataset_id, row.batch_id) for row in rows]


async def settle_batches(session: AsyncSession, tenant: Tenant, batches: Sequence[WaitingBatch], keep: bool) -> None:
    """Marks batches as evaluated. With `keep` they are kept for `requeue_batches`; otherwise all evaluated batches are
    deleted."""
    ids = [batch.batch_id for batch in batches]
    evaluated = within(update(_BATCHES), StreamingBatchRow, tenant).where(_BATCHES.c.batch_id.in_(ids))
    await session.execute(evaluated.values(waiting=False))
    if not keep:
        old = within(delete(_BATCHES), StreamingBatchRow, tenant)
        await session.execute(old.where(~_BATCHES.c.waiting))


async def requeue_batches(session: AsyncSession, tenant: Tenant, seen: Callable[[str, int], bool]) -> None:
    """Queues kept batches for another evaluation, except those for which `seen(dataset, version)` is true."""
    evaluated = within(
        select(_BATCHES.c.batch_id, _BATCHES.c.dataset_id, _BATCHES.c.version), StreamingBatchRow, tenant
    )
    rows = await session.execute(evaluated.where(~_BATCHES.c.waiting))
    again = [row.batch_id for row in rows if not seen(row.dataset_id, row.version)]
    if again:
        changed = within(update(_BATCHES), StreamingBatchRow, tenant).where(_BATCHES.c.batch_id.in_(again))
        await session.execute(changed.values(waiting=True))
        await publish(session, STREAMS)


async def job_runs(session: AsyncSession, tenant: Tenant) -> bool:
    """Whether a job of the sandbox has been claimed and has not ended: it may read an older version of the data."""
    for kind in KINDS.values():
        jobs = columns(kind)
        running = within(select(jobs.id), kind, tenant).where(jobs.status.in_(RUNNING)).limit(1)
        if (await session.execute(running)).first() is not None:
            return True
    return False


# ---------------------------------------------------------------- turns


async def claim_turn(
    database: Database, clock: Clock, *, owner: str, lease: timedelta, sweep_every: timedelta | None = None
) -> Turn | None:
    """Takes the turn of the sandbox whose batches have waited longest, else of one whose last sweep was `sweep_every`
    ago; None if no turn is due."""

    async def take(session: AsyncSession, row: AnyRow, now: datetime) -> Turn | None:
        turn = await _take(session, row, now, owner, lease)
        if turn is None or sweep_every is None or row.swept_at is None or now - sweep_every < row.swept_at <= now:
            return turn
        return replace(turn, sweep_after=-1 if row.swept_to is None else row.swept_to)

    return await take_next(database, clock, _due(sweep_every), take)


@dataclass(frozen=True, slots=True)
class Swept:
    """Sweep state after a turn: end of the last complete sweep, and the last bucket of one in progress."""

    at: datetime | None
    to: int | None = None


async def end_turn(session: AsyncSession, turn: Turn, swept: Swept) -> None:
    """Ends a completed turn, which `held.fence` has locked in this transaction."""
    sweep = {"swept_at": swept.at, "swept_to": swept.to}
    await _change(session, turn, **NOT_HELD, failures=0, not_before=None, **sweep)


async def last_sweep(session: AsyncSession, tenant: Tenant) -> datetime | None:
    """End of the last sweep; None before the first."""
    statement = within(select(_TURNS.c.swept_at), StreamingTurnRow, tenant)
    return (await session.execute(statement)).scalar_one_or_none()


async def all_evaluated(session: AsyncSession, tenant: Tenant, now: datetime) -> None:
    """Starts the interval until the first sweep, unless it has already started."""
    change = within(update(_TURNS), StreamingTurnRow, tenant).where(_TURNS.c.swept_at.is_(None))
    await session.execute(change.values(swept_at=now))


async def hand_back(database: Database, turn: Turn) -> None:
    """Releases the turn, so that any worker can take the next one at once; its work is still to do."""
    async with database.write() as session:
        if await _change(session, turn, **NOT_HELD):
            await publish(session, STREAMS)


async def postpone(database: Database, turn: Turn, now: datetime) -> timedelta:
    """Pauses the sandbox after a failure, longer after each; returns the pause."""
    async with database.write() as session:
        mine = within(select(_TURNS.c.failures), StreamingTurnRow, turn.tenant)
        failures = int((await session.execute(mine)).scalar_one()) + 1
        pause = _pause(failures)
        await _change(session, turn, **NOT_HELD, failures=failures, not_before=now + pause)
    return pause


async def lock_turn(session: AsyncSession, tenant: Tenant) -> None:
    """Prevents turns of the sandbox from ending until this transaction does. Required before changing membership
    heads."""
    await _make_turn(session, tenant)
    await session.execute(within(select(_TURNS.c.turn), StreamingTurnRow, tenant).with_for_update())


@lru_cache
def _due(sweep_every: timedelta | None) -> Due:
    c = _TURNS.c
    # A time in the future was stored while a clock was ahead.
    sweep = or_(c.swept_at <= bindparam("swept_by"), c.swept_at > NOW) if sweep_every is not None else false()
    oldest = (
        select(_BATCHES.c.organisation, _BATCHES.c.sandbox, func.min(_BATCHES.c.created_at).label("since"))
        .where(_BATCHES.c.waiting)
        .group_by(_BATCHES.c.organisation, _BATCHES.c.sandbox)
        .subquery("oldest")
    )
    rows = (
        select(*c)
        .join_from(_TURNS, oldest, same_tenant(c, oldest.c), isouter=True)
        .where(is_free(c), or_(c.not_before.is_(None), c.not_before <= NOW), or_(oldest.c.since.is_not(None), sweep))
        .order_by(oldest.c.since.is_(None), oldest.c.since, c.swept_at, c.organisation, c.sandbox)
    )
    return Due.of(rows, StreamingTurnRow, **({} if sweep_every is None else {"swept_by": sweep_every}))


async def _take(session: AsyncSession, row: AnyRow, now: datetime, owner: str, lease: timedelta) -> Turn | None:
    """Takes the turn in this transaction; None if its workers died so often that the sandbox must pause first."""
    tenant = Tenant(row.organisation, row.sandbox)
    died = row.lease_until is not None
    failures = row.failures + (1 if died else 0)
    if died:
        LEASES_TAKEN_OVER.labels("turn").inc()
    unchanged = within(update(_TURNS), StreamingTurnRow, tenant).where(_TURNS.c.turn == row.turn)
    if died and _pause(failures):
        rest = {**NOT_HELD, "failures": failures, "not_before": now + _pause(failures)}
        await session.execute(unchanged.values(**rest))
        return None
    values = {"turn": row.turn + 1, "lease_owner": owner, "lease_until": now + lease, "failures": failures}
    claimed = await session.execute(unchanged.values(**values).returning(_TURNS.c.turn))
    return None if claimed.first() is None else Turn(tenant, row.turn + 1, owner, lease)


def _pause(failures: int) -> timedelta:
    return PAUSES[min(failures, len(PAUSES)) - 1]


async def _change(session: AsyncSession, turn: Turn, **values: object) -> bool:
    change = turn.held.change().values(**values).returning(_TURNS.c.turn)
    return (await session.execute(change)).first() is not None


async def _make_turn(session: AsyncSession, tenant: Tenant) -> None:
    dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
    values = {"organisation": tenant.organisation, "sandbox": tenant.sandbox, "turn": 0, "failures": 0}
    await session.execute(dialect.insert(_TURNS).values(**values).on_conflict_do_nothing())
