"""One attempt at a job, as seen by the code that runs the job; does not know what the job computes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import case, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.clock import Clock
from app.scope import Tenant
from app.storage.columns import StoredValues, columns, table
from app.storage.database import Database, is_unavailable
from app.storage.job_log import KINDS
from app.storage.queue.claims import Claim, TransactionBody, change_job, ended, fence, hand_back
from app.storage.queue.leases import LeaseLost
from app.storage.queue.shares import Share, SharedWork, settle_share
from app.storage.tables.jobs import FINAL, JobBucketRow, JobPhase, JobStatus
from app.storage.tenancy import within

__all__ = ["Attempt", "BucketAlreadyRecorded", "LeaseLost"]

PROGRESS_SECONDS = 0.2
"""Minimum interval between writes of progress: at most 5 a second."""
_PATIENCE = (0.1, 0.2, 0.5, 1.0, 2.0)

Result = TypeVar("Result")
_BUCKETS = table(JobBucketRow)


class BucketAlreadyRecorded(Exception):
    """An earlier attempt has already finished this bucket. Skip the buckets in `done_buckets`."""


class Attempt:
    """A claimed job while a worker runs it.

    Plain methods may be called from any thread and do not block. Coroutines run on the event loop; those that write are
    fenced and raise `LeaseLost`, which the caller must not catch. While the database is unavailable they wait.
    """

    def __init__(
        self, database: Database, clock: Clock, claim: Claim, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.database = database
        self.clock = clock
        self.claim = claim
        self.job: Any = claim.row
        """The job's row, from the table of its kind, as of the claim."""
        self.ended_as: str | None = None
        """The final status, once this attempt has ended the job."""
        self._monotonic = monotonic
        self._cancelled = self._stopped = self._lost = False
        self._forgiven = claim.row.lost_leases == 0
        self._progress: StoredValues | None = None
        self._told: StoredValues | None = None
        self._written = float("-inf")

    @property
    def tenant(self) -> Tenant:
        return self.claim.tenant

    @property
    def token(self) -> int:
        """The fencing token: the number of this attempt, 1 for the first."""
        return self.claim.token

    # ------------------------------------------------------------ state that the work reads

    def cancelled(self) -> bool:
        """Whether a client has requested cancellation of the job."""
        return self._cancelled

    def stopping(self) -> bool:
        """Whether this attempt should end early, unfinished: the worker is stopping, or the lease is lost."""
        return self._stopped or self._lost

    def interrupted(self) -> bool:
        """Whether the job is cancelled or the attempt is stopping."""
        return self._cancelled or self.stopping()

    # ------------------------------------------------------------ signals from the worker

    def note_status(self, status: JobStatus) -> None:
        self._cancelled = self._cancelled or status == JobStatus.CANCELLING

    def note_loss(self) -> None:
        self._lost = True

    def stop(self) -> None:
        self._stopped = True

    @property
    def lost(self) -> bool:
        return self._lost

    # ------------------------------------------------------------ progress

    def progress(
        self,
        phase: JobPhase,
        fraction: float,
        profiles_read: int,
        total_profiles: int,
        seconds_left: float | None = None,
        **columns: object,
    ) -> None:
        """Sets the progress that the next write stores, replacing earlier values. The stored fraction never decreases.

        `columns` are additional progress columns of the job's kind.
        """
        self._progress = {
            "phase": str(phase),
            "fraction": min(max(fraction, 0.0), 1.0),
            "profiles_read": profiles_read,
            "total_profiles": total_profiles,
            "seconds_left": seconds_left,
            **columns,
        }

    def progress_due(self) -> bool:
        """Whether there is progress to write and the write interval has passed."""
        return self._progress is not self._told and self._monotonic() - self._written >= PROGRESS_SECONDS

    async def write_progress(self) -> None:
        """Writes the latest progress if it is due. Raises `LeaseLost`; does not wait for an unavailable database."""
        if self.progress_due():
            async with self.database.write() as session:
                self.note_status(await fence(session, self.claim, self.clock()))
                await self._log_progress(session)

    async def _log_progress(self, session: AsyncSession, **others: object) -> None:
        telling = self._progress
        await change_job(session, self.claim, self.clock(), **self._noted(), **others)
        # Progress set during the write has not been written yet.
        self._told, self._written = telling, self._monotonic()

    def _noted(self) -> StoredValues:
        """The latest progress, as column values."""
        values = dict(self._progress or {})
        of = columns(KINDS[self.claim.kind])
        for name in ("fraction", "profiles_read"):
            if name in values:
                # A later attempt starts from the finished buckets, which may be less than its predecessor reported.
                new = literal(values[name], of[name].type)
                values[name] = case((of[name] < new, new), else_=of[name])
        return values

    # ------------------------------------------------------------ fenced writes

    async def write(self, work: TransactionBody) -> None:
        """Runs `work` in a transaction that commits only while this attempt holds the job.

        It runs again after a lost connection, even if the first commit succeeded: `work` must be idempotent.
        """

        async def attempt(session: AsyncSession) -> None:
            self.note_status(await fence(session, self.claim, self.clock()))
            await work(session)

        await self._transaction(attempt)

    async def update(self, **columns: Any) -> None:
        """Updates columns of the job and logs the change."""

        async def work(session: AsyncSession) -> None:
            await change_job(session, self.claim, self.clock(), **columns)

        await self.write(work)

    async def record_bucket(
        self,
        bucket: int,
        file: str,
        profiles: int,
        counts: Mapping[str, object],
        note: Callable[[], None] | None = None,
    ) -> None:
        """Records a bucket as finished, with its result file, and writes progress if it is due.

        `note` may set progress that counts this bucket; that progress is written only together with the bucket. Raises
        `BucketAlreadyRecorded`.
        """

        async def work(session: AsyncSession) -> None:
            recorded = within(select(_BUCKETS.c.attempt, _BUCKETS.c.file), JobBucketRow, self.tenant)
            key = (_BUCKETS.c.job_id == self.claim.job_id, _BUCKETS.c.bucket == bucket)
            earlier = (await session.execute(recorded.where(*key))).first()
            if earlier is not None:
                if (earlier.attempt, earlier.file) == (self.token, file):
                    return  # The commit had succeeded; only the reply was lost.
                raise BucketAlreadyRecorded(f"bucket {bucket} was finished by attempt {earlier.attempt}")
            await session.execute(insert(_BUCKETS).values(**self._bucket(bucket, file, profiles, counts)))
            if note is not None:
                note()
            if self.progress_due():
                await self._log_progress(session, lost_leases=0)
            elif not self._forgiven:
                await change_job(session, self.claim, self.clock(), lost_leases=0)
            self._forgiven = True

        await self.write(work)

    async def done_buckets(self) -> dict[int, JobBucketRow]:
        """The buckets that this or an earlier attempt has finished, by number."""

        async def read() -> dict[int, JobBucketRow]:
            async with self.database.session() as session:
                mine = within(select(*_BUCKETS.c), JobBucketRow, self.tenant)
                rows: Any = await session.execute(mine.where(_BUCKETS.c.job_id == self.claim.job_id))
                return {row.bucket: row for row in rows}

        return await self.patiently(read)

    async def finish(
        self,
        status: JobStatus,
        *,
        errors: Sequence[Mapping[str, object]] = (),
        metrics: Mapping[str, object] | None = None,
        write: TransactionBody | None = None,
    ) -> str:
        """Ends the job and runs `write` in the same transaction. Returns the final status.

        If cancellation was requested meanwhile, the job ends as CANCELLED and `write` does not run.
        """

        async def attempt(session: AsyncSession) -> str:
            now = self.clock()
            current = await fence(session, self.claim, now)
            final = JobStatus.CANCELLED if current == JobStatus.CANCELLING else JobStatus(status)
            values = ended(final, now)
            if final == status:
                if write is not None:
                    await write(session)
                values |= {"errors": [dict(error) for error in errors]}
                if metrics is not None:
                    values["metrics"] = dict(metrics)
            await change_job(session, self.claim, now, **{**self._noted(), **values})
            return final.value

        try:
            self.ended_as = await self._transaction(attempt)
        except LeaseLost:
            # An earlier try may have committed although its reply was lost.
            self.ended_as = await self._own_end()
            if self.ended_as is None:
                raise
        return self.ended_as

    async def hand_back(self) -> None:
        """Releases the unfinished job, so that any worker can claim it at once."""
        await self.patiently(lambda: hand_back(self.database, self.claim, self.clock()))

    async def record_share(
        self, work: SharedWork, share: Share, result: Mapping[str, object], row: StoredValues | None
    ) -> None:
        """Records a claimed bucket as finished, and its `row` among the job's buckets, if any. Raises `ShareLost`."""

        async def settle(session: AsyncSession) -> None:
            await settle_share(session, work, share, result)
            if row is not None:
                await session.execute(insert(_BUCKETS).values(**row, at=self.clock()))

        await self.write(settle)

    async def patiently(self, act: Callable[[], Awaitable[Result]]) -> Result:
        """Retries while the database is unavailable, unless this attempt is stopping."""
        failures = 0
        while True:
            try:
                return await act()
            except LeaseLost:
                self.note_loss()
                raise
            except Exception as error:
                if self.stopping() or not is_unavailable(error):
                    raise
                await asyncio.sleep(_PATIENCE[min(failures, len(_PATIENCE) - 1)])
                failures += 1

    # ------------------------------------------------------------ internals

    def _bucket(self, bucket: int, file: str, profiles: int, counts: Mapping[str, object]) -> StoredValues:
        return {
            "organisation": self.tenant.organisation,
            "sandbox": self.tenant.sandbox,
            "job_id": self.claim.job_id,
            "bucket": bucket,
            "attempt": self.token,
            "file": file,
            "profiles": profiles,
            "counts": dict(counts),
            "at": self.clock(),
        }

    async def _own_end(self) -> str | None:
        """The job's final status if this attempt ended it, else None."""
        of = columns(KINDS[self.claim.kind])

        async def read() -> str | None:
            async with self.database.session() as session:
                asked = within(select(of.status), KINDS[self.claim.kind], self.tenant)
                mine = asked.where(of.id == self.claim.job_id, of.attempts == self.token)
                status = (await session.execute(mine)).scalar()
                return str(status) if status in FINAL else None

        return await self.patiently(read)

    async def _transaction(self, attempt: Callable[[AsyncSession], Awaitable[Result]]) -> Result:
        async def once() -> Result:
            async with self.database.write() as session:
                return await attempt(session)

        return await self.patiently(once)
