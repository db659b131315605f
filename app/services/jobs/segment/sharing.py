"""A pass of a segment job on many workers: if it takes seconds, its buckets become shares that any worker can claim.

The worker that holds the job publishes the shares and claims some like the helpers, which have no job of their own at
that time. When nothing is left to claim, it waits for the shares of helpers, and evaluates them itself if they take too
long. If a helper dies or hangs, only its shares are repeated, and each bucket is recorded once, by the worker that
claimed it last. Only the holder writes progress and the notes that passes leave for later ones.
"""

import asyncio
import json
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any, Self, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.engine.limits.pool import Cancelled, Stopped
from app.engine.run.engine import Done, Engine, LocalEngine, program
from app.engine.store.lake import Lake, write_atomically
from app.errors import EngineAway
from app.scope import Tenant
from app.services.jobs.segment.passes import SegmentPass
from app.storage.columns import StoredValues
from app.storage.database import Database
from app.storage.queue.attempts import Attempt
from app.storage.queue.shares import (
    UNTIL_THE_END,
    Share,
    SharedWork,
    ShareLost,
    claim_shares,
    done_shares,
    publish_shares,
    record_share,
    results_of_shares,
    withdraw_shares,
)
from app.storage.queue.workers import live_workers

ALONE_SECONDS = 0.5
"""How long the holder works alone before it looks for other workers, and between two looks."""
WORTH_SECONDS = 2.0
"""Remaining time below which a pass is not shared."""
SHARE_SECONDS = 0.5
"""Estimated amount of work that a worker claims at a time."""
PATIENCE_SECONDS = 1.0
"""How much longer than estimated a helper may hold a share before the holder takes it over."""
LOOK_SECONDS = 0.2
"""How often a holder without work of its own checks for results of helpers."""
RESULTS_AT_ONCE = 200

_WORK = "work.json"

T = TypeVar("T")


@dataclass(slots=True)
class Claims:
    """The buckets that a worker has claimed: hands them out one by one, and claims more on request.

    Call the methods on the engine's thread; database calls run on `loop`. While the database is unavailable, the holder
    of a job waits (`patiently`), and a helper fails.
    """

    database: Database
    clock: Clock
    owner: str
    lease: timedelta
    threads: int
    loop: asyncio.AbstractEventLoop
    patiently: Callable[[Callable[[], Awaitable[Any]]], Coroutine[Any, Any, Any]] | None = None
    held: dict[int, Share] = field(default_factory=dict)
    """Shares that are claimed but not recorded, by bucket."""
    _waiting: deque[int] = field(default_factory=deque)
    _done: int = 0
    _seconds: float = 0.0

    def ask(self, act: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Runs `act` on the event loop and returns its result."""
        asked = self.patiently(act) if self.patiently is not None else act()
        answer: T = asyncio.run_coroutine_threadsafe(asked, self.loop).result()
        return answer

    def next(self) -> int | None:
        return self._waiting.popleft() if self._waiting else None

    def claim(self, work: SharedWork, *, held: bool = False) -> bool:
        """Claims more buckets; returns false if there were none."""
        most = max(round(self.threads * SHARE_SECONDS / self.seconds), 1) if self._done else self.threads
        shares = self.ask(
            lambda: claim_shares(self.database, self.clock, work, self.owner, self.lease, most, held=held)
        )
        self.held |= {share.bucket: share for share in shares}
        self._waiting.extend(share.bucket for share in shares)
        return bool(shares)

    def note(self, done: Done) -> None:
        self._done, self._seconds = self._done + 1, self._seconds + done.seconds

    @property
    def seconds(self) -> float:
        """Average seconds per bucket; 0 before the first."""
        return max(self._seconds / self._done, 1e-6) if self._done else 0.0


# ---------------------------------------------------------------- the worker that holds the job


@dataclass(slots=True)
class SharedPass:
    """A pass run by the job's holder: alone at first, and with helpers if the remaining work is worth it.

    `finished` is called for buckets that this worker finished without sharing, `noted` for shared buckets, whichever
    worker finished them. Both are called on the thread of `run`.
    """

    attempt: Attempt
    work: SegmentPass
    part: int
    engine: Engine
    finished: Callable[[Done], None]
    noted: Callable[[Done], None]
    claims: Claims
    _mine: deque[int] = field(default_factory=deque)
    _shared: SharedWork | None = None
    _others: set[int] = field(default_factory=set)
    """Shared buckets that are not known to be finished."""
    _looked: float = 0.0
    _files: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def of(
        cls,
        attempt: Attempt,
        work: SegmentPass,
        part: int,
        engine: Engine,
        finished: Callable[[Done], None],
        noted: Callable[[Done], None],
    ) -> Self:
        loop, claim = asyncio.get_running_loop(), attempt.claim
        # The holder's claims last as long as the job.
        threads, patiently = engine.parallel, attempt.patiently
        claims = Claims(attempt.database, attempt.clock, claim.owner, UNTIL_THE_END, threads, loop, patiently)
        return cls(attempt, work, part, engine, finished, noted, claims)

    def run(self, buckets: Collection[int]) -> None:
        """Evaluates the buckets. Raises `Cancelled`, and the exceptions of `Engine.run`."""
        if not self.engine.lazy:
            self.engine.run(self.work, buckets, self.finished, self.attempt.interrupted)
            return
        self._mine, self._looked = deque(buckets), time.monotonic()
        with self._files:
            self._evaluate()
            while self._shared is not None and self._wait():
                self._evaluate()
            if self._shared is not None:
                self.claims.ask(lambda: withdrawn(self.attempt))

    def _evaluate(self) -> None:
        self.engine.run(self.work, self, self._finished, self.attempt.interrupted)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        """The next bucket for the engine, which asks again after each finished bucket, even after a `StopIteration`."""
        if self._shared is None and self._is_worth_it():
            self._publish()
        if self._mine:
            return self._mine.popleft()
        if self._shared is None:
            raise StopIteration
        bucket = self.claims.next()
        if bucket is None and self.claims.claim(self._shared):
            self._look()
            bucket = self.claims.next()
        if bucket is None:
            raise StopIteration
        return bucket

    def _finished(self, done: Done) -> None:
        self.claims.note(done)
        share, shared = self.claims.held.pop(done.bucket, None), self._shared
        if share is None or shared is None:
            self.finished(done)
            return
        result, row = recorded(self.work, self.attempt.tenant, done)
        try:
            self.claims.ask(lambda: self.attempt.record_share(shared, share, result, row))
        except ShareLost:
            return  # Another worker has taken the bucket over.
        self._note(done.bucket, result)

    # ------------------------------------------------------------ sharing

    def _is_worth_it(self) -> bool:
        remaining = len(self._mine) * self.claims.seconds / max(self.engine.parallel, 1)
        if not self._mine or remaining < WORTH_SECONDS or time.monotonic() - self._looked < ALONE_SECONDS:
            return False
        self._looked = time.monotonic()
        return self.claims.ask(lambda: self._live_workers()) > 1

    async def _live_workers(self) -> int:
        async with self.attempt.database.session() as session:
            return await live_workers(session, self.attempt.clock())

    def _publish(self) -> None:
        folder = self._files.enter_context(self.work.lake.scratch())
        order = {"program": program(), "work": self.work.as_json()}
        message = self.work.lake.told(folder.name, _WORK)
        self._files.callback(message.unlink, missing_ok=True)
        write_atomically(message, json.dumps(order).encode())
        shared = SharedWork(self.attempt.tenant, self.attempt.job.id, self.attempt.token, folder.name, self.part)
        buckets = list(self._mine)
        self.claims.ask(lambda: self.attempt.write(lambda session: publish_shares(session, shared, buckets)))
        self._shared, self._others = shared, set(buckets)
        self._mine.clear()

    def _wait(self) -> bool:
        """Waits until a bucket can be claimed, which includes buckets that helpers have held for too long. Returns
        false once all buckets are finished. Raises `Cancelled`."""
        assert self._shared is not None
        # Helpers claim about as much work at a time as this worker, and may have had to wait.
        patience = time.monotonic() + PATIENCE_SECONDS + 2 * (SHARE_SECONDS + 3 * self.claims.seconds)
        while self._look():
            if self.attempt.interrupted():
                raise Cancelled
            if self.claims.claim(self._shared, held=time.monotonic() >= patience):
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _look(self) -> bool:
        """Records the results of helpers; returns whether any bucket is unfinished."""
        finished = sorted(self._others & self.claims.ask(lambda: self._done_shares()))
        for start in range(0, len(finished), RESULTS_AT_ONCE):
            results = self.claims.ask(partial(self._results, finished[start : start + RESULTS_AT_ONCE]))
            for bucket, result in results.items():
                self._note(bucket, result)
        return bool(self._others)

    async def _done_shares(self) -> set[int]:
        assert self._shared is not None
        async with self.attempt.database.session() as session:
            return await done_shares(session, self._shared)

    async def _results(self, buckets: list[int]) -> dict[int, Any]:
        assert self._shared is not None
        async with self.attempt.database.session() as session:
            return await results_of_shares(session, self._shared, buckets)

    def _note(self, bucket: int, result: StoredValues) -> None:
        self._others.discard(bucket)
        self.noted(Done(bucket, result.get("file", ""), result["profiles"], result.get("counts", {})))


def recorded(work: SegmentPass, tenant: Tenant, done: Done) -> tuple[StoredValues, StoredValues | None]:
    """The result that a share stores for a finished bucket, and the bucket's row in the job. Only the last pass has
    rows; in other passes the holder writes the result as a note."""
    if not work.is_last:
        return {"file": done.file, "profiles": done.profiles, "counts": done.counts}, None
    row = {
        "organisation": tenant.organisation,
        "sandbox": tenant.sandbox,
        "job_id": work.job_id,
        "bucket": done.bucket,
        "attempt": work.attempt,
        "file": done.file,
        "profiles": done.profiles,
        "counts": done.counts,
    }
    return {"profiles": done.profiles}, row


async def withdrawn(attempt: Attempt) -> list[tuple[int, int, StoredValues]]:
    """Withdraws all shares of a job, including those of an earlier attempt: no worker can claim or record them any
    more.

    Returns part, bucket and result of the finished ones.
    """
    results: list[tuple[int, int, StoredValues]] = []

    async def withdraw(session: AsyncSession) -> None:
        results[:] = await withdraw_shares(session, attempt.tenant, attempt.job.id)

    await attempt.write(withdraw)
    return results


# ---------------------------------------------------------------- the others


def opened(lake: Lake, work: SharedWork, threads: int) -> SegmentPass:
    """Opens the pass for a helper, in its own process and with its own memory limit.

    Raises `EngineAway` if this process cannot help, and `FileNotFoundError` if the pass has ended.
    """
    tenant = lake.tenant(work.tenant)
    order = json.loads(tenant.told(work.name, _WORK).read_bytes())
    if order["program"] != program():
        raise EngineAway(f"its holder runs {order['program']}, and this worker {program()}")
    own = {"root": str(lake.root), "memory_limit": lake.memory_limit}
    message = {**order["work"], "lake": {**order["work"]["lake"], **own}}
    return replace(SegmentPass.from_json(message), parallel=threads, writer=secrets.token_hex(4))


@dataclass(slots=True)
class Helper:
    """Evaluates shares of a job that another worker holds. Claims more only while `free`; ends early once `stopped`.

    `done` counts the buckets that it has recorded.
    """

    work: SharedWork
    own: SegmentPass
    claims: Claims
    free: Callable[[], bool]
    stopped: Stopped
    done: int = 0

    def run(self) -> None:
        """Evaluates shares until none are left. Raises `Cancelled`, `LeaseLost` if the job has ended or has another
        holder, and the exceptions of a bucket's evaluation."""
        LocalEngine(self.claims.threads).run(self.own, self, self._finished, self.stopped)

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        bucket = self.claims.next()
        if bucket is None and self.free() and self.claims.claim(self.work):
            bucket = self.claims.next()
        if bucket is None:
            raise StopIteration
        return bucket

    def _finished(self, done: Done) -> None:
        claims = self.claims
        claims.note(done)
        share, (result, row) = claims.held.pop(done.bucket), recorded(self.own, self.work.tenant, done)
        try:
            claims.ask(lambda: record_share(claims.database, claims.clock(), self.work, share, result, row))
        except ShareLost:
            return  # Another worker has taken the bucket over.
        self.done += 1
